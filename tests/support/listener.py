"""A listener of ours on an event loop in a thread of its own, and a client that sees every octet."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any

import uvloop
from starlette.types import ASGIApp

from rootward.protocols.http import HttpLimits
from rootward.protocols.listen import Listener, bind
from rootward.protocols.tls import TlsIdentity
from tests.support.ports import free_port

HOST = b"Host: a.test\r\n"
GET = b"GET / HTTP/1.1\r\n" + HOST

Build = Callable[[], AbstractAsyncContextManager[ASGIApp]]


class Answer:
    """What came back. `closed`: the server said that it closes the connection."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body
        self.closed = headers.get("connection") == "close"

    @property
    def json(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.body)
        return found


class Running:
    """A listener while it runs; `stop` asks it to end, `end` waits for that."""

    def __init__(
        self,
        build: Build,
        *,
        limits: HttpLimits,
        tls: TlsIdentity | None,
        connections: int,
        per_address: int,
        handshake_seconds: float,
    ) -> None:
        self.tls = tls
        self.port = free_port()
        self._sock = bind("listen.http", ("127.0.0.1", self.port))
        self._ready = threading.Event()
        self._loop: asyncio.AbstractEventLoop
        self._asked: asyncio.Event

        async def main() -> None:
            self._asked = asyncio.Event()
            self._loop = asyncio.get_running_loop()
            async with build() as app:
                listener = Listener(
                    "test",
                    self._sock,
                    app,
                    limits=limits,
                    tls=tls,
                    connections=connections,
                    connections_per_address=per_address,
                    handshake_seconds=handshake_seconds,
                )
                listener.start()
                self._ready.set()
                await self._asked.wait()
                await listener.close(10)

        def run() -> None:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(main())

        self._thread = threading.Thread(target=run)
        self._thread.start()
        assert self._ready.wait(30)

    def stop(self) -> None:
        """Asks it to end."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._asked.set)

    def end(self) -> None:
        """Asks it to end, and waits until it has."""
        self.stop()
        self._thread.join(30)
        assert not self._thread.is_alive()

    def dial(self) -> socket.socket:
        """A new connection."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def ask(self, *pieces: bytes) -> Answer:
        """The answer on a connection of its own."""
        with self.dial() as sock:
            for piece in pieces:
                sock.sendall(piece)
            return read(sock)

    def ask_until(self, request: bytes, status: int, *, within: float = 10) -> int:
        """Asks again until the answer has the status, or the time is over; gives the last status."""
        until = time.monotonic() + within
        while (found := self.ask(request).status) != status and time.monotonic() < until:
            continue
        return found


@contextlib.contextmanager
def running(
    build: Build,
    *,
    limits: HttpLimits,
    tls: TlsIdentity | None = None,
    connections: int = 100,
    per_address: int = 100,
    handshake_seconds: float = 10,
) -> Iterator[Running]:
    """A listener for the length of a block."""
    made = Running(
        build,
        limits=limits,
        tls=tls,
        connections=connections,
        per_address=per_address,
        handshake_seconds=handshake_seconds,
    )
    try:
        yield made
    finally:
        made.end()


def just(make: Callable[[], ASGIApp]) -> Build:
    """For an application that needs nothing opened."""

    @contextlib.asynccontextmanager
    async def build() -> AsyncIterator[ASGIApp]:
        yield make()

    return build


def read(sock: socket.socket, *, head: bool = False) -> Answer:
    """One answer with Content-Length, and not an octet of what follows it. `head`: to a HEAD, so without body."""
    top = b""
    while not top.endswith(b"\r\n\r\n"):
        top += _some(sock, 1)
    first, *lines = top.decode().removesuffix("\r\n\r\n").split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    length = 0 if head else int(headers.get("content-length", 0))
    body = b""
    while len(body) < length:
        body += _some(sock, length - len(body))
    return Answer(int(first.split()[1]), headers, body)


def _some(sock: socket.socket, most: int) -> bytes:
    data = sock.recv(most)
    if not data:
        raise EOFError
    return data


def is_closed(sock: socket.socket, within: float = 10) -> bool:
    """Whether the other side ends the connection within so many seconds, without another word."""
    sock.settimeout(within)
    try:
        return sock.recv(1) == b""
    except TimeoutError:
        return False
    except OSError:
        return True
