"""A profile: the limit of what a certificate may be. Data only; `core/plan.py` admits asks under it.

Each field says where its value comes from: `requester` (the CSR, within limits), `fixed` (this profile) or `identity`
(attributes of who asks, as whole labels or values, never as patterns; I-44). What a profile cannot express, nobody
can ask for: there is no field for CA certificates or for OCSP signing (I-32, I-45). Profiles are versioned by the
store; a certificate names the version that made it. So many lines, because what a profile says and what makes it
valid are read side by side.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Literal

import cel
import msgspec
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from rootward.core.acme import CHALLENGES
from rootward.core.names import parse_name
from rootward.core.patterns import parse_dns_pattern, parse_email_pattern, parse_uri_pattern
from rootward.core.problems import Problem, Reason, shown
from rootward.core.pubkey import USUAL_KEYS, KeyAlgorithm
from rootward.core.signature import RsaSignature
from rootward.core.times import parse_duration

NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?", re.ASCII)
_SLOT = re.compile(r"\{[a-z][a-z0-9_]{0,31}\}", re.ASCII)
# Words that stand in the place of a profile's or authority's name in some door's paths.
RESERVED = frozenset(
    "directory new-order new-nonce new-account new-authz revoke-cert key-change renewal-info "
    "account order authz challenge certificate "
    "cacerts simpleenroll simplereenroll "
    "serverkeygen csrattrs fullcmc pkiclient p crl ocsp ca default ocsp-responder rootward-tls".split()
)

EXTENDED_KEY_USAGES: dict[str, x509.ObjectIdentifier] = {
    "server_auth": ExtendedKeyUsageOID.SERVER_AUTH,
    "client_auth": ExtendedKeyUsageOID.CLIENT_AUTH,
    "email_protection": ExtendedKeyUsageOID.EMAIL_PROTECTION,
    "code_signing": ExtendedKeyUsageOID.CODE_SIGNING,
    "time_stamping": ExtendedKeyUsageOID.TIME_STAMPING,
    "smartcard_logon": ExtendedKeyUsageOID.SMARTCARD_LOGON,
    "ipsec_ike": ExtendedKeyUsageOID.IPSEC_IKE,
}
OCSP_SIGNING = ExtendedKeyUsageOID.OCSP_SIGNING.dotted_string
FORBIDDEN_USAGES = (
    ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE,
    ExtendedKeyUsageOID.OCSP_SIGNING,
    x509.ObjectIdentifier("1.3.6.1.4.1.311.10.12.1"),  # Microsoft: any application policy
    x509.ObjectIdentifier("1.3.6.1.4.1.311.20.2.1"),  # Microsoft: enrolment agent, asks in everybody's name
    x509.ObjectIdentifier("1.3.6.1.4.1.11129.2.4.4"),  # signing of precertificates
)
MAX_PATTERNS = 200
MAX_CONDITION = 500
MAX_BACKDATE = timedelta(days=1)
KEY_USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",  # RSA keys only: left out for others (RFC 5480, 8410, 9881)
    "data_encipherment",  # RSA keys only
    "key_agreement",  # elliptic curve keys only
)
From = Literal["requester", "fixed", "identity", "none"]


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Base of the parts: immutable, and an unknown field is an error."""


class Value(_Part, frozen=True, rename={"source": "from"}):
    """One field of the subject. `value` is the text for `fixed`, an attribute's name for `identity`."""

    source: From = "none"
    value: str = ""


class DnsRules(_Part, frozen=True):
    """`allow` holds patterns (`localhost`, `.internal`, `{name}.people.internal`); `wildcards` whether `*.` may lead
    a name.
    """

    allow: tuple[str, ...] = ()
    wildcards: bool = False


class NameRules(_Part, frozen=True, rename={"source": "from"}):
    """Which names, from whom. `fixed` are names such as `dns:a.internal`; for `identity` they may hold `{attribute}`
    labels.
    """

    source: Literal["requester", "fixed", "identity"] = "requester"
    fixed: tuple[str, ...] = ()
    dns: DnsRules = DnsRules()
    ip: tuple[str, ...] = ()
    uri: tuple[str, ...] = ()
    email: tuple[str, ...] = ()
    minimum: int = 1
    maximum: int = 100


class Subject(_Part, frozen=True):
    """The subject's attributes; what is not named here is not in a certificate."""

    common_name: Value = Value("requester")
    organization: Value = Value()
    organizational_unit: Value = Value()
    country: Value = Value()
    serial_number: Value = Value()


class Lifetime(_Part, frozen=True):
    """Durations as `90d`. `backdate` is taken from the front of the lifetime: it never makes a certificate live
    longer.
    """

    default: str = "30d"
    maximum: str = "90d"
    minimum: str = "5m"
    backdate: str = "1m"


