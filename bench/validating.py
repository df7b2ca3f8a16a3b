"""What an ACME server asks when it validates: every name is at 127.0.0.1, and every http-01 challenge is answered.

A process of its own, on loopback, so that neither the client nor the server that is measured does this work. Names are
`….a7.bench.internal`: the label before `bench` says whose account it is, so that the answer needs no memory. HTTP wants
one GET a connection or several, DNS is UDP only.

    with answering(thumbprints) as (dns, http): …
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import uvloop

ZONE = "bench.internal"
_A, _ADDRESS = b"\x00\x01\x00\x01", bytes((127, 0, 0, 1))  # type and class of a question about an IPv4 address
_ANSWER = b"\xc0\x0c" + _A + b"\x00\x00\x00\x3c\x00\x04" + _ADDRESS  # RFC 1035 4.1.3: the question's name, 60 seconds


@contextmanager
def answering(thumbprints: Sequence[str]) -> Iterator[tuple[int, int]]:
    """The ports of the DNS and of the HTTP server, which run while the block does. Account `n` has `thumbprints[n]`."""
    command = [sys.executable, "-m", "bench.validating"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        if process.stdin is None or process.stdout is None:
            raise AssertionError("both were asked for")
        process.stdin.write(json.dumps(list(thumbprints)) + "\n")
        process.stdin.flush()
        dns, http = json.loads(process.stdout.readline())
        yield dns, http
        process.stdin.close()  # it ends where nobody holds the other end, also when we are killed


class _Dns(asyncio.DatagramProtocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.DatagramTransport = transport  # type: ignore[assignment]  # a UDP one

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if answer := reply(data):
            self._transport.sendto(answer, addr)


def reply(query: bytes) -> bytes | None:
    """The answer to one question (RFC 1035 4.1); None for what is none. Of other types than A there is nothing."""
    if len(query) < 17 or query[4:6] != b"\x00\x01":
        return None
    end = query.find(b"\x00", 12) + 5
    kind = query[end - 4 : end]
    head = query[:2] + b"\x85\x80\x00\x01" + (b"\x00\x01" if kind == _A else b"\x00\x00") + bytes(4)
    return head + query[12:end] + (_ANSWER if kind == _A else b"")


class _Http(asyncio.Protocol):
    def __init__(self, thumbprints: list[str]) -> None:
        self._thumbprints = thumbprints
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]  # a TCP one

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head, self._buffer = self._buffer[:end].decode(), self._buffer[end + 4 :]
            lines = head.split("\r\n")
            token = lines[0].split(" ")[1].rpartition("/")[2]
            host = next(line[5:].strip() for line in lines if line.lower().startswith("host:"))
            account = int(host.partition(":")[0].split(".")[-3][1:])
            body = f"{token}.{self._thumbprints[account]}"
            kind = "Content-Type: application/octet-stream"
            self._transport.write(f"HTTP/1.1 200 OK\r\n{kind}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())


async def _serve(thumbprints: list[str]) -> None:
    loop = asyncio.get_running_loop()
    dns, _ = await loop.create_datagram_endpoint(_Dns, ("127.0.0.1", 0))
    http = await loop.create_server(lambda: _Http(thumbprints), "127.0.0.1", 0, backlog=1024)
    ports = dns.get_extra_info("sockname")[1], http.sockets[0].getsockname()[1]
    print(json.dumps(ports), flush=True)
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(json.loads(sys.stdin.readline())))
