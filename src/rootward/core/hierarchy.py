"""Certificates of authorities: what a ceremony decides, and the drafts that come of it (RFC 5280 4.2, 4.2.1.9,
4.2.1.10).

The same steps as for any certificate: a specification is admitted (`plan_authority`), drafted with serial and dates,
linted, and only then signed. A root's plan is its own issuer. Nothing here comes from a CSR but the public key.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Literal

import msgspec
from cryptography import x509
from cryptography.x509.oid import NameOID

from rootward.core import der
from rootward.core.capture import assemble, capture_tbs
from rootward.core.constraints import name_key
from rootward.core.issuer import Issuer
from rootward.core.lint import UNREADABLE
from rootward.core.names import parse_email, parse_host
from rootward.core.plan import Draft, Serial
from rootward.core.problems import Problem, Reason, shown
from rootward.core.profile import check_name, value_fault
from rootward.core.pubkey import KeyAlgorithm, PublicKey
from rootward.core.sealed import Sealed
from rootward.core.signature import SIGNATURES
from rootward.core.template import (
    access_extension,
    crl_extension,
    encoded_extension,
    key_usage_extension,
    policies_extension,
    subject_der,
    subject_name,
)
from rootward.core.times import parse_duration, show_duration, whole_second

_AUTHORITY_USAGE = ("key_cert_sign", "crl_sign")
_LAST = datetime(9999, 12, 30, tzinfo=UTC)  # a day before RFC 5280's "no well-defined expiration" (4.1.2.5)


class Constraints(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Name constraints: DNS and mail domains as RFC 5280 writes them (`internal`, `.internal`), networks as CIDR."""

    dns: tuple[str, ...] = ()
    ip: tuple[str, ...] = ()
    email: tuple[str, ...] = ()
    uri: tuple[str, ...] = ()


class AuthoritySpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What an authority's certificate shall say. `path_length` is the number of CAs that may follow; None: no limit."""

    name: str
    kind: Literal["root", "issuing"]
    common_name: str
    organization: str = ""
    country: str = ""
    key_algorithm: KeyAlgorithm = KeyAlgorithm.P256
    lifetime: str = "5y"
    path_length: int | None = 0
    permitted: Constraints = Constraints()
    excluded: Constraints = Constraints()
    policies: tuple[str, ...] = ()


class AuthorityPlan(Sealed):
    """An admitted specification. `parent` is None for a root."""

    spec: AuthoritySpec
    key: PublicKey
    parent: Issuer | None
    lifetime: timedelta
    signer: PublicKey

    def draft(self, serial: Serial, now: datetime) -> Draft:
        """The exact bytes to sign; Problem RW-VALIDITY where the parent ends sooner."""
        begin = whole_second(now)
        last = _LAST if self.parent is None else self.parent.not_after
        if self.lifetime - timedelta(seconds=1) > last - begin:
            who = "The calendar" if self.parent is None else f"The authority {self.parent.authority}"
            raise Problem(
                "RW-VALIDITY", f"{who} ends before {show_duration(self.lifetime)} from now.", field="lifetime"
            )
        if self.parent is not None and begin < self.parent.not_before:
            raise Problem("RW-VALIDITY", f"The authority {self.parent.authority} has not begun yet.", field="lifetime")
        end = begin + self.lifetime - timedelta(seconds=1)
        subject = subject_name(_subject(self.spec))
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject if self.parent is None else self.parent.certificate.subject)
            .public_key(self.key.key)
            .serial_number(int.from_bytes(serial, "big"))
            .not_valid_before(begin)
            .not_valid_after(end)
        )
        for value, critical in self.extensions():
            builder = builder.add_extension(value, critical=critical)
        tbs, algorithm = capture_tbs(builder, self.signer.algorithm)
        return Draft._make(
            issuer_key_id=self.signer.id, serial=serial, not_before=begin, not_after=end, tbs=tbs, algorithm=algorithm
        )

    def extensions(self) -> list[tuple[x509.ExtensionType, bool]]:
        """All extensions in order, with their criticality."""
        own_id = self.key.identifier
        made: list[tuple[x509.ExtensionType, bool]] = [
            (x509.BasicConstraints(ca=True, path_length=self.spec.path_length), True),
            (key_usage_extension(_AUTHORITY_USAGE), True),
            (x509.SubjectKeyIdentifier(own_id), False),
        ]
        constraints = _constraints(self.spec)
        if constraints is not None:
            made.append((constraints, True))
        if self.spec.policies:
            made.append((policies_extension(self.spec.policies), False))
        if self.parent is None:
            made.append((x509.AuthorityKeyIdentifier(own_id, None, None), False))
            return made
        made.append((x509.AuthorityKeyIdentifier(self.parent.subject_key_id, None, None), False))
        made.append((crl_extension(self.parent.crl_url), False))
        # No OCSP for what an offline root signed: nobody could answer (design, section 4).
        access = access_extension(
            ocsp=self.parent.ocsp_url if self.parent.online else None, issuer=self.parent.issuer_url
        )
        if access is not None:
            made.append((access, False))
        return made


