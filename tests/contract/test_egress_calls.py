"""Calls on loopback that end well or in an ordinary way: several addresses, silence, and a server that is a lab's."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import uvloop

from rootward import __version__
from rootward.core.names import parse_dns, parse_ip
from rootward.egress import Answer, Egress, EgressError, Limits, Url, make_rules
from rootward.egress.here import is_here
from rootward.protocols.acme.challenges import CHALLENGES, Failed, Task, Ways
from tests.support.alpn import alt_names, certificate, dns, identifier, server_context
from tests.support.names import Names
from tests.support.outside import namespaces
from tests.support.programs import run

LOOPBACK = ("127.0.0.0/8", "::1/128")


@asynccontextmanager
async def web(body: bytes, requests: list[bytes], host: str = "127.0.0.1") -> AsyncIterator[int]:
    """Serves one body at a port of its own."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            requests.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n" + body)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the caller thought better of it
        finally:
            writer.close()

    server = await asyncio.start_server(serve, host, 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


def closed_port() -> int:
    """A port where nobody listens: taken, and not listened on, for as long as the test runs."""
    taken = socket.socket()
    taken.bind(("127.0.0.1", 0))
    TAKEN.append(taken)
    return int(taken.getsockname()[1])


TAKEN: list[socket.socket] = []


@pytest.fixture(autouse=True)
def free() -> object:
    yield
    while TAKEN:
        TAKEN.pop().close()


async def get(egress: Egress, url: Url) -> Answer:
    return await egress.get(url, ports={"http": url.port, "https": 443}, body_bytes=100)


async def test_the_next_address_where_one_does_not_answer() -> None:
    requests: list[bytes] = []
    async with Names() as names, web(b"ok", requests) as port:
        names.set("a.internal", "A", ["127.0.0.2", "127.0.0.1"], ["127.0.0.1", "127.0.0.2"])
        egress = Egress(make_rules(LOOPBACK), (names.address,))
        for _ in range(2):
            assert (await get(egress, Url("http", parse_dns("a.internal"), port, "/x?y"))).body == b"ok"
    assert all(request.startswith(b"GET /x?y HTTP/1.1\r\n") for request in requests)
    assert all(f"\r\nHost: a.internal:{port}\r\n".encode() in request for request in requests)
    assert all(f"\r\nUser-Agent: rootward/{__version__}\r\n".encode() in request for request in requests)


async def test_nobody_answers() -> None:
    egress = Egress(make_rules(LOOPBACK), ())
    with pytest.raises(EgressError) as caught:
        await get(egress, Url("http", parse_ip("127.0.0.1"), closed_port(), "/"))
    assert (caught.value.kind, caught.value.again) == ("connection", True)
    with pytest.raises(EgressError) as caught:
        await egress.tls(parse_ip("127.0.0.1"), closed_port(), server_name="a", alpn="acme-tls/1")
    assert (caught.value.kind, caught.value.again) == ("connection", True)


async def test_who_takes_no_connection_costs_no_more_than_its_share() -> None:
    """A full queue of connections: the kernel is silent. The next address is tried after `connect`."""
    requests: list[bytes] = []
    full = socket.socket()
    async with Names() as names, web(b"ok", requests) as port:
        full.bind(("127.0.0.2", port))
        full.listen(0)
        first = [await asyncio.to_thread(_begin, "127.0.0.2", port) for _ in range(4)]
        names.set("a.internal", "A", ["127.0.0.2"])
        only = Egress(make_rules(LOOPBACK), (names.address,), limits=Limits(connect=0.2))
        with pytest.raises(EgressError) as caught:
            await get(only, Url("http", parse_dns("a.internal"), port, "/"))
        assert (caught.value.kind, caught.value.sentence) == ("connection", "The target does not take connections.")
        for one in (full, *first):
            one.close()


def _begin(host: str, port: int) -> socket.socket:
    """A connection that is begun and not waited for."""
    one = socket.socket()
    one.setblocking(False)
    one.connect_ex((host, port))
    return one


async def test_a_peer_that_is_not_who_was_dialled() -> None:
    """0.0.0.0, allowed on purpose, is answered by 127.0.0.1: the peer is compared, so nothing is sent."""
    requests: list[bytes] = []
    async with Names() as names, web(b"ok", requests) as port:
        names.set("a.internal", "A", [str(ANY)])
        egress = Egress(make_rules([*LOOPBACK, f"{ANY}/32"]), (names.address,))
        with pytest.raises(EgressError) as caught:
            await get(egress, Url("http", parse_dns("a.internal"), port, "/"))
    assert (caught.value.kind, caught.value.again, requests) == ("connection", False, [])


ANY = parse_ip("127.0.0.1").address - 0x7F000001


async def test_a_proxy_in_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    requests: list[bytes] = []
    proxied: list[bytes] = []
    async with web(b"ok", requests) as port, web(b"proxy", proxied) as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy}")
        egress = Egress(make_rules(LOOPBACK), ())
        assert (await get(egress, Url("http", parse_ip("127.0.0.1"), port, "/"))).body == b"ok"
    assert (len(requests), proxied) == (1, [])


