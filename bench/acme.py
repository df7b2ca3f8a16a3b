"""Whole ACME orders (newOrder, authorization, challenge, http-01 on loopback, poll, finalize, poll, download), with 1
and 32 accounts at a time, on SQLite and PostgreSQL, against pebble in the same run; then SQL statements and commits.

A connection for each account; client, responder, servers and databases share the machine. The servers take turns.
`python -m bench.acme [--short]`.
"""

from __future__ import annotations

import asyncio
import os
import re
import ssl
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import uvloop

from bench.order import Answer, Client, Gate, Key, Supply, load
from bench.pebble import Pebble
from bench.report import heading, median, row
from bench.validating import answering
from tests.support.postgres import Postgres
from tests.support.server import Server

ACCOUNTS = (1, 32)
ROUNDS = 3
_COUNTED = 40  # orders
_MOST = {1: 200, 32: 25}  # orders a second that one account may make: more are not prepared
_TICK = os.sysconf("SC_CLK_TCK")
# What follows on which request; validations are between the challenge and the polls.
STEPS = {"authorization poll": "challenge", "order poll": "order"}
# The worker's own, which no order waits for.
_JOBS = re.compile(rb"\b(jobs|heads|facts)\b|SELECT watermark|UPDATE events|FROM events|unixepoch|clock_timestamp")


@dataclass
class Target:
    """A server that runs, its accounts, and what was measured: for each number of accounts the orders' times, how long
    it was in all, and CPU seconds of the server and of the client.
    """

    name: str
    directory: str
    root: Path
    pid: int
    gate: Gate | None = None
    clients: list[Client] = field(default_factory=list)
    supply: Supply = field(default_factory=Supply)
    times: dict[int, list[float]] = field(default_factory=lambda: {number: [] for number in ACCOUNTS})
    spent: dict[int, list[float]] = field(default_factory=lambda: {number: [0.0] * 3 for number in ACCOUNTS})

    async def register(self, keys: list[Key]) -> None:
        trust = ssl.create_default_context(cafile=str(self.root))
        self.clients = [Client(self.directory, trust, key, n, gate=self.gate) for n, key in enumerate(keys)]
        for client in self.clients:
            await client.start()

    async def measure(self, accounts: int, seconds: float) -> None:
        self.supply.make(accounts, int(seconds * _MOST[accounts]))
        before = cpu_of(self.pid), time.process_time()
        times, took = await load(self.clients[:accounts], self.supply, seconds)
        self.times[accounts] += times
        after = took, cpu_of(self.pid) - before[0], time.process_time() - before[1]
        self.spent[accounts] = [old + new for old, new in zip(self.spent[accounts], after, strict=True)]

    def rate(self, accounts: int) -> float:
        return len(self.times[accounts]) / self.spent[accounts][0]

    def row(self, accounts: int, pebble: float) -> None:
        times, (_, server, client) = sorted(self.times[accounts]), self.spent[accounts]
        p50, p99, count = median(times), times[int(len(times) * 0.99)], len(times)
        row(
            *(self.name, str(accounts), f"{self.rate(accounts):,.0f}/s", f"{self.rate(accounts) / pebble:.2f}"),
            *(f"{p50 * 1e3:.0f} ms", f"{p99 * 1e3:.0f} ms"),
            *(f"{server / count * 1e3:.1f} ms", f"{client / count * 1e3:.1f} ms"),
        )


def cpu_of(pid: int) -> float:
    """CPU seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def settings(dns: int, http: int) -> str:
    """What a lab's rootward.toml says."""
    lines = [f"http01_port = {http}", f'resolvers = ["127.0.0.1:{dns}"]', "orders_per_hour = 10000"]
    return "\n".join(["lab = true", "[acme]", *lines, "[egress]", 'allow = ["127.0.0.0/8"]']) + "\n"


@contextmanager
def ours(
    name: str, home: Path, text: str, environ: dict[str, str], program: tuple[str, ...] | None = None
) -> Iterator[Target]:
    """A server of ours in a home that is empty, or was made before."""
    home.mkdir(mode=0o700, exist_ok=True)
    if not (home / "rootward.toml").exists():
        (home / "rootward.toml").write_text(text)
    server = Server(home, environ=environ)
    server.program = program or server.program
    with server:
        if server.process is None:
            raise AssertionError("it is ready")
        yield Target(name, f"{server.url}/acme/server/directory", server.root, server.process.pid)


