"""HTTP/1.1 on one connection (RFC 9112): uvicorn's httptools protocol with the limits that it lacks, checked before any
door.

Sizes (request line, header bytes and count, body, chunk extensions and trailers), times (header, body, idle, a client
that does not read), exactly one valid Host, no CONNECT, no WebSocket, one answer at a time. A refusal is problem+json
with a stable code and the request's id; then the connection is closed, after a moment in which the rest of the request
is thrown away, so that the client gets to read the answer. The verified client certificate (DER) is
`scope["extensions"]["rootward.peer_certificate"]`.
"""

from __future__ import annotations

import asyncio
import enum
import re
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import unquote

import httptools
import structlog
from uvicorn import Config
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from rootward import telemetry
from rootward.core.problems import Problem
from rootward.protocols.deadline import Deadline
from rootward.protocols.exchange import Exchange
from rootward.protocols.problems import render

log = structlog.get_logger()

_PIECE: Final = 16 * 1024  # how much is parsed between two looks at the counters
_PIPELINE: Final = 16  # requests that may wait behind the running one
_LINGER_SECONDS: Final = 2.0
_LINGER_BYTES: Final = 8 * 1024 * 1024
_CHECKED: Final = frozenset((b"host", b"upgrade", b"transfer-encoding", b"content-length"))
_HOST: Final = re.compile(rb"(?:[A-Za-z0-9._-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")
_ABSOLUTE: Final = re.compile(rb"https?://([^/?]+)([/?].*)?", re.IGNORECASE)


@dataclass(frozen=True)
class HttpLimits:
    """Bytes and seconds. `bodies` are (path prefix, bytes) that differ from `body_bytes`; the first fit counts."""

    url_bytes: int = 8 * 1024
    header_bytes: int = 32 * 1024
    header_count: int = 100
    body_bytes: int = 1024 * 1024
    bodies: tuple[tuple[bytes, int], ...] = ()
    header_seconds: float = 10
    body_seconds: float = 60
    idle_seconds: int = 75
    write_seconds: float = 30

    def body_limit(self, path: bytes) -> int:
        """How many bytes a body for this path may have."""
        for prefix, size in self.bodies:
            if path.startswith(prefix):
                return size
        return self.body_bytes


class _Phase(enum.Enum):
    IDLE = "between two requests"
    HEAD = "request line and header"
    BODY = "body"


class _Refused(Exception):
    """Thrown through the parser out of one of its callbacks."""

    def __init__(self, status: int, code: str, detail: str) -> None:
        self.status, self.code, self.detail = status, code, detail
        super().__init__(detail)


