"""What is kept of a file key apart from its home, and how a file key ends.

A backup of a key file is a key file (`envelope.py`) under another KEK: a passphrase's or a quorum's. So it opens with
the same code, names its label and public key in the clear, and a quorum's whole backup is this one file.

`destroy` overwrites, unlinks and flushes. On a disk that writes where it likes (flash, copy-on-write file systems,
snapshots) overwriting promises nothing: there a key is gone when every copy of what wraps it is gone, as the key files
hold ciphertext alone. Who is told that it was destroyed is told what was done, not what the disk did.

A process that dies leaves copies beside a key file: `.new-…` while it wrote one, `.old-NAME` while custodians changed,
`.gone-NAME` while it destroyed one. What ends a key file (`end`) ends those too, also where they alone are left.
"""

from __future__ import annotations

import os
import re
import stat
from contextlib import suppress
from pathlib import Path
from typing import Final

from rootward.core.problems import Problem
from rootward.keys import disk, envelope
from rootward.keys.backend import check_id, check_label
from rootward.keys.kek import Kek

_CODE = "RW-KEY-FILE"
_CHUNK = 1024 * 1024
NAME: Final = re.compile(r"[a-z0-9-]{1,64}-[0-9a-f]{16}\.key", re.ASCII)  # of a key file: `named`
OLD: Final = ".old-"  # before the name of a key file that is being sealed for other custodians
_GONE = ".gone-"  # before the name of a file that is being destroyed


def back_up(file: Path, out: Path, *, kek: Kek, under: Kek) -> tuple[str, str]:
    """Seal the key in `file` (opened by `kek`) with `under` into the new file `out`; its label and public id.

    The backup is read again and opened before this returns. Problems: RW-KEK, RW-KEY-FILE, RW-KEY-MISSING.
    """
    data = _read(file)
    header = envelope.read_header(data)
    label, public_id = header.label, header.public_id
    private = envelope.unseal(data, label=label, public_id=public_id, kek=kek)
    _write(out, envelope.seal(private, label=label, kek=under))
    envelope.unseal(_read(out), label=label, public_id=public_id, kek=under)
    return label, public_id


def restore(file: Path, folder: Path, *, label: str, public_id: str, kek: Kek, under: Kek) -> Path:
    """Put the key of the backup `file` (opened by `kek`) into `folder`, sealed with `under`, where a file backend finds
    it; its path. It must be `label`'s and have the public key `public_id`, or RW-KEY-MISMATCH; nothing is overwritten.
    """
    check_label(label)
    check_id(public_id)
    data = _read(file)
    private = envelope.unseal(data, label=label, public_id=public_id, kek=kek)
    out = folder / named(label, public_id)
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise Problem(_CODE, f"{disk.quoted(folder)} cannot be made: {error.strerror}.") from error
    disk.check_folder(folder, code=_CODE)
    _write(out, envelope.seal(private, label=label, kek=under))
    return out


def destroy(file: Path, *, public_id: str) -> list[str]:
    """`end` the file of the key with that public id, and no other: RW-KEY-MISMATCH for another's, RW-KEY-FILE for what
    is no key file. No KEK is asked for: a key can be destroyed when what opens it is gone.
    """
    check_id(public_id)
    if os.path.lexists(file):
        header = envelope.read_header(_read(file))
        if header.public_id != public_id:
            raise Problem(
                "RW-KEY-MISMATCH",
                f"{disk.quoted(file)} holds the key {header.label} with the public key {header.public_id[:16]}…, not "
                f"{public_id[:16]}…. It is left as it is.",
            )
    return end(file)


def named(label: str, public_id: str) -> str:
    """The name of a key's file."""
    return f"{label}-{public_id[:16]}.key"


def files_of(folder: Path, public_id: str) -> list[Path]:
    """The key files of that public key in `folder`, by their names; also one that is not there any more, of which
    something is left. Problem RW-KEY-FILE for a folder that others can enter.
    """
    try:
        disk.check_folder(folder, code=_CODE)
    except FileNotFoundError:
        return []
    names = {_file_of(path) for path in folder.iterdir()}
    return sorted(folder / name for name in names if NAME.fullmatch(name) and name.endswith(f"{public_id[:16]}.key"))