class Revocation(_Part, frozen=True):
    """Which pointers a certificate carries. `no_rev_avail` (RFC 9608) excludes CRL and OCSP pointers."""

    crl: bool = True
    ocsp: bool = True
    issuer: bool = True
    no_rev_avail: bool = False
    must_staple: Literal["never", "optional", "always"] = "never"


class Approval(_Part, frozen=True):
    """Who must agree first. `sensitive` are DNS patterns; `binds` what a yes is bound to (the plan's hash, or names
    only).
    """

    required: Literal["never", "always", "sensitive"] = "never"
    sensitive: tuple[str, ...] = ()
    binds: Literal["plan", "names"] = "plan"
    expires: str = "7d"


class Acme(_Part, frozen=True):
    """Whether ACME accounts may ask, and how they prove a name.

    `accounts`: nobody's, those with an external binding or a grant, or everybody's who proves the names. `challenges`:
    types of proof, empty for all; `reuse`: for how long a proof serves further orders of the same account.
    """

    accounts: Literal["none", "bound", "open"] = "none"
    challenges: tuple[str, ...] = ()
    reuse: str = "24h"


class Condition(_Part, frozen=True):
    """A CEL expression over `names`, `common_name`, `key`, `lifetime` (seconds), `identity`, `labels`, `owner`; must
    be true.
    """

    when: str
    message: str


# pkilint's PKIX linter takes every wildcard and every single-label dNSName for an error; our own lint judges them
# (I-09).
WILDCARD_IGNORE = "pkix.invalid_domain_name_syntax"


class Profile(_Part, frozen=True):
    """One version of a profile. The defaults are the narrow ones: no name is allowed until a pattern allows it."""

    name: str
    authority: str
    description: str = ""
    names: NameRules = NameRules()
    keys: tuple[KeyAlgorithm, ...] = USUAL_KEYS
    key_usage: tuple[str, ...] = ("digital_signature",)
    extended_key_usage: tuple[str, ...] = ()
    lifetime: Lifetime = Lifetime()
    subject: Subject = Subject()
    revocation: Revocation = Revocation()
    policies: tuple[str, ...] = ()
    approval: Approval = Approval()
    conditions: tuple[Condition, ...] = ()
    acme: Acme = Acme()
    rsa_signature: RsaSignature = "pkcs1"  # how an authority with an RSA key signs these certificates
    key_reuse: Literal["own", "any"] = "own"  # whether a key in somebody else's certificate may be certified again
    lint_ignores: tuple[str, ...] = (WILDCARD_IGNORE,)


def parse_profile(data: bytes) -> Profile:
    """A profile from JSON, checked whole. Problem RW-PROFILE-INVALID with every reason."""
    try:
        profile = msgspec.json.decode(data, type=Profile)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Problem("RW-PROFILE-INVALID", f"The profile cannot be read: {shown(str(error), 300)}") from None
    check_profile(profile)
    return profile


def profile_json(profile: Profile) -> bytes:
    """The canonical JSON of a profile: what is stored and compared."""
    return msgspec.json.encode(profile, order="deterministic")


def check_name(text: str, *, field: str, code: str = "RW-PROFILE-INVALID") -> None:
    """Names of authorities and profiles: `[a-z0-9-]{1,40}`, no hyphen at an end, none of the reserved words."""
    if not NAME.fullmatch(text):
        raise Problem(
            code, f"{shown(text)} is not a name of 1 to 40 letters a-z, digits and inner hyphens.", field=field
        )
    if text in RESERVED:
        raise Problem(code, f"{shown(text)} is a reserved name.", field=field)


class _Findings:
    """Collects everything that is wrong before anything is said."""

    def __init__(self) -> None:
        self.reasons: list[Reason] = []

    def refuse(self, field: str, detail: str) -> None:
        self.reasons.append(Reason("RW-PROFILE-INVALID", detail, field))

    def attempt(self, field: str, check: Callable[[str], object], text: str) -> None:
        try:
            check(text)
        except Problem as problem:
            self.refuse(field, problem.detail)


def check_profile(profile: Profile) -> None:
    """Raises RW-PROFILE-INVALID with every reason where the profile contradicts itself or names what does not exist."""
    found = _Findings()
    _check_sizes(profile, found)
    if found.reasons:
        raise Problem.of(found.reasons)  # nothing else is looked at where there is too much to look at
    for field, text in (("name", profile.name), ("authority", profile.authority)):
        found.attempt(field, partial(check_name, field=field), text)
    _check_names(profile.names, found)
    _check_usages(profile, found)
    _check_lifetime(profile.lifetime, found)
    _check_subject(profile.subject, found)
    _check_revocation(profile.revocation, found)
    for oid in profile.policies:
        if _oid(oid) is None:
            found.refuse("policies", f"{shown(oid)} is not an object identifier.")
    for index, pattern in enumerate(profile.approval.sensitive):
        found.attempt(f"approval.sensitive[{index}]", parse_dns_pattern, pattern)
    if profile.approval.required == "sensitive" and not profile.approval.sensitive:
        found.refuse("approval.sensitive", "Approval of sensitive names needs the list of their patterns.")
    found.attempt("approval.expires", parse_duration, profile.approval.expires)
    _check_acme(profile.acme, found)
    for condition in profile.conditions:
        found.attempt("conditions", _check_condition, condition.when)
    if found.reasons:
        raise Problem.of(found.reasons)


