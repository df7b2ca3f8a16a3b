"""`replaces` of an order (RFC 9773 5): which certificate it renews; recorded as the lineage of the new one."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection

from rootward.ca.installation import Authority, Installation
from rootward.core.acme import Identifier
from rootward.core.ari import read_id, write_id
from rootward.core.problems import Problem
from rootward.protocols.acme.call import Call
from rootward.protocols.acme.problems import AcmeError
from rootward.store import certificates
from rootward.store.certificates import Certificate
from rootward.store.orders import Order


async def read_replaces(call: Call, text: str, names: Sequence[Identifier]) -> Certificate | None:
    """The certificate that an order replaces; None where another CA's is named, which is ignored and not echoed.

    AcmeError malformed for what names none of ours, or one that has no name in common; unauthorized for another
    account's; alreadyReplaced.
    """
    try:
        key_identifier, serial = read_id(text)
    except Problem as problem:
        raise AcmeError("malformed", problem.detail) from None
    authority = authority_of(call.inst, key_identifier)
    if authority is None:
        return None

    def read(conn: Connection) -> tuple[Certificate | None, bool]:
        found = certificates.by_serial(conn, authority.n, serial)
        return found, found is not None and certificates.is_replaced(conn, found.id)

    old, replaced = await call.inst.db.look(read)
    if old is None or old.issued_at is None:
        raise AcmeError("malformed", "replaces names no certificate of this CA.")
    if old.requester != call.account.id:
        raise AcmeError("unauthorized", "replaces names a certificate of somebody else.", status=403)
    if not {str(name) for name in names} & set(old.names):
        raise AcmeError("malformed", "The certificate that is replaced has none of these identifiers.")
    if replaced:
        raise AcmeError("alreadyReplaced", "The certificate was replaced before.", status=409)
    return old


async def replaces_of(inst: Installation, order: Order) -> str | None:
    """What an order that replaces a certificate says of it (RFC 9773 5)."""
    id = order.replaces
    if id is None:
        return None
    old = await inst.db.look(lambda conn: certificates.by_id(conn, id))
    authority = None if old is None else inst.by_issuer(old.issuer)
    if old is None or authority is None:
        return None
    return write_id(authority.issuer.subject_key_id, old.serial)


def authority_of(inst: Installation, key_identifier: bytes) -> Authority | None:
    """The authority whose certificates say this in their authority key identifier."""
    for authority in inst.authorities.values():
        if authority.issuer.subject_key_id == key_identifier:
            return authority
    return None
