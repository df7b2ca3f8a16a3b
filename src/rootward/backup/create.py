"""Making a backup, beside the server that runs or without one.

The database's snapshot first, the key files after it: so every key that the snapshot names is in the backup. A key of
our own (a responder's) that is replaced in between is made anew by the restored server.

The key-encryption key is read before all that and after it: where it is being changed, both are taken along, `kek` and
`kek.old`, whichever of them the snapshot or a file needs. The restored server comes to the end of the change.

Left out, on purpose: `admin.token` (a living credential; `rootward access recover` makes a new one after a restore),
`offline-root/` (the root's key is never where the server's backups are), and whatever else lies in the home.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Final

from sqlalchemy import Connection

from rootward import __version__
from rootward import config as settings
from rootward.backup import form
from rootward.config import Config
from rootward.core.problems import Problem, shown
from rootward.core.times import whole_second
from rootward.keys import Kek, disk, ring
from rootward.keys.stream import SealedWriter
from rootward.store import dump, facts, migrations
from rootward.store.failpoint import failpoint

LARGEST_FILE: Final = 16 * 1024 * 1024
KEK: Final = "kek"
_FOLDERS: Final = ("keys", "ceremony", "log", "records")
_NEVER: Final = ("offline-root", "admin.token")

Progress = Callable[[int, int], None]  # rows done, rows in all


@dataclass(frozen=True)
class Made:
    """A backup that is there: `size` in bytes."""

    path: Path
    size: int
    head: form.Head
    counts: form.Counts


def create(config: Config, out: Path, passphrase: Kek, progress: Progress) -> Made:
    """Write a backup of the home to the new file `out` (mode 0600), durably; nothing is at `out` before it is whole.

    Problem RW-CONFLICT where there is a file already, RW-STORE and RW-SCHEMA of the database, RW-KEY-FILE and RW-KEK of
    files that others could read; OSError of the disk.
    """
    if os.path.lexists(out):
        raise Problem("RW-CONFLICT", f"{disk.quoted(out)} is there already, and nothing is overwritten.")
    partial = out.with_name(f".{out.name}.part")
    with os.fdopen(os.open(partial, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600), "wb") as file:
        _alone(file, out)
        try:
            os.fchmod(file.fileno(), 0o600)
            head, counts = _write(config, SealedWriter(file, passphrase), progress)
            file.flush()
            os.fsync(file.fileno())
            failpoint("backup.written")
            size = os.fstat(file.fileno()).st_size
            _put(partial, out)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
    disk.flush_folder(out.parent)
    return Made(out, size, head, counts)


def _alone(file: BinaryIO, out: Path) -> None:
    """What a process left that was killed is overwritten; what another one is writing is not."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise Problem("RW-CONFLICT", f"Another process is writing a backup to {disk.quoted(out)}.") from error
    file.truncate(0)


def _put(partial: Path, out: Path) -> None:
    try:
        os.link(partial, out)  # unlike a rename, it does not replace
    except FileExistsError as error:
        raise Problem("RW-CONFLICT", f"{disk.quoted(out)} is there already, and nothing is overwritten.") from error
    except OSError:
        os.rename(partial, out)  # a file system without links, as on a stick
        return
    partial.unlink()


def _write(config: Config, stream: SealedWriter, progress: Progress) -> tuple[form.Head, form.Counts]:
    before = _keks(config)
    with dump.snapshot(config.database.url) as conn:
        at = whole_second(datetime.now(UTC))
        tables = dump.tables(conn)
        head = _head(conn, int(at.timestamp()))
        writer = form.Writer(stream, head)
        _add(writer, config.home, settings.FILE_NAME)
        failpoint("backup.begun")
        total, done = sum(dump.count(conn, name) for name, _ in tables), 0
        for name, columns in tables:
            for rows in writer.table(name, columns, dump.rows(conn, name, columns)):
                done += rows
                progress(done, total)
    for name in _files(config):
        _add(writer, config.home, name)
    _put_keks(writer, config, before)
    writer.finish()
    return head, writer.counts


