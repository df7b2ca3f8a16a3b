"""A sealed stream opens as it was written, and in no other form: each way to damage it is found and said."""

from __future__ import annotations

import io
import json
import resource
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootward.core.problems import Problem
from rootward.keys import Argon2, Kek, kek_from_passphrase
from rootward.keys import stream as streams
from rootward.keys.stream import SealedReader, SealedWriter

CHUNK, TAG = 64, 16
CHEAP = Argon2(memory_kib=8 * 1024, passes=1, lanes=1)
PASSPHRASE = kek_from_passphrase("correct horse battery", CHEAP)
CANARY = b"PRIVATE KEY MATERIAL"


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "CHUNK", CHUNK)


def sealed(data: bytes, kek: Kek = PASSPHRASE, pieces: int = 7) -> bytes:
    """The file of a stream with `data`, written in `pieces`."""
    file = io.BytesIO()
    writer = SealedWriter(file, kek)
    step = max(1, len(data) // pieces)
    for at in range(0, len(data), step):
        writer.write(data[at : at + step])
    writer.finish()
    return file.getvalue()


def opened(data: bytes, size: int, kek: Kek = PASSPHRASE) -> bytes:
    """What is in the file, which must end after `size` bytes."""
    reader = SealedReader(io.BytesIO(data), kek)
    found = reader.read(size)
    assert reader.at_end()
    return found


def refusal(data: bytes, size: int = 0, kek: Kek = PASSPHRASE) -> str:
    """The code of the Problem that reading to the end must raise."""
    with pytest.raises(Problem) as caught:
        opened(data, size, kek)
    assert caught.value.detail
    return caught.value.code


def parts(data: bytes) -> tuple[bytes, list[bytes]]:
    """The first line with its newline, and the chunks."""
    line, _, rest = data.partition(b"\n")
    return line + b"\n", [rest[at : at + CHUNK + TAG] for at in range(0, len(rest), CHUNK + TAG)]


CONTENT = bytes(range(256)) + CANARY + bytes(100)
FILE: list[bytes] = []


@pytest.fixture(scope="module")
def file() -> bytes:
    """One file for all that only read it: each opening costs an Argon2id."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streams, "CHUNK", CHUNK)
        return sealed(CONTENT)


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 5 * CHUNK + 3])
@pytest.mark.parametrize("pieces", [1, 3, 1000])
def test_it_opens_as_it_was_written(size: int, pieces: int) -> None:
    data = (CANARY * 40)[:size]
    file = sealed(data, pieces=pieces)
    assert opened(file, size) == data
    assert len(parts(file)[1]) == max(1, -(-size // CHUNK))


def test_two_of_the_same_have_nothing_in_common(file: bytes) -> None:
    other = sealed(CONTENT)
    assert not set(parts(file)[1]) & set(parts(other)[1])


@pytest.mark.invariant("I-35")
def test_nothing_of_it_is_in_the_clear(file: bytes) -> None:
    assert CANARY not in file
    assert b"correct horse" not in file


def test_another_passphrase(file: bytes) -> None:
    assert refusal(file, kek=kek_from_passphrase("correct horse batterY", CHEAP)) == "RW-BACKUP-PASSPHRASE"


def test_cut_off_at_every_byte_and_at_every_chunk(file: bytes) -> None:
    line, chunks = parts(file)
    assert len(chunks) > 4
    for kept in range(len(chunks)):
        assert refusal(line + b"".join(chunks[:kept]), len(CONTENT)) == "RW-BACKUP-DAMAGED"
    for kept in range(len(line) + 1, len(file), 23):
        assert refusal(file[:kept], len(CONTENT)) == "RW-BACKUP-DAMAGED"
    for kept in range(0, len(line), 17):
        assert refusal(file[:kept], len(CONTENT)) == "RW-BACKUP-FORMAT"


@given(st.data())
def test_every_flipped_bit_is_found(data: st.DataObject) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streams, "CHUNK", CHUNK)
        if not FILE:
            FILE.append(sealed(CONTENT))
        at = data.draw(st.integers(0, len(FILE[0]) * 8 - 1))
        bad = bytearray(FILE[0])
        bad[at // 8] ^= 1 << at % 8
        assert refusal(bytes(bad), len(CONTENT)).startswith("RW-BACKUP-")


CHANGES: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "two changed places": lambda chunks: [chunks[1], chunks[0], *chunks[2:]],
    "one is there twice": lambda chunks: [chunks[0], chunks[0], *chunks[1:]],
    "one is gone": lambda chunks: [chunks[0], *chunks[2:]],
    "the last is gone": lambda chunks: chunks[:-1],
    "the last is there twice": lambda chunks: [*chunks, chunks[-1]],
    "the first as the last": lambda chunks: [*chunks[:-1], chunks[0]],
    "something behind the end": lambda chunks: [*chunks[:-1], chunks[-1].ljust(CHUNK + TAG, b"x"), b"y"],
    "a chunk of another stream": lambda chunks: [chunks[0], parts(sealed(CONTENT))[1][1], *chunks[2:]],
}


@pytest.mark.parametrize("name", CHANGES)
def test_chunks_stay_in_their_places(file: bytes, name: str) -> None:
    line, chunks = parts(file)
    assert refusal(line + b"".join(CHANGES[name](chunks)), len(CONTENT)) == "RW-BACKUP-DAMAGED"


def test_the_sentence_says_what_is_missing(file: bytes) -> None:
    line, chunks = parts(file)
    with pytest.raises(Problem, match="cut off"):
        opened(line + b"".join(chunks[:-1]), len(CONTENT))
    with pytest.raises(Problem, match="Part 2 "):
        opened(line + chunks[0] + bytes(CHUNK + TAG) + b"".join(chunks[2:]), len(CONTENT))


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"version": 2}, "RW-BACKUP-FORMAT"),
        ({"format": "other"}, "RW-BACKUP-FORMAT"),
        ({"cipher": "none"}, "RW-BACKUP-DAMAGED"),
        ({"salt": "0" * 32}, "RW-BACKUP-DAMAGED"),
        ({"more": 1}, "RW-BACKUP-DAMAGED"),
        ({"kek": {"memory_kib": 1024 * 1024}}, "RW-BACKUP-DAMAGED"),
        ({"kek": {"memory_kib": 1 << 40}}, "RW-BACKUP-DAMAGED"),
        ({"kek": {"passes": 1 << 40}}, "RW-BACKUP-DAMAGED"),
        ({"kek": {"source": "key"}}, "RW-BACKUP-DAMAGED"),
    ],
)
def test_a_first_line_from_elsewhere(file: bytes, change: dict[str, object], code: str) -> None:
    line, chunks = parts(file)
    header = json.loads(line)
    kek = change.pop("kek", {})
    assert isinstance(kek, dict)
    header |= change | {"kek": header["kek"] | kek}
    assert refusal(msgspec.json.encode(header) + b"\n" + b"".join(chunks), len(CONTENT)) == code


@pytest.mark.parametrize(
    "data", [b"", b"\n", b"{}\n", b"[" * 4095 + b"\n", b"\xff\n", b"x" * 100_000, b'{"format":"rootward-backup"}\n']
)
def test_what_is_no_backup(data: bytes) -> None:
    assert refusal(data) == "RW-BACKUP-FORMAT"


def test_memory_is_bounded_by_the_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "CHUNK", 64 * 1024)
    file = io.BytesIO()
    writer = SealedWriter(file, PASSPHRASE)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    written = 0
    for _ in range(2000):
        writer.write(bytes(32 * 1024))
        written += 32 * 1024
        file.seek(0)
        file.truncate()
    writer.finish()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 16 * 1024
    assert written > 60_000_000
