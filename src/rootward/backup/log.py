"""The audit log of a restored installation: it is never the one that was backed up (I-63).

Two installations may run from one history from now on, and a backup may be restored more than once; so the restored one
never signs with the key that the original has. Its log goes on from the leaves that the backup has, under a new key and
the next origin, with an event that says so.

A head that was seen outside (`log/checkpoint` of the old host) tells how much is missing. Where it is ahead of the
backup, or of another history, it is put into the restored home: the server then finds its store behind it, and issues
nothing until `rootward doctor --accept-log` says to go on, which begins the new log then.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from sqlalchemy import Connection

from rootward.ca.log import FACT, LABEL, begin_files, go_on
from rootward.core.ledger import BadNote, Frontier, Head, parse_head, parse_verifier, verifier_of
from rootward.core.problems import Problem
from rootward.core.pubkey import KeyAlgorithm
from rootward.keys import Backend, disk
from rootward.store import events, facts

_NAME: Final = re.compile(r"(?P<log>.+)/(?P<key>[0-9a-f]{16})/(?P<generation>[1-9][0-9]{0,9})")


@dataclass(frozen=True)
class Went:
    """How the log goes on. `missing` is how many events the head given has that the backup has not, None without a
    head; `halted` that nothing is issued until somebody accepts that.
    """

    missing: int | None
    halted: bool
    head: Head | None


def begin(conn: Connection, *, keys: Backend, folder: Path, note: str | None, at: datetime) -> Went:
    """Let the restored log go on, in the transaction of the restore; `folder` is the restored home's `log`, `note` the
    head that was seen outside.

    Problem RW-FIELD for a note that is no head of this log, RW-LOG-BEHIND where the backup's log has a hole.
    """
    fact = facts.get(conn, FACT)
    head = None if note is None else _head(note, fact)
    for label, key_id in keys.list():
        if label == LABEL:
            keys.delete(label, key_id)
    for name in ("key", "checkpoint"):
        (folder / name).unlink(missing_ok=True)
    if fact is None:
        return Went(None, halted=False, head=None)  # made before there was a log: the first start begins one
    verifier = parse_verifier(fact.data)
    size = events.tree_size(conn)
    missing = None if head is None else max(0, head.size - _total(conn))
    halted = head is not None and (head.size > size or not _grew_from(conn, head))
    folder.mkdir(mode=0o700, exist_ok=True)
    if halted and head is not None and note is not None:
        disk.replace(folder / "key", f"{verifier.named(head.origin).text}\n".encode(), mode=0o644)
        disk.replace(folder / "checkpoint", note.encode(), mode=0o644)
    else:
        key = keys.generate(LABEL, KeyAlgorithm.ED25519)
        fresh = verifier_of(verifier.name, key.public)
        begin_files(folder, go_on(conn, verifier=fresh, why="restored from a backup", was=head, at=at), key)
    return Went(missing, halted, head)


def _head(note: str, fact: facts.Fact | None) -> Head:
    """The head, which the backup's log key must have signed, under the backup's origin or that of a later
    generation.
    """
    if fact is None:
        raise Problem("RW-FIELD", "The backup has no audit log that the head could be of.", field="--head")
    verifier = parse_verifier(fact.data)
    try:
        head = parse_head(note)
        head.check(verifier.named(head.origin) if _same_log(verifier.name, head.origin) else verifier)
    except BadNote as error:
        raise Problem("RW-FIELD", f"The head is none of the backup's audit log: {error}.", field="--head") from error
    return head


def _same_log(name: str, origin: str) -> bool:
    ours, theirs = _NAME.fullmatch(name), _NAME.fullmatch(origin)
    if ours is None or theirs is None:
        return False
    return ours["log"] == theirs["log"] and int(theirs["generation"]) >= int(ours["generation"])


def _grew_from(conn: Connection, head: Head) -> bool:
    return Frontier().extended(events.leaf_hashes(conn, 0, head.size)).root == head.root


def _total(conn: Connection) -> int:
    return int(conn.exec_driver_sql("SELECT count(*) FROM events").scalar_one())
