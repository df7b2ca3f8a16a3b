"""One home and the process that serves it: started, killed, started again on the same ports."""

from __future__ import annotations

import threading
import time
from multiprocessing import connection
from pathlib import Path
from typing import Any

from tests.faults.loop import server
from tests.support.faults import processes
from tests.support.ports import free_port

READY_SECONDS = 60.0
# A start asks after every child that there is, and of two threads that read one exit code the second gets 255.
_children = threading.Lock()


class Slot:
    """One home and the process that serves it."""

    def __init__(self, folder: Path, record: Path, number: int) -> None:
        self.folder, self.number = folder, number
        self.doors = {door: free_port() for door in ("https", "mtls", "http")}
        self._record = record
        self._boots = 0
        self._process: Any = None
        self._from: Any = None
        self.lease = ""
        self.orphans = 0  # that its last start closed
        self.struck = "start"  # where its last process was killed

    def boot(self, seed: int, **how: Any) -> bool:
        """Start it; whether it is ready (or else dead)."""
        self._boots += 1
        self.boot_name = f"{self.number}-{self._boots:05}"
        order = server.Order(self.folder, self._record, self.boot_name, seed, **how)
        self._from, to = processes.Pipe(duplex=False)
        self._process = processes.Process(target=server.main, args=(order, to))
        with _children:
            self._process.start()
        to.close()
        self.lease, self.orphans = "", 0
        deadline = time.monotonic() + READY_SECONDS
        while time.monotonic() < deadline:
            try:
                if not self._from.poll(0.5):
                    continue
                what, *rest = self._from.recv()
            except (EOFError, OSError):
                return False
            if what == "lease":
                self.lease = rest[0]
            elif what == "orphans":
                self.orphans = rest[0]
            else:
                return True
        raise AssertionError(f"the server is neither ready nor dead: {self.log()}")

    def signed(self) -> int:
        """How much was signed since the start, in bytes of its journal."""
        path = self._record / f"signed-{self.boot_name}.jsonl"
        return path.stat().st_size if path.exists() else 0

    def alive(self) -> bool:
        """Whether it runs."""
        with _children:
            return self._process is not None and self._process.is_alive()

    def kill(self) -> None:
        """kill -9."""
        self._process.kill()

    def end(self, seconds: float) -> int | None:
        """Wait for its end; its exit code, None where it goes on."""
        connection.wait([self._process.sentinel], seconds)
        with _children:
            code: int | None = self._process.exitcode
        if code is not None:
            self._from.close()
        return code

    def stop(self) -> None:
        """As an operator would."""
        self._process.terminate()
        code = self.end(READY_SECONDS)
        assert code == 0, f"the server ended with {code}: {self.log()}"

    def log(self) -> str:
        """What it said last."""
        return (self._record / f"log-{self.boot_name}").read_text()[-3000:]
