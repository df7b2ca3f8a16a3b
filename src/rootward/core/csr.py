"""PKCS#10 requests (RFC 2986): read strictly, possession proved, every wish a field here, or refused, or ignored.

`parse_csr` takes PEM or DER and gives a `Csr` or raises one Problem. What cannot be read or proved ends it at once, in
the order size, syntax, version, signature algorithm, signature; all else that is wrong, the key included, is said
together.

What a request asks for beyond key and names is in one of three lists. *Refused*, always: CA:true or a path length,
unknown critical extensions, Application-Policies, an empty subjectAltName or extendedKeyUsage, names that are none.
*Left to the profile*, as fields: key usage, extended key usage, must-staple, the subject. *Ignored*, and named in
`ignored`: key identifiers, CDP, AIA, policies, name constraints, and what is unknown and not critical.

Choices: Microsoft's attribute for extensions (1.3.6.1.4.1.311.2.1.14) is read like PKCS#9's where it is the only one or
says the same; names that are there twice count once; RSA with PKCS#1 v1.5 may leave its NULL out (RFC 4055 5), RSA-PSS
must have SHA-2 throughout and a salt as long as the digest. The reader is our own because it tells string types and
says everything that is wrong at once; the library reads the same bytes and must accept them too.
"""

from __future__ import annotations

import binascii
import re
from typing import Any, NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, padding, rsa

from rootward.core import der
from rootward.core.names import Name
from rootward.core.problems import Problem, Reason
from rootward.core.pubkey import PublicKey, check_public_key
from rootward.core.sealed import Sealed
from rootward.core.subject import Subject, read_subject
from rootward.core.wishes import Wishes, read_extensions

MAX_SIZE = 64 * 1024


class Csr(Sealed):
    """A request whose maker has proved to hold the private key.

    `names` are those of subjectAltName; `subject` are pairs of dotted OID and value in the order asked; `key_usage` has
    names such as `digital_signature`; `extended_key_usage` and `ignored` are dotted OIDs. None means not asked for.
    `attributes` are the other attributes (challengePassword and so on): dotted OID and the DER of their one value.
    """

    der: bytes
    public_key: PublicKey
    names: tuple[Name, ...]
    common_name: str | None
    subject: tuple[tuple[str, str], ...]
    key_usage: frozenset[str] | None
    extended_key_usage: tuple[str, ...] | None
    must_staple: bool
    ignored: tuple[str, ...]
    attributes: tuple[tuple[str, bytes], ...]


def parse_csr(data: bytes) -> Csr:
    """The request that `data` is (PEM or DER, 64 KiB at most); Problem RW-CSR-*, RW-KEY-*, RW-NAME*, RW-TOO-MANY."""
    encoded = _encoded(data)
    try:
        return _read(encoded)
    except der.DerError as error:
        raise _malformed(error) from None


class Proved(NamedTuple):
    """A request whose maker has proved to hold the private key of `key`; `subject` and `wishes` are what it asks for,
    with what is wrong in their `reasons`: for those who decide everything but the key by themselves.
    """

    der: bytes
    key: PublicKey
    subject: Subject
    wishes: Wishes


def parse_proof(data: bytes) -> Proved:
    """Read as strictly as `parse_csr`, but nothing that is asked for is refused. Problem RW-CSR-* or RW-KEY-*."""
    encoded = _encoded(data)
    try:
        parts, algorithm = _opening(encoded)
        subject = read_subject(encoded, parts.subject)
        _, wishes = _read_attributes(encoded, parts.attributes)
        key = check_public_key(der.whole(encoded, parts.key))
        _check_structure(encoded)
        _check_signature(key, algorithm, encoded, parts)
    except der.DerError as error:
        raise _malformed(error) from None
    return Proved(encoded, key, subject, wishes)


def _malformed(error: der.DerError) -> Problem:
    return Problem("RW-CSR-MALFORMED", f"The CSR cannot be read: {error}.", field="csr")


def _encoded(data: bytes) -> bytes:
    if len(data) > MAX_SIZE:
        raise Problem("RW-CSR-SIZE", f"A CSR has at most {MAX_SIZE} bytes.", field="csr")
    return bytes(data) if data[:1] == b"\x30" else _from_pem(data)


_LABELS = ("CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST")
_OTHER_LABEL = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,40})-----")


