"""Authorizations and challenges (RFC 8555 7.5)."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime
from math import ceil
from typing import Any

import msgspec

from rootward.core.acme import authorization_status, challenge_status
from rootward.protocols.acme.call import Answer, Call
from rootward.protocols.acme.documents import authorization_document, challenge_document, challenges_of, encode
from rootward.protocols.acme.limits import check_failures
from rootward.protocols.acme.problems import AcmeError, nothing_here
from rootward.protocols.acme.validator import lease_end
from rootward.protocols.problems import Header
from rootward.store import authorizations, events
from rootward.store.authorizations import Authorization
from rootward.store.errors import Lost

RETRY_AFTER = 1  # seconds, while a challenge is tried; else it is after the next try (RFC 8555 8.2)


class Change(msgspec.Struct, frozen=True):
    """The payload of a change: the one thing that can be asked for is "deactivated"."""

    status: str | None = None


async def show_or_deactivate(call: Call, where: dict[str, str]) -> Answer:
    """The authorization; or it is taken back for good, and at once (RFC 8555 7.5.2, I-49)."""
    one = await _own(call, where["id"])
    if not call.is_get():
        if call.decode(Change).status != "deactivated":
            raise AcmeError("malformed", 'The one change of an authorization is {"status": "deactivated"}.')
        now = call.inst.clock()
        if authorization_status(one.facts, now) not in ("pending", "valid"):
            raise AcmeError("malformed", "Only a pending or valid authorization can be deactivated.")
        taken_back = events.record(
            "acme.authorization-deactivated",
            actor=call.account.id,
            request_id=call.request_id,
            at=now,
            data={"authorization": one.id, "name": one.name},
        )
        with suppress(Lost):  # a moment before, or it failed: the answer says what it is
            await call.write(authorizations.deactivate(one.id, at=now) + taken_back)
        one = await _own(call, one.id)
    return _answer(call, one)


async def challenge(call: Call, where: dict[str, str]) -> Answer:
    """The challenge; or its client is ready for it: it is tried at once. Once more is a wish for the next try
    (RFC 8555 8.2); what was decided stays so.
    """
    one, kind = await _own(call, where["id"]), where["type"]
    if kind not in challenges_of(one):
        raise nothing_here()
    if not call.is_get():
        call.decode(dict[str, Any])  # whatever is in it is ignored (RFC 8555 7.5.1)
        one = await _respond(call, one, kind)
    return _challenge(call, one, kind)


async def _respond(call: Call, one: Authorization, kind: str) -> Authorization:
    now = call.inst.clock()
    if one.challenge is None:
        if authorization_status(one.facts, now) != "pending":
            raise AcmeError("malformed", "The authorization is not pending.")
        await check_failures(call)
        validator = call.validator
        begins = validator.has_room(one.account)
        lease = call.inst.db.lease if begins else None
        until = await lease_end(call.inst) if begins else None
        try:
            await call.write(
                authorizations.choose(
                    one.id,
                    challenge=kind,
                    thumbprint=call.account.thumbprint,
                    at=now,
                    lease=lease,
                    lease_until=until,
                )
            )
        except Lost:
            return await _own(call, one.id)  # the same a moment before: one validation
        one = msgspec.structs.replace(
            one,
            challenge=kind,
            thumbprint=call.account.thumbprint,
            chosen_at=now,
            next_try_at=now,
            lease=lease,
            lease_until=until,
        )
        if begins:
            validator.begin(one)
    elif challenge_status(kind, one.facts) == "processing" and one.next_try_at is not None and one.next_try_at > now:
        await call.write(authorizations.sooner(one.id, at=now))
        one = await _own(call, one.id)
    return one


async def _own(call: Call, id: str) -> Authorization:
    """The account's authorization of this id; another's is as good as none (I-48)."""
    found = await call.inst.db.look(lambda conn: authorizations.by_id(conn, id))
    if found is None or found.account != call.account.id:
        raise nothing_here()
    return found


def _answer(call: Call, one: Authorization) -> Answer:
    now = call.inst.clock()
    return Answer(200, encode(authorization_document(one, call.url("/acme"), now)), _retry(one, now))


def _challenge(call: Call, one: Authorization, kind: str) -> Answer:
    base = call.url("/acme")
    up = (b"link", f'<{base}/authz/{one.id}>;rel="up"'.encode())
    return Answer(200, encode(challenge_document(kind, one, base)), (up, *_retry(one, call.inst.clock())))


def _retry(one: Authorization, now: datetime) -> tuple[Header, ...]:
    if one.next_try_at is None:
        return ()
    rest = 0 if one.lease is not None else max(0, ceil((one.next_try_at - now).total_seconds()))
    return ((b"retry-after", b"%d" % (RETRY_AFTER + rest)),)