def main(short: bool) -> None:
    seconds = 2.0 if short else 8.0
    keys = [Key() for _ in range(max(ACCOUNTS))]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rootward-acme-")))
        runner = stack.enter_context(asyncio.Runner(loop_factory=uvloop.new_event_loop))
        dns, http = stack.enter_context(answering([key.thumbprint for key in keys]))
        postgres = stack.enter_context(Postgres())
        text = settings(dns, http)
        with ExitStack() as running:
            pebble = running.enter_context(Pebble(folder / "pebble", dns=dns, http=http))
            targets = [
                Target("pebble", pebble.directory, pebble.root, pebble.pid, pebble.gate),
                running.enter_context(ours("SQLite", folder / "sqlite", text, {})),
                running.enter_context(ours("PostgreSQL", folder / "pg", text, {"ROOTWARD_DATABASE": postgres.url()})),
            ]
            for target in targets:
                runner.run(target.register(keys))
            for _ in range(1 if short else ROUNDS):
                for accounts in ACCOUNTS:
                    for target in targets:
                        runner.run(target.measure(accounts, seconds))
            heading("ACME orders, http-01 on loopback, against pebble (VA_NOSLEEP=1, WFE_NONCEREJECT=0)")
            row(
                "", "accounts", "orders", "of pebble (aim: 0.5)", "p50", "p99", "CPU of the server", "CPU of the client"
            )
            for accounts in ACCOUNTS:
                for target in targets:
                    target.row(accounts, targets[0].rate(accounts))
        for name, environ in (("SQLite", {}), ("PostgreSQL", {"ROOTWARD_DATABASE": postgres.url()})):
            runner.run(counted(name, folder / f"counted-{name}", text, environ, keys))


class _Watched(Client):
    """Remembers what the server had written down at each answer."""

    log: Path
    marks: list[tuple[str, int]]

    async def post(self, step: str, url: str, payload: str = "", *statuses: int) -> Answer:
        answer = await super().post(step, url, payload, *statuses)
        self.marks.append((step, self.log.stat().st_size))
        return answer


async def counted(name: str, home: Path, text: str, environ: dict[str, str], keys: list[Key]) -> None:
    """Print the statements and commits of each step of an order, one order after the other, jobs included."""
    log = home.with_suffix(".sql")
    supply = Supply()
    supply.make(1, _COUNTED + 1)
    with ours(name, home, text, environ, (sys.executable, "-m", "bench.counted", str(log))) as target:
        client = _Watched(target.directory, ssl.create_default_context(cafile=str(target.root)), keys[0], 0)
        client.log, client.marks = log, []
        await client.start()
        orders = list(supply.of(0))
        await client.order(*orders.pop())
        client.marks.clear()
        begin = log.stat().st_size
        for wanted in orders:
            await client.order(*wanted)
        marks = client.marks
    data, last = log.read_bytes(), begin
    posts, statements, commits = Counter[str](), Counter[str](), Counter[str]()
    job = False
    for asked, size in marks:
        step, last, lines = STEPS.get(asked, asked), size, data[last:size].splitlines()
        posts[step] += 1
        for line in lines:
            if line != b"C":
                job = _JOBS.search(line) is not None
            (commits if line == b"C" else statements)["jobs" if job else step] += 1
    heading(f"SQL of an ACME order, {name}, {_COUNTED} orders of one account, one after the other")
    row("step", "POSTs", "statements", "commits (aim: 8)")
    jobs = [f"{found.pop('jobs', 0) / _COUNTED:.2f}" for found in (statements, commits)]
    for step, number in posts.items():
        each = (number, statements[step], commits[step])
        row(step, *(f"{value / _COUNTED:.2f}" for value in each))
    row("all", *(f"{found.total() / _COUNTED:.2f}" for found in (posts, statements, commits)))
    row("of each POST (aim: 3)", "", f"{statements.total() / posts.total():.2f}", "")
    row("jobs meanwhile: audit tree, leases, counts", "", *jobs)


if __name__ == "__main__":
    main("--short" in sys.argv)
