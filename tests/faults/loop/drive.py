"""Who kills: servers are started, killed at a named place or at a random moment with work under way, and started again
on the same home, while the clients go on. On SQLite there is one server, on PostgreSQL two replicas, each killed in its
own rhythm.

Everything random comes from the seed, which a failure names; what the operating system does in between does not.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from rootward.ca import people
from rootward.ca.access import Caller, authenticate
from rootward.config import load_config, write_config
from rootward.core.roles import Role
from rootward.store.failpoint import NAMES
from tests.faults import oracle
from tests.faults.loop.calls import CALLS
from tests.faults.loop.clients import Client
from tests.faults.loop.evidence import serials as serials_of
from tests.faults.loop.slot import READY_SECONDS, Slot
from tests.faults.loop.wire import OCSP_REQUEST, Town, Wire, ocsp_request
from tests.support.faults import AUTHORITY, Founder, Home, opened, over, plain
from tests.support.proofs import Proofs

CLIENTS = 8
PATIENCE = 10.0  # how long a trap may take to be stepped into
TRIES = 12
LAST_TRIES = 20  # of a question that found the store too slow
TRY_LATER = bytes.fromhex("30030a0103")  # an OCSP response that says only that (RFC 6960 4.2.1)
REFUSES = 40
STORE_SECONDS = 300.0  # at most: it ends once every call has failed in both ways
UNLUCKY_SECONDS = 8.0
BOTH = {"fail", "fail_persisted"}
# Killed here, a process leaves something that only another one takes up: a call of its own.
LEFT_BEHIND = "acme.claimed"
# Not on the clients' ways: scenes of their own are in test_named.py and test_authorities.py, and in test_backup.py and
# test_keylife.py of tests/contract.
# What people do on the server's machine, or seldom.
OTHERS = ("backup.", "restore.", "authority.", "ceremony.", "kek.", "key.destroy")
DECIDED = ("propose", "agree", "disagree", "record", "retire", "succeed", "succession", "compromise", "drill", "ended")
ELSEWHERE = frozenset({"freeze.held", "freeze.stored", "approve.failed-stored", "token.renewal-stored"}) | {
    name for name in NAMES if name.startswith(OTHERS) or name.split(".")[0] in DECIDED
}
PLACES = sorted((NAMES - ELSEWHERE) | {"key.asked", "key.answered"})
FAVOURED = {
    "issue": "keyed",
    "park": "named",
    "approve": "approved",
    "deny": "approved",
    "revoke": "revoked",
    "revoke-many": "revoked_by_serial",
    "release": "held",
    "once": "revoked",
    "token": "token",
    "grant": "grant",
    "ocsp": "status",
    "crl": "revoked",
    "acme": "ordered",
    "acme.refused": "agreed",
}
RANDOM = "a random moment"
# Places that many requests pass: which one is hit differs.
OFTEN = ("issue.", "http.", "store.", "key.", "ocsp.", "revoke.")


@dataclass
class Tally:
    """What was done at one place."""

    kills: int = 0
    orphans: int = 0
    missed: int = 0


@dataclass
class Outcome:
    """An episode's."""

    seed: int
    tally: dict[str, Tally]
    store: dict[str, set[str]]
    findings: list[oracle.Finding]
    counts: Counter[str]
    seconds: float

    @property
    def kills(self) -> int:
        """All of them."""
        return sum(one.kills for one in self.tally.values())

    def table(self) -> str:
        """For people."""
        rows = [f"{'place':28} kills orphans missed"]
        rows += [f"{name:28} {one.kills:5} {one.orphans:7} {one.missed:6}" for name, one in sorted(self.tally.items())]
        orphans = sum(one.orphans for one in self.tally.values())
        rows.append(f"{'all':28} {self.kills:5} {orphans:7}")
        rows += [f"{call:60} {' '.join(sorted(modes))}" for call, modes in sorted(self.store.items())]
        rows.append(", ".join(f"{name} {count}" for name, count in sorted(self.counts.items())))
        rows += [f"FINDING {finding}" for finding in self.findings]
        rows.append(f"seed {self.seed}: {self.kills} kills, {len(self.findings)} findings, {self.seconds:.0f} s")
        return "\n".join(rows)


