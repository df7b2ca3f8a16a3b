"""`/authorities/{name}/renew`, `/compromise`, `/succeed`, `/retire`: what is asked for in its place, what two people
decide of its end; `/replacement`: how far its certificates are replaced.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from rootward.ca import authorities as making
from rootward.ca import compromise, succession
from rootward.core.times import rfc3339
from rootward.fleet import replacement
from rootward.protocols.rest import authorities, paperwork
from rootward.protocols.rest.operation import API, Answer, Call, Duration, Line, Moment, Operation, moment
from rootward.protocols.rest.proposals import ProposalBody, proposed


class RenewBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`successor` is the new authority's name. `key_store` as of a new one, empty: where the old one's key is."""

    successor: Line
    key_store: Annotated[str, msgspec.Meta(max_length=64)] = ""


class CompromiseBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`successor` issues in its place; null: none yet. `waves` is how long holders may take to renew, `0s` is at once;
    as many as there are decide how long it is, 2 hours at most if it is not said.
    """

    successor: Line | None = None
    reason: Line | None = None
    waves: Duration | None = None


class SuccessorBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`successor` issues already."""

    successor: Line


class RetireBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`waves` as of a compromise."""

    waves: Duration | None = None


class LeftBody(msgspec.Struct, frozen=True, kw_only=True):
    """A certificate that is not replaced. `last_seen` is when its ACME account last ordered; null for others."""

    id: str
    owner: str | None
    requester: str
    profile: str | None
    names: list[str]
    not_after: Moment
    last_seen: Moment | None


class ReplacementBody(msgspec.Struct, frozen=True, kw_only=True):
    """`total` certificates had not expired when it stopped (`since`); of them `remaining` are in use and not replaced.
    It is `over` when there are none; without anybody's doing, at `ends_at`. By `waves_until` all holders are told.
    """

    authority: str
    successor: str | None
    compromised: bool
    since: Moment
    waves_until: Moment | None
    total: int
    replaced: int
    revoked: int
    expired: int
    remaining: int
    over: bool
    ends_at: Moment | None
    items: list[LeftBody]
    next_cursor: str | None


async def renewed(call: Call) -> Answer:
    """What is asked for the authority that can take its place."""
    given: RenewBody = call.body
    await authorities.shown(call)
    await succession.renew(call.inst, call.path["name"], given.successor, given.key_store, call.caller)
    pending, asked = await making.request(call.inst, given.successor)
    where = f"{API}/authorities/{pending.name}/request".encode()
    return Answer(paperwork.with_csr(asked, pending.csr), 201, ((b"location", where),))


async def compromised(call: Call) -> Answer:
    """202 with the proposal."""
    body: CompromiseBody = call.body
    await authorities.shown(call)
    made = await compromise.propose(call.inst, call.path["name"], body.successor, body.reason, body.waves, call.caller)
    return proposed(made, call)


async def succeeded(call: Call) -> Answer:
    """202 with the proposal."""
    body: SuccessorBody = call.body
    await authorities.shown(call)
    return proposed(await succession.propose(call.inst, call.path["name"], body.successor, call.caller), call)


async def retired(call: Call) -> Answer:
    """202 with the proposal."""
    body: RetireBody = call.body
    await authorities.shown(call)
    return proposed(await succession.propose_retirement(call.inst, call.path["name"], body.waves, call.caller), call)


async def told(call: Call) -> Answer:
    """The counts, and a page of what is left, oldest first."""
    await authorities.shown(call)
    position, limit = call.numbers(1), call.limit
    after = None if position is None else position[0]
    found, rest = await replacement.report(call.inst, call.path["name"], after=after, limit=limit + 1)
    items = [
        LeftBody(
            id=one.id,
            owner=one.owner,
            requester=one.requester,
            profile=one.profile,
            names=msgspec.json.decode(one.names, type=list[str]),
            not_after=rfc3339(one.not_after),
            last_seen=moment(one.last_seen),
        )
        for one in rest[:limit]
    ]
    page = call.page(items, (rest[limit - 1].n,) if len(rest) > limit else None)
    counts = found.counts
    return Answer(
        ReplacementBody(
            authority=found.authority,
            successor=found.successor,
            compromised=found.compromised,
            since=rfc3339(found.since),
            waves_until=moment(found.waves_until),
            total=counts.total,
            replaced=counts.replaced,
            revoked=counts.revoked,
            expired=counts.expired,
            remaining=counts.remaining,
            over=counts.remaining == 0,
            ends_at=moment(counts.ends_at),
            items=page.items,
            next_cursor=page.next_cursor,
        )
    )


OPERATIONS = (
    Operation(
        name="renewAuthority",
        method="POST",
        path="/authorities/{name}/renew",
        handler=renewed,
        summary="Make the key of an authority that can take its place, and the request for its certificate.",
        body=RenewBody,
        result=paperwork.PaperBody,
        status=201,
        idempotent=True,
        problems=(
            *("RW-FORBIDDEN", "RW-CONFLICT", "RW-CONFIG", "RW-KEY-TYPE", "RW-CEREMONY", "RW-CSR-SUBJECT"),
            *("RW-VALIDITY", "RW-KEY-BLOCKED", "RW-KEY-FILE", "RW-KEK"),
        ),
    ),
    Operation(
        name="compromiseAuthority",
        method="POST",
        path="/authorities/{name}/compromise",
        handler=compromised,
        summary="Propose that its key is in other hands: it stops, and all that it issued is replaced.",
        body=CompromiseBody,
        lenient=True,
        result=ProposalBody,
        status=202,
        idempotent=True,
        urgent=True,
        repeatable=True,
        problems=("RW-FORBIDDEN", "RW-CONFLICT", "RW-CEREMONY", "RW-PROFILE-INVALID"),
    ),
    Operation(
        name="succeedAuthority",
        method="POST",
        path="/authorities/{name}/succeed",
        handler=succeeded,
        summary="Propose that another authority takes its place: its profiles, and the roles on it.",
        body=SuccessorBody,
        result=ProposalBody,
        status=202,
        idempotent=True,
        repeatable=True,
        problems=("RW-FORBIDDEN", "RW-CONFLICT", "RW-PROFILE-INVALID"),
    ),
    Operation(
        name="retireAuthority",
        method="POST",
        path="/authorities/{name}/retire",
        handler=retired,
        summary="Propose that it never issues again; its CRL and OCSP go on until its last certificate is over.",
        body=RetireBody,
        lenient=True,
        result=ProposalBody,
        status=202,
        idempotent=True,
        repeatable=True,
        problems=("RW-FORBIDDEN", "RW-CONFLICT"),
    ),
    Operation(
        name="getReplacement",
        method="GET",
        path="/authorities/{name}/replacement",
        handler=told,
        summary="How far the certificates of an authority that stops are replaced, and whose are not.",
        result=ReplacementBody,
        paged=True,
        problems=("RW-CONFLICT",),
    ),
)
