"""The listeners from the outside, over real sockets: every limit of `protocols/http.py`, and the end (TLS:
test_listeners_tls.py).

The application behind them is a few lines, so that what is seen comes from the connection itself and from `Edge`.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import select
import socket
import struct
import threading
import time
from collections.abc import Iterator

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from rootward.core.problems import Problem
from rootward.protocols.edge import Edge
from rootward.protocols.http import HttpLimits, HttpProtocol
from rootward.protocols.listen import bind
from tests.support.listener import GET, HOST, Running, is_closed, just, read, running

SMALL = HttpLimits(
    url_bytes=200,
    header_bytes=2000,
    header_count=10,
    body_bytes=1000,
    bodies=((b"/big", 300_000),),
)  # its times are longer than any wait in here, so that a connection that ends was not just forgotten
# not shorter: what a test sends has to be there in time on a busy machine
HURRIED = dataclasses.replace(SMALL, header_seconds=1, body_seconds=1, idle_seconds=1, write_seconds=1)
STALLING = dataclasses.replace(SMALL, write_seconds=2)
SLOW = HttpLimits(body_bytes=1000, bodies=((b"/big", 300_000),))


async def echo(request: Request) -> Response:
    body = await request.body()
    peer = request.scope["extensions"].get("rootward.peer_certificate")
    headers = [name for name, _ in request.headers.items()]
    return JSONResponse(
        {
            "path": request.url.path,
            "body": len(body),
            "peer": peer and peer.hex(),
            "headers": headers,
            "method": request.method,
        }
    )


async def early(_request: Request) -> Response:
    return JSONResponse({"early": True}, 401)


async def sleepy(_request: Request) -> Response:
    await asyncio.sleep(0.2)
    return JSONResponse({"slept": True})


HELD, RELEASED = threading.Event(), threading.Event()


async def held(_request: Request) -> Response:
    HELD.set()
    await asyncio.to_thread(RELEASED.wait, 20)
    return JSONResponse({"held": True})


async def large(_request: Request) -> Response:
    return Response(b"x" * 60_000_000)


async def some(_request: Request) -> Response:
    return Response(b"x" * 20_000)


async def broken(_request: Request) -> Response:
    raise RuntimeError("the secret of the house")


ROUTES = [
    Route("/early", early, methods=["POST"]),
    Route("/sleepy", sleepy),
    Route("/held", held),
    Route("/large", large),
    Route("/broken", broken),
    Route("/some", some),
    Route("/{rest:path}", echo, methods=["GET", "POST"]),
]


BUILD = just(lambda: Edge("test", ROUTES))


@pytest.fixture(scope="module")
def small() -> Iterator[Running]:
    with running(BUILD, limits=SMALL) as made:
        yield made


@pytest.fixture(scope="module")
def hurried() -> Iterator[Running]:
    with running(BUILD, limits=HURRIED) as made:
        yield made


@pytest.fixture(scope="module")
def normal() -> Iterator[Running]:
    with running(BUILD, limits=SLOW) as made:
        yield made


H = HOST

REFUSED = {
    "long url": (b"GET /" + b"a" * 300 + b" HTTP/1.1\r\n" + H + b"\r\n", 414, "RW-TOO-LARGE"),
    "one long header": (GET + b"X: " + b"a" * 3000 + b"\r\n\r\n", 431, "RW-TOO-LARGE"),
    "one long header without an end": (GET + b"X: " + b"a" * 60_000, 431, "RW-TOO-LARGE"),
    "one long name without an end": (GET + b"X" * 60_000, 431, "RW-TOO-LARGE"),
    "long headers together": (
        GET + b"".join(b"X: %b\r\n" % (b"a" * 400) for _ in range(6)) + b"\r\n",
        431,
        "RW-TOO-LARGE",
    ),
    "many headers": (GET + b"X: 1\r\n" * 10 + b"\r\n", 431, "RW-TOO-LARGE"),
    "no host": (b"GET / HTTP/1.1\r\n\r\n", 400, "RW-MALFORMED"),
    "two hosts": (GET + H + b"\r\n", 400, "RW-MALFORMED"),
    "empty host": (b"GET / HTTP/1.1\r\nHost:\r\n\r\n", 400, "RW-MALFORMED"),
    "host with a path": (b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400, "RW-MALFORMED"),
    "host with a user": (b"GET / HTTP/1.1\r\nHost: a@b\r\n\r\n", 400, "RW-MALFORMED"),
    "host of 1.0": (b"GET / HTTP/1.0\r\nHost: a b\r\n\r\n", 400, "RW-MALFORMED"),
    "another host in the url": (b"GET http://b.test/ HTTP/1.1\r\n" + H + b"\r\n", 400, "RW-MALFORMED"),
    "another protocol, with a body": (
        b"POST / HTTP/1.1\r\n" + H + b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 3\r\n\r\nabc",
        400,
        "RW-MALFORMED",
    ),
    "another protocol, with chunks": (
        b"POST / HTTP/1.1\r\n" + H + b"Connection: Upgrade\r\nUpgrade: h2c\r\nTransfer-Encoding: chunked\r\n\r\n",
        400,
        "RW-MALFORMED",
    ),
    "fragment": (b"GET /a#b HTTP/1.1\r\n" + H + b"\r\n", 400, "RW-MALFORMED"),
    "te and cl": (
        b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        400,
        None,
    ),
    "cl and te": (
        b"POST / HTTP/1.1\r\n" + H + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
        None,
    ),
    "two cl": (b"POST / HTTP/1.1\r\n" + H + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nabcde", 400, None),
    "te gzip": (b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400, None),
    "te of 1.0": (b"POST / HTTP/1.0\r\n" + H + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, None),
    "obs-fold": (GET + b"X: 1\r\n 2\r\n\r\n", 400, "RW-MALFORMED"),
    "space before the colon": (GET + b"X : 1\r\n\r\n", 400, "RW-MALFORMED"),
    "bare line feeds": (b"GET / HTTP/1.1\nHost: a\n\n", 400, "RW-MALFORMED"),
    "nul in a header": (GET + b"X: a\0b\r\n\r\n", 400, "RW-MALFORMED"),
    "connect": (b"CONNECT a:1 HTTP/1.1\r\n" + H + b"\r\n", 405, "RW-METHOD"),
    "http/0.9": (b"GET /\r\n\r\n", 505, "RW-MALFORMED"),
    "http/2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "RW-MALFORMED"),
    "tls on http": (b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03", 400, "RW-MALFORMED"),
    "websocket": (GET + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n", 403, "RW-FORBIDDEN"),
    "body said to be too long": (b"POST / HTTP/1.1\r\n" + H + b"Content-Length: 1001\r\n\r\n", 413, "RW-TOO-LARGE"),
    "endless number": (b"POST / HTTP/1.1\r\n" + H + b"Content-Length: " + b"9" * 40 + b"\r\n\r\n", 400, "RW-MALFORMED"),
    "body in chunks": (
        b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding: chunked\r\n\r\n" + b"1f4\r\n%b\r\n" % (b"a" * 500) * 3,
        413,
        "RW-TOO-LARGE",
    ),
    "endless chunk extension": (
        b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding: chunked\r\n\r\n1;" + b"a" * 60_000,
        431,
        "RW-TOO-LARGE",
    ),
    "endless trailer": (
        b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: " + b"a" * 60_000,
        431,
        "RW-TOO-LARGE",
    ),
    "many trailers": (
        b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"X: 1\r\n" * 20,
        431,
        "RW-TOO-LARGE",
    ),
}


@pytest.mark.parametrize("name", list(REFUSED))
def test_what_is_refused_before_any_door(small: Running, name: str) -> None:
    request, status, code = REFUSED[name]
    with small.dial() as sock:
        with contextlib.suppress(OSError):  # the server need not read it all
            sock.sendall(request)
        answer = read(sock)
        assert (answer.status, answer.headers["content-type"]) == (status, "application/problem+json")
        body = answer.json
        assert body["status"] == status
        assert body["code"] == (code or "RW-MALFORMED")
        assert str(body["request_id"]).startswith("req-")
        assert answer.headers["x-request-id"] == body["request_id"]
        assert answer.closed
        assert "server" not in answer.headers
        assert is_closed(sock)


@pytest.mark.parametrize("name", [name for name, (request, _, _) in REFUSED.items() if len(request) < 1000])
def test_how_a_request_is_cut_into_pieces_changes_nothing(small: Running, name: str) -> None:
    request, status, _ = REFUSED[name]
    with small.dial() as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(OSError):  # the answer may come before the end
            for at in range(0, len(request), 7):
                sock.sendall(request[at : at + 7])
        assert read(sock).status == status


@pytest.mark.parametrize(
    "request_",
    [
        GET + b"\r\n",
        b"GET / HTTP/1.1\r\nHost: [::1]:8443\r\n\r\n",
        b"GET / HTTP/1.0\r\n\r\n",
        b"\r\nGET / HTTP/1.1\r\n" + H + b"\r\n",
        b"GET http://A.test/ HTTP/1.1\r\n" + H + b"\r\n",
        b"GET http://a.test HTTP/1.1\r\n" + H + b"\r\n",
        b"GET /" + b"a" * 190 + b" HTTP/1.1\r\n" + H + b"\r\n",
        GET + b"X: " + b"a" * 1900 + b"\r\n\r\n",
        GET + b"X: 1\r\n" * 9 + b"\r\n",
    ],
)
def test_what_is_let_through(small: Running, request_: bytes) -> None:
    answer = small.ask(request_)
    assert answer.status == 200
    assert "server" not in answer.headers
    assert "date" in answer.headers


def test_a_body_of_the_very_limit_and_one_octet_more(normal: Running) -> None:
    head = b"POST / HTTP/1.1\r\n" + H + b"Content-Length: "
    assert normal.ask(head + b"1000\r\n\r\n" + b"a" * 1000).json["body"] == 1000
    assert normal.ask(head + b"1001\r\n\r\n" + b"a" * 1001).status == 413


def test_a_path_class_has_its_own_limit(normal: Running) -> None:
    answer = normal.ask(b"POST /big/x HTTP/1.1\r\n" + H + b"Content-Length: 300000\r\n\r\n" + b"a" * 300_000)
    assert answer.json["body"] == 300_000


def test_the_answer_to_a_body_that_is_too_long_reaches_a_client_that_sends_on(normal: Running) -> None:
    with normal.dial() as sock:
        sock.sendall(b"POST / HTTP/1.1\r\n" + H + b"Content-Length: 5000000\r\n\r\n")
        sock.sendall(b"a" * 5_000_000)
        assert read(sock).status == 413


def test_trailers_do_not_join_the_header(normal: Running) -> None:
    body = b"1\r\na\r\n0\r\nAuthorization: Bearer x\r\nHost: b.test\r\n\r\n"
    answer = normal.ask(b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding: chunked\r\n\r\n", body)
    assert answer.json["headers"] == ["host", "transfer-encoding"]


def test_an_offer_of_http2_is_not_taken_up_and_the_connection_goes_on(normal: Running) -> None:
    offer = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
    with normal.dial() as sock:
        for _ in range(2):
            sock.sendall(GET + offer + b"\r\n")
            assert read(sock).status == 200
        sock.sendall((GET + offer + b"\r\n") * 2)
        assert read(sock).status == 200


def test_two_requests_in_one_piece_get_two_answers_in_order(normal: Running) -> None:
    with normal.dial() as sock:
        sock.sendall(b"GET /sleepy HTTP/1.1\r\n" + H + b"\r\n" + GET + b"\r\n")
        assert read(sock).json == {"slept": True}
        assert read(sock).json["path"] == "/"


def test_rubbish_behind_a_good_request_does_not_harm_its_answer(normal: Running) -> None:
    with normal.dial() as sock:
        sock.sendall(b"GET /sleepy HTTP/1.1\r\n" + H + b"\r\n" + b"RUBBISH\r\n\r\n")
        answer = read(sock)
        assert answer.json == {"slept": True}
        assert answer.closed
        assert is_closed(sock)


def test_a_flood_of_requests_without_reading_is_bounded(normal: Running) -> None:
    with normal.dial() as sock:
        sock.sendall(b"GET /sleepy HTTP/1.1\r\n" + H + b"\r\n" + (GET + b"\r\n") * 100)
        assert read(sock).json == {"slept": True}
        assert is_closed(sock)


def test_a_half_sent_header_is_answered_with_408(hurried: Running) -> None:
    began = time.monotonic()
    with hurried.dial() as sock:
        sock.sendall(GET[:10])
        answer = read(sock)
        assert (answer.status, answer.json["code"]) == (408, "RW-TIMEOUT")
        assert 0.5 < time.monotonic() - began < 10


def test_a_header_that_drips_does_not_hold_the_clock(hurried: Running) -> None:
    began = time.monotonic()
    with hurried.dial() as sock:
        for octet in GET + b"X: " + b"a" * 300:  # more than 30 s
            sock.sendall(bytes([octet]))
            if select.select([sock], [], [], 0.1)[0]:
                break
        assert read(sock).status == 408
        assert time.monotonic() - began < 10


def test_a_half_sent_body_is_answered_with_408(hurried: Running) -> None:
    answer = hurried.ask(b"POST / HTTP/1.1\r\n" + H + b"Content-Length: 100\r\n\r\nabc")
    assert (answer.status, answer.json["code"]) == (408, "RW-TIMEOUT")


def test_a_slow_answer_is_no_fault_of_the_client(normal: Running) -> None:
    assert normal.ask(b"GET /sleepy HTTP/1.1\r\n" + H + b"\r\n").status == 200


def test_a_silent_connection_is_closed_without_a_word(hurried: Running) -> None:
    with hurried.dial() as sock:
        assert is_closed(sock)


def test_an_idle_connection_is_closed(hurried: Running) -> None:
    with hurried.dial() as sock:
        began = time.monotonic()
        sock.sendall(GET + b"\r\n")
        assert read(sock).status == 200
        assert is_closed(sock)
        assert 0.5 < time.monotonic() - began < 10


def test_a_body_that_nobody_waited_for_does_not_hold_the_connection(hurried: Running) -> None:
    head = b"POST /early HTTP/1.1\r\n" + H + b"Content-Length: 5\r\n\r\n"
    with hurried.dial() as sock:
        sock.sendall(head)
        assert read(sock).status == 401
        sock.sendall(b"abcde" + GET + b"\r\n")
        assert read(sock).status == 200
    with hurried.dial() as sock:
        sock.sendall(head)
        assert read(sock).status == 401
        assert is_closed(sock)  # the rest of the body never came


def test_a_connection_is_idle_after_a_body_that_nobody_waited_for(hurried: Running) -> None:
    with hurried.dial() as sock:
        sock.sendall(b"POST /early HTTP/1.1\r\n" + H + b"Content-Length: 5\r\n\r\n")
        assert read(sock).status == 401
        sock.sendall(b"abcde")
        assert is_closed(sock)


def test_what_has_begun_of_a_second_request_has_a_headers_time() -> None:
    with running(BUILD, limits=HttpLimits(header_seconds=1)) as server, server.dial() as sock:
        sock.sendall(GET + b"\r\n" + GET)
        assert read(sock).status == 200
        assert read(sock).status == 408


def test_a_second_request_behind_a_body_that_nobody_waited_for_has_a_headers_time() -> None:
    with running(BUILD, limits=HttpLimits(header_seconds=1)) as server, server.dial() as sock:
        sock.sendall(b"POST /early HTTP/1.1\r\n" + H + b"Content-Length: 1\r\n\r\n")
        assert read(sock).status == 401
        sock.sendall(b"x" + GET)
        assert read(sock).status == 408


def test_who_was_refused_and_stays_gives_its_place_back() -> None:
    with running(BUILD, limits=SLOW, connections=1) as server, server.dial() as sock:
        sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert read(sock).status == 400
        assert server.ask_until(GET + b"\r\n", 200) == 200


def test_a_client_that_does_not_read_is_cut() -> None:
    with running(BUILD, limits=STALLING, connections=1) as server, server.dial() as sock:
        sock.sendall(b"GET /large HTTP/1.1\r\n" + H + b"\r\n")
        assert server.ask_until(GET + b"\r\n", 503) == 503
        assert server.ask_until(GET + b"\r\n", 200, within=20) == 200


@pytest.mark.parametrize("last", [b"", b"BAD\r\n\r\n"])
def test_a_client_that_does_not_read_and_says_no_more_is_cut(monkeypatch: pytest.MonkeyPatch, last: bytes) -> None:
    """What waits to be sent to it is too little for a pause."""
    seen: list[asyncio.Transport] = []
    made = HttpProtocol.connection_made
    monkeypatch.setattr(HttpProtocol, "connection_made", lambda self, one: (seen.append(one), made(self, one))[1])
    with running(BUILD, limits=HURRIED, connections=1) as server, socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        sock.connect(("127.0.0.1", server.port))
        sock.sendall(b"GET /some HTTP/1.1\r\n" + H + b"\r\n")
        for _ in range(1000):
            time.sleep(0.01)
            if seen and seen[0].get_write_buffer_size():
                break
            sock.sendall(b"GET /some HTTP/1.1\r\n" + H + b"\r\n")
        sock.sendall(last)
        sock.shutdown(socket.SHUT_WR)
        assert server.ask_until(GET + b"\r\n", 200, within=20) == 200


def test_a_client_that_reads_slowly_gets_it_all() -> None:
    """Slowly, for longer than one that reads nothing may take: it is progress that counts."""
    with running(BUILD, limits=STALLING) as server, server.dial() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 18)  # else most of it is soon on this side
        sock.sendall(b"GET /large HTTP/1.1\r\n" + H + b"\r\n")
        got = 0
        slow = time.monotonic() + 3.5
        while got < 60_000_000:
            part = sock.recv(1 << 18)
            assert part
            got += len(part)
            if time.monotonic() < slow:
                time.sleep(0.05)
        assert got >= 60_000_000
        assert time.monotonic() > slow


def test_an_error_of_ours_tells_nothing(normal: Running) -> None:
    answer = normal.ask(b"GET /broken HTTP/1.1\r\n" + H + b"\r\n")
    assert (answer.status, answer.json["code"]) == (500, "RW-INTERNAL")
    assert b"secret" not in answer.body


@pytest.mark.parametrize(
    "path", ["/a/../b", "/..", "/%2e%2e/a", "/a%2fb", "/a%5Cb", "/a%00b", "/a%0ab", "/%ff", "/./a", "/%E2%80%AEa"]
)
def test_a_path_that_names_nothing(normal: Running, path: str) -> None:
    answer = normal.ask(b"GET %b HTTP/1.1\r\n" % path.encode() + H + b"\r\n")
    assert (answer.status, answer.json["code"]) == (404, "RW-NOT-FOUND")


def test_a_wrong_method_is_told_the_right_ones(normal: Running) -> None:
    answer = normal.ask(b"DELETE /early HTTP/1.1\r\n" + H + b"\r\n")
    assert (answer.status, answer.json["code"]) == (405, "RW-METHOD")
    assert "POST" in answer.headers["allow"]


def test_head_has_no_body(normal: Running) -> None:
    with normal.dial() as sock:
        sock.sendall(b"HEAD /sleepy HTTP/1.1\r\n" + H + b"Connection: close\r\n\r\n")
        data = b""
        while more := sock.recv(4096):
            data += more
        assert data.endswith(b"\r\n\r\n")


def test_connections_of_one_address_are_limited() -> None:
    with running(BUILD, limits=SLOW, per_address=2) as server, server.dial() as first, server.dial() as second:
        for sock in (first, second):
            sock.sendall(GET + b"\r\n")
            assert read(sock).status == 200
        with server.dial() as third:
            answer = read(third)
            assert (answer.status, answer.json["code"]) == (503, "RW-UNAVAILABLE")
            assert answer.headers["retry-after"] == "1"
        first.close()
        assert server.ask_until(GET + b"\r\n", 200) == 200


def test_connections_are_limited_in_total() -> None:
    with running(BUILD, limits=SLOW, connections=1) as server, server.dial() as first:
        first.sendall(GET + b"\r\n")
        assert read(first).status == 200
        assert server.ask(GET + b"\r\n").status == 503


def test_a_reset_gives_its_place_back() -> None:
    with running(BUILD, limits=SLOW, connections=1) as server:
        for _ in range(5):
            sock = server.dial()
            sock.sendall(GET)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()
            assert server.ask_until(GET + b"\r\n", 200) == 200


def test_stopping_finishes_what_is_under_way() -> None:
    with running(BUILD, limits=SLOW) as server, server.dial() as busy, server.dial() as idle:
        idle.sendall(GET + b"\r\n")
        assert read(idle).status == 200
        HELD.clear()
        RELEASED.clear()
        busy.sendall(b"GET /held HTTP/1.1\r\n" + H + b"\r\n")
        assert HELD.wait(20)
        server.stop()
        assert _refuses(server)  # only then is it sure that the stop came before the answer
        assert is_closed(idle, within=5)
        RELEASED.set()
        answer = read(busy)
        assert answer.json == {"held": True}
        assert answer.closed


def _refuses(server: Running) -> bool:
    """Whether it soon accepts no connections any more."""
    until = time.monotonic() + 5
    while time.monotonic() < until:
        try:
            server.dial().close()
        except ConnectionRefusedError:
            return True
        except ConnectionResetError:
            pass  # it closed its socket in that moment
        time.sleep(0.02)
    return False


def test_a_port_that_is_taken_is_told_with_its_setting(small: Running) -> None:
    with pytest.raises(Problem) as caught:
        bind("listen.https", ("127.0.0.1", small.port))
    assert caught.value.code == "RW-CONFIG"
    assert f"127.0.0.1:{small.port}" in caught.value.detail
    assert "listen.https" in caught.value.detail
