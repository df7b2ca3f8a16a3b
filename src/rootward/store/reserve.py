"""Room on the disk for what must go on when it is full: revocations, CRLs, and what OCSP stands on (I-25, I-58).

The file `reserve` beside a SQLite database holds 64 MiB. Issuing is refused as soon as less than `LOW` is free beyond
them. When the database finds the disk full nevertheless, because somebody else filled it, the file is given back and
the write that failed is done again in its place. It is taken again, and issuing goes on, once there is room for it and
for what issuing needs. On PostgreSQL the disk is the operator's.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from pathlib import Path

from rootward.store.errors import driver_error

SIZE = 64 * 1024 * 1024
LOW = 32 * 1024 * 1024  # a whole WAL before its checkpoint, and as much again for what it grows the database by

_FULL = 13  # SQLITE_FULL
_CANNOT_GROW = frozenset({778, 4874})  # SQLITE_IOERR_WRITE (a quota), SQLITE_IOERR_SHMSIZE


class Reserve:
    """The reserve in one folder. `keep` begins it; before that nothing is held and nothing refused."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / "reserve"
        self._lock = threading.Lock()
        self._kept = False
        self._held = False

    def keep(self) -> None:
        """Hold the reserve from now on, as soon as there is room for it."""
        with self._lock:
            self._kept = True
            self._held = self._is_there()
        self.is_low()

    def is_low(self) -> bool:
        """Whether nothing should be written that can wait. Costs one system call; takes the reserve again where there
        is room.
        """
        if not self._kept:
            return False
        found = os.statvfs(self._folder)
        free = found.f_bavail * found.f_frsize
        if self._held:
            return free < LOW
        return free < SIZE + LOW or not self._take()

    def give_back(self) -> bool:
        """Make room for what must go on; False where there is nothing to give."""
        with self._lock:
            there = self._is_there()
            self._held = False
            self._path.unlink(missing_ok=True)
            return there

    def _take(self) -> bool:
        with self._lock:
            if self._held:
                return True
            handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(handle, 0, SIZE)
            except OSError:  # somebody else was faster, or a filesystem that cannot: issuing waits
                self._path.unlink(missing_ok=True)
                return False
            finally:
                os.close(handle)
            self._held = True
            return True

    def _is_there(self) -> bool:
        """Whole, and not a file of holes."""
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return False
        return found.st_size >= SIZE and found.st_blocks * 512 >= SIZE


def is_full(error: BaseException) -> bool:
    """Whether SQLite failed because the disk, or a quota on it, has no more room."""
    inner = driver_error(error)
    code = getattr(inner, "sqlite_errorcode", 0) if isinstance(inner, sqlite3.Error) else 0
    return code & 0xFF == _FULL or code in _CANNOT_GROW
