"""A real server process for tests: `rootward quickstart` in a home and on ports of its own, on loopback."""

from __future__ import annotations

import os
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import httpx

from tests.support.ports import free_port

READY_SECONDS = 60


class Server:
    """`Server(home)` as a context manager starts it and waits for its ready line; `kill`, `stop` and `start` for
    fault tests.
    """

    program: tuple[str, ...] = (sys.executable, "-m", "rootward")

    def __init__(
        self, home: Path, *, environ: Mapping[str, str] | None = None, arguments: tuple[str, ...] = ()
    ) -> None:
        self.home = home
        self.ports = {door: free_port() for door in ("https", "mtls", "http")}
        self._environ = dict(environ or {})
        self._arguments = arguments
        self.process: subprocess.Popen[str] | None = None
        self.output = ""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, **environ: str) -> None:
        """Start and wait for `ready`; what it printed is in `output`, and in the AssertionError where it ends."""
        flags = [part for door, port in self.ports.items() for part in (f"--{door}", f"127.0.0.1:{port}")]
        command = [*self.program, "quickstart", "--home", str(self.home), *flags, *self._arguments]
        log = self.home.with_suffix(".log")
        with log.open("w") as stream:
            self.process = subprocess.Popen(
                command,
                stdout=stream,
                stderr=subprocess.STDOUT,
                text=True,
                env={**os.environ, **self._environ, **environ},
            )
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            self.output = log.read_text()
            if any(line.startswith("ready") for line in self.output.splitlines()):
                return
            if self.process.poll() is not None:
                raise AssertionError(f"the server ended with {self.process.returncode}: {log.read_text()}")
            time.sleep(0.02)
        self.kill()
        raise AssertionError(f"not ready after {READY_SECONDS} s: {self.output}")

    def stop(self) -> None:
        """End it as an operator would, and wait."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.kill()
                raise AssertionError(f"it did not end: {self.home.with_suffix('.log').read_text()}") from None

    def kill(self) -> None:
        """kill -9."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    @property
    def url(self) -> str:
        return f"https://localhost:{self.ports['https']}"

    @property
    def pki(self) -> str:
        return f"http://localhost:{self.ports['http']}"

    @property
    def token(self) -> str:
        return (self.home / "admin.token").read_text().strip()

    @property
    def root(self) -> Path:
        return self.home / "root.pem"

    def client(self, roots: Path | None = None, **options: Any) -> httpx.Client:
        """A client that trusts this root, or `roots`, and speaks as admin."""
        context = ssl.create_default_context(cafile=str(roots or self.root))
        headers = {"Authorization": f"Bearer {self.token}"}
        return httpx.Client(base_url=self.url, verify=context, headers=headers, trust_env=False, timeout=30, **options)

    def cli(self, *arguments: str, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
        """The command line against this server."""
        command = [sys.executable, "-m", "rootward", "--home", str(self.home), "--url", self.url, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=check, **options)
