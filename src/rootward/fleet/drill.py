"""A rehearsal of what would follow if an authority's key were in other hands: the very code, on a shadow.

The shadow is a store of its own in a temporary folder, filled from one moment of the real one with what the code reads:
authorities, profiles, people, and the certificates of that authority. Its keys are made for it and thrown away; where
there is nothing that could follow, one is made up there. Nothing live changes but for one event: that a drill was held
is evidence that somebody will ask for.
"""

from __future__ import annotations

import asyncio
import dataclasses
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import Connection, Table, insert, select

from rootward.ca import compromise, ending, proposals
from rootward.ca.access import Caller, Principal, require_officer
from rootward.ca.installation import Authority, Installation
from rootward.ca.sign import sign
from rootward.ca.succession import longest_of
from rootward.core.ari import window
from rootward.core.authority import AuthoritySpec
from rootward.core.capture import assemble
from rootward.core.hierarchy import plan_authority
from rootward.core.issuer import Issuer
from rootward.core.pubkey import KeyAlgorithm
from rootward.core.roles import Grant, Role
from rootward.core.waves import wave
from rootward.core.words import count
from rootward.keys import BACKENDS, KeySettings
from rootward.store import authorities, events, people, succession
from rootward.store.db import Database, open_database
from rootward.store.failpoint import failpoint
from rootward.store.ids import new_id
from rootward.store.migrations import migrate
from rootward.store.schema import metadata

STAND_IN: Final = "drill-successor"
# In this order: what refers to others comes after them.
_COPIED: Final = (
    *("authorities", "issuers", "profiles", "principals", "grants", "tokens", "facts", "blocked_keys", "crls"),
    *("offline_requests", "ceremonies", "watermark"),
)
_BATCH: Final = 500


@dataclass(frozen=True)
class Step:
    """One step: what was done, in how many seconds, and what came of it."""

    name: str
    seconds: float
    detail: str


@dataclass(frozen=True)
class Drill:
    """What would happen. `waves` are (from when on, how many certificates), `owners` (who or None, how many);
    `missing` is what stands in the way, in sentences. `stand_in`: the successor was made up.
    """

    authority: str
    successor: str
    stand_in: bool
    certificates: int
    waves_until: datetime
    steps: tuple[Step, ...]
    waves: tuple[tuple[datetime, int], ...]
    owners: tuple[tuple[str | None, int], ...]
    missing: tuple[str, ...]


@dataclass
class _Watch:
    """The steps so far."""

    steps: list[Step] = field(default_factory=list)

    @contextmanager
    def step(self, name: str) -> Iterator[list[str]]:
        """Times what is done in the block; the first text in the list is what came of it."""
        said: list[str] = []
        began = time.monotonic()
        yield said
        self.steps.append(Step(name, round(time.monotonic() - began, 3), said[0] if said else ""))


async def rehearse(inst: Installation, name: str, successor: str | None, waves: str | None, caller: Caller) -> Drill:
    """Rehearse for `name`. Problems: RW-NOT-FOUND, RW-FORBIDDEN, RW-FIELD, and what a real proposal would be refused
    for.
    """
    old = inst.authority(name)
    require_officer(caller.principal, old.name)
    longest_of(waves)
    watch = _Watch()
    with tempfile.TemporaryDirectory(prefix="rootward-drill-") as folder:
        with watch.step("copy") as said:
            db = await asyncio.to_thread(_copy, inst, old, f"sqlite:///{folder}/shadow.db")
            said.append("the store, as it was at one moment, into a shadow")
        try:
            made = await _in_shadow(inst, db, old, successor, waves, caller, watch)
        finally:
            await asyncio.to_thread(db.close)
    held = events.record(
        "drill.held",
        actor=caller.principal.id,
        authority=old.name,
        request_id=caller.request_id,
        at=inst.clock(),
        data={
            "successor": None if made.stand_in else made.successor,
            "certificates": made.certificates,
            "missing": list(made.missing),
        },
    )
    await inst.db.write(held)
    failpoint("drill.stored")
    return made


