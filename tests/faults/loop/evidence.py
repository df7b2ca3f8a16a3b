"""What the judge of the kill loop reads: the database by plain SQL, the journals, and DER by its own few lines. Like
`tests/faults/oracle.py` it shares no code with the product.
"""
# ruff: noqa: S608  # the statements are constants of this file

from __future__ import annotations

import http.client
import io
import json
import sqlite3
from collections import defaultdict
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import psycopg
import psycopg.rows
from cryptography import x509

from tests.faults.loop.record import lines, unpacked

AUTHORITY = "issuing"
Row = dict[str, Any]


# ── what is read ──────────────────────────────────────────────────────────────────────────────────────────────────


def query(url: str, *statements: str) -> list[list[Row]]:
    """Rows of each statement, all from one moment."""
    if url.startswith("sqlite"):
        path = url.removeprefix("sqlite:///")
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as conn:
            conn.row_factory = sqlite3.Row
            return [[dict(row) for row in conn.execute(statement)] for statement in statements]
    with psycopg.connect(url.replace("+psycopg", ""), row_factory=psycopg.rows.dict_row) as conn:
        conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        return [conn.execute(statement).fetchall() for statement in statements]


def serials(url: str) -> list[int]:
    """Every serial that the inventory has of the issuing authority."""
    (rows,) = query(url, f"SELECT serial FROM certificates WHERE issuer = ({_ISSUER}) ORDER BY n")
    return [int.from_bytes(row["serial"], "big") for row in rows]


_ISSUER = f"SELECT max(n) FROM issuers WHERE authority = '{AUTHORITY}'"


class Store:
    """The database, read once."""

    def __init__(self, url: str) -> None:
        core = ("certificates", "events", "requests", "tokens", "principals", "grants", "crls")
        acme = ("acme_accounts", "acme_orders", "acme_authorizations")
        found = query(url, *(f"SELECT * FROM {name}" for name in (*core, *acme)), _ISSUER)
        self.certificates, self.events, self.requests, self.tokens, self.principals, self.grants, self.crls = found[:7]
        self.accounts, self.orders, self.authorizations, issuer = found[7:]
        (self.issuer,) = issuer[0].values()
        self.events.sort(key=lambda event: event["n"])
        for event in self.events:
            event["data"] = json.loads(event["data"])
        self.mine = [row for row in self.certificates if row["issuer"] == self.issuer]
        self.by_id = {row["id"]: row for row in self.certificates}
        self.by_tbs = {bytes(row["tbs"]): row for row in self.certificates}
        self.by_serial = {int.from_bytes(row["serial"], "big"): row for row in self.mine}
        self.of_certificate: dict[str, list[Row]] = defaultdict(list)
        for event in self.events:
            if event["certificate"]:
                self.of_certificate[event["certificate"]].append(event)


@dataclass(frozen=True)
class Exchange:
    """One request and what came back: `content` is the whole body, None where the answer was cut off; `location` a
    header.
    """

    client: str
    began: float
    ended: float
    method: str
    path: str
    who: str
    key: str
    door: str
    body: bytes
    seen: bytes
    status: int
    content: bytes | None
    location: str = ""

    @cached_property
    def json(self) -> Any:
        """The answer's."""
        return json.loads(self.content or b"null")


class _Bytes:
    """As a socket, for http.client."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, *_: object) -> io.BytesIO:
        return io.BytesIO(self._data)


def exchanges(record: Path) -> list[Exchange]:
    """Everything that clients saw, in the order in which it was asked."""
    found = []
    for line in lines(record, "wire-*.jsonl"):
        seen, status, content, location = unpacked(line["seen"]), 0, None, ""
        if line["whole"]:
            response = http.client.HTTPResponse(_Bytes(seen), method=line["method"])
            response.begin()
            status, content, location = response.status, response.read(), response.getheader("location", "")
        taken = {name: line[name] for name in ("client", "began", "ended", "method", "path", "who", "key", "door")}
        body = unpacked(line["body"])
        found.append(Exchange(**taken, body=body, seen=seen, status=status, content=content, location=location))
    return sorted(found, key=lambda one: one.began)


@dataclass(frozen=True)
class Use:
    """One use of a key: asked, then signed or refused. `signature` where it was made."""

    what: str
    at: float
    label: str
    key: str
    tbs: bytes
    signature: bytes


def uses(record: Path) -> list[Use]:
    """Everything that keys were asked and said, process by process."""
    return [
        Use(
            line["what"],
            line["at"],
            line["label"],
            line["key"],
            unpacked(line["tbs"]),
            unpacked(line.get("signature", "")),
        )
        for line in lines(record, "signed-*.jsonl")
    ]


def parts(data: bytes) -> list[tuple[int, bytes]]:
    """Tag and whole encoding of each element inside a DER SEQUENCE."""
    at, end = _content(data, 0)
    found = []
    while at < end:
        _, after = _content(data, at)
        found.append((data[at], data[at:after]))
        at = after
    return found


def _content(data: bytes, at: int) -> tuple[int, int]:
    length, start = data[at + 1], at + 2
    if length & 0x80:
        start += length & 0x7F
        length = int.from_bytes(data[at + 2 : start], "big")
    return start, start + length


def signed_object(tbs: bytes, algorithm: bytes, signature: bytes) -> bytes:
    """A certificate or CRL of its three parts (RFC 5280 4.1, 5.1)."""
    bits = _tlv(0x03, b"\0" + signature)
    return _tlv(0x30, tbs + algorithm + bits)


def _tlv(tag: int, content: bytes) -> bytes:
    size = len(content)
    length = (
        bytes([size])
        if size < 128
        else (raw := size.to_bytes((size.bit_length() + 7) // 8, "big")) and bytes([0x80 | len(raw)]) + raw
    )
    return bytes([tag]) + length + content


def is_certificate(use: Use) -> bool:
    """A TBSCertificate begins with its version, [0]; a CRL's is an INTEGER."""
    return use.label == AUTHORITY and parts(use.tbs)[0][0] == 0xA0


def crl_of(use: Use) -> x509.CertificateRevocationList | None:
    """The CRL that was signed, None for what is none (a CSR has version 0)."""
    inside = parts(use.tbs)
    if use.label != AUTHORITY or inside[0][1] != b"\x02\x01\x01":
        return None
    return x509.load_der_x509_crl(signed_object(use.tbs, inside[1][1], use.signature))


def number_of(crl: x509.CertificateRevocationList) -> int:
    """Its CRL number."""
    return crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number


def entries_of(crl: x509.CertificateRevocationList) -> dict[int, str]:
    """Serial to reason."""
    found = {}
    for entry in crl:
        try:
            reason = entry.extensions.get_extension_for_class(x509.CRLReason).value.reason.value
        except x509.ExtensionNotFound:
            reason = "unspecified"
        found[entry.serial_number] = reason
    return found
