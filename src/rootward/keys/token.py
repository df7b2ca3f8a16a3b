"""Keys in a PKCS#11 token: made inside, never to leave it.

A key pair is two objects under the authority's name (CKA_LABEL); CKA_ID is the public id, so that what `load` finds is
exactly what it was asked for. A pair of another CKA_ID, made by another program, is found by its label and the hash of
its public key. The private object must be sensitive and not extractable (`token_objects.judge`).

What is sent is a digest wherever the algorithm lets us hash here: SoftHSM has no ECDSA that hashes, and a CRL may have
40 MB. Which errors of a signature mean that there surely is none is `_STALE` and `_CERTAIN`: by their definition
(PKCS#11 v3.1, section 5.1) the call ended before it began. All others leave one possible.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final, TypeVar

import pkcs11
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from pkcs11 import MGF, Mechanism
from pkcs11.exceptions import PKCS11Error

from rootward.core.problems import Problem
from rootward.core.pubkey import KeyAlgorithm, PublicKey
from rootward.keys import token_objects
from rootward.keys.backend import Backend, Listing, check_algorithm, check_id, check_label
from rootward.keys.cryptoki import Away, Gone, Session, Token, said_by
from rootward.keys.elsewhere import elsewhere
from rootward.keys.key import Key, NotSigned, SignatureUnknown

T = TypeVar("T")

# The session, the login or the object's handle is gone: a new session may help.
_STALE: Final = (
    pkcs11.SessionHandleInvalid,
    pkcs11.UserNotLoggedIn,
    pkcs11.KeyHandleInvalid,
    pkcs11.ObjectHandleInvalid,
    pkcs11.TokenNotPresent,
    pkcs11.OperationActive,
)
# The token refuses what it is asked.
_CERTAIN: Final = (
    pkcs11.ArgumentsBad,
    pkcs11.DataInvalid,
    pkcs11.DataLenRange,
    pkcs11.FunctionNotSupported,
    pkcs11.FunctionRejected,
    pkcs11.KeySizeRange,
    pkcs11.KeyTypeInconsistent,
    pkcs11.MechanismInvalid,
    pkcs11.MechanismParamInvalid,
    pkcs11.PinExpired,
)
# The DER of DigestInfo up to the digest (RFC 8017, note 1 of section 9.2).
_DIGEST_INFO: Final = {
    "sha256": bytes.fromhex("3031300d060960864801650304020105000420"),
    "sha384": bytes.fromhex("3041300d060960864801650304020205000430"),
    "sha512": bytes.fromhex("3051300d060960864801650304020305000440"),
}
_PSS: Final = {
    "sha256": (Mechanism.SHA256, MGF.SHA256, 32),
    "sha384": (Mechanism.SHA384, MGF.SHA384, 48),
    "sha512": (Mechanism.SHA512, MGF.SHA512, 64),
}
# Ed25519 hashes inside the token, so it needs the whole message there. PKCS#11 has no way to ask how much that may be:
# SoftHSM takes 40 MB, hardware what fits into its buffers.
_TAKES_ANY: Final = frozenset({"SoftHSM project"})
_TAKES_BYTES: Final = 2048
_TRIES: Final = 3  # one that finds a session gone, one that finds the token gone, one after a new start


class _Stale(Exception):
    """The token was not asked to sign, or surely did not, and may do so in a new session."""


class TokenBackend(Backend):
    """One token; nothing is asked of it before a method is called."""

    name = "pkcs11"

    def __init__(self, token: Token) -> None:
        self._token = token
        self._where = f"the token {token.uri}"
        self._algorithms: frozenset[KeyAlgorithm] | None = None

    @property
    def algorithms(self) -> frozenset[KeyAlgorithm]:
        """What the token makes and signs with; Problem `RW-KEY-UNAVAILABLE` while it was never seen."""
        if self._algorithms is None:
            self._algorithms = self._of_slot(lambda slot: frozenset(token_objects.algorithms(slot)))
        return self._algorithms

    def max_message_of(self, algorithm: KeyAlgorithm) -> int | None:
        if algorithm is not KeyAlgorithm.ED25519:
            return None
        maker = self._of_slot(lambda slot: slot.get_token().manufacturer_id)
        return None if maker in _TAKES_ANY else _TAKES_BYTES

    def generate(self, label: str, algorithm: KeyAlgorithm) -> Key:
        check_label(label)
        check_algorithm(self, algorithm)

        def make() -> str:
            with self._token.session(write=True) as session:
                return token_objects.generate(session.open, label, algorithm)

        # From the token, not from memory: a certificate is only ever made for a key that can be found again.
        return self.load(label, self._asked(make))

    def load(self, label: str, public_id: str) -> Key:
        check_label(label)
        check_id(public_id)

        def look() -> PublicKey:
            with self._token.session() as session:
                return token_objects.usable(session.open, label, public_id, where=self._where)[1]

        public = self._asked(look)
        return self._key(label, public, self.max_message_of(public.algorithm))

    def expect(self, label: str, public: PublicKey) -> Key:
        check_label(label)
        return self._key(label, public, None)  # what it takes, the token says itself when it is asked

    def _key(self, label: str, public: PublicKey, most: int | None) -> Key:
        return Key(elsewhere(public, partial(self._sign, label, public)), label=label, max_message=most, remote=True)

    def delete(self, label: str, public_id: str) -> None:
        check_label(label)
        check_id(public_id)

        def remove() -> None:
            with self._token.session(write=True) as session:
                privates, public = token_objects.find(session.open, label, public_id, where=self._where)
                publics = {
                    one.handle: one
                    for private in privates
                    for one in token_objects.beside(session.open, private)
                    if token_objects.read_public(one) == public
                }
                # A private one is found by the public one beside it, so that goes last, and alone it does no harm.
                for one in (*privates, *publics.values()):
                    one.destroy()

        self._asked(remove)

    def list(self) -> Listing:
        def look() -> set[tuple[str, str]]:
            with self._token.session() as session:
                return set(token_objects.listed(session.open))

        return sorted(self._asked(look))

    def _of_slot(self, what: Callable[[Any], T]) -> T:
        """What can be read without a login, asked as the rest is."""

        def look() -> T:
            with self._token.slot() as slot:
                return what(slot)

        return self._asked(look)

    def _asked(self, what: Callable[[], T]) -> T:
        """What the token says of its objects; asked again where it lost our session, and of a module that was started
        anew where the token or the key is not to be seen. Problem `RW-KEY-UNAVAILABLE` where there is no answer.
        """
        for left in reversed(range(_TRIES)):
            generation = self._token.generation
            try:
                return what()
            except PKCS11Error as error:
                self._token.forget()
                if not left:
                    raise self._away(f"it says {said_by(error)}") from error
            except Away as error:
                if not left or not isinstance(error, Gone) or not self._token.restart(generation):
                    raise self._away(str(error)) from error
            except Problem as problem:
                if not left or problem.code != "RW-KEY-MISSING" or not self._token.restart(generation):
                    raise
        raise AssertionError("the last try returns or raises")

    def _away(self, why: str) -> Problem:
        return Problem("RW-KEY-UNAVAILABLE", f"{self._where} cannot be asked now: {why}.", retry_after=5)

    def _sign(self, label: str, public: PublicKey, data: bytes, *how: Any) -> bytes:
        """NotSigned where there surely is no signature, SignatureUnknown where there may be one.

        Asked again only where there surely is none: of a new session, which is what a token wants that closed the old
        one for being idle; of a new start of the module, where the token or the key is not to be seen.
        """
        for left in reversed(range(_TRIES)):
            generation = self._token.generation
            try:
                with self._token.session(key=(label, public.id)) as session:
                    return self._signed(session, label, public, data, *how)
            except _Stale as error:
                self._token.forget()
                if not left:
                    raise NotSigned(f"{self._where}: {error}") from error
            except Away as error:
                if not left or not isinstance(error, Gone) or not self._token.restart(generation):
                    raise NotSigned(f"{self._where} cannot be asked now: {error}") from error
            except Problem as problem:  # the key is not there, or not what it must be
                if not left or problem.code != "RW-KEY-MISSING" or not self._token.restart(generation):
                    raise NotSigned(problem.detail) from problem
        raise AssertionError("the last try returns or raises")

    def _signed(self, session: Session, label: str, public: PublicKey, data: bytes, *how: Any) -> bytes:
        try:
            private = session.keys.get((label, public.id))
            if private is None:
                private, _ = token_objects.usable(session.open, label, public.id, where=self._where)
                session.keys[label, public.id] = private
        except PKCS11Error as error:
            raise _Stale(f"it does not show its keys: {said_by(error)}") from error
        message, about = _message(data, *how)
        try:
            raw: bytes = private.sign(message, **about)
        except _STALE as error:
            raise _Stale(f"it lost the session: {said_by(error)}") from error
        except _CERTAIN as error:
            raise NotSigned(f"{self._where} does not sign: {said_by(error)}") from error
        except PKCS11Error as error:
            raise SignatureUnknown(f"{self._where} broke off while it signed: {said_by(error)}") from error
        return _der(raw) if isinstance(public.key, ec.EllipticCurvePublicKey) else raw


def _message(data: bytes, *how: Any) -> tuple[bytes, dict[str, Any]]:
    """What the token is given for `cryptography`'s arguments of `sign`, and its mechanism."""
    match how:
        case (ec.ECDSA(),):
            return _digest(data, how[0].algorithm), {"mechanism": Mechanism.ECDSA}
        case (padding.PKCS1v15(), hashes.HashAlgorithm()):
            info = _DIGEST_INFO[how[1].name] + _digest(data, how[1])
            return info, {"mechanism": Mechanism.RSA_PKCS}
        case (padding.PSS(), hashes.HashAlgorithm()):
            about = {"mechanism": Mechanism.RSA_PKCS_PSS, "mechanism_param": _PSS[how[1].name]}
            return _digest(data, how[1]), about
        case ():
            return data, {"mechanism": Mechanism.EDDSA}
    raise NotSigned("this is no way to sign that a token has")


def _digest(data: bytes, algorithm: Any) -> bytes:
    made = hashes.Hash(algorithm)
    made.update(data)
    return made.finalize()


def _der(raw: bytes) -> bytes:
    """ECDSA-Sig-Value (RFC 3279 2.2.3) of CKM_ECDSA's r and s, one behind the other."""
    half = len(raw) // 2
    return encode_dss_signature(int.from_bytes(raw[:half], "big"), int.from_bytes(raw[half:], "big"))
