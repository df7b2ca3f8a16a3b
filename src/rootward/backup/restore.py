"""Putting a backup back: into a new home and an empty database, all of it or nothing.

Everything is made in `.NAME.restoring` beside the home. On SQLite the database is in there too, and the rename of the
folder is the one step that counts; on PostgreSQL the tables are one transaction that is committed right before. What a
restore leaves that was killed is thrown away by the next one (a database that was committed and has no home yet is
refused: drop it).

The restored installation goes on above what the backup knows: serials are random, an online CRL's number is never below
the present moment in milliseconds, open intents are closed as orphans at the first start, and rows get numbers above
those that are there. What happened after the backup it cannot know: `head` says how much that was.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, make_url

from rootward import config as settings
from rootward import home as homes
from rootward.backup import form, log, verify
from rootward.backup.create import LARGEST_FILE, is_inside, is_secret
from rootward.ca.access import SYSTEM
from rootward.ca.recall import Recalled, recall
from rootward.config import Config, load_config
from rootward.core.problems import Problem, shown
from rootward.core.times import rfc3339, whole_second
from rootward.keys import Kek, disk
from rootward.protocols.acme import nonces
from rootward.store import authorities, dump, events, facts, migrations
from rootward.store.failpoint import failpoint

BEFORE: Final = "rootward.toml.before"  # the settings as the backup had them, where they had to be changed
DATABASE: Final = "rootward.db"
_DATABASE: Final = "ROOTWARD_DATABASE"  # of the environment's settings the one that matters here
Batch = list[tuple[Any, ...]]


@dataclass(frozen=True)
class Restored:
    """What was put back. `findings` and `notes` as of `verify`; `changed` are settings that are not the backup's."""

    home: Path
    url: str
    head: form.Head
    counts: form.Counts
    findings: list[str]
    notes: list[str]
    changed: list[str]
    went: log.Went
    recalled: list[Recalled]


@dataclass(frozen=True)
class Outside:
    """What was seen of the old installation outside of its backup: a head of its audit log, and CRLs."""

    note: str | None = None
    crls: tuple[bytes, ...] = ()


def restore(
    path: Path,
    passphrase: Kek,
    *,
    home: Path,
    database: str | None,
    outside: Outside,
    environ: Mapping[str, str],
    seen: verify.Seen,
) -> Restored:
    """Put the backup at `path` into the new home, and its rows into `database`: a PostgreSQL URL, `sqlite` for the
    home's own file, None for what its settings say.

    Problem RW-HOME where the home is not empty, RW-CONFLICT where the database is not, RW-SCHEMA of a newer program's
    backup, and those of `verify`.
    """
    if home.exists() and (not home.is_dir() or any(home.iterdir())):
        raise Problem("RW-HOME", f"{disk.quoted(home)} is not empty. A backup is restored into a new home only.")
    home.parent.mkdir(parents=True, exist_ok=True)
    work = home.with_name(f".{home.name}.restoring")
    held = _opened(work)
    try:
        _alone(held, work)
        try:
            with path.open("rb") as file:
                size = path.stat().st_size
                reader = verify.opened(file, passphrase)
                _check(reader.head)
                task = _Restore(reader, work, home, database, outside, environ, lambda: seen(file.tell(), size))
                done = task.run()
        except BaseException:
            shutil.rmtree(work, ignore_errors=True)
            raise
        work.rename(home)
        disk.flush_folder(home.parent)
    finally:
        os.close(held)
    return done


