"""Homes that outlive their processes, processes that die at a named place, and the books that must agree afterwards.

A home is founded once for each kind of store and copied for each test. A scene is an async function of an open
installation; `Play` runs it in a process of its own, with failpoints armed, and gives back what it said before it
ended. `books` compares the inventory with the events, both ways; it is the oracle of every test in `tests/faults`.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import hashlib
import multiprocessing
import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Self

import msgspec
import psycopg
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import Connection, TextClause, make_url, select, text

from rootward.ca import own, profiles
from rootward.ca.access import Caller, authenticate, new_token
from rootward.ca.founding import first_profiles
from rootward.ca.installation import Installation
from rootward.ca.log import open_log
from rootward.ca.publish import current_crl, publish_due
from rootward.ca.reconcile import reconcile
from rootward.ca.responder import Responder
from rootward.ca.sequence import settle
from rootward.core.crl import check_crl, parse_crl
from rootward.core.ocsp import cert_id_for, check_response, parse_response
from rootward.core.ocsp_request import request_for
from rootward.core.profile import Approval
from rootward.core.revocation import Status
from rootward.keys import BACKENDS, Backend, Key, KeySettings, Sealer, create_kek_file, kek_from_file
from rootward.store import certificates, events
from rootward.store.authorities import Crl
from rootward.store.certificates import Certificate
from rootward.store.db import open_database
from rootward.store.failpoint import armed, failpoint
from rootward.store.migrations import migrate
from rootward.worker import break_leases
from tests.support.installation import PKI_URL, found
from tests.support.postgres import Postgres

AUTHORITY = "issuing"
# Profiles that need a person's yes: one binds it to the plan, the other to the names.
CAREFUL = "careful"
NAMED = "named"
SECONDS = 60


@dataclass(frozen=True)
class Home:
    """Where an installation is, and its administrator's token."""

    url: str
    folder: Path
    token: str

    def keys(self) -> Backend:
        """Its keys, in files."""
        return BACKENDS["file"](KeySettings(folder=self.folder / "keys", kek=kek_from_file(self.folder / "kek")))

    def sealer(self) -> Sealer:
        """What opens the secrets in its store."""
        return Sealer(kek_from_file(self.folder / "kek"))

    def lapse(self) -> None:
        """Let the leases of intents, jobs and validations run out, as time would; on SQLite the lock file says it at
        once.
        """
        if self.url.startswith("sqlite"):
            return
        over(self.url)
        db = open_database(self.url)
        try:
            for change in (
                "UPDATE certificates SET lease_until = 0",
                "UPDATE jobs SET lease_until = 0, due_at = 0 WHERE lease IS NOT NULL",
                "UPDATE acme_authorizations SET lease_until = 0 WHERE lease IS NOT NULL",
            ):
                db.write_sync(partial(_patiently, text(change)))
        finally:
            db.close()


def plain(url: str) -> str:
    """A PostgreSQL URL as psycopg takes it."""
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


def over(url: str) -> None:
    """Wait until every transaction that is under way in PostgreSQL has ended, as it has long before a lease does: that
    of a process that was stopped in the middle of one is ended by the database, one whose COMMIT is in its socket is
    carried out.
    """
    with psycopg.connect(plain(url), autocommit=True) as conn:
        (first_to_come,) = conn.execute("SELECT pg_snapshot_xmax(pg_current_snapshot())::text").fetchone() or ()
        query = "SELECT pg_snapshot_xmin(pg_current_snapshot()) >= %s::xid8"
        for _ in range(SECONDS * 50):
            if conn.execute(query, [first_to_come]).fetchone() == (True,):
                return
            time.sleep(0.02)
    raise AssertionError(f"a transaction goes on for {SECONDS} seconds")


def _patiently(change: TextClause, conn: Connection) -> None:
    """Also where a process that was stopped within a transaction holds the row until the database ends that."""
    conn.exec_driver_sql("SET LOCAL lock_timeout = '60s'")
    conn.exec_driver_sql("SET LOCAL statement_timeout = '60s'")
    conn.execute(change)


