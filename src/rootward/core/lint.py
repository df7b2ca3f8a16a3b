"""Our lints: what every certificate must be, read back from the exact bytes before the real key touches them (I-02,
I-09, I-41).

The plan is written out a second time, by our own DER writer, and must be the draft's bytes: nothing is missing,
nothing is there that was not planned. Where the two differ, the draft is read by our own strict reader to say in
what. RFC 5280 4.1, 4.2.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.x509.oid import NameOID

from rootward.core import der
from rootward.core.capture import assemble
from rootward.core.names import IpName, Name, sort_key
from rootward.core.plan import Draft, Plan
from rootward.core.problems import Problem, Reason
from rootward.core.signature import signature_of
from rootward.core.template import encoded_extension, subject_der
from rootward.core.wishes import read_name

# What `cryptography` raises, at once or lazily on access, for a certificate that is not right.
UNREADABLE = (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion, x509.DuplicateExtension)
_V3 = der.explicit(0, der.integer(2))
_SKI, _SAN = "2.5.29.14", "2.5.29.17"
_TAGS = {"email": 0x81, "dns": 0x82, "uri": 0x86}


def lint_certificate(draft: Draft, plan: Plan) -> list[Reason]:
    """Reasons (code RW-LINT) why this draft must not be signed: it must say what `plan` says, no less and no more."""
    try:
        # A parser of relying parties must take it; what it says is then read by our own.
        x509.load_der_x509_certificate(assemble(draft.tbs, draft.algorithm, b"\x00"))
        found = list(_lint_bounds(draft, plan))
        if draft.tbs != expected_tbs(draft, plan):
            found += list(_differences(draft, plan)) or ["The draft is not the plan byte for byte."]
    except (*UNREADABLE, Problem) as error:
        found = [f"The draft cannot be read back: {error}"]
    return [Reason("RW-LINT", detail) for detail in found]


def expected_tbs(draft: Draft, plan: Plan) -> bytes:
    """What the draft's TBS must be, from the plan and the draft's serial and dates, without the builder."""
    extensions = [
        *plan.policy.template.constant(plan.key_usage, plan.must_staple),
        encoded_extension(_SKI, False, der.octet_string(plan.key.identifier)),
    ]
    if plan.names:
        names = der.sequence(*(_encoded_name(name) for name in plan.names))
        extensions.append(encoded_extension(_SAN, not plan.subject, names))
    return der.sequence(
        _V3,
        der.tlv(der.INTEGER, draft.serial),
        draft.algorithm,
        plan.policy.issuer.name_der,
        der.sequence(der.time(draft.not_before), der.time(draft.not_after)),
        subject_der(plan.subject),
        plan.key.spki,
        der.explicit(3, der.sequence(*extensions)),
    )


def _encoded_name(name: Name) -> bytes:
    """A GeneralName (RFC 5280 4.2.1.6)."""
    if isinstance(name, IpName):
        return der.tlv(0x87, name.address.packed)
    return der.tlv(_TAGS[name.kind], name.value.encode("ascii"))


def _lint_bounds(draft: Draft, plan: Plan) -> Iterator[str]:
    """What is wrong with serial, dates and names themselves, whatever the bytes say."""
    issuer = plan.policy.issuer
    signature = signature_of(issuer.key.algorithm, plan.policy.profile.rsa_signature)
    if draft.issuer_key_id != issuer.key_id or draft.algorithm != signature.identifier:
        yield "The issuer or the signature algorithm is not the plan's."
    if len(draft.serial) != 20 or not 0x40 <= draft.serial[0] <= 0x7F:
        yield "The serial is not 20 positive octets."
    if draft.not_after - draft.not_before + timedelta(seconds=1) != plan.lifetime:
        yield "The validity is not the planned lifetime."
    if not issuer.not_before <= draft.not_before < draft.not_after <= issuer.not_after:
        yield "The validity is outside the issuer's."
    if len(set(plan.names)) != len(plan.names):
        yield "A name is there twice."
    if plan.policy.serves_tls and plan.subject:
        known = {str(name).partition(":")[2] for name in plan.names}
        if any(value not in known for oid, value in plan.subject if oid == NameOID.COMMON_NAME.dotted_string):
            yield "The common name is not one of the names."


def _differences(draft: Draft, plan: Plan) -> Iterator[str]:
    parts = der.children(draft.tbs)
    if len(parts) != 8 or parts[0].whole != _V3:
        yield "It is not a certificate of version 3 with extensions and nothing else."
        return
    _, serial, algorithm, issuer_name, validity, subject, key, extensions = parts
    if issuer_name.whole != plan.policy.issuer.name_der:
        yield "The issuer is not the plan's."
    if algorithm.whole != draft.algorithm:
        yield "The signature algorithm is not the drafted one."
    if serial.whole != der.tlv(der.INTEGER, draft.serial):
        yield "The serial is not the drafted one."
    if key.whole != plan.key.spki:
        yield "The public key is not the one whose possession was proved."
    if subject.whole != subject_der(plan.subject):
        yield "The subject is not the plan's."
    if validity.whole != der.sequence(der.time(draft.not_before), der.time(draft.not_after)):
        yield "The validity is not the drafted one."
    constant = set(plan.policy.template.constant(plan.key_usage, plan.must_staple))
    for part in der.children(extensions.content):
        oid = der.read_oid(der.children(part.whole)[0].content)
        if oid == _SAN:
            names = [read_name(name.tag, name.content) for name in der.children(der.children(part.whole)[-1].content)]
            if tuple(sorted(names, key=sort_key)) != plan.names:
                yield "The names are not the planned ones."
        elif oid != _SKI and part.whole not in constant:
            yield f"The extension {oid} is not a planned one."
