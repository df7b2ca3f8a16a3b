"""Which token, as a PKCS#11 URI (RFC 7512) says it: `pkcs11:token=rw?module-path=/usr/lib/softhsm/libsofthsm2.so`.

Pure, and strict: what is not understood here is refused, because a part that were left out could choose another token
than the one that was meant. PINs have no place in it: a URI stands in files that others may read, and in messages.
"""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

import msgspec

from rootward.core.problems import Problem, shown

_LONGEST = 1024
# RFC 7512 2.3: unreserved, pct-encoded, and the reserved characters that each part may have.
_PATH = re.compile(r"(?:[A-Za-z0-9\-._~:\[\]@!$'()*+,=&]|%[0-9A-Fa-f]{2})*", re.ASCII)
_QUERY = re.compile(r"(?:[A-Za-z0-9\-._~:\[\]@!$'()*+,=/?|]|%[0-9A-Fa-f]{2})*", re.ASCII)
# The fixed fields of CK_TOKEN_INFO, in bytes.
_FIELDS = {"token": 32, "manufacturer": 32, "model": 16, "serial": 16}
_MENDS = {
    "pin-value": "A PIN in a URI is in every file and message that has the URI. Name its place in the setting pin.",
    "pin-source": "The PIN's place is the setting pin: file:PATH, credential:NAME or prompt.",
    "module-name": "Every program looks a name up in other folders. Write module-path with the whole path.",
    "object": "Leave it out: a key is found by its authority's name and its public key.",
    "id": "Leave it out: a key is found by its authority's name and its public key.",
    "type": "Leave it out: a key is found by its authority's name and its public key.",
}


class TokenUri(msgspec.Struct, frozen=True):
    """A module's absolute path, and what the token must be; what is None or empty may be anything."""

    module: str
    token: str = ""
    manufacturer: str = ""
    model: str = ""
    serial: str = ""
    slot: int | None = None

    def __str__(self) -> str:
        said = [f"{name}={value}" for name in _FIELDS if (value := getattr(self, name))]
        said += [] if self.slot is None else [f"slot-id={self.slot}"]
        return " ".join(said)


def parse_token_uri(text: str) -> TokenUri:
    """Problem `RW-CONFIG` for whatever does not name a module and a token, or is not understood."""
    scheme, colon, rest = text.partition(":")
    if not colon or scheme.lower() != "pkcs11":
        raise _wrong(
            "begin with pkcs11: and name a token and its module, such as "
            "pkcs11:token=rw?module-path=/usr/lib/softhsm/libsofthsm2.so"
        )
    if len(text) > _LONGEST:
        raise _wrong(f"be no longer than {_LONGEST} characters")
    path, _, query = rest.partition("?")
    given = _pairs(path, ";", _PATH)
    asked = _pairs(query, "&", _QUERY)
    for name in [*given, *asked]:
        if name in _MENDS or name not in (*_FIELDS, "slot-id", "module-path"):
            raise _wrong(f"not have {shown(name)}", _MENDS.get(name, "That part is not understood here."))
        if (name == "module-path") != (name in asked):
            raise _wrong(f"have {name} {'behind' if name == 'module-path' else 'before'} the question mark")
    for name, limit in _FIELDS.items():
        if name in given and not 0 < len(given[name].encode()) <= limit:
            raise _wrong(f"have 1 to {limit} bytes as {name}: a token has no more")
    if not given:
        raise _wrong("name the token: token=LABEL, serial=NUMBER or slot-id=NUMBER before the question mark")
    module = asked.get("module-path", "")
    if not module.startswith("/") or "\0" in module:
        raise _wrong("name the module by its whole path: module-path=/… behind a question mark")
    number = given.pop("slot-id", None)
    if number is not None and not re.fullmatch(r"[0-9]{1,19}", number, re.ASCII):
        raise _wrong("have a number as slot-id")
    return TokenUri(module=module, slot=None if number is None else int(number), **given)


def _pairs(part: str, separator: str, allowed: re.Pattern[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for pair in part.split(separator) if part else []:
        name, equals, value = pair.partition("=")
        if not equals or not name or not allowed.fullmatch(value):
            raise _wrong(f"be NAME=VALUE parts with {separator} between them, other characters written as %XX")
        if name in found:
            raise _wrong(f"have {shown(name)} once only")
        try:
            found[name] = unquote_to_bytes(value).decode()
        except UnicodeDecodeError:
            raise _wrong(f"have UTF-8 as {shown(name)}") from None
    return found


def _wrong(must: str, why: str = "") -> Problem:
    """Never with the value itself: somebody may have written a PIN into it."""
    return Problem("RW-CONFIG", f"The uri of a pkcs11 key store must {must}. {why}".rstrip(), field="uri")
