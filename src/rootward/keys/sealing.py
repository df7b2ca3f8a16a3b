"""Small secrets sealed with a KEK: MAC keys of ACME in the store and what else two replicas must share; a token's PIN.

    {"format":"rootward-secret","version":1,"purpose":…,"cipher":"aes-256-gcm","salt":…,"nonce":…,"kek":…}
    AES-256-GCM(secret)

As a key file (`envelope.py`): the first line is the associated data, so that no secret can be taken for another one;
each has a key of its own (HKDF of the KEK with a random salt) and a nonce that this key sees once.
"""

from __future__ import annotations

import os
from typing import Annotated, Literal

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from rootward.core.problems import Problem
from rootward.keys.kek import Hex32, Kek, Wrap

_INFO = b"rootward secret 1"


class _Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The first line. `purpose` says which secret this is, `salt` is HKDF's, `nonce` GCM's, both hex."""

    format: Literal["rootward-secret"]
    version: Literal[1]
    purpose: str
    cipher: Literal["aes-256-gcm"]
    salt: Hex32
    nonce: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{24}\Z")]
    kek: Wrap


def is_sealed(data: bytes) -> bool:
    """Whether this looks like a sealed secret, and not like a key file."""
    return data.startswith(b'{"format":"rootward-secret"')


def opens(data: bytes, *, kek: Kek) -> bool:
    """Whether `kek` is the one that the secret was sealed with, by its first line's word. Problem RW-KEK: damaged."""
    header = _header(data.partition(b"\n")[0])
    try:
        kek.unwrap(header.kek, bytes.fromhex(header.salt), _INFO)
    except Problem:
        return False
    return True


class Sealer:
    """Seals and opens with one KEK; without one, everything is Problem RW-KEK: nothing is ever stored in the clear."""

    def __init__(self, kek: Kek | None = None) -> None:
        self._kek = kek

    def seal(self, secret: bytes, *, purpose: str) -> bytes:
        """What may lie in the store, or in a file. Two calls never give the same."""
        salt, nonce = os.urandom(16), os.urandom(12)
        wrap, own = self._open().wrap(salt, _INFO)
        header = _Header("rootward-secret", 1, purpose, "aes-256-gcm", salt.hex(), nonce.hex(), wrap)
        line = msgspec.json.encode(header)
        return line + b"\n" + AESGCM(own).encrypt(nonce, secret, line)

    def unseal(self, data: bytes, *, purpose: str) -> bytes:
        """The secret of that purpose. Problem RW-KEK: of another KEK, for another purpose, or changed since."""
        line, _, sealed = data.partition(b"\n")
        header = _header(line)
        if header.purpose != purpose:
            raise Problem("RW-KEK", "A sealed secret is another one than it should be.")
        own = self._open().unwrap(header.kek, bytes.fromhex(header.salt), _INFO)
        try:
            return AESGCM(own).decrypt(bytes.fromhex(header.nonce), sealed, line)
        except InvalidTag:
            raise Problem("RW-KEK", "A sealed secret was changed after it was sealed.") from None

    def opens(self, data: bytes) -> bool:
        """Whether it was sealed with this KEK, by its first line's word. Problem RW-KEK: damaged, or no KEK."""
        return opens(data, kek=self._open())

    def _open(self) -> Kek:
        if self._kek is None:
            raise Problem("RW-KEK", "Sealed secrets need a key-encryption key, and none is configured.")
        return self._kek


def _header(line: bytes) -> _Header:
    try:
        return msgspec.json.decode(line, type=_Header)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Problem("RW-KEK", "A sealed secret is damaged.") from None
