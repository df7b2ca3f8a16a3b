"""What is inside a backup: counts, digests and places are checked again, whoever sealed it."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from rootward.backup import form
from rootward.backup.create import is_inside
from rootward.core.problems import Problem
from rootward.keys.stream import SealedWriter

HEAD = form.Head(form.VERSION, "an id", "0002", "sqlite", "0.1.0", 1_764_000_000, 0, 0)
ROWS: list[tuple[Any, ...]] = [(n, "x" * n, bytes(n), None) for n in range(300)]
COLUMNS = ["n", "text", "octets", "nothing"]


class Plain:
    """A stream that is not sealed: what is tested here is behind the seal."""

    def __init__(self, data: bytes = b"") -> None:
        self.file = io.BytesIO(data)

    def write(self, data: bytes) -> None:
        self.file.write(data)

    def finish(self) -> None:
        self.file.seek(0)

    def read(self, size: int) -> bytes:
        found = self.file.read(size)
        if len(found) < size:
            raise Problem("RW-BACKUP-DAMAGED", "It ends.")
        return found

    def at_end(self) -> bool:
        return self.file.tell() == len(self.file.getvalue())


def written(head: form.Head = HEAD) -> bytes:
    """A backup of one table and one file."""
    stream: Any = Plain()
    writer = form.Writer(stream, head)
    writer.file("rootward.toml", 0o644, b"org = 1")
    assert sum(writer.table("things", COLUMNS, iter(ROWS))) == len(ROWS)
    writer.file("kek", 0o400, b"")
    writer.finish()
    assert writer.counts.tables == {"things": len(ROWS)}
    return bytes(stream.file.getvalue())


def read(data: bytes) -> Iterator[object]:
    """Everything in it, in order."""
    stream: Any = Plain(data)
    reader = form.Reader(stream)
    yield reader.head
    for section in reader.sections():
        if isinstance(section, form.Table):
            yield section.name, section.columns, [row for batch in section.batches for row in batch]
        else:
            yield section.name, section.mode, b"".join(section.pieces)


def frames(data: bytes) -> list[tuple[bytes, bytes]]:
    """The letters and payloads."""
    found, at = [], 0
    while at < len(data):
        kind, length = struct.unpack_from(">cI", data, at)
        found.append((kind, data[at + 5 : at + 5 + length]))
        at += 5 + length
    return found


def joined(found: list[tuple[bytes, bytes]]) -> bytes:
    """The inverse of `frames`."""
    return b"".join(struct.pack(">cI", kind, len(payload)) + payload for kind, payload in found)


def test_it_reads_what_was_written() -> None:
    assert list(read(written())) == [
        HEAD,
        ("rootward.toml", 0o644, b"org = 1"),
        ("things", COLUMNS, ROWS),
        ("kek", 0o400, b""),
    ]
    assert joined(frames(written())) == written()


def test_the_same_rows_have_the_same_digest() -> None:
    assert written() == written()


@pytest.mark.parametrize("gone", range(len(frames(written()))))
def test_a_frame_that_is_gone(gone: int) -> None:
    found = frames(written())
    with pytest.raises(Problem, match="RW-BACKUP-DAMAGED"):
        list(read(joined([*found[:gone], *found[gone + 1 :]])))


@pytest.mark.parametrize("twice", range(len(frames(written()))))
def test_a_frame_that_is_there_twice(twice: int) -> None:
    found = frames(written())
    with pytest.raises(Problem, match="RW-BACKUP-DAMAGED"):
        list(read(joined([*found[: twice + 1], *found[twice:]])))


def test_another_row_than_its_digest() -> None:
    found = frames(written())
    at = next(index for index, (kind, _) in enumerate(found) if kind == b"R")
    rows = msgspec.msgpack.decode(found[at][1])
    rows[7][1] = "other"
    found[at] = b"R", msgspec.msgpack.encode(rows)
    with pytest.raises(Problem, match="RW-BACKUP-DAMAGED"):
        list(read(joined(found)))


def test_a_row_of_other_columns() -> None:
    stream: Any = Plain()
    writer = form.Writer(stream, HEAD)
    list(writer.table("things", COLUMNS, [(1, 2)]))
    writer.finish()
    with pytest.raises(Problem, match="columns"):
        list(read(stream.file.getvalue()))


@pytest.mark.parametrize("payload", [b"", b"\xc1", b"\x81\xa1a\x01", b"\x9f" * 5000])
@pytest.mark.parametrize("kind", [b"H", b"T", b"F", b"R", b"E", b"Z", b"?"])
def test_a_payload_that_is_none(kind: bytes, payload: bytes) -> None:
    begin = frames(written())[:1] if kind != b"H" else []
    with pytest.raises(Problem, match="RW-BACKUP-DAMAGED"):
        list(read(joined([*begin, (kind, payload)])))


def test_a_length_that_nothing_has() -> None:
    """Refused by what it says, before anything is read."""
    with pytest.raises(Problem, match="4294967295 bytes"):
        list(read(written()[:0] + joined(frames(written())[:1]) + struct.pack(">cI", b"T", 0xFFFFFFFF)))


def test_another_version_of_the_content() -> None:
    with pytest.raises(Problem, match="RW-BACKUP-FORMAT"):
        list(read(written(msgspec.structs.replace(HEAD, version=2))))


def test_a_section_must_be_read_to_its_end() -> None:
    """A mistake of ours, and loud."""
    stream: Any = Plain(written())
    sections = form.Reader(stream).sections()
    next(sections)
    with pytest.raises(RuntimeError, match=r"rootward\.toml"):
        next(sections)


def test_rows_share_frames_of_a_bounded_size() -> None:
    stream: Any = Plain()
    writer = form.Writer(stream, HEAD)
    sizes = list(writer.table("things", ["octets"], ((bytes(100_000),) for _ in range(20))))
    assert max(sizes) == 3
    assert sum(sizes) == 20


def test_what_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(form, "LARGEST", 1000)
    stream: Any = Plain()
    with pytest.raises(Problem, match="RW-TOO-LARGE"):
        list(form.Writer(stream, HEAD).table("things", ["octets"], [(bytes(1001),)]))


@pytest.mark.parametrize(
    "name",
    [
        *("", ".", "..", "/etc/passwd", "../x", "keys/../../x", "keys//x", "./kek", "keys/", "a\0b"),
        *("offline-root/root.key", "admin.token", ".hidden", "keys/.new-1"),
    ],
)
def test_files_that_no_backup_has(name: str) -> None:
    assert not is_inside(name)


@pytest.mark.parametrize("name", ["kek", "rootward.toml", "keys/issuing-0011.key", "log/checkpoint", "ceremony/a.json"])
def test_files_that_a_backup_has(name: str) -> None:
    assert is_inside(name)


def test_a_stream_takes_a_passphrase_only(tmp_path: Any) -> None:
    from rootward.keys import create_kek_file, kek_from_file

    create_kek_file(tmp_path / "kek")
    with pytest.raises(TypeError, match="passphrase"):
        SealedWriter(io.BytesIO(), kek_from_file(tmp_path / "kek"))
