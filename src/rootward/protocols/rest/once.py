"""Writes with an Idempotency-Key are carried out once: the same request gets the same answer for a day.

The key is claimed before the write and freed where that was refused. A process that dies in between leaves the key
claimed: the same request then gets RW-IN-PROGRESS and is never carried out twice. Issuing is not done here: it ties its
key to the intent, in one transaction (ca/issue.py). Nor does it hold for what is the same when it is done twice, as
revoking is: that is carried out again, because a revocation must never wait for a process that died.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import suppress

import msgspec

from rootward.core.problems import Problem
from rootward.protocols.rest.operation import Answer, Call, Handler
from rootward.store import idempotency
from rootward.store.errors import Lost, Taken
from rootward.store.failpoint import failpoint

_TOLD_ONCE = ("token", "hmac_key")


class _Said(msgspec.Struct, frozen=True):
    """An answer as it is kept: its status, headers and body. A secret that it told is not kept with it."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: msgspec.Raw


def digest_of(call: Call) -> bytes:
    """What a key stands for: SHA-256 of method, path and body."""
    return hashlib.sha256(b"%b\n%b\n%b" % (call.method.encode(), call.url.encode(), call.raw)).digest()


async def once(call: Call, handler: Handler, *, repeatable: bool = False) -> Answer:
    """The handler's answer, or the one that the same request got before. Problems: RW-IDEMPOTENCY, RW-IN-PROGRESS.

    What is `repeatable` is carried out again where there is no answer yet, instead of RW-IN-PROGRESS.
    """
    key, who, digest = call.key or "", call.principal.id, digest_of(call)
    try:
        await call.inst.db.write(idempotency.claim(who, key, digest=digest, at=call.inst.clock()))
    except Taken:
        before = await _before(call, key, digest)
        if before is not None:
            return before
        if not repeatable:
            raise Problem(
                "RW-IN-PROGRESS", "The same request is under way; ask again in a moment.", retry_after=1
            ) from None
    failpoint("once.claimed")
    try:
        answer = await handler(call)
    except Problem:
        await call.inst.db.write(idempotency.drop(who, key))
        raise
    failpoint("once.carried-out")
    if isinstance(answer.content, msgspec.Struct):
        with suppress(Lost):  # the same, done twice at once, and refused once: then there is nothing to keep
            await call.inst.db.write(idempotency.answered(who, key, answer=_kept(answer)))
        failpoint("once.kept")
    return answer


async def _before(call: Call, key: str, digest: bytes) -> Answer | None:
    """What the same request was answered; None while it is under way."""
    found = await call.inst.db.look(lambda conn: idempotency.get(conn, call.principal.id, key))
    if found is None:
        return None
    if found.digest != digest:
        raise Problem("RW-IDEMPOTENCY", "This idempotency key was used for another request.")
    if found.answer is None:
        return None
    said = msgspec.json.decode(found.answer, type=_Said)
    headers = tuple((name.encode(), value.encode()) for name, value in said.headers)
    return Answer(_whole(bytes(said.body)), said.status, headers)


async def _whole(body: bytes) -> AsyncIterator[bytes]:
    yield body


def _kept(answer: Answer) -> str:
    values = msgspec.json.decode(msgspec.json.encode(answer.content))
    values |= {name: None for name in _TOLD_ONCE if name in values}
    headers = tuple((name.decode(), value.decode()) for name, value in answer.headers)
    said = _Said(answer.status, headers, msgspec.Raw(msgspec.json.encode(values)))
    return msgspec.json.encode(said).decode()
