"""A home directory: what is in it, and opening the installation that it holds.

rootward.toml  rootward.db  reserve  kek  kek.old  kek.next (both while it is changed)  keys/  root.pem  admin.token
log/ (key and newest head of the audit log)  records/ (what was done to keys by hand, and is no event yet)
ceremony/ (public)  offline-root/ (never opened here)
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

import structlog
from sqlalchemy import Connection

from rootward import config as settings
from rootward.ca import clock, rewrap, room
from rootward.ca import log as logs
from rootward.ca.access import SYSTEM, new_token, token_hash
from rootward.ca.founding import ADMIN, ADMIN_TOKEN_LIFETIME
from rootward.ca.installation import Installation
from rootward.ca.process import KekChange
from rootward.ca.rewrap import Rewrapped
from rootward.ca.sequence import settle
from rootward.config import Config, load_config
from rootward.core.issuer import Issuer
from rootward.core.ledger import BadNote, Verifier
from rootward.core.problems import Problem
from rootward.egress import Egress, make_rules
from rootward.fleet.auditor import Finding, Report, verify_store
from rootward.keys import (
    BACKENDS,
    Backend,
    Kek,
    KeySettings,
    Ring,
    Sealer,
    create_kek_file,
    kek_from_credential,
    kek_from_file,
    ring,
)
from rootward.keys.disk import claim, replace
from rootward.keys.pin import pin_file, pin_prompt
from rootward.protocols.acme.challenges import Ways
from rootward.store import events, paperwork, people
from rootward.store.db import Database, open_database
from rootward.store.failpoint import failpoint
from rootward.store.ids import new_id
from rootward.store.migrations import check_schema, migrate
from rootward.store.snapshot import snapshot

log = structlog.get_logger()
BACKEND = "file"
LOG = "log"
RENEW_TOKEN = timedelta(days=30)
OLD_TOKEN = timedelta(hours=24)


def make_home(config: Config) -> None:
    """The folder (0700), its settings and its key-encryption key; what is there already stays."""
    home = config.home
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    if config.kek.source == "file:kek" and not (home / "kek").exists():
        if any((home / "keys").glob("*.key")):
            raise Problem("RW-KEK", f"{home} has keys, but the file kek that opens them is gone; put it back.")
        create_kek_file(home / "kek")
    if not (home / settings.FILE_NAME).exists():
        settings.write_config(home / settings.FILE_NAME, config)


def open_backend(config: Config, environ: Mapping[str, str]) -> Backend:
    """The backend of the home's online keys."""
    return _backend(config, open_kek(config, environ))


def _backend(config: Config, kek: Kek) -> Backend:
    return BACKENDS[BACKEND](KeySettings(folder=config.home / "keys", kek=kek))


def open_stores(config: Config, environ: Mapping[str, str]) -> dict[str, Backend]:
    """The key stores of `[keys.NAME]`, by name."""
    opened: dict[str, Backend] = {}
    for name, store in config.keys.items():
        where = KeySettings(store=name, uri=store.uri, pin=_pin(store, config, environ), endpoint=store.endpoint)
        opened[name] = BACKENDS[store.backend](where)
    return opened


def _pin(store: settings.KeyStore, config: Config, environ: Mapping[str, str]) -> Callable[[], bytes] | None:
    if store.pin == "":
        return None
    if store.pin == "prompt":
        return pin_prompt()
    return pin_file(settings.secret_path(store.pin, config.home, environ))


def open_kek(config: Config, environ: Mapping[str, str]) -> Kek:
    """The home's key-encryption key, with those of a change that goes on. Problem RW-KEK."""
    return Ring(lambda: _keks(config, environ))


def _keks(config: Config, environ: Mapping[str, str]) -> list[Kek]:
    """The current KEK, then those that may still open something."""
    kind, _, rest = config.kek.source.partition(":")
    found = [kek_from_credential(rest, environ)] if kind == "credential" else ring.beside(config.home / rest)
    return [*found, *([_one(config.kek.previous, config, environ)] if config.kek.previous else [])]


def _one(source: str, config: Config, environ: Mapping[str, str]) -> Kek:
    kind, _, rest = source.partition(":")
    return kek_from_credential(rest, environ) if kind == "credential" else kek_from_file(config.home / rest)


def kek_file(config: Config) -> Path | None:
    """The file that Rootward itself may change; None where somebody else gives the KEK, and the one before."""
    kind, _, rest = config.kek.source.partition(":")
    return config.home / rest if kind == "file" and not config.kek.previous else None


