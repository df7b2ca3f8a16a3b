"""Homes with a whole PKI, made once by the quickstart's own steps and copied; backups of them, and what is compared."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rootward import home as homes
from rootward import quickstart
from rootward.backup import create as creating
from rootward.backup import restore as restoring
from rootward.backup import verify as verifying
from rootward.ca import own
from rootward.ca.access import Caller, authenticate
from rootward.ca.installation import Installation
from rootward.ca.log import keep_head
from rootward.ca.publish import publish_due
from rootward.ca.reconcile import reconcile
from rootward.ca.responder import Responder
from rootward.ca.sequence import sequence
from rootward.config import Config, load_config
from rootward.keys import Argon2, Kek, kek_from_passphrase
from rootward.store import dump
from rootward.store.failpoint import armed
from tests.support.faults import Open
from tests.support.postgres import Postgres

SECONDS = 120
WORDS = "correct horse battery"
PASSPHRASE: Kek = kek_from_passphrase(WORDS, Argon2(memory_kib=8 * 1024, passes=1, lanes=1))
# What a restore changes on purpose.
ANEW = {
    ("certificates", "lease_until"),
    ("certificates", "indexed_at"),
    ("jobs", "lease"),
    ("jobs", "lease_until"),
    ("crl_numbers", "number"),
}


async def tick(inst: Installation) -> None:
    """The jobs of the audit log, once each: what waits gets its place, and this host keeps the head."""
    await sequence(inst)
    await keep_head(inst)


def quiet(_done: int, _total: int) -> None:
    """Nobody watches the progress."""


@dataclass(frozen=True)
class Backed:
    """A home that is whole: its folder, and its database's URL."""

    folder: Path
    url: str

    @property
    def config(self) -> Config:
        return load_config(self.folder, {}, {})

    @property
    def token(self) -> str:
        return (self.folder / "admin.token").read_text().strip()

    def backup(self, out: Path, passphrase: Kek = PASSPHRASE) -> creating.Made:
        """A backup of it at `out`."""
        return creating.create(self.config, out, passphrase, quiet)

    def rows(self) -> dict[str, list[dict[str, Any]]]:
        """All rows of all tables, raw."""
        with dump.snapshot(self.url) as conn:
            return {
                name: [dict(zip(columns, row, strict=True)) for row in dump.rows(conn, name, columns)]
                for name, columns in dump.tables(conn)
            }

    def files(self) -> dict[str, tuple[int, bytes]]:
        """Mode and bytes of every file but the database's."""
        return {
            str(path.relative_to(self.folder)): (path.stat().st_mode & 0o777, path.read_bytes())
            for path in sorted(self.folder.rglob("*"))
            if path.is_file() and not path.name.startswith("rootward.db")
        }

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Open]:
        """The home as a server opens it; a new token where the restored home has none."""
        if not (self.folder / "admin.token").exists():
            homes.recover(self.folder, {})
        db = homes.open_store(self.config)
        try:
            inst: Installation = await homes.open_checked(self.config, db, {})
            own.register(inst)
            await reconcile(inst)
            responder = Responder(inst)
            await responder.renew()
            await publish_due(inst)
            await tick(inst)
            yield Open(inst, Caller(await authenticate(inst, self.token), "req_backup"), responder)
        finally:
            db.close()


def put_back(
    path: Path, home: Path, database: str | None = None, passphrase: Kek = PASSPHRASE, **outside: Any
) -> tuple[Backed, restoring.Restored]:
    """The home that a backup was restored into, and what was said of it."""
    seen = restoring.Outside(**outside)
    done = restoring.restore(path, passphrase, home=home, database=database, outside=seen, environ={}, seen=quiet)
    return Backed(home, load_config(home, {}, {}).database.url), done


def restored(path: Path, home: Path, *arguments: Any, **outside: Any) -> Backed:
    """As `put_back`, of a backup in which nothing is wrong."""
    made, done = put_back(path, home, *arguments, **outside)
    assert done.findings == done.notes == []
    return made


def verified(path: Path, passphrase: Kek = PASSPHRASE) -> verifying.Verified:
    """What checking it says."""
    return verifying.verify(path, passphrase, {}, quiet)


class Maker:
    """Founds one home of each dialect, and hands out copies."""

    def __init__(self, folder: Path, postgres: Postgres) -> None:
        self._folder, self._postgres = folder, postgres
        self._made: dict[str, Backed] = {}

    @contextmanager
    def home(self, dialect: str, target: Path) -> Iterator[Backed]:
        """A copy at `target`, gone after the `with` block."""
        if dialect == "sqlite":
            made = self._found(dialect, "")
            shutil.copytree(made.folder, target)
            yield Backed(target, f"sqlite:///{target}/rootward.db")
            return
        url = self._postgres.url(self._prepare)
        made = self._made[dialect]
        shutil.copytree(made.folder, target)
        settings = target / "rootward.toml"
        settings.write_text(settings.read_text().replace(made.url, url))
        try:
            yield Backed(target, url)
        finally:
            self._postgres.drop(url)

    def empty(self, dialect: str) -> str:
        """What `restored` takes as its database: the home's own file, or a fresh PostgreSQL database."""
        return "sqlite" if dialect == "sqlite" else self._postgres.url()

    def _prepare(self, url: str) -> None:
        self._found("postgresql", url)

    def _found(self, dialect: str, url: str) -> Backed:
        if dialect not in self._made:
            folder = self._folder / dialect
            flags = {"lab": True, "org": "Test", "database.url": url or None}
            config = load_config(folder, {}, flags)
            homes.make_home(config)
            db = homes.open_store(config)
            try:
                asyncio.run(quickstart._found(config, db, []))
                asyncio.run(quickstart._complete(config, db))
            finally:
                db.close()
            self._made[dialect] = Backed(folder, config.database.url)
        return self._made[dialect]


_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["tests.support.backup"])


def make(home: Backed, out: Path) -> None:
    """`Backed.backup`, to be run by `ended`."""
    home.backup(out)


def ended(traps: str, work: Callable[..., object], *arguments: object) -> int | None:
    """Run `work` in a process of its own with failpoints armed; its exit code, a signal's number below zero."""
    process = _processes.Process(target=_under, args=(traps, work, arguments))
    process.start()
    process.join(SECONDS)
    return process.exitcode


def _under(traps: str, work: Callable[..., object], arguments: tuple[object, ...]) -> None:
    with armed(traps):
        work(*arguments)


def cli(*arguments: object, **environ: str) -> subprocess.CompletedProcess[str]:
    """`rootward backup …` in a process of its own."""
    command = [sys.executable, "-m", "rootward", "backup", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environ})


def passphrase_file(folder: Path, words: str = WORDS) -> Path:
    """A file with the passphrase, as it must be."""
    path = folder / "passphrase"
    path.write_text(words + "\n")
    path.chmod(0o600)
    return path
