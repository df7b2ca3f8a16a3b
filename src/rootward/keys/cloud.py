"""What the cloud key backends share: a private key whose `sign` is a call, and which answers mean what.

Three answers are possible. A signature that has the form of one: `ca/sign.py` then verifies it. A refusal, which says
that there surely is none (NotSigned). Everything else (SignatureUnknown): time-outs, broken connections, errors of the
service, replies that cannot be read or that speak of another key. So nothing is ever asked twice here, and the vendors'
libraries are told not to do it either (docs/adr/0033).

ML-DSA's external mu is FIPS 204, algorithm 7, line 6 with the empty context: the signer needs no more of the message.
"""

from __future__ import annotations

import hashlib
import ipaddress
import threading
from collections.abc import Callable
from typing import Any, Final, NamedTuple, TypeVar
from urllib.parse import parse_qsl, urlsplit

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from rootward.core.problems import Problem, shown
from rootward.core.pubkey import KeyAlgorithm, PublicKey, check_public_key
from rootward.keys.backend import KeySettings
from rootward.keys.elsewhere import elsewhere
from rootward.keys.key import NotSigned, PrivateKey, SignatureUnknown

CONNECT_SECONDS: Final = 4
READ_SECONDS: Final = 10  # well within the lease of an intent (ca/issue.py)

# The request came too late or was given up by somebody on its way: its first half may have been carried out.
_UNCLEAR = frozenset({408, 499})
_OCTETS = {
    KeyAlgorithm.RSA_2048: 256,
    KeyAlgorithm.RSA_3072: 384,
    KeyAlgorithm.RSA_4096: 512,
    KeyAlgorithm.ED25519: 64,
    KeyAlgorithm.ML_DSA_44: 2420,
    KeyAlgorithm.ML_DSA_65: 3309,
    KeyAlgorithm.ML_DSA_87: 4627,
}
_LARGEST = {KeyAlgorithm.P256: 32, KeyAlgorithm.P384: 48, KeyAlgorithm.P521: 66}
ML_DSA = frozenset({KeyAlgorithm.ML_DSA_44, KeyAlgorithm.ML_DSA_65, KeyAlgorithm.ML_DSA_87})


class Scheme(NamedTuple):
    """How a key is to sign: `ecdsa`, `pkcs1` or `pss` with the hash's name (`sha256`); `pure`, which has none."""

    kind: str
    hash: str = ""

    def digest(self, message: bytes) -> bytes:
        """The message's hash; what `pure` signs is the message itself."""
        return hashlib.new(self.hash, message).digest() if self.hash else message


T = TypeVar("T")
Sign = Callable[[bytes, Scheme], bytes]


def remote(public: PublicKey, sign: Sign) -> PrivateKey:
    """A private key of `public`'s type. `sign(message, scheme)` gives the signature as X.509 has it, or raises
    NotSigned or SignatureUnknown.
    """
    return elsewhere(public, lambda message, *how: check_form(public, sign(message, _scheme(how))))


def later(find: Callable[[], T]) -> Callable[[], T]:
    """What `find` gives, asked for when it is needed and kept from then on. Its Problem is NotSigned: nobody was asked
    for a signature yet.
    """
    lock = threading.Lock()
    found: list[T] = []

    def get() -> T:
        with lock:
            if not found:
                try:
                    found.append(find())
                except Problem as problem:
                    raise NotSigned(problem.detail) from problem
            return found[0]

    return get


def _scheme(how: tuple[Any, ...]) -> Scheme:
    """The arguments that follow the message in `cryptography`'s `sign`."""
    match how:
        case ():
            return Scheme("pure")
        case (ec.ECDSA(algorithm=hashes.HashAlgorithm() as hash),):
            return Scheme("ecdsa", hash.name)
        case (padding.PKCS1v15(), hash):
            return Scheme("pkcs1", hash.name)
        case (padding.PSS(), hash):
            return Scheme("pss", hash.name)  # the salt is as long as the hash, everywhere in this house
    raise TypeError("no such way to sign")


def check_form(public: PublicKey, signature: object) -> bytes:
    """`signature`, or SignatureUnknown where it is none by its form: what was cut off on its way is no other key's."""
    if not isinstance(signature, bytes):
        raise SignatureUnknown("the reply has no signature")
    if public.algorithm in _LARGEST:
        try:
            r, s = decode_dss_signature(signature)
        except ValueError:
            raise SignatureUnknown("the reply's signature cannot be read") from None
        largest = 1 << 8 * _LARGEST[public.algorithm]
        if encode_dss_signature(r, s) != signature or not (0 < r < largest and 0 < s < largest):
            raise SignatureUnknown("the reply's signature is not as DER has it")
    elif len(signature) != _OCTETS[public.algorithm]:
        raise SignatureUnknown(f"the reply's signature has {len(signature)} bytes")
    return signature


