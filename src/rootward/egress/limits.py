"""How much one call may cost. Seconds and bytes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """`total` is for everything that one call does, redirects and look-ups included."""

    total: float = 10.0
    connect: float = 4.0  # to one address; the next one is tried after that
    dns: float = 2.0  # for one resolver's answer
    dns_rounds: int = 2  # times that the list of resolvers is gone through
    cnames: int = 8
    addresses: int = 16  # of one name; more is refused
    txt_records: int = 64
    txt_bytes: int = 16 * 1024  # of all records of one name
    redirects: int = 10
    header_bytes: int = 16 * 1024  # of one HTTP answer, and of what encloses its body
    handshake_bytes: int = 160 * 1024  # of one TLS handshake; OpenSSL itself takes a chain of 100 KiB at most
