"""Public keys as JSON (RFC 7517, RFC 7518 6, RFC 8037), their thumbprints (RFC 7638), and the signatures that they
verify (RFC 7515, RFC 7518 3).

A `Jwk` is what passed every check: one encoding only, public members only, a point of its curve, no known weakness. Its
`text` is the canonical JSON of RFC 7638 3.3, which is stored, compared and hashed.
"""

from __future__ import annotations

import enum
import hashlib
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from rootward.core.problems import Problem
from rootward.core.pubkey import BUILT_IN_BLOCKED, check_rsa_numbers, public_key_of
from rootward.core.sealed import Sealed

RSA_BITS = (2048, 8192)
_PRIVATE = frozenset("d p q dp dq qi oth k".split())  # RFC 7518 6.2.2, 6.3.2, 6.4; RFC 8037 2
_MEMBERS = {"EC": ("crv", "kty", "x", "y"), "OKP": ("crv", "kty", "x"), "RSA": ("e", "kty", "n")}
_KEPT_KEYS = 4096

SigningKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey


class Fault(enum.StrEnum):
    """What is wrong with a key or a signed object, in ACME's words (RFC 8555 6.7)."""

    MALFORMED = "malformed"
    ALGORITHM = "badSignatureAlgorithm"
    KEY = "badPublicKey"


class JoseError(Exception):
    """A key or a signed object that is not accepted. `detail` has nothing of what was sent."""

    def __init__(self, fault: Fault, detail: str) -> None:
        self.fault, self.detail = fault, detail
        super().__init__(f"{fault}: {detail}")


class PrivateKeySent(JoseError):
    """A private key where a public one belongs: whoever sent it should hear of it."""

    def __init__(self) -> None:
        super().__init__(Fault.MALFORMED, "A private key was sent where a public key belongs: make a new one.")


class _Curve(NamedTuple):
    """A curve of `kty` EC: octets of a coordinate, and the algorithm that goes with it (RFC 7518 3.4)."""

    curve: ec.EllipticCurve
    octets: int
    algorithm: str
    digest: hashes.HashAlgorithm


_CURVES = {
    "P-256": _Curve(ec.SECP256R1(), 32, "ES256", hashes.SHA256()),
    "P-384": _Curve(ec.SECP384R1(), 48, "ES384", hashes.SHA384()),
    "P-521": _Curve(ec.SECP521R1(), 66, "ES512", hashes.SHA512()),
}
_BY_ALGORITHM = {curve.algorithm: curve for curve in _CURVES.values()}
ALGORITHMS = (*_BY_ALGORITHM, "EdDSA", "RS256")


class Jwk(Sealed):
    """A public key for signatures. `algorithm` is the one that it verifies, `id` the SHA-256 of its
    SubjectPublicKeyInfo in hex, as in certificates.
    """

    text: str
    thumbprint: str
    algorithm: str
    id: str
    key: SigningKey

    def __hash__(self) -> int:
        return hash(self.text)  # what `cryptography` makes of a key cannot be hashed

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Whether it is this key's signature, in the one form of RFC 7518 3.3 and 3.4 and RFC 8037 3.1."""
        try:
            match self.key:
                case ec.EllipticCurvePublicKey():
                    curve = _BY_ALGORITHM[self.algorithm]
                    if len(signature) != 2 * curve.octets:
                        return False
                    r, s = signature[: curve.octets], signature[curve.octets :]
                    pair = encode_dss_signature(int.from_bytes(r), int.from_bytes(s))
                    self.key.verify(pair, message, ec.ECDSA(curve.digest))
                case ed25519.Ed25519PublicKey():
                    self.key.verify(signature, message)
                case _:
                    self.key.verify(signature, message, padding.PKCS1v15(), hashes.SHA256())
        except InvalidSignature:
            return False
        return True


def b64encode(data: bytes) -> str:
    """base64url without padding (RFC 7515 section 2)."""
    return urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def b64decode(text: object) -> bytes:
    """The octets of base64url in its one form: no padding, no other characters, no bits left over. JoseError."""
    if isinstance(text, str):
        try:
            found = urlsafe_b64decode(text + "=" * (-len(text) % 4))
        except ValueError:
            found = b""
        if b64encode(found) == text:
            return found
    raise JoseError(Fault.MALFORMED, "A value is not base64url without padding (RFC 7515 section 2).")


def read_jwk(value: object, *, algorithm: str | None = None) -> Jwk:
    """The key that a JSON object says (RFC 7517 4); what it says besides the key is ignored, as section 4 wants it.

    JoseError: MALFORMED not a key that can be read, or not one for `algorithm` by its own word; KEY one that is not
    accepted. `PrivateKeySent`.
    """
    if not isinstance(value, dict):
        raise JoseError(Fault.MALFORMED, "A JWK is a JSON object.")
    if not _PRIVATE.isdisjoint(value):
        raise PrivateKeySent
    if "alg" in value and value["alg"] != (algorithm or value["alg"]):
        raise JoseError(Fault.MALFORMED, "The JWK is for another algorithm than the header says.")
    if value.get("use", "sig") != "sig":
        raise JoseError(Fault.MALFORMED, "The JWK is not for signatures.")
    members = _members(value)
    made = _made(members)
    _check(made.key, made.id)
    return made


