"""Keys in files: `<folder>/<label>-<first 16 of the public id>.key`, mode 0600, in a folder of mode 0700.

Each is an envelope (`envelope.py`) that only the KEK opens. Without a KEK there is no backend: nothing is ever written
in the clear. Files and folders that others can get at are refused, with the command that mends them.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from rootward.core.problems import Problem
from rootward.core.pubkey import KeyAlgorithm, PublicKey, public_key_of
from rootward.keys import disk, envelope
from rootward.keys.backend import (
    SOFTWARE_ALGORITHMS,
    Backend,
    KeySettings,
    Listing,
    check_algorithm,
    check_id,
    check_label,
    generate_private,
    missing,
)
from rootward.keys.keepsake import NAME, end, named
from rootward.keys.kek import Kek
from rootward.keys.key import Key, PrivateKey

_CODE = "RW-KEY-FILE"


class FileBackend(Backend):
    """`folder` is made at the first `generate`; `kek` seals and opens every file in it."""

    name = "file"
    algorithms = SOFTWARE_ALGORITHMS

    def __init__(self, folder: Path, kek: Kek) -> None:
        self._folder = folder
        self._kek = kek

    def max_message_of(self, algorithm: KeyAlgorithm) -> int | None:
        return None

    def generate(self, label: str, algorithm: KeyAlgorithm) -> Key:
        check_label(label)
        check_algorithm(self, algorithm)
        return self.take_in(label, generate_private(algorithm))

    def take_in(self, label: str, private: PrivateKey) -> Key:
        """Keep a key that was elsewhere before, sealed. Problems as of `generate`."""
        check_label(label)
        self._make_folder()
        public_id = public_key_of(private.public_key()).id
        path = self._path(label, public_id)
        try:
            with disk.alone(self._folder):  # so that who looks what is still sealed with an old KEK sees it
                disk.write_new(path, envelope.seal(private, label=label, kek=self._kek), mode=0o600)
        except FileExistsError as error:
            raise Problem(_CODE, f"There is a file at {disk.quoted(path)} already; it is left as it is.") from error
        except OSError as error:
            raise Problem(_CODE, f"{disk.quoted(path)} cannot be written: {error.strerror}.") from error
        # From the disk, not from memory: a certificate is only ever made for a key that can be opened again.
        return self.load(label, public_id)

    def load(self, label: str, public_id: str) -> Key:
        data = self._read(label, public_id)
        try:
            private = envelope.unseal(data, label=label, public_id=public_id, kek=self._kek)
        except Problem:
            again = self._read(label, public_id)
            if again == data:
                raise
            # It was sealed anew between reading it and opening it.
            private = envelope.unseal(again, label=label, public_id=public_id, kek=self._kek)
        return Key(private, label=label)

    def expect(self, label: str, public: PublicKey) -> Key:
        return self.load(label, public.id)

    def delete(self, label: str, public_id: str) -> None:
        self._check_folder(label, public_id)
        path = self._path(label, public_id)
        with disk.alone(self._folder):
            with suppress(FileNotFoundError):  # then only what was cut off is left of it, or nothing
                header = envelope.read_header(_read(path))
                if (header.label, header.public_id) != (label, public_id):
                    raise Problem(
                        "RW-KEY-MISMATCH", f"The file of the key {label} holds another key; it is left as it is."
                    )
            if not end(path):
                raise missing(label, public_id, where=disk.quoted(self._folder))

    def list(self) -> Listing:
        found = []
        for path in key_files(self._folder):
            try:
                header = _header(path, _read(path))
            except FileNotFoundError:
                continue  # another replica deleted it just now
            found.append((header.label, header.public_id))
        return sorted(found)

    def _path(self, label: str, public_id: str) -> Path:
        return self._folder / named(label, public_id)

    def _read(self, label: str, public_id: str) -> bytes:
        self._check_folder(label, public_id)
        try:
            return _read(self._path(label, public_id))
        except FileNotFoundError as error:
            raise missing(label, public_id, where=disk.quoted(self._folder)) from error

    def _check_folder(self, label: str, public_id: str) -> None:
        check_label(label)
        check_id(public_id)
        try:
            disk.check_folder(self._folder, code=_CODE)
        except FileNotFoundError as error:
            raise missing(label, public_id, where=disk.quoted(self._folder)) from error

    def _make_folder(self) -> None:
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            disk.flush_folder(self._folder.parent)
            disk.check_folder(self._folder, code=_CODE)
        except OSError as error:
            raise Problem(_CODE, f"{disk.quoted(self._folder)} cannot be made: {error.strerror}.") from error


def open_file(settings: KeySettings) -> FileBackend:
    """Problem `RW-KEK` without a KEK, `RW-CONFIG` without a folder. Nothing is read yet."""
    if settings.kek is None:
        raise Problem("RW-KEK", "Keys in files need a key-encryption key, and none is configured.")
    if settings.folder is None:
        raise Problem("RW-CONFIG", "Keys in files need a folder, and none is configured.")
    return FileBackend(settings.folder, settings.kek)


def reseal(folder: Path, *, old: Kek, new: Kek) -> list[str]:
    """Seal every key file in `folder` with `new` instead of `old`; the names of the files that were changed.

    What `new` opens already is left alone, so a run that was cut off is finished by the same call. The first file that
    neither opens ends it with a Problem; `old` is needed until it has gone through.
    """
    changed = []
    for path in key_files(folder):
        with disk.alone(folder):  # a key that is deleted at this moment must not come back
            if _reseal(path, old=old, new=new):
                changed.append(path.name)
    if folder.exists():
        disk.flush_folder(folder)  # also for the last name of a run that was cut off, before the old KEK is thrown away
    return changed


def sealed_otherwise(folder: Path, *, kek: Kek) -> list[str]:
    """The names of the key files in `folder` that `kek` does not open, by their headers' word."""
    found = []
    for path in key_files(folder):
        try:
            data = _read(path)
        except FileNotFoundError:
            continue
        if not envelope.opens(data, kek=kek):
            found.append(path.name)
    return found


def _reseal(path: Path, *, old: Kek, new: Kek) -> bool:
    try:
        data = _read(path)
    except FileNotFoundError:
        return False  # deleted since it was listed
    header = _header(path, data)
    if envelope.opens(data, kek=new):
        return False
    try:
        private = envelope.unseal(data, label=header.label, public_id=header.public_id, kek=old)
        disk.replace(path, envelope.seal(private, label=header.label, kek=new), mode=0o600)
    except Problem as problem:
        raise Problem(problem.code, f"{disk.quoted(path)}: {problem.detail}") from problem
    except OSError as error:
        raise Problem(_CODE, f"{disk.quoted(path)} cannot be written: {error.strerror}.") from error
    return True


def key_files(folder: Path) -> list[Path]:
    """The key files in `folder`, by name; none where there is no such folder. Other files there are not looked at."""
    try:
        disk.check_folder(folder, code=_CODE)
    except FileNotFoundError:
        return []
    return sorted(path for path in folder.iterdir() if NAME.fullmatch(path.name))


def _header(path: Path, data: bytes) -> envelope.Header:
    try:
        return envelope.read_header(data)
    except Problem as problem:
        raise Problem(problem.code, f"{disk.quoted(path)}: {problem.detail}") from problem


def _read(path: Path) -> bytes:
    return disk.read(path, code=_CODE, limit=envelope.LARGEST)
