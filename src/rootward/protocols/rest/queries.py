"""Query strings and cursors. An unknown, repeated or wrong parameter is RW-QUERY; a secret in a URL is
RW-SECRET-IN-URL.

A cursor is opaque: base64url of where the page before it ended, with a digest of the path and the filters that it
belongs to. It holds no right to anything, so it is not signed: who may see what is decided anew for each page.
"""

from __future__ import annotations

import hashlib
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from rootward.core.problems import Problem, shown

MAX_QUERY = 4_096  # bytes
PAGE = 50
MAX_PAGE = 500
SECRETS = frozenset(
    "token access_token id_token refresh_token auth_token bearer authorization password passwd passphrase secret "
    "client_secret api_key apikey key x-vault-token".split()
)
_PAGING = frozenset({"limit", "cursor"})
_ESCAPES = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_LIMIT = re.compile(r"[1-9][0-9]{0,2}", re.ASCII)
_CURSOR = re.compile(r"[A-Za-z0-9_-]{20,512}", re.ASCII)
_BIG = 1 << 63
Position = tuple[int | str, ...]


def refuse_secrets(query: bytes) -> None:
    """Problem RW-SECRET-IN-URL where a parameter is named like a secret: URLs end up in logs and histories (RFC 6750
    5.3).
    """
    for pair in query.split(b"&"):
        if pair.partition(b"=")[0].lower().decode("latin-1") in SECRETS:
            raise Problem("RW-SECRET-IN-URL", "A secret does not belong in a URL: use the header Authorization.")


def parse_query(query: bytes, allowed: frozenset[str]) -> dict[str, str]:
    """The parameters by name, each of `allowed` and there once. Problem RW-QUERY."""
    if not query:
        return {}
    if len(query) > MAX_QUERY:
        raise Problem("RW-QUERY", f"A query has at most {MAX_QUERY} bytes.")
    try:
        if _ESCAPES.search(query):
            raise ValueError("a % that begins no escape")
        pairs = parse_qsl(
            query.decode("ascii"), keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=32
        )
    except ValueError:
        raise Problem("RW-QUERY", "The query is not a list of name=value in UTF-8.") from None
    found: dict[str, str] = {}
    for name, value in pairs:
        if name not in allowed:
            raise Problem("RW-QUERY", f"There is no parameter {shown(name)} here.")
        if name in found:
            raise Problem("RW-QUERY", f"The parameter {name} is there twice.", field=name)
        if not value or not value.isprintable():
            raise Problem(
                "RW-QUERY", f"The parameter {name} is empty or has characters that cannot be printed.", field=name
            )
        found[name] = value
    return found


def limit_of(query: Mapping[str, str]) -> int:
    """How many items a page has: `limit`, 1 to 500, 50 where it is not said."""
    text = query.get("limit")
    if text is None:
        return PAGE
    if not _LIMIT.fullmatch(text) or int(text) > MAX_PAGE:
        raise Problem("RW-QUERY", f"limit is a whole number from 1 to {MAX_PAGE}.", field="limit")
    return int(text)


def encode_cursor(path: str, query: Mapping[str, str], position: Position) -> str:
    """A cursor of the list at `path` under the filters of `query`, after `position`."""
    packed = msgspec.msgpack.encode((1, _digest(path, query), *position))
    return urlsafe_b64encode(packed).rstrip(b"=").decode("ascii")


def decode_cursor(path: str, query: Mapping[str, str], kinds: tuple[type[int] | type[str], ...]) -> Position | None:
    """The position in `query["cursor"]`, of these types; None without a cursor; Problem RW-QUERY for one that is not
    ours.
    """
    text = query.get("cursor")
    if text is None:
        return None
    if _CURSOR.fullmatch(text):
        try:
            packed = urlsafe_b64decode(text + "=" * (-len(text) % 4))
            parts: Any = msgspec.msgpack.decode(packed)
        except (ValueError, msgspec.MsgspecError):
            parts = None
        if isinstance(parts, list) and parts[:2] == [1, _digest(path, query)]:
            position = tuple(parts[2:])
            if tuple(map(type, position)) == kinds and all(_fits(part) for part in position):
                return position
    raise Problem("RW-QUERY", "The cursor is not one of this list with these filters.", field="cursor")


def _fits(part: int | str) -> bool:
    """Whether a database takes it: a signed 64-bit number, or a text without odd characters."""
    return part.isprintable() if isinstance(part, str) else -_BIG <= part < _BIG


def _digest(path: str, query: Mapping[str, str]) -> bytes:
    filters = sorted((name, value) for name, value in query.items() if name not in _PAGING)
    return hashlib.sha256(msgspec.msgpack.encode((path, filters))).digest()[:12]
