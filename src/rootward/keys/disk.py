"""Secret files on disk: read only when nobody else can, written whole or not at all.

A new file is written beside its name, flushed (fsync), and only then linked to it; a crash leaves at most a temporary
file whose name begins with `.new-`, which nothing is read from. An existing file is never overwritten but by `replace`.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rootward.core.problems import Problem, shown

NEW = ".new-"  # before the name of a file that is being written
OWNER_ONLY = 0o177  # the bits that a file of mode 0600 or 0400 does not have


def quoted(path: Path) -> str:
    """A path for a sentence, whole wherever that is sane."""
    return shown(str(path), 400)


def read(
    path: Path, *, code: str, limit: int, forbidden: int = OWNER_ONLY, owners: tuple[int, ...] | None = ()
) -> bytes:
    """The bytes of a regular file: `limit` at most, ours or one of `owners`' (user ids; None: whoever's), with no
    `forbidden` mode bit.

    FileNotFoundError where there is none, so that the caller can say what is missing; Problem `code`, with the command
    that mends it, for everything else. What is checked is the opened file, so it cannot be swapped after the check.
    """
    try:
        # O_NONBLOCK: opening a FIFO must not hang the start.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise Problem(code, f"{quoted(path)} cannot be opened: {error.strerror}.") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise Problem(code, f"{quoted(path)} is not a regular file.")
        _check(path, status, code=code, forbidden=forbidden, owners=owners)
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise Problem(code, f"{quoted(path)} cannot be read: {error.strerror}.") from error
    finally:
        os.close(descriptor)
    if len(data) > limit:
        raise Problem(code, f"{quoted(path)} is larger than the {limit} bytes that such a file can have.")
    return data


def check_folder(folder: Path, *, code: str) -> None:
    """Problem `code` unless `folder` is a directory of ours that nobody else can enter; FileNotFoundError if none."""
    status = os.stat(folder)
    if not stat.S_ISDIR(status.st_mode):
        raise Problem(code, f"{quoted(folder)} is not a directory.")
    _check(folder, status, code=code, forbidden=0o077, owners=())


def _check(path: Path, status: os.stat_result, *, code: str, forbidden: int, owners: tuple[int, ...] | None) -> None:
    if owners is not None and status.st_uid not in (os.geteuid(), *owners):
        raise Problem(
            code,
            f"{quoted(path)} belongs to the user id {status.st_uid}, and this runs as {os.geteuid()}. "
            f"Run: chown {os.geteuid()} {quoted(path)}",
        )
    mode = stat.S_IMODE(status.st_mode)
    if mode & forbidden:
        mend = "700" if stat.S_ISDIR(status.st_mode) else "400" if not mode & 0o200 else "600"
        raise Problem(
            code, f"{quoted(path)} has the mode {mode:04o}, so others can get at it. Run: chmod {mend} {quoted(path)}"
        )


def write_new(path: Path, data: bytes, *, mode: int) -> None:
    """Create `path` durably; FileExistsError if there is one. After any OSError there is no new file, or all of it; a
    crash can leave an empty one where files have no links (FAT, exFAT).
    """
    temporary = _written(path, data, mode=mode)
    try:
        _link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    flush_folder(path.parent)


def replace(path: Path, data: bytes, *, mode: int) -> None:
    """Put `data` in the place of the file `path`, durably; at every moment one of the two is there whole."""
    temporary = _written(path, data, mode=mode)
    try:
        temporary.replace(path)
    except OSError:
        temporary.unlink()
        raise
    flush_folder(path.parent)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Let nobody else in for the `with` block who asks so, in this process or another one of this machine; wait until
    it is our turn.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def claim(folder: Path) -> Iterator[bool]:
    """As `alone`, and without waiting: False, and nothing is locked, while somebody else is in."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
    finally:
        os.close(descriptor)


def flush_folder(folder: Path) -> None:
    """Make names that were added to or removed from `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _written(path: Path, data: bytes, *, mode: int) -> Path:
    temporary = path.with_name(f"{NEW}{os.urandom(8).hex()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            _set_mode(descriptor, mode, path)
            file.write(data)
            file.flush()
            os.fsync(descriptor)
    except OSError:
        temporary.unlink()
        raise
    return temporary


def _set_mode(descriptor: int, mode: int, path: Path) -> None:
    """The umask may have taken bits away. A file that all may read can do without them, as on a FAT stick."""
    try:
        os.fchmod(descriptor, mode)
    except PermissionError:
        if not mode & 0o077:
            why = "files have no modes there, as on a FAT stick, and others could read it"
            raise PermissionError(errno.EPERM, why, str(path)) from None


def _link(temporary: Path, path: Path) -> None:
    """Give a written file its name; FileExistsError if there is one of that name."""
    try:
        os.link(temporary, path)  # unlike a rename, this fails where there is a file already
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS):  # else the file system has no links
            raise
        path.touch(exist_ok=False)  # from here on the name is ours, and a rename takes nothing from anybody
        try:
            temporary.replace(path)
        except OSError:
            path.unlink()
            raise
