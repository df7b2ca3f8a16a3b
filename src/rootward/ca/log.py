"""The audit log of an installation: its key, its origin, and the newest head, kept where the database is not.

The log's key is an Ed25519 key of its own (I-38). Its public half stands in the store (the fact `log.key`) and in
`log/key` of the home; `log/checkpoint` has the newest head that this host has seen. Both are there so that a store that
went back, was cut off or was exchanged is found: at start the store is held against them, and what does not fit halts
issuing (`RW-LOG-BEHIND`) until somebody says to go on (I-61, I-63). Revocation, CRLs and OCSP go on.

A host has both files or none. It begins with a head of no events, signed and in its file before `key` is there, so a
`key` without a checkpoint is never a start that was cut off: somebody took the checkpoint away. Only a host with
neither takes the store's word, once; on SQLite, which has one host, only for a log that has no leaf yet.

Going on begins another generation: the same leaves under another origin (`…/2`), because no two inconsistent heads
may ever be signed under one (C2SP tlog-checkpoint).
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import structlog
from sqlalchemy import Connection

from rootward.ca.access import SYSTEM
from rootward.ca.installation import Installation
from rootward.ca.sign import WrongSignature, sign
from rootward.core.ledger import (
    MOST_NOTE,
    BadNote,
    Frontier,
    Head,
    Verifier,
    draft_head,
    finish_head,
    leaf_hash,
    parse_head,
    parse_verifier,
    verifier_of,
)
from rootward.core.problems import Problem
from rootward.core.pubkey import KeyAlgorithm
from rootward.keys import Key, NotSigned, SignatureUnknown
from rootward.keys.disk import replace
from rootward.store import events, facts, heads

log = structlog.get_logger()
LABEL = "log"  # of the key in the backend
FACT = "log.key"
SAID = "log.head"  # the fact: the size of the last head that is an event itself
HALT = "log"
LOOKED_AT = 1000  # how many of the last events are held against the tree by their content, at start
_GO_ON = "If that is right, as after a restore, run: rootward doctor --accept-log"


@dataclass
class Log:
    """The log, open. `seen` is the tree of the newest head that this process has proven to grow from what this host
    saw before; `kept` the head in its file.
    """

    key: Key
    verifier: Verifier
    folder: Path | None
    seen: Frontier
    kept: Head | None = None


class Told(NamedTuple):
    """What the files of this host say: the log's key, and the newest head. None where there is no such file."""

    verifier: Verifier | None
    head: Head | None


# ── Files ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def told(folder: Path | None) -> Told:
    """Read `key` and `checkpoint` in the home's folder `log`. BadNote where they cannot be read or do not fit."""
    if folder is None:
        return Told(None, None)
    key, note = _text(folder / "key"), _text(folder / "checkpoint")
    verifier = None if key is None else parse_verifier(key)
    head = None if note is None else parse_head(note)
    if head is not None:
        if verifier is None and head.size == 0:
            return Told(None, None)  # a first start that was cut off between the two: nothing was seen yet
        if verifier is None:
            raise BadNote(f"{folder} has a checkpoint and no key")
        head.check(verifier)
    return Told(verifier, head)


