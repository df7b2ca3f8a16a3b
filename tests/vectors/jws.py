"""Signed objects of the RFCs, and signed objects that are wrong in one way each.

RFC 7515 A.1 to A.4, RFC 8037 A.4, RFC 7638 3.1; the numbers are those of the table of bad inputs.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric import rsa

from tests.support.acme import algorithm_of, b64, flattened, jwk_of, new_key

CLAIMS = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
RSA_N = (
    "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pC"
    "gNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg6"
    "65xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRW"
    "yuXpoQ"
)


@dataclass(frozen=True)
class Signed:
    """A signed object of an RFC, in its flattened form, with the public key."""

    where: str
    protected: str
    payload: str
    signature: str
    jwk: dict[str, str]


SIGNED = [
    Signed(
        "RFC 7515 A.2",
        "eyJhbGciOiJSUzI1NiJ9",
        CLAIMS,
        "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CU"
        "Ar7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_d"
        "O--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0ig"
        "cN_IoypGlUPQGe77Rw",
        {"kty": "RSA", "n": RSA_N, "e": "AQAB"},
    ),
    Signed(
        "RFC 7515 A.3",
        "eyJhbGciOiJFUzI1NiJ9",
        CLAIMS,
        "DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
        {
            "kty": "EC",
            "crv": "P-256",
            "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
            "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
        },
    ),
    Signed(
        "RFC 7515 A.4",
        "eyJhbGciOiJFUzUxMiJ9",
        "UGF5bG9hZA",
        "AdwMgeerwtHoh-l192l60hp9wAHZFVJbLfD_UxMi70cwnZOYaRI1bKPWROc-mZZqwqT2SI-KGDKB34XO0aw_7XdtAG8GaSwFKdCAPZgoXD2Y"
        "BJZCPEX3xKpRwcdOO8KpEHwJjyqOgzDO7iKvU8vcnwNrmxYbSW9ERBXukOXolLzeO_Jn",
        {
            "kty": "EC",
            "crv": "P-521",
            "x": "AekpBQ8ST8a8VcfVOTNl353vSrDCLLJXmPk06wTjxrrjcBpXp5EOnYG_NjFZ6OvLFV1jSfS9tsz4qUxcWceqwQGk",
            "y": "ADSmRA43Z1DSNx_RvcLI87cdL07l6jQyyBXMoxVg_l2Th-x3S1WDhjDly79ajL4Kkd0AZMaZmh9ubmf63e3kyMj2",
        },
    ),
    Signed(
        "RFC 8037 A.4",
        "eyJhbGciOiJFZERTQSJ9",
        "RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc",
        "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg",
        {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"},
    ),
]

# RFC 7515 A.1, whose header says HS256.
MAC = Signed(
    "RFC 7515 A.1",
    "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9",
    CLAIMS,
    "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
    {},
)
MAC_KEY = "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"

THUMBPRINTS = [
    (  # RFC 7638 3.1
        {
            "kty": "RSA",
            "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZ"
            "CiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9"
            "c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF4"
            "4-csFCur-kEgU8awapJzKnqDKgw",
            "e": "AQAB",
            "alg": "RS256",
            "kid": "2011-04-29",
        },
        "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs",
    ),
    (  # RFC 8037 A.3
        {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"},
        "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k",
    ),
]

# ── wrong in one way ──────────────────────────────────────────────────────────────────────────────────────────────

KEY = new_key()
P384 = new_key("P-384")
URL = "https://localhost:8443/acme/new-account"
HEADER: dict[str, Any] = {"alg": "ES256", "jwk": jwk_of(KEY), "nonce": "AAAA", "url": URL}


def good(**header: Any) -> dict[str, Any]:
    """A signed object by `KEY`; the header's parts may be others."""
    return dict(flattened(KEY, HEADER | header, {"a": 1}))


def with_jwk(**members: Any) -> dict[str, Any]:
    """One whose JWK has other members too, or in place of its own."""
    return good(jwk=jwk_of(KEY) | members)


def rsa_jwk(modulus: int, exponent: int = 65537) -> dict[str, str]:
    """A JWK of these numbers, whatever they are."""
    return {"kty": "RSA", "n": _number(modulus), "e": _number(exponent)}