def plan_authority(spec: AuthoritySpec, key: PublicKey, parent: Issuer | None) -> AuthorityPlan:
    """The specification admitted for this key under this parent (None: a root), or a Problem with every reason."""
    reasons: list[Reason] = []
    try:
        check_name(spec.name, field="name")
    except Problem as problem:
        reasons.extend(problem.reasons)
    if (spec.kind == "root") is not (parent is None):
        reasons.append(Reason("RW-CEREMONY", "A root has no parent, every other authority has one.", "kind"))
    for field in ("common_name", "organization", "country"):
        value: str = getattr(spec, field)
        why = value_fault(field, value) if value or field == "common_name" else None
        if why is not None:
            reasons.append(Reason("RW-CSR-SUBJECT", why, field))
    readable = all(reason.code != "RW-CSR-SUBJECT" for reason in reasons)
    if key.algorithm is not spec.key_algorithm:
        reasons.append(Reason("RW-KEY-TYPE", f"The key is {key.algorithm}, not {spec.key_algorithm}.", "key_algorithm"))
    if parent is not None:
        reasons.extend(_against_parent(spec, key, parent, subject=_subject(spec) if readable else ()))
    elif spec.path_length == 0:
        reasons.append(Reason("RW-CEREMONY", "A root with path length 0 could sign no authority.", "path_length"))
    if spec.path_length is not None and spec.path_length < 0:
        reasons.append(Reason("RW-CEREMONY", "A path length is 0 or more.", "path_length"))
    lifetime = timedelta()
    try:
        lifetime = parse_duration(spec.lifetime, field="lifetime")
    except Problem as problem:
        reasons.extend(problem.reasons)
    reasons.extend(_unreadable(spec))
    if reasons:
        raise Problem.of(reasons)
    return AuthorityPlan._make(
        spec=spec, key=key, parent=parent, lifetime=lifetime, signer=key if parent is None else parent.key
    )


def _against_parent(
    spec: AuthoritySpec, key: PublicKey, parent: Issuer, *, subject: tuple[tuple[str, str], ...]
) -> list[Reason]:
    reasons: list[Reason] = []
    basic = parent.certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    if not basic.ca:
        reasons.append(Reason("RW-CEREMONY", "The parent is not an authority.", "kind"))
    if basic.path_length is not None and (spec.path_length is None or spec.path_length >= basic.path_length):
        reasons.append(
            Reason("RW-CEREMONY", f"The parent allows a path length below {basic.path_length} only.", "path_length")
        )
    if key.id == parent.key_id:
        reasons.append(Reason("RW-KEY-BLOCKED", "The public key is forbidden: it is the parent's.", "key"))
    if subject and name_key(subject_name(subject)) == name_key(parent.certificate.subject):
        reasons.append(Reason("RW-CSR-SUBJECT", "The subject is the parent's own.", "common_name"))
    return reasons


def _unreadable(spec: AuthoritySpec) -> Iterator[Reason]:
    """Everything in the constraints and policies that is not of its form."""
    checks: dict[str, Callable[[str], object]] = {
        "dns": lambda text: parse_host(text.removeprefix(".")),
        "ip": ipaddress.ip_network,
        "email": lambda text: parse_email(text) if "@" in text else parse_host(text.removeprefix(".")),
        "uri": lambda text: parse_host(text.removeprefix(".")),
    }
    for where in ("permitted", "excluded"):
        for kind, check in checks.items():
            for text in getattr(getattr(spec, where), kind):
                if not _passes(check, text):
                    yield Reason("RW-CEREMONY", f"{shown(text)} is no {kind} name constraint.", f"{where}.{kind}")
    for oid in spec.policies:
        if not _passes(x509.ObjectIdentifier, oid):
            yield Reason("RW-CEREMONY", f"{shown(oid)} is not an object identifier.", "policies")
    if len(set(spec.policies)) != len(spec.policies):
        yield Reason("RW-CEREMONY", "A policy is there twice (RFC 5280 4.2.1.4).", "policies")


def _passes(check: Callable[[str], object], text: str) -> bool:
    try:
        check(text)
    except (Problem, ValueError):
        return False
    return True


