"""`Names` for other people's programs: in a thread of its own, with an answer for every name below its zones, and with
records that are set by updates (RFC 2136), as `nsupdate` and lego send them.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Self

import dns.message
import dns.name
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import dns.update

from tests.support.names import TTL, Names, Query


class Dns(Names):
    """`with Dns() as server:` serves on 127.0.0.1:`server.port`, a free one unless it is given. A name below `zones`
    that was never set has the address 127.0.0.1; one that begins with `_` has nothing.
    """

    def __init__(self, zones: Sequence[str] = ("internal", "test"), *, port: int = 0) -> None:
        super().__init__(port=port)
        self.zones = [dns.name.from_text(zone) for zone in zones]
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._lock = threading.Lock()

    @property
    def port(self) -> int:
        return int(self.address[1])

    @property
    def at(self) -> str:
        """ADDRESS:PORT."""
        return f"{self.address[0]}:{self.port}"

    def __enter__(self) -> Self:
        self._loop.run_until_complete(self.__aenter__())
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.run_until_complete(self.__aexit__())
        self._loop.close()

    def get(self, name: str, kind: str) -> list[str]:
        """The records of a name as updates left them."""
        with self._lock:
            return list(self._records.get((dns.name.from_text(name), kind), [[]])[-1])

    def answers(self, wire: bytes, *, tcp: bool) -> list[bytes]:
        """What goes back for a query or an update."""
        message = dns.message.from_wire(wire)
        with self._lock:
            if not isinstance(message, dns.update.UpdateMessage):
                return super().answers(wire, tcp=tcp)
            for change in message.update:
                self._change(change)
        return [dns.message.make_response(message).to_wire()]

    def _change(self, change: dns.rrset.RRset) -> None:
        """RFC 2136 2.5: add, or delete one, all of a kind, or all of a name."""
        kind = dns.rdatatype.to_text(change.rdtype)
        values = [data.to_text() for data in change]
        there = self._records.get((change.name, kind), [[]])[-1]
        if change.deleting is None:
            self._records[change.name, kind] = [there + [value for value in values if value not in there]]
        elif change.deleting == dns.rdataclass.NONE:
            self._records[change.name, kind] = [[value for value in there if value not in values]]
        else:
            for key in [key for key in self._records if key[0] == change.name and kind in (key[1], "ANY")]:
                del self._records[key]

    def _fill(self, response: Query, name: dns.name.Name, kind: str) -> None:
        known = any(owner == name for owner, _ in self._records)
        if known or not any(name.is_subdomain(zone) for zone in self.zones):
            super()._fill(response, name, kind)
        elif kind == "SOA" and name in self.zones:
            response.answer.append(dns.rrset.from_text(name, TTL, "IN", kind, f"ns.{name} admin.{name} 1 60 60 60 1"))
        elif kind == "A" and not name.labels[0].startswith(b"_"):
            response.answer.append(dns.rrset.from_text(name, TTL, "IN", kind, "127.0.0.1"))
