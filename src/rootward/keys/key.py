"""A private key as everything above this room sees it: opaque, and good for one thing.

`sign_tbs` is the only way to a signature, and `ca/sign.py` its only caller: nothing that is not a draft gets that far
(I-38). Inside, a key is one of `cryptography`'s private-key types, wherever it really lives; a remote one is a subclass
whose `sign` asks the device and raises `NotSigned` or `SignatureUnknown` itself. A signer process's is none of them: it
has no bytes to sign, only grounds to be convinced by (`Asker`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NoReturn, SupportsIndex, final

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, rsa

from rootward.core.grounds import Grounds
from rootward.core.problems import Problem
from rootward.core.pubkey import KeyAlgorithm, PublicKey, public_key_of
from rootward.core.signature import by_identifier

PrivateKey = (
    rsa.RSAPrivateKey
    | ec.EllipticCurvePrivateKey
    | ed25519.Ed25519PrivateKey
    | mldsa.MLDSA44PrivateKey
    | mldsa.MLDSA65PrivateKey
    | mldsa.MLDSA87PrivateKey
)
_SLOW = frozenset({KeyAlgorithm.RSA_3072, KeyAlgorithm.RSA_4096})


class NotSigned(Exception):
    """It is certain that no signature was made, so the same draft may be tried again."""


class Refused(NotSigned):
    """Whoever holds the key looked at what it was for, and does not sign that. `problem` says why, for the asker."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        super().__init__(problem.detail)


class SignatureUnknown(Exception):
    """A signature may have been made and then lost, as when a remote device stopped answering. Never try again."""


class Asker(ABC):
    """In a private key's place: asks somebody else who holds it, and who decides anew whether to sign."""

    public: PublicKey

    @abstractmethod
    def sign(self, tbs: bytes, grounds: Grounds | None) -> bytes:
        """The signature over a certificate's TBS, on these grounds, or over a CRL's, which needs none.

        Raises Refused, NotSigned and SignatureUnknown.
        """


@final
class Key:
    """`public` is its public key, `label` the name that it is filed under. Made by backends alone.

    `slow` says that a signature takes milliseconds or a network, and belongs in a thread.

    `max_message` is the most bytes that the backend can sign, None where there is no limit.
    """

    __slots__ = ("_label", "_max_message", "_private", "_public", "_slow")

    def __init__(
        self, private: PrivateKey | Asker, *, label: str, max_message: int | None = None, remote: bool = False
    ) -> None:
        self._private = private
        self._public = private.public if isinstance(private, Asker) else public_key_of(private.public_key())
        self._label = label
        self._max_message = max_message
        self._slow = remote or self._public.algorithm in _SLOW

    @property
    def public(self) -> PublicKey:
        return self._public

    @property
    def label(self) -> str:
        return self._label

    @property
    def decides(self) -> bool:
        """Whether its holder decides anew, on the grounds of a profile's certificate: then it certifies no CA."""
        return isinstance(self._private, Asker)

    @property
    def slow(self) -> bool:
        return self._slow

    def __repr__(self) -> str:
        return f"Key({self._label}, {self._public.algorithm}, {self._public.id[:16]})"

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError("a key cannot be copied or pickled")


def sign_tbs(key: Key, tbs: bytes, algorithm: bytes | None = None, grounds: Grounds | None = None) -> bytes:
    """The signature over `tbs` (DER) by the AlgorithmIdentifier `algorithm` (DER; None: the key's usual one). ECDSA's
    is DER (RFC 3279 2.2.3). `grounds` are for a key whose holder decides anew, the algorithm too.

    NotSigned if there certainly is none; SignatureUnknown, or any other exception, if there may be one.
    """
    if key._max_message is not None and len(tbs) > key._max_message:
        raise NotSigned(f"{len(tbs)} bytes are to be signed, and the key can sign {key._max_message} at most")
    private: Any = key._private
    if isinstance(private, Asker):
        return private.sign(tbs, grounds)
    how = by_identifier(key.public.algorithm, algorithm)
    if how is None:
        raise NotSigned(f"a key of the type {key.public.algorithm} does not sign by the algorithm of this draft")
    signature: bytes = private.sign(tbs, *how.arguments)
    return signature


TLS_LABEL = "rootward-tls"


def tls_private(key: Key) -> PrivateKey:
    """The private key of the server's own TLS, for the TLS library to hold; TypeError for a key of any other label.

    It signs handshakes, not drafts, so it cannot stay behind `sign_tbs`. No authority's key has this label (I-38).
    """
    if key.label != TLS_LABEL:
        raise TypeError("only the server's own TLS key leaves this room")
    if isinstance(key._private, Asker):
        raise TypeError("the server's own TLS key is never a signer's")
    return key._private