def _subject(spec: AuthoritySpec) -> tuple[tuple[str, str], ...]:
    oids = (
        (NameOID.COUNTRY_NAME, spec.country),
        (NameOID.ORGANIZATION_NAME, spec.organization),
        (NameOID.COMMON_NAME, spec.common_name),
    )
    return tuple((oid.dotted_string, value) for oid, value in oids if value)


def subject_of(spec: AuthoritySpec) -> tuple[tuple[str, str], ...]:
    """The subject that a specification asks for: (dotted OID, value) pairs in their order."""
    return _subject(spec)


def read_spec(values: object) -> AuthoritySpec:
    """The specification that these values (of JSON or YAML) are; Problem RW-FIELD otherwise."""
    try:
        return msgspec.convert(values, AuthoritySpec)
    except msgspec.ValidationError as error:
        raise Problem("RW-FIELD", f"The authority's specification: {shown(str(error), 200)}.") from None


def constraints_of(spec: AuthoritySpec) -> x509.NameConstraints | None:
    """The name constraints that a specification asks for."""
    return _constraints(spec)


def _constraints(spec: AuthoritySpec) -> x509.NameConstraints | None:
    permitted, excluded = _trees(spec.permitted), _trees(spec.excluded)
    if not permitted and not excluded:
        return None
    return x509.NameConstraints(permitted or None, excluded or None)


def _trees(constraints: Constraints) -> list[x509.GeneralName]:
    return [
        *(x509.DNSName(domain.removeprefix(".")) for domain in constraints.dns),
        *(x509.IPAddress(ipaddress.ip_network(network)) for network in constraints.ip),
        *(x509.RFC822Name(domain) for domain in constraints.email),
        *(x509.UniformResourceIdentifier(host) for host in constraints.uri),
    ]


def lint_authority(draft: Draft, plan: AuthorityPlan) -> list[Reason]:
    """Reasons (code RW-LINT) why this authority's draft must not be signed: it must say what `plan` says, byte for
    byte as our own DER writer has it, no less and no more.
    """
    try:
        # A parser of relying parties must take it, extensions too.
        list(x509.load_der_x509_certificate(assemble(draft.tbs, draft.algorithm, b"\x00")).extensions)
        found = list(_lint_bounds(draft, plan))
        if draft.tbs != _expected_tbs(draft, plan):
            found += list(_differences(draft, plan)) or ["The draft is not the plan byte for byte."]
    except UNREADABLE as error:
        found = [f"The draft cannot be read back: {error}"]
    return [Reason("RW-LINT", detail) for detail in found]


def _lint_bounds(draft: Draft, plan: AuthorityPlan) -> Iterator[str]:
    if draft.issuer_key_id != plan.signer.id or draft.algorithm != SIGNATURES[plan.signer.algorithm].identifier:
        yield "The issuer or the signature algorithm is not as planned."
    if len(draft.serial) != 20 or not 0x40 <= draft.serial[0] <= 0x7F:
        yield "The serial is not 20 positive octets."
    if draft.not_after - draft.not_before + timedelta(seconds=1) != plan.lifetime:
        yield "The validity is not the planned lifetime."
    parent = plan.parent
    if parent is not None and not parent.not_before <= draft.not_before < draft.not_after <= parent.not_after:
        yield "The validity is outside the parent's."


def _expected_parts(draft: Draft, plan: AuthorityPlan) -> tuple[tuple[str, bytes], ...]:
    """What each part of the TBS must be, with its name (RFC 5280 4.1), without the builder."""
    subject = subject_der(_subject(plan.spec))
    extensions = (
        encoded_extension(value.oid.dotted_string, critical, value.public_bytes())
        for value, critical in plan.extensions()
    )
    return (
        ("version", der.explicit(0, der.integer(2))),
        ("serial", der.tlv(der.INTEGER, draft.serial)),
        ("signature algorithm", draft.algorithm),
        ("issuer", subject if plan.parent is None else plan.parent.name_der),
        ("validity", der.sequence(der.time(draft.not_before), der.time(draft.not_after))),
        ("subject", subject),
        ("public key", plan.key.spki),
        ("list of extensions", der.explicit(3, der.sequence(*extensions))),
    )


def _expected_tbs(draft: Draft, plan: AuthorityPlan) -> bytes:
    return der.sequence(*(part for _, part in _expected_parts(draft, plan)))


def _differences(draft: Draft, plan: AuthorityPlan) -> Iterator[str]:
    parts = der.children(draft.tbs)
    expected = _expected_parts(draft, plan)
    if len(parts) != len(expected):
        yield "It is not a certificate of version 3 with extensions and nothing else."
        return
    for part, (name, wanted) in zip(parts, expected, strict=True):
        if part.whole != wanted:
            yield f"The {name} is not as planned."
