"""`/blocked-keys`: public keys that never get a certificate."""

from __future__ import annotations

from typing import Annotated

import msgspec

from rootward.core.times import rfc3339
from rootward.fleet import blocklist
from rootward.protocols.rest.operation import Answer, Call, Line, Moment, Operation, Page

Sha256 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}$(?!\n)")]


class BlockKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`sha256` is that of the SubjectPublicKeyInfo, lower-case hex."""

    sha256: Sha256
    why: Line


class BlockBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """At most 1,000 keys at a time."""

    keys: Annotated[list[BlockKey], msgspec.Meta(min_length=1, max_length=1_000)]


class Added(msgspec.Struct, frozen=True):
    """How many of the keys were not blocked before."""

    added: int


class BlockedKey(msgspec.Struct, frozen=True):
    """A key that is blocked, since when and why."""

    sha256: str
    why: str
    at: Moment


async def listed(call: Call) -> Answer:
    """A page of blocked keys, by their hash."""
    found = await blocklist.page(call.inst, call.caller, after=call.text(), limit=call.limit + 1)
    return Answer(
        call.ended([BlockedKey(one.key_id, one.why, rfc3339(one.at)) for one in found], lambda one: one.sha256)
    )


async def add(call: Call) -> Answer:
    """How many are new."""
    body: BlockBody = call.body
    pairs = [(key.sha256, key.why) for key in body.keys]
    return Answer(Added(await blocklist.add(call.inst, pairs, call.caller)))


OPERATIONS = (
    Operation(
        name="listBlockedKeys",
        method="GET",
        path="/blocked-keys",
        handler=listed,
        summary="Public keys that never get a certificate.",
        result=Page[BlockedKey],
        paged=True,
        problems=("RW-FORBIDDEN",),
    ),
    Operation(
        name="blockKeys",
        method="POST",
        path="/blocked-keys",
        handler=add,
        summary="Block public keys, for good.",
        body=BlockBody,
        result=Added,
        idempotent=True,
        admits=blocklist.may_block,
        problems=("RW-FORBIDDEN",),
    ),
)
