"""Which names and which subject a certificate gets under a profile: from the requester within patterns, from the
profile, or from the identity, as data (I-10, I-44). RFC 5280 4.1.2.6 and 4.2.1.6, RFC 9525.
"""

from __future__ import annotations

import ipaddress
import unicodedata
from collections.abc import Mapping, Sequence

from cryptography import x509
from cryptography.x509.oid import NameOID

from rootward.core.constraints import Budget, name_key, violations, within_constraints
from rootward.core.csr import Csr
from rootward.core.issuer import Issuer
from rootward.core.names import DnsName, EmailName, IpName, Name, UriName, parse_name, sort_key
from rootward.core.patterns import (
    DnsPattern,
    matches_ip,
    parse_dns_pattern,
    parse_email_pattern,
    parse_uri_pattern,
)
from rootward.core.problems import Problem, Reason, shown
from rootward.core.profile import Profile, Value, value_fault
from rootward.core.template import subject_name

_SUBJECT_OIDS = {
    "country": NameOID.COUNTRY_NAME,
    "organization": NameOID.ORGANIZATION_NAME,
    "organizational_unit": NameOID.ORGANIZATIONAL_UNIT_NAME,
    "common_name": NameOID.COMMON_NAME,
    "serial_number": NameOID.SERIAL_NUMBER,
}


class Naming:
    """The naming rules of a profile, compiled for one issuer. Its functions add to `reasons` whatever is against the
    ask.
    """

    def __init__(self, profile: Profile, issuer: Issuer, *, serves_tls: bool) -> None:
        self.profile, self.issuer, self.serves_tls = profile, issuer, serves_tls
        self._dns = tuple(parse_dns_pattern(text) for text in profile.names.dns.allow)
        self._sensitive = tuple(parse_dns_pattern(text) for text in profile.approval.sensitive)
        self._ip = tuple(ipaddress.ip_network(text) for text in profile.names.ip)
        self._uri = tuple(parse_uri_pattern(text) for text in profile.names.uri)
        self._email = tuple(parse_email_pattern(text) for text in profile.names.email)

    def names(self, asked: tuple[Name, ...], identity: Mapping[str, str], reasons: list[Reason]) -> tuple[Name, ...]:
        """The certificate's names in `sort_key` order, each permitted by the profile and by every CA of the chain
        (I-46).
        """
        rules, profile = self.profile.names, self.profile.name
        before = told = len(reasons)
        if rules.source == "requester":
            names = asked
            beyond = [name for name in names if not self._allowed(name, identity)]
            why = f"is outside what the profile {profile} allows."
        else:
            names = self._given_names(identity, reasons)
            told = len(reasons)
            beyond = [name for name in asked if name not in names]
            why = f"is asked for, but the profile {profile} gives the names itself."
        reasons.extend(Reason("RW-NAME-PERMITTED", f"{shown(str(name), 300)} {why}", "names") for name in beyond)
        if len(names) > rules.maximum:
            reasons.append(Reason("RW-TOO-MANY", f"{len(names)} names; the profile allows {rules.maximum}.", "names"))
        # A template that came to nothing has its own reason already.
        if len(names) < rules.minimum and told == before:
            reasons.append(
                Reason(
                    "RW-CSR-EMPTY", f"The profile needs at least {rules.minimum} name(s) in subjectAltName.", "names"
                )
            )
        for constraints in self.issuer.constraints:
            reasons.extend(within_constraints(names, constraints))
        return tuple(sorted(names, key=sort_key))

    def refused(self, names: Sequence[Name], identity: Mapping[str, str]) -> list[tuple[Name | None, Reason]]:
        """Which of these names no ask of this identity could have, and why; None: it is about all of them."""
        rules = self.profile.names
        given: tuple[Name, ...] = () if rules.source == "requester" else self._given_names(identity, [])
        found: list[tuple[Name | None, Reason]] = []
        for name in names:
            if not (self._allowed(name, identity) if rules.source == "requester" else name in given):
                detail = f"{shown(str(name), 300)} is outside what the profile {self.profile.name} allows."
                found.append((name, Reason("RW-NAME-PERMITTED", detail, "names")))
            else:
                against = [one for each in self.issuer.constraints for one in within_constraints((name,), each)]
                found.extend((name, reason) for reason in against)
        if not rules.minimum <= len(names) <= rules.maximum:
            detail = f"{len(names)} names; the profile allows {rules.minimum} to {rules.maximum}."
            found.append((None, Reason("RW-TOO-MANY", detail, "names")))
        return found

    def _given_names(self, identity: Mapping[str, str], reasons: list[Reason]) -> tuple[Name, ...]:
        names: list[Name] = []
        for text in self.profile.names.fixed:
            try:
                names.append(parse_name(_expanded(text, identity) if self.profile.names.source == "identity" else text))
            except Problem as problem:
                reasons.extend(problem.reasons)
        return tuple(dict.fromkeys(names))

    def _allowed(self, name: Name, identity: Mapping[str, str]) -> bool:
        match name:
            case DnsName():
                if name.wildcard and not self.profile.names.dns.wildcards:
                    return False
                return any(pattern.matches(name, identity) for pattern in self._dns)
            case IpName():
                return matches_ip(self._ip, name)
            case UriName():
                return any(pattern.matches(name, identity) for pattern in self._uri)
            case EmailName():
                return any(pattern.matches(name, identity) for pattern in self._email)

    def subject(
        self, csr: Csr, names: tuple[Name, ...], identity: Mapping[str, str], reasons: list[Reason]
    ) -> tuple[tuple[str, str], ...]:
        """(dotted OID, value) pairs in the order of a Name."""
        parts: list[tuple[str, str]] = []
        for attribute, oid in _SUBJECT_OIDS.items():
            rule: Value = getattr(self.profile.subject, attribute)
            if rule.source == "requester":
                value = csr.common_name
                if value is not None and (why := value_fault(attribute, value)) is not None:
                    reasons.append(Reason("RW-CSR-SUBJECT", why, "csr"))
                    continue
            elif rule.source == "identity":
                value = _attribute(attribute, rule.value, identity, reasons)
            else:
                value = rule.value if rule.source == "fixed" else None
            if value is not None and oid == NameOID.COMMON_NAME:
                value = self._common_name(value, names, reasons)
            if value is not None:
                parts.append((oid.dotted_string, value))
        asked = csr.common_name
        given = dict(parts).get(NameOID.COMMON_NAME.dotted_string)
        # A common name that is one of the names says nothing new; any other would be dropped behind the asker's back.
        told = asked in (None, given) or (asked or "").lower() in {_plain(name) for name in names}
        if not told and self.profile.subject.common_name.source != "requester":
            reasons.append(Reason("RW-CSR-SUBJECT", "The profile does not take the common name from the CSR.", "csr"))
        if parts:
            reasons.extend(self._against_issuer(subject_name(tuple(parts))))
        return tuple(parts)

    def _against_issuer(self, subject: x509.Name) -> list[Reason]:
        """A self-issued certificate would be taken for a CA's roll-over (RFC 5280 3.2); constraints may be about
        directory names too (4.2.1.10).
        """
        reasons = []
        if name_key(subject) == name_key(self.issuer.certificate.subject):
            reasons.append(Reason("RW-CSR-SUBJECT", "The subject is the issuer's own.", "csr"))
        for constraints in self.issuer.constraints:
            if any(True for _ in violations(constraints, [x509.DirectoryName(subject)], budget=Budget())):
                reasons.append(Reason("RW-NAME-CONSTRAINED", "The subject is outside what the issuer may certify."))
        return reasons

    def _common_name(self, value: str, names: tuple[Name, ...], reasons: list[Reason]) -> str:
        """The value as it stands in the certificate, wherever it comes from; what could be taken for a name must be one
        of the names (I-10).
        """
        if value.lower() in {_plain(name) for name in names if not isinstance(name, IpName)}:
            return value.lower()
        if self.serves_tls or _looks_like_name(value):
            reasons.append(
                Reason(
                    "RW-CSR-SUBJECT",
                    f"The common name {shown(value)} is not one of the DNS names in subjectAltName.",
                    "csr",
                )
            )
        return value

    def needs_approval(self, names: tuple[Name, ...], identity: Mapping[str, str]) -> bool:
        """Whether somebody must agree to these names first."""
        rule = self.profile.approval
        if rule.required == "sensitive":
            dns = [name for name in names if isinstance(name, DnsName)]
            return any(_touches(pattern, name, identity) for pattern in self._sensitive for name in dns)
        return rule.required == "always"


