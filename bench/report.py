"""How benches print: the machine and the commit first, then rows. Ratios are of one run; absolute figures only say
what it ran on.
"""

from __future__ import annotations

import os
import platform
import sqlite3
import statistics
import subprocess
from collections.abc import Sequence
from pathlib import Path

from cryptography.hazmat.backends.openssl import backend

_heads: list[bool] = []  # one, between a heading and its first row


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
    openssl = " ".join(backend.openssl_version_text().split()[:2])
    versions = f"Python {platform.python_version()}, {openssl}"
    versions += f", SQLite {sqlite3.sqlite_version}, PostgreSQL {_postgres()}"
    print(f"\n## {title}\n\n{os.cpu_count()} cores of {cpu}, {versions}, commit {commit or 'none'}\n", flush=True)
    _heads[:] = [True]


def _postgres() -> str:
    """The version of the server that the benches start."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    return found[-1].parents[1].name if found else "none"


def row(*cells: str) -> None:
    """A row of a Markdown table; the first one after a heading is the table's head."""
    print("| " + " | ".join(cells) + " |", flush=True)
    if _heads.pop() if _heads else False:
        print("|" + "---|" * len(cells), flush=True)


def median(values: Sequence[float]) -> float:
    return statistics.median(values)
