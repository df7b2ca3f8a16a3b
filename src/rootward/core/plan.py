"""An ask admitted under a profile: the `Plan`; and with serial and dates the `Draft`, the exact bytes to sign.

`Policy(profile, version, issuer)` is a profile's version compiled for one issuer: what is the same in each
certificate is built once. `Policy.admit` refuses with every reason at once. Nothing of the CSR but its key and its
permitted names gets any further (I-11): a plan has no field for the rest. Sources: RFC 5280 4.1 and 4.2, RFC 6960
4.2.2.2.1, RFC 7633, RFC 9608.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any, NewType

import cel
import msgspec
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from rootward.core.above import chain_faults
from rootward.core.calendar import signs_until
from rootward.core.csr import Csr
from rootward.core.issuer import Issuer
from rootward.core.names import Name
from rootward.core.naming import Naming
from rootward.core.problems import Problem, Reason
from rootward.core.profile import Profile, backdate_of, usage_oid
from rootward.core.pubkey import PublicKey
from rootward.core.sealed import Sealed
from rootward.core.signature import RSA
from rootward.core.template import Template, fits
from rootward.core.times import parse_duration, rfc3339, show_duration, whole_second

Serial = NewType("Serial", bytes)


def make_serial(random: bytes) -> Serial:
    """A serial's 20 content octets from 20 random ones: positive, always 20 long, 158 bits of them random (I-04)."""
    if len(random) != 20:
        raise ValueError("a serial is made of 20 random octets")
    return Serial(bytes([random[0] & 0x3F | 0x40]) + random[1:])


@dataclass(frozen=True)
class Ask:
    """What somebody wants, free of any protocol. `replaces` is the id of the certificate that this one renews.

    `ends` is its last second, in place of a lifetime. `names` are those that the door has compared with the CSR's,
    which may have one in its common name alone; None: those of the CSR.
    """

    profile: str
    csr: Csr
    lifetime: timedelta | None = None
    owner: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    replaces: str | None = None
    ends: datetime | None = None
    names: tuple[Name, ...] | None = None


class Plan(Sealed):
    """Every field of the certificate but serial and dates. Made by `Policy.admit` alone."""

    policy: Policy
    subject: tuple[tuple[str, str], ...]  # dotted OID and value, in order
    names: tuple[Name, ...]  # in `sort_key` order
    key: PublicKey
    key_usage: tuple[str, ...]
    lifetime: timedelta
    must_staple: bool
    approval: bool

    @cached_property
    def facts(self) -> dict[str, Any]:
        """What the certificate will say, as plain values in one order: shown to approvers, hashed as the plan's
        identity.
        """
        policy, profile = self.policy, self.policy.profile
        return {
            "profile": profile.name,
            "version": policy.version,
            "authority": policy.issuer.authority,
            "issuer": policy.issuer.key_id,
            "subject": [list(part) for part in self.subject],
            "names": [str(name) for name in self.names],
            "key": self.key.id,
            "key_algorithm": self.key.algorithm.value,
            "key_usage": list(self.key_usage),
            "extended_key_usage": [oid.dotted_string for oid in policy.extended_key_usage],
            "lifetime": int(self.lifetime.total_seconds()),
            "must_staple": self.must_staple,
            "policies": list(profile.policies),
            # Said only where it is not the usual, so that plans that were agreed to before keep their hash.
            **({"rsa_signature": profile.rsa_signature} if profile.rsa_signature != "pkcs1" else {}),
        }

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the canonical form: what an approval is bound to."""
        return _digest(self.facts)

    @cached_property
    def promise(self) -> dict[str, Any]:
        """The facts that no CSR and no wish of the asker's can change: what a yes to names alone is about."""
        kept = ("profile", "version", "authority", "issuer", "names", "extended_key_usage", "policies")
        return {name: self.facts[name] for name in kept}

    @cached_property
    def promise_hash(self) -> str:
        """SHA-256 of the canonical form of `promise`."""
        return _digest(self.promise)

    def binding(self, principal: str, binds: str) -> str:
        """What is one and the same request: (principal, profile, names, and all else where approvals bind the plan)."""
        bound: dict[str, Any] = {key: self.facts[key] for key in ("profile", "version", "names")} | {
            "principal": principal
        }
        if binds == "plan":
            bound["plan"] = self.hash
        return _digest(bound)

    def draft(self, serial: Serial, now: datetime) -> Draft:
        """The exact bytes to sign. Problem RW-VALIDITY where the issuer does not live as long (never cut short,
        I-08).
        """
        issuer = self.policy.issuer
        begin = self.policy.begin(now)
        # Both ends count (RFC 5280 4.1.2.5), so the last second is one before the duration's end.
        if self.lifetime - timedelta(seconds=1) > issuer.not_after - begin:
            raise Problem(
                "RW-VALIDITY",
                f"The authority {issuer.authority} itself ends before {show_duration(self.lifetime)} from now.",
                field="lifetime",
            )
        end = begin + self.lifetime - timedelta(seconds=1)
        if not issuer.not_before <= now < end:
            raise Problem("RW-VALIDITY", "The certificate would not be valid now.", field="lifetime")
        tbs, algorithm = self.policy.template.tbs(
            subject=self.subject,
            names=self.names,
            key=self.key,
            key_usage=self.key_usage,
            must_staple=self.must_staple,
            serial=int.from_bytes(serial, "big"),
            begin=begin,
            end=end,
        )
        return Draft._make(
            issuer_key_id=issuer.key_id,
            serial=serial,
            not_before=begin,
            not_after=end,
            tbs=tbs,
            algorithm=algorithm,
        )


