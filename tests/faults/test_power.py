"""Power cuts and damaged files. A power cut takes what was not flushed: strace sees that the intent is on the disk
before the key is asked, and the certificate before the answer leaves. What a disk gives back wrongly is refused at the
start, or is a state that there was.
"""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509

from rootward.core.problems import Problem
from tests.faults import scenes
from tests.faults.loop.drive import episode
from tests.faults.loop.record import unpacked
from tests.faults.loop.wire import Wire
from tests.faults.scenes import attempt, wish
from tests.support.faults import Founder, Home, books, killed, opened
from tests.support.rest import csr

TRACED = "fsync,fdatasync,pwrite64,write,writev,sendto,sendmsg"
MAIN = """
import sys
from pathlib import Path
from tests.faults.loop.server import Order, main

class Said:
    def send(self, told):
        if told[0] == "ready":
            (Path(sys.argv[2]) / "ready").touch()

main(Order(Path(sys.argv[1]), Path(sys.argv[2]), "traced", 1), Said())
"""
_CALL = re.compile(r"(\d+) +(\w+)\((\d+)<([^>]*)>(.*)")
_RESUMED = re.compile(r"(\d+) +<\.\.\. (\w+) resumed>(.*)")


@dataclass(frozen=True)
class Call:
    """A system call that has come back: which, on what, and the line with its bytes in hex."""

    name: str
    file: str
    text: str


def calls(log: Path) -> list[Call]:
    """Every call that came to its end, in the order of the ends."""
    found, waiting = [], dict[str, Call]()
    for line in log.read_text(errors="replace").splitlines():
        if match := _CALL.match(line):
            call = Call(match[2], decoded(match[4]), match[5].replace("\\x", ""))
            if "<unfinished ...>" in line:
                waiting[match[1]] = call
            else:
                found.append(call)
        elif (match := _RESUMED.match(line)) and match[1] in waiting:
            found.append(waiting.pop(match[1]))
    return found


def decoded(path: str) -> str:
    """A path as strace -xx writes it."""
    return re.sub(r"\\x([0-9a-f]{2})", lambda match: chr(int(match[1], 16)), path)


def position(found: list[Call], what: str, *, file: str, names: str, after: int = 0) -> int:
    """Where the first such call with these bytes is."""
    for at in range(after, len(found)):
        call = found[at]
        if call.name in names.split() and file in call.file and what in call.text:
            return at
    raise AssertionError(f"no {names} of {what} on {file}")


@pytest.mark.invariant("I-01")
@pytest.mark.invariant("I-05")
@pytest.mark.invariant("I-06")
def test_the_order_on_the_disk(founder: Founder, tmp_path: Path) -> None:
    log = tmp_path / "strace.log"
    with founder.home("sqlite", tmp_path) as home, episode(home, tmp_path, 1) as going:
        command = ["strace", "-D", "-f", "-y", "-xx", "-s", "5000", "-e", f"trace={TRACED}", "-o", str(log)]
        command += [sys.executable, "-c", MAIN, str(home.folder), str(going.record)]
        with subprocess.Popen(command) as process:
            try:
                for _ in range(600):
                    if (going.record / "ready").exists() or process.poll() is not None:
                        break
                    with pytest.raises(subprocess.TimeoutExpired):
                        process.wait(0.1)
                wire = Wire(going.town, "one")
                body = json.dumps({"profile": "server", "csr": csr("a.internal")}).encode()
                reply = wire.ask("POST", "/api/v1/certificates", body, who="requester")
                assert reply is not None
                assert reply.status == 201, reply
                wire.close()
            finally:
                process.terminate()
                assert process.wait(60) == 0
        made = x509.load_pem_x509_certificate(reply.json["certificate"].encode())
        lines = [json.loads(line) for line in (going.record / "signed-traced.jsonl").read_text().splitlines()]
        assert made.tbs_certificate_bytes in [unpacked(line["tbs"]) for line in lines]
    found = calls(log)
    flush = "fsync fdatasync"
    serial = f"{made.serial_number:040x}"[-16:]  # a part, as a row may be cut by the end of a page
    intent = position(found, serial, file="rootward.db-wal", names="pwrite64")
    flushed = position(found, "", file="rootward.db-wal", names=flush, after=intent)
    # The journal has its bytes in base64; what it is asked next is this certificate.
    asked = position(found, b'"asked"'.hex(), file="signed-traced", names="write", after=intent)
    assert intent < flushed < asked
    signed = position(found, b'"signed"'.hex(), file="signed-traced", names="write", after=asked)
    final = position(found, made.signature.hex()[-32:], file="rootward.db-wal", names="pwrite64", after=signed)
    durable = position(found, "", file="rootward.db-wal", names=flush, after=final)
    left = position(found, "", file="socket:[", names="write writev sendto sendmsg", after=signed)
    assert final < durable < left


# ── damaged files ─────────────────────────────────────────────────────────────────────────────────────────────────


def flip(path: Path, at: float) -> None:
    """One bit, at this part of the file."""
    data = bytearray(path.read_bytes())
    data[int(at * (len(data) - 1))] ^= 1
    path.write_bytes(bytes(data))


@pytest.mark.invariant("I-61")
@pytest.mark.parametrize("what", ["kek", "keys/issuing-*.key"])
@pytest.mark.parametrize("at", [0.0, 0.3, 0.6, 0.95])
def test_a_flipped_bit_where_keys_are_stops_the_start(sqlite_home: Home, what: str, at: float) -> None:
    (path,) = sqlite_home.folder.glob(what)
    flip(path, at)

    async def main() -> None:
        with pytest.raises(Problem) as caught:
            async with opened(sqlite_home):
                raise AssertionError("it must not open")
        assert caught.value.code.startswith(("RW-KE", "RW-KEY")), caught.value
        assert caught.value.detail

    asyncio.run(main())


@pytest.mark.invariant("I-61")
@pytest.mark.parametrize("what", ["kek", "keys/issuing-*.key"])
@pytest.mark.parametrize("left", [0, 20])
def test_a_cut_off_file_of_a_key_stops_the_start(sqlite_home: Home, what: str, left: int) -> None:
    (path,) = sqlite_home.folder.glob(what)
    path.write_bytes(path.read_bytes()[:left])

    async def main() -> None:
        with pytest.raises(Problem) as caught:
            async with opened(sqlite_home):
                raise AssertionError("it must not open")
        assert caught.value.code.startswith("RW-KE"), caught.value

    asyncio.run(main())


@pytest.mark.invariant("I-05")
@pytest.mark.invariant("I-56")
@pytest.mark.parametrize("cut", [1, 100, 4096, 4120, 20_000])
@pytest.mark.parametrize("traps", ["store.write.before-commit:kill:40", "store.write.after-commit:kill:41"])
def test_a_log_of_the_database_that_lost_its_end(sqlite_home: Home, traps: str, cut: int) -> None:
    """What is left is a state that there was: nothing is half there, and it goes on from there."""
    killed(sqlite_home, scenes.ask_many, 4, 50, traps=traps)
    wal = sqlite_home.folder / "rootward.db-wal"
    size = wal.stat().st_size
    assert size > cut
    with wal.open("r+b") as file:
        file.truncate(size - cut)

    async def main() -> None:
        async with opened(sqlite_home) as made:
            assert await books(made.inst)
            await attempt(made, wish("keyed"))
            await books(made.inst)

    asyncio.run(main())
    with closing(sqlite3.connect(sqlite_home.folder / "rootward.db")) as conn:
        assert conn.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
