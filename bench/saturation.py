"""OCSP while issuance is saturated: p50 and p99 of one client on the plain listener, alone and beside 64 clients that
issue as fast as they are let; and how many of those were refused.

Every other question is about a serial that was never asked for, so that it has to be read and signed. The load comes
from a process of its own. `python -m bench.saturation [--short]`.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import uvloop

from bench.report import heading, median, row
from tests.contract.test_saturation import Connection, issuer_of, ocsp, post
from tests.support.rest import csr
from tests.support.server import Server

CLIENTS = 64
CSRS = 1000


def main(seconds: float) -> None:
    with tempfile.TemporaryDirectory() as folder, Server(Path(folder) / "home") as server:
        csrs = [csr(f"h{number}.bench.internal") for number in range(CSRS)]
        alone = _measured(server, seconds)
        queue: multiprocessing.Queue[Counter[int]] = multiprocessing.Queue()
        load = multiprocessing.Process(target=_load, args=(server.home, server.ports, csrs, seconds + 2, queue))
        load.start()
        time.sleep(1)
        beside = _measured(server, seconds)
        statuses = queue.get()
        load.join()
        with server.client() as client:
            stall = next(
                line.split()[1]
                for line in client.get("/metrics").text.splitlines()
                if line.startswith("rootward_loop_stall_seconds ")
            )
    heading(f"OCSP beside {CLIENTS} clients that issue, SQLite, one worker")
    for name, times in (("alone", alone), ("saturated", beside)):
        row(name, f"{len(times)} answers", f"p50 {median(times) * 1e3:.1f} ms", f"p99 {_p99(times) * 1e3:.1f} ms")
    row("ratio of p99", f"{_p99(beside) / _p99(alone):.1f}")
    row("issuance meanwhile", f"{statuses[201] / (seconds + 2):,.0f}/s", f"refused with 503: {statuses[503]}")
    row("longest stall of the event loop", f"{float(stall) * 1e3:.0f} ms")


def _p99(times: list[float]) -> float:
    return sorted(times)[int(len(times) * 0.99)]


def _measured(server: Server, seconds: float) -> list[float]:
    issuer = issuer_of(server)

    async def measure() -> list[float]:
        connection = Connection(server, "http")
        times: list[float] = []
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            serial = f"7f{len(times) // 2 if len(times) % 2 else time.perf_counter_ns():038x}"
            begin = time.perf_counter()
            status, _, _ = await connection.ask(ocsp(issuer, serial))
            times.append(time.perf_counter() - begin)
            if status != 200:
                raise AssertionError(status)
        await connection.close()
        return times

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(measure())


def _load(
    home: Path, ports: dict[str, int], csrs: list[str], seconds: float, queue: multiprocessing.Queue[Counter[int]]
) -> None:
    server = Server(home)
    server.ports = ports
    statuses: Counter[int] = Counter()

    async def client(number: int) -> None:
        connection, at, end = Connection(server, "https"), number, time.perf_counter() + seconds
        while time.perf_counter() < end:
            body = {"profile": "server", "csr": csrs[at % len(csrs)]}
            status, _, _ = await connection.ask(post(server, "/api/v1/certificates", body))
            statuses[status] += 1
            at += CLIENTS
        await connection.close()

    async def everybody() -> None:
        await asyncio.gather(*(client(number) for number in range(CLIENTS)))

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(everybody())
    queue.put(statuses)


if __name__ == "__main__":
    main(3 if "--short" in sys.argv else 10)