def _touches(pattern: DnsPattern, name: DnsName, identity: Mapping[str, str]) -> bool:
    """Whether the name, or for a wildcard any name that it stands for, is one that the pattern covers."""
    if pattern.matches(name, identity) or not name.wildcard:
        return pattern.matches(name, identity)
    labels = [identity.get(label[1:-1], "").lower() if label[0] == "{" else label for label in pattern.labels]
    if pattern.below:
        return f".{name.base}".endswith("." + ".".join(labels))
    return labels[1:] == name.base.split(".")


def _plain(name: Name) -> str:
    return str(name).partition(":")[2]


# Characters that people read as the dot between labels and that NFKC leaves as they are.
_DOTS = dict.fromkeys(map(ord, "\u0589\u06d4\u0701\u0702\u3002\ua4f8\ua60e\uff61"), ".")


def _looks_like_name(text: str) -> bool:
    """Whether people or old clients would take a common name for a DNS name or an address (I-10)."""
    folded = unicodedata.normalize("NFKC", text.translate(_DOTS)).lower()
    try:
        ipaddress.ip_address(folded)
    except ValueError:
        if folded == "localhost" or folded.startswith("xn--"):
            return True
        return "." in folded and " " not in folded and "@" not in folded
    return True


def _attribute(field: str, attribute: str, identity: Mapping[str, str], reasons: list[Reason]) -> str | None:
    value = identity.get(attribute, "")
    if value_fault(field, value) is not None:
        reasons.append(Reason("RW-CSR-SUBJECT", f"The identity has no usable attribute {shown(attribute)}."))
        return None
    return value


def _expanded(text: str, identity: Mapping[str, str]) -> str:
    """`{attribute}` replaced by its value, which must be one plain label: no dots, stars or separators (I-44)."""
    parts: list[str] = []
    rest = text
    while "{" in rest:
        before, _, tail = rest.partition("{")
        attribute, _, rest = tail.partition("}")
        value = identity.get(attribute, "")
        if not value or not all(char.isascii() and (char.isalnum() or char == "-") for char in value):
            raise Problem(
                "RW-NAME", f"The identity's attribute {shown(attribute)} is not one plain label.", field="names"
            )
        parts += [before, value]
    return "".join([*parts, rest])
