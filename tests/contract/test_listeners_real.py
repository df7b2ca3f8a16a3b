"""Hostile bytes against a whole server in a process of its own: every row of tests/vectors/http.py on each of the three
listeners, senders without an end, silent ones in their hundreds, and readers that do not read.

Each gets exactly what the table says; right afterwards the server answers others; and its memory never grows past
`BOUND` above what it has when idle, which docs/performance.md promises.
"""

from __future__ import annotations

import contextlib
import re
import select
import socket
import sqlite3
import ssl
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.support.listener import Answer, is_closed, read
from tests.support.server import Server
from tests.vectors.http import BAD_HTTP, CHUNKED, GET, HOST, OCSP, Bytes

BOUND = 256 * 1024  # KiB above idle
DOORS = ("https", "mtls", "http")
SECONDS = {"header": 1, "body": 1, "idle": 2, "write": 2, "handshake": 3}
PATIENT = {**SECONDS, "header": 8}  # a thousand connections are all there before the first is closed for its silence
LARGE = 32 * 1024 * 1024  # bytes of a CRL


class Target:
    """A server with times of its own, and how to reach each of its listeners."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.idle = self.memory()

    def memory(self) -> int:
        """The most that the process ever had in memory, in KiB."""
        assert self.server.process is not None
        status = Path(f"/proc/{self.server.process.pid}/status").read_text()
        found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
        assert found is not None
        return int(found[1])

    def plain(self, door: str, *, source: str = "127.0.0.1") -> socket.socket:
        """A connection, TLS not begun."""
        return socket.create_connection(("127.0.0.1", self.server.ports[door]), 10, (source, 0))

    @contextlib.contextmanager
    def dial(self, door: str, *, source: str = "127.0.0.1") -> Iterator[socket.socket]:
        """A connection that HTTP can be spoken on."""
        with self.plain(door, source=source) as sock:
            if door == "http":
                yield sock
                return
            context = ssl.create_default_context(cafile=str(self.server.root))
            with context.wrap_socket(sock, server_hostname="localhost") as secured:
                yield secured

    def is_well(self, *doors: str, source: str = "127.0.0.3") -> None:
        """It answers others at these doors (all, where none is given), and has not grown."""
        for door in doors or DOORS:
            with self.dial(door, source=source) as sock:
                sock.sendall(b"GET /ca/issuing.cer HTTP/1.1\r\n" + HOST + b"\r\n")
                assert read(sock).status == 200
        assert self.memory() - self.idle < BOUND


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    home = tmp_path_factory.mktemp("listeners") / "home"
    with _target(home, SECONDS, large=True) as made:
        yield made


@pytest.fixture
def patient(tmp_path: Path) -> Iterator[Target]:
    with _target(tmp_path / "home", PATIENT) as made:
        yield made


@contextlib.contextmanager
def _target(home: Path, times: Mapping[str, int], *, large: bool = False) -> Iterator[Target]:
    """A server with these `..._seconds`; `large`: and with a CRL of `LARGE` bytes."""
    with Server(home):
        pass
    settings = home / "rootward.toml"
    text = settings.read_text()
    for name, seconds in times.items():
        text, count = re.subn(rf"(?m)^# {name}_seconds = .*$", f"{name}_seconds = {seconds}", text)
        assert count == 1
    settings.write_text(text)
    if large:
        _plant(home / "rootward.db")
    with Server(home) as server:
        made = Target(server)
        made.is_well()
        made.idle = made.memory()
        yield made


def _plant(database: Path) -> None:
    """A CRL of many bytes, in place of the one that there is. (Nobody here reads what is in it.)"""
    with contextlib.closing(sqlite3.connect(database)) as conn, conn:
        conn.execute(
            "INSERT INTO crls SELECT issuer, scope, number + 1, this_update, next_update, entries, watermark, "
            "zeroblob(?) FROM crls ORDER BY length(der) LIMIT 1",
            (LARGE,),
        )


def send(sock: socket.socket, row: Bytes) -> int:
    """Sends the row until all is sent, or the server has said or done something. How many bytes went out."""
    sent = 0
    step = 1 if row.slowly else 65_536
    for piece in row.pieces():
        for at in range(0, len(piece), step):
            if select.select([sock], [], [], 0.02 if row.slowly else 0)[0]:
                return sent
            try:
                sock.sendall(piece[at : at + step])
            except OSError:
                return sent
            sent += step
    return sent


@pytest.mark.invariant("I-66")
@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("row", BAD_HTTP, ids=lambda row: row.name)
def test_what_each_of_them_gets(target: Target, row: Bytes, door: str) -> None:
    with target.dial(door) as sock:
        sent = send(sock, row)
        assert sent <= row.sent_at_most
        if row.outcome is None:
            assert is_closed(sock, within=10)
        else:
            status, code = row.outcome
            answer = read(sock)
            assert answer.status == status
            if code:
                assert answer.headers["content-type"] == "application/problem+json"
                assert (answer.json["code"], answer.json["status"]) == (code, status)
    target.is_well(door)


@pytest.mark.invariant("I-66")
@pytest.mark.parametrize("door", DOORS)
def test_who_expects_to_go_on_is_told_so(target: Target, door: str) -> None:
    with target.dial(door) as sock:
        sock.sendall(OCSP + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\n")
        assert read(sock).status == 100
        sock.sendall(b"abc")
        answer = read(sock)
        assert (answer.status, answer.body) == (200, b"0\x03\n\x01\x01")  # malformedRequest


@pytest.mark.invariant("I-66")
@pytest.mark.parametrize("door", DOORS)
def test_requests_without_end_and_nobody_who_reads(target: Target, door: str) -> None:
    request = b"GET /nothing HTTP/1.1\r\n" + HOST + b"\r\n"
    sent, most = 0, 8 * 1024 * 1024 * 1024
    with target.dial(door) as sock:
        sock.settimeout(5)
        with contextlib.suppress(OSError):
            while sent < most:
                sent += sock.send(request * 1000)
    assert sent < most  # the server cut it; until then it threw away what came
    target.is_well()


@pytest.mark.invariant("I-66")
@pytest.mark.parametrize("door", DOORS)
def test_more_connections_than_one_address_may_have(request: pytest.FixtureRequest, door: str) -> None:
    # only over http are the refused told from the silent, and counted
    target: Target = request.getfixturevalue("patient" if door == "http" else "target")
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(target.plain(door)) for _ in range(1000)]
        target.is_well()  # from another address
        for sock in held:
            sock.settimeout(60)
        answers = [_whole(sock) for sock in held]  # each ends: refused at once, or silent for too long
    refused = [answer for answer in answers if answer]
    if door == "http":
        assert len(refused) == 1000 - 512
        assert {answer.split(b"\r\n")[0] for answer in refused} == {b"HTTP/1.1 503 Service Unavailable"}
        assert all(b"retry-after: 1\r\n" in answer for answer in refused)
    else:
        assert refused == []  # before a handshake there is nothing that could be said
    target.is_well(source="127.0.0.1")


def _whole(sock: socket.socket) -> bytes:
    """All that comes until the connection ends."""
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while part := sock.recv(65_536):
            data += part
    return data


@pytest.mark.invariant("I-66")
@pytest.mark.parametrize("door", ["https", "http"])
@pytest.mark.parametrize("range_", [b"", b"Range: bytes=1-\r\n"])
def test_many_who_do_not_read_a_large_crl_share_one_copy_of_it(target: Target, door: str, range_: bytes) -> None:
    with contextlib.ExitStack() as stack:
        readers = [stack.enter_context(target.dial(door)) for _ in range(50)]
        for sock in readers:
            sock.sendall(b"GET /crl/issuing.crl HTTP/1.1\r\n" + HOST + range_ + b"\r\n")
            assert sock.recv(12) in (b"HTTP/1.1 200", b"HTTP/1.1 206")
        target.is_well()
        _wait_until_cut(target, door)
    target.is_well()


def _wait_until_cut(target: Target, door: str) -> None:
    """Until the server has closed its side of every reader's connection."""
    with target.server.client() as client:
        for _ in range(300):
            text = client.get("/metrics").text
            found = re.search(rf'^rootward_connections{{door="{door}"}} (\S+)$', text, re.MULTILINE)
            assert found is not None
            if float(found[1]) <= 2:
                return
            time.sleep(0.1)
    raise AssertionError("readers that do not read are never cut")


