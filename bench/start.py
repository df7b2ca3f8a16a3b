"""Starting to serve, and memory when idle, with a million certificates against ten thousand, on SQLite.

Starts alternate; a start is from the command to its ready line, idle memory what is resident ten seconds later.
`python -m bench.start [--short]`.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from bench.filled import LARGE, SHORT, SMALL, folder, sqlite_home
from bench.report import heading, median, row
from tests.support.server import Server

ROUNDS = 3
IDLE = 10.0


def main(short: bool) -> None:
    large = SHORT if short else LARGE
    found: dict[int, list[tuple[float, float]]] = {SMALL: [], large: []}
    with folder() as where:
        homes = {size: sqlite_home(where, size) for size in found}
        for _ in range(ROUNDS):
            for size, home in homes.items():
                found[size].append(_start(home))
    starts, idle = ({size: median([one[at] for one in every]) for size, every in found.items()} for at in (0, 1))
    heading("Start and idle memory, SQLite")
    row("certificates", "ready after", "resident when idle")
    for size in found:
        row(f"{size:,}", f"{starts[size]:.2f} s", f"{idle[size]:.0f} MiB")
    row("ratio", f"{starts[large] / starts[SMALL]:.2f} (aim: under 3)", f"{idle[large] / idle[SMALL]:.2f} (aim: 1)")


def _start(home: Path) -> tuple[float, float]:
    began = time.perf_counter()
    with Server(home) as server:
        took = time.perf_counter() - began
        time.sleep(IDLE)
        assert server.process is not None  # noqa: S101  # it runs
        status = Path(f"/proc/{server.process.pid}/status").read_text()
    resident = next(line for line in status.splitlines() if line.startswith("VmRSS"))
    return took, int(resident.split()[1]) / 1024


if __name__ == "__main__":
    main("--short" in sys.argv)
