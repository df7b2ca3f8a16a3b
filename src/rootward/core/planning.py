"""What each step of a ceremony's script signs, from the script and the public keys alone: the bytes, drafted and
linted.

The ceremony signs what this gives, and whoever verifies a ceremony plans it again and compares. Rehearsal and run
differ in the keys that they make, and in nothing else: `masked` is the hash of the bytes with those keys, and what is
derived from them, blanked out (I-37).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar

from cryptography import x509

from rootward.core.crl import CrlDraft, draft_crl, lint_crl
from rootward.core.crl_entries import Entry
from rootward.core.hierarchy import AuthorityPlan, AuthoritySpec, lint_authority, plan_authority
from rootward.core.issuer import Issuer
from rootward.core.lint import UNREADABLE
from rootward.core.paperwork import Certify as CertifyRequest
from rootward.core.paperwork import CrossSign as CrossRequest
from rootward.core.paperwork import Request, read
from rootward.core.paperwork import SignCrl as CrlRequest
from rootward.core.plan import Draft, Serial, make_serial
from rootward.core.problems import Problem, shown
from rootward.core.pubkey import PublicKey, certificate_key
from rootward.core.revocation import parse_reason
from rootward.core.script import Certify, CertifyRoot, CrossSign, Input, Script, SignCrl, sha256_of
from rootward.core.subordinate import read_ca_request
from rootward.core.times import parse_time

Signing = CertifyRoot | Certify | CrossSign | SignCrl


@dataclass
class Table:
    """What lies on the table while a script is carried out: authorities by name, the public key (SHA-256) of those that
    were there before, public keys that were made by the name of their entry, and the files that the script named, by
    their SHA-256.
    """

    script: Script
    issuers: dict[str, Issuer] = field(default_factory=dict)
    known: Mapping[str, str] = field(default_factory=dict)
    made: dict[str, PublicKey] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)


def set_table(script: Script, files: Mapping[str, bytes]) -> Table:
    """The table at the beginning. `files` are by SHA-256. Problem RW-CEREMONY where a certificate is not one."""
    issuers = {}
    for name, present in script.authorities.items():
        chain = _certificates(present.certificate, f"authorities.{name}")
        issuer = Issuer(name, chain[0], tuple(chain), script.pki_url, False, present.rsa_signature)
        try:
            usable = (
                issuer.key.id and issuer.subject_key_id and _extension(issuer.certificate, x509.BasicConstraints).ca
            )
        except (*UNREADABLE, x509.ExtensionNotFound):
            usable = False
        if not usable:
            raise Problem(
                "RW-CEREMONY", "This is no certificate of a CA with a key identifier.", field=f"authorities.{name}"
            )
        issuers[name] = issuer
    return Table(script, issuers, {name: issuer.key_id for name, issuer in issuers.items()}, {}, files)


def issuer_of(table: Table, authority: str) -> Issuer:
    """The authority as it is on the table; Problem RW-CEREMONY where it is not, because its own step was refused."""
    if authority not in table.issuers:
        raise Problem("RW-CEREMONY", f"The authority {authority} is not there.")
    return table.issuers[authority]


Extension = TypeVar("Extension", bound=x509.ExtensionType)


def _extension(certificate: x509.Certificate, kind: type[Extension]) -> Extension:
    return certificate.extensions.get_extension_for_class(kind).value


def _certificates(pem: str, where: str) -> list[x509.Certificate]:
    """All certificates in the text, read to their end: the library reads names and extensions only when asked."""
    try:
        found = x509.load_pem_x509_certificates(pem.encode())
        for one in found:
            for name in (one.subject, one.issuer):
                name.public_bytes()
            list(one.extensions)
        return found
    except UNREADABLE as error:
        raise Problem("RW-CEREMONY", f"This is no certificate in PEM: {shown(str(error))}.", field=where) from None


def draft_cross(spec: AuthoritySpec, other: x509.Certificate, issuer: Issuer, serial: Serial, at: datetime) -> Draft:
    """The exact bytes of a second certificate for the CA that has the certificate `other`, admitted under an issuer
    and linted. It is a further way to what `other` is, and ends no later.
    """
    draft = _drafted(plan_authority(spec, certificate_key(other), issuer, existing=other), serial, at)
    if draft.not_after > other.not_valid_after_utc:
        detail = f"The certificate of {spec.name} itself ends before {spec.lifetime} from then."
        raise Problem("RW-VALIDITY", detail, field="lifetime")
    return draft


def crossed_certificate(table: Table, step: CrossSign) -> x509.Certificate:
    """The certificate of the CA that a `cross-sign` step is about. Problem RW-CEREMONY where the request, of which the
    file is needed then, is not for it.
    """
    other = _certificates(step.certificate, "certificate")[0]
    if step.request is None:
        return other
    wanted = _request(table, _file(table, step.request)).wanted
    if not isinstance(wanted, CrossRequest) or wanted.by != step.by:
        raise Problem("RW-CEREMONY", f"The request does not ask {step.by} for a cross-signed certificate.")
    if _certificates(wanted.certificate, "request")[0] != other:
        raise Problem("RW-CEREMONY", "The request is about another certificate than the script's.")
    return other


def certified_key(table: Table, step: Certify) -> PublicKey:
    """The key that a `certify` step is about. Problem RW-CEREMONY where the request is not what the script says."""
    if step.made is not None:
        return table.made[step.made]
    csr, wanted = request_of(table, step)
    if wanted is not None and wanted.by != step.by:
        raise Problem("RW-CEREMONY", f"The request is to {shown(wanted.by)}, and the script signs with {step.by}.")
    key = read_ca_request(csr).key
    if key.id != step.public_key:
        raise Problem("RW-CEREMONY", f"The request is for the public key {key.id}, not for the script's.")
    return key


def request_of(table: Table, step: Certify) -> tuple[bytes, CertifyRequest | None]:
    """The CSR that the step's file holds, and the request around it where it is no bare CSR."""
    data = _file(table, step.request)
    if data.lstrip()[:1] != b"{":
        return data, None
    request = _request(table, data)
    if not isinstance(request.wanted, CertifyRequest):
        raise Problem("RW-CEREMONY", "The request does not ask for a certificate of an authority.")
    return request.wanted.csr.encode(), request.wanted


