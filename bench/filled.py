"""Homes with many certificates for the benches, made once and kept in one folder for as long as the benches run.

The folder is `ROOTWARD_BENCH`, or one of this process alone. A private PostgreSQL is a process's own: `postgres_home`
makes its home anew.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import tests.support.server as servers
from tests.support.postgres import Postgres
from tests.support.server import Server
from tools.fill import Wanted, fill

servers.READY_SECONDS = 300
SMALL, LARGE = 10_000, 1_000_000
SHORT = 50_000  # what stands for a million in the short form


@contextmanager
def folder() -> Iterator[Path]:
    """Where homes are kept."""
    kept = os.environ.get("ROOTWARD_BENCH")
    if kept:
        Path(kept).mkdir(parents=True, exist_ok=True)
        yield Path(kept)
        return
    with tempfile.TemporaryDirectory(prefix="rootward-bench-") as made:
        yield Path(made)


def sqlite_home(where: Path, size: int) -> Path:
    """A home on SQLite with so many certificates, one in fifty revoked; nobody serves it."""
    home = where / f"home-{size}"
    if not (home / "filled").exists():
        shutil.rmtree(home, ignore_errors=True)
        _found(home, size, {})
        (home / "filled").touch()
    return home


def postgres_home(where: Path, size: int, postgres: Postgres) -> tuple[Path, dict[str, str]]:
    """The same on PostgreSQL, and the environment that its server needs."""
    home, environ = where / f"home-pg-{size}", {"ROOTWARD_DATABASE": postgres.url()}
    shutil.rmtree(home, ignore_errors=True)
    _found(home, size, environ)
    return home, environ


def _found(home: Path, size: int, environ: dict[str, str]) -> None:
    with Server(home, environ=environ):
        pass
    if size:
        fill(home, Wanted(size, size // 50), environ={**os.environ, **environ})
