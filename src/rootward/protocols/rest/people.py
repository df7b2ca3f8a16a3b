"""`/principals`, `/tokens`, `/grants`, `/me`: who there is and what they may do. What one may change is decided in
`ca`.

Lists of people and grants are for whoever runs or audits the whole installation; everybody may read what is their own.
"""

from __future__ import annotations

from typing import Literal

import msgspec
from sqlalchemy import Connection

from rootward.ca import people as verbs
from rootward.ca.access import Principal
from rootward.core.problems import Problem
from rootward.core.roles import Grant, Role
from rootward.core.times import parse_duration, rfc3339
from rootward.protocols.rest.operation import Answer, Call, Duration, Line, Moment, Operation, Page, Parameter, moment
from rootward.store import people as rows

RoleName = Literal["system-admin", "admin", "officer", "approver", "requester", "auditor"]


class Scope(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A role; without `authority` or `profile` for every one."""

    role: RoleName
    authority: Line | None = None
    profile: Line | None = None


class GrantBody(msgspec.Struct, frozen=True):
    """A role that a principal was given; `authority` and `profile` are null where it holds for every one."""

    id: str
    principal: str
    role: str
    authority: str | None
    profile: str | None
    created_at: Moment
    removed_at: Moment | None


class PrincipalBody(msgspec.Struct, frozen=True):
    """Who may ask."""

    id: str
    kind: str
    name: str
    created_at: Moment
    disabled_at: Moment | None
    grants: list[GrantBody]


class TokenBody(msgspec.Struct, frozen=True, kw_only=True):
    """`scopes` is what it is cut down to; null where it may do all that its principal may."""

    id: str
    principal: str
    label: str
    scopes: list[Scope] | None
    created_at: Moment
    expires_at: Moment
    revoked_at: Moment | None


class NewTokenBody(TokenBody, frozen=True, kw_only=True):
    """A token with its value, which is told this once."""

    token: str


class Me(msgspec.Struct, frozen=True):
    """Who asks, and what they may do with the token that they ask with."""

    principal: PrincipalBody
    grants: list[Scope]


class CreatePrincipal(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A person without any role."""

    name: Line


class CreateToken(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """For oneself if there is no `principal`; `lifetime` is a duration such as `90d`."""

    label: Line
    lifetime: Duration
    principal: Line | None = None
    scopes: list[Scope] | None = None


class CreateGrant(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A role for a principal; without `authority` or `profile` for every one."""

    principal: Line
    role: RoleName
    authority: Line | None = None
    profile: Line | None = None


def oversees(principal: Principal) -> bool:
    """Whether this principal may read who there is and what they were given."""
    return principal.holds(Role.SYSTEM_ADMIN) or principal.holds(Role.AUDITOR)


def _require_overseer(call: Call) -> None:
    if not oversees(call.principal):
        raise Problem("RW-FORBIDDEN", "This needs the role system-admin, or auditor on every authority.")


def grant_body(row: rows.Grant) -> GrantBody:
    """A grant as the API says it."""
    created, removed = rfc3339(row.created_at), moment(row.removed_at)
    return GrantBody(row.id, row.principal, row.role, row.authority, row.profile, created, removed)


def principal_body(row: rows.Principal, grants: tuple[rows.Grant, ...]) -> PrincipalBody:
    """A principal with the grants that are not removed."""
    created, disabled = rfc3339(row.created_at), moment(row.disabled_at)
    return PrincipalBody(row.id, row.kind, row.name, created, disabled, [grant_body(grant) for grant in grants])


def scopes_of(text: str) -> list[Scope] | None:
    """The stored scopes of a token; None for all of its principal's."""
    found = msgspec.json.decode(text)
    return None if found == "*" else msgspec.convert(found, list[Scope])


def token_body(row: rows.Token) -> TokenBody:
    """A token without its value."""
    return TokenBody(
        id=row.id,
        principal=row.principal,
        label=row.label,
        scopes=scopes_of(row.scopes),
        created_at=rfc3339(row.created_at),
        expires_at=rfc3339(row.expires_at),
        revoked_at=moment(row.revoked_at),
    )


async def _principal(call: Call, id: str) -> PrincipalBody:
    def read(conn: Connection) -> PrincipalBody | None:
        found = rows.by_id(conn, id)
        return None if found is None else principal_body(found, rows.grants_of(conn, id))

    body = await call.inst.db.look(read)
    if body is None or not (id == call.principal.id or oversees(call.principal)):
        raise Problem("RW-NOT-FOUND", "There is no such principal.")
    return body


async def me(call: Call) -> Answer:
    """Who the token speaks for, and the grants that are left of theirs within its scopes."""
    grants = [Scope(grant.role.value, grant.authority, grant.profile) for grant in call.principal.grants]
    return Answer(Me(await _principal(call, call.principal.id), grants))


async def principals(call: Call) -> Answer:
    """A page of principals; ACME accounts, which may be many, only where they are asked for."""
    _require_overseer(call)
    limit, after, kind = call.limit, call.text(), call.query.get("kind")
    if kind not in (None, "account"):
        raise Problem("RW-QUERY", "kind is account, or is not said.", field="kind")

    def read(conn: Connection) -> list[PrincipalBody]:
        found = rows.list_principals(conn, accounts=kind is not None, after=after, limit=limit + 1)
        return [principal_body(row, rows.grants_of(conn, row.id)) for row in found]

    return Answer(call.ended(await call.inst.db.read(read), lambda body: body.id))


async def principal(call: Call) -> Answer:
    """One principal; what is hidden is not there."""
    return Answer(await _principal(call, call.path["id"]))


async def create_principal(call: Call) -> Answer:
    """A person without any role."""
    body: CreatePrincipal = call.body
    return Answer(principal_body(await verbs.create_person(call.inst, body.name, call.caller), ()), 201)


async def disable_principal(call: Call) -> Answer:
    """The person, whose tokens work no more."""
    done = await verbs.disable_person(call.inst, call.path["id"], call.caller)
    grants = await call.inst.db.look(lambda conn: rows.grants_of(conn, done.id))
    return Answer(principal_body(done, grants))


async def tokens(call: Call) -> Answer:
    """A page of one's own tokens; for a system-admin of everybody's."""
    whose = None if call.principal.holds(Role.SYSTEM_ADMIN) else call.principal.id
    limit, after = call.limit, call.text()
    found = await call.inst.db.read(lambda conn: rows.list_tokens(conn, principal=whose, after=after, limit=limit + 1))
    return Answer(call.ended([token_body(row) for row in found], lambda body: body.id))


async def create_token(call: Call) -> Answer:
    """A token and, this once, its value."""
    body: CreateToken = call.body
    scopes = body.scopes
    made, value = await verbs.create_token(
        call.inst,
        principal_id=body.principal or call.principal.id,
        label=body.label,
        lifetime=parse_duration(body.lifetime, field="lifetime"),
        scopes=None if scopes is None else tuple(Grant(Role(one.role), one.authority, one.profile) for one in scopes),
        caller=call.caller,
    )
    return Answer(NewTokenBody(**msgspec.structs.asdict(token_body(made)), token=value), 201)


async def revoke_token(call: Call) -> Answer:
    """The token, which works no more."""
    return Answer(token_body(await verbs.revoke_token(call.inst, call.path["id"], call.caller)))


async def grants(call: Call) -> Answer:
    """A page of everybody's grants, for overseers; of one's own for everybody else."""
    whose = None if oversees(call.principal) else call.principal.id
    limit, after = call.limit, call.text()
    found = await call.inst.db.read(lambda conn: rows.list_grants(conn, principal=whose, after=after, limit=limit + 1))
    return Answer(call.ended([grant_body(row) for row in found], lambda body: body.id))


async def create_grant(call: Call) -> Answer:
    """The grant."""
    body: CreateGrant = call.body
    made = await verbs.create_grant(
        call.inst,
        principal_id=body.principal,
        role=Role(body.role),
        authority=body.authority,
        profile=body.profile,
        caller=call.caller,
    )
    return Answer(grant_body(made), 201)


async def remove_grant(call: Call) -> Answer:
    """The grant, which holds no more."""
    return Answer(grant_body(await verbs.remove_grant(call.inst, call.path["id"], call.caller)))


_CHANGE = ("RW-FORBIDDEN",)

OPERATIONS = (
    Operation(name="me", method="GET", path="/me", handler=me, summary="Who asks, and what they may do.", result=Me),
    Operation(
        name="listPrincipals",
        method="GET",
        path="/principals",
        handler=principals,
        summary="Everybody who may ask; ACME accounts only where they are asked for.",
        result=Page[PrincipalBody],
        query=(Parameter("kind", "ACME accounts instead of all others.", {"type": "string", "enum": ["account"]}),),
        paged=True,
        problems=_CHANGE,
    ),
    Operation(
        name="createPrincipal",
        method="POST",
        path="/principals",
        handler=create_principal,
        summary="Add a person, without any role.",
        body=CreatePrincipal,
        result=PrincipalBody,
        status=201,
        idempotent=True,
        problems=(*_CHANGE, "RW-CONFLICT"),
    ),
    Operation(
        name="getPrincipal",
        method="GET",
        path="/principals/{id}",
        handler=principal,
        summary="One principal.",
        result=PrincipalBody,
    ),
    Operation(
        name="disablePrincipal",
        method="DELETE",
        path="/principals/{id}",
        handler=disable_principal,
        summary="Disable a person: none of their tokens works any more.",
        result=PrincipalBody,
        idempotent=True,
        problems=(*_CHANGE, "RW-LAST-ROLE"),
    ),
    Operation(
        name="listTokens",
        method="GET",
        path="/tokens",
        handler=tokens,
        summary="One's own tokens; for a system-admin everybody's.",
        result=Page[TokenBody],
        paged=True,
    ),
    Operation(
        name="createToken",
        method="POST",
        path="/tokens",
        handler=create_token,
        summary="Make a token. Its value is told this once.",
        body=CreateToken,
        result=NewTokenBody,
        status=201,
        idempotent=True,
        problems=(*_CHANGE, "RW-NOT-FOUND", "RW-VALIDITY"),
    ),
    Operation(
        name="revokeToken",
        method="DELETE",
        path="/tokens/{id}",
        handler=revoke_token,
        summary="Revoke a token.",
        result=TokenBody,
        idempotent=True,
        problems=_CHANGE,
    ),
    Operation(
        name="listGrants",
        method="GET",
        path="/grants",
        handler=grants,
        summary="Everybody's roles, for overseers; one's own for everybody else.",
        result=Page[GrantBody],
        paged=True,
    ),
    Operation(
        name="createGrant",
        method="POST",
        path="/grants",
        handler=create_grant,
        summary="Give a role.",
        body=CreateGrant,
        result=GrantBody,
        status=201,
        idempotent=True,
        problems=(*_CHANGE, "RW-NOT-FOUND"),
    ),
    Operation(
        name="removeGrant",
        method="DELETE",
        path="/grants/{id}",
        handler=remove_grant,
        summary="Take a role away.",
        result=GrantBody,
        idempotent=True,
        problems=(*_CHANGE, "RW-LAST-ROLE", "RW-CONFLICT"),
    ),
)
