"""A world in which every address there is leads to a listener that counts, in a network namespace of its own.

`python -m tests.support.outside FOLDER` there plays `tests/vectors/targets.py` with the ways of a server's settings,
and leaves a JSON object in FOLDER/results.json: for each target what came of it, who was called, and what the kernel
counted. With `naive` behind it, nothing is refused by its address: what the listeners would see.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import io
import json
import ssl
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import uvloop

from rootward import home, telemetry
from rootward.config import Acme, Config, Database, Egress, Listen
from rootward.core.names import DnsName, IpName, parse_name
from rootward.egress import Limits, Rules
from rootward.protocols.acme.challenges import CHALLENGES, Failed, Task, Ways
from tests.support import alpn
from tests.support.names import Names
from tests.support.programs import environment
from tests.vectors.targets import DIRECT, GOOD, GOOD6, HEAD, PROOF, TARGETS, ZONE, Target

PORTS = (22, 80, 443, 2375, 5432, 6379, 8080, 8443, 8444, 8500, 49152)
OUR_ADDRESSES = ("10.0.0.5/32", "10.0.0.6/32", "10.0.0.7/32", "fd00::5/128")
RESULTS = "results.json"  # not to a pipe: unbuffered, Python drops what one write does not take
SECONDS = 240  # for all of it, on a busy machine
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def namespaces() -> list[str] | None:
    """The command that gives a program a network namespace of its own; None where that is not allowed."""
    for command in (["unshare", "--user", "--map-root-user", "--net"], ["unshare", "--net"]):
        with contextlib.suppress(FileNotFoundError):
            tried = [*command, "ip", "link", "set", "lo", "up"]
            if subprocess.run(tried, capture_output=True, check=False, timeout=60).returncode == 0:
                return command
    return None


def played(command: list[str], folder: Path, *more: str) -> dict[str, dict[str, Any]]:
    """What came of each target."""
    done = subprocess.run(
        [*command, sys.executable, "-m", "tests.support.outside", str(folder), *more],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        cwd=Path(__file__).parents[2],
        env=environment(),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, Any]] = json.loads((folder / RESULTS).read_bytes())
    return found


def _every_address_is_here() -> None:
    for words in (
        "link set lo up",
        *(f"address add {address} dev lo" for address in OUR_ADDRESSES),
        "route add local default dev lo",
        "-6 route add local default dev lo",
    ):
        subprocess.run(["ip", *words.split()], check=True, timeout=60)


def _counted() -> dict[str, int]:
    """TCP connections begun and datagrams sent in this namespace, ever."""
    found = {}
    lines = Path("/proc/net/snmp").read_text(encoding="ascii").splitlines()
    for names, values in zip(lines[::2], lines[1::2], strict=True):
        for name, value in zip(names.split()[1:], values.split()[1:], strict=True):
            found[names.split()[0] + name] = int(value)
    six = dict(line.split() for line in Path("/proc/net/snmp6").read_text(encoding="ascii").splitlines())
    datagrams = found["Udp:OutDatagrams"] + int(six["Udp6OutDatagrams"])
    return {"opens": found["Tcp:ActiveOpens"], "datagrams": datagrams}


class World:
    """Who listens, and what the good host does now."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.names = Names("127.0.0.1", 53)
        self.calls: list[str] = []
        self.target = Target("")

    async def serve(self, stack: contextlib.AsyncExitStack) -> None:
        """Every port of `PORTS` at every address, and the DNS server."""
        await stack.enter_async_context(self.names)
        for port in PORTS:
            for host in ("0.0.0.0", "::"):  # noqa: S104  the namespace has no neighbours
                await stack.enter_async_context(await asyncio.start_server(self._called, host, port))

    async def play(self, target: Target) -> dict[str, Any]:
        """One target, from nothing."""
        self.target = target
        self.calls.clear()
        self.names.forget()
        for name, addresses in ZONE.items():
            for kind, some in (
                ("A", [a for a in addresses if ":" not in a]),
                ("AAAA", [a for a in addresses if ":" in a]),
            ):
                if some:
                    self.names.set(name, kind, some)
        for kind, turns in (("A", target.a), ("AAAA", target.aaaa)):
            if turns:
                self.names.set("a.internal", kind, *map(list, turns))
        name = parse_name(target.name)
        assert isinstance(name, DnsName | IpName)
        before = _counted()
        lines = io.StringIO()
        telemetry.configure_logging("json", "warning", stream=lines)
        failed: dict[str, object] = {}
        try:
            task = Task(name, "token", "thumbprint")
            await CHALLENGES[target.challenge].validate(task, self._ways())
        except Failed as failure:
            failed = {"kind": failure.kind, "detail": failure.detail, "again": failure.again}
        after = _counted()
        for _ in range(100):  # who was called may not have noticed it yet
            if len(self.calls) >= after["opens"] - before["opens"]:
                break
            await asyncio.sleep(0.01)
        return {
            "failed": failed,
            "calls": list(self.calls),
            "asked": [list(one) for one in self.names.asked],
            "log": lines.getvalue(),
            **{key: after[key] - before[key] for key in before},
        }

    def _ways(self) -> Ways:
        """As a server makes them of its settings, with its listeners and its database in this world."""
        target = self.target
        allow = Egress().allow if target.allow is None else target.allow
        ways = home.ways(
            Config(
                listen=Listen(https="10.0.0.5:443", mtls="0.0.0.0:8444", http="10.0.0.5:80"),
                database=Database("postgresql+psycopg://rootward@10.0.0.6/rootward"),
                acme=Acme(http01_port=target.port),
                egress=Egress(allow=tuple(allow), suffixes=target.suffixes),
            )
        )
        return replace(ways, egress=replace(ways.egress, limits=Limits(total=target.seconds)))

    async def _called(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, port = writer.get_extra_info("sockname")[:2]
        self.calls.append(f"{host} {port}")
        with contextlib.suppress(ConnectionError, ssl.SSLError, asyncio.IncompleteReadError):
            if host not in (GOOD, GOOD6):
                # Whoever should not have been called proves everything, so that it cannot be missed.
                await (
                    self._shake("good", reader, writer)
                    if port == 443
                    else self._answer(HEAD + b"\r\n" + PROOF, reader, writer)
                )
            elif port == 443 and self.target.challenge == "tls-alpn-01":
                await self._shake(str(self.target.page), reader, writer)
            elif port == 443:
                await writer.start_tls(alpn.server_context(self.folder, alpn.certificate(), alpn="http/1.1"))
                await self._answer(HEAD + b"\r\n" + PROOF, reader, writer)
            else:
                await self._answer(self.target.page, reader, writer)
        writer.transport.abort() if writer.transport.is_closing() else writer.close()

    async def _answer(self, page: bytes | str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        path = (await reader.readuntil(b"\r\n\r\n")).split()[1].decode()
        if isinstance(page, str):
            await odd_answer(page, path, writer)
        else:
            writer.write(page)
            await writer.drain()

    async def _shake(self, way: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        name = parse_name(self.target.name)
        own = alpn.dns("a.internal") if isinstance(name, DnsName) else alpn.ip(str(name)[3:])
        san, proof = alpn.alt_names(own), alpn.identifier()
        certificates = {
            "good": [san, proof],
            "no protocol": [san, proof],
            "another protocol": [san, proof],
            "two names": [alpn.alt_names(own, alpn.dns("b.internal")), proof],
            "an address for a name": [alpn.alt_names(alpn.ip(GOOD)), proof],
            "no identifier": [san],
            "not critical": [san, alpn.identifier(critical=None)],
            "wrong digest": [san, alpn.identifier(bytes(32))],
            "two identifiers": [san, proof, proof],
            "huge chain": [san, proof],
            "huge certificate": [san, proof, alpn.extension("1.2.3.4", bytes(200_000))],
        }
        if way not in certificates:
            return await odd_handshake(way, writer)
        leaf = alpn.certificate(*certificates[way])
        chain = [alpn.certificate(alpn.extension("1.2.3.4", bytes(3000)))] * 60 if way == "huge chain" else []
        protocols = {"no protocol": None, "another protocol": "h2"}
        context = alpn.server_context(self.folder, leaf, *chain, alpn=protocols.get(way, "acme-tls/1"))
        await writer.start_tls(context)
        await reader.read()  # until the other side goes
        return None


async def odd_answer(way: str, path: str, writer: asyncio.StreamWriter) -> None:
    """What a host does that means no good, or does it badly."""
    redirect = "HTTP/1.1 302 X\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n"
    proof = HEAD + b"\r\n" + PROOF
    if way == "loop":
        writer.write((redirect % path).encode())
    elif way == "circle":
        writer.write((redirect % ("/x" if path != "/x" else "/.well-known/acme-challenge/token")).encode())
    elif way.startswith("hops:"):
        at = int(path[1:]) if path[1:].isdecimal() else 0
        writer.write((redirect % f"/{at + 1}").encode() if at < int(way[5:]) else proof)
    elif way == "compressed":
        writer.write(HEAD + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(PROOF))
    elif way == "bomb":
        writer.write(HEAD + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(bytes(50_000_000)))
    elif way == "silence":
        await _forever(writer, b"", b"")
    elif way == "half a head":
        await _forever(writer, HEAD + b"X: ", b"")
    elif way == "half a body":
        await _forever(writer, HEAD + b"Content-Length: 100\r\n\r\n" + PROOF, b"")
    elif way == "drip":
        await _forever(writer, HEAD + b"Content-Length: 100\r\n\r\n", b"t", pause=0.05)
    else:
        begin, more = {
            "endless body": (HEAD + b"\r\n", b"x" * 4096),
            "endless chunks": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n" * 100),
            "endless extension": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n1;a=", b"y" * 4096),
            "endless head": (HEAD, b"X-Y: zzzzzzzz\r\n" * 100),
            "endless interim": (b"", b"HTTP/1.1 103 Early Hints\r\n\r\n" * 100),
            "endless line": (b"HTTP/1.1 200 ", b"y" * 4096),
        }[way]
        await _forever(writer, begin, more)
    await writer.drain()


async def odd_handshake(way: str, writer: asyncio.StreamWriter) -> None:
    """What a host does instead of a TLS handshake."""
    if way == "plain HTTP":
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    elif way == "alert":
        writer.write(b"\x15\x03\x03\x00\x02\x02\x28")  # fatal: handshake_failure
    elif way == "silence":
        await _forever(writer, b"", b"")
    elif way == "drip":
        await _forever(writer, b"\x16\x03\x03\x40\x00\x02", b"\0", pause=0.05)
    elif way == "endless":
        await _forever(writer, b"\x16\x03\x03\x40\x00\x02\xff\xff\xff", bytes(4096))
    elif way == "endless records":
        await _forever(writer, b"", b"\x16\x03\x03\x00\x01\x02" * 500)
    await writer.drain()


async def _forever(writer: asyncio.StreamWriter, begin: bytes, more: bytes, *, pause: float = 0.0) -> None:
    """`more` again and again until the other side goes; with nothing more, just there until then."""
    writer.write(begin)
    while not writer.transport.is_closing():
        writer.write(more)
        await writer.drain()
        await asyncio.sleep(pause if more else 0.05)


async def main(folder: Path, targets: list[Target]) -> dict[str, Any]:
    """One after the other."""
    _every_address_is_here()
    async with contextlib.AsyncExitStack() as stack:
        world = World(folder)
        await world.serve(stack)
        return {target.id: await world.play(target) for target in targets}


if __name__ == "__main__":
    naive = sys.argv[2:] == ["naive"]
    if naive:
        Rules.refusal = lambda *_, **__: None  # type: ignore[assignment]  # what is to be shown
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        results = runner.run(main(Path(sys.argv[1]), DIRECT if naive else TARGETS))
    (Path(sys.argv[1]) / RESULTS).write_bytes(msgspec.json.encode(results))