def stored_jwk(text: str) -> Jwk:
    """The key of a `text` that was checked when it was stored."""
    return _stored(text)


def thumbprint_of(key: object) -> str | None:
    """The RFC 7638 thumbprint of a public key of `cryptography`; None for one that no JWK here can have."""
    match key:
        case ec.EllipticCurvePublicKey():
            names = [name for name, curve in _CURVES.items() if curve.curve.name == key.curve.name]
            if not names:
                return None
            numbers, octets = key.public_numbers(), _CURVES[names[0]].octets
            x, y = b64encode(numbers.x.to_bytes(octets)), b64encode(numbers.y.to_bytes(octets))
            members = {"crv": names[0], "kty": "EC", "x": x, "y": y}
        case ed25519.Ed25519PublicKey():
            members = {"crv": "Ed25519", "kty": "OKP", "x": b64encode(key.public_bytes_raw())}
        case rsa.RSAPublicKey():
            e, n = (_shortest(number) for number in (key.public_numbers().e, key.public_numbers().n))
            members = {"e": e, "kty": "RSA", "n": n}
        case _:
            return None
    return _thumbprint(_canonical(members))


def _shortest(number: int) -> str:
    """RFC 7518 section 2, Base64urlUInt."""
    return b64encode(number.to_bytes((number.bit_length() + 7) // 8))


def _canonical(members: Mapping[str, str]) -> str:
    """RFC 7638 3.3; the members are in their order."""
    return json.dumps(members, separators=(",", ":"))


def _thumbprint(text: str) -> str:
    return b64encode(hashlib.sha256(text.encode()).digest())


def _members(value: Mapping[str, Any]) -> dict[str, str]:
    """Those that make the key (RFC 7638 3.2, RFC 8037 2), in their order."""
    names = _MEMBERS.get(str(value.get("kty")))
    if names is None:
        raise JoseError(Fault.KEY, f"Keys are of the types {', '.join(_MEMBERS)}.")
    if not all(isinstance(value.get(name), str) for name in names):
        raise JoseError(Fault.MALFORMED, f"A JWK of this type has the members {', '.join(names)}, which are texts.")
    return {name: value[name] for name in names}


def _made(members: Mapping[str, str]) -> Jwk:
    match members["kty"]:
        case "EC":
            algorithm, key = _elliptic(members)
        case "OKP":
            algorithm, key = "EdDSA", _edwards(members)
        case _:
            algorithm, key = "RS256", _rsa(members)
    text = _canonical(members)
    spki = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return Jwk._make(
        text=text,
        thumbprint=_thumbprint(text),
        algorithm=algorithm,
        id=hashlib.sha256(spki).hexdigest(),
        key=key,
    )


def _elliptic(members: Mapping[str, str]) -> tuple[str, SigningKey]:
    curve = _CURVES.get(members["crv"])
    if curve is None:
        raise JoseError(Fault.KEY, f"Of elliptic curves, {', '.join(_CURVES)} and Ed25519 are accepted.")
    x, y = b64decode(members["x"]), b64decode(members["y"])
    if len(x) != curve.octets or len(y) != curve.octets:
        raise JoseError(Fault.MALFORMED, f"A coordinate of this curve has {curve.octets} octets (RFC 7518 6.2.1.2).")
    try:
        return curve.algorithm, ec.EllipticCurvePublicKey.from_encoded_point(curve.curve, b"\x04" + x + y)
    except ValueError:
        raise JoseError(Fault.KEY, "The point is not on its curve.") from None


def _edwards(members: Mapping[str, str]) -> SigningKey:
    if members["crv"] != "Ed25519":
        raise JoseError(Fault.KEY, "Of keys of the type OKP, Ed25519 is accepted.")
    x = b64decode(members["x"])
    if len(x) != 32:
        raise JoseError(Fault.MALFORMED, "An Ed25519 key has 32 octets.")
    return ed25519.Ed25519PublicKey.from_public_bytes(x)


def _rsa(members: Mapping[str, str]) -> SigningKey:
    n, e = b64decode(members["n"]), b64decode(members["e"])
    if not n or not e or n[0] == 0 or e[0] == 0:
        raise JoseError(Fault.MALFORMED, "A number begins with its first octet that is not zero (RFC 7518 section 2).")
    least, most = RSA_BITS
    if not least <= int.from_bytes(n).bit_length() <= most or len(e) > 8:
        raise JoseError(Fault.KEY, f"RSA keys have {least} to {most} bits and a short exponent.")
    try:
        return rsa.RSAPublicNumbers(int.from_bytes(e), int.from_bytes(n)).public_key()
    except ValueError:
        raise JoseError(Fault.KEY, "The numbers are not those of an RSA key.") from None


def _check(key: SigningKey, id: str) -> None:
    """The weaknesses that show in the key; an RSA key may be longer than those in certificates."""
    try:
        if isinstance(key, rsa.RSAPublicKey):
            numbers = key.public_numbers()
            check_rsa_numbers(numbers.n, numbers.e)
        else:
            public_key_of(key)
    except Problem as problem:
        raise JoseError(Fault.KEY, problem.detail) from None
    if id in BUILT_IN_BLOCKED:
        raise JoseError(Fault.KEY, "public key is forbidden")


@lru_cache(maxsize=_KEPT_KEYS)
def _stored(text: str) -> Jwk:
    return _made(json.loads(text))
