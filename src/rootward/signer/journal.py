"""What a signer wrote down before it signed: `journal.db` in its home, which this process alone has open.

Each signature's TBS hash is committed and flushed first (WAL, synchronous=FULL); what cannot be written is not signed.
Entries that wait together are one transaction and one fsync. `signed` says of each serial whether it was seen revoked:
0 not, 1 on hold, 2 for good, 3 for good and over. Times are Unix seconds.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from rootward.core.pinned import Change, Past
from rootward.core.problems import Problem

FILE: Final = "journal.db"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS journal (
    n INTEGER PRIMARY KEY AUTOINCREMENT, at INTEGER NOT NULL, kind TEXT NOT NULL, key TEXT NOT NULL, what TEXT NOT NULL,
    tbs BLOB, peer INTEGER, why TEXT
);
CREATE INDEX IF NOT EXISTS journal_at ON journal (at);
CREATE TRIGGER IF NOT EXISTS journal_kept BEFORE DELETE ON journal BEGIN SELECT raise(ABORT, 'append only'); END;
CREATE TRIGGER IF NOT EXISTS journal_fixed BEFORE UPDATE ON journal BEGIN SELECT raise(ABORT, 'append only'); END;
CREATE TABLE IF NOT EXISTS keys (n INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS signed (
    key INTEGER NOT NULL, serial BLOB NOT NULL, ends INTEGER NOT NULL, revoked INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (key, serial)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS signed_revoked ON signed (key, revoked) WHERE revoked > 0;
CREATE TABLE IF NOT EXISTS crls (
    key INTEGER NOT NULL, number BLOB NOT NULL, updated INTEGER NOT NULL, PRIMARY KEY (key, number)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS pinned (name TEXT PRIMARY KEY, hash TEXT NOT NULL);
"""


class Full(Exception):
    """The journal cannot be written, so nothing is signed."""


@dataclass(frozen=True)
class Entry:
    """One line. `kind` is certificate, own, crl, failed or refused; or pinned (a profile), installed (an authority),
    let-go (a serial) and forgotten (one of those that is there no more). `what` is a serial, a number, a name.
    """

    kind: str
    at: datetime
    key: str
    what: str
    tbs: bytes | None = None  # SHA-256
    peer: int | None = None
    why: str | None = None


_T = TypeVar("_T")
_Step = Callable[[sqlite3.Connection], bool]


