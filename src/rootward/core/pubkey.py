"""Public keys that may stand in a certificate: type, size, encoding, and the weaknesses that show in the key itself.

Sources: RFC 3279 2.3, RFC 5480 2, RFC 5639 (brainpool), RFC 8410 and RFC 9881 (the exact AlgorithmIdentifiers), NIST
SP 800-89 5.3.3 (RSA), the ROCA paper (Nemec et al., CCS 2017), CVE-2022-26320 (close primes), RFC 8032 (points of small
order). A `PublicKey` is what passed all of it. Compressed points are refused, not converted: what is certified is what
was sent.
"""

from __future__ import annotations

import enum
import hashlib
import math
from collections.abc import Container
from functools import cached_property
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, rsa

from rootward.core import der
from rootward.core.problems import Problem
from rootward.core.sealed import Sealed


class KeyAlgorithm(enum.StrEnum):
    """What a key is; the values are those of the command line and of profiles."""

    RSA_2048 = "rsa-2048"
    RSA_3072 = "rsa-3072"
    RSA_4096 = "rsa-4096"
    P256 = "p256"
    P384 = "p384"
    P521 = "p521"
    BRAINPOOL_P256R1 = "brainpool-p256r1"
    BRAINPOOL_P384R1 = "brainpool-p384r1"
    BRAINPOOL_P512R1 = "brainpool-p512r1"
    ED25519 = "ed25519"
    ML_DSA_44 = "ml-dsa-44"
    ML_DSA_65 = "ml-dsa-65"
    ML_DSA_87 = "ml-dsa-87"


BRAINPOOL = frozenset({KeyAlgorithm.BRAINPOOL_P256R1, KeyAlgorithm.BRAINPOOL_P384R1, KeyAlgorithm.BRAINPOOL_P512R1})
# What is accepted where nobody says anything: most TLS libraries do not take brainpool (RFC 8446 4.2.7 has no group).
USUAL_KEYS = tuple(algorithm for algorithm in KeyAlgorithm if algorithm not in BRAINPOOL)

CryptoKey = (
    rsa.RSAPublicKey
    | ec.EllipticCurvePublicKey
    | ed25519.Ed25519PublicKey
    | mldsa.MLDSA44PublicKey
    | mldsa.MLDSA65PublicKey
    | mldsa.MLDSA87PublicKey
)


class PublicKey(Sealed):
    """A key that passed every check of this module.

    `spki` is the SubjectPublicKeyInfo's DER, `id` its SHA-256 in lower-case hex, `key` what `cryptography` made of it.
    """

    algorithm: KeyAlgorithm
    spki: bytes
    id: str
    key: CryptoKey

    @cached_property
    def bits(self) -> bytes:
        """The subjectPublicKey BIT STRING's content, without its count of unused bits."""
        return der.children(self.spki)[1].content[1:]

    @cached_property
    def identifier(self) -> bytes:
        """The subject key identifier: the left 160 bits of SHA-256 over `bits` (RFC 7093 section 2, method 1)."""
        return hashlib.sha256(self.bits).digest()[:20]

    def __hash__(self) -> int:
        return hash(self.id)  # what `cryptography` makes of a key cannot be hashed


class _Kind(NamedTuple):
    """What follows one exact AlgorithmIdentifier: the key's type, and the length of its bits (0: RSA, any)."""

    algorithm: KeyAlgorithm
    octets: int
    type: type


