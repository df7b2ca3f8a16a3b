"""The own keys of a ceremony's participants: they sign transcripts and nothing else (I-37, I-38).

A key is a file that a passphrase opens (Ed25519, an envelope as of any key, `envelope.py`), or in a token by an RFC
7512 URI, such as a PIV card through its PKCS#11 module (ECDSA P-256 and P-384, RSA).
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from rootward.core.minutes import Signature, good_signature, signed_bytes
from rootward.core.participants import Role
from rootward.core.problems import Problem
from rootward.keys import disk, envelope
from rootward.keys.kek import Kek

LABEL = "participant"
_CODE = "RW-KEY-FILE"
Algorithm = Literal["ed25519", "ecdsa-sha256", "ecdsa-sha384", "rsa-sha256"]


def make_key_file(path: Path, kek: Kek) -> str:
    """A new key in a new file of mode 0600; its public key as scripts have it (hex). Problem RW-KEY-FILE."""
    private = Ed25519PrivateKey.generate()
    try:
        disk.write_new(path, envelope.seal(private, label=LABEL, kek=kek), mode=0o600)
    except FileExistsError as error:
        raise Problem(_CODE, f"There is a file at {disk.quoted(path)} already; it is left as it is.") from error
    return private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex()


def open_key_file(path: Path, kek: Kek) -> Ed25519PrivateKey:
    """The key in such a file. Problem RW-KEY-FILE, RW-KEY-MISMATCH, RW-KEK."""
    try:
        data = disk.read(path, code=_CODE, limit=envelope.LARGEST)
    except FileNotFoundError:
        raise Problem(_CODE, f"There is no file at {disk.quoted(path)}.") from None
    private = envelope.unseal(data, label=LABEL, public_id=envelope.read_header(data).public_id, kek=kek)
    if not isinstance(private, Ed25519PrivateKey):
        raise Problem(_CODE, f"{disk.quoted(path)} holds no Ed25519 key, so it is no participant's.")
    return private


def sign_transcript(private: Ed25519PrivateKey, transcript: str, *, name: str, role: Role) -> Signature:
    """The participant's signature under the transcript (its canonical text)."""
    value = private.sign(signed_bytes(transcript, name=name, role=role))
    spki = private.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return checked(name, role, "ed25519", spki, value, transcript)


def checked(name: str, role: Role, algorithm: Algorithm, spki: bytes, value: bytes, transcript: str) -> Signature:
    """The signature, if it verifies; Problem RW-KEY-UNAVAILABLE where whatever made it signed wrongly."""
    made = Signature(name, role, algorithm, spki.hex(), value.hex())
    if good_signature(made, transcript) is None:
        raise Problem("RW-KEY-UNAVAILABLE", "The key gave a signature that its public key does not verify.")
    return made
