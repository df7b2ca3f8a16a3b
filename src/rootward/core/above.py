"""What the CAs above allow (I-46): path length, key usage, extended key usages and policies of a whole chain, for a
leaf and for a CA that shall be certified (RFC 5280 6.1.4, 4.2.1.4, 4.2.1.9, 4.2.1.11, 4.2.1.12).

Name constraints are judged name by name, in `constraints.py`. Extended key usages of CAs limit what is below them: RFC
5280 leaves that open, TLS clients do it. What cannot be judged is refused.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple, TypeVar

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from rootward.core.constraints import name_key
from rootward.core.problems import shown

ANY_POLICY = x509.ObjectIdentifier("2.5.29.32.0")
_MAPPINGS = x509.ObjectIdentifier("2.5.29.33")
E = TypeVar("E", bound=x509.ExtensionType)


class Fault(NamedTuple):
    """A reason, and what it is about: authority, path_length, extended_key_usage or policies."""

    about: str
    detail: str


def chain_faults(
    chain: Sequence[x509.Certificate],
    *,
    usages: Collection[x509.ObjectIdentifier],
    policies: Collection[x509.ObjectIdentifier],
    below: int = 0,
) -> Iterator[Fault]:
    """Why `chain` (the issuer first, the root last) cannot certify something with these extended key usages and
    policies. `below` is how many CAs there shall be from there on: 0 for a leaf, 1 and more for a CA.
    """
    # OCSP signing is asked of the responder's certificate alone (RFC 6960 4.2.2.2).
    wanted = set(usages) - {ExtendedKeyUsageOID.OCSP_SIGNING}
    limited = False
    for certificate in chain:
        title = shown(certificate.subject.rfc4514_string())
        basic, usage = _find(certificate, x509.BasicConstraints), _find(certificate, x509.KeyUsage)
        if basic is None or not basic.ca:
            yield Fault("authority", f"{title} is not a CA.")
        elif basic.path_length is not None and basic.path_length < below:
            yield Fault("path_length", f"{title} allows {basic.path_length} CAs below it, and there would be {below}.")
        if usage is not None and not usage.key_cert_sign:
            yield Fault("authority", f"{title} may not sign certificates (key usage).")
        given = _find(certificate, x509.ExtendedKeyUsage)
        missing = wanted - set(given or ())
        if given is not None and missing and ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE not in given:
            lacking = ", ".join(sorted(oid.dotted_string for oid in missing))
            yield Fault("extended_key_usage", f"{title} may not certify the extended key usage {lacking}.")
        limited = limited or (given is not None and ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE not in given)
        below += not _self_issued(certificate)  # a roll-over of the same name does not count (RFC 5280 4.2.1.9)
    if limited and not usages:
        # What states no usage is good for any, to whoever looks at it alone.
        detail = "A CA above is limited to some extended key usages: say which of them this one has."
        yield Fault("extended_key_usage", detail)
    yield from _policy_faults(chain, set(policies))


def room_below(chain: Sequence[x509.Certificate]) -> int | None:
    """The greatest path length that a CA certified by the first of `chain` (the root last) can have; None: any, or none
    at all. Below 0: it certifies no CA.
    """
    room: int | None = None
    above = 1
    for certificate in chain:
        basic = _find(certificate, x509.BasicConstraints)
        if basic is not None and basic.path_length is not None:
            left = basic.path_length - above
            room = left if room is None else min(room, left)
        above += not _self_issued(certificate)
    return room


def _policy_faults(chain: Sequence[x509.Certificate], policies: set[x509.ObjectIdentifier]) -> Iterator[Fault]:
    """A CA that states policies stands for these alone. One that states none lets every policy lapse, which matters
    where a CA above requires one (RFC 5280 6.1.3 d to f). The trust anchor's own do not count (6.1.1).
    """
    explicit = lapsed = False
    for depth, certificate in enumerate(chain):
        title, anchor = shown(certificate.subject.rfc4514_string()), depth == len(chain) - 1
        stated = _find(certificate, x509.CertificatePolicies)
        known = {one.policy_identifier for one in stated or ()}
        beyond = policies - known
        if beyond and stated is not None and ANY_POLICY not in known and not anchor:
            lacking = ", ".join(sorted(oid.dotted_string for oid in beyond))
            yield Fault("policies", f"{title} does not stand for the policy {lacking}.")
        lapsed = lapsed or (stated is None and not anchor)
        limits = _find(certificate, x509.PolicyConstraints)
        if limits is not None and limits.require_explicit_policy is not None:
            explicit = explicit or limits.require_explicit_policy <= depth + 1  # 6.1.4 h, 6.1.5 a
        if policies and any(one.oid == _MAPPINGS for one in certificate.extensions):
            yield Fault("policies", f"{title} maps policies, which is not evaluated here.")
    if explicit and (lapsed or not policies):
        yield Fault("policies", "A CA above requires a policy that every certificate under it states.")


def _self_issued(certificate: x509.Certificate) -> bool:
    return name_key(certificate.subject) == name_key(certificate.issuer)


def _find(certificate: x509.Certificate, kind: type[E]) -> E | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None