_EC_OID = "1.2.840.10045.2.1"
_EC = der.oid(_EC_OID)
_RSA = der.sequence(der.oid("1.2.840.113549.1.1.1"), der.null())
_KINDS: dict[bytes, _Kind] = {
    _RSA: _Kind(KeyAlgorithm.RSA_2048, 0, rsa.RSAPublicKey),
    der.sequence(_EC, der.oid("1.2.840.10045.3.1.7")): _Kind(KeyAlgorithm.P256, 65, ec.EllipticCurvePublicKey),
    der.sequence(_EC, der.oid("1.3.132.0.34")): _Kind(KeyAlgorithm.P384, 97, ec.EllipticCurvePublicKey),
    der.sequence(_EC, der.oid("1.3.132.0.35")): _Kind(KeyAlgorithm.P521, 133, ec.EllipticCurvePublicKey),
    **{
        der.sequence(_EC, der.oid(f"1.3.36.3.3.2.8.1.1.{arc}")): _Kind(algorithm, octets, ec.EllipticCurvePublicKey)
        for arc, algorithm, octets in (
            (7, KeyAlgorithm.BRAINPOOL_P256R1, 65),
            (11, KeyAlgorithm.BRAINPOOL_P384R1, 97),
            (13, KeyAlgorithm.BRAINPOOL_P512R1, 129),
        )
    },
    der.sequence(der.oid("1.3.101.112")): _Kind(KeyAlgorithm.ED25519, 32, ed25519.Ed25519PublicKey),
    der.sequence(der.oid("2.16.840.1.101.3.4.3.17")): _Kind(KeyAlgorithm.ML_DSA_44, 1312, mldsa.MLDSA44PublicKey),
    der.sequence(der.oid("2.16.840.1.101.3.4.3.18")): _Kind(KeyAlgorithm.ML_DSA_65, 1952, mldsa.MLDSA65PublicKey),
    der.sequence(der.oid("2.16.840.1.101.3.4.3.19")): _Kind(KeyAlgorithm.ML_DSA_87, 2592, mldsa.MLDSA87PublicKey),
}
_KNOWN_OIDS = frozenset(der.children(identifier)[0].content for identifier in _KINDS)

# SHA-256 of the SubjectPublicKeyInfos of RFC 9500's test keys: anybody has their private halves.
BUILT_IN_BLOCKED: frozenset[str] = frozenset(
    {
        "9a9e5b0f404f4e2d4386e38b04ac91e535946dc2a7f8d84a31404b476e5c35e1",  # testRSA1024
        "8fb6bad671cfe698393c453357da61b56d757ab8c0f3fb9c87f2849e63131878",  # testRSA2048
        "96465ea5dc9bb2da7b351d808a7196e5761f2412a5040131c68d719aaba28fb9",  # testRSA4096
        "b2b04340cfaee616ec9c2c62d261b208e54bb197498df52e8cadede23ac0ba5e",  # testECCP256
        "c4c10105a0be0ed4dd3354428dc38a9bfee64da141ce16e75c94eda272f9dd3a",  # testECCP384
        "acb1b8327fef995e2458fdf5e3c33b2dc0749feabd6a894cb9bda9d70ac06c24",  # testECCP521
    }
)


def check_public_key(spki_der: bytes, *, field: str = "csr") -> PublicKey:
    """The key of a SubjectPublicKeyInfo; Problem RW-KEY-ENCODING, RW-KEY-TYPE, RW-KEY-WEAK or RW-KEY-BLOCKED."""
    try:
        kind, bits = _split(spki_der)
        if kind.octets == 0:
            algorithm = _check_rsa(bits)
        else:
            algorithm = kind.algorithm
            _check_bits(kind, bits)
        key = serialization.load_der_public_key(spki_der)
    except Problem as problem:
        raise Problem(problem.code, problem.detail, field=field) from None
    except (der.DerError, ValueError, TypeError, UnsupportedAlgorithm):
        # TypeError: cryptography's answer to some odd types. Off-curve points end here, too.
        raise Problem("RW-KEY-ENCODING", "The public key cannot be read.", field=field) from None
    if not isinstance(key, kind.type):
        raise Problem("RW-KEY-ENCODING", "The public key is not what its algorithm says.", field=field)
    made = PublicKey._make(algorithm=algorithm, spki=spki_der, id=hashlib.sha256(spki_der).hexdigest(), key=key)
    check_not_blocked(made, BUILT_IN_BLOCKED, field=field)
    return made


