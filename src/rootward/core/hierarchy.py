"""Certificates of authorities: what a ceremony or an online authority decides, and the drafts that come of it (RFC
5280 4.2, 4.2.1.9, 4.2.1.10).

The same steps as for any certificate: a specification is admitted (`plan_authority`), drafted with serial and dates,
linted, and only then signed. A root's plan is its own issuer. Nothing here comes from a CSR but the public key.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

import msgspec
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from rootward.core import der
from rootward.core.above import chain_faults
from rootward.core.authority import (
    AuthoritySpec,
    Constraints,
    authority_usage,
    check_spec,
    constraints_of,
    subject_of,
)
from rootward.core.capture import assemble, capture_tbs
from rootward.core.constraints import Budget, Unjudged, beyond, name_key, violations
from rootward.core.issuer import MAX_CHAIN, Issuer
from rootward.core.lint import UNREADABLE
from rootward.core.names import Name, parse_uri, to_general_name
from rootward.core.plan import Draft, Serial
from rootward.core.problems import Problem, Reason, shown
from rootward.core.pubkey import PublicKey, certificate_key, public_key_info
from rootward.core.sealed import Sealed
from rootward.core.signature import RsaSignature, Signature, signature_of
from rootward.core.template import (
    access_extension,
    crl_extension,
    encoded_extension,
    key_usage_extension,
    policies_extension,
    subject_name,
)
from rootward.core.times import parse_duration, show_duration, whole_second

__all__ = [
    "AuthorityPlan",
    "AuthoritySpec",
    "Constraints",
    "constraints_of",
    "lint_authority",
    "plan_authority",
    "subject_of",
]

_AUTHORITY_USAGE = ("key_cert_sign", "crl_sign")
_LAST = datetime(9999, 12, 30, tzinfo=UTC)  # a day before RFC 5280's "no well-defined expiration" (4.1.2.5)


class AuthorityPlan(Sealed):
    """An admitted specification. `parent` is None for a root; `subject` is the Name, and `key_identifier` the subject
    key identifier, which are those of `existing` where a CA that is there is certified once more.
    """

    spec: AuthoritySpec
    key: PublicKey
    parent: Issuer | None
    lifetime: timedelta
    signer: PublicKey
    signature: Signature
    subject: x509.Name
    key_identifier: bytes

    @cached_property
    def names(self) -> tuple[Name, ...]:
        """Those of subjectAltName."""
        return tuple(parse_uri(uri) for uri in self.spec.uris)

    @cached_property
    def facts(self) -> dict[str, Any]:
        """What the certificate will say, as plain values in one order: shown to whoever agrees, and hashed."""
        spec, parent = self.spec, self.parent
        return {
            "kind": spec.kind,
            "name": spec.name,
            "authority": spec.name if parent is None else parent.authority,
            "issuer": self.signer.id,
            "subject": self.subject.rfc4514_string(),
            "names": [str(name) for name in self.names],
            "key": self.key.id,
            "key_algorithm": self.key.algorithm.value,
            "lifetime": int(self.lifetime.total_seconds()),
            "path_length": spec.path_length,
            "permitted": msgspec.to_builtins(spec.permitted),
            "excluded": msgspec.to_builtins(spec.excluded),
            "policies": list(spec.policies),
            "extended_key_usage": [authority_usage(usage).dotted_string for usage in spec.extended_key_usage],
            "rsa_signature": spec.rsa_signature,
        }

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the canonical form of `facts`."""
        return hashlib.sha256(msgspec.json.encode(self.facts, order="deterministic")).hexdigest()

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
        builder = (
            x509.CertificateBuilder()
            .subject_name(self.subject)
            .issuer_name(self.subject if self.parent is None else self.parent.certificate.subject)
            .public_key(self.key.key)
            .serial_number(int.from_bytes(serial, "big"))
            .not_valid_before(begin)
            .not_valid_after(end)
        )
        for value, critical in self.extensions():
            builder = builder.add_extension(value, critical=critical)
        how: RsaSignature = "pkcs1" if self.signature.pss is None else "pss"
        tbs, algorithm = capture_tbs(builder, self.signer.algorithm, rsa_signature=how)
        return Draft._make(
            issuer_key_id=self.signer.id, serial=serial, not_before=begin, not_after=end, tbs=tbs, algorithm=algorithm
        )

    def extensions(self) -> list[tuple[x509.ExtensionType, bool]]:
        """All extensions in order, with their criticality."""
        spec, parent = self.spec, self.parent
        made: list[tuple[x509.ExtensionType, bool]] = [
            (x509.BasicConstraints(ca=True, path_length=spec.path_length), True),
            (key_usage_extension(_AUTHORITY_USAGE), True),
            (x509.SubjectKeyIdentifier(self.key_identifier), False),
        ]
        if spec.extended_key_usage:
            usages = [authority_usage(usage) for usage in spec.extended_key_usage]
            made.append((x509.ExtendedKeyUsage(usages), False))
        if self.names:
            made.append((x509.SubjectAlternativeName([to_general_name(name) for name in self.names]), False))
        constraints = constraints_of(spec)
        if constraints is not None:
            made.append((constraints, True))
        if spec.policies:
            made.append((policies_extension(spec.policies), False))
        if parent is None:
            made.append((x509.AuthorityKeyIdentifier(self.key_identifier, None, None), False))
            return made
        made.append((x509.AuthorityKeyIdentifier(parent.subject_key_id, None, None), False))
        made.append((crl_extension(parent.crl_url), False))
        # No OCSP for what an offline root signed: nobody could answer (design, section 4).
        access = access_extension(ocsp=parent.ocsp_url if parent.online else None, issuer=parent.issuer_url)
        if access is not None:
            made.append((access, False))
        return made