@dataclass
class Episode:
    """One home (two on PostgreSQL), from founding to judgement."""

    url: str
    slots: list[Slot]
    town: Town
    record: Path
    seed: int
    say: Callable[[str], None] = field(default=lambda _text: None)

    def __post_init__(self) -> None:
        self._tally: dict[str, Tally] = {}
        self._trouble: list[str] = []
        self._lock = threading.Lock()

    def run(self, blows: list[str], *, store_seconds: float = 0, calm_bytes: int = 0) -> Outcome:
        """Carry out the blows (places, "" for a random moment), then let every store call fail, then let the clients
        work in peace until the keys have signed so much, then judge.
        """
        began = time.monotonic()
        clients = [Client(self.town, number, self.seed * 100 + number) for number in range(CLIENTS)]
        for client in clients:
            client.start()
        shares = [blows[number :: len(self.slots)] for number in range(len(self.slots))]
        self._together(lambda slot: self._strike(slot, shares[slot.number]))
        if store_seconds:
            self._together(lambda slot: self._unlucky(slot, store_seconds))
        self._together(lambda slot: self._calm(slot, calm_bytes))
        self.town.stopping.set()
        for client in clients:
            client.join(READY_SECONDS)
            if client.is_alive():
                self._trouble.append(f"{client.name} does not end")
        self._together(Slot.stop)
        self._last_look()
        findings = [oracle.Finding("stuck", text) for text in [*self.town.stuck, *self._trouble]]
        found, counts = oracle.check(self.record, self.url, self.town.issuer)
        return Outcome(self.seed, self._tally, self._store(), findings + found, counts, time.monotonic() - began)

    def _together(self, work: Callable[[Slot], None]) -> None:
        def safe(slot: Slot) -> None:
            try:
                work(slot)
            except Exception as error:  # noqa: BLE001  # a thread's failure is the episode's
                self._trouble.append(f"slot {slot.number}: {type(error).__name__}: {error}")

        threads = [threading.Thread(target=safe, args=(slot,)) for slot in self.slots]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _strike(self, slot: Slot, blows: list[str]) -> None:
        rng = random.Random(self.seed + slot.number)
        for at, place in enumerate(blows):
            closes = place.startswith("reconcile.")
            for attempt in range(TRIES):
                if closes:  # there has to be something, and the other replica may close it before
                    self._one(slot, "issue.signed", 1, rng)
                count = 1 if attempt or not place.startswith(OFTEN) else rng.randint(1, 8)
                if self._one(slot, place, count, rng):
                    break
            if at % 20 == 19:
                self.say(f"slot {slot.number}: {at + 1} of {len(blows)} blows")

    def _one(self, slot: Slot, place: str, count: int, rng: random.Random) -> bool:
        """One process, from its start to its death; whether it died where it should."""
        traps = f"{place}:kill:{count}" if place else ""
        self.town.favoured = FAVOURED.get(place, FAVOURED.get(place.partition(".")[0], ""))
        renews = place.startswith("own.") or rng.random() < 0.1
        ready = slot.boot(rng.randrange(1 << 30), traps=traps, refuses=REFUSES, renews=renews)
        hit = bool(place)
        if ready and place:
            if slot.end(PATIENCE) is None:
                hit = False
                slot.kill()
        elif ready:
            self._wait_for_work(slot, rng)
            slot.kill()
            hit = True
        code = slot.end(READY_SECONDS)
        if code != -signal.SIGKILL:
            self._trouble.append(f"at {place or RANDOM} the server ended with {code}: {slot.log()}")
        with self._lock:
            # On SQLite the next start finds what this one left open.
            self._count(slot.struck).orphans += slot.orphans if self.url.startswith("sqlite") else 0
            slot.struck = (place if hit else "") or RANDOM
            self._count(slot.struck).kills += 1
            self._count(slot.struck).orphans += self._lapse(slot)
            self._count(place or RANDOM).missed += not hit
        return hit

    def _count(self, place: str) -> Tally:
        return self._tally.setdefault(place, Tally())

    def _wait_for_work(self, slot: Slot, rng: random.Random) -> None:
        """Until some more was signed, and a moment more: then intents are open."""
        target = slot.signed() + rng.randint(2_000, 40_000)
        deadline = time.monotonic() + PATIENCE
        while slot.signed() < target and time.monotonic() < deadline and slot.alive():
            time.sleep(0.001)
        time.sleep(rng.random() * 0.01)

    def _lapse(self, slot: Slot) -> int:
        """Let the leases of the dead process run out, as time would; how many intents it left open. On SQLite the lock
        file says it at once, and the next start counts them.
        """
        if self.url.startswith("sqlite") or not slot.lease:
            return 0
        over(self.url)
        with psycopg.connect(plain(self.url)) as conn:
            found = conn.execute(
                "UPDATE certificates SET lease_until = 0 "
                "WHERE lease = %s AND issued_at IS NULL AND failed_at IS NULL AND orphaned_at IS NULL",
                [slot.lease],
            )
            conn.execute("UPDATE jobs SET lease_until = 0 WHERE lease = %s", [slot.lease])
            conn.execute("UPDATE acme_authorizations SET lease_until = 0 WHERE lease = %s", [slot.lease])
            return found.rowcount

    def _unlucky(self, slot: Slot, seconds: float) -> None:
        """Every call of the store fails once without an effect and once with one. A start that this ends is repeated
        with the next call; the last process is killed, and every second one may be where it leaves something behind.
        """
        rng = random.Random(self.seed + slot.number)
        deadline = time.monotonic() + seconds
        traps = ""
        while time.monotonic() < deadline and not self._all_failed():
            ready = slot.boot(rng.randrange(1 << 30), traps=traps, refuses=10, renews=True, unlucky=True)
            until = time.monotonic() + UNLUCKY_SECONDS
            while ready and slot.alive() and time.monotonic() < until and not self._all_failed():
                self.town.favoured = rng.choice(["", "ordered", *FAVOURED.values()])
                time.sleep(0.1)
            traps = "" if traps else f"{LEFT_BEHIND}:kill:3"
            slot.kill()
            slot.end(READY_SECONDS)
            self._lapse(slot)

    def _all_failed(self) -> bool:
        found = self._store()
        return all(found.get(call) == BOTH for call in calls_of(self.url))

    def _store(self) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for path in self.record.glob("store-*"):
            for line in path.read_text().splitlines():
                call, _, mode = line.partition(" ")
                found.setdefault(call, set()).add(mode)
        return found

    def _calm(self, slot: Slot, size: int) -> None:
        self.town.favoured = ""
        self._ready(slot)
        deadline = time.monotonic() + 5 * READY_SECONDS
        while slot.signed() < size and time.monotonic() < deadline:
            time.sleep(0.02)

    def _ready(self, slot: Slot) -> None:
        assert slot.boot(self.seed), f"no start: {slot.log()}"

    def _last_look(self) -> None:
        """After a clean start: the CRL from each replica in turn, and the status of every serial. A start may itself
        issue, for its own use.
        """
        self._together(self._ready)
        serials = serials_of(self.url)
        wire = Wire(self.town, "last")
        for number in range(len(self.slots)):
            wire.close()
            wire.replica = number
            wire.ask("GET", "/crl/issuing.crl", door="http")
        for serial in serials:
            request = ocsp_request(self.town.issuer, serial)
            for _ in range(LAST_TRIES):
                reply = wire.ask("POST", "/ocsp/issuing", request, door="http", kind=OCSP_REQUEST)
                if reply is None or reply.body != TRY_LATER:
                    break
                time.sleep(0.2)
        wire.close()
        self._together(Slot.stop)


