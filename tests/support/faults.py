"""Homes that outlive their processes, processes that die at a named place, and the books that must agree afterwards.

A home is founded once for each kind of store and copied for each test. A scene is an async function of an open
installation; `play` runs it in a process of its own, with a failpoint armed, and gives back what it said before it
ended. `books` compares the inventory with the events, both ways.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import multiprocessing
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import Connection as StoreConnection
from sqlalchemy import text

from rootward.ca import own, profiles
from rootward.ca.access import Caller, authenticate, new_token
from rootward.ca.installation import Installation
from rootward.ca.issue import Ask, Idempotency, Issued, Pending, issue
from rootward.ca.publish import current_crl, publish_due
from rootward.ca.reconcile import reconcile
from rootward.ca.responder import Responder
from rootward.core.crl import check_crl, parse_crl
from rootward.core.csr import parse_csr
from rootward.core.ocsp import cert_id_for, check_response, parse_response
from rootward.core.ocsp_request import request_for
from rootward.core.profile import Approval, Profile
from rootward.core.revocation import Status
from rootward.keys import BACKENDS, Backend, Key, KeySettings, create_kek_file, kek_from_file
from rootward.store import certificates
from rootward.store import profiles as profile_rows
from rootward.store.certificates import Certificate
from rootward.store.db import open_database
from rootward.store.events import Event
from rootward.store.events import page as events_page
from rootward.store.failpoint import armed, failpoint
from rootward.store.migrations import migrate
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
            db=db, keys=home.keys(), pki_url=PKI_URL, external_url="https://localhost:8443", lab=True, **options
        )
        await inst.load_authorities()
        own.register(inst)
        responder = Responder(inst)
        if serving:
            await reconcile(inst)
            await responder.renew()
            await publish_due(inst)
        yield Open(inst, Caller(await authenticate(inst, home.token), "req_fault"), responder)
    finally:
        db.close()


class Founder:
    """Founds a home for each dialect once, and hands out copies."""

    def __init__(self, folder: Path, postgres: Callable[[], Postgres]) -> None:
        self._folder = folder
        self._postgres = postgres
        self._made: dict[str, Home] = {}

    @contextmanager
    def home(self, dialect: str, folder: Path) -> Iterator[Home]:
        """A copy in `folder`, gone after the `with` block."""
        if dialect == "sqlite":
            made = self._found(dialect, f"sqlite:///{self._below(dialect)}/rootward.db")
            shutil.copytree(made.folder, folder / "home")
            yield Home(f"sqlite:///{folder}/home/rootward.db", folder / "home", made.token)
            return
        server = self._postgres()
        url = server.url(self._prepare)
        shutil.copytree(self._made[dialect].folder, folder / "home")
        try:
            yield Home(url, folder / "home", self._made[dialect].token)
        finally:
            server.drop(url)

    def _below(self, dialect: str) -> Path:
        return self._folder / dialect

    def _prepare(self, url: str) -> None:
        self._found("postgresql", url)

    def _found(self, dialect: str, url: str) -> Home:
        if dialect not in self._made:
            folder = self._below(dialect)
            folder.mkdir(mode=0o700)
            create_kek_file(folder / "kek")
            token = new_token()
            home = Home(url, folder, token[0])
            asyncio.run(_found(home, token))
            self._made[dialect] = home
        return self._made[dialect]


async def _found(home: Home, token: tuple[str, bytes]) -> None:
    db = open_database(home.url)
    try:
        db.write_sync(migrate)
        inst = Installation(
            db=db, keys=home.keys(), pki_url=PKI_URL, external_url="https://localhost:8443", lab=True
        )
        await found(inst, token)
    finally:
        db.close()
    async with opened(home) as made:
        row = await made.inst.db.look(lambda conn: profile_rows.latest(conn, "server"))
        assert row is not None
        server = _profile(row.body)
        for name, binds in ((CAREFUL, "plan"), (NAMED, "names")):
            approval = Approval(required="always", binds="plan" if binds == "plan" else "names")
            await profiles.create(
                made.inst, dataclasses_replace(server, name=name, approval=approval), made.admin
            )


def _profile(body: str) -> Profile:
    import msgspec

    return msgspec.json.decode(body, type=Profile)


def dataclasses_replace(profile: Profile, **changes: Any) -> Profile:
    import msgspec

    return msgspec.structs.replace(profile, **changes)
