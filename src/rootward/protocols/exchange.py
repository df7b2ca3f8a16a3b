"""One request and its answer on a connection: uvicorn's, but the head goes out together with the first of the body. Two
pieces are two system calls and two packets, which cost more than all of our own work on an OCSP answer.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

_NO_NAME: Final = re.compile(rb"[^!#$%&'*+.^_`|~0-9a-z-]")  # RFC 9110 5.1, in lower case (ASGI)
_NO_VALUE: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")  # 5.5


class Exchange(RequestResponseCycle):
    """`send` takes ASGI's messages (HTTP 2.3). RuntimeError for what the application may not do: a header that would be
    two, a body that is not as long as it says.
    """

    _head = b""  # begun, and not sent yet
    _until_closed = False  # the connection's end is the body's

    @classmethod
    def on(cls, connection: HttpToolsProtocol, *, keep_alive: bool) -> Exchange:
        """For the request whose header `connection` has just read."""
        return cls(
            scope=connection.scope,
            transport=connection.transport,
            flow=connection.flow,
            logger=connection.logger,
            access_logger=connection.access_logger,
            access_log=False,
            default_headers=connection.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=connection.expect_100_continue,
            keep_alive=keep_alive,
            on_response=connection.on_response_complete,
        )

    async def send(self, message: Any) -> None:
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        if self.response_complete:
            raise RuntimeError("An answer that is complete goes on.")
        if message["type"] != ("http.response.body" if self.response_started else "http.response.start"):
            raise RuntimeError(f"This is not the time for {message['type']}.")
        if self.response_started:
            self._write(message.get("body", b""), message.get("more_body", False))
        else:
            self._begin(message["status"], [*self.default_headers, *message.get("headers", ())])

    def _begin(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self.response_started = True
        self.waiting_for_100_continue = False
        names = [name for name, _ in headers]
        if b"" in names or _NO_NAME.search(b"".join(names)):
            raise RuntimeError("A header has an odd name.")
        if _NO_VALUE.search(b"".join([value for _, value in headers])):
            raise RuntimeError("A header has an odd value.")
        lines, told = [STATUS_LINE[status]], False  # whether the application itself ends the connection
        if names.count(b"content-length") > 1 or b"transfer-encoding" in names:
            raise RuntimeError("The body has more than one length.")
        for name, value in headers:
            lines += (name, b": ", value, b"\r\n")
            if name == b"content-length":
                self.expected_content_length, self.chunked_encoding = int(value), False
            elif name == b"connection" and b"close" in value.lower():
                self.keep_alive, told = False, True
        if not self.keep_alive and not told:
            lines.append(b"connection: close\r\n")
        if self.chunked_encoding is None and self.scope["method"] != "HEAD" and status not in (204, 304):
            if self.scope["http_version"] == "1.0":
                self._until_closed = True  # it knows no transfer coding (RFC 9112 6.1), and its connection is not kept
            else:
                self.chunked_encoding = True
                lines.append(b"transfer-encoding: chunked\r\n")
        self._head = b"".join([*lines, b"\r\n"])

    def _write(self, body: bytes, more: bool) -> None:
        length = len(body)
        if self.scope["method"] == "HEAD":
            self.expected_content_length, body = 0, b""
        elif self.chunked_encoding:
            piece = b"%x\r\n%b\r\n" % (length, body) if length else b""
            body = piece if more else piece + b"0\r\n\r\n"
        elif self._until_closed:
            pass
        elif length > self.expected_content_length:
            raise RuntimeError("The body is longer than its Content-Length.")
        else:
            self.expected_content_length -= length
        self.transport.write(self._head + body if self._head else body)
        self._head = b""
        if more:
            return
        if self.expected_content_length:
            raise RuntimeError("The body is shorter than its Content-Length.")
        self.response_complete = True
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()
