"""ACME orders in a store that has a million of them, against one with a thousand, on SQLite: 32 accounts, to whom all
the orders in the store belong, and the same load as bench/acme.py, in turn. `python -m bench.acme_full [--short]`.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import uvloop

import tests.support.server as servers
from bench.acme import Target, ours, settings
from bench.filled import LARGE, SHORT
from bench.order import Key
from bench.report import heading, median, row
from bench.validating import answering
from tools.fill import Wanted, fill

servers.READY_SECONDS = 300
SMALL, ACCOUNTS, ROUNDS = 1_000, 32, 5


def main(short: bool) -> None:
    large, seconds = (SHORT, 2.0) if short else (LARGE, 5.0)
    keys = [Key() for _ in range(ACCOUNTS)]
    rates: dict[int, list[float]] = {SMALL: [], large: []}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rootward-acme-")))
        runner = stack.enter_context(asyncio.Runner(loop_factory=uvloop.new_event_loop))
        dns, http = stack.enter_context(answering([key.thumbprint for key in keys]))
        targets: dict[int, Target] = {}
        for size in rates:
            home = folder / f"home-{size}"
            with ours(str(size), home, settings(dns, http), {}) as target:
                runner.run(target.register(keys))
            fill(home, Wanted(size, size // 50, orders=size), environ=os.environ)
            targets[size] = stack.enter_context(ours(str(size), home, settings(dns, http), {}))
            runner.run(targets[size].register(keys))
        for _ in range(ROUNDS):
            for size, target in targets.items():
                before = len(target.times[ACCOUNTS]), target.spent[ACCOUNTS][0]
                runner.run(target.measure(ACCOUNTS, seconds))
                count, took = len(target.times[ACCOUNTS]) - before[0], target.spent[ACCOUNTS][0] - before[1]
                rates[size].append(count / took)
    cost = {size: target.spent[ACCOUNTS][1] / len(target.times[ACCOUNTS]) for size, target in targets.items()}
    heading("ACME orders in a full store, SQLite, 32 accounts that all of it belongs to")
    row("", "orders", "CPU of the server for each")
    for size, found in rates.items():
        row(f"{size:,} orders", f"{median(found):,.0f}/s", f"{cost[size] * 1e3:.1f} ms")
    slower = median([few / many for few, many in zip(rates[SMALL], rates[large], strict=True)])
    row("costs (aim: at most 1.2)", f"{slower:.2f}", f"{cost[large] / cost[SMALL]:.2f}")


if __name__ == "__main__":
    main("--short" in sys.argv)
