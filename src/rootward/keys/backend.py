"""What a key backend is: one file that implements `Backend`, and one row in `BACKENDS` (`keys/__init__.py`).

A key is filed under (label, public id): the label says whose it is, the id, the SHA-256 of its SubjectPublicKeyInfo,
which one of theirs. `load` is asked for the id that the certificate has, so a key that was swapped under its label is
never used (I-13, I-61).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, rsa

from rootward.core.problems import Problem, shown
from rootward.core.pubkey import KeyAlgorithm, PublicKey
from rootward.core.signature import RsaSignature
from rootward.keys.kek import Kek
from rootward.keys.key import Key, PrivateKey

_LABEL = re.compile(r"[a-z0-9-]{1,64}", re.ASCII)
_ID = re.compile(r"[0-9a-f]{64}", re.ASCII)

# The CRL of some 400,000 revoked certificates (a little under 40 bytes for each).
CRL_ROOM = 16 * 1024 * 1024

Listing = list[tuple[str, str]]


@dataclass(frozen=True)
class KeySettings:
    """Where a backend finds its keys. `folder` and `kek` are the file backend's; the others' are what
    `[keys.NAME]` says: `store` is that name, `pin` gives the PIN when it is needed.
    """

    folder: Path | None = None
    kek: Kek | None = None
    store: str = ""
    uri: str = ""
    pin: Callable[[], bytes] | None = None
    endpoint: str = ""


class Backend(Protocol):
    """Every method may raise a Problem: `RW-FIELD` a label or id of the wrong form, `RW-KEY-MISSING` no such key,
    `RW-KEY-MISMATCH` another key than the asked one, `RW-KEY-FILE` a key that is there and cannot be used, `RW-KEK`."""

    @property
    def name(self) -> str: ...

    @property
    def algorithms(self) -> frozenset[KeyAlgorithm]: ...

    @property
    def pss(self) -> bool:
        """Whether its RSA keys sign with PSS as well as with PKCS#1 v1.5."""
        return True

    def max_message_of(self, algorithm: KeyAlgorithm) -> int | None:
        """The most bytes that a key of the algorithm can sign; None where there is no limit, as where only a digest
        goes to the device.
        """

    def generate(self, label: str, algorithm: KeyAlgorithm) -> Key:
        """A new key, kept durably when this returns; `RW-KEY-TYPE` for an algorithm that is not in `algorithms`."""

    def load(self, label: str, public_id: str) -> Key:
        """The key with exactly that public key; also `RW-KEY-UNAVAILABLE` where it may be there and cannot be asked
        now.
        """

    def expect(self, label: str, public: PublicKey) -> Key:
        """That key without asking for it, for when `load` says `RW-KEY-UNAVAILABLE`: what `load` checks is checked
        before its first signature, and each one until then is `NotSigned`.
        """

    def delete(self, label: str, public_id: str) -> None:
        """Forget the key for good."""

    def list(self) -> Listing:
        """(label, public id) of every key, sorted."""


Opener = Callable[[KeySettings], Backend]

_GENERATORS: dict[KeyAlgorithm, Callable[[], PrivateKey]] = {
    KeyAlgorithm.RSA_2048: lambda: rsa.generate_private_key(65537, 2048),
    KeyAlgorithm.RSA_3072: lambda: rsa.generate_private_key(65537, 3072),
    KeyAlgorithm.RSA_4096: lambda: rsa.generate_private_key(65537, 4096),
    KeyAlgorithm.P256: lambda: ec.generate_private_key(ec.SECP256R1()),
    KeyAlgorithm.P384: lambda: ec.generate_private_key(ec.SECP384R1()),
    KeyAlgorithm.P521: lambda: ec.generate_private_key(ec.SECP521R1()),
    KeyAlgorithm.BRAINPOOL_P256R1: lambda: ec.generate_private_key(ec.BrainpoolP256R1()),
    KeyAlgorithm.BRAINPOOL_P384R1: lambda: ec.generate_private_key(ec.BrainpoolP384R1()),
    KeyAlgorithm.BRAINPOOL_P512R1: lambda: ec.generate_private_key(ec.BrainpoolP512R1()),
    KeyAlgorithm.ED25519: ed25519.Ed25519PrivateKey.generate,
    KeyAlgorithm.ML_DSA_44: mldsa.MLDSA44PrivateKey.generate,
    KeyAlgorithm.ML_DSA_65: mldsa.MLDSA65PrivateKey.generate,
    KeyAlgorithm.ML_DSA_87: mldsa.MLDSA87PrivateKey.generate,
}
SOFTWARE_ALGORITHMS = frozenset(_GENERATORS)


def generate_private(algorithm: KeyAlgorithm) -> PrivateKey:
    """A new key in this process's memory."""
    return _GENERATORS[algorithm]()


def check_label(label: str) -> None:
    """Problem `RW-FIELD` unless `label` is 1 to 64 of a-z, 0-9 and dash: it is part of a file's name."""
    if not _LABEL.fullmatch(label):
        raise Problem("RW-FIELD", f"{shown(label)} is no label for a key: 1 to 64 of a-z, 0-9 and dash.", field="label")


def check_id(public_id: str) -> None:
    """Problem `RW-FIELD` unless `public_id` is a SHA-256 in lower-case hex."""
    if not _ID.fullmatch(public_id):
        raise Problem("RW-FIELD", f"{shown(public_id)} is no public key's SHA-256 in hex.", field="public_id")


def check_algorithm(backend: Backend, algorithm: KeyAlgorithm) -> None:
    """Problem `RW-KEY-TYPE` unless the backend has the algorithm."""
    if algorithm not in backend.algorithms:
        raise Problem("RW-KEY-TYPE", f"The key backend {backend.name} has no {algorithm} keys.")


def check_fits(backend: Backend, algorithm: KeyAlgorithm, rsa_signature: RsaSignature = "pkcs1") -> None:
    """Problem `RW-KEY-TYPE` unless an authority with such a key could sign its own CRL in this way, however long that
    gets.

    A key that hashes inside its device (Ed25519, ML-DSA) needs the whole list there, and some devices take 4 KiB.
    """
    check_algorithm(backend, algorithm)
    if rsa_signature == "pss" and not backend.pss:
        raise Problem(
            "RW-KEY-TYPE",
            f"An RSA key of the key backend {backend.name} signs with PKCS#1 v1.5 only, not with PSS.",
            field="rsa_signature",
        )
    most = backend.max_message_of(algorithm)
    if most is not None and most < CRL_ROOM:
        raise Problem(
            "RW-KEY-TYPE",
            f"The key backend {backend.name} signs {most} bytes at most with an {algorithm} key, and an authority's "
            "CRL gets larger than that. Choose a P-256, P-384 or RSA key, of which only the digest is sent.",
        )


def missing(label: str, public_id: str, *, where: str) -> Problem:
    """Problem `RW-KEY-MISSING`, to be raised."""
    return Problem("RW-KEY-MISSING", f"There is no key {label} with the public key {public_id[:16]}… in {where}.")