def _from_pem(data: bytes) -> bytes:
    """The DER of the one PEM block that `data` is (RFC 7468 7: both labels); nothing but white space around it."""
    text = data.strip()
    for label in _LABELS:
        begin, end = f"-----BEGIN {label}-----".encode(), f"-----END {label}-----".encode()
        if text.startswith(begin) and text.endswith(end) and len(text) >= len(begin) + len(end):
            body = b"".join(text[len(begin) : -len(end)].split())
            try:
                return binascii.a2b_base64(body, strict_mode=True)
            except binascii.Error:
                break
    if not text:
        detail = "The CSR is empty."
    elif (other := _OTHER_LABEL.search(text)) and other[1].decode() not in _LABELS:
        detail = f"A CSR is expected, and this is a PEM file with a {other[1].decode()}."
    else:
        detail = "The CSR is neither DER nor exactly one PEM block with nothing around it."
    raise Problem("RW-CSR-MALFORMED", detail, field="csr")


class _Outline(NamedTuple):
    """Where the parts of a request are (RFC 2986 4.1, 4.2)."""

    info: der.Item
    version: der.Item
    subject: der.Item
    key: der.Item
    attributes: der.Item
    algorithm: der.Item
    signature: der.Item


def _outline(data: bytes) -> _Outline:
    outer = der.only(data, der.SEQUENCE)
    info = der.header(data, outer.body, outer.end)
    algorithm = der.header(data, info.end, outer.end)
    signature = der.only(data, der.BIT_STRING, start=algorithm.end, end=outer.end)
    version = der.header(data, info.body, info.end)
    subject = der.header(data, version.end, info.end)
    key = der.header(data, subject.end, info.end)
    attributes = der.only(data, 0xA0, start=key.end, end=info.end)
    tags = (info.tag, algorithm.tag, version.tag, subject.tag, key.tag)
    if tags != (der.SEQUENCE, der.SEQUENCE, der.INTEGER, der.SEQUENCE, der.SEQUENCE):
        raise der.DerError("it is not a certification request")
    return _Outline(info, version, subject, key, attributes, algorithm, signature)


def _opening(data: bytes) -> tuple[_Outline, _Algorithm]:
    parts = _outline(data)
    if der.content(data, parts.version) != b"\x00":
        raise Problem("RW-CSR-VERSION", "The CSR's version must be v1 (0).", field="csr")
    algorithm = _ALGORITHMS.get(der.whole(data, parts.algorithm))
    if algorithm is None:
        raise Problem("RW-CSR-ALGORITHM", _algorithm_problem(der.whole(data, parts.algorithm)), field="csr")
    return parts, algorithm


def _read(data: bytes) -> Csr:
    parts, algorithm = _opening(data)
    subject = read_subject(data, parts.subject)
    attributes, wishes = _read_attributes(data, parts.attributes)
    reasons: list[Reason] = []
    try:
        key = check_public_key(der.whole(data, parts.key))
    except Problem as problem:
        reasons.extend(problem.reasons)
    else:
        _check_structure(data)
        _check_signature(key, algorithm, data, parts)
    reasons += subject.reasons
    reasons += wishes.reasons
    if reasons:
        raise Problem.of(reasons)
    return Csr._make(
        der=data,
        public_key=key,
        names=tuple(dict.fromkeys(wishes.names)),
        common_name=subject.common_name,
        subject=subject.pairs,
        key_usage=wishes.key_usage,
        extended_key_usage=wishes.extended_key_usage,
        must_staple=wishes.must_staple,
        ignored=tuple(wishes.ignored),
        attributes=attributes,
    )


def _check_structure(data: bytes) -> None:
    """The library's word on the same bytes: DerError where it cannot read them. The key is checked before."""
    try:
        x509.load_der_x509_csr(data)
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion):
        raise der.DerError("its structure is wrong") from None


_EXTENSION_REQUESTS = frozenset({"1.2.840.113549.1.9.14", "1.3.6.1.4.1.311.2.1.14"})


