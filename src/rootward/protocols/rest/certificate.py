"""A certificate as the API says it: the short form of every answer and list, and the long one of `GET
…/certificates/{id}`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec
from cryptography import x509
from cryptography.x509.oid import AuthorityInformationAccessOID

from rootward.ca.access import Principal
from rootward.ca.installation import Installation
from rootward.core import der
from rootward.core.chain import verify_chain
from rootward.core.foreign import read_foreign
from rootward.core.links import State
from rootward.core.problems import Problem
from rootward.core.pubkey import check_public_key, public_key_of
from rootward.protocols.pem import certificate_pem, chain_pem
from rootward.protocols.rest.operation import Moment, moment
from rootward.store.certificates import Certificate


class CertificateBody(msgspec.Struct, frozen=True, kw_only=True, rename={"pem": "certificate"}):
    """`serial` and `sha256` are lower-case hex; `certificate` is null for an orphan, whose signature nobody has."""

    id: str
    serial: str
    status: str
    profile: str | None
    authority: str | None
    names: list[str]
    not_before: Moment
    not_after: Moment
    sha256: str | None
    owner: str | None
    pem: str | None
    chain: str


class ChainState(msgspec.Struct, frozen=True):
    """Whether the chain from the certificate to the root holds now, and every reason why not."""

    valid: bool
    reasons: list[str]


class Urls(msgspec.Struct, frozen=True):
    """The pointers that the certificate itself carries."""

    crl: str | None
    ocsp: str | None
    issuer: str | None


class CertificateDetail(CertificateBody, frozen=True, kw_only=True):
    """The short form and everything else that is known."""

    subject: str
    source: str
    issued_at: Moment | None
    revoked_at: Moment | None
    reason: str | None
    requester: str
    request_id: str
    replaces: str | None
    replaced_by: str | None
    labels: dict[str, str]
    profile_version: int | None
    key_id: str
    key_algorithm: str | None
    chain_state: ChainState
    urls: Urls


def short(inst: Installation, certificate: Certificate, now: datetime) -> CertificateBody:
    """The contract's twelve fields."""
    return CertificateBody(**_short(inst, certificate, now))


def detail(
    inst: Installation, certificate: Certificate, now: datetime, *, replaced_by: str | None
) -> CertificateDetail:
    """The long form; `replaced_by` is the id of the certificate that was issued in this one's place."""
    parsed = _parsed(certificate)
    return CertificateDetail(
        **_short(inst, certificate, now),
        subject=certificate.subject,
        source=certificate.source,
        issued_at=moment(certificate.issued_at),
        revoked_at=moment(certificate.revoked_at),
        reason=certificate.reason,
        requester=certificate.requester,
        request_id=certificate.request_id,
        replaces=certificate.replaces,
        replaced_by=replaced_by,
        labels=certificate.labels,
        profile_version=certificate.profile_version,
        key_id=certificate.key_id,
        key_algorithm=_key_algorithm(certificate, parsed),
        chain_state=_chain_state(inst, certificate, parsed, now),
        urls=_urls(parsed),
    )


def _parsed(certificate: Certificate) -> x509.Certificate | None:
    """None for an orphan, and for what others made: that may be wrong in every way, and nothing of it is judged."""
    if certificate.der is None or certificate.source != "issued":
        return None
    return x509.load_der_x509_certificate(certificate.der)


def _key_algorithm(certificate: Certificate, parsed: x509.Certificate | None) -> str | None:
    if parsed is not None:
        return public_key_of(parsed.public_key()).algorithm.value
    if certificate.der is None or certificate.source == "issued":
        return None
    try:
        return check_public_key(read_foreign(certificate.der).spki).algorithm.value
    except (der.DerError, Problem):
        return None  # of a kind, or a weakness, that none of ours has


def may_see(principal: Principal, authority: str | None) -> bool:
    """Whether the principal may read what an authority holds: any role on it will do; what is nobody's needs one on
    all.
    """
    seen = principal.authorities_seen()
    return seen is None or authority in seen


def _short(inst: Installation, certificate: Certificate, now: datetime) -> dict[str, Any]:
    authority = inst.by_issuer(certificate.issuer)
    der = certificate.der
    return {
        "id": certificate.id,
        "serial": certificate.serial_hex,
        "status": certificate.status(now),
        "profile": certificate.profile,
        "authority": certificate.authority,
        "names": certificate.names,
        "not_before": moment(certificate.not_before),
        "not_after": moment(certificate.not_after),
        "sha256": certificate.sha256,
        "owner": certificate.owner,
        "pem": None if der is None else certificate_pem(der),
        "chain": "" if authority is None else chain_pem(authority.issuer.chain, root=False),
    }


def _chain_state(
    inst: Installation, certificate: Certificate, parsed: x509.Certificate | None, now: datetime
) -> ChainState:
    authority = inst.by_issuer(certificate.issuer)
    if certificate.der is None:
        return ChainState(False, ["Its signature was never stored: nobody can have this certificate."])
    if authority is None or parsed is None:
        return ChainState(False, ["Its issuer is none of the authorities here."])
    chain = authority.issuer.chain
    report = verify_chain(parsed, chain[:-1], chain[-1:], now=now)
    return ChainState(report.ok, [step.detail for step in report.steps if step.state is State.FAILED])


def _urls(parsed: x509.Certificate | None) -> Urls:
    if parsed is None:
        return Urls(None, None, None)
    crl = ocsp = issuer = None
    for extension in parsed.extensions:
        if isinstance(extension.value, x509.CRLDistributionPoints):
            crl = next((_uri(name) for point in extension.value for name in point.full_name or ()), None)
        if isinstance(extension.value, x509.AuthorityInformationAccess):
            for access in extension.value:
                if access.access_method == AuthorityInformationAccessOID.OCSP:
                    ocsp = ocsp or _uri(access.access_location)
                if access.access_method == AuthorityInformationAccessOID.CA_ISSUERS:
                    issuer = issuer or _uri(access.access_location)
    return Urls(crl, ocsp, issuer)


def _uri(name: x509.GeneralName) -> str | None:
    return name.value if isinstance(name, x509.UniformResourceIdentifier) else None
