"""How benches print: the machine and the commit first, then rows. Ratios are of one run; absolute figures only say
what it ran on.
"""

from __future__ import annotations

import platform
import statistics
import subprocess
from collections.abc import Sequence
from pathlib import Path


def heading(title: str) -> None:
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False, cwd=Path(__file__).parent
    ).stdout.strip()
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    print(f"\n{title}\n{cpu}, Python {platform.python_version()}, commit {commit or 'none'}")


def row(*cells: str) -> None:
    print("  " + "  |  ".join(cells))


def median(values: Sequence[float]) -> float:
    return statistics.median(values)
