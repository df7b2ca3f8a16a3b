"""What a newOrder asks for, and everything that is wrong with it at once (RFC 8555 7.4, 6.7.1; RFC 8738; the profiles
extension).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import msgspec

from rootward.ca.access import Principal
from rootward.core.acme import MAX_IDENTIFIERS, Identifier, UnsupportedIdentifier, distinct, read_identifier
from rootward.core.names import Name
from rootward.core.plan import Policy
from rootward.core.problems import Problem, shown
from rootward.core.times import parse_duration, rfc3339
from rootward.protocols.acme.access import may_name, preauthorized
from rootward.protocols.acme.call import Call
from rootward.protocols.acme.challenges import CHALLENGES
from rootward.protocols.acme.problems import AcmeError, Subproblem
from rootward.protocols.acme.problems import Identifier as About

LEAST = timedelta(minutes=1)  # in which an order that says when its certificate ends can be fulfilled
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.0+)?(?:Z|[+-]\d\d:\d\d)", re.ASCII)


class WireIdentifier(msgspec.Struct, frozen=True):
    """RFC 8555 9.7.7."""

    type: str
    value: str


class NewOrder(msgspec.Struct, frozen=True, rename={"not_before": "notBefore", "not_after": "notAfter"}):
    """The payload of newOrder."""

    identifiers: list[WireIdentifier]
    not_before: str | None = None
    not_after: str | None = None
    profile: str | None = None
    replaces: str | None = None


def profile_name(call: Call, asked: str | None) -> str:
    """The order's own word, the directory's, or the server's for an order without one. AcmeError invalidProfile."""
    if call.directory is None:
        return asked or call.settings.profile
    if asked not in (None, call.directory):
        raise AcmeError("invalidProfile", f"This directory is for the profile {call.directory} alone.")
    return call.directory


def read_names(given: Sequence[WireIdentifier]) -> tuple[Identifier, ...]:
    """Each once. AcmeError malformed, unsupportedIdentifier, with a subproblem for each that is wrong."""
    if not given:
        raise AcmeError("malformed", "An order names at least one identifier.")
    if len(given) > MAX_IDENTIFIERS:
        raise AcmeError("malformed", f"An order names at most {MAX_IDENTIFIERS} identifiers.")
    names: list[Identifier] = []
    wrong: list[Subproblem] = []
    for one in given:
        about = About(one.type[:20], one.value[:300])
        try:
            names.append(read_identifier(one.type, one.value))
        except UnsupportedIdentifier:
            detail = f"Identifiers of type {shown(one.type)} are not supported; dns and ip are."
            wrong.append(Subproblem("unsupportedIdentifier", detail, about))
        except Problem as problem:
            wrong.append(Subproblem("malformed", problem.detail, about))
    if wrong:
        raise _all(wrong)
    return distinct(names)


def check_names(call: Call, policy: Policy, principal: Principal, names: Sequence[Identifier]) -> None:
    """rejectedIdentifier for what the profile, its issuer or the account's binding does not allow, all at once; and
    for what nothing that the profile allows could prove.
    """
    refused = policy.refused_names(names, principal.identity())
    wrong = [
        Subproblem("rejectedIdentifier", reason.detail, None if name is None else _about(name))
        for name, reason in refused
    ]
    told = {name for name, _ in refused}
    for name in names:
        if name in told:
            continue
        if not may_name(call.account, name):
            detail = f"{shown(str(name), 300)} is outside what this account may ask for."
            wrong.append(Subproblem("rejectedIdentifier", detail, _about(name)))
        elif not preauthorized(call.account, name) and not offered(policy, name):
            detail = f"The profile allows no challenge that could prove {shown(str(name), 300)}."
            wrong.append(Subproblem("rejectedIdentifier", detail, _about(name)))
    if wrong:
        raise _all(wrong)


def read_end(wanted: NewOrder, policy: Policy, now: datetime) -> datetime | None:
    """When the certificate is to end, where the order says so. What cannot be fulfilled to the second is refused."""
    if wanted.not_before is not None:
        _time(wanted.not_before, "notBefore")
        raise AcmeError("malformed", "Certificates begin when they are made: leave notBefore out.")
    if wanted.not_after is None:
        return None
    end = _time(wanted.not_after, "notAfter")
    rules, begin = policy.profile.lifetime, policy.begin(now)
    earliest = begin + parse_duration(rules.minimum) + LEAST
    latest = min(begin + parse_duration(rules.maximum) - timedelta(seconds=1), policy.issuer.not_after)
    if not earliest <= end <= latest:
        detail = f"What is ordered now under the profile {policy.profile.name} ends from"
        raise AcmeError("malformed", f"{detail} {rfc3339(earliest)} to {rfc3339(latest)}.")
    return end


def latest_start(policy: Policy, end: datetime) -> datetime:
    """Until when a certificate can be made that ends then and is no shorter than the profile's shortest lifetime."""
    return end + policy.backdate - parse_duration(policy.profile.lifetime.minimum)


def _time(text: str, field: str) -> datetime:
    """RFC 3339, in whole seconds: certificates have no others (RFC 5280 4.1.2.5)."""
    if _TIME.fullmatch(text):
        with suppress(ValueError, OverflowError):
            return datetime.fromisoformat(text).astimezone(UTC)
    raise AcmeError("malformed", f"{field} is a time in whole seconds such as 2026-11-23T17:46:41Z (RFC 3339).")


def _about(name: Name) -> About:
    kind, _, value = str(name).partition(":")
    return About(kind, value)


def _all(wrong: list[Subproblem]) -> AcmeError:
    """Everything that is wrong with the identifiers; of one kind, or malformed where it is several (6.7.1)."""
    kinds = {one.type for one in wrong}
    detail = " ".join(one.detail for one in wrong[:3]) + (" …" if len(wrong) > 3 else "")
    return AcmeError(kinds.pop() if len(kinds) == 1 else "malformed", detail, subproblems=tuple(wrong))


def offered(policy: Policy, name: Identifier) -> tuple[str, ...]:
    """The challenges that the profile allows and that can prove such a name."""
    allowed = policy.profile.acme.challenges or tuple(CHALLENGES)
    return tuple(kind for kind in allowed if kind in CHALLENGES and CHALLENGES[kind].offered(name))
