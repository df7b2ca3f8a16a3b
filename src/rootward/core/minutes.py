"""The transcript of a ceremony as a document, what a rehearsal leaves, and the signatures that participants put under a
transcript (I-37).

A transcript is JSON in one canonical form (sorted names, no spaces), so that its SHA-256 names it. A signature is over
its hash, the script's hash, and the signer's name and role, behind a line that no other thing signed here begins with:
it cannot be moved to another transcript, person or role, nor taken for a signature of something else.
"""

from __future__ import annotations

import hashlib
from typing import Any, Literal

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from rootward.core.lint import UNREADABLE
from rootward.core.paperwork import Hex, Sha256, Utc
from rootward.core.participants import Person, Role
from rootward.core.problems import Problem, shown
from rootward.core.pubkey import PublicKey, public_key_of

LARGEST = 4 * 1024 * 1024
MOST_SIGNATURES = 32
_CONTEXT = b"rootward ceremony transcript signature 1\n"


class _Struct(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What every part of a transcript is."""


class Software(_Struct, frozen=True):
    """What ran. `files` is the SHA-256 over the installed package's files, each with its name (`sha256sum` form)."""

    rootward: str
    files: Sha256
    python: str
    cryptography: str
    openssl: str


class File(_Struct, frozen=True):
    """A file that went in, or what came out (DER): its name and its SHA-256."""

    name: str
    sha256: Sha256


class Attendance(_Struct, frozen=True):
    """Who said by name that they are here and confirm the script. `read_back` is what they read from their own copy of
    its hash: which group of four digits, and when.
    """

    name: Person
    role: Role
    confirmed_at: Utc
    read_back: str


class Record(_Struct, frozen=True):
    """One step as it was done. `step` is the SHA-256 of the step as the script has it, `key` that of the public key
    that it made or used. `masked` and `output` are there where something was signed: the bytes with this ceremony's
    keys blanked out, and the certificate or CRL (DER). `facts` is what else there is to say, `read_back` what was
    compared.
    """

    number: int
    do: str
    step: Sha256
    began_at: Utc
    ended_at: Utc
    key: str = ""
    masked: str = ""
    output: str = ""
    facts: tuple[str, ...] = ()
    read_back: str = ""


class Transcript(_Struct, frozen=True):
    """What was done, as everybody present saw it. `room` says what was found of network and clock. Times are UTC."""

    format: Literal["rootward-transcript"]
    version: Literal[1]
    title: str
    lab: bool
    script: Sha256
    software: Software
    room: tuple[str, ...]
    began_at: Utc
    ended_at: Utc
    participants: tuple[Attendance, ...]
    inputs: tuple[File, ...]
    steps: tuple[Record, ...]
    outputs: tuple[File, ...]


class Signature(_Struct, frozen=True):
    """A participant's, over a transcript. `public_key` is the SubjectPublicKeyInfo (DER) and `signature` its bytes,
    both hex; ECDSA's as DER (RFC 3279 2.2.3).
    """

    name: Person
    role: Role
    algorithm: Literal["ed25519", "ecdsa-sha256", "ecdsa-sha384", "rsa-sha256"]
    public_key: Hex
    signature: Hex


class Rehearsal(_Struct, frozen=True):
    """What a rehearsal leaves: of each step that signs, the hash of the bytes without the keys. The run's are the same.

    `held_at` and the software are those of the rehearsal.
    """

    format: Literal["rootward-rehearsal"]
    version: Literal[1]
    title: str
    script: Sha256
    software: Software
    held_at: Utc
    masked: tuple[str, ...]


def write(document: Transcript | Rehearsal) -> bytes:
    """The canonical form."""
    return msgspec.json.encode(document, order="sorted")


def read_transcript(text: str) -> Transcript:
    """The transcript that the canonical text is; Problem RW-CEREMONY for any other text."""
    data = text.encode()
    if len(data) > LARGEST:
        raise Problem("RW-TOO-LARGE", f"A transcript has at most {LARGEST} bytes.")
    try:
        found = msgspec.json.decode(data, type=Transcript)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Problem("RW-CEREMONY", f"The transcript cannot be read: {shown(str(error), 300)[1:-1]}.") from None
    if write(found) != data:
        raise Problem("RW-CEREMONY", "The transcript is not in its canonical form: it was changed.")
    return found


def read_rehearsal(data: bytes) -> Rehearsal:
    """The report that the file is; Problem RW-CEREMONY for any other file."""
    try:
        return msgspec.json.decode(data, type=Rehearsal)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Problem("RW-CEREMONY", "This is no report of a rehearsal.") from None


def signed_bytes(transcript: str, *, name: str, role: Role) -> bytes:
    """What this participant signs under the transcript, which is given as its canonical text."""
    record = read_transcript(transcript)
    what = {
        "name": name,
        "role": role,
        "script": record.script,
        "transcript": hashlib.sha256(transcript.encode()).hexdigest(),
    }
    return _CONTEXT + msgspec.json.encode(what, order="sorted")


def good_signature(signature: Signature, transcript: str) -> PublicKey | None:
    """The key, where the signature is that key's over this transcript for this name and role; else None."""
    try:
        key = public_key_of(serialization.load_der_public_key(bytes.fromhex(signature.public_key)))
        _verify(key.key, signature, signed_bytes(transcript, name=signature.name, role=signature.role))
    except (*UNREADABLE, InvalidSignature, Problem):
        return None
    return key if key.spki.hex() == signature.public_key else None


def _verify(key: Any, signature: Signature, message: bytes) -> None:
    value = bytes.fromhex(signature.signature)
    if signature.algorithm == "ed25519" and isinstance(key, ed25519.Ed25519PublicKey):
        key.verify(value, message)
    elif signature.algorithm == "ecdsa-sha256" and isinstance(key, ec.EllipticCurvePublicKey):
        key.verify(value, message, ec.ECDSA(hashes.SHA256()))
    elif signature.algorithm == "ecdsa-sha384" and isinstance(key, ec.EllipticCurvePublicKey):
        key.verify(value, message, ec.ECDSA(hashes.SHA384()))
    elif signature.algorithm == "rsa-sha256" and isinstance(key, rsa.RSAPublicKey):
        key.verify(value, message, padding.PKCS1v15(), hashes.SHA256())
    else:
        raise InvalidSignature