class HttpProtocol(HttpToolsProtocol):
    """One connection. `release` is called once, when it is gone."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        *,
        limits: HttpLimits,
        release: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(config, server_state, app_state)
        self._limits = limits
        self._release = release
        self._door: str = app_state.get("door", "")
        self._phase = _Phase.IDLE
        self._deadline = Deadline(self.loop, self._late)  # for the header, the body, the next request, the goodbye
        self._stall: asyncio.TimerHandle | None = None  # for a client that does not read
        self._refused: _Refused | None = None
        self._running: RequestResponseCycle | None = None
        self._peer: bytes | None = None
        self._lingering = False
        self._drained = 0
        self._begun = False  # something of the next request has come
        self._quiet = 0  # bytes since the parser last had something to tell
        self._header_bytes = self._header_count = 0
        self._body_bytes = self._body_limit = 0
        self._request_id = ""

    # ── the connection ────────────────────────────────────────────────────────────────────────────────────────────

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as its base class has it
        super().connection_made(transport)
        tls = transport.get_extra_info("ssl_object")
        # only what was verified: with CERT_NONE a certificate would be whatever the client likes
        if tls is not None and tls.context.verify_mode is not ssl.CERT_NONE:
            self._peer = tls.getpeercert(True)
        self._deadline.set(self._limits.header_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._deadline.end()
        if self._stall is not None:
            self._stall.cancel()
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True
            self._running.message_event.set()
        self.pipeline.clear()
        self._release()

    def data_received(self, data: bytes) -> None:
        if self._lingering:
            self._drained += len(data)
            if self._drained > _LINGER_BYTES:
                self.transport.abort()  # a slow goodbye would take in still more
            return
        if self._phase is _Phase.IDLE and not self._begun:
            self._begun = True
            self._deadline.set(self._limits.header_seconds)
        view = memoryview(data)
        while view and not self._lingering:
            view = view[self._feed(view[:_PIECE]) :]

    def _feed(self, piece: memoryview) -> int:
        """Parses a piece and says how much of it was used."""
        self._quiet += len(piece)
        used = len(piece)
        try:
            self.parser.feed_data(piece)
        except httptools.HttpParserUpgrade as upgrade:
            # an offer such as h2c that we do not take up (RFC 9110 7.8): the request was whole, the next one follows
            used = upgrade.args[0]
            self.parser = httptools.HttpRequestParser(self)
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        except httptools.HttpParserError as error:
            refused = self._refused or _Refused(400, "RW-MALFORMED", "This is not HTTP/1.1.")
            if self._refused is None and isinstance(error, httptools.HttpParserCallbackError):
                log.warning("http.error", door=self._door, exc_info=error)
            self._refuse(refused)
            return used
        if self._quiet > self._limits.header_bytes:
            self._refuse(_Refused(431, "RW-TOO-LARGE", f"The header has more than {self._limits.header_bytes} bytes."))
        return used

    def eof_received(self) -> None:
        """The client is done with sending: the transport closes by itself, once what is still to be sent is taken."""
        self._arm_stall()

    # ── the parser's callbacks ────────────────────────────────────────────────────────────────────────────────────

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._phase = _Phase.HEAD
        if not self._begun:
            self._deadline.clear()  # what was waited for until now is this request's beginning
        self._begun = True
        self._header_bytes = self._header_count = self._body_bytes = 0
        self._request_id = telemetry.new_request_id()
        extensions: dict[str, Any] = {"rootward.request_id": self._request_id}
        if self._peer is not None:
            extensions["rootward.peer_certificate"] = self._peer
        self.scope["extensions"] = extensions
        if not self._deadline.is_set:
            self._deadline.set(self._limits.header_seconds)

    def on_url(self, url: bytes) -> None:
        self._quiet = 0
        self.url += url
        if len(self.url) > self._limits.url_bytes:
            raise self._refusal(414, "RW-TOO-LARGE", f"The URL has more than {self._limits.url_bytes} bytes.")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._quiet = 0
        self._header_bytes += len(name) + len(value) + 4
        self._header_count += 1
        if self._header_bytes > self._limits.header_bytes:
            raise self._refusal(431, "RW-TOO-LARGE", f"The header has more than {self._limits.header_bytes} bytes.")
        if self._header_count > self._limits.header_count:
            raise self._refusal(431, "RW-TOO-LARGE", f"The header has more than {self._limits.header_count} fields.")
        # a trailer never joins the header (RFC 9110 6.5.1): it would come after every check
        if self._phase is _Phase.HEAD:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        version = self.scope["http_version"] = self.parser.get_http_version()
        self.scope["method"] = self.parser.get_method().decode("ascii")
        self._check_header()
        url = httptools.parse_url(self.url)
        self.scope["path"] = unquote(url.path.decode("ascii"))
        self.scope["raw_path"] = url.path
        self.scope["query_string"] = url.query or b""
        before = self.cycle
        self.cycle = Exchange.on(self, keep_alive=version != "1.0" and self.parser.should_keep_alive())
        self._phase = _Phase.BODY
        self._deadline.set(self._limits.body_seconds)
        if before is None or before.response_complete:
            self._start_asgi_task(self.cycle, self.app)
            return
        self.flow.pause_reading()
        self.pipeline.appendleft((self.cycle, self.app))

    def on_body(self, body: bytes) -> None:
        self._quiet = 0
        self._body_bytes += len(body)
        if self._body_bytes > self._body_limit:
            raise self._refusal(413, "RW-TOO-LARGE", f"The body has more than {self._body_limit} bytes.")
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._quiet = 0
        super().on_message_complete()
        self._phase = _Phase.IDLE
        self._begun = False
        self._deadline.clear()
        if self.cycle.response_complete and not self.pipeline:
            self._deadline.set(self._limits.idle_seconds)  # answered before its body was there: nobody else does it

    def _check_header(self) -> None:
        version = self.scope["http_version"]
        method = self.scope["method"]
        if version not in ("1.0", "1.1"):
            raise self._refusal(505, "RW-MALFORMED", "Only HTTP/1.1 and HTTP/1.0 are spoken here.")
        if method == "CONNECT":
            raise self._refusal(405, "RW-METHOD", "This is no proxy.")
        fields: dict[bytes, list[bytes]] = {}
        for name, value in self.headers:
            if name in _CHECKED:
                fields.setdefault(name, []).append(value)
        hosts = fields.get(b"host", [])
        if len(hosts) > 1 or (not hosts and version == "1.1") or not all(map(_HOST.fullmatch, hosts)):
            raise self._refusal(
                400, "RW-MALFORMED", "A request has exactly one header Host, with a valid value (RFC 9112 3.2)."
            )
        if any(b"websocket" in value.lower() for value in fields.get(b"upgrade", [])):
            raise self._refusal(403, "RW-FORBIDDEN", "There are no WebSockets here.")
        coding = fields.get(b"transfer-encoding", [])
        if coding and (
            version == "1.0" or b"content-length" in fields or [value.lower() for value in coding] != [b"chunked"]
        ):
            raise self._refusal(
                400, "RW-MALFORMED", "The only transfer coding is chunked, alone and without Content-Length."
            )
        if self.parser.should_upgrade() and (coding or fields.get(b"content-length", [b"0"]) != [b"0"]):
            # The parser takes it for one without a body, and the body for the next request.
            raise self._refusal(400, "RW-MALFORMED", "A request with a body offers no other protocol here.")
        if not self.url.startswith(b"/") and not (self.url == b"*" and method == "OPTIONS"):
            self._origin_form(hosts)
        if b"#" in self.url:
            raise self._refusal(400, "RW-MALFORMED", "A URL has no fragment in a request (RFC 9112 3.2.1).")
        self._body_limit = self._limits.body_limit(self.url.partition(b"?")[0])
        length = fields.get(b"content-length")
        if length and int(length[0]) > self._body_limit:
            raise self._refusal(413, "RW-TOO-LARGE", f"The body has more than {self._body_limit} bytes.")
        if len(self.pipeline) >= _PIPELINE:
            raise self._refusal(400, "RW-MALFORMED", "Too many requests were sent before an answer.")

    def _origin_form(self, hosts: list[bytes]) -> None:
        """The absolute form that a client uses towards a proxy (RFC 9112 3.2.2), where it names the same host as Host
        does.
        """
        match = _ABSOLUTE.fullmatch(self.url)
        if match is None or [match[1].lower()] != [host.lower() for host in hosts]:
            raise self._refusal(400, "RW-MALFORMED", "The URL is neither a path nor that of the host in Host.")
        rest = match[2] or b"/"
        self.url = rest if rest.startswith(b"/") else b"/" + rest

    def _refusal(self, status: int, code: str, detail: str) -> _Refused:
        """To be raised: the parser tells its caller only that a callback failed, so the reason is kept here."""
        self._refused = _Refused(status, code, detail)
        return self._refused

    # ── answers ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        """As its base class has it, which starts a timer at each answer."""
        if self.transport.is_closing():
            self._arm_stall()
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self._phase is _Phase.IDLE and not self._begun:  # else what is still to come has a time of its own
            self._deadline.set(self._limits.idle_seconds)

    def _refuse(self, refused: _Refused) -> None:
        """Answers with a problem and ends the connection; an earlier answer that is under way is finished first."""
        running = self._running
        active = running is not None and not running.response_complete
        # whether the refused request is already with a door
        own = self.cycle is not None and self._phase is _Phase.BODY and (not active or running is self.cycle)
        log.info("http.refused", door=self._door, status=refused.status, code=refused.code, client=self._client())
        telemetry.HTTP_REQUESTS.labels(self._door, str(refused.status)).inc()
        if running is not None and active and not own:
            running.keep_alive = False
            self.pipeline.clear()
            self._linger(finish=False)
            return
        silent = False
        if own:
            silent = self.cycle.response_started
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if not silent:
            self._write_problem(refused)
        self._linger(finish=True)

    def _write_problem(self, refused: _Refused) -> None:
        problem = Problem(refused.code, refused.detail)
        request_id = self._request_id or telemetry.new_request_id()
        _, headers, body = render(problem, request_id, table={problem.kind: refused.status})
        lines = [b"HTTP/1.1 %d %b\r\n" % (refused.status, HTTPStatus(refused.status).phrase.encode())]
        headers += [(b"content-length", b"%d" % len(body)), (b"connection", b"close")]
        lines += [b"%b: %b\r\n" % header for header in (*self.server_state.default_headers, *headers)]
        method = self.parser.get_method()
        self.transport.write(b"".join([*lines, b"\r\n", b"" if method == b"HEAD" else body]))

    def _linger(self, *, finish: bool) -> None:
        """Drops what still comes. With `finish` the connection ends in a moment; else its last answer does that."""
        self._lingering = True
        self._deadline.clear()
        if not finish:
            return
        self.flow.resume_reading()
        if self.scheme == "http" and self.transport.can_write_eof():
            self.transport.write_eof()
        self._deadline.set(_LINGER_SECONDS)

    # ── clocks ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _late(self, seconds: float) -> None:
        waiting = self._running is not None and not self._running.response_complete
        if self.transport.is_closing():
            self._arm_stall()
            return
        if not self._lingering and (self.flow.read_paused or (waiting and self._phase is not _Phase.BODY)):
            self._deadline.set(seconds)  # it is us who do not read on
        elif self._lingering or not self._begun:
            self._close()  # nothing more was asked
        else:
            self._refuse(_Refused(408, "RW-TIMEOUT", f"The request was not whole after {seconds:g} seconds."))

    def shutdown(self) -> None:
        super().shutdown()
        if self.transport.is_closing():
            self._arm_stall()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._arm_stall()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stall is not None and not self.transport.is_closing():
            self._stall.cancel()
            self._stall = None

    def _arm_stall(self) -> None:
        if self._stall is None:
            self._stall = self.loop.call_later(self._limits.write_seconds, self._stalled)

    def _stalled(self) -> None:
        log.info("connection.stalled", door=self._door, client=self._client())
        self.transport.abort()

    def _close(self) -> None:
        """Closes once everything is sent, and by force when the client does not take it."""
        if not self.transport.is_closing():
            self.transport.close()
        self._arm_stall()

    def _client(self) -> str:
        return self.client[0] if self.client else ""
