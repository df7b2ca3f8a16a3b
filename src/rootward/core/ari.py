"""ACME renewal information (RFC 9773): how a certificate is named there, and when it should be renewed.

Of 4.1: `base64url(keyIdentifier of AKI) "." base64url(serial's DER content octets)`, both without padding.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from rootward.core.problems import Problem

_ID = re.compile(r"([A-Za-z0-9_-]{1,128})\.([A-Za-z0-9_-]{1,128})", re.ASCII)
_MOST_OCTETS: Final = 64
# The window begins after two thirds of a lifetime, so that a third is left for whatever goes wrong.
_BEGIN: Final = 2 / 3
_NARROW: Final = 1 / 24  # of the lifetime: the window of a certificate that few others end with
_WIDE: Final = 1 / 6  # and at most
_PACE: Final = 0.5  # seconds of window for each certificate that ends at the same time
_SHORTEST: Final = timedelta(minutes=1)


@dataclass(frozen=True)
class Window:
    """When to renew: at a random moment of it, or at once where its end has passed (RFC 9773 4.2)."""

    start: datetime
    end: datetime


def read_id(text: str) -> tuple[bytes, bytes]:
    """(key identifier, serial's content octets) of a certificate's identifier; Problem RW-MALFORMED for what is none.

    There is one form: no padding, no bits beyond the last octet, the serial as DER has it (with its leading zero octet
    where the next one would make it negative, and without any other).
    """
    match = _ID.fullmatch(text)
    if match is not None:
        key, serial = _octets(match[1]), _octets(match[2])
        if key and serial and len(key) <= _MOST_OCTETS and len(serial) <= _MOST_OCTETS and _is_positive(serial):
            return key, serial
    raise Problem("RW-MALFORMED", "This is not the identifier of a certificate (RFC 9773 4.1).", field="replaces")


def write_id(key_identifier: bytes, serial: bytes) -> str:
    """The inverse of `read_id`."""
    return f"{_text(key_identifier)}.{_text(serial)}"


def window(not_before: datetime, not_after: datetime, *, load: int, seed: bytes) -> Window:
    """When this certificate should be renewed. `load` is how many certificates of its issuer end within the same hour;
    `seed` (8 octets or more, the same each time) puts the window somewhere in the room that so many need, so that
    certificates that were made together are not renewed together.
    """
    lifetime = not_after - not_before
    width = max(min(lifetime * _NARROW + timedelta(seconds=_PACE * load), lifetime * _WIDE), _SHORTEST)
    room = max(lifetime * _WIDE - width, timedelta())
    begin = not_before + lifetime * _BEGIN + room * (int.from_bytes(seed[:8], "big") / 2**64)
    begin = begin.replace(microsecond=0)
    return Window(begin, max(begin + _whole(width), begin + timedelta(seconds=1)))


def past(now: datetime) -> Window:
    """Renew at once: a window that is over."""
    return Window(now - timedelta(hours=2), now - timedelta(hours=1))


def _whole(span: timedelta) -> timedelta:
    return timedelta(seconds=int(span.total_seconds()))


def _octets(text: str) -> bytes:
    try:
        found = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        return b""
    return found if _text(found) == text else b""


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _is_positive(content: bytes) -> bool:
    """Whether these are the content octets of a positive INTEGER in DER (X.690 8.3.2)."""
    return content[0] < 0x80 and any(content) and (len(content) == 1 or content[0] != 0 or content[1] >= 0x80)
