"""What a DNS server answers: the records at the end of a bounded chain of CNAMEs, or `EgressError` with `dns`.

dnspython reads the bytes; whatever is wrong with them it says by its own exception.
"""

from __future__ import annotations

import dns.exception
import dns.message
import dns.name
import dns.rdatatype

from rootward.egress import EgressError, Limits, make_rules
from rootward.egress.resolve import Resolver

LARGEST = 20 * 1024
NAME = "_acme-challenge.a.internal."
RESOLVER = Resolver((), make_rules([], suffixes=["internal"]), Limits())


def one(data: bytes) -> None:
    """Anything that is raised from here is a crasher."""
    try:
        answer = dns.message.from_wire(data)
    except dns.exception.DNSException:
        return
    for kind in (dns.rdatatype.TXT, dns.rdatatype.A, dns.rdatatype.AAAA):
        chain = [dns.name.from_text(NAME)]
        try:
            RESOLVER.follow(answer, chain, kind)
        except EgressError as error:
            if error.kind != "dns":
                raise AssertionError(error.kind) from error
        if not 1 <= len(chain) <= 1 + RESOLVER.limits.cnames or len(set(chain)) != len(chain):
            raise AssertionError("a chain that is too long or goes round")


def seeds() -> list[bytes]:
    """Answers of each kind, with CNAMEs, and cut short."""
    import dns.rrset

    from tests.support.names import answered, cut

    query = dns.message.make_query(NAME, "TXT", id=1)
    chain = [dns.rrset.from_text(f"c{at}.internal.", 1, "IN", "CNAME", f"c{at + 1}.internal.") for at in range(9)]
    first = dns.rrset.from_text(NAME, 1, "IN", "CNAME", "c0.internal.")
    sets = [
        [],
        [dns.rrset.from_text(NAME, 1, "IN", "TXT", '"a" "b"', '"c"')],
        [dns.rrset.from_text(NAME, 1, "IN", "A", "10.0.0.1", "127.0.0.1")],
        [dns.rrset.from_text(NAME, 1, "IN", "AAAA", "fd00::1")],
        [first, *chain[:2], dns.rrset.from_text("c2.internal.", 1, "IN", "TXT", "x")],
        [first, *chain],
        [dns.rrset.from_text(NAME, 1, "IN", "CNAME", NAME)],
        [dns.rrset.from_text(NAME, 1, "IN", "CNAME", "a.example.")],
        [dns.rrset.from_text(NAME, 1, "IN", "TXT", *(f'"{at}{"x" * 200}"' for at in range(9)))],
    ]
    return [cut(query), query.to_wire(), *(answered(query, *some) for some in sets)]
