"""What a signer that trusts nobody decides by: what its own administrator pinned for one authority, and never what the
asker says is stored.

`decide` admits an ask anew under the pinned version of its profile and gives the draft that it makes of it, if that is
byte for byte the one that was handed in. `decide_crl` and `judge` read a CRL and hold it against what this signer
remembers. Every refusal is a Problem whose reasons say all of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Network, IPv6Network
from urllib.parse import urlsplit

from rootward.core.crl import BadCrl, CrlDraft, lint_crl, read_draft
from rootward.core.csr import parse_csr
from rootward.core.grounds import SignCertificate
from rootward.core.issuer import Issuer
from rootward.core.lint import lint_certificate
from rootward.core.names import DnsName, EmailName, IpName, Name, parse_name
from rootward.core.own import RESPONDER, TLS
from rootward.core.plan import Ask, Draft, Plan, Policy, Serial
from rootward.core.problems import Problem, Reason, shown
from rootward.core.pubkey import BUILT_IN_BLOCKED
from rootward.core.times import rfc3339, show_duration

CODE = "RW-SIGNER-REFUSED"
SKEW = timedelta(minutes=5)  # between the asker's clock and the signer's
_AHEAD = timedelta(days=3650)  # how far a CRL's number may be ahead of the clock: clocks that leapt burnt numbers


@dataclass(frozen=True)
class Limits:
    """What holds whatever a profile allows. Empty `suffixes` and `networks`: what the profiles allow.

    `certificates` and `crls` in an hour; `own` (responders and the server's TLS) in a day; `crl` is a CRL's longest
    life.
    """

    certificates: int = 1000
    own: int = 50
    crls: int = 2000
    lifetime: timedelta = timedelta(days=397)
    crl: timedelta = timedelta(days=7)
    suffixes: tuple[str, ...] = ()
    networks: tuple[IPv4Network | IPv6Network, ...] = ()


@dataclass(frozen=True)
class Pinned:
    """One authority as its signer knows it: its own copy of the certificates, limits, and accepted profiles by name.

    `forbidden` are the ids of keys that are never certified: those of the signer's authorities. `let_go` are serials
    that its administrator allows to be missing from CRLs.
    """

    issuer: Issuer
    limits: Limits
    policies: Mapping[str, Policy]
    forbidden: frozenset[str] = frozenset()
    let_go: frozenset[bytes] = frozenset()


@dataclass(frozen=True)
class Spent:
    """How many certificates were signed in the last hour, how many of our own in the last day, and how many CRLs in
    the last hour.
    """

    certificates: int = 0
    own: int = 0
    crls: int = 0


def is_own(profile: str) -> bool:
    """Whether it is one of the profiles of the installation's own certificates."""
    return profile in (RESPONDER, TLS)


def decide(pinned: Pinned, order: SignCertificate, spent: Spent, now: datetime) -> Draft:
    """The draft to sign, which is the one that was handed in. Problem with every reason otherwise."""
    grounds, limits = order.grounds, pinned.limits
    policy = _policy(pinned, grounds.profile, grounds.version)
    if is_own(grounds.profile) and spent.own >= limits.own:
        raise Problem(CODE, f"The limit of {limits.own} certificates of our own a day is reached.", retry_after=3600)
    if not is_own(grounds.profile) and spent.certificates >= limits.certificates:
        raise Problem(CODE, f"The limit of {limits.certificates} certificates an hour is reached.", retry_after=600)
    then = _moment(grounds.now, now)
    csr = parse_csr(grounds.csr)
    names = None if grounds.names is None else tuple(map(parse_name, grounds.names))
    ask = Ask(
        grounds.profile,
        csr,
        lifetime=timedelta(seconds=min(max(grounds.lifetime, 1), 1 << 36)),
        owner=grounds.owner,
        labels=grounds.labels,
        names=names,
    )
    plan = policy.admit(ask, grounds.identity)
    reasons = list(_beyond(limits, plan))
    if plan.key.id in pinned.forbidden or plan.key.id in BUILT_IN_BLOCKED:
        reasons.append(Reason("RW-KEY-BLOCKED", "The public key is forbidden.", "csr"))
    if len(grounds.serial) != 20 or not 0x40 <= grounds.serial[0] <= 0x7F:
        reasons.append(Reason(CODE, "The serial does not have 20 octets, the first from 40 to 7f."))
    if reasons:
        raise Problem.of(reasons)
    draft = plan.draft(Serial(grounds.serial), then)
    findings = lint_certificate(draft, plan)
    if findings:
        raise Problem.of(findings)
    if draft.tbs != order.tbs:
        known = "as signer.toml has it" if is_own(grounds.profile) else "as it was accepted on the signer's host"
        raise Problem(
            CODE,
            f"The certificate to sign is not the one that version {policy.version} of the profile "
            f"{policy.profile.name}, {known}, makes of this request.",
        )
    return draft


def _policy(pinned: Pinned, profile: str, version: int) -> Policy:
    policy = pinned.policies.get(profile)
    authority = pinned.issuer.authority
    if policy is None and profile == TLS:
        raise Problem(
            CODE,
            "The signer has no names for the server's own TLS certificate. Set tls_hosts in the table "
            f"authorities.{authority} of signer.toml on the signer's host, and start the signer again.",
        )
    if policy is None:
        raise Problem(
            CODE,
            f"The profile {shown(profile)} of {authority} is not accepted on the signer's host. Review it there with "
            "rootward signer accept.",
        )
    if policy.version != version:
        raise Problem(
            CODE,
            f"Version {version} of the profile {profile} is not the one that is accepted on the signer's host, which "
            f"is {policy.version}. Review it there with rootward signer accept.",
        )
    return policy


def _moment(seconds: int, now: datetime) -> datetime:
    """The asker's now, if it is near the signer's."""
    if abs(seconds - int(now.timestamp())) > SKEW.total_seconds():
        raise Problem(CODE, f"The asker's clock and the signer's ({rfc3339(now)}) are more than 5 minutes apart.")
    return datetime.fromtimestamp(seconds, UTC)


def _beyond(limits: Limits, plan: Plan) -> list[Reason]:
    """What the limits of signer.toml say against a plan that its profile allows."""
    found = [
        Reason(CODE, f"{shown(str(name))} is outside the suffixes and networks of the signer's limits.", "names")
        for name in plan.names
        if not _within(limits, name)
    ]
    if plan.lifetime > limits.lifetime:
        longest = show_duration(limits.lifetime)
        found.append(Reason(CODE, f"The signer's limits allow no lifetime above {longest}.", "lifetime"))
    return found


def _within(limits: Limits, name: Name) -> bool:
    if isinstance(name, IpName):
        return not limits.networks or any(name.address in network for network in limits.networks)
    if not limits.suffixes:
        return True
    if isinstance(name, DnsName):
        host = name.base
    elif isinstance(name, EmailName):
        host = name.domain
    else:
        host = urlsplit(name.value).hostname or ""
    return any(host == suffix or host.endswith(f".{suffix}") for suffix in limits.suffixes)


# CRLs


def decide_crl(pinned: Pinned, tbs: bytes, spent: Spent, now: datetime) -> CrlDraft:
    """The draft that `tbs` is, read and linted, with times that fit this clock; Problem with every reason otherwise."""
    issuer, limits = pinned.issuer, pinned.limits
    if spent.crls >= limits.crls:
        raise Problem(CODE, f"The limit of {limits.crls} CRLs an hour is reached.", retry_after=60)
    try:
        draft = read_draft(tbs, issuer)
    except BadCrl as error:
        raise Problem(CODE, str(error)) from None
    reasons = lint_crl(draft, issuer)
    if abs(draft.this_update - now) > SKEW:
        reasons.append(Reason(CODE, f"The CRL's thisUpdate is more than 5 minutes from the clock, {rfc3339(now)}."))
    if draft.next_update - draft.this_update > limits.crl:
        reasons.append(
            Reason(CODE, f"The signer's limits allow no CRL that is valid for over {show_duration(limits.crl)}.")
        )
    if reasons:
        raise Problem.of(reasons)
    return draft


@dataclass(frozen=True)
class Past:
    """The last CRL's number that this signer signed for the key, 0 where there is none, and the thisUpdate of its last
    two, newest first.
    """

    number: int
    updates: tuple[datetime, ...] = ()


@dataclass(frozen=True)
class Change:
    """What a CRL says otherwise than the ones before: serials. `forgotten` are gone, `softened` are on hold and were
    revoked for good, `released` are gone and were on hold.
    """

    forgotten: frozenset[bytes] = field(default_factory=frozenset)
    softened: frozenset[bytes] = field(default_factory=frozenset)
    released: frozenset[bytes] = field(default_factory=frozenset)
    final: frozenset[bytes] = field(default_factory=frozenset)
    held: frozenset[bytes] = field(default_factory=frozenset)


def compare(listed: set[bytes], on_hold: set[bytes], final: set[bytes], held: set[bytes]) -> Change:
    """A CRL's serials and those on hold, against those that were listed before: revoked for good, and on hold."""
    return Change(
        forgotten=frozenset(final - listed),
        softened=frozenset(final & on_hold),
        released=frozenset(held - listed),
        final=frozenset((listed - on_hold) - final),
        held=frozenset(on_hold - held),
    )


def judge(draft: CrlDraft, change: Change, ends: Mapping[bytes, datetime | None], past: Past, now: datetime) -> None:
    """Problem where this CRL must not follow the ones before (I-16, I-17, I-21). `ends` has the last second of each
    certificate that is forgotten, as this signer wrote it down when it signed it; None for one that was let go of.

    An entry may go two lifetimes of the CRL after its certificate's end, once two CRLs were dated after it: then a
    clock that leaps makes nobody forget.
    """
    reasons: list[Reason] = []
    if draft.number <= past.number:
        reasons.append(Reason(CODE, f"The CRL's number {draft.number} is not above the last one's, {past.number}."))
    if draft.number > max(past.number, int((now + _AHEAD).timestamp() * 1000)) + 1:
        reasons.append(Reason(CODE, "The CRL's number is years ahead of the clock."))
    shown_until = min([draft.this_update, *past.updates]) if len(past.updates) == 2 else None
    over = draft.this_update - 2 * (draft.next_update - draft.this_update)
    missed = [
        serial
        for serial in change.forgotten
        if (end := ends[serial]) is not None and (shown_until is None or not (end < over and end < shown_until))
    ]
    if missed:
        reasons.append(_named(missed, "is revoked and not in the CRL", "are revoked and not in the CRL"))
    if change.softened:
        text = "on hold in the CRL, and revoked for good before"
        reasons.append(_named(list(change.softened), f"is {text}", f"are {text}"))
    if reasons:
        raise Problem.of(reasons)


def _named(serials: list[bytes], one: str, many: str) -> Reason:
    first = min(serials).hex()
    if len(serials) == 1:
        return Reason(CODE, f"The serial {first} {one}.")
    return Reason(CODE, f"{len(serials)} serials, such as {first}, {many}.")
