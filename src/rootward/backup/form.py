"""What is inside a backup's sealed stream (`keys/stream.py`): frames, each a letter, a length and so many bytes.

    H  head: MessagePack of `Head`
    T  a table begins: `Begin` (its name and columns)      R  rows: an array of arrays of raw values      E  its end
    F  a file begins: `Begin` (its path, and its mode)     D  its bytes                                   E  its end
    Z  the end: how many tables and files there were

Every end says how much there was (rows or bytes) and its SHA-256 over what the R or D frames hold. Rows are framed by
the same rule each time, so two backups of the same rows have the same digest, whichever store they are in.
`rootward.toml` comes first, then the tables, then the other files. Nothing in here needs memory for more than one
frame.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import msgspec

from rootward.core.problems import Problem, shown
from rootward.keys.stream import SealedReader, SealedWriter

T = TypeVar("T")
VERSION: Final = 1
LARGEST: Final = 256 * 1024 * 1024  # bytes of one frame: a row has all of a CRL
TOGETHER: Final = 256 * 1024  # bytes, about, that rows share a frame up to
_FRAME: Final = struct.Struct(">cI")


class Head(msgspec.Struct, frozen=True):
    """What the backup is of. `at` is when its snapshot was taken, in Unix seconds; `leaves` is the size of the audit
    tree then, `events` how many events there were.
    """

    version: int
    instance: str
    schema: str
    dialect: str
    program: str
    at: int
    events: int
    leaves: int


class Begin(msgspec.Struct, frozen=True):
    """A table with its columns, or a file with its mode."""

    name: str
    columns: list[str] = []  # msgspec copies it
    mode: int = 0


class End(msgspec.Struct, frozen=True):
    """How many rows or bytes, and their digest."""

    count: int
    sha256: bytes


class Close(msgspec.Struct, frozen=True):
    """How many tables and files."""

    tables: int
    files: int


@dataclass
class Table:
    """A table on its way in: `batches` are read once, to the end."""

    name: str
    columns: list[str]
    batches: Iterator[list[tuple[Any, ...]]]


@dataclass
class File:
    """A file on its way in: `pieces` are read once, to the end."""

    name: str
    mode: int
    pieces: Iterator[bytes]


@dataclass
class Counts:
    """What was there: rows by table, bytes by file, digests by either."""

    tables: dict[str, int] = field(default_factory=dict)
    files: dict[str, int] = field(default_factory=dict)
    sha256: dict[str, str] = field(default_factory=dict)


class Writer:
    """Writes frames into a sealed stream."""

    def __init__(self, stream: SealedWriter, head: Head) -> None:
        self._stream = stream
        self.counts = Counts()
        self._frame(b"H", msgspec.msgpack.encode(head))

    def table(self, name: str, columns: list[str], rows: Iterable[tuple[Any, ...]]) -> Iterator[int]:
        """Write a table; yields how many rows each frame took, for whoever shows the progress."""
        self._frame(b"T", msgspec.msgpack.encode(Begin(name, columns)))
        digest, total = hashlib.sha256(), 0
        for batch in _batches(rows):
            payload = msgspec.msgpack.encode(batch)
            digest.update(payload)
            self._frame(b"R", payload)
            total += len(batch)
            yield len(batch)
        self._end(total, digest.digest())
        self.counts.tables[name] = total
        self.counts.sha256[name] = digest.hexdigest()

    def file(self, name: str, mode: int, data: bytes) -> None:
        """Write a small file."""
        self._frame(b"F", msgspec.msgpack.encode(Begin(name, mode=mode)))
        if data:
            self._frame(b"D", data)
        self._end(len(data), hashlib.sha256(data).digest())
        self.counts.files[name] = len(data)
        self.counts.sha256[name] = hashlib.sha256(data).hexdigest()

    def finish(self) -> None:
        """Write the trailer and seal the end."""
        self._frame(b"Z", msgspec.msgpack.encode(Close(len(self.counts.tables), len(self.counts.files))))
        self._stream.finish()

    def _end(self, count: int, digest: bytes) -> None:
        self._frame(b"E", msgspec.msgpack.encode(End(count, digest)))

    def _frame(self, kind: bytes, payload: bytes) -> None:
        if len(payload) > LARGEST:
            raise Problem("RW-TOO-LARGE", f"A row or file has more than {LARGEST} bytes; a backup cannot hold it.")
        self._stream.write(_FRAME.pack(kind, len(payload)))
        self._stream.write(payload)


class Reader:
    """Reads what `Writer` wrote; Problem RW-BACKUP-DAMAGED where something is not as it says. `head` comes first."""

    def __init__(self, stream: SealedReader) -> None:
        self._stream = stream
        self.counts = Counts()
        self.head = self._decoded(self._expect(b"H"), Head)
        if self.head.version != VERSION:
            raise Problem("RW-BACKUP-FORMAT", f"The backup's content is of version {self.head.version}, not {VERSION}.")

    def sections(self) -> Iterator[Table | File]:
        """Every table and file in turn; each must be read to its end before the next one is asked for."""
        while True:
            kind, payload = self._next()
            if kind == b"Z":
                break
            begin = self._decoded(payload, Begin)
            if kind not in b"TF" or begin.name in self.counts.sha256:
                raise _damaged("A part of the backup stands where it does not belong, or twice.")
            if kind == b"T":
                yield Table(begin.name, begin.columns, self._batches(begin))
            else:
                yield File(begin.name, begin.mode, self._pieces(begin))
            if begin.name not in self.counts.sha256:
                raise RuntimeError(f"{begin.name} was not read to its end")
        close = self._decoded(payload, Close)
        if (close.tables, close.files) != (len(self.counts.tables), len(self.counts.files)):
            raise _damaged("The backup does not have as many tables and files as it says.")
        if not self._stream.at_end():
            raise _damaged("The backup has something behind its end.")

    def _batches(self, begin: Begin) -> Iterator[list[tuple[Any, ...]]]:
        digest, total = hashlib.sha256(), 0
        while (found := self._next())[0] == b"R":
            digest.update(found[1])
            batch = self._decoded(found[1], list[tuple[Any, ...]])
            if any(len(row) != len(begin.columns) for row in batch):
                raise _damaged(f"A row of {shown(begin.name)} does not have its columns.")
            total += len(batch)
            yield batch
        self._ended(begin, found, total, digest.digest())
        self.counts.tables[begin.name] = total

    def _pieces(self, begin: Begin) -> Iterator[bytes]:
        digest, total = hashlib.sha256(), 0
        while (found := self._next())[0] == b"D":
            digest.update(found[1])
            total += len(found[1])
            yield found[1]
        self._ended(begin, found, total, digest.digest())
        self.counts.files[begin.name] = total

    def _ended(self, begin: Begin, found: tuple[bytes, bytes], total: int, digest: bytes) -> None:
        end = self._decoded(found[1], End) if found[0] == b"E" else None
        if end is None or (end.count, end.sha256) != (total, digest):
            raise _damaged(f"{shown(begin.name)} does not have as much in it as the backup says, or something else.")
        self.counts.sha256[begin.name] = digest.hex()

    def _expect(self, kind: bytes) -> bytes:
        found, payload = self._next()
        if found != kind:
            raise _damaged("The backup does not begin with its head.")
        return payload

    def _next(self) -> tuple[bytes, bytes]:
        kind, length = _FRAME.unpack(self._stream.read(_FRAME.size))
        if length > LARGEST:
            raise _damaged(f"A part of the backup says that it has {length} bytes.")
        return kind, self._stream.read(length)

    @staticmethod
    def _decoded(payload: bytes, kind: type[T]) -> T:
        try:
            return msgspec.msgpack.decode(payload, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise _damaged("A part of the backup cannot be read.") from error


def _batches(rows: Iterable[tuple[Any, ...]]) -> Iterator[list[tuple[Any, ...]]]:
    batch: list[tuple[Any, ...]] = []
    size = 0
    for row in rows:
        batch.append(row)
        size += 16 + sum(len(value) if isinstance(value, str | bytes) else 8 for value in row)
        if size >= TOGETHER:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _damaged(detail: str) -> Problem:
    return Problem("RW-BACKUP-DAMAGED", detail)