@dataclass
class Open:
    """An open home."""

    inst: Installation
    admin: Caller
    responder: Responder


@asynccontextmanager
async def opened(home: Home, *, serving: bool = True, **options: Any) -> AsyncIterator[Open]:
    """The home as a server opens it; not `serving` leaves out what a server does before its first answer.

    `options` are the Installation's: `clock`, `random`.
    """
    db = open_database(home.url)
    try:
        inst = Installation(
            db=db,
            keys=home.keys(),
            sealer=home.sealer(),
            pki_url=PKI_URL,
            external_url="https://localhost:8443",
            lab=True,
            **options,
        )
        await inst.load_authorities()
        await open_log(inst, home.folder / "log")
        own.register(inst)
        responder = Responder(inst)
        if serving:
            await break_leases(inst)
            await reconcile(inst)
            await settle(inst)
            await responder.renew()
            await publish_due(inst)
        yield Open(inst, Caller(await authenticate(inst, home.token), "req_fault"), responder)
    finally:
        db.close()


# ── founding once, copying often ──────────────────────────────────────────────────────────────────────────────────


class Founder:
    """Founds a home of each dialect once, and hands out copies."""

    def __init__(self, folder: Path, postgres: Postgres) -> None:
        self._folder = folder
        self._postgres = postgres
        self._made: dict[str, Home] = {}

    @contextmanager
    def home(self, dialect: str, folder: Path) -> Iterator[Home]:
        """A copy in `folder`, gone after the `with` block."""
        target = folder / "home"
        if dialect == "sqlite":
            made = self._found(dialect, f"sqlite:///{self._folder}/sqlite/rootward.db")
            shutil.copytree(made.folder, target)
            yield Home(f"sqlite:///{target}/rootward.db", target, made.token)
            return
        url = self._postgres.url(self._prepare)
        made = self._made[dialect]
        shutil.copytree(made.folder, target)
        try:
            yield Home(url, target, made.token)
        finally:
            self._postgres.drop(url)

    def _prepare(self, url: str) -> None:
        self._found("postgresql", url)

    def _found(self, dialect: str, url: str) -> Home:
        if dialect not in self._made:
            folder = self._folder / dialect
            folder.mkdir(mode=0o700)
            create_kek_file(folder / "kek")
            token, digest = new_token()
            home = Home(url, folder, token)
            asyncio.run(_found(home, (token, digest)))
            self._made[dialect] = home
        return self._made[dialect]


async def _found(home: Home, token: tuple[str, bytes]) -> None:
    db = open_database(home.url)
    try:
        db.write_sync(migrate)
        inst = Installation(db=db, keys=home.keys(), pki_url=PKI_URL, external_url="https://localhost:8443", lab=True)
        await found(inst, token, ago=timedelta(days=10))  # so that a clock that is behind is not before its authority
    finally:
        db.close()
    server = first_profiles(AUTHORITY)[0]
    yes = Approval(required="always")
    named = msgspec.structs.replace(yes, binds="names")
    async with opened(home) as made:
        await profiles.create(made.inst, msgspec.structs.replace(server, name=CAREFUL, approval=yes), made.admin)
        await profiles.create(made.inst, msgspec.structs.replace(server, name=NAMED, approval=named), made.admin)


# ── processes that die ────────────────────────────────────────────────────────────────────────────────────────────

Say = Callable[[object], None]
Scene = Callable[..., Awaitable[None]]

processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(
    ["tests.support.faults", "tests.faults.scenes", "tests.faults.orders", "tests.faults.loop.server"]
)