def _opened(work: Path) -> int:
    """The working folder, made or left by a restore of ours: it becomes the home, with its owner and its mode, so one
    that somebody else put there is refused. Problem RW-HOME.
    """
    try:
        work.mkdir(mode=0o700, exist_ok=True)
        held = os.open(work, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except (FileExistsError, NotADirectoryError) as error:  # a link, which is not followed, is the second
        raise Problem("RW-HOME", f"{disk.quoted(work)} stands where a restore works. Remove it.") from error
    found = os.fstat(held)
    if found.st_uid != os.geteuid() or found.st_mode & 0o077:
        os.close(held)
        detail = f"The folder {disk.quoted(work)} belongs to somebody else, or others may enter it. Remove it."
        raise Problem("RW-HOME", detail)
    return held


def _alone(held: int, work: Path) -> None:
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise Problem("RW-HOME", f"Another process is restoring into {disk.quoted(work)}.") from error
    for left in work.iterdir():
        if left.is_dir() and not left.is_symlink():
            shutil.rmtree(left)
        else:
            left.unlink()


def _check(head: form.Head) -> None:
    if head.schema > migrations.NEWEST:
        raise Problem(
            "RW-SCHEMA",
            f"The backup's tables are of version {shown(head.schema)} (made by Rootward {shown(head.program)}); this "
            f"program knows {migrations.NEWEST}. Use a newer program.",
        )


class _Restore:
    """One restore, up to the rename."""

    def __init__(
        self,
        reader: form.Reader,
        work: Path,
        home: Path,
        database: str | None,
        outside: Outside,
        environ: Mapping[str, str],
        tick: Callable[[], None],
    ) -> None:
        self._reader, self._work, self._home, self._database = reader, work, home, database
        self._outside, self._environ, self._tick = outside, environ, tick
        self._inspection = verify.Inspection(reader.head, environ)

    def run(self) -> Restored:
        """The settings first, for they may say where the database is; then one transaction for all the rest."""
        sections = self._reader.sections()
        first = next(sections, None)
        if not isinstance(first, form.File) or first.name != settings.FILE_NAME:
            raise Problem("RW-BACKUP-DAMAGED", f"The backup does not begin with {settings.FILE_NAME}.")
        self._file(first)
        config, changed = self._settings()
        url = config.database.url
        with dump.loading(url) as conn:
            migrations.migrate(conn, self._reader.head.schema)
            for section in sections:
                if isinstance(section, form.Table):
                    batches = self._inspection.table(section)
                    dump.load(conn, section.name, section.columns, self._watched(batches))
                else:
                    self._file(section)
            dump.settle(conn)
            migrations.migrate(conn)
            findings, notes = self._inspection.settle()
            failpoint("restore.loaded")
            went, recalled = self._go_on(conn, config)
            self._write_settings(config, changed)
            self._flush()
        if url.startswith("sqlite"):
            _flush_file(self._work / DATABASE)
            disk.flush_folder(self._work)
            url = f"sqlite:///{self._home}/{DATABASE}"
        failpoint("restore.committed")
        return Restored(
            self._home, url, self._reader.head, self._reader.counts, findings, notes, changed, went, recalled
        )

    def _watched(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        for batch in batches:
            self._tick()
            yield batch

    def _file(self, section: form.File) -> None:
        if not is_inside(section.name):
            raise Problem("RW-BACKUP-DAMAGED", f"The backup has a file {shown(section.name)}, which none may have.")
        target = self._work / section.name
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        mode = section.mode & (0o600 if is_secret(section.name) else 0o644)
        with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
            for piece in self._inspection.file(section):
                file.write(piece)
                self._tick()
                if file.tell() > LARGEST_FILE:
                    raise Problem("RW-BACKUP-DAMAGED", f"The backup's {shown(section.name)} is too large.")
            file.flush()
            os.fchmod(file.fileno(), mode or 0o400)
            os.fsync(file.fileno())

    def _settings(self) -> tuple[Config, list[str]]:
        """The settings for the restored home, and which of them are not the backup's."""
        flag = self._database
        database = {name: value for name, value in self._environ.items() if name == _DATABASE}
        own = {None: None, "sqlite": f"sqlite:///{self._work}/{DATABASE}"}
        config = load_config(self._work, database, {"database.url": own.get(flag, flag)})
        changed = []
        if make_url(config.database.url).get_backend_name() == "sqlite":
            plain = f"sqlite:///{self._work}/{DATABASE}"
            if config.database.url != plain and flag not in {None, "sqlite"}:
                raise Problem(
                    "RW-CONFIG",
                    "A SQLite database is restored into the home itself: --database sqlite.",
                    field="--database",
                )
            config = msgspec.structs.replace(config, database=settings.Database(plain))
        written = load_config(self._work, {}, {}).database.url
        if config.database.url != written and (flag is not None or not database.get(_DATABASE)):
            changed.append("database.url")
        kind, _, rest = config.kek.source.partition(":")
        if kind == "file" and not is_inside(rest):
            config = msgspec.structs.replace(config, kek=settings.Kek("file:kek"))
            changed.append("kek.source")
        elif kind == "file" and config.kek.previous:  # it is beside the current one in the backup
            config = msgspec.structs.replace(config, kek=settings.Kek(config.kek.source))
            changed.append("kek.previous")
        return config, changed

    def _write_settings(self, config: Config, changed: list[str]) -> None:
        if not changed:
            return
        path = self._work / settings.FILE_NAME
        path.rename(self._work / BEFORE)
        settings.write_config(path, config)

    def _go_on(self, conn: Connection, config: Config) -> tuple[log.Went, list[Recalled]]:
        """What the restored installation goes on with, and the event that says where it comes from."""
        head = self._reader.head
        now = whole_second(datetime.now(UTC))
        # Above what the original has published up to now, also within this very second.
        authorities.raise_numbers(int(now.timestamp() + 1) * 1000).run(conn)
        # Nonces that were used after the backup are unknown here, and the original may go on: none of before is good.
        facts.forget(nonces.KEY).run(conn)
        keys = homes.open_backend(config, self._environ)
        went = log.begin(conn, keys=keys, folder=self._work / homes.LOG, note=self._outside.note, at=now)
        recalled = [recall(conn, data, at=now) for data in self._outside.crls]
        outside = went.head
        events.record(
            "installation.restored",
            actor=SYSTEM,
            request_id="system:restore",
            at=now,
            data={
                "backup_at": rfc3339(datetime.fromtimestamp(head.at, UTC)),
                "tree_size": head.leaves,
                "head": None
                if outside is None
                else {"origin": outside.origin, "size": outside.size, "root": outside.root.hex()},
                "missing": went.missing,
                "recalled": sum(one.revoked for one in recalled),
            },
        ).run(conn)
        return went, recalled

    def _flush(self) -> None:
        for folder, _, _ in os.walk(self._work):
            disk.flush_folder(Path(folder))


def _flush_file(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.fchmod(descriptor, 0o600)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
