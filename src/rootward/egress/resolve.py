"""DNS by the configured resolvers and nothing else: no search list, no /etc/hosts, absolute names only.

Each resolver is asked by UDP, and by TCP where its answer is cut short (RFC 7766). CNAMEs are followed within bounds,
also where the resolver stops halfway. Nothing is kept: a validation sees what is there now.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

import dns.asyncbackend
import dns.asyncquery
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdatatype
from dns.rdtypes.ANY.TXT import TXT

from rootward.egress.errors import EgressError
from rootward.egress.limits import Limits
from rootward.egress.rules import Address, Rules

_UDP_BYTES: Final = 1232  # fits every path unfragmented (DNS flag day 2020)
_IN: Final = dns.rdataclass.IN
_LOOPBACK: Final[tuple[Address, ...]] = (IPv4Address("127.0.0.1"), IPv6Address("::1"))
_ANSWERED: Final = (dns.rcode.NOERROR, dns.rcode.NXDOMAIN)


@dataclass(frozen=True)
class Resolver:
    """`servers` are (address, port), asked in order. `localhost`: names of RFC 6761 6.3 are answered with loopback."""

    servers: tuple[tuple[str, int], ...]
    rules: Rules
    limits: Limits
    localhost: bool = False

    async def addresses(self, name: str) -> list[Address]:
        """Every address of a host name in lower-case A-labels, without repetition, IPv6 first. EgressError `dns` where
        there is none, or more than `limits.addresses`.
        """
        if name == "localhost" or name.endswith(".localhost"):
            if not self.localhost:
                raise EgressError("dns", "Names below localhost mean this server itself.", again=False)
            return list(_LOOPBACK)
        kinds = (dns.rdatatype.AAAA, dns.rdatatype.A)
        results = await asyncio.gather(*(self._records(name, kind) for kind in kinds), return_exceptions=True)
        found: list[Address] = []
        failed: list[BaseException] = []
        for result in results:
            if isinstance(result, BaseException):
                failed.append(result)
            else:
                found += [ip_address(record.to_text()) for record in result]
        unexpected = [error for error in failed if not isinstance(error, EgressError)]
        if unexpected or (failed and not found):
            raise (unexpected or failed)[0]
        if not found:
            raise EgressError("dns", "The name has no address.")
        if len(found) > self.limits.addresses:
            raise EgressError("dns", "The name has too many addresses.", again=False)
        return list(dict.fromkeys(found))

    async def texts(self, name: str) -> list[bytes]:
        """The TXT records of a name or of where its CNAMEs lead, the strings of each one joined (RFC 8555 8.4, RFC 1035
        3.3.14). Empty where there are none; EgressError `dns`.
        """
        records = await self._records(name, dns.rdatatype.TXT)
        values = [b"".join(record.strings) for record in records if isinstance(record, TXT)]
        if len(values) > self.limits.txt_records or sum(map(len, values)) > self.limits.txt_bytes:
            raise EgressError("dns", "The name has more TXT records than can be looked through.", again=False)
        return values

    async def _records(self, name: str, kind: dns.rdatatype.RdataType) -> Sequence[dns.rdata.Rdata]:
        """The records of one kind at a name, or where its CNAMEs lead."""
        try:
            chain = [dns.name.from_text(f"{name}.")]
        except dns.exception.DNSException:
            raise EgressError("dns", "The name cannot be looked up.", again=False) from None
        while True:
            asked = chain[-1]
            answer = await self._ask(asked, kind)
            records = self.follow(answer, chain, kind)
            if records is not None:
                return records
            if answer.rcode() == dns.rcode.NXDOMAIN:
                raise EgressError("dns", "The name does not exist.")
            if chain[-1] == asked:
                return ()

    def follow(
        self, answer: dns.message.Message, chain: list[dns.name.Name], kind: dns.rdatatype.RdataType
    ) -> Sequence[dns.rdata.Rdata] | None:
        """The records that an answer has at the end of the chain; what the chain grows by is added to it."""
        while True:
            records = answer.get_rrset(answer.answer, chain[-1], _IN, kind)
            if records is not None:
                return list(records)
            alias = answer.get_rrset(answer.answer, chain[-1], _IN, dns.rdatatype.CNAME)
            if alias is None:
                return None
            target: dns.name.Name = alias[0].target
            if target in chain:
                raise EgressError("dns", "The name's CNAMEs go round in a circle.", again=False)
            if len(chain) > self.limits.cnames:
                raise EgressError("dns", "The name has too long a chain of CNAMEs.", again=False)
            if not self.rules.covers(target.to_text(omit_final_dot=True).lower()):
                raise EgressError("dns", "The name's CNAMEs lead out of the domains that are looked up.", again=False)
            chain.append(target)

    async def _ask(self, name: dns.name.Name, kind: dns.rdatatype.RdataType) -> dns.message.Message:
        """The first answer that says something; EgressError `dns` where no resolver gives one."""
        backend = dns.asyncbackend.get_backend("asyncio")
        for address, port in self.servers * self.limits.dns_rounds:
            query = dns.message.make_query(name, kind, payload=_UDP_BYTES)
            query.flags |= dns.flags.RD
            try:
                answer, _ = await dns.asyncquery.udp_with_fallback(
                    query,
                    address,
                    self.limits.dns,
                    port,
                    ignore_unexpected=True,
                    ignore_errors=True,
                    backend=backend,
                )
            except (dns.exception.DNSException, OSError, EOFError):
                continue  # silent, unreachable or not speaking DNS: the next one, or the same again
            if answer.rcode() in _ANSWERED:
                return answer
        raise EgressError("dns", "No resolver answered for the name.")
