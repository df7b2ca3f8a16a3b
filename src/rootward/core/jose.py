"""Signed objects as ACME sends them: the flattened JSON form of JWS (RFC 7515 7.2.2), read strictly (RFC 8555 6.2).

One signature, everything of the header protected, no extension that would have to be understood, base64url and JSON in
one form each. What is read is not yet proven: `Jwk.verifies` or `authentic` says whose it is.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Container
from dataclasses import dataclass
from typing import Any

from rootward.core import strict
from rootward.core.jwk import ALGORITHMS, Fault, JoseError, Jwk, b64decode, read_jwk

LARGEST = 50_000  # bytes of a signed object
DEPTH = 8
_MACS = {"HS256": hashlib.sha256, "HS384": hashlib.sha384, "HS512": hashlib.sha512}
MACS = tuple(_MACS)


@dataclass(frozen=True)
class Jws:
    """A signed object. `jwk` or `kid` says whose it claims to be, `message` is what the signature is over.

    `nonce` and `url` are RFC 8555's header parameters, None where they are absent.
    """

    algorithm: str
    jwk: Jwk | None
    kid: str | None
    nonce: str | None
    url: str | None
    payload: bytes
    message: bytes
    signature: bytes


def read_jws(data: bytes, *, algorithms: Container[str] = ALGORITHMS) -> Jws:
    """A signed object from its bytes. JoseError where it is none or has another algorithm, or a key is wrong."""
    if len(data) > LARGEST:
        raise _malformed(f"A signed object has at most {LARGEST} bytes.")
    return jws_of(_object(data), algorithms=algorithms)


def jws_of(value: object, *, algorithms: Container[str] = ALGORITHMS) -> Jws:
    """A signed object from its JSON, that is read already."""
    if not isinstance(value, dict):
        raise _malformed("A signed object is a JSON object: a JWS in its flattened form (RFC 7515 7.2.2).")
    if "signatures" in value:
        raise _malformed("A signed object has one signature (RFC 8555 6.2).")
    if "header" in value:
        raise _malformed("The whole header must be protected (RFC 8555 6.2).")
    protected, payload, signature = value.get("protected"), value.get("payload"), value.get("signature")
    if not (isinstance(protected, str) and isinstance(payload, str) and isinstance(signature, str)):
        raise _malformed("A signed object has the members protected, payload and signature, which are texts.")
    header = _object(b64decode(protected))
    algorithm = header.get("alg")
    if not isinstance(algorithm, str):
        raise _malformed("The header has no alg.")
    if algorithm not in algorithms:
        raise JoseError(Fault.ALGORITHM, "The signature's algorithm is not one of those that are accepted.")
    if "crit" in header or "b64" in header:
        raise _malformed("No extension of JWS is understood here (RFC 7515 4.1.11).")
    jwk = None
    if "jwk" in header:
        jwk = read_jwk(header["jwk"], algorithm=algorithm)
        check_algorithm(jwk, algorithm)
    return Jws(
        algorithm=algorithm,
        jwk=jwk,
        kid=_text(header, "kid"),
        nonce=_text(header, "nonce"),
        url=_text(header, "url"),
        payload=b64decode(payload),
        message=f"{protected}.{payload}".encode("ascii"),
        signature=b64decode(signature),
    )


def check_algorithm(jwk: Jwk, algorithm: str) -> None:
    """JoseError where an algorithm is not the key's (RFC 7518 3.4: each curve has its own)."""
    if jwk.algorithm != algorithm:
        raise JoseError(Fault.ALGORITHM, f"A key of this type signs with {jwk.algorithm}.")


def authentic(jws: Jws, secret: bytes) -> bool:
    """Whether the MAC is right (RFC 7518 3.2), compared in constant time."""
    return hmac.compare_digest(hmac.digest(secret, jws.message, _MACS[jws.algorithm]), jws.signature)


def _object(data: bytes) -> dict[str, Any]:
    try:
        found = strict.read(data, depth=DEPTH)
    except strict.NotStrict as error:
        raise _malformed(str(error)) from None
    if not isinstance(found, dict):
        raise _malformed("A JSON object is expected here.")
    return found


def _text(header: dict[str, Any], name: str) -> str | None:
    if name not in header:
        return None
    value = header[name]
    if not isinstance(value, str):
        raise _malformed(f"The header's {name} is not a text.")
    return value


def _malformed(detail: str) -> JoseError:
    return JoseError(Fault.MALFORMED, detail)