async def test_a_lab_proves_names_below_localhost() -> None:
    requests: list[bytes] = []
    async with web(b"token.thumbprint\n", requests) as port:
        egress = Egress(make_rules(LOOPBACK), (), localhost=True)
        for name in ("localhost", "a.localhost"):
            task = Task(parse_dns(name), "token", "thumbprint")
            await CHALLENGES["http-01"].validate(task, Ways(egress, http01_port=port))
        with pytest.raises(Failed) as caught:
            await CHALLENGES["http-01"].validate(
                Task(parse_dns("a.localhost"), "token", "other"), Ways(egress, http01_port=port)
            )
    assert (caught.value.kind, caught.value.again) == ("incorrectResponse", False)
    assert requests[0].startswith(b"GET /.well-known/acme-challenge/token HTTP/1.1\r\n")


async def test_tls_alpn_01_on_loopback(tmp_path: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        said.append(await reader.read())
        writer.close()

    said: list[bytes] = []
    context = server_context(tmp_path, certificate(alt_names(dns("a.localhost")), identifier()))
    names: list[str | None] = []
    context.sni_callback = lambda _, name, __: names.append(name)
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    async with server:
        ways = Ways(
            Egress(make_rules(LOOPBACK), (), localhost=True),
            tls_alpn01_port=server.sockets[0].getsockname()[1],
        )
        await CHALLENGES["tls-alpn-01"].validate(Task(parse_dns("a.localhost"), "token", "thumbprint"), ways)
        with pytest.raises(Failed):
            await CHALLENGES["tls-alpn-01"].validate(Task(parse_dns("b.localhost"), "token", "thumbprint"), ways)
    assert names == ["a.localhost", "b.localhost"]
    assert b"".join(said) == b""  # RFC 8737 3: nothing after the handshake


async def test_what_is_called_off_leaves_nothing_open() -> None:
    """The worker's job is cancelled when the server stops."""
    ended = asyncio.Event()
    begun = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        begun.set()
        while await reader.read(100):
            pass
        ended.set()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        url = Url("http", parse_ip("127.0.0.1"), server.sockets[0].getsockname()[1], "/")
        call = asyncio.create_task(get(Egress(make_rules(LOOPBACK), ()), url))
        await begun.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        await ended.wait()


def test_all_of_it_on_the_loop_that_the_server_runs_on(tmp_path: Path) -> None:
    async def every() -> None:
        await test_the_next_address_where_one_does_not_answer()
        await test_nobody_answers()
        await test_a_peer_that_is_not_who_was_dialled()
        await test_tls_alpn_01_on_loopback(tmp_path)
        await test_what_is_called_off_leaves_nothing_open()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(every())


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.77", "::1"])
def test_an_address_of_this_host(address: str) -> None:
    assert is_here(parse_ip(address).address)


def test_the_kernel_says_which_addresses_are_here() -> None:
    """Whole networks that are routed here too, by whatever source; not a neighbour's, nor what no way leads to."""
    command = namespaces()
    if command is None:
        pytest.skip("this user may not make a network namespace")
    script = """
        ip link set lo up
        ip address add 10.0.0.5/32 dev lo
        ip address add fd00::5/128 dev lo
        ip route add local 10.9.0.0/16 dev lo src 10.0.0.5
        ip route add 10.8.0.0/16 dev lo
        ip -6 route add fd08::/16 dev lo
        exec "$0" -c "$1" 10.0.0.5 fd00::5 10.9.1.2 127.0.0.9 ::1 10.0.0.7 fd00::7 10.8.0.1 fd08::1 8.8.8.8
    """
    asked = "import sys, ipaddress as i; from rootward.egress.here import is_here\n"
    asked += "print(*(is_here(i.ip_address(a)) for a in sys.argv[1:]))"
    done = run(*command, "sh", "-ec", script, sys.executable, asked)
    assert done.stdout.split() == ["True"] * 5 + ["False"] * 5
