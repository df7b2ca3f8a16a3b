"""The inventory's pages at a million certificates against ten thousand: every documented filter and every pair of two,
the first page and one from the middle, on both stores.

Both sizes are asked in turn; each figure is the median of several. What is printed is the worst ratio, every one above
the aim of 3, and how many there were. `python -m bench.inventory [--short]`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import combinations
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from bench.filled import LARGE, SHORT, SMALL, folder, postgres_home, sqlite_home
from bench.report import heading, median, row
from rootward.fleet.inventory import STATUSES, Filters, search
from rootward.store.db import Database, open_database
from tests.support.postgres import Postgres

AIM = 3.0
LIMIT = 50
ROUNDS = 7
SLOWEST = 20.0  # seconds for one question, then it is not asked again
FLOOR = 0.002  # seconds: below it a ratio says nothing


@dataclass(frozen=True)
class Side:
    """One store of one size."""

    db: Database
    now: datetime
    middle: int


def asked(now: datetime) -> list[tuple[str, Filters]]:
    """Every filter, and every pair."""
    single: list[tuple[str, dict[str, Any]]] = [
        ("q", {"q": "sigma"}),
        *((f"status={status}", {"status": status}) for status in STATUSES),
        ("source", {"source": "issued"}),
        ("owner", {"owner": "team-001"}),
        ("authority", {"authority": "issuing"}),
        ("profile", {"profile": "server"}),
        ("expires_before", {"expires_before": now + timedelta(days=7)}),
        ("expires_after", {"expires_after": now + timedelta(days=40)}),
    ]
    found = [("none", Filters()), *((name, Filters(**values)) for name, values in single)]
    for (one, first), (two, second) in combinations(single, 2):
        if first.keys() != second.keys():
            found.append((f"{one} & {two}", Filters(**first, **second)))
    return found


def main(short: bool) -> None:
    large = SHORT if short else LARGE
    with folder() as where:
        sizes = {size: sqlite_home(where, size) for size in (SMALL, large)}
        urls = {size: (f"sqlite:///{home}/rootward.db", home) for size, home in sizes.items()}
        _compare("SQLite", large, {size: _side(*place) for size, place in urls.items()})
        with Postgres() as postgres:
            sides = {}
            for size in (SMALL, large):
                home, environ = postgres_home(where, size, postgres)
                sides[size] = _side(environ["ROOTWARD_DATABASE"], home)
            _compare("PostgreSQL", large, sides)


def _side(url: str, home: Path) -> Side:
    db = open_database(url, home=home)
    highest = db.read_sync(lambda conn: conn.exec_driver_sql("SELECT max(n) FROM certificates").scalar_one())
    return Side(db, datetime.now(UTC).replace(microsecond=0), highest // 2)


def _compare(store: str, large: int, sides: dict[int, Side]) -> None:
    rows = list(_ratios(large, sides))
    for side in sides.values():
        side.db.close()
    heading(f"Inventory pages on {store}: {large:,} certificates against {SMALL:,}")
    rows.sort(key=lambda one: -one[1])
    missed = [one for one in rows if one[1] > AIM]
    row("questions", str(len(rows)), f"above {AIM:g}: {len(missed)}", f"worst: {rows[0][1]:.1f}")
    for name, ratio, small, many in missed or rows[:3]:
        row(name, f"{small * 1e3:.1f} ms", f"{many * 1e3:.1f} ms", f"{ratio:.1f}")


def _ratios(large: int, sides: dict[int, Side]) -> Iterator[tuple[str, float, float, float]]:
    for place in ("first", "middle"):
        for name, filters in asked(sides[SMALL].now):
            times: dict[int, list[float]] = {size: [] for size in sides}
            for _ in range(ROUNDS):
                for size, side in sides.items():
                    took = side.db.read_sync(lambda conn, side=side: _page(conn, filters, side, place))  # type: ignore[misc]  # noqa: B023  # at once
                    times[size].append(took)
                if times[large][-1] > SLOWEST / ROUNDS:
                    break
            small, many = median(times[SMALL]), median(times[large])
            yield f"{name}, {place} page", many / max(small, FLOOR), small, many


def _page(conn: Connection, filters: Filters, side: Side, place: str) -> float:
    after: tuple[int, ...] | None = None
    if place == "middle":
        middle = side.now if filters.status != "expired" else side.now - timedelta(days=20)
        after = (int((middle + timedelta(days=3)).timestamp()), side.middle) if filters.by_expiry else (side.middle,)
    began = time.perf_counter()
    search(conn, replace(filters), now=side.now, limit=LIMIT, after=after)
    return time.perf_counter() - began


if __name__ == "__main__":
    main("--short" in sys.argv)
