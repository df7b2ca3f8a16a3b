"""OCSP over plain HTTP, kept answers, from a load process of its own: our server with a million and with a thousand
certificates, a hello-world of the same framework, and `openssl ocsp -port`.

All of them run at once and are asked in turn, GET and POST, over keep-alive connections; OpenSSL's responder answers
one connection at a time, closes it after each answer, and signs each answer anew, because it cannot do otherwise.
`python -m bench.ocsp [--short]`.
"""

from __future__ import annotations

import asyncio
import base64
import os
import subprocess
import sys
import tempfile
import time
import urllib.parse
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import httpx
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from bench.filled import LARGE, SHORT, folder, sqlite_home
from bench.load import rate
from bench.report import heading, median, row
from rootward import home as homes
from rootward.core.issuer import Issuer
from rootward.core.ocsp import cert_id_for, request_for
from rootward.store.db import open_database
from tests.support.ports import free_port
from tests.support.revocation import issuer_of, make_ca, make_responder
from tests.support.server import Server

FEW = 1_000
SERIALS = 500
CONNECTIONS = 16
ROUNDS = 5


def main(short: bool) -> None:
    large, seconds = (SHORT, 1.0) if short else (LARGE, 3.0)
    rates: dict[str, list[float]] = {}
    with folder() as where, ExitStack() as stack:
        asked: dict[str, tuple[int, Sequence[bytes], bool]] = {}
        for size in (FEW, large):
            home = sqlite_home(where, size)
            issuer, serials = _sample(home)
            server = stack.enter_context(Server(home))
            for method in ("GET", "POST"):
                asked[f"{method} {size:,}"] = (server.ports["http"], requests(method, issuer, serials), True)
        port = stack.enter_context(_hello())
        for method in ("GET", "POST"):
            asked[f"{method} hello"] = (port, asked[f"{method} {FEW:,}"][1], True)
        port, ca, serials = stack.enter_context(_openssl())
        asked["openssl"] = (port, requests("POST", ca, serials), False)
        for _ in range(ROUNDS + 1):
            for name, (port, many, keep) in asked.items():
                connections = CONNECTIONS if keep else 1
                rates.setdefault(name, []).append(rate(port, many, connections=connections, seconds=seconds, keep=keep))
    found = {name: median(every[1:]) for name, every in rates.items()}  # the first round makes the answers
    heading(f"OCSP over HTTP, {CONNECTIONS} keep-alive connections, kept answers")
    row("", "GET", "POST")
    for name in (f"{FEW:,}", f"{large:,}", "hello"):
        row(name, *(f"{found[f'{method} {name}']:,.0f}/s" for method in ("GET", "POST")))
    row("openssl ocsp -port (one connection each)", "", f"{found['openssl']:,.0f}/s")
    for title, over, aim in (
        ("of hello-world", "hello", "at least 0.5, better 0.7"),
        (f"of {FEW:,} certificates", f"{FEW:,}", "at least 0.8"),
    ):
        ratios = (f"{found[f'{method} {large:,}'] / found[f'{method} {over}']:.2f}" for method in ("GET", "POST"))
        row(f"{large:,} {title}", *ratios, f"aim: {aim}")
    row("times openssl ocsp", "", f"{found[f'POST {large:,}'] / found['openssl']:.1f}", "aim: 5")


def requests(method: str, issuer: Issuer, serials: Sequence[bytes]) -> list[bytes]:
    """HTTP requests for these serials, as raw bytes."""
    found = []
    for serial in serials:
        body = request_for([cert_id_for(issuer, serial, "sha1")])
        if method == "GET":
            path = urllib.parse.quote(base64.b64encode(body).decode(), safe="")
            found.append(f"GET /ocsp/issuing/{path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        else:
            head = "POST /ocsp/issuing HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/ocsp-request\r\n"
            found.append(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    return found


def _sample(home: Path) -> tuple[Issuer, list[bytes]]:
    """The issuer of a home, and serials from all over its inventory."""
    config = homes.read_config(home, os.environ)
    db = open_database(config.database.url, home=home)
    try:
        inst = homes.installation(config, db, os.environ)
        asyncio.run(inst.load_authorities())
        every = "SELECT serial FROM certificates WHERE issued_at IS NOT NULL AND issuer = ? AND n % ? = 0 LIMIT ?"
        n = inst.authority("issuing").n
        highest = db.read_sync(lambda conn: conn.exec_driver_sql("SELECT max(n) FROM certificates").scalar_one())
        step = max(1, highest // SERIALS)
        rows = db.read_sync(lambda conn: conn.exec_driver_sql(every, (n, step, SERIALS)).scalars().all())
        return inst.authority("issuing").issuer, list(rows)
    finally:
        db.close()


@contextmanager
def _hello() -> Iterator[int]:
    port = free_port()
    with _process([sys.executable, "-m", "bench.hello", str(port)], port):
        yield port


@contextmanager
def _openssl() -> Iterator[tuple[int, Issuer, list[bytes]]]:
    """OpenSSL's responder for a CA of its own with a thousand certificates."""
    ca = make_ca()
    responder, port = make_responder(ca), free_port()
    serials = [bytes((0x40,)) + os.urandom(19) for _ in range(FEW)]
    with tempfile.TemporaryDirectory() as made:
        end = f"{datetime.now(UTC).year % 100 + 1:02d}0101000000Z"
        lines = [f"V\t{end}\t\t{serial.hex().upper()}\tunknown\t/CN={serial.hex()}\n" for serial in serials]
        (Path(made) / "index.txt").write_text("".join(lines))
        for name, one in (("ca", ca.certificate), ("responder", responder.certificate)):
            _pem(Path(made) / f"{name}.pem", one)
        key = responder.private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (Path(made) / "responder.key").write_bytes(key)
        command = ["openssl", "ocsp", "-port", str(port), "-index", "index.txt", "-CA", "ca.pem", "-ndays", "1"]
        command += ["-rsigner", "responder.pem", "-rkey", "responder.key", "-ignore_err"]
        with _process(command, port, cwd=made):
            yield port, issuer_of(ca), serials[:SERIALS]


def _pem(path: Path, certificate: x509.Certificate) -> None:
    path.write_bytes(certificate.public_bytes(Encoding.PEM))


@contextmanager
def _process(command: list[str], port: int, *, cwd: str | None = None) -> Iterator[None]:
    process = subprocess.Popen(command, cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(600):
            if process.poll() is not None:
                raise RuntimeError(f"{command[0]} ended at once")
            try:
                httpx.get(f"http://127.0.0.1:{port}/", trust_env=False)
                break
            except httpx.TransportError:
                time.sleep(0.1)
        yield
    finally:
        process.kill()
        process.wait()


if __name__ == "__main__":
    main("--short" in sys.argv)
