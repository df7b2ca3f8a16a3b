"""`/eab`: external account bindings (RFC 8555 7.3.4) by kid. Each is seen by who runs or audits its authority."""

from __future__ import annotations

from typing import Annotated, get_args

import msgspec
from sqlalchemy import Connection

from rootward.ca import bindings as verbs
from rootward.core.jwk import b64encode
from rootward.core.problems import Problem
from rootward.core.times import parse_duration, rfc3339
from rootward.protocols.rest.operation import Answer, Call, Duration, Empty, Line, Moment, Operation, Page, Parameter
from rootward.protocols.rest.operation import moment as optional
from rootward.protocols.rest.visible import visible
from rootward.store import bindings as rows
from rootward.store.bindings import Binding, Status

STATUSES: tuple[Status, ...] = get_args(Status)
Patterns = Annotated[list[Line], msgspec.Meta(max_length=verbs.MOST_PATTERNS)]


class CreateBinding(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Without `profile`, for every one that takes bound accounts. `names` and `preauthorized` are DNS patterns, as in
    profiles, or networks: the accounts get certificates for those names only, and prove nothing for these. `expires` is
    how long it can be used.
    """

    owner: Line
    profile: Line | None = None
    names: Patterns = []
    preauthorized: Patterns = []
    uses: Annotated[int, msgspec.Meta(ge=1, le=verbs.MOST_USES)] = 1
    expires: Duration = "30d"


class BindingBody(msgspec.Struct, frozen=True, kw_only=True):
    """`status` is open, used, expired or revoked; only an open one makes accounts."""

    kid: str
    status: str
    owner: str
    profile: str | None
    names: list[str]
    preauthorized: list[str]
    uses: int
    used: int
    created_at: Moment
    created_by: str
    expires_at: Moment
    revoked_at: Moment | None


class NewBindingBody(BindingBody, frozen=True, kw_only=True):
    """A binding with its MAC key in base64url, which is told this once."""

    hmac_key: str


def binding_body(call: Call, row: Binding) -> BindingBody:
    """A binding without its MAC key."""
    return BindingBody(
        kid=row.id,
        status=row.status(call.inst.clock()),
        owner=row.owner,
        profile=row.profile,
        names=msgspec.json.decode(row.names, type=list[str]),
        preauthorized=msgspec.json.decode(row.preauthorized, type=list[str]),
        uses=row.uses,
        used=row.used,
        created_at=rfc3339(row.created_at),
        created_by=row.created_by,
        expires_at=rfc3339(row.expires_at),
        revoked_at=optional(row.revoked_at),
    )


async def listed(call: Call) -> Answer:
    """A page of bindings that the caller may see, newest first."""
    status = call.query.get("status")
    wanted = next((known for known in STATUSES if known == status), None)
    if status is not None and wanted is None:
        raise Problem("RW-QUERY", f"status is one of {', '.join(STATUSES)}.", field="status")
    now, limit, position = call.inst.clock(), call.limit, call.numbers(1)

    def read(conn: Connection) -> list[Binding]:
        authorities = verbs.authorities_of(conn)
        return visible(
            lambda after, most: rows.list(conn, status=wanted, now=now, after=after, limit=most),
            lambda row: verbs.scope_of(row.profile, authorities).open_to(call.principal, verbs.READERS),
            after=None if position is None else position[0],
            limit=limit,
        )

    found = await call.inst.db.read(read)
    items = [binding_body(call, row) for row in found[:limit]]
    return Answer(call.page(items, (found[limit - 1].n,) if len(found) > limit else None))


async def shown(call: Call) -> Answer:
    """One binding; what is hidden is not there."""
    return Answer(binding_body(call, (await verbs.find(call.inst, call.path["kid"], call.principal))[0]))


async def create(call: Call) -> Answer:
    """The binding and, this once, its MAC key."""
    body: CreateBinding = call.body
    made, secret = await verbs.create(
        call.inst,
        profile=body.profile,
        owner=body.owner,
        names=tuple(body.names),
        preauthorized=tuple(body.preauthorized),
        uses=body.uses,
        lifetime=parse_duration(body.expires, field="expires", code="RW-FIELD"),
        caller=call.caller,
    )
    told = msgspec.structs.asdict(binding_body(call, made))
    return Answer(NewBindingBody(**told, hmac_key=b64encode(secret)), 201)


async def revoke(call: Call) -> Answer:
    """The binding, which makes no more accounts."""
    return Answer(binding_body(call, await verbs.revoke(call.inst, call.path["kid"], call.caller)))


OPERATIONS = (
    Operation(
        name="listBindings",
        method="GET",
        path="/eab",
        handler=listed,
        summary="External account bindings for ACME, newest first.",
        result=Page[BindingBody],
        query=(Parameter("status", "Of this status.", {"type": "string", "enum": list(STATUSES)}),),
        paged=True,
    ),
    Operation(
        name="createBinding",
        method="POST",
        path="/eab",
        handler=create,
        summary="Make an external account binding. Its MAC key is told this once.",
        body=CreateBinding,
        result=NewBindingBody,
        status=201,
        idempotent=True,
        problems=("RW-FORBIDDEN", "RW-VALIDITY"),
    ),
    Operation(
        name="getBinding",
        method="GET",
        path="/eab/{kid}",
        handler=shown,
        summary="One external account binding, without its MAC key.",
        result=BindingBody,
    ),
    Operation(
        name="revokeBinding",
        method="POST",
        path="/eab/{kid}/revoke",
        handler=revoke,
        summary="Let a binding make no more accounts; those that it made stay.",
        body=Empty,
        lenient=True,
        result=BindingBody,
        idempotent=True,
        urgent=True,
        repeatable=True,
        problems=("RW-FORBIDDEN",),
    ),
)
