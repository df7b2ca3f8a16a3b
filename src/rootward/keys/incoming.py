"""A private key that was elsewhere before: read from PEM or PKCS#12, and put into files of ours, sealed.

It is opaque on its way, like every key: what leaves this module is its public half and the certificates beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn, SupportsIndex, final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_der_private_key, load_pem_private_key, pkcs12

from rootward.core.problems import Problem
from rootward.core.pubkey import PublicKey, public_key_of
from rootward.keys.backend import Backend
from rootward.keys.file import FileBackend
from rootward.keys.key import Key, PrivateKey
from rootward.keys.memory import MemoryBackend

LARGEST = 1024 * 1024  # bytes


@final
class Incoming:
    """Made by `open_incoming` alone. `certificates` stood beside the key, its own first where there is one."""

    __slots__ = ("_private", "certificates", "public")

    def __init__(self, private: PrivateKey, certificates: tuple[x509.Certificate, ...]) -> None:
        self._private = private
        self.public: PublicKey = public_key_of(private.public_key())
        self.certificates = certificates

    def __repr__(self) -> str:
        return f"Incoming({self.public.algorithm}, {self.public.id[:16]})"

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError("a key cannot be copied or pickled")

    def put(self, backend: Backend, label: str) -> Key:
        """Keep it there; the same again changes nothing. Problem RW-CONFIG where keys cannot be put."""
        if not isinstance(backend, FileBackend | MemoryBackend):
            detail = f"Keys come into {backend.name} by its own tools: put it there, and name it with --key-label."
            raise Problem("RW-CONFIG", detail)
        if (label, self.public.id) in backend.list():
            return backend.load(label, self.public.id)
        return backend.take_in(label, self._private)


def open_incoming(data: bytes, passphrase: bytes | None) -> Incoming:
    """The one key in a PEM, DER or PKCS#12 file. Problems: RW-TOO-LARGE; RW-IMPORT-PASSWORD where the passphrase is
    missing or another one; RW-KEY-FILE for what is no private key of a kind that signs here.
    """
    if len(data) > LARGEST:
        raise Problem("RW-TOO-LARGE", f"A key file has at most {LARGEST} bytes.")
    if b"-----BEGIN" in data:
        return _made(lambda secret: (load_pem_private_key(data, secret), ()), passphrase)
    try:
        return _made(lambda secret: _pkcs12(data, secret), passphrase)
    except Problem as problem:
        if problem.code != "RW-KEY-FILE":
            raise
        return _made(lambda secret: (load_der_private_key(data, secret), ()), passphrase)


def _pkcs12(data: bytes, secret: bytes | None) -> tuple[Any, tuple[x509.Certificate, ...]]:
    key, certificate, others = pkcs12.load_key_and_certificates(data, secret)
    return key, (*(() if certificate is None else (certificate,)), *others)


def _made(
    read: Callable[[bytes | None], tuple[Any, tuple[x509.Certificate, ...]]], passphrase: bytes | None
) -> Incoming:
    try:
        private, certificates = read(passphrase)
    except TypeError:
        if passphrase is None:
            raise Problem("RW-IMPORT-PASSWORD", "It is sealed, and no passphrase was given.") from None
        return _made(read, None)  # it is not sealed
    except ValueError as error:
        if "password" in str(error).lower() or "mac" in str(error).lower() or "decrypt" in str(error).lower():
            raise Problem("RW-IMPORT-PASSWORD", "The passphrase does not open it.") from None
        raise Problem("RW-KEY-FILE", "This is no private key that can be read.") from None
    except UnsupportedAlgorithm:
        raise Problem("RW-KEY-FILE", "The private key is of a kind that is not read here.") from None
    if private is None:
        raise Problem("RW-KEY-FILE", "There is no private key in it.")
    return Incoming(private, certificates)
