"""Which profiles an account may use and what is its own without proof: asked once for an order and once more when it
is finalized, because grants, bindings and profiles change in between.
"""

from __future__ import annotations

from functools import lru_cache

import msgspec

from rootward.ca import accounts
from rootward.ca.access import Principal
from rootward.ca.asked import named_policy
from rootward.core.acme import Identifier, covers
from rootward.core.plan import Policy
from rootward.core.problems import Problem, shown
from rootward.core.roles import Role
from rootward.protocols.acme.call import Call
from rootward.protocols.acme.problems import AcmeError
from rootward.store.accounts import Account


async def policy_of(call: Call, profile: str) -> Policy:
    """The profile as it stands. AcmeError invalidProfile for one that ACME accounts cannot use."""
    try:
        policy = await named_policy(call.inst, profile, call.account.id)
    except Problem as problem:
        if problem.code != "RW-PROFILE":
            raise
        raise _invalid(profile) from None
    if policy.profile.acme.accounts == "none":
        raise _invalid(profile)
    return policy


def may_order(call: Call, policy: Policy) -> Principal:
    """The account as a principal under this profile; AcmeError unauthorized where it may not ask under it."""
    principal = accounts.principal_of(call.account, policy.profile)
    if not principal.holds(Role.REQUESTER, authority=policy.profile.authority, profile=policy.profile.name):
        detail = f"This account may not use the profile {policy.profile.name}: it needs an external account binding."
        raise AcmeError("unauthorized", detail, status=403)
    return principal


def preauthorized(account: Account, name: Identifier) -> bool:
    """Whether the account's binding says that the name is its own, so that nothing is to be proved."""
    return covers(_patterns(account.preauthorized), name)


def may_name(account: Account, name: Identifier) -> bool:
    """Whether the account's binding lets it ask for the name at all; without a list the profile alone decides."""
    patterns = _patterns(account.names)
    return not patterns or covers(patterns, name)


@lru_cache(maxsize=4096)
def _patterns(text: str) -> tuple[str, ...]:
    return msgspec.json.decode(text, type=tuple[str, ...])


def _invalid(profile: str) -> AcmeError:
    return AcmeError("invalidProfile", f"There is no profile {shown(profile)} for ACME here; the directory lists them.")
