"""A certificate that a server shows for tls-alpn-01: a proof, or `Failed` with `incorrectResponse`."""

from __future__ import annotations

from rootward.core.names import parse_dns, parse_ip
from rootward.egress import Peer
from rootward.protocols.acme.challenges import Failed, Task
from rootward.protocols.acme.challenges.tlsalpn01 import check
from tests.support.alpn import DIGEST

LARGEST = 20 * 1024
TASKS = [Task(name, "token", "thumbprint") for name in (parse_dns("a.internal"), parse_ip("10.0.0.1"))]


def one(data: bytes) -> None:
    """Anything that is raised from here is a crasher."""
    for task in TASKS:
        try:
            check(Peer(data, "acme-tls/1"), task)
        except Failed as failed:
            if failed.kind != "incorrectResponse" or failed.again:
                raise AssertionError(failed.kind) from failed
        else:
            name = b"\x87\x04\n\0\0\x01" if task.name.kind == "ip" else b"\x82\x0aa.internal"
            if DIGEST not in data or name not in data.lower():
                raise AssertionError("proven by something else than the proof")


def seeds() -> list[bytes]:
    """Good ones, and wrong ones of every kind."""
    from tests.support.alpn import alt_names, certificate, dns, extension, identifier, ip

    san, proof = alt_names(dns("a.internal")), identifier()
    rows = [
        [san, proof],
        [alt_names(ip("10.0.0.1")), proof],
        [],
        [san],
        [proof],
        [san, san, proof],
        [san, proof, proof],
        [alt_names(dns("a.internal"), ip("10.0.0.1")), proof],
        [alt_names(), proof],
        [san, identifier(critical=False)],
        [san, identifier(critical=None)],
        [san, identifier(DIGEST[:31])],
        [extension("2.5.29.19", b"\x30\x00", critical=True), alt_names(dns("A.INTERNAL")), proof],
    ]
    return [certificate(*row) for row in rows]
