"""From an empty home to an installation, on its own machine and without a server: its first authority is asked for, and
the result of the ceremony founds it. Or a single-tier lab is made at once. Later all this is the server's to do.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from cryptography import x509

from rootward import home as homes
from rootward import telemetry
from rootward.ca import adopt as adopting
from rootward.ca import authorities, results, single
from rootward.ca.access import new_token
from rootward.ca.adopt import Adopted, Arriving
from rootward.ca.founding import FOUNDED, FOUNDER, Beginning
from rootward.ca.installation import Installation
from rootward.config import FILE_NAME
from rootward.core.hierarchy import AuthoritySpec
from rootward.core.problems import Problem
from rootward.store import facts
from rootward.store.authorities import Pending
from rootward.store.paperwork import Asked, Held

T = TypeVar("T")


def is_unfounded(home: Path) -> bool:
    """Whether this home has no installation yet, as far as its files tell: `root.pem` comes with it."""
    return (home / FILE_NAME).exists() and not (home / "root.pem").exists()


def create(home: Path, spec: AuthoritySpec, parent: str | None, store: str) -> tuple[Pending, Asked]:
    """Ask for the first issuing authority of a home, of a root or policy CA that the ceremony will make, or of
    somebody else's CA (None).
    """

    async def act(inst: Installation) -> tuple[Pending, Asked]:
        await authorities.create(inst, spec, parent, store, FOUNDER)
        return await authorities.request(inst, spec.name)

    return _with(home, act)


def request(home: Path, name: str) -> tuple[Pending, Asked]:
    """What was asked for, again."""
    return _with(home, lambda inst: authorities.request(inst, name))


def withdraw(home: Path, name: str) -> None:
    """Give it up."""
    _with(home, lambda inst: authorities.withdraw(inst, name, FOUNDER))


def found(home: Path, data: bytes, domains: tuple[str, ...]) -> Held:
    """Found the installation by the result file of its first ceremony; leaves `root.pem` and `admin.token`."""

    async def act(inst: Installation) -> Held:
        token, digest = new_token()
        homes.write_token(home, token)  # before it counts: a run that is cut off is done again, with another one
        held = await results.import_result(inst, data, FOUNDER, beginning=Beginning(digest, domains))
        homes.keep_roots(inst, home)
        return held

    return _with(home, act)


def install(home: Path, name: str, chain: bytes, parents: list[str], domains: tuple[str, ...]) -> list[str]:
    """Found the installation by the certificate that somebody else's CA made; leaves `root.pem` and `admin.token`."""

    async def act(inst: Installation) -> list[str]:
        token, digest = new_token()
        homes.write_token(home, token)
        beginning = Beginning(digest, domains)
        made = await authorities.install(inst, name, chain, parents, FOUNDER, beginning=beginning)
        homes.keep_roots(inst, home)
        return made

    return _with(home, act)


def found_single_tier(home: Path, store: str, domains: tuple[str, ...]) -> x509.Certificate:
    """Make a single-tier lab of an empty home; its root's certificate."""
    config = homes.read_config(home, os.environ)

    async def act(inst: Installation) -> x509.Certificate:
        token, digest = new_token()
        homes.write_token(home, token)
        made = await single.found(inst, store=store, organization=config.org, domains=domains, token_hash=digest)
        homes.keep_roots(inst, home)
        return made

    return _with(home, act)


def adopt(home: Path, arriving: Arriving, domains: tuple[str, ...]) -> Adopted:
    """Take a CA in that was elsewhere before; an empty home is founded by one that issues. On SQLite its server must be
    stopped.
    """
    config = homes.read_config(home, os.environ)
    telemetry.configure_logging(config.log.format, "warning")
    db = homes.open_store(config)
    try:
        founded = db.read_sync(lambda conn: facts.get(conn, FOUNDED)) is not None
        inst = homes.installation(config, db, os.environ)
        beginning = None
        if not founded and (arriving.key is not None or arriving.store is not None):
            token, digest = new_token()
            homes.write_token(home, token)
            beginning = Beginning(digest, domains)

        async def run() -> Adopted:
            await inst.load_authorities()
            done = await adopting.adopt(inst, arriving, FOUNDER, beginning=beginning)
            if founded or beginning is not None:
                homes.keep_roots(inst, home)
            return done

        return asyncio.run(run())
    finally:
        db.close()


def _with(home: Path, act: Callable[[Installation], Awaitable[T]]) -> T:
    """Do it in the open home. Problem RW-CONFLICT where its installation is founded: then its server does it."""
    config = homes.read_config(home, os.environ)
    telemetry.configure_logging(config.log.format, "warning")
    db = homes.open_store(config)
    try:
        if db.read_sync(lambda conn: facts.get(conn, FOUNDED)) is not None:
            raise Problem("RW-CONFLICT", f"The installation of {home} is founded: its server does this.")
        inst = homes.installation(config, db, os.environ)

        async def run() -> T:
            await inst.load_authorities()
            return await act(inst)

        return asyncio.run(run())
    finally:
        db.close()