def _read_attributes(data: bytes, attributes: der.Item) -> tuple[tuple[tuple[str, bytes], ...], Wishes]:
    """The attributes that ask for no extensions, and what the others ask for. Each is there once, with one value."""
    others: list[tuple[str, bytes]] = []
    requests: list[der.Item] = []
    seen = set()
    for attribute in der.items(data, attributes):
        kind = der.header(data, attribute.body, attribute.end)
        values = der.only(data, der.SET, start=kind.end, end=attribute.end)
        value = der.header(data, values.body, values.end)
        if attribute.tag != der.SEQUENCE or kind.tag != der.OID or value.end != values.end:
            raise der.DerError("an attribute is not a type with one value")
        oid = der.read_oid(data[kind.body : kind.end])
        if oid in seen:
            raise der.DerError(f"the attribute {oid} is there twice")
        seen.add(oid)
        if oid in _EXTENSION_REQUESTS:
            requests.append(value)
        else:
            der.check(der.whole(data, value))
            others.append((oid, der.whole(data, value)))
    if len(requests) == 2 and der.whole(data, requests[0]) != der.whole(data, requests[1]):
        raise der.DerError("its two attributes for extensions say different things")
    return tuple(others), read_extensions(data, requests[0]) if requests else Wishes()


class _Algorithm(NamedTuple):
    """The type of key that signs so, and what its `verify` is told beside signature and message."""

    keys: tuple[type, ...]
    arguments: tuple[Any, ...]


_HASHES = {
    "2.16.840.1.101.3.4.2.1": (hashes.SHA256(), 11, 2),
    "2.16.840.1.101.3.4.2.2": (hashes.SHA384(), 12, 3),
    "2.16.840.1.101.3.4.2.3": (hashes.SHA512(), 13, 4),
}


def _algorithms() -> dict[bytes, _Algorithm]:
    """By the exact AlgorithmIdentifier: RFC 4055 (RSA), RFC 5758 (ECDSA), RFC 8410 (Ed25519), RFC 9881 (ML-DSA)."""
    rsa_key = (rsa.RSAPublicKey,)
    table = {
        der.sequence(der.oid("1.3.101.112")): _Algorithm((ed25519.Ed25519PublicKey,), ()),
        der.sequence(der.oid("2.16.840.1.101.3.4.3.17")): _Algorithm((mldsa.MLDSA44PublicKey,), ()),
        der.sequence(der.oid("2.16.840.1.101.3.4.3.18")): _Algorithm((mldsa.MLDSA65PublicKey,), ()),
        der.sequence(der.oid("2.16.840.1.101.3.4.3.19")): _Algorithm((mldsa.MLDSA87PublicKey,), ()),
    }
    for digest, (hash_, rsa_arc, ec_arc) in _HASHES.items():
        table[der.sequence(der.oid(f"1.2.840.10045.4.3.{ec_arc}"))] = _Algorithm(
            (ec.EllipticCurvePublicKey,), (ec.ECDSA(hash_),)
        )
        for null in (der.null(), b""):
            pkcs1 = der.sequence(der.oid(f"1.2.840.113549.1.1.{rsa_arc}"), null)
            table[pkcs1] = _Algorithm(rsa_key, (padding.PKCS1v15(), hash_))
            inner = der.sequence(der.oid(digest), null)
            parameters = der.sequence(
                der.explicit(0, inner),
                der.explicit(1, der.sequence(der.oid("1.2.840.113549.1.1.8"), inner)),
                der.explicit(2, der.integer(hash_.digest_size)),
            )
            pss = padding.PSS(mgf=padding.MGF1(hash_), salt_length=hash_.digest_size)
            table[der.sequence(der.oid(_PSS), parameters)] = _Algorithm(rsa_key, (pss, hash_))
    return table


_PSS = "1.2.840.113549.1.1.10"
_ALGORITHMS = _algorithms()


def _algorithm_problem(identifier: bytes) -> str:
    oid = der.children(identifier)[:1]
    name = der.read_oid(oid[0].content) if oid and oid[0].tag == der.OID else "unknown"
    if name == _PSS:
        return "RSA-PSS needs SHA-256, SHA-384 or SHA-512 for digest and MGF1, and a salt as long as the digest."
    return f"The CSR's signature algorithm {name} is not accepted, or its parameters are wrong."


def _check_signature(key: PublicKey, algorithm: _Algorithm, data: bytes, parts: _Outline) -> None:
    """Proof of possession (RFC 2986 4.2): Problem RW-CSR-SIGNATURE unless the key in the request has signed it."""
    bits = der.content(data, parts.signature)
    fits = isinstance(key.key, algorithm.keys)
    verifier: Any = key.key
    try:
        if fits and bits[:1] == b"\x00":
            verifier.verify(bits[1:], der.whole(data, parts.info), *algorithm.arguments)
            return
    except InvalidSignature:
        pass  # said below, as for a key of another type
    raise Problem("RW-CSR-SIGNATURE", "The CSR's signature is not made by the key in it.", field="csr")
