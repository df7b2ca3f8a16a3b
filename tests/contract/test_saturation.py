"""While issuance is saturated (I-65): every CRL and OCSP request is answered, the rest is refused with 503 and
Retry-After or done, nothing is half done, and what is sent again under its key comes to one certificate.

A whole server in a process of its own, on both stores, with limits so small that a few clients fill them. Times are
the business of bench/saturation.py; what is asserted here is counts.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import re
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from rootward.ca import publish
from rootward.ca.revoke import revoke
from rootward.core.issuer import Issuer
from rootward.core.ocsp import cert_id_for, parse_response, request_for
from rootward.core.revocation import Good, RevocationReason, Revoked
from rootward.keys import Key
from tests.support.postgres import Postgres
from tests.support.rest import csr
from tests.support.server import Server
from tests.support.store import DIALECTS
from tests.support.world import ISSUING, World

CLIENTS = 40
EACH = 12
REQUESTS = 16  # limits.requests: fewer than there are clients
BOUND = 256 * 1024  # KiB above idle


@pytest.fixture(scope="module", params=DIALECTS)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, postgres: Postgres
) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("saturation") / "home"
    environ = {} if request.param == "sqlite" else {"ROOTWARD_DATABASE": postgres.url()}
    with Server(home, environ=environ):
        pass
    settings = home / "rootward.toml"
    text, count = re.subn(r"(?m)^# requests = .*$", f"requests = {REQUESTS}", settings.read_text())
    assert count == 1
    settings.write_text(text)
    with Server(home, environ=environ) as running:
        yield running


@dataclass
class Seen:
    """What came back, by status; the bodies of 201."""

    statuses: Counter[int] = field(default_factory=Counter)
    issued: list[dict[str, object]] = field(default_factory=list)
    refused: list[dict[str, str]] = field(default_factory=list)


class Connection:
    """One keep-alive connection, spoken by hand so that a thousand cost little."""

    def __init__(self, server: Server, door: str) -> None:
        self._port = server.ports[door]
        self._tls = None if door == "http" else ssl.create_default_context(cafile=str(server.root))
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, request: bytes) -> tuple[int, dict[str, str], bytes]:
        """Status, header and body."""
        if self._streams is None:
            name = None if self._tls is None else "localhost"
            self._streams = await asyncio.open_connection("127.0.0.1", self._port, ssl=self._tls, server_hostname=name)
        reader, writer = self._streams
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
        return int(head[0].split()[1]), headers, await reader.readexactly(int(headers["content-length"]))

    async def close(self) -> None:
        """Gone."""
        if self._streams is not None:
            writer = self._streams[1]
            self._streams = None
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


def post(server: Server, path: str, body: object, key: str = "") -> bytes:
    """A request with the administrator's token."""
    data = json.dumps(body).encode()
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: localhost",
        f"Authorization: Bearer {server.token}",
        "Content-Type: application/json",
        f"Content-Length: {len(data)}",
        *([f"Idempotency-Key: {key}"] if key else []),
    ]
    return "\r\n".join([*lines, "", ""]).encode() + data


def ocsp(issuer: Issuer, serial: str) -> bytes:
    """A POST of an OCSP request for a serial in hex."""
    data = request_for([cert_id_for(issuer, bytes.fromhex(serial), "sha1")])
    head = (
        "POST /ocsp/issuing HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/ocsp-request\r\nContent-Length: "
    )
    return head.encode() + str(len(data)).encode() + b"\r\n\r\n" + data


async def saturate(server: Server, csrs: list[str], seen: Seen, *, keyed: bool = False) -> None:
    """`CLIENTS` clients that issue one after the other. Refused ones go on with the next, or ask again under their
    key.
    """

    async def client(number: int) -> None:
        connection = Connection(server, "https")
        for at in range(EACH):
            name = f"{number}-{at}"
            body = {"profile": "server", "csr": csrs[(number * EACH + at) % len(csrs)]}
            while True:
                status, headers, answer = await connection.ask(
                    post(server, "/api/v1/certificates", body, name if keyed else "")
                )
                seen.statuses[status] += 1
                if status == 201:
                    seen.issued.append(json.loads(answer))
                    break
                seen.refused.append(headers | {"code": json.loads(answer)["code"]})
                if not keyed:
                    break
                await asyncio.sleep(0.05)  # less than Retry-After, to press on
        await connection.close()

    await asyncio.gather(*(client(number) for number in range(CLIENTS)))


def memory(server: Server) -> int:
    """The most that the process ever had in memory, in KiB."""
    assert server.process is not None
    found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{server.process.pid}/status").read_text())
    assert found is not None
    return int(found[1])


