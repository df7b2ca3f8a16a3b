"""Starts that must not happen, and starts after a kill -9 of a real server."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from starlette.routing import Router

from rootward.ca.clock import accept_clock, check_clock, note_clock
from rootward.ca.issue import Issued
from rootward.ca.reconcile import reconcile
from rootward.core.problems import Problem
from rootward.core.revocation import Good
from rootward.core.times import whole_second
from rootward.protocols.rest.app import routes
from rootward.store import certificates, events
from rootward.store.failpoint import Injected, armed
from tests.faults.scenes import attempt, wish
from tests.support.faults import Home, opened, served, status
from tests.support.rest import csr
from tests.support.server import Server

CERTIFICATES = "/api/v1/certificates"


def now() -> datetime:
    """The right time."""
    return whole_second(datetime.now(UTC))


# ── the clock ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.invariant("I-61")
@pytest.mark.parametrize("ahead", [timedelta(hours=1), timedelta(days=40)], ids=str)
def test_a_clock_that_went_back_stops_the_start_until_somebody_accepts_it(fresh: Home, ahead: timedelta) -> None:
    async def main() -> None:
        async with opened(fresh, clock=lambda: now() + ahead) as made:
            await note_clock(made.inst)
        async with opened(fresh, serving=False) as made:
            for _ in range(2):
                with pytest.raises(Problem, match="doctor --accept-clock") as caught:
                    await check_clock(made.inst)
                assert caught.value.code == "RW-CLOCK"
                await note_clock(made.inst)  # which must not make it right
            await accept_clock(made.inst)
            await check_clock(made.inst)
            accepted = events.Filters(kind="clock.accepted")
            (event,) = await made.inst.db.read(lambda conn: events.list(conn, accepted))
            assert event.values().keys() == {"was", "is"}
        async with opened(fresh) as made:
            assert isinstance(await attempt(made, wish()), Issued)
            await served(made)  # is good by the right clock

    asyncio.run(main())


@pytest.mark.invariant("I-61")
def test_a_clock_within_the_tolerance_is_no_trouble(fresh: Home) -> None:
    async def main() -> None:
        async with opened(fresh, clock=lambda: now() + timedelta(seconds=50)) as made:
            await note_clock(made.inst)
        async with opened(fresh, serving=False) as made:
            await check_clock(made.inst)

    asyncio.run(main())


@pytest.mark.invariant("I-29")
@pytest.mark.invariant("I-61")
def test_responders_of_a_future_that_did_not_come_are_replaced(sqlite_home: Home) -> None:
    async def main() -> None:
        async with opened(sqlite_home, clock=lambda: now() + timedelta(days=40)):
            pass
        async with opened(sqlite_home) as made:
            done = await attempt(made, wish())
            assert isinstance(done, Issued)
            assert await status(made, done.certificate.serial) == Good()

    asyncio.run(main())


# ── real servers ──────────────────────────────────────────────────────────────────────────────────────────────────


def ask(client: httpx.Client, body: dict[str, Any]) -> httpx.Response:
    """An issuance with an idempotency key."""
    return client.post(CERTIFICATES, json=body, headers={"Idempotency-Key": "the-one"})


@pytest.mark.invariant("I-06")
@pytest.mark.invariant("I-07")
def test_a_server_that_is_killed_before_it_answers(tmp_path: Path) -> None:
    body = {"profile": "server", "csr": csr("a.internal")}
    server = Server(tmp_path / "home")
    # The first two certificates are the server's own: its OCSP responder's and its TLS.
    server.start(FAILPOINT="issue.stored:kill:3")
    try:
        with server.client() as client, pytest.raises(httpx.TransportError):
            ask(client, body)
        assert server.process is not None
        assert server.process.wait(30) == -signal.SIGKILL
        server.start()
        with server.client() as client:
            (stored,) = client.get(CERTIFICATES, params={"profile": "server"}).json()["items"]
            made = ask(client, body)
            assert made.status_code == 201
            assert (made.json()["id"], made.json()["serial"]) == (stored["id"], stored["serial"])
            pem = x509.load_pem_x509_certificate(made.json()["certificate"].encode())
            assert pem.serial_number == int(stored["serial"], 16)
    finally:
        server.stop()


@pytest.mark.slow
@pytest.mark.invariant("I-61")
def test_a_first_start_that_is_killed_is_taken_up_and_a_second_server_is_refused(tmp_path: Path) -> None:
    server = Server(tmp_path / "home")
    for trap in ("issue.signed:kill:2", "crl.signed:kill"):
        with pytest.raises(AssertionError, match="ended with -9"):
            server.start(FAILPOINT=trap)
    with server, server.client() as client:
        assert client.post(CERTIFICATES, json={"profile": "server", "csr": csr("a.internal")}).status_code == 201
        assert server.process is not None
        for verb in ("serve", "quickstart"):
            command = [sys.executable, "-m", "rootward", verb, "--home", str(server.home)]
            second = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
            assert second.returncode == 1
            said = " ".join((second.stdout + second.stderr).split())
            assert f"pid {server.process.pid}" in said
            assert "Traceback" not in said
        assert client.get("/healthz").status_code == 200


@pytest.mark.invariant("I-05")
def test_an_orphan_is_shown_like_every_other_certificate(sqlite_home: Home) -> None:
    async def main() -> None:
        async with opened(sqlite_home) as made:
            with armed("issue.signed:fail"), pytest.raises(Injected):
                await attempt(made, wish())
            (row,) = await made.inst.db.read(certificates.open_intents)
            assert await reconcile(made.inst) == 1
            transport = httpx.ASGITransport(app=Router(routes(made.inst)), raise_app_exceptions=False)
            headers = {"Authorization": f"Bearer {sqlite_home.token}"}
            async with httpx.AsyncClient(transport=transport, base_url="https://localhost", headers=headers) as client:
                for path in (f"{CERTIFICATES}?status=orphan", CERTIFICATES):
                    reply = await client.get(path)
                    assert reply.status_code == 200, path
                    (orphan,) = [item for item in reply.json()["items"] if item["id"] == row.id]
                    assert (orphan["status"], orphan["serial"]) == ("orphan", row.serial.hex())
                reply = await client.get(f"{CERTIFICATES}/{row.id}")
                assert reply.status_code == 200
                assert reply.json()["certificate"] is None

    asyncio.run(main())
