"""REST issuance into a store that has a million certificates, against an empty one, on SQLite: the same load as
bench/rest.py, in turn. `python -m bench.full [--short]`.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import ExitStack

import uvloop

from bench.filled import LARGE, SHORT, folder, sqlite_home
from bench.report import heading, median, row
from bench.rest import load, make_csrs
from tests.support.server import Server

ROUNDS = 5


def main(short: bool) -> None:
    large, seconds = (SHORT, 2.0) if short else (LARGE, 5.0)
    csrs = make_csrs()
    rates: dict[int, list[float]] = {0: [], large: []}
    with ExitStack() as stack:
        where = stack.enter_context(folder())
        runner = stack.enter_context(asyncio.Runner(loop_factory=uvloop.new_event_loop))
        servers = {size: stack.enter_context(Server(sqlite_home(where, size))) for size in rates}
        for _ in range(ROUNDS):
            for size, server in servers.items():
                times, took = runner.run(load([server], csrs, seconds))
                rates[size].append(len(times) / took)
    ratios = [many / none for none, many in zip(rates[0], rates[large], strict=True)]
    heading("REST issuance into a full store, SQLite")
    row("empty", f"{median(rates[0]):,.0f}/s")
    row(f"{large:,} certificates", f"{median(rates[large]):,.0f}/s", f"{median(ratios):.2f} (aim: at least 0.8)")


if __name__ == "__main__":
    main("--short" in sys.argv)
