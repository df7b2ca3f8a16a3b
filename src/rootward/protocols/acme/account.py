"""newAccount, accounts and the lists of their orders (RFC 8555 7.3, 7.1.2.1)."""

from __future__ import annotations

import re
from typing import Any

import msgspec
from sqlalchemy import Connection

from rootward.ca import accounts as verbs
from rootward.core.acme import AccountStatus
from rootward.core.jwk import ALGORITHMS, JoseError
from rootward.core.problems import Problem
from rootward.protocols.acme import limits
from rootward.protocols.acme.binding import read_binding, spent
from rootward.protocols.acme.call import Answer, Call
from rootward.protocols.acme.contacts import read_contacts
from rootward.protocols.acme.directory import needs_binding, offered
from rootward.protocols.acme.problems import AcmeError, account_ended, nothing_here, of_jose
from rootward.store import accounts, orders
from rootward.store.accounts import Account
from rootward.store.errors import Lost, Taken

PAGE = 100  # orders
_NEWEST = (1 << 63) - 1
_CURSOR = re.compile("[A-Za-z0-9_-]{22}", re.ASCII)


class NewAccount(msgspec.Struct, frozen=True, rename="camel"):
    """RFC 8555 7.3."""

    contact: list[str] | None = None
    terms_of_service_agreed: bool = False
    only_return_existing: bool = False
    external_account_binding: dict[str, Any] | None = None


class Update(msgspec.Struct, frozen=True):
    """RFC 8555 7.3.2 and 7.3.6; everything else is ignored."""

    contact: list[str] | None = None
    status: str | None = None


class AccountBody(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """RFC 8555 7.1.2. `external_account_binding` is what the client sent with it, in the answer to newAccount."""

    status: AccountStatus
    contact: list[str]
    orders: str
    terms_of_service_agreed: bool
    external_account_binding: dict[str, Any] | None = None


class OrdersBody(msgspec.Struct, frozen=True):
    """RFC 8555 7.1.2.1."""

    orders: list[str]


async def new_account(call: Call, _path: dict[str, str]) -> Answer:
    """The account of this key: 201 for a new one, 200 for one that is there."""
    asked = call.decode(NewAccount)
    existing = await _existing(call)
    if existing is not None:
        return existing
    if asked.only_return_existing:
        raise AcmeError("accountDoesNotExist", "There is no account with this key.")
    new = await _new(call, asked)
    try:
        made = await verbs.register(call.inst, new, call.caller, call.write)
    except JoseError as error:
        raise of_jose(error, ALGORITHMS) from None
    except verbs.BindingSpent:
        raise spent() from None
    except Taken as error:
        if error.table != accounts.TABLE:
            raise
        existing = await _existing(call)  # the same key, at the same moment
        if existing is None:
            raise Problem("RW-STORE", "The store does not have what it has just said it has.") from None
        return existing
    return answer(call, made, 201, binding=asked.external_account_binding)


async def _new(call: Call, asked: NewAccount) -> verbs.New:
    """What the account is to be made of, once everything that was asked is right."""
    terms = call.settings.terms
    if terms and not asked.terms_of_service_agreed:
        raise AcmeError(
            "userActionRequired",
            "The terms of service must be agreed to.",
            instance=terms,
            headers=((b"link", f'<{terms}>;rel="terms-of-service"'.encode()),),
        )
    contacts, address = read_contacts(asked.contact or ()), limits.source(call.address)
    if asked.external_account_binding is not None:
        binding = await read_binding(call, asked.external_account_binding)
        return verbs.New(call.jwk, contacts, bool(terms), binding, address)
    if needs_binding([call.served] if call.served is not None else await offered(call.inst)):
        raise AcmeError("externalAccountRequired", "A new account needs an external account binding here.")
    await limits.check_accounts(call)
    return verbs.New(call.jwk, contacts, bool(terms), None, address)


async def _existing(call: Call) -> Answer | None:
    found = await call.inst.db.look(lambda conn: accounts.by_thumbprint(conn, call.jwk.thumbprint))
    if found is None:
        return None
    if found.status != "valid":
        raise account_ended(found.status)
    return answer(call, found, 200)


async def account(call: Call, path: dict[str, str]) -> Answer:
    """The account, after what the payload changes of it."""
    own(call, path["id"])
    if call.is_get():
        return answer(call, call.account, 200)
    asked = call.decode(Update)
    try:
        if asked.status == "deactivated":
            return answer(call, await verbs.deactivate(call.inst, call.account, call.caller, call.write), 200)
        if asked.contact is None:
            return answer(call, call.account, 200)
        contacts = read_contacts(asked.contact)
        return answer(call, await verbs.set_contacts(call.inst, call.account, contacts, call.caller, call.write), 200)
    except Lost:
        raise account_ended("deactivated") from None  # at this very moment


async def account_orders(call: Call, path: dict[str, str]) -> Answer:
    """A page of the account's orders, newest first, and where the next one is. AcmeError malformed for a cursor that
    none of its pages had.
    """
    own(call, path["id"])
    id, cursor, now = call.account.id, call.query.get("cursor"), call.inst.clock()

    def read(conn: Connection) -> list[tuple[int, str]] | None:
        before = _NEWEST
        if cursor is not None:
            last = orders.by_id(conn, cursor) if _CURSOR.fullmatch(cursor) else None
            if last is None or last.account != id:
                return None
            before = last.n
        return orders.of_account(conn, id, now=now, before=before, limit=PAGE + 1)

    found = await call.inst.db.look(read)
    if found is None:
        raise AcmeError("malformed", "The cursor is not one of this list.")
    url, shown = call.url(f"/acme/account/{id}/orders"), found[:PAGE]
    more = ((b"link", f'<{url}?cursor={shown[-1][1]}>;rel="next"'.encode()),) if len(found) > PAGE else ()
    return Answer(200, OrdersBody([call.url(f"/acme/order/{order}") for _, order in shown]), more)


def own(call: Call, account: str) -> None:
    """Raises what an address that names nothing answers, where something is of another account (I-48)."""
    if account != call.account.id:
        raise nothing_here()


def answer(call: Call, account: Account, status: int, *, binding: dict[str, Any] | None = None) -> Answer:
    """An account and where it is."""
    url = call.url(f"/acme/account/{account.id}")
    body = AccountBody(
        status=account.status,
        contact=msgspec.json.decode(account.contacts, type=list[str]),
        orders=f"{url}/orders",
        terms_of_service_agreed=account.terms_at is not None,
        external_account_binding=binding,
    )
    return Answer(status, body, ((b"location", url.encode()),))
