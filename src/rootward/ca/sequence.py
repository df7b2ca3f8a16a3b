"""The sequencer: gives events their place in the audit tree, within a second of their commit (I-57).

It takes events without a leaf, never "ids above the last one": on PostgreSQL ids appear out of order. Events, their
hashes and the head that they lead to are one transaction with the lease's fence in it. A head is committed first and
signed afterwards, and only after this process has proven that it grew from what it saw before: so no two inconsistent
heads are ever signed, whoever is killed, paused or put back in between.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta

from sqlalchemy import Connection

from rootward.ca.access import SYSTEM
from rootward.ca.installation import Installation
from rootward.ca.log import FACT, SAID, Log, halt, prove
from rootward.ca.sign import sign_soon
from rootward.core.ledger import Frontier, draft_head, finish_head, leaf_hash
from rootward.core.problems import Problem
from rootward.store import events, facts, heads
from rootward.store.errors import Lost, Taken
from rootward.store.failpoint import failpoint
from rootward.store.rows import UNFENCED, Rows

MOST = 1000  # events of one transaction
ROUNDS = 1000  # transactions of one run
HEAD_EVERY = timedelta(hours=1)


async def sequence(inst: Installation, fence: Rows = UNFENCED) -> int:
    """Take every event that waits into the tree and sign its head. Gives how many there were.

    Lost or Taken where somebody else appended at the same moment: then that one did the work.
    """
    taken = 0
    for _ in range(ROUNDS):
        if inst.log is None:
            return taken
        await sign_newest(inst, inst.log, fence)
        count = await _append(inst, fence)
        if count == 0:
            break
        taken += count or 0
    if taken and inst.log is not None and await _note_due(inst):
        await note_head(inst, fence)
    return taken


async def keep_up(inst: Installation, fence: Rows = UNFENCED) -> None:
    """`sequence`, as the job does it every second: where an export or a stop appended at the same moment, that one did
    the work; where the lease is somebody else's by now, that one does it.
    """
    with suppress(Lost, Taken):
        await sequence(inst, fence)


async def _append(inst: Installation, fence: Rows) -> int | None:
    """Append up to MOST events; how many. None where the newest head is not signed: every head is, before another
    grows from it.
    """

    def look(conn: Connection) -> tuple[heads.Head | None, tuple[events.Event, ...]]:
        return heads.newest(conn), events.unsequenced(conn, MOST)

    newest, waiting = await inst.db.read(look)
    if newest is not None and newest.note is None:
        return None
    if not waiting or inst.log is None:
        return 0
    try:
        before = Frontier() if newest is None else newest.tree()
    except ValueError as error:
        halt(inst, f"The newest head of the audit log is wrong: {error}.")
        return 0
    hashes = [leaf_hash(events.leaf_of(event)) for event in waiting]
    tree = before.extended(hashes)
    failpoint("sequence.taken")
    numbers, at = [event.n for event in waiting], waiting[-1].at

    def write(conn: Connection) -> None:
        fence.run(conn)
        events.place(conn, numbers, hashes, first=before.size)
        heads.grow(tree, was=before.size, at=at).run(conn)

    await inst.db.write(write)
    failpoint("sequence.appended")
    return len(waiting)


async def sign_newest(inst: Installation, opened: Log, fence: Rows = UNFENCED) -> None:
    """Sign the newest head, unless it has its note. Halts where it does not go on from what this process saw."""
    newest, fact = await inst.db.look(lambda conn: (heads.newest(conn), facts.get(conn, FACT)))
    if newest is None or newest.note is not None:
        return
    if fact is None or fact.data != opened.verifier.text:
        halt(inst, "The store's audit log has another key or name than this host knows.")
        return
    if not await prove(inst, opened, newest.size, newest.root):
        return
    draft = draft_head(opened.verifier, newest.tree())
    signature = await sign_soon(opened.key, opened.verifier.public, draft)
    failpoint("sequence.signed")
    await inst.db.write(fence + heads.sign(newest.size, finish_head(draft, signature)))
    failpoint("sequence.published")


async def _note_due(inst: Installation) -> bool:
    """Whether the log should say its own head again: an hour after the last time."""
    last = await inst.db.look(lambda conn: facts.get(conn, SAID))
    return last is None or abs(inst.clock() - last.at) >= HEAD_EVERY


async def note_head(inst: Installation, fence: Rows = UNFENCED) -> None:
    """Put the newest signed head into the log itself, unless nothing but the last such event came since."""
    now = inst.clock()

    def write(conn: Connection) -> None:
        newest, last = heads.newest_signed(conn), facts.get(conn, SAID)
        if newest is None or (last is not None and newest.size <= int(last.data) + 1):
            return
        fence.run(conn)
        facts.put(SAID, at=now, data=str(newest.size)).run(conn)
        events.record(
            "log.head",
            actor=SYSTEM,
            request_id="system:log",
            at=now,
            data={"size": newest.size, "root": newest.root.hex()},
        ).run(conn)

    await inst.db.write(write)


async def settle(inst: Installation, tries: int = 10) -> None:
    """Sequence now, without a lease, beside whoever else does: for an export, and at a graceful stop. What waits when
    it begins has its place in a signed head when it returns; Problem RW-UNAVAILABLE where others are always faster.
    """
    for _ in range(tries):
        with suppress(Lost, Taken):
            await sequence(inst)
            return
    raise Problem("RW-UNAVAILABLE", "Others are adding to the audit log all the time; ask again.", retry_after=1)