def public_key_of(key: object, *, field: str = "csr") -> PublicKey:
    """The same checks for a public key that `cryptography` holds already."""
    if not isinstance(key, CryptoKey):
        raise Problem("RW-KEY-TYPE", "This is not a public key of an accepted type.", field=field)
    spki = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return check_public_key(spki, field=field)


def certificate_key(certificate: x509.Certificate, *, field: str = "certificate") -> PublicKey:
    """The key of a certificate, by the bytes that stand in it; Problems as of `check_public_key`."""
    return check_public_key(public_key_info(certificate.tbs_certificate_bytes), field=field)


def public_key_info(tbs: bytes) -> bytes:
    """The SubjectPublicKeyInfo's DER out of a certificate's TBS (RFC 5280 4.1)."""
    parts = der.children(tbs)
    return parts[6 if parts[0].tag == 0xA0 else 5].whole  # version 1 is not stated


def check_not_blocked(key: PublicKey, blocked: Container[str], *, field: str = "csr") -> None:
    """Problem RW-KEY-BLOCKED if the key's id is among `blocked` (SHA-256 of SubjectPublicKeyInfos, hex)."""
    if key.id in blocked:
        raise Problem("RW-KEY-BLOCKED", "public key is forbidden", field=field)


def _split(spki: bytes) -> tuple[_Kind, bytes]:
    """The kind that the AlgorithmIdentifier's exact bytes name, and the key's bits."""
    outer = der.only(spki, der.SEQUENCE)
    identifier = der.header(spki, outer.body, outer.end)
    bits = der.only(spki, der.BIT_STRING, start=identifier.end, end=outer.end)
    if bits.body == bits.end or spki[bits.body] != 0:
        raise der.DerError("a key has no whole octets")
    kind = _KINDS.get(der.whole(spki, identifier))
    if kind is None:
        raise _refusal(der.whole(spki, identifier))
    return kind, spki[bits.body + 1 : bits.end]


def _refusal(identifier: bytes) -> Problem:
    """Why this AlgorithmIdentifier is none of ours: another algorithm or curve, or wrong parameters."""
    oid, *parameters = der.children(identifier)
    if oid.tag != der.OID:
        raise der.DerError("an algorithm has no identifier")
    name = der.read_oid(oid.content)
    if name == _EC_OID and len(parameters) == 1 and parameters[0].tag == der.OID:
        return Problem(
            "RW-KEY-TYPE",
            "Of elliptic curves, P-256, P-384, P-521, Ed25519 and brainpool P256r1, P384r1 and P512r1 are read.",
        )
    if name == _EC_OID:
        return Problem("RW-KEY-ENCODING", "An elliptic curve must be named by its object identifier.")
    if oid.content in _KNOWN_OIDS:
        return Problem("RW-KEY-ENCODING", "The key's algorithm identifier has missing or wrong parameters.")
    return Problem("RW-KEY-TYPE", f"Keys of the algorithm {name} are not accepted.")


def _check_bits(kind: _Kind, bits: bytes) -> None:
    """Lengths, the form of EC points (RFC 5480 2.2), Ed25519's small order; that points fit is the library's part."""
    if kind.type is ec.EllipticCurvePublicKey and bits[:1] != b"\x04":
        raise Problem("RW-KEY-ENCODING", "An elliptic curve point must be written uncompressed.")
    if len(bits) != kind.octets:
        raise Problem("RW-KEY-ENCODING", "The public key has a wrong length.")
    if kind.algorithm is KeyAlgorithm.ED25519:
        y = int.from_bytes(bits, "little") & ((1 << 255) - 1)
        if y >= _ED_P:
            raise Problem("RW-KEY-ENCODING", "The Ed25519 point is not encoded in its one way.")
        if y in _SMALL_ORDER:
            raise Problem("RW-KEY-WEAK", "The Ed25519 point has a small order.")