async def _in_shadow(
    inst: Installation,
    db: Database,
    old: Authority,
    successor: str | None,
    waves: str | None,
    caller: Caller,
    watch: _Watch,
) -> Drill:
    missing = await _missing(inst, old, successor, caller)
    shadow = _shadow(inst, db)
    chosen = successor
    if chosen is None:
        with watch.step("successor") as said:
            chosen = await _make_successor(shadow, old)
            said.append("none is named: one is made up")
    with watch.step("propose") as said:
        proposal = await compromise.propose(shadow, old.name, chosen, "a drill", waves, caller)
        said.append("by whoever finds it out")
    with watch.step("agree and carry out") as said:
        second = await _second_person(shadow, (old.name, chosen))
        await compromise.carry_out(shadow, await proposals.agree(shadow, proposal.id, "a drill", second), second)
        said.append("one transaction: it stops, profiles and roles go over, its key is blocked, owners are told")
    now = shadow.clock()
    with watch.step("renewal windows") as said:
        until, starts = await db.read(lambda conn: _windows(conn, old, now))
        found, waiting = count(sum(starts.values()), "certificate"), count(max(len(starts), 1), "wave")
        said.append(f"{found} in {waiting}; nothing is written for them")
    holdings = await db.read(lambda conn: succession.holdings(conn, old.name, now))
    owners = sorted(((one.owner, one.certificates) for one in holdings), key=lambda pair: (-pair[1], pair[0] or ""))
    return Drill(
        authority=old.name,
        successor=chosen,
        stand_in=successor is None,
        certificates=sum(count for _, count in owners),
        waves_until=until,
        steps=tuple(watch.steps),
        waves=tuple(sorted(starts.items())),
        owners=tuple(owners),
        missing=tuple(missing),
    )


def _copy(inst: Installation, old: Authority, url: str) -> Database:
    """What the code reads, from one moment."""
    db = open_database(url)
    try:
        db.write_sync(migrate)
        with inst.db.snapshot() as source:
            for name in _COPIED:
                _rows(source, db, metadata.tables[name])
            table = metadata.tables["certificates"]
            _rows(source, db, table, table.c.authority == old.name)
            _rows(source, db, table, (table.c.key_id == old.issuer.key_id) & (table.c.authority != old.name))
    except BaseException:
        db.close()
        raise
    return db


def _rows(source: Connection, db: Database, table: Table, *where: Any) -> None:
    """Rows of a table into the shadow's, a few hundred at a time."""
    found = source.execution_options(yield_per=_BATCH).execute(select(*table.columns).where(*where))

    def empty(conn: Connection) -> None:
        conn.execute(table.delete())

    if not where:
        db.write_sync(empty)
    for part in found.mappings().partitions(_BATCH):
        rows = [dict(row) for row in part]

        def put(conn: Connection, rows: list[dict[str, Any]] = rows) -> None:
            conn.exec_driver_sql("PRAGMA defer_foreign_keys=ON")  # an authority may be older than its parent
            conn.execute(insert(table), rows)

        db.write_sync(put)


def _shadow(inst: Installation, db: Database) -> Installation:
    """An installation over the shadow's store, whose authorities have keys that were made for it."""
    keys = BACKENDS["memory"](KeySettings())
    stand_in = keys.generate("drill", KeyAlgorithm.P256)
    known = {
        name: dataclasses.replace(one, key=None if one.key is None else stand_in)
        for name, one in inst.authorities.items()
    }
    return Installation(
        db=db,
        keys=keys,
        pki_url=inst.pki_url,
        external_url=inst.external_url,
        hosts=inst.hosts,
        lab=inst.lab,
        clock=inst.clock,
        authorities=known,
    )


