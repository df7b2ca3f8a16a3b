"""The process: what the kernel is told about it, what is loaded, and how long it serves."""

from __future__ import annotations

import asyncio
import hashlib
import signal
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import structlog
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from rootward import kernel
from rootward.core.problems import Problem
from rootward.keys import Backend
from rootward.signer import door, home
from rootward.signer.desk import Desk
from rootward.signer.journal import Entry, Full, Journal
from rootward.signer.settings import Settings, read_settings

log = structlog.get_logger()
LOOK_SECONDS: Final = 1.0  # how soon an accepted profile is signed under


def run(folder: Path, environ: Mapping[str, str], announce: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT. Problems RW-HOME, RW-CONFIG, RW-KEK, RW-KEY-*."""
    kernel.keep_to_itself()
    weak = kernel.stay_in_memory()
    settings = read_settings(folder)
    if weak:
        announce(weak)
    store = home.open_store(settings, environ)
    journal = Journal(folder)
    try:
        asyncio.run(_serve(settings, store, journal, announce))
    finally:
        journal.close()


async def _serve(settings: Settings, store: Backend, journal: Journal, announce: Callable[[str], None]) -> None:
    stamp = home.stamp(settings.home)
    home.check_tables(settings)
    desk = Desk(home.load(settings, store), journal)
    desk.count()
    await _write_pinned(settings, journal)
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    with door.listening(settings) as listening:
        announce(f"ready: {settings.socket}")
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(door.Door(settings, desk).serve(listening)),
                group.create_task(_watch(settings, store, journal, desk, stamp)),
            ]
            await ended.wait()
            for task in tasks:
                task.cancel()


async def _watch(settings: Settings, store: Backend, journal: Journal, desk: Desk, stamp: object) -> None:
    """Take what the commands on this host changed. What cannot be read leaves everything as it was, is said, and is
    tried again: a profile that is accepted no more must not go on because something else was amiss at that moment.
    """
    why = ""
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        try:
            now = home.stamp(settings.home)
            if now == stamp:
                continue
            desk.held = await asyncio.to_thread(home.load, settings, store, desk.held)
            await _write_pinned(settings, journal)
        except (Problem, Full) as error:
            if str(error) != why:
                why = str(error)
                log.error("signer.pinned", why=why)
            continue
        stamp, why = now, ""
        log.info("signer.pinned", keys=len(desk.held))


async def _write_pinned(settings: Settings, journal: Journal) -> None:
    """A line in the journal for each profile, certificate and serial to let go of that was not pinned so before, and
    for each that is pinned no more.
    """
    at = datetime.now(UTC)
    found = {}
    for one in home.accepted(settings.home):
        entry = Entry("pinned", at, "", one.profile.name, why=f"version {one.version}, SHA-256 {one.sha256}")
        found[one.profile.name] = f"{one.version} {one.sha256}", entry
    for held in home.authorities(settings.home):
        if held.chain:
            content = hashlib.sha256("\n".join((held.pki_url, *held.chain)).encode()).hexdigest()
            print_ = x509.load_pem_x509_certificate(held.chain[0].encode()).fingerprint(hashes.SHA256()).hex()
            why = f"certificate with the SHA-256 {print_}, pki_url {held.pki_url}"
            found[f"authority:{held.name}"] = content, Entry("installed", at, held.key_id, held.name, why=why)
        for serial in held.let_go:
            why = f"may be missing from CRLs of {held.name}"
            found[f"let-go:{held.name}:{serial}"] = "", Entry("let-go", at, held.key_id, serial, why=why)
    await journal.pin(found, at)
