"""The whole server in one process: three listeners over a real installation, its own certificate, the worker, and a
clean end.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import signal
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import structlog
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from rootward import telemetry
from rootward.config import Config, load_config
from rootward.core.problems import Problem
from rootward.server import serve
from rootward.store import jobs
from rootward.worker import JOBS
from tests.support.installation import Lab, lab
from tests.support.listener import Answer, read
from tests.support.ports import free_port

Visit = Callable[[Config, Lab], None]


def settings(home: Path) -> Config:
    flags = {f"listen.{door}": f"127.0.0.1:{free_port()}" for door in ("https", "mtls", "http")}
    (home / "scrape").write_text("0123456789abcdef\n", encoding="ascii")
    return load_config(home, {}, {**flags, "metrics.scrape_token": "file:scrape", "limits.shutdown_seconds": 2})


def serve_and(home: Path, config: Config, visit: Visit) -> None:
    """Serves in this thread, visits from another one, and ends by SIGTERM. What the visit raises is raised here."""
    raised: list[BaseException] = []

    async def main() -> None:
        async with lab(f"sqlite:///{home}/rootward.db", home=home) as made:

            def visiting() -> None:
                try:
                    visit(config, made)
                except BaseException as error:  # noqa: BLE001  # carried over to the test's own thread
                    raised.append(error)
                finally:
                    os.kill(os.getpid(), signal.SIGTERM)

            thread = threading.Thread(target=visiting)
            await serve(config, made.inst, announce=thread.start, environ={})
            thread.join(5)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
    if raised:
        raise raised[0]


def ask(config: Config, door: str, path: str, made: Lab, token: str | None = None) -> Answer:
    host, _, port = getattr(config.listen, door).rpartition(":")
    lines = [f"GET {path} HTTP/1.1", "Host: localhost", *([f"Authorization: Bearer {token}"] if token else [])]
    with contextlib.ExitStack() as stack:
        sock: socket.socket = stack.enter_context(socket.create_connection((host, int(port)), timeout=5))
        if door != "http":
            context = ssl.create_default_context(cadata=made.root.public_bytes(Encoding.PEM).decode())
            sock = stack.enter_context(context.wrap_socket(sock, server_hostname="localhost"))
        sock.sendall("\r\n".join([*lines, "", ""]).encode())
        return read(sock)


def test_what_is_on_which_listener(tmp_path: Path) -> None:
    config = settings(tmp_path)

    def visit(config: Config, made: Lab) -> None:
        for door in ("https", "mtls"):
            for path, status in (
                ("/healthz", 200),
                ("/readyz", 200),
                ("/metrics", 401),
                ("/roots.pem", 200),
                ("/crl/issuing.crl", 200),
                ("/ca/issuing.cer", 200),
                ("/api/v1/authorities", 401),
                ("/api/openapi.json", 200),
                ("/nothing", 404),
            ):
                assert ask(config, door, path, made).status == status, (door, path)
            assert ask(config, door, "/api/v1/authorities", made, made.token).status == 200
            assert ask(config, door, "/metrics", made, "0123456789abcdef").status == 200
        for path, status in (
            ("/crl/issuing.crl", 200),
            ("/crl/root.crl", 200),
            ("/ca/issuing.cer", 200),
            ("/ca/issuing.p7c", 200),
            ("/roots.pem", 404),
            ("/healthz", 404),
            ("/metrics", 404),
            ("/api/v1/authorities", 404),
            ("/api/openapi.json", 404),
        ):
            assert ask(config, "http", path, made).status == status, path
        roots = x509.load_pem_x509_certificates(ask(config, "https", "/roots.pem", made).body)
        assert roots == [made.root]

    serve_and(tmp_path, config, visit)


def test_the_worker_does_each_of_its_jobs(tmp_path: Path) -> None:
    def visit(_config: Config, made: Lab) -> None:
        for _ in range(600):
            rows = made.inst.db.read_sync(jobs.list)
            if {row.name for row in rows if row.done_at is not None} == JOBS.keys():
                break
            threading.Event().wait(0.1)
        assert [row.failure for row in rows] == [None] * len(JOBS)
        assert {row.name for row in rows if row.done_at is not None} == JOBS.keys()

    serve_and(tmp_path, settings(tmp_path), visit)


@pytest.mark.parametrize("door", ["https", "mtls", "http"])
def test_a_taken_port_stops_the_start_and_names_the_setting(tmp_path: Path, door: str) -> None:
    config = settings(tmp_path)
    host, _, port = getattr(config.listen, door).rpartition(":")

    def visit(_config: Config, _made: Lab) -> None:
        raise AssertionError("it must not have started")

    with socket.create_server((host, int(port))), pytest.raises(Problem) as caught:
        serve_and(tmp_path, config, visit)
    assert caught.value.code == "RW-CONFIG"
    assert f"listen.{door}" in caught.value.detail


def test_one_request_id_goes_from_the_answer_to_the_log_and_no_token_does(tmp_path: Path) -> None:
    stream = io.StringIO()
    telemetry.configure_logging("json", "info", stream=stream)
    found: list[str] = []

    def visit(config: Config, made: Lab) -> None:
        answer = ask(config, "https", "/api/v1/authorities?secret=hidden", made, made.token)
        found.extend([answer.headers["x-request-id"], made.token])

    try:
        serve_and(tmp_path, settings(tmp_path), visit)
    finally:
        structlog.reset_defaults()
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    (mine,) = [line for line in lines if line["event"] == "http.request" and line.get("request_id") == found[0]]
    assert (mine["path"], mine["door"], mine["method"]) == ("/api/v1/authorities", "https", "GET")
    assert {line["event"] for line in lines} <= telemetry.LINES.keys()
    assert found[1] not in stream.getvalue()
    assert "hidden" not in stream.getvalue()
