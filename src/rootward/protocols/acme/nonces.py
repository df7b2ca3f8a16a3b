"""Nonces (RFC 8555 6.5): handing one out writes nothing, using one writes a row (I-47).

40 octets in base64url: 8 of the time, 16 random, and the first 16 of an HMAC-SHA-256 over both. The MAC key is made
once for an installation, sealed with the KEK, and lies in the store: what one replica hands out, each other accepts.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from rootward.ca.installation import Installation
from rootward.ca.secret import shared
from rootward.core.jwk import JoseError, b64decode, b64encode
from rootward.protocols.acme.problems import AcmeError

LIFETIME: Final = timedelta(hours=1)
AHEAD: Final = timedelta(minutes=1)  # how far another replica's clock may be in front
KEY: Final = "acme.nonce-key"
_SIZE, _BODY = 40, 24
_AT: Final = 8  # where the random octets begin
_UNLUCKY: Final = 13  # of 256: their first octet is below
_LUCKY: Final = 0x80


@dataclass(frozen=True)
class Nonce:
    """One that was handed out by this installation, and is young enough. Whether it was used, the store says."""

    value: bytes
    expires_at: datetime

    @property
    def unlucky(self) -> bool:
        """One of the 5 % that the test mode refuses."""
        return self.value[_AT] < _UNLUCKY


def lucky(random: bytes) -> bytes:
    """The same, for a nonce that the test mode takes: what a client tries again with must do (RFC 8555 6.5)."""
    return bytes([random[0] | _LUCKY]) + random[1:]


class Nonces:
    """Makes and checks nonces."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def make(self, now: datetime, random: bytes) -> str:
        """A fresh nonce; `random` are 16 octets."""
        body = int(now.timestamp()).to_bytes(8) + random
        return b64encode(body + self._mac(body))

    def check(self, text: str | None, now: datetime) -> Nonce:
        """AcmeError badNonce for none, one of somebody else's, one that is too old or of the future; malformed where it
        is not base64url (RFC 8555 6.5.2).
        """
        if text is None:
            raise bad_nonce("The header has no nonce.")
        try:
            octets = b64decode(text)
        except JoseError:
            raise AcmeError("malformed", "The nonce is not base64url (RFC 8555 6.5.2).") from None
        body, mac = octets[:_BODY], octets[_BODY:]
        if len(octets) != _SIZE or not hmac.compare_digest(mac, self._mac(body)):
            raise bad_nonce("The nonce is not one of this server's.")
        made = datetime.fromtimestamp(int.from_bytes(body[:8]), UTC)
        if not made <= now + AHEAD or now >= made + LIFETIME:
            raise bad_nonce("The nonce is too old.")
        return Nonce(body, made + LIFETIME)

    def _mac(self, body: bytes) -> bytes:
        return hmac.digest(self._key, body, "sha256")[: _SIZE - _BODY]


def bad_nonce(detail: str) -> AcmeError:
    """To be raised; the answer has a fresh one, and clients try again with it."""
    return AcmeError("badNonce", detail)


async def open_nonces(inst: Installation) -> Nonces:
    """The installation's nonces; their key is made where there is none. Problem RW-KEK where it cannot be opened."""
    return Nonces(await shared(inst, KEY))
