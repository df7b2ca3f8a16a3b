"""A DNS server on loopback for tests: UDP and TCP on one port, its records set from here or by updates (RFC 2136).

It answers like a resolver: a CNAME comes with what it leads to. A name below `zones` that was never set has the
address 127.0.0.1; a name outside does not exist.
"""

from __future__ import annotations

import socketserver
import struct
import threading
from collections.abc import Sequence
from typing import Self

import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import dns.update

TTL = 1  # seconds
Key = tuple[dns.name.Name, str]


class Dns:
    """`with Dns() as server:` serves on 127.0.0.1:`server.port`, a free one unless it is given. `asked` is every
    question, in order.
    """

    def __init__(self, zones: Sequence[str] = ("internal", "test"), *, port: int = 0) -> None:
        self.zones = [dns.name.from_text(zone) for zone in zones]
        self.asked: list[tuple[str, str]] = []
        self._records: dict[Key, list[str]] = {}
        self._lock = threading.Lock()
        self._servers = _bound(self, port)
        self.port = int(self._servers[0].server_address[1])

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        for server in self._servers:
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def set(self, name: str, kind: str, *values: str) -> None:
        """The records of a name and kind, as a zone file writes them, in place of what was there; none: it has none."""
        with self._lock:
            self._records[dns.name.from_text(name), kind] = list(values)

    def get(self, name: str, kind: str) -> list[str]:
        """What was set."""
        with self._lock:
            return list(self._records.get((dns.name.from_text(name), kind), ()))

    def answer(self, wire: bytes) -> bytes:
        """The response to a query or an update."""
        message = dns.message.from_wire(wire)
        response = dns.message.make_response(message, recursion_available=True)
        with self._lock:
            if isinstance(message, dns.update.UpdateMessage):
                for change in message.update:
                    self._change(change)
            else:
                self._find(message, response)
        return response.to_wire(max_size=65535)

    def _change(self, change: dns.rrset.RRset) -> None:
        """RFC 2136 2.5: add, or delete one, all of a kind, or all of a name."""
        kind = dns.rdatatype.to_text(change.rdtype)
        values = [data.to_text() for data in change]
        if change.deleting is None:
            there = self._records.setdefault((change.name, kind), [])
            there += [value for value in values if value not in there]
        elif change.deleting == dns.rdataclass.NONE:
            there = self._records.get((change.name, kind), [])
            self._records[change.name, kind] = [value for value in there if value not in values]
        else:
            for key in [key for key in self._records if key[0] == change.name and kind in (key[1], "ANY")]:
                del self._records[key]

    def _find(self, message: dns.message.Message, response: dns.message.Message) -> None:
        (question,) = message.question
        name, kind = question.name, dns.rdatatype.to_text(question.rdtype)
        self.asked.append((name.to_text(), kind))
        response.flags |= dns.flags.AA
        for _ in range(8):
            if not any(name.is_subdomain(zone) for zone in self.zones):
                response.set_rcode(dns.rcode.NXDOMAIN)
                return
            known = {key[1] for key in self._records if key[0] == name}
            aliased = kind != "CNAME" and "CNAME" in known
            values = self._records.get((name, "CNAME" if aliased else kind), [])
            if not known and kind == "A" and not name.labels[0].startswith(b"_"):
                values = ["127.0.0.1"]
            if kind == "SOA" and name in self.zones:
                values = [f"ns.{name} admin.{name} 1 60 60 60 1"]
            if not values:
                return
            response.answer.append(dns.rrset.from_text_list(name, TTL, "IN", "CNAME" if aliased else kind, values))
            if not aliased:
                return
            name = dns.name.from_text(values[0])


class _Udp(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        wire, sock = self.request
        sock.sendto(self.server.dns.answer(wire), self.client_address)  # type: ignore[attr-defined]  # see _bound


class _Tcp(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        while head := self.rfile.read(2):
            wire = self.server.dns.answer(self.rfile.read(struct.unpack("!H", head)[0]))  # type: ignore[attr-defined]  # see _bound
            self.wfile.write(struct.pack("!H", len(wire)) + wire)


def _bound(dns: Dns, port: int) -> list[socketserver.BaseServer]:
    """Both servers on one port; 0: one that is free for both."""
    for _ in range(20):
        tcp = socketserver.ThreadingTCPServer(("127.0.0.1", port), _Tcp)
        try:
            udp = socketserver.ThreadingUDPServer(tcp.server_address, _Udp)
        except OSError:
            tcp.server_close()  # UDP has another socket there: once more
            continue
        for server in (tcp, udp):
            server.daemon_threads = True
            server.dns = dns  # type: ignore[attr-defined]  # for the handlers
        return [tcp, udp]
    raise OSError("no port that is free for UDP and TCP")