class Draft(Sealed):
    """A certificate's TBS (DER), exactly as it is linted, stored and signed, and the AlgorithmIdentifier that goes
    beside it.
    """

    issuer_key_id: str
    serial: Serial
    not_before: datetime
    not_after: datetime
    tbs: bytes
    algorithm: bytes


def _digest(value: dict[str, Any]) -> str:
    return hashlib.sha256(msgspec.json.encode(value, order="deterministic")).hexdigest()


def _check_chain(profile: Profile, issuer: Issuer, usages: tuple[x509.ObjectIdentifier, ...]) -> None:
    """Problem RW-PROFILE-INVALID where no relying party would accept what this issuer signs under the profile (I-46),
    or its key does not sign so.
    """
    policies = [x509.ObjectIdentifier(policy) for policy in profile.policies]
    faults = chain_faults(issuer.chain, usages=usages, policies=policies)
    reasons = [
        Reason("RW-PROFILE-INVALID", fault.detail, fault.about.replace("path_length", "authority")) for fault in faults
    ]
    if profile.rsa_signature == "pss" and issuer.key.algorithm not in RSA:
        detail = f"The authority {issuer.authority} has a {issuer.key.algorithm} key, and only RSA keys sign with PSS."
        reasons.append(Reason("RW-PROFILE-INVALID", detail, "rsa_signature"))
    if reasons:
        raise Problem.of(reasons)


