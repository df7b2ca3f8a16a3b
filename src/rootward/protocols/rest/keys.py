"""`/keys`: in which state each authority's key is; `/authorities/{name}/destroy-key`: its end."""

from __future__ import annotations

import msgspec

from rootward.ca import destruction, freeze
from rootward.core.times import rfc3339
from rootward.fleet import keylife
from rootward.fleet.keylife import KeyRow
from rootward.protocols.rest import authorities
from rootward.protocols.rest.certificate import may_see
from rootward.protocols.rest.operation import Answer, Call, Moment, Operation, Page, moment
from rootward.protocols.rest.proposals import ProposalBody, proposed


class KeyBody(msgspec.Struct, frozen=True, kw_only=True):
    """`state` is one of NIST SP 800-57 part 1, section 7: pre-activation, active, suspended, deactivated, compromised
    or destroyed. `signs_until` is the end of its cryptoperiod: nothing is issued after it. `key_store` is null where
    the key is offline, `not_after` where it has no certificate yet.
    """

    authority: str
    state: str
    key_id: str
    key_algorithm: str
    key_store: str | None
    signs_until: Moment | None
    not_after: Moment | None
    destroyed_at: Moment | None


class DestroyBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`compromised`: the authority is compromised, and what it certified may lose its CRL before its end."""

    compromised: bool = False


async def listed(call: Call) -> Answer:
    """A page of keys by their authorities' names."""
    await freeze.look_again(call.inst)
    found = await call.inst.db.read(lambda conn: list(keylife.read_keys(conn, call.inst)))
    page = call.cut([one for one in found if may_see(call.principal, one.authority)], lambda one: one.authority)
    return Answer(Page([_body(one) for one in page.items], page.next_cursor))


def _body(one: KeyRow) -> KeyBody:
    return KeyBody(
        authority=one.authority,
        state=one.state.value,
        key_id=one.key_id,
        key_algorithm=one.algorithm,
        key_store=one.key_store,
        signs_until=moment(one.signs_until),
        not_after=None if one.not_after is None else rfc3339(one.not_after),
        destroyed_at=moment(one.destroyed_at),
    )


async def destroyed(call: Call) -> Answer:
    """202 with the proposal."""
    given: DestroyBody = call.body
    await authorities.shown(call)
    return proposed(await destruction.propose(call.inst, call.path["name"], given.compromised, call.caller), call)


OPERATIONS = (
    Operation(
        name="listKeys",
        method="GET",
        path="/keys",
        handler=listed,
        summary="The authorities' keys and their states, those that wait for their certificates included.",
        result=Page[KeyBody],
        paged=True,
    ),
    Operation(
        name="destroyKey",
        method="POST",
        path="/authorities/{name}/destroy-key",
        handler=destroyed,
        summary="Propose that the key of an authority that is over is destroyed.",
        body=DestroyBody,
        lenient=True,
        result=ProposalBody,
        status=202,
        idempotent=True,
        repeatable=True,
        problems=("RW-FORBIDDEN", "RW-CONFLICT"),
    ),
)
