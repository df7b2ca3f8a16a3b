"""Cross-signed certificates of an authority: a second certificate for its name and key, signed by somebody else's CA,
and what stands above it (RFC 4158 2.4, RFC 5280 3.2).

`read_cross` takes one only where whatever the authority issues is as valid under it as under the usual chain: RFC 5280
6.1 with the path length, usages and name constraints of every CA above. Pure, and bounded by `MAX_SIZE` and
`MAX_CERTIFICATES`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import ExtendedKeyUsageOID

from rootward.core import der
from rootward.core.constraints import Budget, Unjudged, name_key, uncovered
from rootward.core.issuer import Issuer
from rootward.core.judge import judge
from rootward.core.links import UNREADABLE, Link, State
from rootward.core.problems import Problem, Reason
from rootward.core.sealed import Sealed
from rootward.core.signed import algorithm_fault
from rootward.core.upload import read_upload

MAX_SIZE = 64 * 1024
MAX_CERTIFICATES = 8
_FIELD = "chain"
_PEM, _DER = serialization.Encoding.PEM, serialization.Encoding.DER


@dataclass(frozen=True)
class Below:
    """What an authority and the CAs below it issue: how many of these follow each other, and the extended key usages
    of all their profiles by name.
    """

    depth: int
    usages: Mapping[str, frozenset[x509.ObjectIdentifier]]


class CrossChain(Sealed):
    """A cross-signed certificate and what is above it, in order and without a root. Made by `read_cross` alone."""

    certificates: tuple[x509.Certificate, ...]

    @property
    def sha256(self) -> str:
        """Of the cross-signed certificate's DER, lower-case hex."""
        return hashlib.sha256(self.certificates[0].public_bytes(_DER)).hexdigest()

    def pem(self) -> bytes:
        """One certificate after the other."""
        return b"".join(certificate.public_bytes(_PEM) for certificate in self.certificates)


def read_cross(text: bytes, issuer: Issuer, below: Below, *, now: datetime) -> CrossChain:
    """The chain that `text` (PEM) is, for the authority of `issuer`; a self-signed root at its end is left out.

    Without that root, the signature of what stands before it is not verified.

    Problem RW-CROSS with every reason, RW-TOO-LARGE, or RW-IMPORT-KEY where there is a private key in it.
    """
    links = [Link(certificate) for certificate in _certificates(text)]
    anchored = len(links) > 1 and _is_root(links[-1])
    faults = [link.fault for link in links if link.fault is not None]
    if not faults:
        steps = judge(tuple(links), now=now, purpose=None, host=None, anchored=anchored)
        # Which CAs there are below the first one is known here and not there.
        judged = [step.detail for step in steps if step.state is State.FAILED and step.name != "authority"]
        faults = [*_standing(links, issuer, below, anchored=anchored), *judged]
    if faults:
        raise Problem.of([_reason(fault) for fault in faults])
    kept = links[:-1] if anchored else links
    return CrossChain._make(certificates=tuple(link.certificate for link in kept))


def foresee(certificates: Sequence[x509.Certificate], issuer: Issuer, below: Below) -> None:
    """Whether `read_cross` would take this chain, the root at its end, once the first certificate is signed: all that
    can be said before. Problem RW-CROSS with every reason.
    """
    links = [Link(certificate) for certificate in certificates]
    faults = [link.fault for link in links if link.fault is not None]
    if faults := faults or [*_standing(links, issuer, below, anchored=True)]:
        raise Problem.of([_reason(fault) for fault in faults])


def _standing(links: Sequence[Link], issuer: Issuer, below: Below, *, anchored: bool) -> Iterator[str]:
    """What speaks against the chain for this authority, but for signatures and times."""
    yield from _about_first(links[0], issuer)
    yield from _order(links, issuer, anchored=anchored)
    yield from _authorities(links, below.depth, anchored=anchored)
    yield from _usages(links, below)
    yield from _constraints(links, issuer)


def _reason(detail: str, code: str = "RW-CROSS") -> Reason:
    return Reason(code, detail, _FIELD)


def _certificates(text: bytes) -> list[x509.Certificate]:
    if len(text) > MAX_SIZE:
        raise Problem("RW-TOO-LARGE", f"A chain has at most {MAX_SIZE} bytes.", field=_FIELD)
    if b"-----BEGIN " not in text or text[:1] == b"\x30":
        raise Problem("RW-CROSS", "The chain is not PEM.", field=_FIELD)
    try:
        items = read_upload(text)
    except Problem as problem:
        raise Problem("RW-CROSS", problem.detail, field=_FIELD) from None
    if len(items) > MAX_CERTIFICATES:
        detail = f"A chain has at most {MAX_CERTIFICATES} certificates, and this one has {len(items)}."
        raise Problem("RW-CROSS", detail, field=_FIELD)
    found: list[x509.Certificate] = []
    reasons: list[Reason] = []
    for number, item in enumerate(items, start=1):
        if item.refused is not None:
            reasons.append(_reason(item.refused.detail, "RW-IMPORT-KEY" if item.key else "RW-CROSS"))
            continue
        try:
            found.append(x509.load_der_x509_certificate(item.der))
        except (*UNREADABLE, x509.InvalidVersion):
            reasons.append(_reason(f"Certificate {number} cannot be read."))
    if reasons:
        raise Problem.of(reasons)
    return found


