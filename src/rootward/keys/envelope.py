"""A sealed private key, bytes to bytes: what a key file holds.

    {"format":"rootward-key","version":1,"label":…,"public_id":…,"algorithm":…,"cipher":"aes-256-gcm","salt":…,"nonce":…,"kek":…}
    base64 of AES-256-GCM(PKCS#8 DER)

Two lines, each ended by a newline. The first is JSON in one canonical form and is the associated data as it stands, so
a key cannot be moved to another label or public key. Each file has a key of its own, HKDF-SHA256 of the KEK with a
random salt (RFC 5869), and a random nonce that this key sees once (NIST SP 800-38D 8.2.2). The key inside is PKCS#8
(RFC 5958).
"""

from __future__ import annotations

import base64
import binascii
import os
from typing import Annotated, Literal

import msgspec
from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)

from rootward.core.problems import Problem
from rootward.core.pubkey import KeyAlgorithm, public_key_of
from rootward.keys.backend import check_label
from rootward.keys.kek import Hex32, Kek, Wrap
from rootward.keys.key import PrivateKey

LARGEST = 64 * 1024
_INFO = b"rootward key file 1"


class Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The first line. `salt` is HKDF's, `nonce` GCM's, both hex."""

    format: Literal["rootward-key"]
    version: Literal[1]
    label: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9-]{1,64}\Z")]
    public_id: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
    algorithm: KeyAlgorithm
    cipher: Literal["aes-256-gcm"]
    salt: Hex32
    nonce: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{24}\Z")]
    kek: Wrap


def seal(private_key: PrivateKey, *, label: str, kek: Kek) -> bytes:
    """The file's bytes; two calls never give the same. Problem `RW-FIELD` for a label that is none."""
    check_label(label)
    public = public_key_of(private_key.public_key())
    salt, nonce = os.urandom(16), os.urandom(12)
    wrap, own = kek.wrap(salt, _INFO)
    header = Header(
        format="rootward-key",
        version=1,
        label=label,
        public_id=public.id,
        algorithm=public.algorithm,
        cipher="aes-256-gcm",
        salt=salt.hex(),
        nonce=nonce.hex(),
        kek=wrap,
    )
    line = msgspec.json.encode(header)
    pkcs8 = private_key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    sealed = AESGCM(own).encrypt(nonce, pkcs8, line)
    return line + b"\n" + base64.b64encode(sealed) + b"\n"


def read_header(data: bytes) -> Header:
    """What the file says of itself, unproved until `unseal`; Problem `RW-KEY-FILE` if it is no key file."""
    return _split(data)[0]


def unseal(data: bytes, *, label: str, public_id: str, kek: Kek) -> PrivateKey:
    """The private key, which is `label`'s and has the public key of that id.

    Problem: `RW-KEY-FILE` not a key file, or changed since; `RW-KEY-MISMATCH` another label's or another public key's;
    `RW-KEK` sealed with another KEK.
    """
    header, line, sealed = _split(data)
    if (header.label, header.public_id) != (label, public_id):
        raise Problem(
            "RW-KEY-MISMATCH",
            f"The file holds the key {header.label} with the public key {header.public_id[:16]}…, "
            f"not {label} with {public_id[:16]}….",
        )
    own = kek.unwrap(header.kek, bytes.fromhex(header.salt), _INFO)
    try:
        private = load_der_private_key(AESGCM(own).decrypt(bytes.fromhex(header.nonce), sealed, line), None)
    except InvalidTag as error:
        raise Problem(
            "RW-KEY-FILE",
            f"The file of the key {label} was changed or damaged after it was sealed; the key-encryption key is "
            "the right one. Restore it from a backup.",
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise Problem(
            "RW-KEY-FILE", f"The file of the key {label} opens, and there is no usable key inside."
        ) from error
    if not isinstance(private, PrivateKey) or public_key_of(private.public_key()).id != public_id:
        raise Problem("RW-KEY-MISMATCH", f"The file of the key {label} opens, and another key is inside.")
    return private


def opens(data: bytes, *, kek: Kek) -> bool:
    """Whether `kek` is the one that the file was sealed with, by the header's word."""
    header = read_header(data)
    try:
        kek.unwrap(header.kek, bytes.fromhex(header.salt), _INFO)
    except Problem:
        return False
    return True


def _split(data: bytes) -> tuple[Header, bytes, bytes]:
    if len(data) > LARGEST:
        raise Problem("RW-KEY-FILE", f"A key file has {LARGEST} bytes at most.")
    line, _, rest = data.partition(b"\n")
    try:
        header = msgspec.json.decode(line, type=Header)
        sealed = base64.b64decode(rest.removesuffix(b"\n"), validate=True)
    except (msgspec.DecodeError, binascii.Error, UnicodeDecodeError, RecursionError) as error:
        raise Problem(
            "RW-KEY-FILE", "This is no key file of a version that can be read here, or it is damaged."
        ) from error
    # One form only, so that no byte of a file can be changed without being noticed.
    if line + b"\n" + base64.b64encode(sealed) + b"\n" != data or msgspec.json.encode(header) != line:
        raise Problem("RW-KEY-FILE", "The key file is not in its canonical form: it was changed or damaged.")
    return header, line, sealed
