"""Our lints: what every certificate must be, read back from the exact bytes before the real key touches them (I-02, I-09, I-41).

The draft's TBS is parsed as a relying party would parse it and compared with the plan: nothing may be missing, nothing may be
there that was not planned. Each function returns the reasons against signing, none where all is well. RFC 5280 4.1, 4.2.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.x509.oid import ExtensionOID, NameOID

from rootward.core import der
from rootward.core.capture import assemble
from rootward.core.issuer import key_identifier
from rootward.core.names import from_general_names, sort_key
from rootward.core.plan import Draft, Plan
from rootward.core.problems import Reason
from rootward.core.template import subject_name

# What `cryptography` raises, at once or lazily on access, for a certificate that is not right.
UNREADABLE = (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion, x509.DuplicateExtension)


def lint_certificate(draft: Draft, plan: Plan) -> list[Reason]:
    """Reasons (code RW-LINT) why this draft must not be signed: it must say what `plan` says, no less and no more."""
    try:
        certificate = x509.load_der_x509_certificate(assemble(draft.tbs, draft.algorithm, b"\x00"))
        found = [*_lint_fields(certificate, draft, plan), *_lint_extensions(certificate.extensions, plan)]
    except UNREADABLE as error:
        found = [f"The draft cannot be read back: {error}"]
    return [Reason("RW-LINT", detail) for detail in found]


def _lint_fields(certificate: x509.Certificate, draft: Draft, plan: Plan) -> Iterator[str]:
    issuer = plan.policy.issuer
    if draft.issuer_key_id != issuer.key_id or certificate.issuer != issuer.certificate.subject:
        yield "The issuer is not the plan's."
    if certificate.version is not x509.Version.v3:
        yield "The version is not v3."
    if certificate.serial_number != int.from_bytes(draft.serial, "big"):
        yield "The serial is not the drafted one."
    if len(draft.serial) != 20 or not 0x40 <= draft.serial[0] <= 0x7F:
        yield "The serial is not 20 positive octets."
    if public_key_info(draft.tbs) != plan.key.spki:
        yield "The public key is not the one whose possession was proved."
    if certificate.subject != subject_name(plan.subject):
        yield "The subject is not the plan's."
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if (begin, end) != (draft.not_before, draft.not_after) or end - begin + timedelta(seconds=1) != plan.lifetime:
        yield "The validity is not the planned lifetime."
    if begin < issuer.certificate.not_valid_before_utc or end > issuer.certificate.not_valid_after_utc or begin >= end:
        yield "The validity is outside the issuer's."


def _lint_extensions(extensions: x509.Extensions, plan: Plan) -> Iterator[str]:
    planned = plan.policy.template.constant(plan.key_usage, plan.must_staple)
    own = {ExtensionOID.SUBJECT_KEY_IDENTIFIER} | ({ExtensionOID.SUBJECT_ALTERNATIVE_NAME} if plan.names else set())
    for extension in extensions:
        if extension.oid in planned:
            if (extension.value, extension.critical) != planned[extension.oid]:
                yield f"The extension {extension.oid.dotted_string} is not as planned."
        elif extension.oid not in own:
            yield f"The extension {extension.oid.dotted_string} was not planned."
        elif isinstance(extension.value, x509.SubjectKeyIdentifier):
            if extension.value.digest != key_identifier(plan.key.spki):
                yield "The subject key identifier is not the key's."
        elif isinstance(extension.value, x509.SubjectAlternativeName):
            yield from _lint_names(extension.value, plan)
            if extension.critical is bool(plan.subject):
                yield "subjectAltName is critical exactly where the subject is empty (RFC 5280 4.2.1.6)."
    for oid in (planned.keys() | own) - {extension.oid for extension in extensions}:
        yield f"The extension {oid.dotted_string} is missing."


def _lint_names(alternative: x509.SubjectAlternativeName, plan: Plan) -> Iterator[str]:
    """The names of the bytes are the names of the plan, each once, each valid by our own rules (I-10)."""
    names, reasons = from_general_names(alternative)
    for reason in reasons:
        yield reason.detail
    if tuple(sorted(names, key=sort_key)) != plan.names or len(set(names)) != len(names):
        yield "The names are not the planned ones."
    if plan.policy.serves_tls:
        common_names = [value for oid, value in plan.subject if oid == NameOID.COMMON_NAME.dotted_string]
        known = {str(name).partition(":")[2] for name in names}
        if any(value not in known for value in common_names):
            yield "The common name is not one of the names."


def public_key_info(tbs: bytes) -> bytes:
    """The SubjectPublicKeyInfo's DER out of a v3 certificate's TBS (RFC 5280 4.1)."""
    return der.children(tbs)[6].whole