class Journal:
    """Open while the process lives. Problem RW-HOME where another signer has it."""

    def __init__(self, home: Path) -> None:
        self._lock = os.open(home / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            raise Problem("RW-HOME", f"Another signer runs in {home}.") from error
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="journal")
        self._waiting: list[tuple[_Step, asyncio.Future[bool]]] = []
        self._turn: asyncio.Task[None] | None = None
        descriptor = os.open(home / FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.close(descriptor)
        self._db = sqlite3.connect(home / FILE, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.executescript(_SCHEMA)
        self._numbers: dict[str, int] = dict(self._db.execute("SELECT id, n FROM keys").fetchall())

    def close(self) -> None:
        """Let another signer have it."""
        self._thread.shutdown()
        self._db.close()
        os.close(self._lock)

    # Reading: before anything is served, or in the journal's own thread

    def spent(self, key: str, since: datetime) -> Iterator[tuple[str, datetime]]:
        """(kind, when) of what was signed with this key since then, oldest first."""
        rows = self._db.execute(
            "SELECT kind, at FROM journal WHERE at >= ? AND key = ? AND kind IN ('certificate', 'own', 'crl') "
            "ORDER BY n",
            (_at(since), key),
        )
        for kind, at in rows:
            yield kind, datetime.fromtimestamp(at, UTC)

    async def remembered(self, key: str) -> tuple[set[bytes], set[bytes], Past]:
        """The serials that were seen revoked for good, those on hold, and the last CRLs."""
        return await self._soon(lambda: self._remembered(self._number(key)))

    async def ends(self, key: str, serials: Iterable[bytes]) -> dict[bytes, datetime]:
        """The last second of each of these certificates."""

        def read() -> dict[bytes, datetime]:
            found, n = {}, self._number(key)
            for serial in serials:
                row = self._db.execute("SELECT ends FROM signed WHERE key = ? AND serial = ?", (n, serial)).fetchone()
                found[serial] = datetime.fromtimestamp(row[0], UTC)
            return found

        return await self._soon(read)

    def _remembered(self, n: int) -> tuple[set[bytes], set[bytes], Past]:
        final, held = (
            {row[0] for row in self._db.execute("SELECT serial FROM signed WHERE key = ? AND revoked = ?", (n, state))}
            for state in (2, 1)
        )
        crls = self._db.execute(
            "SELECT number, updated FROM crls WHERE key = ? ORDER BY number DESC LIMIT 2", (n,)
        ).fetchall()
        last = int.from_bytes(crls[0][0], "big") if crls else 0
        return final, held, Past(last, tuple(datetime.fromtimestamp(at, UTC) for _, at in crls))

    # Writing

    async def sign_certificate(self, entry: Entry, serial: bytes, ends: datetime) -> bool:
        """Write down that this serial is signed; False where it was before, and then nothing is written."""

        def step(db: sqlite3.Connection) -> bool:
            made = db.execute(
                "INSERT OR IGNORE INTO signed (key, serial, ends) VALUES (?, ?, ?)",
                (self._number(entry.key), serial, _at(ends)),
            )
            if made.rowcount != 1:
                return False
            _write(db, entry)
            return True

        return await self._commit(step)

    async def sign_crl(self, entry: Entry, number: int, updated: datetime, change: Change) -> None:
        """Write down that this CRL is signed, and what it says otherwise than the ones before."""

        def step(db: sqlite3.Connection) -> bool:
            n = self._number(entry.key)
            for state, serials in ((2, change.final), (1, change.held), (0, change.released), (3, change.forgotten)):
                db.executemany(
                    "UPDATE signed SET revoked = ? WHERE key = ? AND serial = ?", ((state, n, s) for s in serials)
                )
            db.execute("INSERT INTO crls VALUES (?, ?, ?)", (n, number.to_bytes(20, "big"), _at(updated)))
            db.execute(
                "DELETE FROM crls WHERE key = ? AND number NOT IN "
                "(SELECT number FROM crls WHERE key = ? ORDER BY number DESC LIMIT 2)",
                (n, n),
            )
            _write(db, entry)
            return True

        await self._commit(step)

    async def note(self, entry: Entry) -> None:
        """Write down what was refused, or failed."""
        await self._commit(lambda db: _write(db, entry))

    async def pin(self, pinned: Mapping[str, tuple[str, Entry]], at: datetime) -> None:
        """All that is pinned, by a name of its own: a hash of its content, and the entry that is written down unless
        one was with that hash. So is what was here before and is not now.
        """

        def step(db: sqlite3.Connection) -> bool:
            before = dict(db.execute("SELECT name, hash FROM pinned").fetchall())
            for name in sorted(before.keys() - pinned.keys()):
                db.execute("DELETE FROM pinned WHERE name = ?", (name,))
                _write(db, Entry("forgotten", at, "", name))
            for name, (digest, entry) in pinned.items():
                if before.get(name) != digest:
                    db.execute("INSERT OR REPLACE INTO pinned VALUES (?, ?)", (name, digest))
                    _write(db, entry)
            return True

        await self._commit(step)

    async def _commit(self, step: _Step) -> bool:
        done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append((step, done))
        if self._turn is None:
            self._turn = asyncio.create_task(self._turns())
        return await done

    async def _turns(self) -> None:
        """Commit what waits, again and again until nothing does."""
        try:
            while self._waiting:
                group, self._waiting = self._waiting, []
                outcome: list[bool] | Exception
                try:
                    outcome = await self._soon(partial(self._together, [step for step, _ in group]))
                except (sqlite3.Error, OSError) as error:
                    outcome = Full(f"the journal cannot be written: {error}")
                for place, (_, done) in enumerate(group):
                    if done.done():
                        continue  # whoever waited has gone
                    if isinstance(outcome, Exception):
                        done.set_exception(outcome)
                    else:
                        done.set_result(outcome[place])
        finally:
            self._turn = None

    def _together(self, steps: list[_Step]) -> list[bool]:
        db = self._db
        db.execute("BEGIN IMMEDIATE")
        try:
            outcome = [step(db) for step in steps]
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            self._numbers = dict(db.execute("SELECT id, n FROM keys").fetchall())
            raise
        return outcome

    async def _soon(self, call: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call)

    def _number(self, key: str) -> int:
        if key not in self._numbers:
            self._db.execute("INSERT OR IGNORE INTO keys (id) VALUES (?)", (key,))
            self._numbers[key] = self._db.execute("SELECT n FROM keys WHERE id = ?", (key,)).fetchone()[0]
        return self._numbers[key]


def read_entries(home: Path, *, limit: int) -> list[Entry]:
    """The last entries, newest first, also while the signer runs. Problem RW-HOME where there is no journal."""
    path = home / FILE
    if not path.exists():
        raise Problem("RW-HOME", f"There is no journal in {home} yet: the signer has not run.")
    db = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        rows = db.execute(
            "SELECT kind, at, key, what, tbs, peer, why FROM journal ORDER BY n DESC LIMIT ?", (limit,)
        ).fetchall()
    finally:
        db.close()
    return [Entry(kind, datetime.fromtimestamp(at, UTC), *rest) for kind, at, *rest in rows]


def _write(db: sqlite3.Connection, entry: Entry) -> bool:
    db.execute(
        "INSERT INTO journal (at, kind, key, what, tbs, peer, why) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (_at(entry.at), entry.kind, entry.key, entry.what, entry.tbs, entry.peer, entry.why),
    )
    return True


def _at(moment: datetime) -> int:
    return int(moment.timestamp())
