"""Calls: a name is looked up once, every answer judged, the judged address dialled; then a GET or a TLS handshake."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import structlog

from rootward import __version__
from rootward.core.names import DnsName
from rootward.egress.errors import EgressError, refused
from rootward.egress.here import is_here
from rootward.egress.http import Answer, Host, Reading, Url, bare, redirected, request
from rootward.egress.limits import Limits
from rootward.egress.resolve import Resolver
from rootward.egress.rules import Rules
from rootward.egress.wire import TlsWire, TooMuch, Wire

log = structlog.get_logger()


@dataclass(frozen=True)
class Peer:
    """Who answered a TLS handshake: its own certificate in DER, and the protocol that it took (None: none)."""

    leaf: bytes
    alpn: str | None


@dataclass(frozen=True)
class Egress:
    """`resolvers` are the DNS servers as (address, port). `localhost`: names below localhost mean loopback (a lab)."""

    rules: Rules
    resolvers: tuple[tuple[str, int], ...]
    limits: Limits = field(default_factory=Limits)
    localhost: bool = False
    user_agent: str = f"rootward/{__version__}"

    async def get(self, url: Url, *, ports: dict[str, int], body_bytes: int) -> Answer:
        """The answer to a GET, after at most `limits.redirects` redirects (301, 302, 307, 308) that keep to the port
        that `ports` has for `http` and `https`. Certificates are not verified. EgressError.
        """
        async with self._in_time():
            seen = {str(url)}
            for _ in range(self.limits.redirects + 1):
                answer = await self._get_one(url, body_bytes)
                if answer.location is None:
                    return answer
                url = redirected(url, answer.location, ports)
                if str(url) in seen:
                    raise EgressError("connection", "The redirects go round in a circle.", again=False)
                seen.add(str(url))
        raise EgressError("connection", "There are too many redirects.", again=False)

    async def tls(self, host: Host, port: int, *, server_name: str, alpn: str) -> Peer:
        """Who answers a TLS handshake at a host's port. Nothing is sent after the handshake. EgressError."""
        async with self._in_time(), await self._dial(host, port, self.limits.handshake_bytes) as wire:
            tls = TlsWire(wire, server_name, alpn)
            await tls.handshake()
            return Peer(tls.leaf, tls.alpn)

    async def texts(self, name: str) -> list[bytes]:
        """The TXT records of a name, the strings of each one joined. EgressError `dns`, or `connection` for a name that
        is not looked up at all.
        """
        async with self._in_time():
            self._check_name(name)
            return await self.resolver.texts(name)

    async def _get_one(self, url: Url, body_bytes: int) -> Answer:
        limits = self.limits
        budget = 2 * limits.header_bytes + body_bytes + (limits.handshake_bytes if url.scheme == "https" else 0)
        reading = Reading(header_bytes=limits.header_bytes, body_bytes=body_bytes)
        async with await self._dial(url.host, url.port, budget) as wire:
            stream: Wire | TlsWire = wire
            if url.scheme == "https":
                stream = TlsWire(wire, bare(url.host) if isinstance(url.host, DnsName) else None, "http/1.1")
                await stream.handshake()
            await stream.send(request(url, self.user_agent))
            try:
                while data := await stream.receive():
                    if reading.feed(data):
                        return reading.answer()
            except TooMuch:
                raise EgressError("incorrectResponse", "The answer is too large.", again=False) from None
        reading.end()
        return reading.answer()

    @property
    def resolver(self) -> Resolver:
        """Who is asked for names."""
        return Resolver(self.resolvers, self.rules, self.limits, self.localhost)

    def _check_name(self, name: str) -> None:
        if not self.rules.covers(name):
            log.warning("egress.refused", name=name, why="domain not allowed")
            raise refused()

    async def _dial(self, host: Host, port: int, budget: int) -> Wire:
        """A connection to the host: each of its addresses is judged before the first one is dialled."""
        if isinstance(host, DnsName):
            self._check_name(host.base)
            addresses = await self.resolver.addresses(host.base)
        else:
            addresses = [host.address]
        for address in addresses:
            here = self.rules.everywhere(port) and is_here(address)
            why = self.rules.refusal(address, port, here=here)
            if why is not None:
                log.warning("egress.refused", name=bare(host), address=str(address), port=port, why=why)
                raise refused()
        for address in addresses:
            try:
                async with asyncio.timeout(self.limits.connect):
                    return await Wire.open(address, port, budget)
            except OSError:  # TimeoutError too
                continue
        raise EgressError("connection", "The target does not take connections.")

    @asynccontextmanager
    async def _in_time(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self.limits.total):
                yield
        except TimeoutError:
            raise EgressError("connection", "The target took too long.") from None
        except OSError:
            raise EgressError("connection", "The connection broke.") from None
