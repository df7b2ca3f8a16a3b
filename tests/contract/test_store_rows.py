"""What the functions of events, facts, authorities, profiles and people promise, on both dialects."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from rootward.store import (
    authorities,
    events,
    facts,
    people,
    profiles,
)
from rootward.store.authorities import Crl
from rootward.store.db import Constraint, Database, Lost, Taken
from rootward.store.ids import new_id
from tests.support.store import DAY, NOW, event

SECOND = timedelta(seconds=1)
HOUR = timedelta(hours=1)


def test_events_come_newest_first_and_filtered(db: Database) -> None:
    for i in range(6):
        kind = "issue.done" if i % 2 else "issuex.other"
        db.write_sync(event(kind, certificate=f"c-{i}", at=NOW + i * SECOND, data={"i": i, "b": [1]}))

    def page(after: int | None = None, **filters: Any) -> list[int]:
        found = db.read_sync(lambda conn: events.list(conn, events.Filters(**filters), after=after, limit=2))
        return [int(event.values()["i"]) for event in found]

    assert page() == [5, 4]
    last = db.read_sync(lambda conn: events.list(conn, events.Filters(), limit=2))[-1].n
    assert page(after=last) == [3, 2]
    assert page(kind="issue.*") == [5, 3]
    assert page(kind="issuex.other") == [4, 2]
    assert page(certificate="c-1") == [1]
    assert page(since=NOW + 2 * SECOND, before=NOW + 3 * SECOND) == [2]
    assert page(actor="p-2") == []
    assert db.read_sync(lambda conn: events.by_n(conn, last)) is not None


@pytest.mark.invariant("I-57")
def test_a_place_in_the_tree_is_given_once(db: Database) -> None:
    db.write_sync(event("a.a") + event("b.b"))
    assert db.read_sync(events.tree_size) == 0
    first, second = db.read_sync(lambda conn: events.unsequenced(conn, 10))
    db.write_sync(lambda conn: events.place(conn, [second.n], [b"h"], first=0))
    with pytest.raises(Lost):
        db.write_sync(lambda conn: events.place(conn, [second.n], [b"h"], first=1))
    with pytest.raises(Taken):
        db.write_sync(lambda conn: events.place(conn, [first.n], [b"h"], first=0))
    assert [event.kind for event in db.read_sync(lambda conn: events.unsequenced(conn, 10))] == ["a.a"]
    db.write_sync(lambda conn: events.place(conn, [first.n], [b"h"], first=1))
    assert [event.kind for event in db.read_sync(lambda conn: events.by_leaf(conn, 0, 10))] == ["b.b", "a.a"]
    assert db.read_sync(events.tree_size) == 2


def test_a_fact_is_stated_once_or_anew(db: Database) -> None:
    db.write_sync(facts.put_once("second", at=NOW, data="a"))
    db.write_sync(facts.put_once("second", at=NOW + DAY, data="b"))
    assert db.read_sync(lambda conn: facts.get(conn, "second")) == facts.Fact("second", NOW, "a")
    db.write_sync(facts.put("second", at=NOW + DAY, data="b"))
    assert db.read_sync(lambda conn: facts.get(conn, "second")) == facts.Fact("second", NOW + DAY, "b")
    assert db.read_sync(lambda conn: facts.get(conn, "third")) is None


def test_authorities_and_their_certificates(db: Database) -> None:
    db.write_sync(authorities.add("root", "root", parent=None, settings="{}", at=NOW))
    db.write_sync(authorities.add("issuing", "issuing", parent="root", settings="{}", at=NOW + SECOND))
    with pytest.raises(Taken):
        db.write_sync(authorities.add("root", "root", parent=None, settings="{}", at=NOW))
    with pytest.raises(Constraint):
        db.write_sync(authorities.add("lost", "issuing", parent="absent", settings="{}", at=NOW))
    db.write_sync(authorities.add_issuer("issuing", key_id="k1", certificate=b"der", backend="file", at=NOW))
    assert [authority.name for authority in db.read_sync(authorities.list)] == ["root", "issuing"]
    (row,) = db.read_sync(lambda conn: authorities.list_issuers(conn, "issuing"))
    assert (row.authority, row.certificate, row.backend) == ("issuing", b"der", "file")
    assert db.read_sync(authorities.list_issuers) == (row,)
    assert db.read_sync(lambda conn: authorities.issuer_by_key(conn, "k1")) == row
    found = db.read_sync(lambda conn: authorities.by_name(conn, "issuing"))
    assert found is not None
    assert (found.parent, found.settings) == ("root", "{}")


def test_a_frozen_authority_thaws_and_a_retired_one_does_not(db: Database) -> None:
    db.write_sync(authorities.add("a", "issuing", parent=None, settings="{}", at=NOW))
    frozen: Any = lambda: db.read_sync(lambda conn: authorities.frozen(conn, "a"))  # noqa: E731 - asked five times
    assert not frozen()
    db.write_sync(authorities.freeze("a", at=NOW))
    assert frozen()
    with pytest.raises(Lost):
        db.write_sync(authorities.freeze("a", at=NOW))
    db.write_sync(authorities.thaw("a"))
    assert not frozen()
    db.write_sync(authorities.retire("a", at=NOW))
    assert frozen()
    assert db.read_sync(lambda conn: authorities.frozen(conn, "absent"))


@pytest.mark.invariant("I-17")
def test_crl_numbers_only_rise(db: Database) -> None:
    def claim(at_least: int, issuer: int = 1, scope: str = "full") -> int:
        return db.write_sync(lambda conn: authorities.claim_number(conn, issuer, scope, at_least=at_least))

    assert claim(1000) == 1000
    assert claim(1000) == 1001
    assert claim(5) == 1002  # a clock that ran backwards
    assert claim(9000) == 9000
    assert claim(5, issuer=2) == 5
    assert claim(7, scope="shard-1") == 7
    claimed = db.read_sync(authorities.crl_numbers_claimed)
    assert claimed == {(1, "full"): 9000, (2, "full"): 5, (1, "shard-1"): 7}


@pytest.mark.invariant("I-17")
def test_crl_numbers_claimed_together_differ(db: Database) -> None:
    async def claim_all() -> list[int]:
        return await asyncio.gather(
            *(db.write(lambda conn: authorities.claim_number(conn, 1, "full", at_least=1)) for _ in range(24))
        )

    assert sorted(asyncio.run(claim_all())) == list(range(1, 25))


@pytest.mark.invariant("I-18")
def test_a_crl_is_never_replaced_by_an_older_one(db: Database) -> None:
    def put(number: int, scope: str = "full") -> None:
        crl = Crl(1, scope, number, NOW, NOW + DAY, 0, 0, f"crl {number}".encode())
        db.write_sync(lambda conn: authorities.put_crl(conn, crl))

    assert db.read_sync(lambda conn: authorities.current_crl(conn, 1)) is None
    put(10)
    for number in (9, 10):
        with pytest.raises(Lost):
            put(number)
    put(5, "shard-1")
    put(12)
    current = db.read_sync(lambda conn: authorities.current_crl(conn, 1))
    assert current is not None
    assert (current.number, current.der, current.next_update) == (12, b"crl 12", NOW + DAY)
    assert db.write_sync(lambda conn: authorities.prune_crls(conn, 1, "full", keep=0)) == 1
    assert db.write_sync(lambda conn: authorities.prune_crls(conn, 1, "full", keep=3)) == 0
    assert db.read_sync(lambda conn: authorities.current_crl(conn, 1)) == current
    assert db.read_sync(lambda conn: authorities.current_crl(conn, 1, "shard-1")) is not None


def test_each_change_of_a_profile_is_a_version(db: Database) -> None:
    def put(body: str) -> int:
        return db.write_sync(lambda conn: profiles.put(conn, "server", authority="a", body=body, at=NOW, by="p-1"))

    assert db.read_sync(lambda conn: profiles.current(conn, "server")) is None
    assert [put("one"), put("two")] == [1, 2]
    assert db.read_sync(lambda conn: profiles.current(conn, "server")) == (2, "two")
    first = db.read_sync(lambda conn: profiles.at_version(conn, "server", 1))
    assert first is not None
    assert (first.body, first.created_by) == ("one", "p-1")
    assert [row.version for row in db.read_sync(lambda conn: profiles.versions(conn, "server"))] == [2, 1]
    assert [row.version for row in db.read_sync(profiles.list)] == [2]
    db.write_sync(profiles.retire("server", 2, at=NOW))
    assert db.read_sync(lambda conn: profiles.current(conn, "server")) is None
    assert db.read_sync(lambda conn: profiles.latest(conn, "server")) is not None


def person(db: Database, name: str, *roles: str, digest: bytes = b"") -> str:
    """Put a person with roles and a token into the database; returns their id."""
    id = new_id()
    rows = people.add_principal(id, kind="person", name=name, at=NOW)
    for role in roles:
        rows += people.add_grant(new_id(), principal=id, role=role, at=NOW)
    rows += people.add_token(
        f"t-{name}", principal=id, label="cli", digest=digest or name.encode(), at=NOW, expires_at=NOW + DAY
    )
    db.write_sync(rows)
    return id


def test_a_token_finds_its_person_and_their_grants(db: Database) -> None:
    id = person(db, "ada", "requester", "approver")
    person(db, "bob")
    holder = db.read_sync(lambda conn: people.by_token(conn, b"ada", NOW))
    assert holder is not None
    assert (holder.principal.id, holder.principal.name, holder.token.id) == (id, "ada", "t-ada")
    assert {grant.role for grant in holder.grants} == {"requester", "approver"}
    nobody = db.read_sync(lambda conn: people.by_token(conn, b"bob", NOW))
    assert nobody is not None
    assert nobody.grants == ()
    assert db.read_sync(lambda conn: people.by_token(conn, b"eve", NOW)) is None


@pytest.mark.parametrize("how", ["expired", "revoked", "disabled", "shortened"])
def test_a_token_that_is_not_valid_finds_nobody(db: Database, how: str) -> None:
    id = person(db, "ada", "requester")
    now = NOW
    if how == "expired":
        now = NOW + DAY
    elif how == "revoked":
        db.write_sync(people.revoke_token("t-ada", at=NOW))
    elif how == "disabled":
        db.write_sync(people.disable(id, at=NOW))
    else:
        db.write_sync(people.shorten_token("t-ada", at=NOW))
    assert db.read_sync(lambda conn: people.by_token(conn, b"ada", now)) is None


def test_removed_grants_are_gone_at_once(db: Database) -> None:
    id = person(db, "ada", "approver")
    (grant,) = db.read_sync(lambda conn: people.grants_of(conn, id))
    db.write_sync(people.remove_grant(grant.id, at=NOW))
    holder = db.read_sync(lambda conn: people.by_token(conn, b"ada", NOW))
    assert holder is not None
    assert holder.grants == ()
    with pytest.raises(Lost):
        db.write_sync(people.remove_grant(grant.id, at=NOW))
    kept = db.read_sync(lambda conn: people.grant_by_id(conn, grant.id))
    assert kept is not None
    assert kept.removed_at == NOW


def test_holders_of_a_role_are_counted_once_and_only_people(db: Database) -> None:
    count: Any = lambda **how: db.read_sync(lambda conn: people.count_holders(conn, "approver", **how))  # noqa: E731 - asked often
    ada = person(db, "ada", "approver", "approver")
    bob = person(db, "bob")
    db.write_sync(people.add_grant(new_id(), principal=bob, role="approver", authority="issuing", at=NOW))
    machine = new_id()
    db.write_sync(
        people.add_principal(machine, kind="workload", name="ci", at=NOW)
        + people.add_grant(new_id(), principal=machine, role="approver", at=NOW)
    )
    assert count() == 2
    assert count(everywhere=True) == 1
    db.write_sync(people.disable(ada, at=NOW))
    assert count() == 1
    db.write_sync(people.enable(ada))
    assert count() == 2


def test_people_tokens_and_grants_are_listed_in_pages(db: Database) -> None:
    ids = sorted(person(db, f"p{i}", "requester") for i in range(3))
    first = db.read_sync(lambda conn: people.list_principals(conn, limit=2))
    rest = db.read_sync(lambda conn: people.list_principals(conn, after=first[-1].id, limit=2))
    assert [principal.id for principal in (*first, *rest)] == ids
    db.write_sync(people.revoke_token("t-p0", at=NOW))
    assert [token.id for token in db.read_sync(lambda conn: people.list_tokens(conn))] == ["t-p1", "t-p2"]
    assert db.read_sync(lambda conn: people.token_by_id(conn, "t-p0")) is not None
    assert len(db.read_sync(lambda conn: people.list_tokens(conn, principal=ids[0], after="t-p1"))) <= 1
    grants = db.read_sync(lambda conn: people.list_grants(conn, limit=2))
    assert len(db.read_sync(lambda conn: people.list_grants(conn, after=grants[-1].id))) == 1
    assert [grant.principal for grant in db.read_sync(lambda conn: people.list_grants(conn, principal=ids[1]))] == [
        ids[1]
    ]
    with pytest.raises(Taken):
        person(db, "p1")
    found = db.read_sync(lambda conn: people.by_name(conn, "p1"))
    assert found is not None
    assert db.read_sync(lambda conn: people.by_id(conn, found.id)) == found