def _text(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            data = file.read(MOST_NOTE + 1)
        return data.decode()
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        raise BadNote(f"{path} is no text") from error


def begin_files(folder: Path, verifier: Verifier, key: Key) -> Head:
    """The two files of a host that has seen nothing of this log yet: its key, and a head of no events. The checkpoint
    first: a key without one is never what a crash leaves.

    Raises what `sign` raises.
    """
    draft = draft_head(verifier, Frontier())
    note = finish_head(draft, sign(key, verifier.public, draft))
    folder.mkdir(mode=0o700, exist_ok=True)
    replace(folder / "checkpoint", note.encode(), mode=0o644)
    replace(folder / "key", f"{verifier.text}\n".encode(), mode=0o644)
    return parse_head(note)


def keep(opened: Log, note: str) -> None:
    """Put a head that `seen` has proven into the file; never a smaller one in the place of a larger one."""
    head = parse_head(note)
    if opened.folder is not None:
        there = _text(opened.folder / "checkpoint")  # another process of this home may have been faster
        if there is None or parse_head(there).size < head.size:
            replace(opened.folder / "checkpoint", note.encode(), mode=0o644)
    opened.kept = head


# ── Opening ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def open_log(inst: Installation, folder: Path | None = None) -> None:
    """Open the log, or begin it where there is none; `folder` is the home's `log`. What is wrong goes into
    `inst.process.halted`: the installation then serves, and issues nothing.
    """
    inst.log = None
    inst.process.halted.pop(HALT, None)
    try:
        inst.log = await _opened(inst, folder)
    except BadNote as error:
        _halt(inst, f"The audit log's files cannot be believed: {error}.")
    except (NotSigned, SignatureUnknown, WrongSignature) as error:
        _halt(inst, f"The audit log's key does not sign: {error}.")
    except Problem as problem:
        if problem.code == "RW-STORE":
            raise
        _halt(inst, problem.detail)


def _halt(inst: Installation, detail: str) -> None:
    log.error("log.behind", why=detail)
    inst.process.halted[HALT] = Problem("RW-LOG-BEHIND", f"{detail} {_GO_ON}", retry_after=60)


def halt(inst: Installation, detail: str) -> None:
    """Nothing is issued and no head is signed from now on, until the log was opened anew."""
    inst.log = None
    _halt(inst, detail)


async def _opened(inst: Installation, folder: Path | None) -> Log:
    here = told(folder)
    fact, grown = await inst.db.read(lambda conn: (facts.get(conn, FACT), _grown(conn)))
    if fact is None:
        if here.head is not None:
            raise _behind(f"The store has no audit log, but this host saw one of {here.head.size} events.")
        if here.verifier is not None:
            raise _behind(f"The store has no audit log, but this host knows {here.verifier.name}.")
        if grown:
            raise _behind("The store's events have their places in an audit log, but its key is gone from the store.")
        verifier = await _begin(inst)
    else:
        verifier = parse_verifier(fact.data)
        if here.verifier is None:
            if folder is not None and inst.db.dialect == "sqlite" and grown:
                raise _behind(f"The files of the audit log are gone from {folder}.")
        elif here.verifier != verifier:
            raise _behind(f"The store's audit log is {verifier.name}, with another key or name than this host knows.")
        elif here.head is None:
            raise _behind(f"The newest head that this host saw is gone from {folder}.")
    # The store first: a restored home has no key of the log yet, and that its store is behind is what matters.
    seen = await inst.db.read(lambda conn: _checked(conn, verifier, here.head))
    key = inst.keys.load(LABEL, verifier.public.id)
    head = here.head
    if folder is not None and head is None:
        head = begin_files(folder, verifier, key)
        log.warning(
            "log.first_seen", log=verifier.name, folder=str(folder)
        )  # in the store's word: nothing to hold it to
    return Log(key, verifier, folder, seen, head)


def _grown(conn: Connection) -> bool:
    """Whether an event ever got its place, as far as the store says."""
    return events.tree_size(conn) > 0 or heads.newest(conn) is not None


async def _begin(inst: Installation) -> Verifier:
    """The log's key and first origin, in a store that has none. Always a new key: one that is there already may have
    signed heads of a store that is gone, and its origin would say other things now. A start that is cut off here
    leaves a key that signed nothing.
    """
    key = inst.keys.generate(LABEL, KeyAlgorithm.ED25519)
    host = urlsplit(inst.external_url).netloc or "rootward"
    verifier = verifier_of(f"{host}/log/{key.public.id[:16]}/1", key.public)
    await inst.db.write(facts.put_once(FACT, at=inst.clock(), data=verifier.text))
    fact = await inst.db.read(lambda conn: facts.get(conn, FACT))
    if fact is not None and fact.data != verifier.text:  # another replica was first: its key is the log's
        inst.keys.delete(LABEL, key.public.id)
        verifier = parse_verifier(fact.data)
    return verifier


def _behind(detail: str) -> Problem:
    return Problem("RW-LOG-BEHIND", detail)


def _checked(conn: Connection, verifier: Verifier, head: Head | None) -> Frontier:
    """The tree that this host saw last, once the store has been found to go on from it, its newest head to be right,
    and the last events to be those that are in it. No work in proportion to the log, unless this host is far behind.
    """
    newest = heads.newest(conn)
    size = 0 if newest is None else newest.size
    if events.tree_size(conn) != size:
        raise _behind(f"The last events of the audit log are not those of its newest head, which has {size}.")
    if newest is not None:
        _check_newest(conn, newest, verifier)
    if head is None:
        return Frontier()
    if size < head.size:
        raise _behind(f"The store's audit log has {size} events, but this host saw {head.size}.")
    row = heads.by_size(conn, head.size)
    try:
        tree = Frontier().extended(events.leaf_hashes(conn, 0, head.size)) if row is None else row.tree()
    except ValueError as error:
        raise _behind(f"A head of the audit log is wrong: {error}.") from error
    if (tree.size, tree.root) != (head.size, head.root):
        raise _behind(f"The first {head.size} events of the audit log are not those that this host saw.")
    return tree


def _check_newest(conn: Connection, newest: heads.Head, verifier: Verifier) -> None:
    try:
        tree = newest.tree()
        if newest.note is not None:
            signed = parse_head(newest.note)
            signed.check(verifier)
            if (signed.size, signed.root) != (newest.size, newest.root):
                raise BadNote("the newest head's note is about another tree")
        # From a head that is far enough back, or from nothing. A log that went on begins with the hashes as they were
        # accepted: an event that is not its hash's stays a finding of the audit, and halts nothing for ever.
        again = _generation(verifier) > 1
        before = heads.not_above(conn, newest.size - LOOKED_AT) if again or newest.size > LOOKED_AT else None
        if before is not None and before.size == newest.size:
            return  # the only one that is kept
        start = Frontier() if before is None else before.tree()
        last = events.by_leaf(conn, start.size, newest.size - start.size)
        grown = start.extended(leaf_hash(events.leaf_of(event)) for event in last)
    except ValueError as error:
        raise _behind(f"The newest head of the audit log is wrong: {error}.") from error
    if grown != tree:
        raise _behind("The last events of the audit log are not those that were taken into it.")


# ── Growing ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def prove(inst: Installation, opened: Log, size: int, root: bytes) -> bool:
    """Whether the store's tree of `size` leaves and that root grew from the one that this process saw last; if so, it
    is what was seen. If not, everything halts: the store was changed under us, or went back.
    """
    before = opened.seen
    if size < before.size:
        halt(inst, f"The store's audit log has {size} events, but this host saw {before.size}.")
        return False
    tree = before
    if size > before.size:
        tree = await inst.db.read(lambda conn: before.extended(events.leaf_hashes(conn, before.size, size)))
    if (tree.size, tree.root) != (size, root):
        halt(inst, f"The audit log of {size} events does not go on from the {before.size} that this host saw.")
        return False
    if size > opened.seen.size:
        opened.seen = tree
    return True


async def keep_head(inst: Installation, *_: object) -> None:
    """Keep the newest signed head in this host's file. A job of every process; cheap where nothing is new."""
    opened = inst.log
    if opened is None:
        return
    newest, fact = await inst.db.look(lambda conn: (heads.newest_signed(conn), facts.get(conn, FACT)))
    if fact is None or fact.data != opened.verifier.text:
        halt(inst, "The store's audit log has another key or name than this host knows.")
        return
    if newest is None or newest.note is None:
        if opened.kept is not None and opened.kept.size:
            halt(inst, f"The store has no signed head, but this host saw {opened.kept.size} events.")
        return
    if opened.kept is not None and (newest.size, newest.root) == (opened.kept.size, opened.kept.root):
        return
    try:
        parse_head(newest.note).check(opened.verifier)
    except BadNote as error:
        halt(inst, f"The newest head of the audit log is wrong: {error}.")
        return
    if opened.kept is not None and newest.size < opened.kept.size:
        halt(inst, f"The store's newest signed head has {newest.size} events, but this host saw {opened.kept.size}.")
        return
    if newest.size < opened.seen.size:
        return  # what this process is signing just now is newer
    if await prove(inst, opened, newest.size, newest.root):
        keep(opened, newest.note)


# ── Going on ──────────────────────────────────────────────────────────────────────────────────────────────────────


def go_on(conn: Connection, *, verifier: Verifier, why: str, was: Head | None, at: datetime) -> Verifier:
    """Begin another generation of the log from the events that the store has, under `verifier`'s key and the next
    origin, with an event that names what is missing: `was` is the newest head that somebody saw, None where nobody
    knows. Gives the new verifier, for this host's files.

    In the caller's transaction, with nothing else running on the store. Problem RW-LOG-BEHIND where events are missing
    in between: then no tree can be made of what is there.
    """
    size = events.tree_size(conn)
    tree = Frontier().extended(events.leaf_hashes(conn, 0, size))
    if tree.size != size:
        raise _behind(f"The event with leaf {tree.size} is missing or has no hash, so no log can go on. Use a backup.")
    # The key's own id is in the name: whoever goes on from the same state with another key is another log.
    log, _, generation = verifier.name.rsplit("/", 2)
    following = verifier.named(f"{log}/{verifier.public.id[:16]}/{int(generation) + 1}")
    heads.forget(conn)
    if size:
        last = events.by_leaf(conn, size - 1, 1)[0]
        heads.grow(tree, was=0, at=last.at).run(conn)
    (facts.put(FACT, at=at, data=following.text) + facts.put(SAID, at=at, data="0")).run(conn)
    events.record(
        "log.accepted",
        actor=SYSTEM,
        request_id="system:log",
        at=at,
        data={
            "why": why,
            "was": None if was is None else {"origin": was.origin, "size": was.size, "root": was.root.hex()},
            "is": {"origin": following.name, "size": size, "root": tree.root.hex()},
        },
    ).run(conn)
    return following


async def accept(inst: Installation, folder: Path | None, *, why: str) -> Verifier:
    """Go on from the store as it is, on this host; `rootward doctor --accept-log`. Nothing else may have it open."""
    try:
        here = told(folder)
    except BadNote:
        here = Told(None, None)
    fact = await inst.db.read(lambda conn: facts.get(conn, FACT))
    known = here.verifier if fact is None else parse_verifier(fact.data)
    if known is None:
        known = await _begin(inst)
        key = inst.keys.load(LABEL, known.public.id)
    else:
        if here.verifier is not None and _generation(here.verifier) > _generation(known):
            known = known.named(here.verifier.name)  # a store of an older generation never takes a name again
        if here.verifier is not None and (LABEL, known.public.id) in inst.keys.list():
            key = inst.keys.load(LABEL, known.public.id)
        else:  # nobody knows which names the old key has signed under
            key = inst.keys.generate(LABEL, KeyAlgorithm.ED25519)
            known = verifier_of(known.name, key.public)
    head = here.head
    following = await inst.db.write(lambda conn: go_on(conn, verifier=known, why=why, was=head, at=inst.clock()))
    if folder is not None:
        begin_files(folder, following, key)
    return following


def _generation(verifier: Verifier) -> int:
    number = verifier.name.rpartition("/")[2]
    return int(number) if number.isdecimal() else 0