_ED_P = 2**255 - 19
_EIGHTH = int.from_bytes(bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little")
# y of the points of order 1, 2, 4 and 8: the last ones are plus and minus one number.
_SMALL_ORDER = frozenset({1, _ED_P - 1, 0, _EIGHTH, _ED_P - _EIGHTH})

_RSA_SIZES = {2048: KeyAlgorithm.RSA_2048, 3072: KeyAlgorithm.RSA_3072, 4096: KeyAlgorithm.RSA_4096}


def _primes(limit: int) -> tuple[int, ...]:
    return tuple(n for n in range(2, limit) if all(n % d for d in range(2, math.isqrt(n) + 1)))


_SMALL_PRODUCT = math.prod(_primes(752))


def _powers(base: int, modulus: int) -> frozenset[int]:
    found, power = set(), 1
    while power not in found:
        found.add(power)
        power = power * base % modulus
    return frozenset(found)


# ROCA's primes are k*M + (65537^a mod M), with M a product of small primes: so the modulus is a power of 65537 modulo
# each of them. These 17 are in every variant's M and 65537 does not generate all their residues: a random modulus
# passes for one with a chance of 2^-27.
_ROCA = tuple((prime, _powers(65537, prime)) for prime in _primes(168)[1:] if len(_powers(65537, prime)) < prime - 1)


def has_roca_form(modulus: int) -> bool:
    """Whether an RSA modulus has the fingerprint of CVE-2017-15361."""
    return all(modulus % prime in powers for prime, powers in _ROCA)


# Few numbers are squares modulo this one: the costly root is taken of one in fifty only.
_SIEVE = 16 * 9 * 5 * 7 * 11
_SQUARES = frozenset(number * number % _SIEVE for number in range(_SIEVE // 2 + 1))


def has_close_primes(modulus: int, *, rounds: int = 100) -> bool:
    """Whether Fermat's method splits an odd modulus within `rounds` steps (CVE-2022-26320)."""
    root = math.isqrt(modulus)
    if root * root < modulus:
        root += 1
    rest = root * root - modulus
    for _ in range(rounds):
        if rest % _SIEVE in _SQUARES and math.isqrt(rest) ** 2 == rest:
            return True
        rest += 2 * root + 1
        root += 1
    return False


def _check_rsa(bits: bytes) -> KeyAlgorithm:
    """SP 800-89 5.3.3 and the known weaknesses, before any library sees the numbers."""
    outer = der.only(bits, der.SEQUENCE)
    first = der.header(bits, outer.body, outer.end)
    second = der.only(bits, der.INTEGER, start=first.end, end=outer.end)
    if first.tag != der.INTEGER:
        raise der.DerError("an RSA modulus is not an integer")
    modulus, exponent = der.read_integer(der.content(bits, first)), der.read_integer(der.content(bits, second))
    if modulus <= 0 or exponent <= 0:
        raise der.DerError("an RSA key's numbers are not positive")
    algorithm = _RSA_SIZES.get(modulus.bit_length())
    if algorithm is None:
        raise Problem("RW-KEY-TYPE", "RSA keys have 2048, 3072 or 4096 bits.")
    check_rsa_numbers(modulus, exponent)
    return algorithm


def check_rsa_numbers(modulus: int, exponent: int) -> None:
    """Problem RW-KEY-WEAK for what shows in an RSA key's numbers, whatever its size."""
    if exponent != 65537:
        raise Problem("RW-KEY-WEAK", "The RSA public exponent must be 65537.")
    if math.gcd(modulus, _SMALL_PRODUCT) != 1:
        raise Problem("RW-KEY-WEAK", "The RSA modulus has a small factor.")
    if has_roca_form(modulus):
        raise Problem("RW-KEY-WEAK", "The RSA key was made by a generator with a known flaw (CVE-2017-15361).")
    if has_close_primes(modulus):
        raise Problem("RW-KEY-WEAK", "The RSA modulus has primes that are close together (CVE-2022-26320).")
