"""Load over plain HTTP from a process of its own: keep-alive connections that each ask the next request as soon as the
last answer is whole. Raw bytes, because a library would cost more than the server that is measured.

`rate` starts it; the requests go in by standard input, one a line in hex.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Sequence

import uvloop


def rate(port: int, requests: Sequence[bytes], *, connections: int, seconds: float, keep: bool = True) -> float:
    """Answers a second from 127.0.0.1. `keep` False: a connection for each request, as OpenSSL's responder wants it."""
    command = [sys.executable, "-m", "bench.load", str(port), str(connections), str(seconds), str(int(keep))]
    lines = "\n".join(request.hex() for request in requests)
    done = subprocess.run(command, input=lines, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    return float(found["answers"]) / float(found["seconds"])


class _Client(asyncio.Protocol):
    def __init__(self, requests: list[bytes], first: int, end: float, keep: bool, done: asyncio.Future[None]) -> None:
        self._requests, self._next, self._end, self._keep, self._done = requests, first, end, keep, done
        self._buffer = b""
        self.answers = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]  # a TCP one
        self._ask()

    def _ask(self) -> None:
        self._transport.write(self._requests[self._next % len(self._requests)])
        self._next += 1

    def data_received(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data
        head = self._buffer.find(b"\r\n\r\n")
        if head < 0:
            return
        at = self._buffer.lower().find(b"content-length:", 0, head)
        length = int(self._buffer[at + 15 : self._buffer.find(b"\r", at)])
        if len(self._buffer) < head + 4 + length:
            return
        if b" 200 " not in self._buffer[:16]:
            raise AssertionError(self._buffer[:300])
        self._buffer = b""
        self.answers += 1
        if time.perf_counter() > self._end or not self._keep:
            self._transport.close()
        else:
            self._ask()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._done.done():
            self._done.set_result(None)


async def _load(port: int, requests: list[bytes], connections: int, seconds: float, keep: bool) -> dict[str, float]:
    loop = asyncio.get_running_loop()
    began = time.perf_counter()
    end = began + seconds

    async def one(number: int) -> int:
        answers, turn = 0, number * 7919
        while time.perf_counter() < end:
            done = loop.create_future()
            client = _Client(requests, turn, end, keep, done)
            await loop.create_connection(lambda client=client: client, "127.0.0.1", port)  # type: ignore[misc]  # a factory
            await done
            answers += client.answers
            turn += max(1, client.answers)
        return answers

    total = sum(await asyncio.gather(*(one(number) for number in range(connections))))
    return {"answers": total, "seconds": time.perf_counter() - began}


if __name__ == "__main__":
    port, connections, seconds, keep = sys.argv[1:]
    asked = [bytes.fromhex(line) for line in sys.stdin.read().split()]
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps(runner.run(_load(int(port), asked, int(connections), float(seconds), keep == "1"))))