async def _make_successor(shadow: Installation, old: Authority) -> str:
    """An issuing authority of the shadow's alone, under a root that was made for it too."""
    at = shadow.clock()
    root_key = shadow.keys.generate("drill-root", KeyAlgorithm.P256)
    key = shadow.keys.generate(STAND_IN, KeyAlgorithm.P256)
    above = AuthoritySpec(name="drill-root", kind="root", common_name="Drill Root", lifetime="1y", path_length=1)
    below = AuthoritySpec(name=STAND_IN, kind="issuing", common_name="Drill", lifetime="364d")
    plan = plan_authority(above, root_key.public, None)
    draft = plan.draft(shadow.new_serial(), at)
    root = x509.load_der_x509_certificate(assemble(draft.tbs, draft.algorithm, sign(root_key, plan.signer, draft)))
    issuer = Issuer("drill-root", root, (root,), shadow.pki_url, online=False)
    plan = plan_authority(below, key.public, issuer)
    draft = plan.draft(shadow.new_serial(), at)
    made = x509.load_der_x509_certificate(assemble(draft.tbs, draft.algorithm, sign(root_key, plan.signer, draft)))
    rows = authorities.add(STAND_IN, "issuing", parent=None, settings="{}", at=at)
    rows += authorities.add_issuer(
        STAND_IN, key_id=key.public.id, certificate=made.public_bytes(Encoding.DER), backend="memory", at=at
    )
    await shadow.db.write(rows)
    n = (await shadow.db.read(lambda conn: authorities.list_issuers(conn, STAND_IN)))[-1].n
    shadow.authorities[STAND_IN] = dataclasses.replace(
        old,
        name=STAND_IN,
        issuer=Issuer(STAND_IN, made, (made, root), shadow.pki_url, online=True),
        n=n,
        key=key,
        frozen_at=None,
        retired_at=None,
        successor=None,
        compromised_at=None,
        created_at=at,
    )
    return STAND_IN


async def _second_person(shadow: Installation, about: tuple[str, str]) -> Caller:
    """Whoever would agree: somebody who is in the shadow alone."""
    id, at = new_id(), shadow.clock()
    rows = people.add_principal(id, kind="person", name=f"drill:{id}", at=at)
    for name in about:
        rows += people.add_grant(new_id(), principal=id, role=Role.APPROVER.value, authority=name, at=at)
    await shadow.db.write(rows)
    grants = tuple(Grant(Role.APPROVER, name) for name in about)
    return Caller(Principal(id, "person", "drill", grants), "system:drill")


def _windows(conn: Connection, old: Authority, now: datetime) -> tuple[datetime, Counter[datetime]]:
    """When the waves end, and how many certificates are told to be renewed from when on."""
    row = authorities.by_name(conn, old.name)
    until = now if row is None or row.waves_until is None else row.waves_until
    table = metadata.tables["certificates"]
    found: Counter[datetime] = Counter()
    query = select(table.c.sha256, table.c.not_before, table.c.not_after).where(succession.living(old.name, now))
    for sha256, begin, end in conn.execute(query):
        seed = bytes.fromhex(sha256)
        moved = wave(now, until, seed=seed, normal=window(begin, end, load=0, seed=seed))
        found[now if moved is None else moved.start] += 1
    return until, found


def _grant(row: people.Grant) -> Grant:
    return Grant(Role(row.role), row.authority, row.profile)


async def _missing(inst: Installation, old: Authority, successor: str | None, caller: Caller) -> list[str]:
    """What stands in the way of doing it for real, as things are."""
    found = []
    if successor is None:
        active = [
            one.name
            for one in inst.authorities.values()
            if one.kind == old.kind and one.state == "active" and one.name != old.name
        ]
        found.append(
            f"No successor is named; {', '.join(active)} could be: --successor."
            if active
            else "There is no other issuing authority: one must be made in a ceremony first, and nothing is issued "
            "meanwhile."
        )

    def others(conn: Connection) -> bool:
        held = people.holders(conn, Role.APPROVER.value) - {caller.principal.id}
        about = {old.name} if successor is None else {old.name, successor}
        return any(
            all(any(one.covers(Role.APPROVER, name, None) for one in grants) for name in about)
            for grants in ([_grant(row) for row in people.grants_of(conn, id)] for id in held)
        )

    if not await inst.db.read(others):
        found.append("There is no second person who could agree: give somebody else the role approver.")
    parent = ending.parent_of(inst, old)
    if parent is not None and parent.settings.external:
        found.append(f"{parent.name} is somebody else's: ask them to revoke the certificate of {old.name}.")
    elif parent is not None and parent.key is None:
        found.append(
            f"The certificate of {old.name} is on the CRL of {parent.name} only after a ceremony; the request for it "
            "is made at once."
        )
    return found