def plan(seed: int, random_moments: int, rounds: int = 1) -> list[str]:
    """Every place `rounds` times and as many random moments as told, in an order of the seed's."""
    rng = random.Random(seed)
    blows = PLACES * rounds + [""] * random_moments
    rng.shuffle(blows)
    return blows


def check(founder: Founder, dialect: str, folder: Path, *, seed: int) -> None:
    """What `make test` plays on each store: every place once, as many random moments, every call of the store failing
    in both ways; a hundred kills at least, and nothing is found.
    """
    with founder.home(dialect, folder) as home, episode(home, folder, seed) as going:
        outcome = going.run(plan(seed, len(PLACES)), store_seconds=STORE_SECONDS)
    told = outcome.table()
    assert outcome.findings == [], told
    assert {place for place in PLACES if not outcome.tally[place].kills} == set(), told
    assert outcome.kills >= 2 * len(PLACES) >= 100, told
    assert {call for call in calls_of(home.url) if outcome.store.get(call) != BOTH} == set(), told


def calls_of(url: str) -> set[str]:
    """The calls of the store that an episode gets to; on PostgreSQL nobody breaks leases."""
    return CALLS - (set() if url.startswith("sqlite") else {"rootward/worker.py:break_leases"})


@contextmanager
def episode(home: Home, folder: Path, seed: int) -> Iterator[Episode]:
    """An episode on a founded home; on PostgreSQL a second home with the same keys is made."""
    record = folder / f"record-{seed}"
    record.mkdir()
    folders = [home.folder]
    if not home.url.startswith("sqlite"):
        other = folder / f"other-{seed}"
        other.mkdir(mode=0o700)
        shutil.copy(home.folder / "kek", other / "kek")
        os.symlink(home.folder / "keys", other / "keys")  # as replicas share them
        folders.append(other)
    slots = [Slot(where, record, number) for number, where in enumerate(folders)]
    url = f"https://localhost:{slots[0].doors['https']}"  # what clients call all of them
    with Proofs() as proofs:
        for slot in slots:
            flags: dict[str, object] = {f"listen.{door}": f"127.0.0.1:{port}" for door, port in slot.doors.items()}
            flags |= {"database.url": home.url, "lab": True, "log.level": "error", "external_url": url}
            flags |= proofs.ports.settings
            write_config(slot.folder / "rootward.toml", load_config(slot.folder, {}, flags))
        tokens, authorities = asyncio.run(_people(home))
        (record / "root.pem").write_bytes(authorities["root"].public_bytes(Encoding.PEM))
        doors = [slot.doors for slot in slots]
        town = Town(record, record / "root.pem", authorities[AUTHORITY], tokens, doors, url, proofs)
        try:
            yield Episode(home.url, slots, town, record, seed)
        finally:
            for slot in slots:
                if slot.alive():
                    slot.kill()
                    slot.end(READY_SECONDS)


async def _people(home: Home) -> tuple[dict[str, str], dict[str, x509.Certificate]]:
    """The tokens of two people who have ones of their own, so that nobody approves alone; the authorities'
    certificates.
    """
    tokens = {"admin": home.token}
    async with opened(home, serving=False) as made:
        inst = made.inst
        for name, roles in {"requester": (Role.REQUESTER, Role.OFFICER), "approver": (Role.APPROVER,)}.items():
            person = await people.create_person(inst, name, made.admin)
            for role in roles:
                await people.create_grant(
                    inst, principal_id=person.id, role=role, authority=AUTHORITY, profile=None, caller=made.admin
                )
            how: dict[str, Any] = {"principal_id": person.id, "label": name, "scopes": None}
            _, invitation = await people.create_token(inst, lifetime=timedelta(days=1), caller=made.admin, **how)
            mine = Caller(await authenticate(inst, invitation), "req_people")
            _, tokens[name] = await people.create_token(inst, lifetime=timedelta(days=1), caller=mine, **how)
        return tokens, {name: inst.authority(name).issuer.certificate for name in ("root", AUTHORITY)}