def _check_sizes(profile: Profile, found: _Findings) -> None:
    """What admission costs is in proportion to these."""
    sizes = {
        "names.dns.allow": (len(profile.names.dns.allow), MAX_PATTERNS),
        "names.ip": (len(profile.names.ip), MAX_PATTERNS),
        "names.uri": (len(profile.names.uri), MAX_PATTERNS),
        "names.email": (len(profile.names.email), MAX_PATTERNS),
        "names.fixed": (len(profile.names.fixed), 100),
        "approval.sensitive": (len(profile.approval.sensitive), MAX_PATTERNS),
        "extended_key_usage": (len(profile.extended_key_usage), 20),
        "policies": (len(profile.policies), 20),
        "conditions": (len(profile.conditions), 10),
        "lint_ignores": (len(profile.lint_ignores), 20),
    }
    for field, (size, most) in sizes.items():
        if size > most:
            found.refuse(field, f"It has {size} entries; {most} is the most.")
    messages = [("conditions", condition.message) for condition in profile.conditions]
    for field, text in (("description", profile.description), *messages):
        if len(text) > MAX_CONDITION or not (text.isprintable() or not text):
            found.refuse(field, f"A text has at most {MAX_CONDITION} printable characters.")


def _check_names(names: NameRules, found: _Findings) -> None:
    for index, pattern in enumerate(names.dns.allow):
        found.attempt(f"names.dns.allow[{index}]", parse_dns_pattern, pattern)
    for pattern in names.uri:
        found.attempt("names.uri", parse_uri_pattern, pattern)
    for pattern in names.email:
        found.attempt("names.email", parse_email_pattern, pattern)
    for network in names.ip:
        try:
            ipaddress.ip_network(network)
        except ValueError:
            found.refuse("names.ip", f"{shown(network)} is not a network such as 10.0.0.0/8.")
    check: Callable[[str], object] = _check_slots if names.source == "identity" else parse_name
    for name in names.fixed:
        found.attempt("names.fixed", check, name)
    if len(set(names.fixed)) != len(names.fixed):
        found.refuse("names.fixed", "A name is there twice.")
    if names.source != "requester" and not names.fixed:
        found.refuse("names.fixed", f"Names from {names.source} need a list of them.")
    if not 0 <= names.minimum <= names.maximum <= 100:
        found.refuse("names.maximum", "minimum and maximum are 0 to 100, and the minimum is not above the maximum.")


def _check_slots(text: str) -> None:
    """A name for `identity`: what varies is `{attribute}` as a whole label, path segment or mailbox, never a DNS name's
    last label; Problem RW-PROFILE-INVALID otherwise.
    """
    kind, _, value = text.partition(":")
    if "{" not in text and "}" not in text:
        parse_name(text)
    elif kind == "dns" and not value.startswith("."):
        parse_dns_pattern(value)
    elif kind == "uri" and "**" not in value:
        parse_uri_pattern(value)
    elif kind == "email" and "@" in value and _SLOT.fullmatch(value.partition("@")[0]):
        parse_email_pattern("x" + value[value.index("@") :])
    else:
        raise Problem("RW-PROFILE-INVALID", f"{shown(text)} is not a name with attributes of an identity.")


def _check_usages(profile: Profile, found: _Findings) -> None:
    for field in ("keys", "key_usage", "policies"):
        values: tuple[str, ...] = getattr(profile, field)
        if len(set(values)) != len(values):
            found.refuse(field, "A value is there twice.")  # RFC 5280 4.2.1.4 says so of policies
    if not profile.keys:
        found.refuse("keys", "At least one key algorithm is needed.")
    if not profile.key_usage:
        found.refuse("key_usage", "At least one key usage is needed.")
    for usage in profile.key_usage:
        if usage not in KEY_USAGES:
            found.refuse("key_usage", f"{shown(usage)} is none of {', '.join(KEY_USAGES)}.")
    seen: set[x509.ObjectIdentifier | None] = set()
    for usage in profile.extended_key_usage:
        oid = EXTENDED_KEY_USAGES.get(usage) or _oid(usage)
        if oid is None:
            found.refuse("extended_key_usage", f"{shown(usage)} is neither a known usage nor an object identifier.")
        elif oid in FORBIDDEN_USAGES:
            found.refuse("extended_key_usage", f"{shown(usage)} is never given by a profile.")
        elif oid in seen:
            found.refuse("extended_key_usage", f"{shown(usage)} is there twice.")
        seen.add(oid)


