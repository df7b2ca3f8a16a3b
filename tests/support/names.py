"""A DNS server on the test's own event loop that answers as hostile ones do too: changing, cut short, wrong, never."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from typing import Self

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset

TTL = 1
Query = dns.message.Message
# What goes onto the wire for a query (`tcp`: it came by TCP), in place of the records; None: nothing.
Odd = Callable[[Query, bool], list[bytes] | None]


class Names:
    """`async with Names() as names:` serves UDP and TCP at `names.address`. A name that has no record of any kind does
    not exist. `asked` is every question as (name, kind, by TCP), in order.
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self.address = (host, port)
        self.asked: list[tuple[str, str, bool]] = []
        self.chases = True  # whether a CNAME comes with what it leads to
        self._records: dict[tuple[dns.name.Name, str], list[list[str]]] = {}
        self._odd: dict[dns.name.Name, Odd] = {}

    def set(self, name: str, kind: str, *turns: list[str]) -> None:
        """The values that a question gets: the first list for the first question, and so on; the last one stays."""
        self._records[dns.name.from_text(name), kind] = list(turns)

    def odd(self, name: str, answer: Odd) -> None:
        """Answers for a name, whatever kind is asked for."""
        self._odd[dns.name.from_text(name)] = answer

    def forget(self) -> None:
        """As new."""
        self._records.clear()
        self._odd.clear()
        self.asked.clear()
        self.chases = True

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        for _ in range(20):
            self._tcp = await asyncio.start_server(self._serve, *self.address)
            where = self._tcp.sockets[0].getsockname()[:2]
            try:
                self._udp, _ = await loop.create_datagram_endpoint(lambda: _Udp(self), local_addr=where)
            except OSError:
                self._tcp.close()  # UDP has another socket there: once more
                continue
            self.address = where
            return self
        raise OSError("no port that is free for UDP and TCP")

    async def __aexit__(self, *_: object) -> None:
        self._udp.close()
        self._tcp.close()
        await self._tcp.wait_closed()

    def answers(self, wire: bytes, *, tcp: bool) -> list[bytes]:
        """What goes back for a query."""
        query = dns.message.from_wire(wire)
        (question,) = query.question
        kind = dns.rdatatype.to_text(question.rdtype)
        self.asked.append((question.name.to_text(), kind, tcp))
        odd = self._odd.get(question.name)
        if odd is not None:
            return odd(query, tcp) or []
        response = dns.message.make_response(query, recursion_available=True)
        self._fill(response, question.name, kind)
        data = response.to_wire(max_size=65535)
        if len(data) > max(512, query.payload) and not tcp:  # without EDNS it is 0
            return [cut(query)]
        return [data]

    def _fill(self, response: Query, name: dns.name.Name, kind: str) -> None:
        for _ in range(40):  # a resolver's own patience
            here = {found for owner, found in self._records if owner == name}
            given = kind if kind in here else "CNAME" if "CNAME" in here else None
            if given is None:
                if not here:
                    response.set_rcode(dns.rcode.NXDOMAIN)
                return
            turns = self._records[name, given]
            values = turns.pop(0) if len(turns) > 1 else turns[0]
            if values:
                response.answer.append(dns.rrset.from_text_list(name, TTL, "IN", given, values))
            if given == kind or not self.chases:
                return
            name = dns.name.from_text(values[0])

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            (size,) = struct.unpack("!H", await reader.readexactly(2))
            for data in self.answers(await reader.readexactly(size), tcp=True):
                writer.write(struct.pack("!H", len(data)) + data)
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the asker went away
        finally:
            writer.close()


class _Udp(asyncio.DatagramProtocol):
    def __init__(self, names: Names) -> None:
        self._names = names

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        for answer in self._names.answers(data, tcp=False):
            self._transport.sendto(answer, addr)  # type: ignore[attr-defined]  # it is a datagram transport


def cut(query: Query) -> bytes:
    """ "Ask by TCP": an answer with the TC bit and nothing in it."""
    response = dns.message.make_response(query, recursion_available=True)
    response.flags |= dns.flags.TC
    return response.to_wire()


def answered(query: Query, *sets: dns.rrset.RRset, code: dns.rcode.Rcode = dns.rcode.NOERROR) -> bytes:
    """An answer with exactly these records."""
    response = dns.message.make_response(query, recursion_available=True)
    response.set_rcode(code)
    response.answer.extend(sets)
    return response.to_wire(max_size=65535)
