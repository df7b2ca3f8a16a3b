"""A founded installation for each test, copied from one that was founded once for each kind of store; and who asks.

Its clock stands still until the test moves it.
"""

from __future__ import annotations

import asyncio
import hashlib
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import psycopg
import pytest
from cryptography import x509
from sqlalchemy import Connection, select

from rootward.ca import own, people, profiles
from rootward.ca.access import Caller, Principal, authenticate
from rootward.ca.founding import first_profiles
from rootward.ca.installation import Installation
from rootward.ca.issue import Ask, Idempotency, Issued, Pending, issue
from rootward.ca.log import open_log
from rootward.ca.responder import Responder
from rootward.core.csr import parse_csr
from rootward.core.ocsp import cert_id_for, check_response, parse_response, request_for
from rootward.core.problems import Problem
from rootward.core.profile import Profile
from rootward.core.revocation import Status
from rootward.core.roles import Grant, Role
from rootward.core.times import whole_second
from rootward.keys import Backend
from rootward.store import certificates, events
from rootward.store.certificates import Certificate
from rootward.store.db import open_database
from rootward.store.events import Event
from rootward.store.requests import Parked
from tests.support.installation import PKI_URL, SEALER, lab, memory_keys
from tests.support.postgres import Postgres
from tests.vectors.csr_parts import good_csr

ISSUING = "issuing"
REQUESTER = Grant(Role.REQUESTER)
APPROVER = Grant(Role.APPROVER)
OFFICER = Grant(Role.OFFICER)
_base: dict[str, Profile] = {one.name: one for one in first_profiles(ISSUING)}


class Clock:
    """Shows the same time until it is moved."""

    def __init__(self) -> None:
        self.now = whole_second(datetime.now(UTC))

    def __call__(self) -> datetime:
        return self.now

    def move(self, span: timedelta) -> None:
        self.now += span


def new_key() -> Any:
    """A P-256 key of its own."""
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.generate_private_key(ec.SECP256R1())


def ask(name: str = "a.internal", *, profile: str = "server", key: Any = None, **more: Any) -> Ask:
    """An ask for one DNS name, by a new key unless one is given."""
    return Ask(profile, parse_csr(good_csr(names=[f"dns:{name}"], key=key or new_key())), **more)


def once(key: str, ask: Ask) -> Idempotency:
    """An idempotency key for this very ask."""
    return Idempotency(key, hashlib.sha256(ask.csr.der).digest())


@dataclass
class World:
    """An open installation. `admin` holds all roles; `keys` are in memory, and the clock is the test's."""

    url: str
    inst: Installation
    admin: Caller
    token: str
    responder: Responder
    clock: Clock
    seconds: list[float] = field(default_factory=lambda: [0.0])  # what the responder takes for monotonic time

    @property
    def dialect(self) -> str:
        return self.inst.db.dialect

    async def person(self, name: str, *grants: Grant) -> Caller:
        """A new person who holds these roles."""
        made = await people.create_person(self.inst, name, self.admin)
        for one in grants:
            await people.create_grant(
                self.inst,
                principal_id=made.id,
                role=one.role,
                authority=one.authority,
                profile=one.profile,
                caller=self.admin,
            )
        return Caller(Principal(made.id, "person", name, grants), f"req_{name}")

    async def profile(self, name: str, base: str = "server", **changes: Any) -> Profile:
        """A new profile like the shipped one, changed."""
        made = msgspec.structs.replace(_base[base], name=name, **changes)
        await profiles.create(self.inst, made, self.admin)
        return made

    async def issue(self, name: str = "a.internal", *, caller: Caller | None = None, **more: Any) -> Certificate:
        """A certificate for that name."""
        return issued(await issue(self.inst, ask(name, **more), caller or self.admin))

    async def events(self, *kinds: str, certificate: str | None = None) -> list[Event]:
        """The events of these kinds (all, where none is given), oldest first."""
        found = await self.inst.db.read(lambda conn: events.page(conn, after=0, limit=100_000))
        return [
            event for event in found if (not kinds or event.kind in kinds) and certificate in (None, event.certificate)
        ]

    async def counts(self) -> Counter[str]:
        """How many events there are of each kind."""
        return Counter(event.kind for event in await self.events())

    async def rows(self) -> list[Certificate]:
        """The whole inventory, intents and failures too."""

        def read(conn: Connection) -> list[Certificate]:
            found = conn.execute(select(*certificates.COLUMNS).order_by(certificates.COLUMNS[0]))
            return [certificates.from_row(row) for row in found]

        return await self.inst.db.read(read)

    async def row(self, id: str) -> Certificate:
        """One row in whatever state."""
        found = await self.inst.db.read(lambda conn: certificates.intent(conn, id))
        assert found is not None
        return found

    async def status(self, serial: bytes, *, algorithm: Any = "sha1") -> Status:
        """What OCSP says, checked as a client does."""
        issuer = self.inst.authority(ISSUING).issuer
        asked = cert_id_for(issuer, serial, algorithm)
        answer = await self.responder.answer(ISSUING, request_for([asked]))
        return check_response(parse_response(answer.body), cert_id=asked, issuer=issuer, now=self.clock(), nonce=None)


