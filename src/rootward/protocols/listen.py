"""One listening socket: accepts, counts, greets with TLS, and hands each connection to `HttpProtocol`.

Connections are accepted by us and not by the event loop, so that one over the limit (in total or from one address) is
closed before it costs a handshake, and each new one gets the TLS context of this moment. `close` stops accepting, lets
answers under way finish, and cuts what is left. RFC 9112 9.3 (persistence), 9.6 (tear-down).
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
import time
from collections import Counter
from email.utils import formatdate
from typing import Final

import structlog
from starlette.types import ASGIApp
from uvicorn import Config
from uvicorn.server import ServerState

from rootward import telemetry
from rootward.core.problems import Problem
from rootward.protocols.http import HttpLimits, HttpProtocol
from rootward.protocols.problems import render
from rootward.protocols.tls import TlsIdentity

log = structlog.get_logger()

_BURST: Final = 64  # connections accepted before others get a turn
_NO_ROOM: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_NO_ROOM_SECONDS: Final = 0.2
_TLS_END_SECONDS: Final = 5.0
_CUT_SECONDS: Final = 1.0


def bind(setting: str, address: tuple[str, int]) -> socket.socket:
    """A listening socket on (IP address, port). Problem RW-CONFIG names the setting when the address cannot be had."""
    sock = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setblocking(False)
        sock.bind(address)
        sock.listen(1024)
    except OSError as error:
        sock.close()
        why = {
            errno.EADDRINUSE: "another program listens there",
            errno.EACCES: "this user may not use that port",
            errno.EADDRNOTAVAIL: "this machine does not have that address",
        }.get(error.errno or 0, error.strerror or "it failed")
        raise Problem(
            "RW-CONFIG",
            f"Cannot listen on {_shown(address)}: {why}. Stop the other program, or choose another address with "
            f"{setting}.",
            field=setting,
        ) from error
    return sock


class Listener:
    """`name` is the door (`https`, `mtls`, `http`). `tls` None: plain HTTP. The limits count this listener alone."""

    def __init__(
        self,
        name: str,
        sock: socket.socket,
        app: ASGIApp,
        *,
        limits: HttpLimits,
        tls: TlsIdentity | None = None,
        connections: int = 2000,
        connections_per_address: int = 512,
        handshake_seconds: float = 10,
    ) -> None:
        self.name = name
        self.sock = sock
        self.tls = tls
        self._limits = limits
        self._most = connections
        self._most_of_one = connections_per_address
        self._handshake_seconds = handshake_seconds
        self._open: Counter[str] = Counter()
        self._total = 0
        self._empty = asyncio.Event()
        self._empty.set()
        self._state = ServerState()
        self._greeting: set[asyncio.Task[None]] = set()
        self._ticking: asyncio.TimerHandle | None = None
        self._accepting = False
        self._config = Config(
            app,
            interface="asgi3",
            http=HttpProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            workers=1,
        )
        self._config.load()
        self._loop = asyncio.get_running_loop()

    def start(self) -> None:
        """Accepts from now on."""
        self._tick()
        self._accept_on()

    async def close(self, seconds: float) -> None:
        """No new connections; those that are idle close; the rest may finish within `seconds`, then it is cut."""
        if self._accepting:
            self._loop.remove_reader(self.sock.fileno())
            self._accepting = False
        self.sock.close()
        for task in self._greeting:
            task.cancel()
        for connection in list(self._state.connections):
            connection.shutdown()
        await self._gone(seconds)
        for task in list(self._state.tasks):
            task.cancel()
        for connection in list(self._state.connections):
            connection.transport.abort()
        await self._gone(_CUT_SECONDS)
        if self._ticking is not None:
            self._ticking.cancel()

    async def _gone(self, seconds: float) -> None:
        until = self._loop.time() + seconds
        try:
            async with asyncio.timeout_at(until):
                await self._empty.wait()
        except TimeoutError:
            return
        if self._state.tasks:
            await asyncio.wait(self._state.tasks, timeout=max(0.0, until - self._loop.time()))

    def _tick(self) -> None:
        """The Date header, once a second (RFC 9110 6.6.1)."""
        self._state.default_headers = [(b"date", formatdate(time.time(), usegmt=True).encode())]
        self._ticking = self._loop.call_later(1, self._tick)

    def _accept_on(self) -> None:
        if self.sock.fileno() >= 0:
            self._loop.add_reader(self.sock.fileno(), self._accept)
            self._accepting = True

    def _accept(self) -> None:
        for _ in range(_BURST):
            try:
                connection, address = self.sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _NO_ROOM:
                    raise
                # the socket stays readable: without a pause this would be a busy loop
                self._refused("no room", "")
                self._loop.remove_reader(self.sock.fileno())
                self._accepting = False
                self._loop.call_later(_NO_ROOM_SECONDS, self._accept_on)
                return
            self._admit(connection, address[0])

    def _admit(self, connection: socket.socket, address: str) -> None:
        cause = (
            "total" if self._total >= self._most else "address" if self._open[address] >= self._most_of_one else None
        )
        if cause is not None:
            self._refused(cause, address)
            with connection:
                connection.setblocking(False)
                if self.tls is None:
                    _send_busy(connection)
            return
        connection.setblocking(False)
        ticket = _Ticket(self, address)
        task = self._loop.create_task(self._greet(connection, ticket))
        self._greeting.add(task)
        task.add_done_callback(self._greeting.discard)

    async def _greet(self, connection: socket.socket, ticket: _Ticket) -> None:
        def protocol() -> HttpProtocol:
            return HttpProtocol(
                self._config, self._state, {"door": self.name}, limits=self._limits, release=ticket.release
            )

        try:
            if self.tls is None:
                await self._loop.connect_accepted_socket(protocol, connection)
            else:
                await self._loop.connect_accepted_socket(
                    protocol,
                    connection,
                    ssl=self.tls.context,
                    ssl_handshake_timeout=self._handshake_seconds,
                    ssl_shutdown_timeout=_TLS_END_SECONDS,
                )
        except (ssl.SSLError, OSError, TimeoutError) as error:
            ticket.release()
            reason = getattr(error, "reason", None) or type(error).__name__
            log.info("tls.refused", door=self.name, client=ticket.address, reason=reason)
            telemetry.CONNECTIONS_REFUSED.labels(self.name, "handshake").inc()
        except asyncio.CancelledError:
            ticket.release()
            connection.close()
            raise

    def _refused(self, cause: str, address: str) -> None:
        log.warning("connection.refused", door=self.name, cause=cause, client=address)
        telemetry.CONNECTIONS_REFUSED.labels(self.name, cause).inc()

    def count(self, address: str, change: int) -> None:
        """One connection more or fewer of an address."""
        self._total += change
        self._open[address] += change
        if not self._open[address]:
            del self._open[address]
        (self._empty.clear if self._total else self._empty.set)()
        telemetry.CONNECTIONS.labels(self.name).set(self._total)


class _Ticket:
    """One connection's place in the counts, given back once."""

    def __init__(self, listener: Listener, address: str) -> None:
        self.address = address
        self._listener: Listener | None = listener
        listener.count(address, 1)

    def release(self) -> None:
        if self._listener is not None:
            self._listener.count(self.address, -1)
            self._listener = None


def _send_busy(connection: socket.socket) -> None:
    problem = Problem("RW-UNAVAILABLE", "Too many connections are open.", retry_after=1)
    status, headers, body = render(problem, telemetry.new_request_id())
    head = [*headers, (b"content-length", b"%d" % len(body)), (b"connection", b"close")]
    lines = b"".join(b"%b: %b\r\n" % header for header in head)
    try:
        connection.send(b"HTTP/1.1 %d Service Unavailable\r\n%b\r\n%b" % (status, lines, body))
    except OSError:
        return  # it is gone: nobody waits for the answer


def _shown(address: tuple[str, int]) -> str:
    return f"[{address[0]}]:{address[1]}" if ":" in address[0] else f"{address[0]}:{address[1]}"