def _is_root(link: Link) -> bool:
    """Whether its own key signed it. By what algorithm does not matter: nobody looks at a trust anchor's signature."""
    if not link.self_issued or link.fault is not None:
        return False
    try:
        link.certificate.verify_directly_issued_by(link.certificate)
    except InvalidSignature:
        return False
    except UNREADABLE:  # too old to be verified here: then what it says of its keys
        named, own = link.find(x509.AuthorityKeyIdentifier), link.find(x509.SubjectKeyIdentifier)
        return named is None or own is None or named.key_identifier == own.digest
    return True


def _about_first(first: Link, issuer: Issuer) -> Iterator[str]:
    """Clients find the certificate by its name, byte for byte, and by its key and the identifier of that."""
    try:
        subject, key = _subject_and_key(first.certificate)
    except (der.DerError, IndexError):
        yield f"{first.title} is not DER."
        return
    own_subject, own_key = _subject_and_key(issuer.certificate)
    if subject != own_subject:
        yield f"The first certificate, {first.title}, has not the very subject of the authority {issuer.authority}."
    if key != own_key:
        yield f"The first certificate, {first.title}, has not the public key of the authority {issuer.authority}."
    if first.issuer in (name_key(issuer.certificate.issuer), name_key(issuer.certificate.subject)):
        yield f"{first.title} is signed by the authority's usual issuer or by itself: that is no other way."
    identifier = first.find(x509.SubjectKeyIdentifier)
    if identifier is not None and identifier.digest != issuer.subject_key_id:
        yield (
            f"The subject key identifier of {first.title} is not the authority's, which everything that it signed"
            " names: many clients would not go on here (RFC 5280 4.2.1.1)."
        )


def _subject_and_key(certificate: x509.Certificate) -> tuple[bytes, bytes]:
    """Both as DER (RFC 5280 4.1); the version comes first where it is not v1."""
    parts = der.children(certificate.tbs_certificate_bytes)
    at = 1 if parts[0].whole[0] == 0xA0 else 0
    return parts[at + 4].whole, parts[at + 5].whole


def _order(links: Sequence[Link], issuer: Issuer, *, anchored: bool) -> Iterator[str]:
    """Each names the next one as its issuer, and none comes twice (RFC 4158 5.2). Signatures are `judge`'s, but for the
    last one's, whose issuer nobody gave.
    """
    usual = {certificate.public_bytes(_DER) for certificate in issuer.chain}
    seen: set[tuple[object, bytes]] = set()
    for link in links:
        if link.der in usual:
            yield f"{link.title} is of the usual chain of the authority {issuer.authority}."
        if (link.subject, link.key) in seen:
            yield f"{link.title} comes twice."
        seen.add((link.subject, link.key))
    for child, above in pairwise(links):
        if child.issuer != above.subject:
            yield f"{child.title} is not issued by what follows it, {above.title}."
        named, own = child.find(x509.AuthorityKeyIdentifier), above.find(x509.SubjectKeyIdentifier)
        if named is not None and own is not None and named.key_identifier not in (None, own.digest):
            yield f"{child.title} names another key of its issuer than that of {above.title} (RFC 5280 4.2.1.1)."
    last = links[-1]
    fault = None if anchored else algorithm_fault(last.certificate)
    if fault is not None:
        yield f"{last.title} is not well signed: {fault}."
    if not anchored and not last.self_issued and last.issuer in {link.subject for link in links}:
        yield f"{last.title} leads back to what stands before it."


def _authorities(links: Sequence[Link], depth: int, *, anchored: bool) -> Iterator[str]:
    """basicConstraints, pathLenConstraint and keyUsage (RFC 5280 6.1.4 k to n), with what there is below the first."""
    for index, link in enumerate(links):
        root = anchored and index == len(links) - 1
        basic, usage = link.find(x509.BasicConstraints), link.find(x509.KeyUsage)
        if (basic is None and not root) or (basic is not None and not basic.ca):
            yield f"{link.title} is not a CA."
        elif basic is not None and basic.path_length is not None and basic.path_length < depth:
            yield f"{link.title} allows {basic.path_length} CAs below it, and there are {depth}."
        if (usage is None and index == 0) or (usage is not None and not usage.key_cert_sign):
            yield f"{link.title} may not sign certificates (key usage)."
        if index == 0 and usage is not None and not usage.crl_sign:
            yield f"{link.title} may not sign CRLs (key usage), which the authority does with the same key."
        if not link.self_issued:
            depth += 1


def _usages(links: Sequence[Link], below: Below) -> Iterator[str]:
    """Extended key usages of a CA limit what is below it: RFC 5280 4.2.1.12 leaves that open, TLS clients do it."""
    for link in links:
        extended = link.find(x509.ExtendedKeyUsage)
        given = frozenset(extended or ())
        if extended is None or ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE in given:
            continue
        # OCSP signing is asked of the responder's certificate alone (RFC 6960 4.2.2.2).
        short = [name for name, usages in below.usages.items() if usages - given - {ExtendedKeyUsageOID.OCSP_SIGNING}]
        if short:
            yield f"{link.title} may not certify all extended key usages of the profiles {', '.join(sorted(short))}."


def _constraints(links: Sequence[Link], issuer: Issuer) -> Iterator[str]:
    """No name constraint may rule out what the usual chain allows: then part of what is issued would not be valid."""
    budget = Budget()
    for link in links:
        constraints = link.find(x509.NameConstraints)
        if constraints is None:
            continue
        try:
            for clause in uncovered(constraints, issuer.constraints, budget=budget):
                yield f"{link.title} {clause}, and the authority {issuer.authority} is not limited so."
        except Unjudged as error:
            yield f"The name constraints of {link.title}: {error}"
