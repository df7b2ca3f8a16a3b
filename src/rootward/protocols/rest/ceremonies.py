"""`/ceremonies`: the results that were taken in, and whose signatures under them count."""

from __future__ import annotations

from typing import Annotated

import msgspec

from rootward.ca import results
from rootward.ca.access import Principal, require
from rootward.core.problems import Problem
from rootward.core.roles import Role
from rootward.core.times import rfc3339
from rootward.protocols.rest.operation import API, Answer, Call, Line, Moment, Operation, Page
from rootward.store.paperwork import Held

_LARGEST = 64 * 1024 * 1024


class ResultBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`result` is the result file as text, byte for byte."""

    result: Annotated[str, msgspec.Meta(min_length=1)]


class CeremonyBody(msgspec.Struct, frozen=True, kw_only=True):
    """A ceremony whose result was taken in. `lab`: nobody watched it. Hashes are SHA-256, hex."""

    id: str
    title: str
    lab: bool
    held_at: Moment
    imported_at: Moment
    imported_by: str
    script_sha256: str
    transcript_sha256: str


class CeremonyDetail(CeremonyBody, frozen=True, kw_only=True):
    """With what it made, and the script and the transcript as they are."""

    certificates: list[str]
    crls: list[str]
    script: str
    transcript: str


class ParticipantBody(msgspec.Struct, frozen=True):
    """Somebody whose signature under a transcript counts; `key_id` is the SHA-256 of their public key, hex."""

    name: str
    key_id: str


class ForgetBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`name` is a participant's, as scripts have it."""

    name: Line


def see_all(principal: Principal) -> None:
    """RW-FORBIDDEN for who sees a part only: what is about the whole installation is for those who see all of it."""
    if not principal.holds(Role.SYSTEM_ADMIN) and principal.authorities_seen() is not None:
        raise Problem("RW-FORBIDDEN", "This needs a role on every authority, or system-admin.")


def _may_import(principal: Principal) -> None:
    require(principal, Role.SYSTEM_ADMIN)


async def take_in(call: Call) -> Answer:
    """The ceremony."""
    given: ResultBody = call.body
    held = await results.import_result(call.inst, given.result.encode(), call.caller)
    where = f"{API}/ceremonies/{held.id}".encode()
    return Answer(_held(held), 201, ((b"location", where),))


async def ceremonies(call: Call) -> Answer:
    """A page of ceremonies, newest first."""
    see_all(call.principal)
    after = call.numbers(1)
    found = await results.listed(call.inst, before=None if after is None else after[0], limit=call.limit + 1)
    kept = found[: call.limit]
    items = [_held(one) for one in kept]
    return Answer(call.page(items, (kept[-1].n,) if len(found) > len(kept) else None))


async def ceremony(call: Call) -> Answer:
    """One ceremony."""
    see_all(call.principal)
    held, result = await results.shown(call.inst, call.path["id"])
    return Answer(
        CeremonyDetail(
            **msgspec.structs.asdict(_held(held)),
            certificates=[one.certificate for one in result.certificates],
            crls=[one.authority for one in result.crls],
            script=result.script,
            transcript=result.transcript,
        )
    )


async def participants(call: Call) -> Answer:
    """A page of those who are known."""
    see_all(call.principal)
    known = await results.participants(call.inst)
    page = call.cut(known.items(), lambda one: one[0])
    return Answer(Page([ParticipantBody(name, key) for name, key in page.items], page.next_cursor))


async def forget(call: Call) -> Answer:
    """The one who is forgotten."""
    given: ForgetBody = call.body
    known = await results.participants(call.inst)
    await results.forget(call.inst, given.name, call.caller)
    return Answer(ParticipantBody(given.name, known[given.name]))


def _held(held: Held) -> CeremonyBody:
    return CeremonyBody(
        id=held.id,
        title=held.title,
        lab=bool(held.lab),
        held_at=rfc3339(held.held_at),
        imported_at=rfc3339(held.imported_at),
        imported_by=held.imported_by,
        script_sha256=held.script_sha256,
        transcript_sha256=held.transcript_sha256,
    )


OPERATIONS = (
    Operation(
        name="importCeremony",
        method="POST",
        path="/ceremonies",
        handler=take_in,
        summary="Take in the result of a ceremony: all of it or nothing.",
        body=ResultBody,
        result=CeremonyBody,
        status=201,
        idempotent=True,
        largest=_LARGEST,
        admits=_may_import,
        problems=("RW-FORBIDDEN", "RW-CONFLICT", "RW-CEREMONY"),
    ),
    Operation(
        name="listCeremonies",
        method="GET",
        path="/ceremonies",
        handler=ceremonies,
        summary="The ceremonies whose results were taken in, newest first.",
        result=Page[CeremonyBody],
        paged=True,
        problems=("RW-FORBIDDEN",),
    ),
    Operation(
        name="getCeremony",
        method="GET",
        path="/ceremonies/{id}",
        handler=ceremony,
        summary="One ceremony: its script, its transcript and what it made.",
        result=CeremonyDetail,
        problems=("RW-FORBIDDEN",),
    ),
    Operation(
        name="listParticipants",
        method="GET",
        path="/ceremony-participants",
        handler=participants,
        summary="Whose signatures under transcripts count here.",
        result=Page[ParticipantBody],
        paged=True,
        problems=("RW-FORBIDDEN",),
    ),
    Operation(
        name="forgetParticipant",
        method="POST",
        path="/ceremony-participants/forget",
        handler=forget,
        summary="Let a participant's signature count no more.",
        body=ForgetBody,
        result=ParticipantBody,
        idempotent=True,
        problems=("RW-FORBIDDEN", "RW-NOT-FOUND", "RW-CONFLICT"),
    ),
)
