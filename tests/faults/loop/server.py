"""The process that is killed: `rootward serve` on a home, whole, with its failpoints armed and its keys watched.

It is forked from a parent that has imported everything, so that a start takes a fraction of a second. What is put in
its way: keys of authorities and responders write each use into a journal and do not sign at times, jobs come round
every second, and (for `unlucky`) each call of the store fails once without an effect and once with one.
"""

from __future__ import annotations

import dataclasses
import os
import random
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from rootward import home as homes
from rootward import quickstart, server, worker
from rootward.ca import own
from rootward.keys import Key, NotSigned
from rootward.keys.file import FileBackend
from rootward.keys.key import TLS_LABEL
from rootward.store import group, postgres
from rootward.store.db import Database
from rootward.store.failpoint import Injected, armed, failpoint
from rootward.store.rows import run
from tests.faults.loop.record import Journal
from tests.support.faults import KEY, _Watched

AUTHORITY = "issuing"
OFTEN = timedelta(seconds=1)
_ready: list[str] = []  # what this process said once it served


@dataclass(frozen=True)
class Order:
    """How one process is to run. `traps` as in FAILPOINT; `refuses`: of so many certificates the key refuses one (0:
    none); `renews`: its own certificates are made anew at the start.
    """

    folder: Path
    record: Path
    boot: str
    seed: int
    traps: str = ""
    refuses: int = 0
    renews: bool = False
    unlucky: bool = False


def main(order: Order, said: Any) -> None:
    """The process. Says ("lease", name), ("orphans", how many) and ("ready",), each once."""
    log = os.open(order.record / f"log-{order.boot}", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(log, 1)
    os.dup2(log, 2)
    _watch_keys(order)
    _say_what_is_found(said)
    for name, job in worker.JOBS.items():
        worker.JOBS[name] = dataclasses.replace(job, every=min(job.every, OFTEN))
    if order.renews:
        own._half = lambda row: row.not_before
    if order.unlucky:
        Unlucky(order.record / f"store-{order.boot}", order.record, order.seed).install()
    with armed(order.traps, also=KEY):
        quickstart.serve_home(order.folder)


def _watch_keys(order: Order) -> None:
    journal = Journal(order.record / f"signed-{order.boot}.jsonl")
    rng = random.Random(order.seed)
    real = FileBackend.load

    def load(backend: FileBackend, label: str, public_id: str) -> Key:
        key = real(backend, label, public_id)
        private: Any = key._private
        if label == TLS_LABEL or not hasattr(private, "curve"):
            return key  # signs handshakes; the log's key signs heads, which the audit tests look after

        def hook(tbs: bytes, sign: Callable[[], bytes]) -> bytes:
            journal.put(what="asked", at=time.monotonic(), label=label, key=public_id, tbs=tbs)
            failpoint("key.asked")
            # Not at the start: without a certificate of its own the server says why and ends.
            if _ready and order.refuses and label == AUTHORITY and rng.randrange(order.refuses) == 0:
                journal.put(what="refused", at=time.monotonic(), label=label, key=public_id, tbs=tbs)
                raise NotSigned("not now")
            signature = sign()
            journal.put(what="signed", at=time.monotonic(), label=label, key=public_id, tbs=tbs, signature=signature)
            failpoint("key.answered")
            return signature

        return Key(_Watched(private, hook), label=label)

    FileBackend.load = load


def _say_what_is_found(said: Any) -> None:
    open_store, reconcile = homes.open_store, server.reconcile

    def opens(*given: Any) -> Database:
        db = open_store(*given)
        said.send(("lease", db.lease))
        return db

    async def reconciles(*given: Any) -> int:
        closed = await reconcile(*given)
        said.send(("orphans", closed))
        return closed

    homes.open_store = opens
    server.reconcile = reconciles

    def says(text: str) -> None:
        _ready.append(text)
        said.send(("ready", text))

    quickstart._say = says


class Unlucky:
    """Every call of `Database.write`, known by who calls it, fails once without effect and once with it, at the COMMIT
    of its own transaction. What was done so is in `record/store-*`, and is not done again by the next process.
    """

    def __init__(self, path: Path, record: Path, seed: int) -> None:
        self._done = {line for past in record.glob("store-*") for line in past.read_text().splitlines()}
        self._journal = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._rng = random.Random(seed)
        self._doomed: dict[int, tuple[str, str]] = {}  # by thread: the call, and how it fails

    def install(self) -> None:
        """From now on."""
        write = Database.write

        def unlucky(db: Database, work: Any) -> Any:
            frame = sys._getframe(1)
            where = Path(frame.f_code.co_filename)
            call = f"{where.parent.name}/{where.name}:{frame.f_code.co_qualname}"
            mode = next((mode for mode in ("fail", "fail_persisted") if f"{call} {mode}" not in self._done), None)
            if mode is None or self._rng.random() < 0.2:
                return write(db, work)

            def doomed(conn: Any) -> Any:
                result = run(work, conn)
                self._doomed[threading.get_ident()] = call, mode
                return result

            return write(db, doomed)

        Database.write = unlucky
        group.failpoint = postgres.failpoint = self._at

    def _at(self, name: str) -> None:
        failpoint(name)
        call, mode = self._doomed.get(threading.get_ident(), ("", ""))
        if name == {"fail": "store.write.before-commit", "fail_persisted": "store.write.after-commit"}.get(mode):
            del self._doomed[threading.get_ident()]
            line = f"{call} {mode}"
            self._done.add(line)
            os.write(self._journal, f"{line}\n".encode())
            os.fdatasync(self._journal)
            raise Injected(line)
