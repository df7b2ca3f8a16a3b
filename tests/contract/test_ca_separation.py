"""Separation of people, as an attacker tried it: nobody decides with what another made, edits and approves, or
outlives.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from rootward.ca import own as own_certificates
from rootward.ca import people, profiles
from rootward.ca.access import Caller, authenticate
from rootward.ca.approve import approve
from rootward.ca.issue import Ask, Issued, Pending, issue
from rootward.ca.revoke import revoke
from rootward.core.csr import parse_csr
from rootward.core.ocsp import cert_id_for, request_for
from rootward.core.problems import Problem
from rootward.core.profile import Approval
from rootward.core.revocation import RevocationReason
from rootward.core.roles import Grant, Role
from tests.support.installation import Lab, lab
from tests.vectors.csrs import good_csr

DAY = timedelta(days=1)


async def person(made: Lab, name: str, *roles: Role) -> str:
    found = await people.create_person(made.inst, name, made.admin)
    for role in roles:
        await people.create_grant(
            made.inst, principal_id=found.id, role=role, authority=None, profile=None, caller=made.admin
        )
    return found.id


async def invited(made: Lab, id: str, *roles: Role) -> Caller:
    """Acting with the token that the administrator made."""
    _, value = await people.create_token(
        made.inst,
        principal_id=id,
        label="invitation",
        lifetime=DAY,
        scopes=tuple(Grant(role) for role in roles),
        caller=made.admin,
    )
    return Caller(await authenticate(made.inst, value), "req-1")


async def own(made: Lab, caller: Caller, lifetime: timedelta = DAY) -> tuple[people.people.Token, str]:
    """A token made by its person with what the caller has."""
    return await people.create_token(
        made.inst, principal_id=caller.principal.id, label="own", lifetime=lifetime, scopes=None, caller=caller
    )


async def acting(made: Lab, value: str) -> Caller:
    return Caller(await authenticate(made.inst, value), "req-2")


async def parked(made: Lab, caller: Caller) -> str:
    found = await profiles.current(made.inst, "server")
    assert found is not None
    careful = msgspec.structs.replace(found[1], name="careful", approval=Approval(required="always"))
    if await profiles.current(made.inst, "careful") is None:
        await profiles.create(made.inst, careful, made.admin)
    answer = await issue(made.inst, Ask("careful", parse_csr(good_csr())), caller)
    assert isinstance(answer, Pending)
    return answer.request.id


@pytest.mark.invariant("I-42")
def test_an_invitation_decides_nothing_and_its_persons_own_token_does(tmp_path: Path) -> None:
    async def main() -> None:
        async with lab(f"sqlite:///{tmp_path}/t.db") as made:
            bob = await invited(made, await person(made, "bob", Role.APPROVER), Role.APPROVER)
            request = await parked(made, made.admin)
            with pytest.raises(Problem, match="RW-FORBIDDEN"):
                await approve(made.inst, request, None, bob)
            _, value = await own(made, bob)
            assert (await approve(made.inst, request, None, await acting(made, value))).certificate is not None

    asyncio.run(main())


@pytest.mark.invariant("I-42")
def test_nobody_makes_a_second_token_for_somebody_else(tmp_path: Path) -> None:
    async def main() -> None:
        async with lab(f"sqlite:///{tmp_path}/t.db") as made:
            id = await person(made, "bob", Role.APPROVER)
            await invited(made, id, Role.APPROVER)
            with pytest.raises(Problem, match="RW-FORBIDDEN"):
                await invited(made, id, Role.APPROVER)

    asyncio.run(main())


@pytest.mark.invariant("I-43")
def test_who_may_edit_profiles_does_not_approve_under_them(tmp_path: Path) -> None:
    async def main() -> None:
        async with lab(f"sqlite:///{tmp_path}/t.db") as made:
            ann = await invited(made, await person(made, "ann", Role.REQUESTER), Role.REQUESTER)
            request = await parked(made, ann)
            await person(made, "bob", Role.APPROVER)  # ends the time of the single person
            with pytest.raises(Problem, match="RW-FORBIDDEN"):
                await approve(made.inst, request, None, made.admin)

    asyncio.run(main())


@pytest.mark.invariant("I-43")
def test_a_token_never_outlives_the_one_it_was_made_with(tmp_path: Path) -> None:
    async def main() -> None:
        async with lab(f"sqlite:///{tmp_path}/t.db") as made:
            first, value = await own(made, made.admin, DAY)
            second, child = await own(made, await acting(made, value), timedelta(days=300))
            assert second.expires_at == first.expires_at
            _, grandchild = await own(made, await acting(made, child))
            await people.revoke_token(made.inst, first.id, made.admin)
            for dead in (value, child, grandchild):
                with pytest.raises(Problem, match="RW-UNAUTHENTICATED"):
                    await authenticate(made.inst, dead)

    asyncio.run(main())


@pytest.mark.invariant("I-32")
def test_a_responder_that_was_revoked_is_replaced(tmp_path: Path) -> None:
    async def main() -> None:
        async with lab(f"sqlite:///{tmp_path}/t.db") as made:
            before = await own_certificates.obtain(made.inst, "ocsp:issuing", "ocsp-issuing")
            await revoke(made.inst, before.row.id, RevocationReason.KEY_COMPROMISE, made.admin)
            await made.responder.renew()  # what the worker does every 30 seconds
            after = await own_certificates.obtain(made.inst, "ocsp:issuing", "ocsp-issuing")
            assert after.key.public.id != before.key.public.id
            issued = await issue(made.inst, Ask("server", parse_csr(good_csr())), made.admin)
            assert isinstance(issued, Issued)
            question = request_for([cert_id_for(issued.issuer, issued.certificate.serial, "sha256")])
            answer = await made.responder.answer("issuing", question)
            assert after.certificate.public_bytes(Encoding.DER) in answer.body
            assert before.certificate.public_bytes(Encoding.DER) not in answer.body

    asyncio.run(main())