def issued(outcome: Issued | Pending) -> Certificate:
    """The certificate that must have come of it, verified."""
    assert isinstance(outcome, Issued)
    assert outcome.certificate.der is not None
    made = x509.load_der_x509_certificate(outcome.certificate.der)
    made.verify_directly_issued_by(outcome.issuer.certificate)
    return outcome.certificate


def pending(outcome: Issued | Pending) -> Parked:
    """The request that must wait."""
    assert isinstance(outcome, Pending)
    return outcome.request


async def refused(awaitable: Any) -> str:
    """The code of the Problem that must come."""
    with pytest.raises(Problem) as caught:
        await awaitable
    assert caught.value.detail
    return caught.value.code


class Worlds:
    """Founds one installation of each dialect, and hands out copies."""

    def __init__(self, folder: Path, postgres: Postgres) -> None:
        self._folder, self._postgres = folder, postgres
        self._made: dict[str, tuple[Backend, str]] = {}
        self._admin: psycopg.Connection[Any] | None = None
        self._template = ""
        self._copies = 0

    @contextmanager
    def world(self, dialect: str, folder: Path) -> Iterator[World]:
        """A copy, gone after the `with` block."""
        if dialect == "sqlite":
            original = self._folder / "rootward.db"
            if dialect not in self._made:
                self._found(dialect, f"sqlite:///{original}")
            shutil.copy(original, folder / "rootward.db")
            with _opened(f"sqlite:///{folder}/rootward.db", *self._made[dialect]) as made:
                yield made
            return
        if dialect not in self._made:
            self._template = self._postgres.url()
            self._found(dialect, self._template)
        self._copies += 1
        template, name = urlsplit(self._template).path[1:], f"world_{self._copies}"
        self._say(f"CREATE DATABASE {name} TEMPLATE {template} OWNER rootward")
        try:
            with _opened(f"{self._template.rpartition('/')[0]}/{name}", *self._made[dialect]) as made:
                yield made
        finally:
            self._say(f"DROP DATABASE {name} WITH (FORCE)")

    def close(self) -> None:
        """Let go of the server."""
        if self._admin is not None:
            self._admin.close()

    def _say(self, statement: str) -> None:
        # One connection for all: a new one would take longer to see the server's memory than to copy a database.
        if self._admin is not None:
            try:
                self._admin.execute("SELECT 1")
            except psycopg.OperationalError:  # the server was stopped by a test
                self._admin = None
        if self._admin is None:
            self._admin = self._postgres._admin()
        self._admin.execute(statement)

    def _found(self, dialect: str, url: str) -> None:
        keys = memory_keys()

        async def found() -> str:
            async with lab(url, keys=keys) as made:
                return made.token

        self._made[dialect] = keys, asyncio.run(found())


@contextmanager
def _opened(url: str, keys: Backend, token: str) -> Iterator[World]:
    with opened(url, _copy(keys), token) as made:
        yield made


@contextmanager
def opened(url: str, keys: Backend, token: str) -> Iterator[World]:
    """An installation on this store, as a process opens it."""
    clock, seconds = Clock(), [0.0]
    db = open_database(url)

    async def start() -> World:
        inst = Installation(
            db=db,
            keys=keys,
            sealer=SEALER,
            pki_url=PKI_URL,
            external_url="https://localhost:8443",
            lab=True,
            clock=clock,
        )
        await inst.load_authorities()
        await open_log(inst)
        own.register(inst)
        responder = Responder(inst, monotonic=lambda: seconds[0])
        await responder.renew()
        admin = Caller(await authenticate(inst, token), "req_admin")
        return World(url, inst, admin, token, responder, clock, seconds)

    try:
        yield asyncio.run(start())
    finally:
        db.close()


def _copy(keys: Backend) -> Backend:
    """The same keys in another memory: what a test deletes is gone for that test alone."""
    other: Any = memory_keys()
    other._keys.update(vars(keys)["_keys"])
    made: Backend = other
    return made
