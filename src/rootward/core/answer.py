"""Whether a certificate that came back is what was asked for: the answer of somebody else's root to our CSR (RFC 5280
4.2), and the chain above it.

Our own ceremonies are held against their request byte for byte (`ca/results.py`). Others write certificates their own
way, so that here each thing that matters is compared, and every difference is a reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from itertools import pairwise

from cryptography import x509

from rootward.core.authority import AuthoritySpec, authority_usage, constraints_of, subject_of
from rootward.core.constraints import name_key
from rootward.core.issuer import MAX_CHAIN
from rootward.core.judge import judge
from rootward.core.links import Link, State
from rootward.core.lint import UNREADABLE
from rootward.core.problems import Problem, Reason, shown
from rootward.core.pubkey import certificate_key
from rootward.core.signed import signature_fault
from rootward.core.template import subject_name
from rootward.core.times import parse_duration
from rootward.core.upload import read_upload

MAX_SIZE = 64 * 1024
_SLACK = timedelta(days=1)  # others begin a little in the past, or end with a day


def read_certificates(data: bytes, *, field: str) -> tuple[x509.Certificate, ...]:
    """The certificates of a file in its order. Problems: RW-TOO-LARGE; RW-IMPORT-KEY where there is a private key in
    it; RW-CERTIFICATE for everything else that is none.
    """
    if len(data) > MAX_SIZE:
        raise Problem("RW-TOO-LARGE", f"Certificates of authorities have at most {MAX_SIZE} bytes.", field=field)
    try:
        items = read_upload(data)
    except Problem as problem:
        raise Problem("RW-CERTIFICATE", problem.detail, field=field) from None
    found: list[x509.Certificate] = []
    for number, item in enumerate(items, start=1):
        if item.refused is not None:
            code = "RW-IMPORT-KEY" if item.key else "RW-CERTIFICATE"
            raise Problem(code, item.refused.detail, field=field)
        try:
            found.append(x509.load_der_x509_certificate(item.der))
            Link(found[-1])
        except (*UNREADABLE, x509.InvalidVersion):
            raise Problem("RW-CERTIFICATE", f"Certificate {number} cannot be read.", field=field) from None
    return tuple(found)


def check_answer(certificate: x509.Certificate, spec: AuthoritySpec, key_id: str, *, now: datetime) -> Iterator[Reason]:
    """Every reason (RW-CERTIFICATE, RW-KEY-MISMATCH) why it is not the certificate that `spec` asks for, for the key of
    that id (SHA-256 of its SPKI, hex).
    """
    link = Link(certificate)
    if link.fault is not None:
        yield _reason(link.fault)
        return
    if certificate_key(certificate).id != key_id:
        yield Reason("RW-KEY-MISMATCH", "It is for another key than the one that asked for it.", "certificate")
    wanted = subject_name(subject_of(spec))
    if link.subject != name_key(wanted):
        yield _reason(
            f"Its subject is {shown(certificate.subject.rfc4514_string())}; asked for was "
            f"{shown(wanted.rfc4514_string())}."
        )
    yield from may_certify(link)
    basic = link.find(x509.BasicConstraints)
    if basic is not None and basic.ca and basic.path_length != spec.path_length:
        yield _reason(f"Its path length is {_length(basic.path_length)}; asked for was {_length(spec.path_length)}.")
    yield from _limits(link, spec)
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if not begin <= now < end:
        yield _reason("It is not valid now.")
    if end - begin > parse_duration(spec.lifetime) + _SLACK:
        yield _reason(f"It lasts longer than the {spec.lifetime} that were asked for.")


def may_certify(link: Link) -> Iterator[Reason]:
    """Why a certificate's holder may not sign certificates and CRLs (RFC 5280 4.2.1.3, 4.2.1.9)."""
    basic, usage = link.find(x509.BasicConstraints), link.find(x509.KeyUsage)
    if basic is None or not basic.ca:
        yield _reason(f"{link.title} is no CA certificate.")
    if usage is None or not (usage.key_cert_sign and usage.crl_sign):
        yield _reason(f"{link.title} may not sign certificates and CRLs (key usage).")
    if link.find(x509.SubjectKeyIdentifier) is None:
        yield _reason(f"{link.title} has no subject key identifier (RFC 5280 4.2.1.2).")


def _limits(link: Link, spec: AuthoritySpec) -> Iterator[Reason]:
    """Name constraints and usages: what narrows an authority must be what was asked for, no more and no less."""
    if _trees(link.find(x509.NameConstraints)) != _trees(constraints_of(spec)):
        yield _reason("Its name constraints are not those that were asked for.")
    if set(link.find(x509.ExtendedKeyUsage) or ()) != {authority_usage(usage) for usage in spec.extended_key_usage}:
        yield _reason("Its extended key usages are not those that were asked for.")
    policies = link.find(x509.CertificatePolicies)
    found = {policy.policy_identifier.dotted_string for policy in policies or ()}
    if missing := [oid for oid in spec.policies if oid not in found]:
        yield _reason(f"It lacks the policies {', '.join(missing)}.")


def _trees(constraints: x509.NameConstraints | None) -> tuple[frozenset[x509.GeneralName], frozenset[x509.GeneralName]]:
    if constraints is None:
        return frozenset(), frozenset()
    return frozenset(constraints.permitted_subtrees or ()), frozenset(constraints.excluded_subtrees or ())


def check_above(chain: Sequence[x509.Certificate], *, now: datetime) -> Iterator[Reason]:
    """Every reason why `chain` is not a way from its first certificate to a root at its end, each one signed by the
    next (RFC 5280 6.1), with a name of its own for the first.
    """
    links = tuple(map(Link, chain))
    if not 2 <= len(links) <= MAX_CHAIN:
        yield _reason(f"A chain has 2 to {MAX_CHAIN} certificates: the new one, what signed it, and so on to the root.")
        return
    for link in links:
        if link.fault is not None:
            yield _reason(link.fault)
            return
    for child, above in pairwise(links):
        if child.issuer != above.subject:
            yield _reason(f"The issuer of {child.title} is not {above.title}, which stands next to it.")
            continue
        fault = signature_fault(child.certificate, above.certificate)
        if fault is not None:
            yield _reason(f"{child.title} is not well signed by {above.title}: {fault}.")
    last = links[-1]
    if not last.self_issued or signature_fault(last.certificate, last.certificate) is not None:
        yield _reason(f"The chain must end with a root, which signed itself; {last.title} did not.")
        return
    if links[0].subject in [link.subject for link in links[1:]]:
        # Two CAs of one name in a chain: clients would take one for the other (RFC 5280 4.1.2.6), or for a root.
        yield _reason(f"The subject of {links[0].title} is that of a CA above it.")
    for link in links[1:]:
        yield from may_certify(link)
    for step in judge(links, now=now, purpose=None, host=None, anchored=True):
        if step.state is State.FAILED and step.name not in ("signature", "path"):
            yield _reason(step.detail)


def _length(length: int | None) -> str:
    return "without a limit" if length is None else str(length)


def _reason(detail: str) -> Reason:
    return Reason("RW-CERTIFICATE", detail, "certificate")
