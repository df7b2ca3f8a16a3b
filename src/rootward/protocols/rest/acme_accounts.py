"""`/acme-accounts`: accounts of ACME clients. Each is seen by who runs or audits the authority that it belongs to."""

from __future__ import annotations

from typing import get_args

import msgspec
from sqlalchemy import Connection

from rootward.ca import accounts as verbs
from rootward.ca.bindings import READERS, authorities_of, scope_of
from rootward.core.acme import AccountStatus
from rootward.core.problems import Problem
from rootward.core.times import rfc3339
from rootward.protocols.rest.operation import Answer, Call, Empty, Moment, Operation, Page, Parameter, moment
from rootward.protocols.rest.visible import visible
from rootward.store import accounts as rows
from rootward.store.accounts import Account

STATUSES: tuple[AccountStatus, ...] = get_args(AccountStatus)


class AccountBody(msgspec.Struct, frozen=True, kw_only=True):
    """`status` is valid, deactivated (by its client) or revoked (by an administrator). `thumbprint` is its key's
    (RFC 7638), `binding` the kid that it came with, `address` where it was made from.
    """

    id: str
    status: str
    owner: str | None
    profile: str | None
    binding: str | None
    thumbprint: str
    contacts: list[str]
    names: list[str]
    preauthorized: list[str]
    terms_agreed_at: Moment | None
    address: str
    created_at: Moment
    deactivated_at: Moment | None


def account_body(row: Account) -> AccountBody:
    """An account as the API says it."""
    return AccountBody(
        id=row.id,
        status=row.status,
        owner=row.owner,
        profile=row.profile,
        binding=row.binding,
        thumbprint=row.thumbprint,
        contacts=msgspec.json.decode(row.contacts, type=list[str]),
        names=msgspec.json.decode(row.names, type=list[str]),
        preauthorized=msgspec.json.decode(row.preauthorized, type=list[str]),
        terms_agreed_at=moment(row.terms_at),
        address=row.address,
        created_at=rfc3339(row.created_at),
        deactivated_at=moment(row.disabled_at or row.deactivated_at),
    )


async def listed(call: Call) -> Answer:
    """A page of accounts that the caller may see, newest first."""
    status = call.query.get("status")
    wanted = next((known for known in STATUSES if known == status), None)
    if status is not None and wanted is None:
        raise Problem("RW-QUERY", f"status is one of {', '.join(STATUSES)}.", field="status")
    filters = rows.Filters(status=wanted, owner=call.query.get("owner"))
    limit, position = call.limit, call.numbers(1)

    def read(conn: Connection) -> list[Account]:
        authorities = authorities_of(conn)
        return visible(
            lambda after, most: rows.list(conn, filters, after=after, limit=most),
            lambda row: scope_of(row.profile, authorities).open_to(call.principal, READERS),
            after=None if position is None else position[0],
            limit=limit,
        )

    found = await call.inst.db.read(read)
    items = [account_body(row) for row in found[:limit]]
    return Answer(call.page(items, (found[limit - 1].n,) if len(found) > limit else None))


async def shown(call: Call) -> Answer:
    """One account; what is hidden is not there."""
    return Answer(account_body((await verbs.find(call.inst, call.path["account"], call.principal))[0]))


async def deactivate(call: Call) -> Answer:
    """The account, with whose key nothing can be done any more."""
    return Answer(account_body(await verbs.disable(call.inst, call.path["account"], call.caller)))


OPERATIONS = (
    Operation(
        name="listAcmeAccounts",
        method="GET",
        path="/acme-accounts",
        handler=listed,
        summary="Accounts of ACME clients, newest first.",
        result=Page[AccountBody],
        query=(
            Parameter("status", "Of this status.", {"type": "string", "enum": list(STATUSES)}),
            Parameter("owner", "Whose external binding says this owner."),
        ),
        paged=True,
    ),
    Operation(
        name="getAcmeAccount",
        method="GET",
        path="/acme-accounts/{account}",
        handler=shown,
        summary="One account of an ACME client.",
        result=AccountBody,
    ),
    Operation(
        name="deactivateAcmeAccount",
        method="POST",
        path="/acme-accounts/{account}/deactivate",
        handler=deactivate,
        summary="End an account: its key is good for nothing any more, at once. Its certificates stay.",
        body=Empty,
        lenient=True,
        result=AccountBody,
        idempotent=True,
        urgent=True,
        repeatable=True,
        problems=("RW-FORBIDDEN",),
    ),
)
