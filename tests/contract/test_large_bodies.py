"""Large bodies against a whole server in a process of its own: who may not send one is told before it comes, and forty
of those who may, with the last bytes kept back, find room for a few. Its memory stays within what docs/performance.md
promises.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.listener import Answer, read
from tests.support.server import Server
from tests.vectors import imports as made
from tests.vectors.csr_parts import pem

BOUND = 256 * 1024  # KiB above idle
LARGE = 32 * 1024 * 1024  # limits.import_bytes
HELD_BACK = 16
CONNECTIONS = 40


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path / "home") as running:
        yield running


def most_memory(server: Server) -> int:
    """The most that the process ever had, in KiB."""
    assert server.process is not None
    found = re.search(r"^VmHWM:\s+(\d+) kB$", Path(f"/proc/{server.process.pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1])


@contextlib.contextmanager
def begun(server: Server, path: str, token: str, length: int) -> Iterator[socket.socket]:
    """A connection on which the head of a request with a body of that length was sent."""
    context = ssl.create_default_context(cafile=str(server.root))
    with (
        socket.create_connection(("127.0.0.1", server.ports["https"]), 30) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as sock,
    ):
        head = [
            f"POST /api/v1{path} HTTP/1.1",
            "Host: localhost",
            f"Authorization: Bearer {token}",
            "Content-Type: application/json",
            f"Content-Length: {length}",
        ]
        sock.sendall("\r\n".join([*head, "", ""]).encode())
        yield sock


def of_nobody(server: Server) -> str:
    """A token of a person without a role."""
    with server.client() as client:
        id = client.post("/api/v1/principals", json={"name": "nobody"}).raise_for_status().json()["id"]
        body = {"label": "x", "principal": id, "lifetime": "1d"}
        token: str = client.post("/api/v1/tokens", json=body).raise_for_status().json()["token"]
        return token


@pytest.mark.invariant("I-66")
@pytest.mark.parametrize("path", ["/imports", "/blocked-keys"])
def test_who_may_not_is_told_before_a_body_comes(server: Server, path: str) -> None:
    with begun(server, path, of_nobody(server), 200_000) as sock:
        answer = read(sock)  # nothing of the body was sent
    assert (answer.status, answer.json["code"]) == (403, "RW-FORBIDDEN")


@pytest.mark.invariant("I-66")
@pytest.mark.parametrize("finish", [False, True], ids=["cut off", "finished"])
def test_many_large_bodies_at_once_stay_within_the_bound(server: Server, finish: bool) -> None:
    with server.client() as client:
        upload = {"content": pem(made.real_der(), "CERTIFICATE").decode()}
        client.post("/api/v1/imports", json=upload).raise_for_status()
        idle = most_memory(server)
        answers = _at_once(server, finish)
        assert most_memory(server) - idle < BOUND
        refused = [answer for answer in answers if answer is not None and answer.status == 503]
        assert len(refused) >= CONNECTIONS - 4  # all, but those for whom there is room
        assert {answer.json["code"] for answer in refused} == {"RW-UNAVAILABLE"}
        assert all("retry-after" in answer.headers for answer in refused)
        again = client.post("/api/v1/imports", json=upload).raise_for_status()
        assert [one["result"] for one in again.json()["items"]] == ["known"]
        # and the room is back: a body that needs nearly half of it
        content = upload["content"] + "-" * (LARGE - 10_000)
        client.post("/api/v1/imports", json={"content": content}).raise_for_status()
    assert most_memory(server) - idle < BOUND


def _at_once(server: Server, finish: bool) -> list[Answer | None]:
    """What each of many gets who send a large import, all but its last bytes; None for who is still waited for. With
    `finish` those send the rest too.
    """
    start, end = json.dumps({"content": pem(made.real_der(), "CERTIFICATE").decode()}).encode()[:-2], b'"}'
    body = start + b"-" * (LARGE - len(start) - len(end)) + end
    answers: list[Answer | None] = [None] * CONNECTIONS
    sent = threading.Barrier(CONNECTIONS + 1)

    def one(index: int) -> None:
        with begun(server, "/imports", server.token, len(body)) as sock:
            whole = True
            try:
                for at in range(0, len(body) - HELD_BACK, 1024 * 1024):
                    sock.sendall(body[at : min(at + 1024 * 1024, len(body) - HELD_BACK)])
            except OSError:
                whole = False
            sock.settimeout(3)
            with contextlib.suppress(TimeoutError):
                answers[index] = read(sock)
            sent.wait(120)
            if finish and whole and answers[index] is None:
                sock.settimeout(60)
                sock.sendall(body[-HELD_BACK:])
                answers[index] = read(sock)

    threads = [threading.Thread(target=one, args=(index,), daemon=True) for index in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    sent.wait(120)
    for thread in threads:
        thread.join(120)
    return answers
