"""A ceremony's result held against what this installation knows: what it asked for and of whom, what waits, which
authorities there are. Certificate by certificate, in the result's order; everything that is wrong is said at once.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import Connection

from rootward.ca.certified import Certified
from rootward.ca.founding import FOUNDED
from rootward.ca.installation import AuthoritySettings, Installation
from rootward.ca.paper import CERTIFY, CRL, CROSS, instance_of
from rootward.core import answer, paperwork
from rootward.core.hierarchy import AuthoritySpec, plan_authority
from rootward.core.issuer import Issuer
from rootward.core.links import Link
from rootward.core.paperwork import CrossSign, Request, Result
from rootward.core.plan import make_serial
from rootward.core.planning import draft_cross
from rootward.core.problems import Problem, Reason, shown
from rootward.core.profile import check_name
from rootward.core.pubkey import certificate_key
from rootward.core.signed import signature_fault
from rootward.core.times import rfc3339
from rootward.store import authorities as rows
from rootward.store import facts
from rootward.store import paperwork as papers
from rootward.store.authorities import Pending
from rootward.store.paperwork import Asked, Held

PARTICIPANTS = "ceremony.participants"  # the fact: names and the SHA-256 of their public keys, as JSON
FORGOTTEN = "ceremony.forgotten"  # the same of those whose signatures count no more: the names, by their keys


@dataclass(frozen=True)
class Known:
    """What the store says. `participants` are names with the SHA-256 of the key that each signs with."""

    founded: facts.Fact | None
    instance: str
    participants: dict[str, str]
    pending: dict[str, Pending]
    requests: dict[str, Asked]
    transcripts: dict[str, Held]


def known_to(conn: Connection) -> Known:
    """Read it."""
    asked = papers.all_requests(conn)
    return Known(
        founded=facts.get(conn, FOUNDED),
        instance=instance_of(conn),
        participants=pinned(facts.get(conn, PARTICIPANTS)),
        pending={one.name: one for one in rows.pending(conn)},
        requests={one.id: one for one in asked},
        transcripts={one.transcript_sha256: one for one in papers.list(conn, limit=100_000)},
    )


def pinned(fact: facts.Fact | None) -> dict[str, str]:
    """The participants that the fact names."""
    return {} if fact is None else msgspec.json.decode(fact.data, type=dict[str, str])


@dataclass(frozen=True)
class Crossed:
    """A further certificate of the authority `name`, by an authority of ours: PEM with all that is above it."""

    name: str
    by: str
    certificate: x509.Certificate
    chain: bytes


@dataclass
class Answers:
    """What is new in a result, and everything that is wrong with it. `issuers` are all authorities, the new ones too,
    `online` those whose keys are here; `others` CAs of other systems, each with who signed it; `answered` the ids of
    requests.
    """

    made: list[Certified] = field(default_factory=list)
    others: list[tuple[Issuer, x509.Certificate]] = field(default_factory=list)
    crossed: list[Crossed] = field(default_factory=list)
    lists: list[tuple[Issuer, bytes]] = field(default_factory=list)
    answered: list[str] = field(default_factory=list)
    reasons: list[Reason] = field(default_factory=list)
    issuers: dict[str, Issuer] = field(default_factory=dict)
    online: set[str] = field(default_factory=set)

    def fault(self, detail: str) -> None:
        """One more thing that is wrong."""
        self.reasons.append(Reason("RW-CEREMONY", detail, "result"))


def against(inst: Installation, result: Result, known: Known) -> Answers:
    """The result against what was asked and what is there, certificate by certificate in its order."""
    taken = Answers(issuers={name: one.issuer for name, one in inst.authorities.items()})
    taken.online = {name for name, one in inst.authorities.items() if one.backend is not None}
    for one in result.certificates:
        try:
            certificate = x509.load_pem_x509_certificate(one.certificate.encode())
        except ValueError:
            taken.fault(f"The certificate of {shown(one.authority)} cannot be read.")
            continue
        if one.kind == "cross":
            _crossed(inst, taken, known, one.authority, one.request, certificate)
            continue
        _certificate(inst, taken, known, one.authority, one.kind, one.request, certificate)
    for listed in result.crls:
        issuer = taken.issuers.get(listed.authority)
        if issuer is None or listed.authority in taken.online:
            taken.fault(f"It has a CRL of {shown(listed.authority)}, which is no offline authority here.")
            continue
        try:
            taken.lists.append((issuer, base64.b64decode(listed.crl, validate=True)))
        except binascii.Error:
            taken.fault(f"The CRL of {listed.authority} cannot be read.")
        asked = known.requests.get(listed.request)
        if listed.request and asked is None:
            taken.fault(f"The CRL of {listed.authority} answers a request of another installation.")
        elif asked is not None and (asked.kind, asked.subject) != (CRL, listed.authority):
            taken.fault(f"The request {asked.id} is about {asked.subject}, not about a CRL of {listed.authority}.")
        elif asked is not None and asked.is_open:
            taken.answered.append(asked.id)
    return taken


def _note(taken: Answers, known: Known, kind: str, request: str, subject: str) -> Asked | None:
    """The open request of that kind that something answers, noted as answered; a fault where there is none."""
    if not request:
        return None
    asked = known.requests.get(request)
    if asked is None:
        taken.fault(f"What it has for {shown(subject)} answers a request of another installation.")
    elif (asked.kind, asked.subject) != (kind, subject):
        taken.fault(f"The request {asked.id} is about {asked.subject}, not about {shown(subject)}.")
    elif asked.withdrawn_at is not None:
        taken.fault(f"The request for {asked.subject} was withdrawn at {rfc3339(asked.withdrawn_at)}.")
    elif asked.answered_at is not None:
        taken.fault(f"The request for {asked.subject} was answered at {rfc3339(asked.answered_at)} already.")
    else:
        taken.answered.append(asked.id)
        return asked
    return None


def _crossed(
    inst: Installation, taken: Answers, known: Known, name: str, request: str, certificate: x509.Certificate
) -> None:
    """A further certificate of an authority: signed by one of ours that may still sign, and by the one that was asked,
    byte for byte as it was asked.
    """
    if name not in taken.issuers:
        taken.fault(f"There is no authority {shown(name)} to be cross-signed.")
        return
    signer = _signer(taken, certificate)
    if signer is None:
        taken.fault(f"The cross-signed certificate of {name}: no authority that is known here has signed it.")
        return
    for one in (inst.authorities.get(name), inst.authorities.get(signer.authority)):
        if one is not None and one.compromised_at is not None:
            taken.fault(f"The cross-signed certificate of {name}: {one.name} is compromised.")
    asked = _note(taken, known, CROSS, request, name)
    if asked is not None and asked.authority != signer.authority:
        taken.fault(f"{asked.authority} was asked for the certificate of {name}, and {signer.authority} has signed it.")
    elif asked is not None and not _as_asked(asked, certificate, signer):
        taken.fault(f"The cross-signed certificate of {name} does not say what was asked for.")
    chain = b"".join(one.public_bytes(Encoding.PEM) for one in (certificate, *signer.chain))
    taken.crossed.append(Crossed(name, signer.authority, certificate, chain))


def _as_asked(asked: Asked, certificate: x509.Certificate, signer: Issuer) -> bool:
    wanted = paperwork.read(asked.body, Request).wanted
    if not isinstance(wanted, CrossSign):
        return False
    other = x509.load_pem_x509_certificate(wanted.certificate.encode())
    try:
        serial = make_serial(certificate.serial_number.to_bytes(20, "big"))
        draft = draft_cross(wanted.spec, other, signer, serial, certificate.not_valid_before_utc)
    except (Problem, ValueError, OverflowError):
        return False
    return draft.tbs == certificate.tbs_certificate_bytes


def _certificate(
    inst: Installation,
    taken: Answers,
    known: Known,
    name: str,
    kind: str,
    request: str,
    certificate: x509.Certificate,
) -> None:
    there = taken.issuers.get(name)
    if there is not None:
        if there.certificate != certificate:
            taken.fault(f"There is an authority {shown(name)} already, with another certificate.")
        return
    link = Link(certificate)
    faults = [link.fault] if link.fault is not None else [one.detail for one in answer.may_certify(link)]
    parent = None if kind == "root" else _signer(taken, certificate)
    if kind == "root" and signature_fault(certificate, certificate) is not None:
        faults.append("it did not sign itself")
    if kind != "root" and parent is None:
        faults.append("no authority that is known here has signed it")
    if faults:
        for fault in faults:
            taken.fault(f"The certificate of {shown(name)}: {fault}")
        return
    try:
        check_name(name, field="result", code="RW-CEREMONY")
    except Problem as problem:
        taken.reasons += problem.reasons
        return
    backend, settings = None, AuthoritySettings()
    if request:
        pending = _asked_for(taken, known, name, request, certificate, parent)
        if pending is None:
            return
        backend, settings = pending.backend, msgspec.json.decode(pending.settings, type=AuthoritySettings)
        taken.online.add(name)
    elif name in known.pending or _waits(known, certificate):
        taken.fault(f"The certificate of {shown(name)} answers no request of ours.")
        return
    elif parent is not None and kind == "issuing":
        # By a bare CSR: another system has its key, so that it is a certificate here, and no authority.
        if parent.authority in taken.online:
            taken.fault(f"The certificate of {shown(name)}: {parent.authority} signs nothing in a ceremony.")
        taken.others.append((parent, certificate))
        return
    chain = (certificate, *(() if parent is None else parent.chain))
    taken.issuers[name] = Issuer(name, certificate, chain, inst.pki_url, online=backend is not None)
    above = None if parent is None else parent.authority
    taken.made.append(Certified(name, kind, above, certificate, backend, settings))


def _waits(known: Known, certificate: x509.Certificate) -> bool:
    """Whether an authority that waits here has this key."""
    key_id = Certified("", "", None, certificate).key_id
    return any(one.key_id == key_id for one in known.pending.values())


def _signer(taken: Answers, certificate: x509.Certificate) -> Issuer | None:
    for issuer in taken.issuers.values():
        if (
            issuer.name_der == certificate.issuer.public_bytes()
            and signature_fault(certificate, issuer.certificate) is None
        ):
            return issuer
    return None


def _asked_for(
    taken: Answers,
    known: Known,
    name: str,
    request: str,
    certificate: x509.Certificate,
    parent: Issuer | None,
) -> Pending | None:
    """The authority that waits for this certificate: for its key, and saying byte for byte what was asked."""
    asked = _note(taken, known, CERTIFY, request, name)
    pending = known.pending.get(name)
    if asked is None:
        return None
    if pending is None or parent is None:
        taken.fault(f"No authority {shown(name)} waits for a certificate.")
        return None
    public = certificate_key(certificate)
    if public.id != pending.key_id:
        taken.fault(f"The certificate of {name} is for another key than the one that asked for it.")
        return None
    spec = msgspec.json.decode(pending.spec, type=AuthoritySpec)
    try:
        plan = plan_authority(spec, public, parent)
        serial = certificate.serial_number.to_bytes(20, "big")
        wanted = plan.draft(make_serial(serial), certificate.not_valid_before_utc).tbs
    except (Problem, ValueError, OverflowError) as error:
        taken.fault(f"The certificate of {name} is none that could have been asked for: {error}")
        return None
    if wanted != certificate.tbs_certificate_bytes:
        differs = [
            one.detail
            for one in answer.check_answer(certificate, spec, pending.key_id, now=certificate.not_valid_before_utc)
        ]
        for detail in differs or ["it has other extensions, dates or addresses than were asked for."]:
            taken.fault(f"The certificate of {name}: {detail}")
        return None
    return pending
