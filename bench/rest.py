"""REST issuance, durable, over TLS: 32 keep-alive connections, one worker, SQLite; against the in-process figure of
the same run.

The load comes from this process, the server is one of its own; CSRs are made before. `python bench/rest.py [--short]`.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
import tempfile
import time
from pathlib import Path

import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from bench.issuance import in_process_rate
from bench.report import heading, median, row
from tests.support.server import Server

CONNECTIONS = 32
CSRS = 4000


def main(seconds: float) -> None:
    csrs = make_csrs()
    with tempfile.TemporaryDirectory() as folder:
        before = in_process_rate(2)
        loops = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        with Server(Path(folder) / "home") as server, loops as runner:
            times, took = runner.run(load([server], csrs, seconds))
        after = in_process_rate(2)
    inside = (before + after) / 2
    times.sort()
    p99 = times[int(len(times) * 0.99)]
    rate = len(times) / took
    heading("REST issuance, durable, SQLite, 32 connections, one worker")
    row("in process (parse, verify, admit, draft, lint, sign)", f"{inside:,.0f}/s")
    row("REST", f"{rate:,.0f}/s", f"{rate / inside:.2f} of in-process")
    row(
        "latency", f"median {median(times) * 1e3:.1f} ms", f"p99 {p99 * 1e3:.1f} ms", f"ratio {p99 / median(times):.1f}"
    )


def make_csrs() -> list[str]:
    """Enough of them, PEM."""
    return [_csr(number) for number in range(CSRS)]


def _csr(number: int) -> str:
    """A CSR with a key of its own, PEM."""
    names = x509.SubjectAlternativeName([x509.DNSName(f"h{number}.bench.internal")])
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).add_extension(names, critical=False)
    made = builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    return made.public_bytes(Encoding.PEM).decode()


async def load(servers: list[Server], csrs: list[str], seconds: float) -> tuple[list[float], float]:
    """How long each issuance took, and how long it was in all; connections are shared out among the servers."""
    server = servers[0]
    context = ssl.create_default_context(cafile=str(server.root))
    head = (
        "POST /api/v1/certificates HTTP/1.1\r\nHost: localhost\r\n"
        f"Authorization: Bearer {server.token}\r\nContent-Type: application/json\r\nContent-Length: "
    ).encode()
    bodies = [json.dumps({"profile": "server", "csr": csr}).encode() for csr in csrs]
    requests = [head + str(len(body)).encode() + b"\r\n\r\n" + body for body in bodies]
    times: list[float] = []
    supply = iter(requests * 50)
    end = time.perf_counter() + seconds

    async def client(number: int) -> None:
        port = servers[number % len(servers)].ports["https"]
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="localhost")
        while time.perf_counter() < end:
            begin = time.perf_counter()
            writer.write(next(supply))
            answer = await reader.readuntil(b"\r\n\r\n")
            status = answer.split(b" ", 2)[1]
            length = next(
                int(line.split(b":")[1]) for line in answer.split(b"\r\n") if line.lower().startswith(b"content-length")
            )
            body = await reader.readexactly(length)
            if status != b"201":
                raise AssertionError(body)
            times.append(time.perf_counter() - begin)
        writer.close()

    begin = time.perf_counter()
    await asyncio.gather(*(client(number) for number in range(CONNECTIONS)))
    return times, time.perf_counter() - begin


if __name__ == "__main__":
    main(5 if "--short" in sys.argv else 15)