def kek_change(config: Config, environ: Mapping[str, str]) -> ring.Change | None:
    """The change of the KEK that goes on; None where none does. Problem RW-KEK."""
    if config.kek.previous:
        old, new = _one(config.kek.previous, config, environ), _one(config.kek.source, config, environ)
        return None if old.id == new.id else ring.Change(old, new)
    path = kek_file(config)
    return None if path is None else ring.change_of(path)


def open_store(config: Config) -> Database:
    """The database, with its tables made or brought up to date."""
    db = open_database(config.database.url, home=config.home)
    try:
        db.write_sync(migrate)
        db.read_sync(check_schema)
    except BaseException:
        db.close()
        raise
    return db


def installation(config: Config, db: Database, environ: Mapping[str, str]) -> Installation:
    """The installation over an open store, without its authorities yet."""
    kek = open_kek(config, environ)
    return Installation(
        db=db,
        keys=_backend(config, kek),
        stores=open_stores(config, environ),
        sealer=Sealer(kek),
        pki_url=config.pki_url,
        external_url=config.external_url,
        hosts=config.hosts,
        lab=config.lab,
    )


def ways(config: Config) -> Ways:
    """How this server looks when it validates names. What it listens on, its resolvers and its database are its own:
    nobody has them called.
    """
    rules = make_rules(
        allow=config.egress.allow,
        own=[
            *(settings.address(door) for door in (config.listen.https, config.listen.mtls, config.listen.http)),
            *map(settings.address, config.acme.resolvers),
            *_database(config.database.url),
        ],
        suffixes=config.egress.suffixes,
    )
    resolvers = tuple(map(settings.address, config.acme.resolvers))
    egress = Egress(rules=rules, resolvers=resolvers, localhost=config.lab)
    return Ways(egress, http01_port=config.acme.http01_port, tls_alpn01_port=config.acme.tls_alpn01_port)


def _database(url: str) -> list[tuple[str, int]]:
    """The database's address and port, where its URL has an address (a name may mean another one by then)."""
    parts = urlsplit(url)
    try:
        return [(str(ip_address(parts.hostname or "")), parts.port or 5432)]
    except ValueError:
        return []


def read_config(home: Path, environ: Mapping[str, str], flags: Mapping[str, object] | None = None) -> Config:
    """The settings of a home that must be there."""
    if not (home / settings.FILE_NAME).exists():
        raise Problem(
            "RW-HOME", f"{home} is no home of Rootward: it has no {settings.FILE_NAME}. rootward quickstart makes one."
        )
    return load_config(home, environ, flags or {})


async def open_checked(config: Config, db: Database, environ: Mapping[str, str]) -> Installation:
    """Open for serving: the clock is not behind, every key is its certificate's, the audit log is the one that this
    host saw (I-61).
    """
    inst = installation(config, db, environ)
    await inst.load_authorities()
    await clock.begin_clock(inst)
    room.keep(inst)
    await logs.open_log(inst, config.home / LOG)
    return inst


# The audit log


def verify(
    home: Path, pinned: Verifier | None, report: Report, environ: Mapping[str, str] | None = None
) -> Iterator[Finding]:
    """Every finding about the log and the inventory of a home; a server may have it open. `report` is filled on the
    way. Problems: RW-HOME, RW-STORE, RW-SCHEMA.
    """
    config = read_config(home, os.environ if environ is None else environ)
    try:
        told = logs.told(home / LOG)  # before the snapshot: what this host saw, the store must have
    except BadNote as error:
        told = logs.Told(None, None)
        yield Finding("the log's files", str(error))
    with snapshot(config.database.url, home=config.home) as conn:
        check_schema(conn)
        yield from verify_store(conn, told, pinned, report)


async def accept_log(config: Config, db: Database, environ: Mapping[str, str]) -> None:
    """Go on from the log as the store has it, with the event that names what is missing (I-63)."""
    inst, folder = installation(config, db, environ), config.home / LOG
    await logs.accept(inst, folder, why="rootward doctor --accept-log")
    await logs.open_log(inst, folder)
    await settle(inst)
    await logs.keep_head(inst)


# What those trust who come from this machine


def keep_roots(inst: Installation, home: Path, *more: Issuer) -> bool:
    """`root.pem` has what `/roots.pem` serves, and those of `more`; whether it had something else before. It is never
    emptied. OSError where it cannot be written.
    """
    roots = {issuer.der: issuer.pem() for issuer in (*inst.roots(), *more)}
    wanted, path = "".join(roots.values()).encode(), home / "root.pem"
    if not wanted or (path.exists() and path.read_bytes() == wanted):
        return False
    replace(path, wanted, mode=0o644)
    return True


# What goes to ceremonies


