"""In which state every authority's key is (`core/keystate.py`), those that wait for their certificates included."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import NamedTuple

import msgspec
from sqlalchemy import Connection

from rootward.ca.installation import Authority, Installation
from rootward.core.authority import read_spec
from rootward.core.calendar import signs_until
from rootward.core.keystate import KeyFacts, KeyState, state_of
from rootward.core.profile import Profile
from rootward.core.times import parse_duration
from rootward.store import authorities as rows
from rootward.store import succession


class KeyRow(NamedTuple):
    """One key. `key_store` None: offline. `signs_until` is the end of its cryptoperiod, None before it is certified."""

    authority: str
    state: KeyState
    key_id: str
    algorithm: str
    key_store: str | None
    signs_until: datetime | None
    not_after: datetime | None
    destroyed_at: datetime | None


def read_keys(conn: Connection, inst: Installation) -> Iterator[KeyRow]:
    """Every key, by its authority's name."""
    now = inst.clock()
    waiting = {one.name: one for one in rows.pending(conn)}
    for name in sorted({*inst.authorities, *waiting}):
        if name in inst.authorities:
            yield _key(conn, inst.authorities[name], now)
        else:
            one = waiting[name]
            algorithm = read_spec(msgspec.json.decode(one.spec)).key_algorithm.value
            yield KeyRow(name, state_of(KeyFacts(), now), one.key_id, algorithm, one.backend, None, None, None)


def _key(conn: Connection, authority: Authority, now: datetime) -> KeyRow:
    end = certifies_until(conn, authority)
    return KeyRow(
        authority.name,
        state(authority, end, now),
        authority.issuer.key_id,
        authority.issuer.key.algorithm.value,
        authority.backend,
        end,
        authority.issuer.not_after,
        authority.destroyed_at,
    )


def state(authority: Authority, end: datetime, now: datetime) -> KeyState:
    """The state of an authority's key, whose cryptoperiod ends at `end`."""
    facts = KeyFacts(
        not_after=authority.issuer.not_after,
        signs_until=end,
        frozen_at=authority.frozen_at,
        retired_at=authority.retired_at,
        compromised_at=authority.compromised_at,
        destroyed_at=authority.destroyed_at,
    )
    return state_of(facts, now)


def certifies_until(conn: Connection, authority: Authority) -> datetime:
    """The last moment in which any profile can still issue from it (`Policy.check_period`): that of the profile with
    the shortest lifetime; the authority's own end where no profile issues from it.
    """
    given = lifetimes(conn, authority)
    return signs_until(authority.issuer.not_after, min(given)) if given else authority.issuer.not_after


def lifetimes(conn: Connection, authority: Authority) -> list[timedelta]:
    """The most that each profile gives that issues from it now."""
    given = succession.profiles_of(conn, authority.name)
    return [parse_duration(msgspec.json.decode(row.body, type=Profile).lifetime.maximum) for row in given]