def end(file: Path) -> list[str]:
    """Destroy a key file with all that is left beside it of processes that died; the names of what was there, so none
    where there was nothing. Problem RW-KEY-FILE: some of it is there still, and the same call goes on.
    """
    there = os.path.lexists(file)
    found = [path for path in sorted(file.parent.iterdir()) if path != file and _file_of(path) == file.name]
    for path in found:
        if there and os.path.samestat(path.lstat(), file.lstat()):
            _unlink(path)  # the file by another name: it is not to be found damaged under its own one
        else:
            shred(path)
    if there:
        remove(file)  # last: while it is there, whoever is cut off finds what is to be done
        found.append(file)
    return [path.name for path in found]


def shred(file: Path) -> None:
    """Overwrite a file with random bytes, flush, unlink, flush the folder: as much as a program can do.

    A link is refused (RW-KEY-FILE): what it points to is not this file. When this raises, the name is still there.
    """
    try:
        mode = file.lstat().st_mode
        if stat.S_ISREG(mode) and not mode & stat.S_IWUSR:  # 0400, which keeps its owner from writing unless it is root
            file.chmod(0o600)
        descriptor = os.open(file, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise Problem(_CODE, f"{disk.quoted(file)} cannot be destroyed: {error.strerror}.") from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise Problem(_CODE, f"{disk.quoted(file)} is not a regular file.")
        with os.fdopen(descriptor, "wb", closefd=False) as out:
            for at in range(0, status.st_size, _CHUNK):
                out.write(os.urandom(min(_CHUNK, status.st_size - at)))
        os.fsync(descriptor)
        file.unlink()
        disk.flush_folder(file.parent)
    except OSError as error:
        raise Problem(_CODE, f"{disk.quoted(file)} cannot be destroyed: {error.strerror}.") from error
    finally:
        os.close(descriptor)


def remove(file: Path) -> None:
    """`shred`, and a crash in the middle leaves nothing under its name: it is `gone(file)` by then. The same call ends
    what was cut off, whether there is a file of that name (again) or not.
    """
    aside = gone(file)
    if os.path.lexists(aside):
        shred(aside)
        if not os.path.lexists(file):
            return
    try:
        file.rename(aside)
        disk.flush_folder(file.parent)
    except OSError as error:
        raise Problem(_CODE, f"{disk.quoted(file)} cannot be destroyed: {error.strerror}.") from error
    shred(aside)


def gone(file: Path) -> Path:
    """What a file is called while `remove` destroys it."""
    return file.with_name(f"{_GONE}{file.name}")


def _file_of(path: Path) -> str:
    """The name of the key file that `path` is, or is left of; of a file that was being written its header knows."""
    for prefix in (OLD, _GONE):
        if path.name.startswith(prefix):
            return path.name.removeprefix(prefix)
    if path.name.startswith(disk.NEW):
        with suppress(Problem, FileNotFoundError):  # not all of one
            header = envelope.read_header(_read(path))
            return named(header.label, header.public_id)
    return path.name


def _unlink(file: Path) -> None:
    try:
        file.unlink()
        disk.flush_folder(file.parent)
    except OSError as error:
        raise Problem(_CODE, f"{disk.quoted(file)} cannot be removed: {error.strerror}.") from error


def _read(file: Path) -> bytes:
    try:
        return disk.read(file, code=_CODE, limit=envelope.LARGEST)
    except FileNotFoundError as error:
        raise Problem("RW-KEY-MISSING", f"There is no key file at {disk.quoted(file)}.") from error


def _write(out: Path, data: bytes) -> None:
    try:
        disk.write_new(out, data, mode=0o600)
    except FileExistsError as error:
        raise Problem(_CODE, f"There is a file at {disk.quoted(out)} already; it is left as it is.") from error
    except OSError as error:
        raise Problem(_CODE, f"{disk.quoted(out)} cannot be written: {error.strerror}.") from error