def issuer_of(server: Server) -> Issuer:
    from cryptography import x509

    with server.client() as client:
        chain = x509.load_der_x509_certificate(client.get("/ca/issuing.cer").content)
    root = x509.load_pem_x509_certificate(server.root.read_bytes())
    return Issuer("issuing", chain, (chain, root), server.pki)


@pytest.mark.invariant("I-65", "I-25")
def test_status_goes_on_while_issuance_is_saturated(server: Server) -> None:
    csrs = [csr(f"s{number}.internal") for number in range(CLIENTS * EACH)]
    issuer = issuer_of(server)
    seen, status = Seen(), Counter[str]()
    with server.client() as client:
        made = client.post("/api/v1/certificates", json={"profile": "server", "csr": csr("first.internal")}).json()
        doomed = client.post("/api/v1/certificates", json={"profile": "server", "csr": csr("doomed.internal")}).json()
        before = inventory(client)
    idle = memory(server)

    async def ask_status(done: asyncio.Event, door: str) -> None:
        connection = Connection(server, door)
        while not done.is_set():
            code, _, body = await connection.ask(ocsp(issuer, made["serial"]))
            assert code == 200
            status[type(parse_response(body).data.answers[0].status).__name__] += 1
            # never asked before, so that it has to be read and signed
            code, _, body = await connection.ask(ocsp(issuer, f"7f{sum(status.values()):038x}"))
            assert code == 200
            status[type(parse_response(body).data.answers[0].status).__name__] += 1
            code, _, _ = await connection.ask(b"GET /crl/issuing.crl HTTP/1.1\r\nHost: localhost\r\n\r\n")
            status[f"crl {code}"] += 1
        await connection.close()

    async def revoke_meanwhile() -> None:
        connection = Connection(server, "https")
        path = f"/api/v1/certificates/{doomed['id']}/revoke"
        code, _, body = await connection.ask(post(server, path, {"reason": "keyCompromise"}))
        assert code == 200, body
        code, _, body = await connection.ask(ocsp(issuer, doomed["serial"]))
        assert isinstance(parse_response(body).data.answers[0].status, Revoked)
        await connection.close()

    async def everything() -> None:
        done = asyncio.Event()
        asking = [asyncio.create_task(ask_status(done, door)) for door in ("http", "https", "http")]
        issuing = asyncio.create_task(saturate(server, csrs, seen))
        while not seen.refused and not issuing.done():  # noqa: ASYNC110  # as below
            await asyncio.sleep(0)
        await revoke_meanwhile()  # in the middle of it
        await issuing
        done.set()
        await asyncio.gather(*asking)

    asyncio.run(everything())
    assert set(seen.statuses) == {201, 503}
    assert all((one["code"], one["retry-after"]) == ("RW-UNAVAILABLE", "1") for one in seen.refused)
    assert status.keys() == {"Good", "Unknown", "crl 200"}
    assert min(status.values()) > 0
    with server.client() as client:
        # the books agree: what was answered 201 is there, and nothing else; nothing open, nothing lost
        assert inventory(client) - before == {one["id"] for one in seen.issued}
        checks = {check["name"]: check["state"] for check in client.get("/api/v1/doctor").json()["checks"]}
        assert (checks["intents"], checks["orphans"]) == ("ok", "ok")
    assert memory(server) - idle < BOUND


@pytest.mark.invariant("I-65", "I-07")
def test_who_asks_again_under_a_key_gets_one_certificate(server: Server) -> None:
    csrs = [csr(f"k{number}.internal") for number in range(CLIENTS * EACH)]
    seen = Seen()
    with server.client() as client:
        before = inventory(client)
    asyncio.run(saturate(server, csrs, seen, keyed=True))
    assert seen.statuses[201] == CLIENTS * EACH
    assert seen.statuses[503] > 0
    assert set(seen.statuses) <= {201, 409, 503}
    with server.client() as client:
        assert inventory(client) - before == {str(one["id"]) for one in seen.issued}
    assert len({one["id"] for one in seen.issued}) == CLIENTS * EACH