def _number(value: int) -> str:
    return b64(value.to_bytes((value.bit_length() + 7) // 8))


def _header(text: str) -> bytes:
    """A signed object whose protected header is this very text."""
    return json.dumps(good() | {"protected": b64(text.encode())}).encode()


def _text(**changes: Any) -> bytes:
    return json.dumps(good() | changes).encode()


def _without(name: str) -> bytes:
    return json.dumps({key: value for key, value in good().items() if key != name}).encode()


def _small_rsa() -> dict[str, str]:
    numbers = rsa.generate_private_key(65537, 1024).public_key().public_numbers()  # noqa: S505  # a weak key is meant
    return rsa_jwk(numbers.n)


def _exponent_three() -> dict[str, str]:
    return rsa_jwk(new_key("RSA-2048").public_key().public_numbers().n, 3)


def _off_curve() -> dict[str, str]:
    return jwk_of(KEY) | {"y": b64(bytes(31) + b"\1")}


@dataclass(frozen=True)
class BadJws:
    """`type` is the problem type that it gets, whoever sends it."""

    number: int
    title: str
    make: Callable[[], bytes]
    type: str

    def __str__(self) -> str:
        return f"{self.number} {self.title}"


def _jwk(make: Callable[[], dict[str, Any]], algorithm: str = "ES256") -> Callable[[], bytes]:
    return lambda: json.dumps(good(jwk=make(), alg=algorithm)).encode()


M, A, K = "malformed", "badSignatureAlgorithm", "badPublicKey"
BAD_JWS: list[BadJws] = [
    BadJws(122, "nothing", lambda: b"", M),
    BadJws(122, "not JSON", lambda: b"{", M),
    BadJws(122, "not UTF-8", lambda: b'{"protected":"\xff"}', M),
    BadJws(122, "no object", lambda: b"[]", M),
    BadJws(122, "a text", lambda: b'"a"', M),
    BadJws(122, "NaN", lambda: b'{"payload":NaN}', M),
    BadJws(122, "a member twice", lambda: _text()[:-1] + b',"payload":""}', M),
    BadJws(122, "too deep", lambda: b'{"protected":' + b"[" * 60 + b"]" * 60 + b"}", M),
    BadJws(122, "deeper than any parser goes", lambda: b"[" * 20_000, M),
    BadJws(122, "an empty object", lambda: b"{}", M),
    BadJws(122, "no signature", lambda: _without("signature"), M),
    BadJws(122, "no payload", lambda: _without("payload"), M),
    BadJws(122, "no header", lambda: _without("protected"), M),
    BadJws(122, "a payload that is no text", lambda: _text(payload={"a": 1}), M),
    BadJws(122, "a signature that is null", lambda: _text(signature=None), M),
    BadJws(122, "a header with a member twice", lambda: _header('{"alg":"ES256","alg":"ES256"}'), M),
    BadJws(122, "a header that is a list", lambda: _header("[]"), M),
    BadJws(122, "a header without alg", lambda: _header("{}"), M),
    BadJws(122, "an alg that is a number", lambda: _header('{"alg":1}'), M),
    BadJws(122, "a nonce that is a list", lambda: _header('{"alg":"ES256","nonce":["a"]}'), M),
    BadJws(122, "a url that is a number", lambda: _header('{"alg":"ES256","url":1}'), M),
    BadJws(122, "a kid that is null", lambda: _header('{"alg":"ES256","kid":null}'), M),
    BadJws(123, "padded base64url", lambda: _text(payload=urlsafe_b64encode(b'{"a":12}').decode()), M),
    BadJws(123, "plain base64", lambda: _text(signature="+/+/"), M),
    BadJws(123, "a line feed in base64url", lambda: _text(payload="e30\n"), M),
    BadJws(123, "bits left over", lambda: _text(payload="e31"), M),
    BadJws(123, "one character alone", lambda: _text(payload="e"), M),
    BadJws(123, "letters of another script", lambda: _text(payload="é30"), M),
    BadJws(124, "two signatures", lambda: json.dumps({"payload": "", "signatures": [good(), good()]}).encode(), M),
    BadJws(124, "both forms", lambda: _text(signatures=[]), M),
    BadJws(125, "compact form", lambda: ".".join(good().values()).encode(), M),
    BadJws(125, "compact form in a text", lambda: json.dumps(".".join(good().values())).encode(), M),
    BadJws(126, "crit", lambda: json.dumps(good(crit=["x"], x=1)).encode(), M),
    BadJws(126, "an empty crit", lambda: json.dumps(good(crit=[])).encode(), M),
    BadJws(126, "a payload that is not encoded (RFC 7797)", lambda: json.dumps(good(b64=False)).encode(), M),
    BadJws(127, "an unprotected header", lambda: _text(header={"kid": "a"}), M),
    BadJws(127, "an empty unprotected header", lambda: _text(header={}), M),
    BadJws(128, "none", lambda: json.dumps(good(alg="none")).encode(), A),
    BadJws(128, "a MAC", lambda: json.dumps(good(alg="HS256")).encode(), A),
    BadJws(128, "RS1", lambda: json.dumps(good(alg="RS1")).encode(), A),
    BadJws(128, "nothing that there is", lambda: json.dumps(good(alg="es256")).encode(), A),
    BadJws(128, "ES256 with P-384", _jwk(lambda: jwk_of(P384)), A),
    BadJws(128, "RS256 with P-256", _jwk(lambda: jwk_of(KEY), "RS256"), A),
    BadJws(128, "EdDSA with P-256", _jwk(lambda: jwk_of(KEY), "EdDSA"), A),
    BadJws(129, "a JWK for another algorithm", lambda: json.dumps(with_jwk(alg="ES384")).encode(), M),
    BadJws(129, "a JWK for encryption", lambda: json.dumps(with_jwk(use="enc")).encode(), M),
    BadJws(130, "a private key", lambda: json.dumps(with_jwk(d="AAAA")).encode(), M),
    BadJws(130, "an RSA key's factors", _jwk(lambda: rsa_jwk(2**2047 + 1) | {"p": "AA", "q": "AA"}, "RS256"), M),
    BadJws(130, "a symmetric key", _jwk(lambda: {"kty": "oct", "k": "AAAA"}), M),
    BadJws(131, "a JWK that is a text", lambda: json.dumps(good(jwk="a")).encode(), M),
    BadJws(131, "an empty JWK", lambda: json.dumps(good(jwk={})).encode(), K),
    BadJws(131, "a JWK without y", _jwk(lambda: {n: v for n, v in jwk_of(KEY).items() if n != "y"}), M),
    BadJws(131, "a coordinate that is a number", lambda: json.dumps(with_jwk(x=1)).encode(), M),
    BadJws(131, "a coordinate too short", lambda: json.dumps(with_jwk(x=b64(bytes(31)))).encode(), M),
    BadJws(131, "a coordinate too long", lambda: json.dumps(with_jwk(x=b64(bytes(33)))).encode(), M),
    BadJws(132, "off its curve", _jwk(_off_curve), K),
    BadJws(132, "the point at infinity", lambda: json.dumps(with_jwk(x=b64(bytes(32)), y=b64(bytes(32)))).encode(), K),
    BadJws(132, "a curve that is not ours", lambda: json.dumps(with_jwk(crv="secp256k1")).encode(), K),
    BadJws(132, "Ed25519 of small order", _jwk(lambda: _okp(bytes([1]) + bytes(31)), "EdDSA"), K),
    BadJws(132, "Ed25519 too short", _jwk(lambda: _okp(bytes(31)), "EdDSA"), M),
    BadJws(132, "Ed448", _jwk(lambda: _okp(bytes(57)) | {"crv": "Ed448"}, "EdDSA"), K),
    BadJws(132, "RSA with 1024 bits", _jwk(_small_rsa, "RS256"), K),
    BadJws(132, "RSA with 16384 bits", _jwk(lambda: rsa_jwk(2**16383 + 1), "RS256"), K),
    BadJws(132, "RSA with the exponent 3", _jwk(_exponent_three, "RS256"), K),
    BadJws(132, "RSA with an even modulus", _jwk(lambda: rsa_jwk(2**2047 + 2), "RS256"), K),
    BadJws(132, "RSA with close primes", _jwk(lambda: rsa_jwk((2**1279 - 1) ** 2), "RS256"), K),
    BadJws(132, "RSA with a leading zero", _jwk(lambda: rsa_jwk(1) | {"n": b64(bytes(257))}, "RS256"), M),
    BadJws(132, "RSA without a modulus", _jwk(lambda: rsa_jwk(1) | {"n": ""}, "RS256"), M),
]


def _okp(x: bytes) -> dict[str, str]:
    return {"kty": "OKP", "crv": "Ed25519", "x": b64(x)}


GOOD_KINDS = ("P-256", "P-384", "P-521", "Ed25519", "RSA-2048")
KEYS = {kind: new_key(kind) for kind in GOOD_KINDS}


def good_jws(kind: str, payload: object, **header: Any) -> bytes:
    """A signed object by a key of that kind."""
    key = KEYS[kind]
    return json.dumps(flattened(key, {"alg": algorithm_of(key), "jwk": jwk_of(key), **header}, payload)).encode()


def twin(signature: bytes) -> bytes:
    """The other ECDSA signature over the same message: with the negative of s."""
    order = int("FFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551", 16)
    return signature[:32] + (order - int.from_bytes(signature[32:])).to_bytes(32)
