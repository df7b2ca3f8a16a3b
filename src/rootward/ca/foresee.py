"""Agreeing before any order: a person asks in an ACME account's place, and the account's next order for these names
under this version of the profile finds the answer and uses it up.

There is no key yet, and a yes to names binds none. But everything that is parked was admitted whole, and admission
takes a CSR with a proof of possession: so a key is made for it here, signs that one CSR and is forgotten. Nothing that
approvers see speaks of it, and nobody can use it: whoever orders comes with a CSR of their own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec

from rootward.ca import accounts, park
from rootward.ca.access import Caller, Principal, require
from rootward.ca.asked import named_policy
from rootward.ca.installation import Installation
from rootward.ca.sign import sign_soon
from rootward.core.acme import Identifier, covers
from rootward.core.csr import parse_csr
from rootward.core.csr_draft import draft_csr, finish_csr
from rootward.core.names import DnsName, IpName, parse_name
from rootward.core.plan import Ask, Plan, Policy
from rootward.core.problems import Problem, Reason, shown
from rootward.core.pubkey import KeyAlgorithm
from rootward.core.roles import Role
from rootward.keys import BACKENDS, KeySettings
from rootward.store import accounts as rows
from rootward.store.accounts import Account
from rootward.store.requests import Parked

_ASKERS = (Role.REQUESTER, Role.OFFICER, Role.ADMIN)
# The quick ones to make first; RSA only where the profile takes nothing else, or has a condition on it.
_ORDER = (
    *(KeyAlgorithm.P256, KeyAlgorithm.ED25519, KeyAlgorithm.P384, KeyAlgorithm.P521),
    *(KeyAlgorithm.ML_DSA_44, KeyAlgorithm.ML_DSA_65, KeyAlgorithm.ML_DSA_87),
    *(KeyAlgorithm.BRAINPOOL_P256R1, KeyAlgorithm.BRAINPOOL_P384R1, KeyAlgorithm.BRAINPOOL_P512R1),
    *(KeyAlgorithm.RSA_2048, KeyAlgorithm.RSA_3072, KeyAlgorithm.RSA_4096),
)


async def ask(inst: Installation, account_id: str, profile: str, names: Sequence[str], caller: Caller) -> Parked:
    """The open request of the account for these names (`dns:a.internal`, `ip:10.0.0.1`), parked now unless it is there.

    Problems: RW-PROFILE, RW-FROZEN, RW-FORBIDDEN, RW-NOT-FOUND for the account, RW-CONFLICT where it cannot order under
    the profile or nobody needs to agree, and every reason that admission has.
    """
    policy = await named_policy(inst, profile, caller.principal.id)
    authority = policy.profile.authority
    if not any(caller.principal.holds(role, authority=authority, profile=profile) for role in _ASKERS):
        require(caller.principal, Role.REQUESTER, authority=authority, profile=profile)
    inst.process.check_halted()
    account = await _account(inst, account_id)
    principal = _orderer(account, policy)
    wanted = _names(names)
    _check_names(account, policy, principal, wanted)
    plan, asked = await _plan(policy, principal, account, wanted)
    if not plan.approval:
        detail = (
            f"Nobody needs to agree to these names under the profile {profile}: the account can order them at once."
        )
        raise Problem("RW-CONFLICT", detail, field="names")
    return await park.foreseen(inst, plan, asked, principal, caller)


async def _account(inst: Installation, id: str) -> Account:
    found = await inst.db.look(lambda conn: rows.by_id(conn, id))
    if found is None or found.status != "valid":
        raise Problem("RW-NOT-FOUND", "There is no such ACME account, or it has ended.", field="account")
    return found


def _orderer(account: Account, policy: Policy) -> Principal:
    """The account as its order would come, where the profile takes orders of it."""
    profile = policy.profile
    principal = accounts.principal_of(account, profile)
    may = principal.holds(Role.REQUESTER, authority=profile.authority, profile=profile.name)
    if profile.acme.accounts == "none" or not may:
        raise Problem("RW-CONFLICT", f"The account cannot order under the profile {profile.name}.", field="account")
    return principal


def _names(texts: Sequence[str]) -> tuple[Identifier, ...]:
    """Each name once; a Problem with every one that no ACME order can have."""
    found: list[Identifier] = []
    reasons: list[Reason] = []
    for index, text in enumerate(texts):
        field = f"names[{index}]"
        try:
            name = parse_name(text, field=field)
        except Problem as problem:
            reasons.extend(problem.reasons)
            continue
        if isinstance(name, DnsName | IpName):
            found.append(name)
        else:
            detail = f"{shown(text)} is neither a DNS name nor an address, and ACME orders have no others."
            reasons.append(Reason("RW-NAME-TYPE", detail, field))
    if reasons:
        raise Problem.of(reasons)
    return tuple(dict.fromkeys(found))


def _check_names(account: Account, policy: Policy, principal: Principal, names: Sequence[Identifier]) -> None:
    """What is wrong with the names alone, before any key is made for them."""
    reasons = [reason for _, reason in policy.refused_names(names, principal.identity())]
    patterns = msgspec.json.decode(account.names, type=tuple[str, ...])
    for name in names:
        if patterns and not covers(patterns, name):
            detail = f"{shown(str(name), 300)} is outside what the account's binding allows."
            reasons.append(Reason("RW-NAME-PERMITTED", detail, "names"))
    if reasons:
        raise Problem.of(reasons)


async def _plan(
    policy: Policy, principal: Principal, account: Account, names: Sequence[Identifier]
) -> tuple[Plan, Ask]:
    """The names admitted, with the first kind of key for which they are; the Problem of the first kind else."""
    profile = policy.profile
    of_keys = {"RW-KEY-TYPE"} | {"RW-CONDITION" for condition in profile.conditions if "key" in condition.when}
    refused: Problem | None = None
    for algorithm in sorted(profile.keys, key=_ORDER.index):
        csr = parse_csr(await _csr(algorithm, tuple(names)))
        asked = Ask(profile.name, csr, owner=account.owner)
        try:
            return policy.admit(asked, principal.identity()), asked
        except Problem as problem:
            refused = refused or problem
            if any(reason.code not in of_keys for reason in problem.reasons):
                break  # another key would not help
    raise refused or Problem("RW-KEY-TYPE", "The profile takes no kind of key.", field="profile")


async def _csr(algorithm: KeyAlgorithm, names: tuple[Identifier, ...]) -> bytes:
    """A CSR (DER) by a key that nobody has when this returns."""
    keys = BACKENDS["memory"](KeySettings())
    key = await asyncio.to_thread(keys.generate, "foreseen", algorithm)
    draft = draft_csr(key.public, names=names)
    return finish_csr(draft, await sign_soon(key, key.public, draft))
