"""The inventory on both dialects: every filter against a plain count in Python, no full scans, status as of one row."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select

from rootward.core.problems import Problem
from rootward.fleet import inventory
from rootward.fleet.inventory import STATUSES, Filters
from rootward.store import certificates as rows
from rootward.store.certificates import Certificate, from_row
from rootward.store.db import Database
from rootward.store.schema import certificates as table
from tests.support.postgres import Postgres
from tests.support.store import DIALECTS, fresh

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
DAY = timedelta(days=1)
# What can be the case of one row, each with the facts that make it so.
FACTS: list[dict[str, Any]] = [
    {"issued_at": issued, "orphaned_at": orphaned, "revoked_at": revoked, "reason": reason, "not_after": not_after}
    for issued, (orphaned, revoked, reason), not_after in itertools.product(
        [NOW - 9 * DAY, None],
        [
            (None, None, None),
            (None, NOW - DAY, "keyCompromise"),
            (None, NOW - DAY, "unspecified"),
            (None, NOW - DAY, "certificateHold"),
            (NOW - DAY, NOW - DAY, "unspecified"),
        ],
        [NOW - 2 * DAY, NOW - timedelta(seconds=1), NOW, NOW + timedelta(seconds=1), NOW + 40 * DAY],
    )
    if not (issued is None and orphaned is None and revoked is not None) and not (issued and orphaned)
]


def row(n: int, **facts: Any) -> dict[str, Any]:
    """A row of the table, made up but for these facts."""
    name = f"h{n}.internal" if n % 3 else f"h{n}.100%_lan"
    return {
        "id": f"00000000-0000-4000-8000-{n:012x}",
        "issuer": n % 2,
        "serial": (n + 1).to_bytes(20, "big"),
        "source": "issued",
        "authority": ("issuing", "other", None)[n % 3],
        "profile": ("server", "client")[n % 2],
        "profile_version": 1,
        "tbs": b"tbs",
        "algorithm": b"alg",
        "signature": b"sig",
        "sha256": f"{n:064x}",
        "key_id": f"{n % 7:064x}",
        "subject": f"CN={name}",
        "names": f'["dns:{name}"]',
        "not_before": NOW - 10 * DAY,
        "owner": (None, "team-a", "team-b")[n % 3],
        "labels": "{}",
        "requester": "p",
        "request_id": "r",
        "lease": "l",
        "intended_at": NOW - 9 * DAY,
        "failed_at": None,
        "replaces": None,
        "retry_of": None,
        "lease_until": None,
        "indexed_at": None,
        **facts,
    }


@pytest.fixture(scope="module", params=DIALECTS)
def full(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, postgres: Postgres
) -> Iterator[Database]:
    """A database with every combination of facts, several times over, indexed; failures and open intents among them."""
    order = [*FACTS * 4, {**FACTS[0], "issued_at": None, "failed_at": NOW, "signature": None}]
    random.Random(4711).shuffle(order)
    made = [row(n, **facts) for n, facts in enumerate(order)]
    with fresh(request.param, tmp_path_factory.mktemp("inventory"), postgres) as db:
        db.write_sync(lambda conn: conn.execute(insert(table), made))
        while db.write_sync(lambda conn: rows.index_names(conn, 500)):
            pass
        yield db


def everything(db: Database) -> list[Certificate]:
    """Every row that is a certificate."""
    query = select(*rows.COLUMNS).order_by(table.c.n)
    found = db.read_sync(lambda conn: [from_row(one) for one in conn.execute(query)])
    return [one for one in found if one.issued_at is not None or one.orphaned_at is not None]


def listed(db: Database, filters: Filters, limit: int) -> list[Certificate]:
    """Every page, one after the other."""
    found: list[Certificate] = []
    after: tuple[int, ...] | None = None
    while True:
        page = db.read_sync(
            lambda conn, after=after: inventory.search(conn, filters, now=NOW, limit=limit, after=after)
        )
        found += page.certificates
        assert len(page.certificates) == limit or page.after is None
        if page.after is None:
            return found
        assert len(page.after) == filters.position_length
        after = page.after


def matches(filters: Filters, one: Certificate) -> bool:
    """What the filters mean, said plainly."""
    text = "\n".join([*(name.partition(":")[2] for name in one.names), one.subject]).lower()
    return (
        (filters.q is None or filters.q.lower() in text)
        and (filters.status is None or one.status(NOW) == filters.status)
        and all(
            getattr(filters, name) in (None, getattr(one, name)) for name in ("source", "owner", "authority", "profile")
        )
        and (filters.expires_before is None or one.not_after < filters.expires_before)
        and (filters.expires_after is None or one.not_after > filters.expires_after)
        and (filters.visible is None or one.authority in filters.visible)
    )


CHOICES: dict[str, list[Any]] = {
    "q": [None, None, None, "internal", "%_l", "H1", "h12.internal", "nothing"],
    "status": [None, *STATUSES],
    "source": [None, None, "issued", "imported"],
    "owner": [None, None, "team-a", "nobody"],
    "authority": [None, None, "issuing", "other", "nothing"],
    "profile": [None, None, "server", "client"],
    "expires_before": [None, None, NOW, NOW + 30 * DAY],
    "expires_after": [None, None, NOW, NOW - DAY],
    "visible": [None, None, frozenset({"issuing"}), frozenset({"issuing", "other"}), frozenset()],
}
SINGLE = [
    Filters(**{name: value})
    for name, values in CHOICES.items()
    for value in dict.fromkeys(values)
    if value is not None and value != "H1"
]


@pytest.mark.parametrize("seed", range(160))
def test_any_filters_find_exactly_what_matches(full: Database, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """By either road: a filter that leaves few rows (all do here), and none that does."""
    monkeypatch.setattr(inventory, "FEW", 1000 if seed % 2 else -1)
    draw = random.Random(seed)
    wanted = {name: draw.choice(values) for name, values in CHOICES.items()}
    if wanted["q"] == "H1":
        wanted["q"] = "H12"
    filters = Filters(**wanted)
    whole = listed(full, filters, 500)
    assert {one.n for one in whole} == {one.n for one in everything(full) if matches(filters, one)}
    assert [one.n for one in listed(full, filters, 3)] == [one.n for one in whole]


@pytest.mark.parametrize("number", range(len(SINGLE)))
def test_each_filter_alone_finds_exactly_what_matches(full: Database, number: int) -> None:
    filters = SINGLE[number]
    whole = listed(full, filters, 7)
    assert {one.n for one in whole} == {one.n for one in everything(full) if matches(filters, one)}
    if filters.by_expiry:
        places = [(one.not_after, one.n) for one in whole]
        assert places == sorted(places, reverse=filters.status == "expired")
    else:
        assert [one.n for one in whole] == sorted((one.n for one in whole), reverse=True)


@pytest.mark.parametrize("status", STATUSES)
def test_status_in_sql_is_status_of_a_row(full: Database, status: Any) -> None:
    query = select(table.c.n).where(rows.COUNTS, inventory.is_status(status, NOW))
    found = full.read_sync(lambda conn: set(conn.execute(query).scalars()))
    wanted = {one.n for one in everything(full) if one.status(NOW) == status}
    assert found == wanted
    assert found


def test_a_short_q_is_refused() -> None:
    with pytest.raises(Problem) as caught:
        Filters(q="ab")
    assert caught.value.code == "RW-QUERY"


def test_a_time_beyond_the_calendar_is_refused(full: Database) -> None:
    for second in (-1, 1 << 62):
        with pytest.raises(Problem, match="RW-QUERY"):
            full.read_sync(
                lambda conn, second=second: inventory.search(
                    conn, Filters(status="active"), now=NOW, limit=1, after=(second, 1)
                )
            )


def test_by_serial_and_related(full: Database) -> None:
    one = next(one for one in everything(full) if one.status(NOW) == "active")
    # The issuer must be one that is known; 0 stands for certificates of others.
    found = full.read_sync(lambda conn: inventory.by_serial(conn, one.serial))
    assert [same.n for same in found] == ([one.n] if one.issuer == 0 else [])
    related = full.read_sync(lambda conn: inventory.related(conn, one, now=NOW))
    assert {other.n for other in related} == {
        other.n
        for other in everything(full)
        if other.n != one.n and other.key_id == one.key_id and other.status(NOW) == "active"
    }


@pytest.fixture(scope="module")
def sqlite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """An empty SQLite database, to ask for its plans."""
    path: Path = tmp_path_factory.mktemp("plans")
    with fresh("sqlite", path, None) as db:  # type: ignore[arg-type]  # no PostgreSQL is needed
        yield db


def plan(db: Database, statement: Any) -> list[str]:
    """What SQLite says that it would do."""

    def explain(conn: Any) -> list[str]:
        compiled = statement.compile(dialect=conn.dialect, compile_kwargs={"render_postcompile": True})
        values = tuple(0 if isinstance(v := compiled.params[p], datetime) else v for p in compiled.positiontup)
        return [str(step[3]) for step in conn.exec_driver_sql(f"EXPLAIN QUERY PLAN {compiled}", values)]

    return db.read_sync(explain)


def scans(steps: list[str]) -> list[str]:
    """The steps that read all of the certificates, or sort them."""
    return [
        step
        for step in steps
        if (step.startswith("SCAN certificates") and "USING INDEX certificates_orphan" not in step)
        or step == "USE TEMP B-TREE FOR ORDER BY"
    ]


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("number", [n for n, filters in enumerate(SINGLE) if filters.visible is None])
def test_no_documented_filter_reads_the_whole_table(sqlite: Database, number: int, after: bool) -> None:
    filters = SINGLE[number]
    position = ((1_800_000_000, 5)[-filters.position_length :]) if after else None
    steps = plan(sqlite, inventory.query(filters, now=NOW, limit=51, after=position, dialect="sqlite"))
    assert not scans(steps), steps


def test_a_filter_without_an_index_would_be_found(sqlite: Database) -> None:
    query = select(table.c.n).where(table.c.request_id == "x").order_by(table.c.not_after)
    assert scans(plan(sqlite, query))
    assert scans(plan(sqlite, select(table.c.n).order_by(table.c.subject)))


@pytest.mark.parametrize("several", [{"owner": "a"}, {"profile": "a"}, {"authority": "a"}, {"source": "a"}])
@pytest.mark.parametrize("status", STATUSES)
def test_two_filters_together_sort_nothing(sqlite: Database, several: dict[str, str], status: Any) -> None:
    filters = Filters(**several, status=status)  # type: ignore[arg-type]  # names of filters
    steps = plan(sqlite, inventory.query(filters, now=NOW, limit=51, after=None, dialect="sqlite"))
    assert not scans(steps), steps


ALONE = [filters for filters in SINGLE if inventory._alone(filters)]


@pytest.mark.parametrize("number", range(len(ALONE)))
def test_looking_whether_rows_are_few_goes_along_an_index(sqlite: Database, number: int) -> None:
    (condition,) = inventory._alone(ALONE[number])
    (step,) = plan(sqlite, select(table.c.n).where(condition).limit(inventory.FEW + 1))
    assert re.search("USING (COVERING )?INDEX certificates_", step), step


def test_few_rows_are_fetched_by_their_numbers(sqlite: Database) -> None:
    for filters in (Filters(q="abc", status="orphan"), Filters(owner="a", expires_before=NOW)):
        query = inventory._among([1, 2, 3], filters, now=NOW, limit=51, after=None, dialect="sqlite")
        steps = plan(sqlite, query)
        assert not [step for step in steps if step.startswith("SCAN certificates ")], steps


def test_what_is_an_owners_and_expires_next_is_in_order(sqlite: Database) -> None:
    for filters in (Filters(owner="a", expires_before=NOW), Filters(owner="a", status="expired")):
        steps = plan(sqlite, inventory.query(filters, now=NOW, limit=51, after=None, dialect="sqlite"))
        assert len(steps) == 1
        assert "certificates_owner_expiry (owner=? AND not_after<?)" in steps[0]