class Play:
    """A scene in a process of its own, from `with` on. `scene(made, say, *arguments)` is a function of a module; its
    home is opened for it, and `traps`, written as in FAILPOINT, are armed as long as it runs. Beside the product's
    failpoints there are `key.asked` and `key.answered`, before and after each use of the issuing key.
    """

    def __init__(self, home: Home, scene: Scene, *arguments: object, traps: str = "") -> None:
        self._from, to = processes.Pipe(duplex=False)
        self._to = to
        self._process = processes.Process(target=_child, args=(home, scene, traps, arguments, to))
        self.said: list[Any] = []

    def __enter__(self) -> Self:
        self._process.start()
        self._to.close()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.is_alive():
            self._process.kill()
        self._process.join(SECONDS)
        self._process.close()
        self._from.close()

    def hear(self) -> Any:
        """The next thing that it says."""
        assert self._from.poll(SECONDS), "the scene says nothing"
        self.said.append(self._from.recv())
        return self.said[-1]

    def end(self) -> int:
        """Wait for its end and hear it out; its exit code, a signal's number below zero."""
        with contextlib.suppress(EOFError, OSError):  # a kill may also cut a message off
            while True:
                self.hear()
        self._process.join(SECONDS)
        code = self._process.exitcode
        assert code is not None, "the scene does not end"
        return code

    def kill(self) -> None:
        """kill -9, now."""
        self._process.kill()

    def until_stopped(self) -> None:
        """Wait until it has stopped itself (SIGSTOP)."""
        assert self._process.pid is not None
        for _ in range(SECONDS * 100):
            state = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()[0]
            if state == "T":
                return
            self._process.join(0.01)
        raise AssertionError("the scene does not stop")

    def go_on(self) -> None:
        """Wake it up (SIGCONT)."""
        assert self._process.pid is not None
        os.kill(self._process.pid, signal.SIGCONT)


def killed(home: Home, scene: Scene, *arguments: object, traps: str) -> list[Any]:
    """Play a scene that must die by its trap; what it said before."""
    with Play(home, scene, *arguments, traps=traps) as play:
        assert play.end() == -signal.SIGKILL, play.said
    return play.said


def _child(home: Home, scene: Scene, traps: str, arguments: tuple[object, ...], to: Any) -> None:
    async def main() -> None:
        async with opened(home, serving=False) as made:
            watch(made.inst, trapped)
            with armed(traps, also=KEY):
                await scene(made, to.send, *arguments)

    asyncio.run(main())


# ── keys that do as the test says ─────────────────────────────────────────────────────────────────────────────────

# Gets the bytes to sign and the real key's way to sign them.
Hook = Callable[[bytes, Callable[[], bytes]], bytes]


KEY = frozenset({"key.asked", "key.answered"})


def trapped(_tbs: bytes, sign: Callable[[], bytes]) -> bytes:
    """The hook of every scene."""
    failpoint("key.asked")
    signature = sign()
    failpoint("key.answered")
    return signature


class _Watched(ec.EllipticCurvePrivateKey):
    """A P-256 key whose every signature goes through a hook, as a remote device's would."""

    def __init__(self, real: ec.EllipticCurvePrivateKey, hook: Hook) -> None:
        self._real, self._hook = real, hook

    def sign(self, data: Any, signature_algorithm: Any) -> bytes:
        return self._hook(bytes(data), lambda: self._real.sign(data, signature_algorithm))

    def public_key(self) -> ec.EllipticCurvePublicKey:
        return self._real.public_key()

    @property
    def curve(self) -> ec.EllipticCurve:
        return self._real.curve

    @property
    def key_size(self) -> int:
        return self._real.key_size

    def _refuse(self, *_: Any, **__: Any) -> Any:
        raise TypeError("a watched key stays where it is")

    exchange = private_numbers = private_bytes = __copy__ = __deepcopy__ = _refuse


def watch(inst: Installation, hook: Hook, *, remote: bool = False) -> None:
    """Let every signature of the issuing authority go through `hook`; `remote` as for a key behind a network."""
    authority = inst.authority(AUTHORITY)
    assert authority.key is not None
    private: Any = authority.key._private
    key = Key(_Watched(getattr(private, "_real", private), hook), label=authority.key.label, remote=remote)
    inst.authorities[AUTHORITY] = dataclasses.replace(authority, key=key)