async def lay_out_requests(inst: Installation, home: Path) -> None:
    """The files of all open requests lie in `ceremony/requests/`, ready to be carried away; those that were answered
    or withdrawn do not.
    """
    folder = home / "ceremony" / "requests"
    wanted = {
        f"{one.kind}-{one.subject}-{one.id}.json": one.body for one in await inst.db.read(paperwork.open_requests)
    }
    present = {path.name: path for path in folder.glob("*.json")} if folder.is_dir() else {}
    for name in present.keys() - wanted.keys():
        present[name].unlink(missing_ok=True)
    if wanted:
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    for name in wanted.keys() - present.keys():
        replace(folder / name, wanted[name], mode=0o644)


# The key-encryption key


def begin_kek_change(path: Path) -> ring.Change:
    """Begin to change the KEK in the file `path`, or go on with a change that was begun; for whoever has
    a `claim` to the home. Problem RW-KEK.
    """
    going = ring.change_of(path)
    if going is not None:
        return going
    ring.prepare(path)
    failpoint("kek.prepared")
    ring.link(path)
    failpoint("kek.linked")
    change = ring.take_over(path)
    failpoint("kek.renamed")
    return change


async def change_kek(inst: Installation, config: Config, environ: Mapping[str, str]) -> Rewrapped | None:
    """Go on with a change of the KEK, to its end; None where there is none. A local job does, and so does the command
    where no server runs.
    """
    with claim(config.home) as mine:
        change = kek_change(config, environ) if mine else None
        if change is None:
            if mine:
                inst.process.kek = None
            return None
        inst.process.kek = KekChange(change.old.id, change.new.id, await rewrap.since(inst, change))
        path, folder = kek_file(config), config.home / "keys"
        if path is None:  # the old one is somebody else's to take away
            done = None if await rewrap.is_done(inst, folder, change) else await rewrap.rewrap(inst, folder, change)
            inst.process.kek = dataclasses.replace(inst.process.kek, over=True)
            return done
        done = await rewrap.rewrap(inst, folder, change)
        ring.finish(path, change)
        failpoint("kek.finished")
        inst.process.kek = None
        return done


# The administrator's token


def write_token(home: Path, value: str) -> None:
    """Put a token where the CLI looks for it, in one step, readable by its owner alone."""
    replace(home / "admin.token", f"{value}\n".encode(), mode=0o600)


async def renew_admin_token(inst: Installation, home: Path) -> None:
    """In the last 30 days of the token in the home a new one takes its place; the old one works for 24 hours more."""
    path = home / "admin.token"
    if not path.exists():
        return
    digest, now = token_hash(path.read_text().strip()), inst.clock()
    holder = await inst.db.read(lambda conn: people.by_token(conn, digest, now))
    if holder is None or holder.token.expires_at > now + RENEW_TOKEN:
        return
    value, fresh = new_token()
    principal = holder.principal.id

    def write(conn: Connection) -> None:
        _add_token(conn, inst, principal, fresh, "token.renewed")
        if holder.token.expires_at > now + OLD_TOKEN:
            people.shorten_token(holder.token.id, at=now + OLD_TOKEN).run(conn)

    # The store first: where the file is not written, the old token works for another day, and this is tried again.
    await inst.db.write(write)
    failpoint("token.renewal-stored")
    write_token(home, value)
    log.info("token.renewed", principal=principal)


def recover(home: Path, environ: Mapping[str, str] | None = None) -> Path:
    """A new administrator's token, on the server's own machine; every older one of that person ends. Gives the file.

    On SQLite the server must be stopped: the store is held by one process. Problem RW-HOME says so.
    """
    config = read_config(home, os.environ if environ is None else environ)
    db = open_store(config)
    try:
        inst = installation(config, db, os.environ if environ is None else environ)
        value, fresh = new_token()

        def write(conn: Connection) -> None:
            admin = people.by_name(conn, ADMIN)
            if admin is None:
                raise Problem("RW-HOME", "This installation has no person admin.")
            if admin.disabled_at is not None:
                people.enable(admin.id).run(conn)
            for token in people.list_tokens(conn, principal=admin.id, limit=500):
                people.revoke_token(token.id, at=inst.clock()).run(conn)
            _add_token(conn, inst, admin.id, fresh, "access.recovered")

        db.write_sync(write)
        write_token(home, value)
    finally:
        db.close()
    return home / "admin.token"


def _add_token(conn: Connection, inst: Installation, principal: str, digest: bytes, kind: str) -> None:
    now = inst.clock()
    people.add_token(
        new_id(),
        principal=principal,
        label="admin.token",
        digest=digest,
        at=now,
        expires_at=now + ADMIN_TOKEN_LIFETIME,
    ).run(conn)
    events.record(kind, actor=SYSTEM, request_id="system:token", at=now, data={"principal": principal}).run(conn)