def der_of(public: PublicKey, flat: object) -> bytes:
    """An ECDSA signature that came as r and s side by side (RFC 7518 3.4), as DER (RFC 3279 2.2.3)."""
    size = _LARGEST[public.algorithm]
    if not isinstance(flat, bytes) or len(flat) != 2 * size:
        raise SignatureUnknown("the reply's signature has another length than the key's")
    return encode_dss_signature(int.from_bytes(flat[:size], "big"), int.from_bytes(flat[size:], "big"))


def external_mu(public: PublicKey, message: bytes) -> bytes:
    """ML-DSA's 64 byte representative of `message` (FIPS 204 algorithm 7 line 6, empty context)."""
    tr = hashlib.shake_256(public.bits).digest(64)
    return hashlib.shake_256(tr + b"\x00\x00" + message).digest(64)


def public_of(spki: bytes, *, where: str) -> PublicKey:
    """The public key of a key over there; Problem RW-KEY-FILE where it is none that this house takes."""
    try:
        return check_public_key(spki, field="key")
    except Problem as problem:
        raise Problem("RW-KEY-FILE", f"A key in {where} cannot be used: {problem.detail}") from problem


def refused(status: object) -> bool:
    """Whether an HTTP status says that the request was surely not carried out."""
    return isinstance(status, int) and 400 <= status < 500 and status not in _UNCLEAR


# ── settings and problems ─────────────────────────────────────────────────────────────────────────────────────────


def check_plain(settings: KeySettings, *, named: str) -> None:
    """Problem RW-CONFIG where a setting is there that this backend has no use for."""
    if settings.pin is not None:
        raise wrong(settings, f"{named} has no PIN; its credentials come from the vendor's own places. Remove pin.")


def check_endpoint(settings: KeySettings) -> None:
    """Problem RW-CONFIG for an endpoint that is no URL (a vendor's library may pass over it and call its own), and for
    one without TLS, unless it is on this very machine.
    """
    if not settings.endpoint:
        return
    try:
        parts = urlsplit(settings.endpoint)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good:
        raise wrong(
            settings,
            f"the endpoint {shown(settings.endpoint)} is no URL with scheme and host, such as https://kms.internal.",
        )
    if parts.scheme == "http" and not _is_loopback(parts.hostname or ""):
        raise wrong(
            settings,
            f"the endpoint {shown(settings.endpoint)} has no TLS, so anybody on the way could read and change what is "
            "signed. Use https://; http:// is for a test double on 127.0.0.1.",
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False  # a name may mean another address tomorrow


def protection(settings: KeySettings) -> tuple[str, bool]:
    """The uri without its query, and whether new keys are made in an HSM: yes, unless `?protection=software`."""
    uri, _, query = settings.uri.partition("?")
    match parse_qsl(query, keep_blank_values=True):
        case [] if not query:
            return uri, True
        case [("protection", "hsm")]:
            return uri, True
        case [("protection", "software")]:
            return uri, False
    raise wrong(settings, f"{shown(settings.uri, 200)}: behind ? may stand protection=hsm or protection=software only.")


def wrong(settings: KeySettings, why: str) -> Problem:
    """Problem RW-CONFIG about a `[keys.NAME]` table, to be raised."""
    return Problem("RW-CONFIG", f"[keys.{settings.store}]: {why}", field=f"keys.{settings.store}")


def no_library(settings: KeySettings, *, extra: str, error: ImportError) -> Problem:
    """Problem RW-CONFIG where the vendor's library is not installed, to be raised."""
    return wrong(
        settings,
        f"the library for it is not installed ({shown(error.name or str(error))} is missing). "
        f"Run: pip install 'rootward[{extra}]'",
    )


def unavailable(store: str, doing: str, error: Exception) -> Problem:
    """Problem RW-KEY-UNAVAILABLE, to be raised: the service did not do it, and asking later may help."""
    why = shown(f"{type(error).__name__}: {error}", 300)
    return Problem("RW-KEY-UNAVAILABLE", f"The key store {store} did not answer when asked {doing}: {why}")


def disabled(store: str, key: str) -> Problem:
    """Problem RW-KEY-UNAVAILABLE, to be raised: what may be the asked key was switched off over there."""
    return Problem("RW-KEY-UNAVAILABLE", f"{shown(key, 200)} in the key store {store} is disabled: enable it there.")


def mismatch(label: str, where: str) -> Problem:
    """Problem RW-KEY-MISMATCH, to be raised."""
    return Problem(
        "RW-KEY-MISMATCH", f"{where} holds another key than the certificate of {label} has. It is not used; see why."
    )