def request_id(table: Table, step: Signing) -> str:
    """The id of the request that the step answers; empty where there is none, or its file is not at hand."""
    if isinstance(step, CertifyRoot) or step.request is None:
        return ""
    data = table.files.get(step.request.sha256, b"")
    return _request(table, data).id if data.lstrip()[:1] == b"{" else ""


def _file(table: Table, named: Input | None) -> bytes:
    data = None if named is None else table.files.get(named.sha256)
    if named is None or data is None:
        raise Problem("RW-CEREMONY", f"The file {'' if named is None else named.file} of the script is not there.")
    if sha256_of(data) != named.sha256:
        raise Problem("RW-CEREMONY", f"{named.file} is another file than the script names: its SHA-256 differs.")
    return data


def _request(table: Table, data: bytes) -> Request:
    request = read(data, Request)
    if request.pki_url != table.script.pki_url:
        raise Problem("RW-CEREMONY", f"The request has the address {shown(request.pki_url)}, the script another one.")
    return request


def draft_step(table: Table, step: CertifyRoot | Certify | CrossSign, requested: PublicKey | None = None) -> Draft:
    """The exact bytes of the step's certificate, admitted for its key under its issuer and linted; a Problem with all
    reasons. `requested` is the key of the step's request, where that file is not at hand.
    """
    serial, at = make_serial(bytes.fromhex(step.serial)), parse_time(table.script.at)
    if isinstance(step, CertifyRoot):
        return _drafted(plan_authority(step.spec, table.made[step.key], None), serial, at)
    issuer = issuer_of(table, step.by)
    if isinstance(step, CrossSign):
        away = requested is not None
        other = _certificates(step.certificate, "certificate")[0] if away else crossed_certificate(table, step)
        return draft_cross(step.spec, other, issuer, serial, at)
    key = certified_key(table, step) if requested is None else requested
    return _drafted(plan_authority(step.spec, key, issuer), serial, at)


def _drafted(plan: AuthorityPlan, serial: Serial, at: datetime) -> Draft:
    draft = plan.draft(serial, at)
    findings = lint_authority(draft, plan)
    if findings:
        raise Problem.of(findings)
    return draft


def settle(table: Table, step: CertifyRoot | Certify | CrossSign, certificate: x509.Certificate) -> None:
    """Put what was certified on the table: with a key made here it signs in later steps."""
    if isinstance(step, CrossSign) or (isinstance(step, Certify) and step.made is None):
        return
    above = () if isinstance(step, CertifyRoot) else issuer_of(table, step.by).chain
    name = step.spec.name
    chain = (certificate, *above)
    table.issuers[name] = Issuer(name, certificate, chain, table.script.pki_url, False, step.spec.rsa_signature)


def masked(tbs: bytes, keys: Iterable[PublicKey]) -> str:
    """SHA-256 of the bytes with these public keys, and the identifiers that follow from them, as zeros."""
    for key in keys:
        for part in (key.spki, key.identifier):
            tbs = tbs.replace(part, bytes(len(part)))
    return hashlib.sha256(tbs).hexdigest()


def draft_list(table: Table, step: SignCrl, entries: Iterable[Entry] | None = None) -> CrlDraft:
    """The exact bytes of the step's CRL, linted; `entries` in place of those that the script or its request has."""
    issuer = issuer_of(table, step.by)
    begin, end = parse_time(step.this_update), parse_time(step.next_update)
    for moment, what in ((begin, "this_update"), (end, "next_update")):
        if not issuer.not_before <= moment <= issuer.not_after:
            raise Problem("RW-CEREMONY", f"{what} is outside the validity of {step.by}.", field=what)
    try:
        wanted = step_entries(table, step) if entries is None else tuple(entries)
        draft = draft_crl(issuer, number=step.number, this_update=begin, next_update=end, entries=wanted)
    except ValueError as error:  # a serial or date that no CRL can have
        raise Problem("RW-CEREMONY", f"The CRL of {step.by} cannot have an entry: {error}.", field="entries") from None
    findings = lint_crl(draft, issuer)
    if findings:
        raise Problem.of(findings)
    return draft


def step_entries(table: Table, step: SignCrl) -> tuple[Entry, ...]:
    """The entries that the script or its request file has. Problem RW-CEREMONY where the request is another one's."""
    if step.request is None:
        return tuple(
            Entry(bytes.fromhex(one.serial), parse_time(one.revoked_at), parse_reason(one.reason))
            for one in step.entries
        )
    wanted = _request(table, _file(table, step.request)).wanted
    if not isinstance(wanted, CrlRequest) or wanted.by != step.by:
        raise Problem("RW-CEREMONY", f"The request does not ask for a CRL of {step.by}.")
    if step.by in table.known and wanted.issuer_key != table.known[step.by]:
        raise Problem("RW-CEREMONY", f"The request is for a CRL of another {step.by}: its public key is another one.")
    if step.number < wanted.number:
        raise Problem("RW-CEREMONY", f"The request wants a CRL number of {wanted.number} at least.", field="number")
    return tuple(Entry(bytes.fromhex(one.serial), one.revoked_at, parse_reason(one.reason)) for one in wanted.entries)