def plan_authority(
    spec: AuthoritySpec, key: PublicKey, parent: Issuer | None, *, existing: x509.Certificate | None = None
) -> AuthorityPlan:
    """The specification admitted for this key under this parent (None: a root), or a Problem with every reason.

    `existing` is a certificate of a CA that is certified once more (cross-signed): what it issued names its subject,
    byte for byte, and its key identifier, so these are taken from it. `key` must be its key.
    """
    reasons = check_spec(spec)
    readable = not reasons
    if key.algorithm is not spec.key_algorithm:
        reasons.append(Reason("RW-KEY-TYPE", f"The key is {key.algorithm}, not {spec.key_algorithm}.", "key_algorithm"))
    subject, identifier = subject_name(subject_of(spec)) if _named(reasons) else x509.Name([]), key.identifier
    if existing is not None:
        reasons.extend(_against_existing(spec, key, existing))
        subject, identifier = existing.subject, key_identifier_of(existing) or identifier
    if (spec.kind == "root") is not (parent is None):
        reasons.append(Reason("RW-CEREMONY", "A root has no parent, every other authority has one.", "kind"))
    if parent is not None:
        reasons.extend(_against_parent(spec, key, parent, subject=subject, readable=readable))
    if reasons:
        raise Problem.of(reasons)
    signer = key if parent is None else parent.key
    return AuthorityPlan._make(
        spec=spec,
        key=key,
        parent=parent,
        lifetime=parse_duration(spec.lifetime),
        signer=signer,
        signature=signature_of(key.algorithm, spec.rsa_signature) if parent is None else parent.signature,
        subject=subject,
        key_identifier=identifier,
    )


def _named(reasons: list[Reason]) -> bool:
    return all(reason.code != "RW-CSR-SUBJECT" for reason in reasons)


