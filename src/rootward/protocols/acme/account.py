"""newAccount and accounts (RFC 8555 7.3)."""

from __future__ import annotations

from typing import Any

import msgspec

from rootward.ca import accounts
from rootward.core.acme import AccountStatus
from rootward.core.problems import Problem
from rootward.protocols.acme.call import Answer, Call
from rootward.protocols.acme.problems import AcmeError, nothing_here
from rootward.store import accounts as rows
from rootward.store.accounts import Account
from rootward.store.errors import Taken


class NewAccount(msgspec.Struct, frozen=True, rename="camel"):
    """RFC 8555 7.3."""

    contact: list[str] | None = None
    terms_of_service_agreed: bool = False
    only_return_existing: bool = False
    external_account_binding: dict[str, Any] | None = None


class AccountUpdate(msgspec.Struct, frozen=True):
    """RFC 8555 7.3.2 and 7.3.6; everything else is ignored."""

    contact: list[str] | None = None
    status: str | None = None


class AccountBody(msgspec.Struct, frozen=True, rename="camel"):
    """RFC 8555 7.1.2."""

    status: AccountStatus
    contact: list[str]
    orders: str
    terms_of_service_agreed: bool


async def new_account(call: Call, _path: dict[str, str]) -> Answer:
    """The account of this key: 201 for a new one, 200 for one that is there."""
    asked = call.decode(NewAccount)
    existing = await _existing(call)
    if existing is not None:
        return existing
    if asked.only_return_existing:
        raise AcmeError("accountDoesNotExist", "There is no account with this key.")
    contacts = tuple(asked.contact or ())
    try:
        made = await accounts.register(call.inst, call.jwk, contacts, call.address, call.caller, call.write)
    except Taken as error:
        if error.table != rows.TABLE:
            raise
        existing = await _existing(call)  # the same key, at the same moment
        if existing is None:
            raise Problem("RW-STORE", "The store does not have what it has just said it has.") from None
        return existing
    return _answer(call, made, 201)


async def _existing(call: Call) -> Answer | None:
    found = await call.inst.db.look(lambda conn: rows.by_thumbprint(conn, call.jwk.thumbprint))
    if found is None:
        return None
    if found.status != "valid":
        raise AcmeError("unauthorized", f"The account is {found.status}.")
    return _answer(call, found, 200)


async def update(call: Call, path: dict[str, str]) -> Answer:
    """The account as it is, after what the payload changes of it."""
    if path["id"] != call.account.id:
        raise nothing_here()
    return _answer(call, call.account, 200)


def _answer(call: Call, account: Account, status: int) -> Answer:
    url = call.url(f"/acme/account/{account.id}")
    body = AccountBody(
        status=account.status,
        contact=msgspec.json.decode(account.contacts, type=list[str]),
        orders=f"{url}/orders",
        terms_of_service_agreed=account.terms_at is not None,
    )
    return Answer(status, body, ((b"location", url.encode()),))
