"""REST issuance with one replica and with two on PostgreSQL, and on SQLite, over TLS: rates, write transactions of each
issuance (jobs included), median and p99. Load and servers share the machine. `python -m bench.replicas [--short]`.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import psycopg
import uvloop

from bench.filled import folder, postgres_home, sqlite_home
from bench.report import heading, median, row
from bench.rest import CONNECTIONS, load, make_csrs
from tests.support.postgres import Postgres
from tests.support.server import Server

ROUNDS = 3


def main(short: bool) -> None:
    seconds = 2.0 if short else 6.0
    csrs = make_csrs()
    heading(f"REST issuance, {CONNECTIONS} connections over TLS")
    row("", "rate", "write transactions of each", "p50", "p99")
    with folder() as where, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:

        def measure(name: str, servers: list[Server], count: Callable[[], int] | None) -> None:
            runner.run(load(servers, csrs, 1))
            times, taken, before = list[float](), 0.0, count() if count else 0
            for _ in range(ROUNDS):
                found, took = runner.run(load(servers, csrs, seconds))
                times += found
                taken += took
            each = f"{(count() - before) / len(times):.2f}" if count else "2, many in one fsync"
            times.sort()
            p99 = times[int(len(times) * 0.99)]
            row(name, f"{len(times) / taken:,.0f}/s", each, f"{median(times) * 1e3:.0f} ms", f"{p99 * 1e3:.0f} ms")

        with Server(sqlite_home(where, 0)) as server:
            measure("SQLite", [server], None)
        with Postgres() as postgres:
            home, environ = postgres_home(where, 0, postgres)
            second = _copy(home)

            def written() -> int:
                url = environ["ROOTWARD_DATABASE"].replace("postgresql+psycopg://", "postgresql://")
                with psycopg.connect(url) as conn:
                    found = conn.execute("SELECT pg_current_xact_id()::text").fetchone()
                return int(found[0]) if found else 0

            with Server(home, environ=environ) as one:
                measure("PostgreSQL, one replica", [one], written)
                with Server(second, environ=environ) as other:
                    measure("PostgreSQL, two replicas", [one, other], written)


def _copy(home: Path) -> Path:
    """A second replica's home: the same keys and settings."""
    second = home.with_name(home.name + "-second")
    shutil.rmtree(second, ignore_errors=True)
    shutil.copytree(home, second)
    return second


if __name__ == "__main__":
    main("--short" in sys.argv)
