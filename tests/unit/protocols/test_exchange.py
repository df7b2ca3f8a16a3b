"""How an answer goes out: in as few pieces as it has, framed as it says, and never as two."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from uvicorn.protocols.http.flow_control import FlowControl

from rootward.protocols.exchange import Exchange

DATE = (b"date", b"Wed, 25 Nov 2026 12:00:00 GMT")
LENGTH = (b"content-length", b"5")
BEGIN = b"HTTP/1.1 200 OK\r\ndate: Wed, 25 Nov 2026 12:00:00 GMT\r\n"


class Transport:
    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.closed = False

    def write(self, piece: bytes) -> None:
        self.pieces.append(bytes(piece))

    def close(self) -> None:
        self.closed = True


def exchange(
    transport: Any, *, method: str = "GET", keep: bool = True, version: str = "1.1", ended: list[bool] | None = None
) -> Exchange:
    quiet = logging.getLogger("quiet")
    return Exchange(
        scope={"method": method, "http_version": version},  # type: ignore[typeddict-item]  # all that is looked at
        transport=transport,
        flow=FlowControl(transport),
        logger=quiet,
        access_logger=quiet,
        access_log=False,
        default_headers=[DATE],
        message_event=asyncio.Event(),
        expect_100_continue=False,
        keep_alive=keep,
        on_response=lambda: None if ended is None else ended.append(True),
    )


def sent(*bodies: bytes, status: int = 200, headers: tuple[Any, ...] = (LENGTH,), **how: Any) -> Transport:
    """The transport after an answer of these pieces; whether its end was told is asserted."""
    transport, ended = Transport(), list[bool]()
    answer = exchange(transport, ended=ended, **how)

    async def send() -> None:
        await answer.send({"type": "http.response.start", "status": status, "headers": list(headers)})
        for number, body in enumerate(bodies, 1):
            await answer.send({"type": "http.response.body", "body": body, "more_body": number < len(bodies)})

    asyncio.run(send())
    assert (answer.response_complete, ended) == (bool(bodies), [True] * bool(bodies))
    return transport


def test_head_and_body_are_one_piece() -> None:
    assert sent(b"hello").pieces == [BEGIN + b"content-length: 5\r\n\r\nhello"]
    assert sent(memoryview(b"hello")).pieces == [BEGIN + b"content-length: 5\r\n\r\nhello"]  # type: ignore[arg-type]  # part of a list
    assert sent(b"he", b"llo").pieces == [BEGIN + b"content-length: 5\r\n\r\nhe", b"llo"]
    assert sent().pieces == []


def test_without_a_length_it_is_chunked() -> None:
    pieces = [BEGIN + b"transfer-encoding: chunked\r\n\r\n2\r\nhe\r\n", b"3\r\nllo\r\n", b"0\r\n\r\n"]
    assert sent(b"he", b"llo", b"", headers=()).pieces == pieces
    assert sent(b"", headers=()).pieces == [BEGIN + b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n"]


def test_without_a_length_it_ends_with_the_connection_in_http_1_0() -> None:
    """RFC 9112 6.1: no transfer coding is sent there."""
    transport = sent(b"he", b"llo", b"", headers=(), version="1.0", keep=False)
    assert transport.pieces == [BEGIN + b"connection: close\r\n\r\nhe", b"llo", b""]
    assert transport.closed


def test_what_has_no_body() -> None:
    head = BEGIN + b"content-length: 5\r\n\r\n"
    assert b"".join(sent(b"hello", method="HEAD").pieces) == head
    assert b"".join(sent(b"he", b"llo", method="HEAD").pieces) == head
    assert sent(b"", method="HEAD", headers=()).pieces == [BEGIN + b"\r\n"]
    assert sent(b"", status=304, headers=()).pieces == [BEGIN.replace(b"200 OK", b"304 Not Modified") + b"\r\n"]


def test_the_end_of_a_connection_is_said_once() -> None:
    close = (b"connection", b"close")
    for transport in (sent(b"hello", keep=False), sent(b"hello", headers=(LENGTH, close), keep=True)):
        assert transport.pieces == [BEGIN + b"content-length: 5\r\nconnection: close\r\n\r\nhello"]
        assert transport.closed
    assert not sent(b"hello").closed


@pytest.mark.parametrize(
    "odd",
    [
        (b"x-a", b"1\r\nx-b: 2"),
        (b"x-a", b"1\n"),
        (b"x-a", b"\x00"),
        (b"x-a", b"\x7f"),
        (b"x-a: 1\r\nx-b", b"2"),
        (b"x a", b"1"),
        (b"x-a:", b"1"),
        (b"X-A", b"1"),
    ],
)
def test_a_header_is_one_header(odd: tuple[bytes, bytes]) -> None:
    with pytest.raises(RuntimeError, match="odd"):
        sent(b"hello", headers=(LENGTH, odd))


@pytest.mark.parametrize("bodies", [(b"hell",), (b"hello!",), (b"hel", b"l"), (b"hel", b"lo!"), (b"hello", b"!")])
def test_a_body_is_as_long_as_it_says(bodies: tuple[bytes, ...]) -> None:
    with pytest.raises(RuntimeError, match="Content-Length"):
        sent(*bodies)


@pytest.mark.parametrize("complete", [False, True])
def test_an_answer_begins_and_ends_once(complete: bool) -> None:
    start: Any = {"type": "http.response.start", "status": 200, "headers": [LENGTH]}
    body: Any = {"type": "http.response.body", "body": b"hello"}
    answer = exchange(Transport())
    with pytest.raises(RuntimeError):
        asyncio.run(answer.send(body))
    asyncio.run(answer.send(start))
    if complete:
        asyncio.run(answer.send(body))
    for again in (start, body) if complete else (start,):
        with pytest.raises(RuntimeError):
            asyncio.run(answer.send(again))