class Policy:
    """A profile's version, compiled for one issuer; RW-PROFILE-INVALID where its chain rules the profile out."""

    def __init__(self, profile: Profile, version: int, issuer: Issuer) -> None:
        self.profile, self.version, self.issuer = profile, version, issuer
        self._conditions = tuple((cel.compile(condition.when), condition.message) for condition in profile.conditions)
        self._lifetimes = tuple(
            parse_duration(text)
            for text in (profile.lifetime.minimum, profile.lifetime.default, profile.lifetime.maximum)
        )
        self.backdate = backdate_of(profile.lifetime)
        self.extended_key_usage = tuple(usage_oid(usage) for usage in profile.extended_key_usage)
        _check_chain(profile, issuer, self.extended_key_usage)
        self.serves_tls = ExtendedKeyUsageOID.SERVER_AUTH in self.extended_key_usage
        self._naming = Naming(profile, issuer, serves_tls=self.serves_tls)
        self.template = Template(profile, issuer, self.extended_key_usage)

    def refused_names(self, names: Sequence[Name], identity: Mapping[str, str]) -> list[tuple[Name | None, Reason]]:
        """What admission would say of these names alone, before there is a CSR: (name, why); None: of all of them."""
        return self._naming.refused(names, identity)

    def begin(self, now: datetime) -> datetime:
        """When a certificate begins that is made now."""
        return max(whole_second(now) - self.backdate, self.issuer.not_before)

    def check_period(self, now: datetime) -> None:
        """Problem RW-VALIDITY once the issuer's cryptoperiod for this profile is over: what it signs then could live
        as long as the profile allows, and the issuer does not (NIST SP 800-57 part 1, 5.3.5).
        """
        end = signs_until(self.issuer.not_after, self._lifetimes[2])
        if now > end:
            name = self.issuer.authority
            raise Problem(
                "RW-VALIDITY",
                f"The authority {name} issues nothing under the profile {self.profile.name} since {rfc3339(end)}: it "
                f"ends {rfc3339(self.issuer.not_after)}, and the profile gives up to "
                f"{show_duration(self._lifetimes[2])}. Its successor has to take over.",
                field="profile",
            )

    def lifetime_until(self, end: datetime, now: datetime) -> timedelta:
        """Of a certificate that is made now and whose last second is `end`: both ends count (RFC 5280 4.1.2.5)."""
        return end - self.begin(now) + timedelta(seconds=1)

    # Admission

    def admit(self, ask: Ask, identity: Mapping[str, str]) -> Plan:
        """The ask as a plan, or a Problem with every reason. `identity` are the attributes of who asks (name, id,
        kind …).
        """
        reasons: list[Reason] = []
        csr = ask.csr
        names = self._naming.names(csr.names if ask.names is None else ask.names, identity, reasons)
        self._key(csr, reasons)
        key_usage = self._usage(csr, reasons)
        lifetime = self._lifetime(ask, reasons)
        must_staple = self._staple(csr, reasons)
        subject = self._naming.subject(csr, names, identity, reasons)
        if not names and not subject and self.profile.names.minimum == 0:
            reasons.append(Reason("RW-CSR-EMPTY", "Neither a name nor a subject is asked for.", "csr"))
        self._check_conditions(ask, names, subject, identity, lifetime, reasons)
        if reasons:
            raise Problem.of(reasons)
        return Plan._make(
            policy=self,
            subject=subject,
            names=names,
            key=csr.public_key,
            key_usage=key_usage,
            lifetime=lifetime,
            must_staple=must_staple,
            approval=self._naming.needs_approval(names, identity),
        )

    def _key(self, csr: Csr, reasons: list[Reason]) -> None:
        if csr.public_key.algorithm not in self.profile.keys:
            allowed = ", ".join(self.profile.keys)
            reasons.append(
                Reason(
                    "RW-KEY-TYPE",
                    f"A {csr.public_key.algorithm} key is not among {allowed} of the profile {self.profile.name}.",
                    "csr",
                )
            )
        if csr.public_key.id == self.issuer.key_id:
            reasons.append(Reason("RW-KEY-BLOCKED", "The public key is forbidden: it is an authority's.", "csr"))

    def _usage(self, csr: Csr, reasons: list[Reason]) -> tuple[str, ...]:
        algorithm = csr.public_key.algorithm
        given = tuple(usage for usage in self.profile.key_usage if fits(usage, algorithm))
        # A CSR may ask for any usage that the profile gives, also one that does not fit its key and so is left out.
        beyond = (csr.key_usage or frozenset()) - frozenset(self.profile.key_usage)
        if beyond:
            reasons.append(
                Reason("RW-CSR-USAGE", f"The profile does not give the key usage {', '.join(sorted(beyond))}.", "csr")
            )
        if not given:
            reasons.append(Reason("RW-KEY-TYPE", f"None of the profile's key usages fits a {algorithm} key.", "csr"))
        allowed = {oid.dotted_string for oid in self.extended_key_usage}
        for oid in csr.extended_key_usage or ():
            if oid not in allowed:
                reasons.append(
                    Reason("RW-CSR-USAGE", f"The profile does not give the extended key usage {oid}.", "csr")
                )
        return given

    def _lifetime(self, ask: Ask, reasons: list[Reason]) -> timedelta:
        minimum, default, maximum = self._lifetimes
        lifetime = default if ask.lifetime is None else ask.lifetime
        if not minimum <= lifetime <= maximum:
            reasons.append(
                Reason(
                    "RW-VALIDITY",
                    f"A lifetime of {show_duration(lifetime)} is outside {show_duration(minimum)} to "
                    f"{show_duration(maximum)} of the profile {self.profile.name}.",
                    "lifetime",
                )
            )
        return lifetime

    def _staple(self, csr: Csr, reasons: list[Reason]) -> bool:
        rule = self.profile.revocation.must_staple
        if csr.must_staple and rule == "never":
            reasons.append(Reason("RW-CSR-EXTENSION", "The profile does not give must-staple (RFC 7633).", "csr"))
        return rule == "always" or (csr.must_staple and rule == "optional")

    def _check_conditions(
        self,
        ask: Ask,
        names: tuple[Name, ...],
        subject: tuple[tuple[str, str], ...],
        identity: Mapping[str, str],
        lifetime: timedelta,
        reasons: list[Reason],
    ) -> None:
        if not self._conditions:
            return
        values = {
            "names": [str(name) for name in names],
            "common_name": dict(subject).get(NameOID.COMMON_NAME.dotted_string, ""),
            "key": ask.csr.public_key.algorithm.value,
            "lifetime": int(lifetime.total_seconds()),
            "identity": dict(identity),
            "labels": dict(ask.labels),
            "owner": ask.owner or "",
        }
        for program, message in self._conditions:
            try:
                met = program.execute(values) is True
            except (ValueError, TypeError, RuntimeError, LookupError, AttributeError, ArithmeticError):
                met = False  # a condition that cannot be evaluated is not met: deny by default
            if not met:
                reasons.append(Reason("RW-CONDITION", message))