def _check_lifetime(lifetime: Lifetime, found: _Findings) -> None:
    before = len(found.reasons)
    for field in ("minimum", "default", "maximum"):
        found.attempt(f"lifetime.{field}", parse_duration, getattr(lifetime, field))
    if lifetime.backdate != "0s":
        found.attempt("lifetime.backdate", parse_duration, lifetime.backdate)
    if len(found.reasons) > before:
        return
    if not parse_duration(lifetime.minimum) <= parse_duration(lifetime.default) <= parse_duration(lifetime.maximum):
        found.refuse("lifetime", "The lifetimes must rise from minimum over default to maximum.")
    if backdate_of(lifetime) > MAX_BACKDATE:
        found.refuse("lifetime.backdate", "A certificate begins one day before it is made at most.")
    if backdate_of(lifetime) >= parse_duration(lifetime.minimum):
        found.refuse("lifetime.backdate", "The backdate must be shorter than the shortest lifetime.")


def _check_subject(subject: Subject, found: _Findings) -> None:
    for field in subject.__struct_fields__:
        value: Value = getattr(subject, field)
        if value.source in ("fixed", "identity") and not value.value:
            found.refuse(f"subject.{field}", f"A value from {value.source} must be named.")
        if value.source == "requester" and field != "common_name":
            found.refuse(f"subject.{field}", "Only the common name can come from the requester.")
        why = value_fault(field, value.value) if value.source == "fixed" and value.value else None
        if why is not None:
            found.refuse(f"subject.{field}", why)


def value_fault(attribute: str, value: str) -> str | None:
    """Why a value cannot stand in the subject for this field of `Subject`, or None (RFC 5280 A.1; the serial number and
    the country are PrintableStrings). The bound is 64 octets, not characters: some parsers count those.
    """
    if attribute == "country":
        return None if re.fullmatch("[A-Z]{2}", value) else "A country is two capital letters (ISO 3166)."
    if not value or value != value.strip() or not value.isprintable() or len(value.encode()) > 64:
        return f"{shown(value)} is not 1 to 64 octets of printable characters without spaces around them."
    if attribute == "serial_number" and not re.fullmatch(r"[A-Za-z0-9 '()+,./:=?-]+", value):
        return f"{shown(value)} has characters that a serial number cannot have."
    return None


def _check_revocation(revocation: Revocation, found: _Findings) -> None:
    if revocation.no_rev_avail and (revocation.crl or revocation.ocsp):
        found.refuse("revocation.no_rev_avail", "noRevAvail excludes CRL and OCSP pointers (RFC 9608 section 3).")
    if revocation.must_staple != "never" and not revocation.ocsp:
        found.refuse("revocation.must_staple", "Stapling needs an OCSP pointer.")


def _check_acme(acme: Acme, found: _Findings) -> None:
    for name in acme.challenges:
        if name not in CHALLENGES:
            found.refuse("acme.challenges", f"{shown(name)} is none of {', '.join(CHALLENGES)}.")
    if len(set(acme.challenges)) != len(acme.challenges):
        found.refuse("acme.challenges", "A value is there twice.")
    found.attempt("acme.reuse", parse_duration, acme.reuse)


# Loops over lists; nested, their cost multiplies, and nothing else in CEL can take long (I-66).
_MACRO = re.compile(r"\b(?:all|exists|exists_one|existsOne|filter|map|transform\w*|sort\w*|reduce)\s*\(")


def _check_condition(expression: str) -> None:
    if len(expression) > MAX_CONDITION:
        raise Problem("RW-PROFILE-INVALID", f"A condition has at most {MAX_CONDITION} characters.")
    if len(_MACRO.findall(expression)) > 1:
        raise Problem("RW-PROFILE-INVALID", "A condition loops over one list at most; write two conditions.")
    try:
        cel.compile(expression)
    except ValueError as error:
        raise Problem("RW-PROFILE-INVALID", f"A condition cannot be read: {str(error).splitlines()[0]}") from None


def backdate_of(lifetime: Lifetime) -> timedelta:
    """How far before the present a certificate begins."""
    return timedelta() if lifetime.backdate == "0s" else parse_duration(lifetime.backdate)


def _oid(text: str) -> x509.ObjectIdentifier | None:
    try:
        return x509.ObjectIdentifier(text)
    except ValueError:
        return None


def usage_oid(usage: str) -> x509.ObjectIdentifier:
    """The OID of an extended key usage of a checked profile, by name or dotted."""
    return EXTENDED_KEY_USAGES.get(usage) or x509.ObjectIdentifier(usage)
