"""Issuance through `issue` with the key in a signer process, against the same with the key in this process: both with
a store of their own on this disk, 32 at a time, P-256. Rounds alternate. `python bench/signer.py [--short]`.

The two processes share the machine: what the signer does anew (parsing, admitting, linting, writing down) costs about
as much again as the web process's own part, so with less than two free processors the ratio is that of the work.
"""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
import time
from pathlib import Path

from bench.issuance import spare_the_collector
from bench.report import heading, median, row
from rootward.ca.access import Caller
from rootward.ca.installation import Installation
from rootward.ca.issue import Ask, issue
from rootward.core.csr import parse_csr
from tests.support.installation import lab
from tests.support.signer import SignerLab, signer_lab
from tests.vectors.csrs import good_csr

ROUNDS = 7
TOGETHER = 32
LIMITS = "[authorities.issuing]\ncertificates_per_hour = 10000000\n"


def _spent(process: int) -> float:
    """Processor seconds of a process so far."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def _rate(inst: Installation, caller: Caller, seconds: float, costs: dict[int, float]) -> float:
    """Issuances a second; adds to `costs` what each issuance cost each of those processes."""
    csr = good_csr(names=["dns:a.internal"])
    end, done = time.perf_counter() + seconds, 0

    async def ask() -> None:
        nonlocal done
        while time.perf_counter() < end:
            await issue(inst, Ask("server", parse_csr(csr)), caller)
            done += 1

    began, before = time.perf_counter(), {process: _spent(process) for process in costs}
    await asyncio.gather(*(ask() for _ in range(TOGETHER)))
    taken = time.perf_counter() - began
    for process, spent in before.items():
        costs[process] += (_spent(process) - spent) / done / ROUNDS
    return done / taken


async def _measure(folder: str, seconds: float) -> None:
    with signer_lab(Path(folder) / "signer", limits=LIMITS) as remote:
        async with lab(f"sqlite:///{folder}/here.db") as here:
            spare_the_collector()
            here_costs, costs = {os.getpid(): 0.0}, {os.getpid(): 0.0, _process(remote): 0.0}
            plain, rates = list[float](), list[float]()
            for _ in range(ROUNDS):
                plain.append(await _rate(here.inst, here.admin, seconds / ROUNDS / 2, here_costs))
                rates.append(await _rate(remote.inst, remote.admin, seconds / ROUNDS / 2, costs))
            used = [cost * 1e6 for cost in (*here_costs.values(), *costs.values())]
    heading("Issuance with the key in this process and in a signer, P-256, 32 at a time")
    ratio = median([one / base for one, base in zip(rates, plain, strict=True)])
    row("in this process", f"{median(plain):,.0f}/s", f"{used[0]:,.0f} µs of a processor each")
    row(
        "in a signer process",
        f"{median(rates):,.0f}/s, {ratio:.2f} of in this process (wanted: 0.7)",
        f"{used[1]:,.0f} µs here and {used[2]:,.0f} µs in the signer",
    )


def _process(made: SignerLab) -> int:
    assert made.signer.process is not None  # noqa: S101  # a bench: it was started a moment ago
    return made.signer.process.pid


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        (Path(made) / "signer").mkdir()
        asyncio.run(_measure(made, 8.0 if "--short" in sys.argv else 40.0))
