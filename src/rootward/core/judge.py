"""The checks of RFC 5280 6.1 on one path, each with its outcome: signatures, validity, authority, name constraints,
usage, critical extensions, policies, and the name of the host (RFC 6125 6, RFC 9525 6). Pure; `chain.py` finds the
paths.

The order of a path is leaf first. Where it is anchored its last link is the trust anchor, whose own signature proves
nothing and is not looked at; its validity, constraints and usages count, as in most relying parties (RFC 5937 allows
it).
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from itertools import pairwise
from typing import Literal

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, ObjectIdentifier

from rootward.core.constraints import Budget, Unjudged, names_of, violations
from rootward.core.links import Link, State, Step
from rootward.core.names import DnsName, IpName
from rootward.core.problems import shown
from rootward.core.signed import signature_fault
from rootward.core.times import rfc3339

Purpose = Literal["server", "client"]
Path = tuple[Link, ...]

_USAGES: dict[Purpose, ObjectIdentifier] = {
    "server": ExtendedKeyUsageOID.SERVER_AUTH,
    "client": ExtendedKeyUsageOID.CLIENT_AUTH,
}
# What is processed here, or cannot change the outcome while trust is for any policy: may be critical (RFC 5280 4.2).
_PROCESSED = (
    x509.BasicConstraints,
    x509.KeyUsage,
    x509.ExtendedKeyUsage,
    x509.SubjectAlternativeName,
    x509.NameConstraints,
    x509.CertificatePolicies,
    x509.PolicyConstraints,
    x509.InhibitAnyPolicy,
    x509.AuthorityKeyIdentifier,
    x509.SubjectKeyIdentifier,
)
_POLICY_MAPPINGS = ObjectIdentifier("2.5.29.33")
_ANY_POLICY = bytes.fromhex("0604551d2000")


def judge(
    path: Path, *, now: datetime, purpose: Purpose | None, host: DnsName | IpName | None, anchored: bool = True
) -> list[Step]:
    """Every check on this path, failed ones included."""
    steps = [Step("form", State.FAILED, link.fault) for link in path if link.fault is not None]
    steps += _signatures(path)
    steps += [_validity(link, now) for link in path]
    steps += _authorities(path, anchored=anchored)
    steps.append(_constraints(path))
    steps.append(_usage(path, purpose))
    steps.append(_critical(path))
    steps += _policies(path)
    steps.append(_host(path[0], host))
    return steps


def _signatures(path: Path) -> Iterator[Step]:
    for child, issuer in pairwise(path):
        fault = signature_fault(child.certificate, issuer.certificate)
        if fault is None:
            algorithm = child.certificate.signature_algorithm_oid._name
            yield Step("signature", State.OK, f"{child.title} is signed by {issuer.title} ({algorithm}).")
        else:
            yield Step("signature", State.FAILED, f"{child.title} is not well signed by {issuer.title}: {fault}.")


def _validity(link: Link, now: datetime) -> Step:
    first, last = link.certificate.not_valid_before_utc, link.certificate.not_valid_after_utc
    if now < first:
        return Step("validity", State.FAILED, f"{link.title} is not valid before {rfc3339(first)}.")
    if now > last:
        return Step("validity", State.FAILED, f"{link.title} expired at {rfc3339(last)}.")
    return Step("validity", State.OK, f"{link.title} is valid until {rfc3339(last)}.")


def _authorities(path: Path, *, anchored: bool) -> Iterator[Step]:
    """basicConstraints, pathLenConstraint and keyCertSign of everything above the leaf (6.1.4 k to n)."""
    below = 0  # CA certificates between this one and the leaf that are not self-issued
    for index, link in enumerate(path[1:], start=1):
        faults = []
        basic, usage = link.find(x509.BasicConstraints), link.find(x509.KeyUsage)
        anchor = anchored and index == len(path) - 1
        if basic is None and not anchor:
            faults.append("has no basic constraints")
        if basic is not None and not basic.ca:
            faults.append("is not a CA")
        if usage is not None and not usage.key_cert_sign:
            faults.append("may not sign certificates (key usage)")
        if basic is not None and basic.path_length is not None and below > basic.path_length:
            faults.append(f"allows {basic.path_length} CAs below it, and there are {below}")
        if not link.self_issued:
            below += 1
        if faults:
            yield Step("authority", State.FAILED, f"{link.title} {' and '.join(faults)}.")
        else:
            yield Step("authority", State.OK, f"{link.title} is a CA and may sign what is below it.")


def _constraints(path: Path) -> Step:
    """Every CA's name constraints against every name below it; self-issued CAs are exempt, the leaf never (6.1.3 b,
    c).
    """
    constrained = [
        (index, found) for index, link in enumerate(path) if index and (found := link.find(x509.NameConstraints))
    ]
    if not constrained:
        return Step("constraints", State.SKIPPED, "No CA in the path has name constraints.")
    faults: list[str] = []
    budget = Budget()
    try:
        for at, link in enumerate(path[:-1]):
            if at and link.self_issued:
                continue
            names = names_of(link.certificate)
            for index, constraints in constrained:
                if index > at:
                    faults += [
                        f"The {name} of {link.title} {why} of {path[index].title}."
                        for name, why in violations(constraints, names, budget=budget)
                    ]
    except Unjudged as error:
        faults.append(str(error))
    if faults:
        more = f" And {len(faults) - 3} more." if len(faults) > 3 else ""
        return Step("constraints", State.FAILED, " ".join(faults[:3]) + more)
    return Step("constraints", State.OK, "Every name is within the name constraints of the CAs above it.")


def _usage(path: Path, purpose: Purpose | None) -> Step:
    """The purpose against the leaf's usages, and against those of each CA, which limit what is below them (RFC 5280
    4.2.1.12 leaves that to local policy; all TLS implementations do it).
    """
    if purpose is None:
        return Step("usage", State.SKIPPED, "No purpose was asked for.")
    wanted = _USAGES[purpose]
    faults = []
    for index, link in enumerate(path):
        extended = link.find(x509.ExtendedKeyUsage)
        any_use = index > 0 and extended is not None and ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE in extended
        if extended is not None and wanted not in extended and not any_use:
            faults.append(f"{link.title} is not for {purpose} authentication (extended key usage).")
    usage = path[0].find(x509.KeyUsage)
    if usage is not None and not _signs_handshakes(usage, purpose):
        faults.append(f"{path[0].title} has no key usage that a TLS {purpose} needs.")
    if faults:
        return Step("usage", State.FAILED, " ".join(faults))
    return Step("usage", State.OK, f"{path[0].title} may be used for {purpose} authentication.")


def _signs_handshakes(usage: x509.KeyUsage, purpose: Purpose) -> bool:
    return usage.digital_signature or usage.key_agreement or (purpose == "server" and usage.key_encipherment)


def _critical(path: Path) -> Step:
    faults = [
        f"{link.title} has the critical extension {extension.oid.dotted_string}, which is not known here."
        for link in path
        for extension in link.extensions
        if extension.critical and not isinstance(extension.value, _PROCESSED) and extension.oid != _POLICY_MAPPINGS
    ]
    if faults:
        return Step("critical", State.FAILED, " ".join(faults))
    return Step("critical", State.OK, "Every critical extension is understood.")


def _policies(path: Path) -> Iterator[Step]:
    """What certificate policies can change while trust is for any policy: an explicit policy that is required
    (6.1.5), and a mapping from or to anyPolicy, which no path may have (6.1.4 a).
    """
    for link in path:
        limits = link.find(x509.PolicyConstraints)
        if limits is not None and limits.require_explicit_policy is not None:
            yield Step(
                "policy", State.FAILED, f"{link.title} requires an explicit policy, which is not evaluated here."
            )
    for link in path[1:]:
        for extension in link.extensions:
            if extension.oid == _POLICY_MAPPINGS and _ANY_POLICY in extension.value.public_bytes():
                yield Step("policy", State.FAILED, f"{link.title} maps from or to any policy (RFC 5280 4.2.1.5).")


def _host(leaf: Link, host: DnsName | IpName | None) -> Step:
    """The host against the subject alternative names alone: the common name has no say (RFC 9525 6.3, RFC 6125 6.4)."""
    if host is None:
        return Step("host", State.SKIPPED, "No host name was asked for.")
    alternative = leaf.find(x509.SubjectAlternativeName)
    names = list(alternative) if alternative is not None else []
    if isinstance(host, IpName):
        wanted = str(host.address)
        match = any(isinstance(name, x509.IPAddress) and name.value == host.address for name in names)
    else:
        wanted = host.value
        match = any(isinstance(name, x509.DNSName) and _same_host(name.value, wanted) for name in names)
    if match:
        return Step("host", State.OK, f"{shown(wanted, 253)} is one of its names.")
    listed = ", ".join(shown(str(name.value), 60) for name in names[:5]) + (", …" if len(names) > 5 else "")
    return Step("host", State.FAILED, f"{shown(wanted, 253)} is not one of its names: {listed or 'it has none'}.")


def _same_host(presented: str, wanted: str) -> bool:
    """A wildcard is a whole left-most label and stands for exactly one label (RFC 9525 6.3)."""
    held = presented.lower()
    if held == wanted:
        return True
    first, _, rest = wanted.partition(".")
    return held.startswith("*.") and "." in rest and bool(first) and first != "*" and held[2:] == rest