@pytest.mark.invariant("I-66")
@pytest.mark.parametrize("door", ["https", "mtls"])
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x16",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\x00" * 5000,
        b"\x16\x03\x01\xff\xff" + b"\x01" * 65_535,
        b"\x80\x2e\x01\x00\x02" + b"\x00" * 44,  # SSL 2
        b"\x15\x03\x03\x00\x02\x02\x28",  # an alert
        b"\x17\x03\x03\x40\x00" + b"a" * 16_384,  # data before a handshake
    ],
    ids=["nothing", "one octet", "half a greeting", "http", "zeros", "too long", "ssl 2", "alert", "data"],
)
def test_a_handshake_that_is_none(target: Target, door: str, data: bytes) -> None:
    with target.plain(door) as sock:
        sock.sendall(data)
        sock.settimeout(10)
        answer = _whole(sock)
    assert answer == b"" or answer[0] == 0x15  # a TLS alert, if anything
    target.is_well()


@pytest.mark.parametrize("door", ["https", "mtls"])
@pytest.mark.parametrize("version", ["-tls1", "-tls1_1"])
def test_old_tls_is_refused(target: Target, door: str, version: str) -> None:
    done = _s_client(target, door, version, "-cipher", "ALL:@SECLEVEL=0", says="")
    assert "Cipher is (NONE)" in done or "no protocols available" in done
    target.is_well()


@pytest.mark.parametrize("door", ["https", "mtls"])
def test_renegotiation_is_refused(target: Target, door: str) -> None:
    done = _s_client(target, door, "-tls1_2", says="R\n")
    assert "RENEGOTIATING" in done
    assert re.search(r"no.renegotiation", done)
    assert "Compression: NONE" in done
    target.is_well()


def _s_client(target: Target, door: str, *options: str, says: str) -> str:
    """What `openssl s_client` tells of a connection on which that is said."""
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{target.server.ports[door]}", *options]
    done = subprocess.run(command, input=says, capture_output=True, text=True, timeout=30, check=False)
    return done.stdout + done.stderr


def test_a_client_that_leaves_in_the_middle(target: Target) -> None:
    for data in (b"GET /cr", GET, CHUNKED + b"10\r\nab", GET + b"\r\n", b"GET /crl/issuing.crl HTTP/1.1\r\n" + HOST):
        for door in DOORS:
            for _ in range(10):
                with target.dial(door) as sock:
                    sock.sendall(data)
    target.is_well()


def test_the_answers_are_whole(target: Target) -> None:
    with target.dial("http") as sock:
        sock.sendall(b"GET /crl/issuing.crl HTTP/1.1\r\n" + HOST + b"Range: bytes=1-9\r\n\r\n")
        answer: Answer = read(sock)
    assert (answer.status, answer.body) == (206, bytes(9))
    assert answer.headers["content-range"] == f"bytes 1-9/{LARGE}"