def _keks(config: Config) -> list[bytes]:
    """The home's KEK, and the one before while that is there; nothing where a credential is the source."""
    kind, _, rest = config.kek.source.partition(":")
    if kind != "file":
        return []
    found = [_kek(config.home / rest)]
    previous, _, where = config.kek.previous.partition(":")
    with suppress(FileNotFoundError):
        found.append(_kek(config.home / (where if previous == "file" else f"{rest}{ring.OLD}")))
    return found


def _kek(path: Path) -> bytes:
    try:
        return disk.read(path, code="RW-KEK", limit=1024)
    except FileNotFoundError as error:
        if path.name.endswith(ring.OLD):
            raise
        raise Problem("RW-KEK", f"There is no kek any more at {disk.quoted(path)}.") from error


def _put_keks(writer: form.Writer, config: Config, before: list[bytes]) -> None:
    """The current KEK, and the one other that the snapshot or a file may be sealed with. One that lies outside the home
    is `kek` in the backup.
    """
    if not before:
        return
    rest = config.kek.source.partition(":")[2]
    name = rest if is_inside(rest) else KEK
    now = _keks(config)
    others = [data for data in dict.fromkeys([*now[1:], *before]) if data != now[0]]
    if len(others) > 1:
        raise Problem("RW-CONFLICT", "The key-encryption key was changed while the backup was made. Make it again.")
    for file, data in ((name, now[0]), *((f"{name}{ring.OLD}", other) for other in others)):
        if file not in writer.counts.files:
            writer.file(file, 0o400, data)


def _head(conn: Connection, at: int) -> form.Head:
    instance = facts.get(conn, "instance.id")
    events, leaves = conn.exec_driver_sql("SELECT count(*), coalesce(max(leaf) + 1, 0) FROM events").one()
    return form.Head(
        version=form.VERSION,
        instance="" if instance is None else instance.data,
        schema=str(migrations.version_of(conn)),
        dialect=conn.dialect.name,
        program=__version__,
        at=at,
        events=events,
        leaves=leaves,
    )


def _files(config: Config) -> Iterator[str]:
    """What of the home is kept beside its settings, as names below it."""
    for name in dict.fromkeys(["root.pem", config.metrics.scrape_token.removeprefix("file:")]):
        if is_inside(name) and (config.home / name).is_file():
            yield name
    for folder in _FOLDERS:
        for path in sorted((config.home / folder).rglob("*")):
            if path.is_file() and not path.is_symlink() and not path.name.startswith("."):
                yield str(path.relative_to(config.home))


def is_inside(name: str) -> bool:
    """Whether a name is a file's below the home, and none that is never kept."""
    path = PurePosixPath(name)
    plain = str(path) == name and not path.is_absolute() and ".." not in path.parts and "\0" not in name
    return plain and bool(path.parts) and path.parts[0] not in _NEVER and not path.name.startswith((".", "rootward.db"))


def is_secret(name: str) -> bool:
    """Whether only the owner may read such a file."""
    return name not in {settings.FILE_NAME, "root.pem"} and not name.startswith("ceremony/")


def _add(writer: form.Writer, home: Path, name: str) -> None:
    _put_in(writer, name, home / name, secret=is_secret(name))


def _put_in(writer: form.Writer, name: str, path: Path, *, secret: bool) -> None:
    code = "RW-KEK" if name == KEK else "RW-KEY-FILE" if secret else "RW-HOME"
    forbidden = disk.OWNER_ONLY if secret and name.startswith((KEK, "keys/")) else 0
    try:
        data = disk.read(path, code=code, limit=LARGEST_FILE, forbidden=forbidden)
        mode = stat.S_IMODE(path.stat().st_mode)
    except FileNotFoundError:
        if name == settings.FILE_NAME or name == KEK:
            raise Problem(code, f"There is no {shown(name)} any more at {disk.quoted(path)}.") from None
        return  # replaced since it was listed; the restored server makes its own
    writer.file(name, mode, data)