def _against_existing(spec: AuthoritySpec, key: PublicKey, existing: x509.Certificate) -> Iterator[Reason]:
    common = [item.value for item in existing.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if common != [spec.common_name]:
        told = ", ".join(shown(str(value)) for value in common) or "none"
        yield Reason("RW-CSR-SUBJECT", f"The certificate's common name is {told}.", "common_name")
    if certificate_key(existing).id != key.id:
        yield Reason("RW-KEY-MISMATCH", "The certificate has another key.", "key")


def key_identifier_of(certificate: x509.Certificate) -> bytes | None:
    """Its subject key identifier, if it has one."""
    try:
        return certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
    except x509.ExtensionNotFound:
        return None


def _against_parent(
    spec: AuthoritySpec, key: PublicKey, parent: Issuer, *, subject: x509.Name, readable: bool
) -> Iterator[Reason]:
    """What the parent and the CAs above it do not allow. Extended key usages are said again by each CA under one that
    is limited, because a client may look at the lowest alone.
    """
    if parent.is_lab:
        detail = "A single-tier lab has one authority and certifies no other: its own certificate says so."
        yield Reason("RW-CEREMONY", detail, "kind")
    if len(parent.chain) >= MAX_CHAIN:
        detail = f"The chain up to the root would have more than {MAX_CHAIN} certificates."
        yield Reason("RW-CEREMONY", detail, "kind")
    if key.spki in [public_key_info(one.tbs_certificate_bytes) for one in parent.chain]:
        yield Reason("RW-KEY-BLOCKED", "The public key is forbidden: it is that of a CA above.", "key")
    if subject.rdns and name_key(subject) in [name_key(one.subject) for one in parent.chain]:
        # Two CAs of one name in a chain: clients would take one for the other (RFC 5280 4.1.2.6, 4.2.1.9).
        yield Reason("RW-CSR-SUBJECT", "The subject is that of a CA above.", "common_name")
    if spec.path_length is None and any(_limit(certificate) is not None for certificate in parent.chain):
        yield Reason("RW-CEREMONY", "A CA above limits the path length, so this one has a limit too.", "path_length")
    if not readable:
        return  # nothing more can be compared
    usages = [authority_usage(usage) for usage in spec.extended_key_usage]
    if parent.online and ExtendedKeyUsageOID.OCSP_SIGNING in usages:
        # Whoever its own issuer certified for OCSP signing answers for that issuer (RFC 6960 4.2.2.2): the CA could
        # take back its own revocation, and that of everything beside it (I-32).
        detail = f"What {parent.authority} certifies for OCSP signing answers OCSP for it, and that its responder does."
        yield Reason("RW-CEREMONY", detail, "extended_key_usage")
    policies = [x509.ObjectIdentifier(oid) for oid in spec.policies]
    below = 1 + (spec.path_length or 0)
    for fault in chain_faults(parent.chain, usages=usages, policies=policies, below=below):
        yield Reason("RW-CEREMONY", fault.detail, fault.about.replace("authority", "kind"))
    yield from _against_constraints(spec, subject, parent)


def _limit(certificate: x509.Certificate) -> int | None:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length
    except x509.ExtensionNotFound:
        return None


def _against_constraints(spec: AuthoritySpec, subject: x509.Name, parent: Issuer) -> Iterator[Reason]:
    """The CA's own names are judged like a leaf's (RFC 5280 6.1.3 b, c), and it may not permit what those above rule
    out: both would apply, and it would say more than it can do.
    """
    own, budget = constraints_of(spec), Budget()
    names = [x509.DirectoryName(subject), *(to_general_name(parse_uri(uri)) for uri in spec.uris)]
    for outer in parent.constraints:
        try:
            for name, why in violations(outer, names, budget=budget):
                yield Reason("RW-NAME-CONSTRAINED", f"A CA above does not allow the {name}: it {why}.", "common_name")
            for clause in beyond(own, outer, budget=budget) if own is not None else ():
                yield Reason("RW-NAME-CONSTRAINED", f"The authority {clause}.", "permitted")
        except Unjudged as error:
            yield Reason("RW-NAME-CONSTRAINED", str(error), "permitted")


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
    if draft.issuer_key_id != plan.signer.id or draft.algorithm != plan.signature.identifier:
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
    subject = plan.subject.public_bytes()
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
