"""Each step of an order is a compare-and-set, on each kind of store: what comes second, or too late, is Lost (I-50)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from rootward.store import accounts, authorizations, orders, people
from rootward.store.accounts import Account
from rootward.store.db import Database, Lost
from rootward.store.orders import Order
from rootward.store.rows import Rows
from tests.support.store import DAY, NOW

LEASE = "lease"


def new_authorization(db: Database, id: str, *, owned: bool = True) -> None:
    add = authorizations.add_preauthorized if owned else authorizations.add
    offered = ("http-01",)
    new = authorizations.New(id, "acc", f"dns:{id}.internal", False, "token", offered, NOW, NOW + 7 * DAY)
    db.write_sync(add(new))


def new_order(db: Database, *proofs: str, id: str = "order") -> Order:
    made = orders.new(
        id,
        account="acc",
        profile="server",
        names=[f"dns:{proof}.internal" for proof in proofs],
        authorizations=proofs,
        not_after=None,
        replaces=None,
        at=NOW,
        expires_at=NOW + 7 * DAY,
    )
    db.write_sync(orders.add(made))
    return order_of(db, id)


def order_of(db: Database, id: str = "order") -> Order:
    found = db.read_sync(lambda conn: orders.by_id(conn, id))
    assert found is not None
    return found


def new_account(db: Database) -> None:
    account = Account(
        n=0,
        id="acc",
        thumbprint="print",
        jwk="{}",
        contacts="[]",
        terms_at=None,
        binding=None,
        owner=None,
        made_by=None,
        profile=None,
        names="[]",
        preauthorized="[]",
        address="127.0.0.1",
        created_at=NOW,
        deactivated_at=None,
    )
    db.write_sync(accounts.add(account) + people.add_principal("acc", kind="account", name="acme:acc", at=NOW))


def ready(db: Database, count: int = 2) -> Order:
    new_account(db)
    for n in range(count):
        new_authorization(db, f"a{n}")
    return new_order(db, *(f"a{n}" for n in range(count)))


def lost(db: Database, rows: Rows) -> None:
    before = order_of(db)
    with pytest.raises(Lost):
        db.write_sync(rows)
    assert order_of(db) == before


def finalized(db: Database, certificate: str | None = "c1", request: str | None = None) -> Order:
    order = ready(db)
    db.write_sync(orders.finalize(order, csr=b"csr", at=NOW, certificate=certificate, request=request))
    return order_of(db)


def test_an_order_comes_back_as_it_was_stored(db: Database) -> None:
    order = ready(db)
    assert (order.names, order.authorization_ids) == (["dns:a0.internal", "dns:a1.internal"], ["a0", "a1"])
    assert order.facts.failed is False


@pytest.mark.invariant("I-50")
def test_finalized_once(db: Database) -> None:
    order = ready(db)
    db.write_sync(orders.finalize(order, csr=b"one", at=NOW, certificate="c1"))
    for more in ({"certificate": "c2"}, {"request": "r1"}):
        lost(db, orders.finalize(order, csr=b"two", at=NOW, **more))
    assert (order_of(db).csr, order_of(db).certificate) == (b"one", "c1")


@pytest.mark.invariant("I-49")
@pytest.mark.parametrize("count", [1, 2, 100])
def test_finalized_while_every_authorization_is_valid(db: Database, count: int) -> None:
    order = ready(db, count)
    last = f"a{count - 1}"
    db.write_sync(authorizations.deactivate(last, at=NOW))
    lost(db, orders.finalize(order, csr=b"csr", at=NOW, certificate="c1"))
    lost(db, orders.finalize(order, csr=b"csr", at=NOW, request="r1"))
    lost(db, orders.finalize(order, csr=b"csr", at=NOW + 7 * DAY, certificate="c1"))


@pytest.mark.parametrize("by", ["client", "admin"])
def test_an_account_that_has_ended_finalizes_nothing(db: Database, by: str) -> None:
    order = ready(db)
    db.write_sync(orders.finalize(order, csr=b"csr", at=NOW, certificate="c1"))
    processing = order_of(db)
    second = new_order(db, "a0", id="second")
    db.write_sync(accounts.deactivate("acc", at=NOW) if by == "client" else people.disable("acc", at=NOW))
    lost(db, orders.attempt(processing, certificate="c2", at=NOW))
    with pytest.raises(Lost):
        db.write_sync(orders.finalize(second, csr=b"csr", at=NOW, certificate="c3"))


@pytest.mark.invariant("I-49")
def test_a_pending_authorization_does_not_count(db: Database) -> None:
    new_account(db)
    new_authorization(db, "a0")
    new_authorization(db, "a1", owned=False)
    order = new_order(db, "a0", "a1")
    lost(db, orders.finalize(order, csr=b"csr", at=NOW, certificate="c1"))
    db.write_sync(
        authorizations.choose("a1", challenge="http-01", thumbprint="x", at=NOW, lease=LEASE, lease_until=NOW + DAY)
    )
    db.write_sync(authorizations.valid("a1", tries=0, lease=LEASE, at=NOW, expires_at=NOW + DAY))
    lost(db, orders.finalize(order, csr=b"csr", at=NOW + DAY, certificate="c1"))  # it has expired by then
    db.write_sync(orders.finalize(order, csr=b"csr", at=NOW + DAY - timedelta(seconds=1), certificate="c1"))


@pytest.mark.invariant("I-50")
def test_a_further_attempt(db: Database) -> None:
    """After the one that was seen to come to nothing, and no other."""
    order = finalized(db)
    db.write_sync(orders.attempt(order, certificate="c2", at=NOW))
    lost(db, orders.attempt(order, certificate="c3", at=NOW))  # it was seen before c2
    again = order_of(db)
    db.write_sync(authorizations.deactivate("a1", at=NOW))
    lost(db, orders.attempt(again, certificate="c3", at=NOW))
    lost(db, orders.settle("order", certificate="c1", at=NOW))
    db.write_sync(orders.settle("order", certificate="c2", at=NOW))
    assert order_of(db).settled_at == NOW


STEPS: list[Callable[[Order], Rows]] = [
    lambda order: orders.finalize(order, csr=b"x", at=NOW, certificate="c9"),
    lambda order: orders.attempt(order, certificate="c9", at=NOW),
    lambda order: orders.wait(order, request="r9"),
    lambda order: orders.settle(order.id, certificate=order.certificate or "c9", at=NOW),
    lambda order: orders.refuse(order, at=NOW, error="{}"),
]


@pytest.mark.invariant("I-50")
@pytest.mark.parametrize("failed", [True, False])
def test_what_is_settled_stays_so(db: Database, failed: bool) -> None:
    order = finalized(db)
    db.write_sync(
        orders.refuse(order, at=NOW, error="{}") if failed else orders.settle("order", certificate="c1", at=NOW)
    )
    settled = order_of(db)
    assert settled.facts.failed is failed
    for step in STEPS:
        lost(db, step(settled))


@pytest.mark.invariant("I-50")
def test_what_is_not_finalized_has_no_further_steps(db: Database) -> None:
    order: Any = ready(db)
    lost(db, orders.attempt(order, certificate="c1", at=NOW))
    lost(db, orders.wait(order, request="r1"))
    lost(db, orders.settle("order", certificate="c1", at=NOW))


@pytest.mark.invariant("I-50")
def test_a_refusal_never_overtakes_an_attempt(db: Database) -> None:
    """Who saw the order wait may find that somebody else carried it on: that one comes to its own end."""
    order = finalized(db, certificate=None, request="r1")
    db.write_sync(orders.wait(order, request="r2"))
    assert order_of(db).request == "r2"
    db.write_sync(orders.attempt(order, certificate="c1", at=NOW))
    lost(db, orders.refuse(order, at=NOW, error="{}"))
    lost(db, orders.wait(order, request="r3"))
    db.write_sync(orders.settle("order", certificate="c1", at=NOW))


def test_the_list_of_an_account(db: Database) -> None:
    """Newest first, without those that are invalid by their own row."""
    finalized(db)
    db.write_sync(orders.refuse(order_of(db), at=NOW, error="{}"))
    new_order(db, "a0", id="second")
    processing = new_order(db, "a0", id="third")
    db.write_sync(orders.finalize(processing, csr=b"csr", at=NOW, certificate="c3"))

    def listed(days: int) -> list[str]:
        at = NOW + days * DAY
        found = db.read_sync(lambda conn: orders.of_account(conn, "acc", now=at, before=1 << 40, limit=9))
        return [id for _, id in found]

    assert listed(0) == ["third", "second"]
    assert listed(7) == ["third"]


# ── authorizations ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_end_of_a_try_is_its_holders(db: Database) -> None:
    """By lease and by the count of tries; and of what was decided or taken back, nothing more changes."""
    new_authorization(db, "a", owned=False)
    chosen = {"challenge": "http-01", "thumbprint": "x", "at": NOW, "lease": LEASE, "lease_until": NOW + DAY}
    with pytest.raises(Lost):  # it expired
        db.write_sync(authorizations.choose("a", **chosen | {"at": NOW + 7 * DAY}))
    db.write_sync(authorizations.choose("a", **chosen))
    with pytest.raises(Lost):
        db.write_sync(authorizations.choose("a", **chosen | {"challenge": "dns-01"}))
    ends: list[Callable[[str, int], Rows]] = [
        lambda lease, tries: authorizations.valid("a", tries=tries, lease=lease, at=NOW, expires_at=NOW + DAY),
        lambda lease, tries: authorizations.again("a", tries=tries, lease=lease, at=NOW, error="{}"),
        lambda lease, tries: authorizations.failed("a", tries=tries, lease=lease, at=NOW, error="{}"),
        lambda lease, tries: authorizations.lapse("a", tries=tries, lease=lease),
    ]
    for end in ends:
        for lease, tries in (("another", 0), (LEASE, 1)):
            with pytest.raises(Lost):
                db.write_sync(end(lease, tries))
    db.write_sync(ends[1](LEASE, 0))
    row = db.read_sync(lambda conn: authorizations.by_id(conn, "a"))
    assert row is not None
    assert (row.tries, row.lease, row.next_try_at, row.thumbprint) == (1, None, NOW, "x")
    db.write_sync(authorizations.claim("a", lease=LEASE, now=NOW, lease_until=NOW + DAY))
    db.write_sync(authorizations.deactivate("a", at=NOW))
    for end in ends:
        with pytest.raises(Lost):
            db.write_sync(end(LEASE, 1))
    assert db.read_sync(lambda conn: authorizations.due(conn, now=NOW + DAY, limit=9, each=9)) == []