# ── what must be true afterwards ──────────────────────────────────────────────────────────────────────────────────


def _rows(conn: Connection) -> list[Certificate]:
    found = conn.execute(select(*certificates.COLUMNS).order_by(certificates.COLUMNS[0]))
    return [certificates.from_row(row) for row in found]


async def books(inst: Installation, *, open_intents: int = 0) -> dict[str, Certificate]:
    """Every row of the inventory by its id, once it and the events agree: each effect has its event and each event its
    effect, each certificate verifies, and no serial is there twice (I-03, I-05, I-06, I-56).
    """
    rows = await inst.db.read(_rows)
    facts = await inst.db.read(lambda conn: events.page(conn, after=0, limit=100_000))
    assert {event.certificate for event in facts} - {None} <= {row.id for row in rows}
    assert len({(row.issuer, row.serial) for row in rows}) == len(rows)
    mine = [row for row in rows if row.source == "issued"]
    for row in mine:
        _agrees(inst, row, [event for event in facts if event.certificate == row.id])
    still = [row for row in mine if row.issued_at is row.failed_at is row.orphaned_at is None]
    assert len(still) == open_intents
    return {row.id: row for row in mine}


def _agrees(inst: Installation, row: Certificate, facts: list[events.Event]) -> None:
    kinds = Counter(event.kind for event in facts)
    values = {event.kind: event.values() for event in facts}
    taken = kinds.pop("certificate.revoked", 0) + kinds.pop("certificate.held", 0)
    given = kinds.pop("certificate.released", 0)
    ends = {"issue.done": row.issued_at, "issue.failed": row.failed_at, "issue.orphaned": row.orphaned_at}
    filled = kinds.pop("certificate.filled", 0)
    came = kinds.keys() & {"authority.certified", "certificate.adopted"}
    if came:
        assert (kinds, row.issued_at is not None) == (Counter(came), True)
    else:
        assert kinds == Counter(["issue.intended", *(kind for kind, at in ends.items() if at is not None)]), row.id
        assert kinds.total() <= 2
        assert values["issue.intended"]["serial"] == row.serial.hex()
    assert row.revoked_at is not None if row.orphaned_at else (row.revoked_at is not None) == (taken > given)
    assert filled <= ("certificate.adopted" in came and bool(row.tbs))
    if row.issued_at is None or (not row.tbs and "certificate.adopted" in came):  # its old CRL had the serial alone
        assert row.signature is None
        return
    issuer = inst.by_issuer(row.issuer)
    assert issuer is not None
    x509.load_der_x509_certificate(row.der).verify_directly_issued_by(issuer.issuer.certificate)
    assert row.sha256 == hashlib.sha256(row.der).hexdigest()
    assert values.get("issue.done", {"sha256": row.sha256})["sha256"] == row.sha256


async def status(made: Open, serial: bytes) -> Status:
    """What OCSP says."""
    issuer = made.inst.authority(AUTHORITY).issuer
    asked = cert_id_for(issuer, serial, "sha256")
    answer = await made.responder.answer(AUTHORITY, request_for([asked]))
    return check_response(parse_response(answer.body), cert_id=asked, issuer=issuer, now=made.inst.clock(), nonce=None)


async def served(made: Open) -> Crl:
    """The CRL that is served, which must be good now."""
    crl = await current_crl(made.inst, AUTHORITY)
    assert crl is not None
    check_crl(crl.der, made.inst.authority(AUTHORITY).issuer, now=made.inst.clock(), last_number=crl.number - 1)
    return crl


async def listed(made: Open) -> set[bytes]:
    """The serials on the CRL that is served."""
    return {entry.serial for entry in parse_crl((await served(made)).der)}