@pytest.mark.invariant("I-65")
def test_who_leaves_in_the_middle_leaves_nothing_half_done(server: Server) -> None:
    csrs = [csr(f"l{number}.internal") for number in range(20)]

    async def leave() -> None:
        for number, one in enumerate(csrs):
            connection = Connection(server, "https")
            await connection.ask(b"GET /ca/issuing.cer HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert connection._streams is not None
            body = {"profile": "server", "csr": one}
            connection._streams[1].write(post(server, "/api/v1/certificates", body, f"left-{number}"))
            await connection._streams[1].drain()
            await connection.close()  # by force: what it sent may be under way

    asyncio.run(leave())
    with server.client() as client:
        ids = set()
        for number, one in enumerate(csrs):
            headers = {"Idempotency-Key": f"left-{number}", "Content-Type": "application/json"}
            body = json.dumps({"profile": "server", "csr": one})  # the same bytes, as a client would send them again
            for _ in range(500):
                answer = client.post("/api/v1/certificates", content=body, headers=headers)
                if answer.status_code == 201:
                    break
                assert answer.status_code in (409, 503), answer.text
                time.sleep(0.01)
            assert answer.status_code == 201, answer.text
            ids.add(answer.json()["id"])
            found = client.get("/api/v1/certificates", params={"q": f"l{number}.internal"}).json()["items"]
            assert len([row for row in found if f"dns:l{number}.internal" in row["names"]]) <= 1
        assert len(ids) == len(csrs)
        checks = {check["name"]: check["state"] for check in client.get("/api/v1/doctor").json()["checks"]}
        assert (checks["intents"], checks["orphans"]) == ("ok", "ok")


def inventory(client: object) -> set[str]:
    """The ids of everything that is there."""
    found: set[str] = set()
    cursor = ""
    while True:
        page = client.get(f"/api/v1/certificates?limit=500{cursor}").json()  # type: ignore[attr-defined]  # a client of httpx
        found |= {row["id"] for row in page["items"]}
        if page["next_cursor"] is None:
            return found
        cursor = f"&cursor={page['next_cursor']}"


# ── A key that is slow ────────────────────────────────────────────────────────────────────────────────────────────


def slow_key(label: str, private: ec.EllipticCurvePrivateKey, wait: Callable[[], None]) -> Key:
    """A key in a device: each signature waits first."""

    class Slow(ec.EllipticCurvePrivateKey):
        def __getattribute__(self, name: str) -> object:
            return super().__getattribute__(name) if name in ("sign", "__class__") else getattr(private, name)

        def sign(self, data: object, algorithm: object) -> object:
            wait()
            return private.sign(data, algorithm)  # type: ignore[arg-type]  # what the caller gives

    Slow.__abstractmethods__ = frozenset()  # type: ignore[attr-defined]  # all of it is the key's inside
    return Key(Slow(), label=label, remote=True)  # type: ignore[abstract]  # as above


@pytest.mark.invariant("I-65", "I-25")
async def test_status_does_not_wait_for_a_key_that_hangs(lab: World) -> None:
    """Every thread that signs certificates hangs; OCSP and CRLs are signed, a revocation is done, by their own."""
    authority = lab.inst.authorities[ISSUING]
    first = await lab.issue("first.internal")
    go = threading.Event()
    hanging = slow_key(ISSUING, authority.key._private, lambda: go.wait(30) or None)  # type: ignore[union-attr, arg-type]  # of the lab
    lab.inst.authorities[ISSUING] = dataclasses.replace(authority, key=hanging)
    waiting = [asyncio.create_task(lab.issue(f"w{number}.internal")) for number in range(30)]
    try:
        while len(lab.inst.process.in_flight) < 30:  # noqa: ASYNC110  # no event tells it
            await asyncio.sleep(0)
        # the responder's key hangs in nothing: its threads are its own
        mine = lab.responder._own[ISSUING]
        quick = slow_key("x", mine.key._private, lambda: None)  # type: ignore[arg-type]  # it is P-256
        lab.responder._own[ISSUING] = dataclasses.replace(mine, key=quick)
        assert await lab.status(first.serial) == Good()
        await revoke(lab.inst, first.id, RevocationReason.SUPERSEDED, lab.admin)
        assert isinstance(await lab.status(first.serial), Revoked)
        lab.inst.authorities[ISSUING] = dataclasses.replace(
            authority,
            key=slow_key(ISSUING, authority.key._private, lambda: None),  # type: ignore[union-attr, arg-type]  # as above
        )
        crl = await publish.publish(lab.inst, lab.inst.authority(ISSUING))
        assert crl.entries >= 1
        assert not any(task.done() for task in waiting)
    finally:
        go.set()
    rows = await asyncio.gather(*waiting)
    assert len({row.serial for row in rows}) == 30


@pytest.mark.invariant("I-65")
async def test_status_does_not_wait_for_readers_that_hang(lab: World) -> None:
    """Every thread that reads lists hangs; status look-ups have their own (PostgreSQL), or need none (SQLite)."""
    row = await lab.issue()
    go = threading.Event()
    hanging = [asyncio.create_task(lab.inst.db.read(lambda _conn: go.wait(30))) for _ in range(40)]
    try:
        while lab.inst.db.waiting()["read"] < 40:  # noqa: ASYNC110  # as above
            await asyncio.sleep(0)
        assert await lab.status(row.serial) == Good()
        await publish.current_crl(lab.inst, ISSUING)
        assert not any(task.done() for task in hanging)
    finally:
        go.set()
    await asyncio.gather(*hanging)
