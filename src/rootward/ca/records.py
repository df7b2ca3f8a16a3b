"""What was done to a home by hand, beside the server or without one, becomes events: nothing that is done to a key
leaves no trace (I-56).

Whoever does it writes a file into `records/` of the home, before and after. The server takes each of them in, once, and
removes it; what was done while it was stopped comes at its next start. An event's time is when it was taken in;
`done_at` is what the record says.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
import structlog
from sqlalchemy import Connection

from rootward.ca.access import SYSTEM
from rootward.ca.installation import Installation
from rootward.core.problems import Problem
from rootward.core.times import rfc3339
from rootward.keys import disk
from rootward.store import events, facts
from rootward.store.failpoint import failpoint
from rootward.store.ids import new_id
from rootward.store.rows import Rows

log = structlog.get_logger()

FOLDER: Final = "records"
_LARGEST: Final = 64 * 1024
_TAKEN: Final = "record:"  # with its id: the fact that it is an event, while its file may be there still


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One deed: `kind` is an event's, `key` the SHA-256 of the public key, `file` the backup's name; `user` is who did
    it, by this machine's name.
    """

    format: Literal["rootward-record"] = "rootward-record"
    version: Literal[1] = 1
    id: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{1,64}\Z")]
    kind: Literal["key.backup-begun", "key.backed-up", "key.restore-begun", "key.restored"]
    authority: Annotated[str, msgspec.Meta(max_length=64)]
    at: datetime
    user: Annotated[str, msgspec.Meta(max_length=64)]
    key: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
    file: Annotated[str, msgspec.Meta(max_length=255)]


def keep(home: Path, kind: str, authority: str, *, key: str, file: str, user: str, at: datetime) -> None:
    """Write a record, durably. Problem RW-HOME where it cannot be written: then nothing is to be done."""
    folder = home / FOLDER
    who = {"id": new_id(), "kind": kind, "authority": authority, "at": at, "user": user[:64]}
    made = msgspec.convert(who | {"key": key, "file": file[:255]}, Record)
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        # Names in the order of time: what was begun becomes an event before what was done.
        disk.write_new(folder / f"{at:%Y%m%dT%H%M%S%f}-{made.id}.json", msgspec.json.encode(made), mode=0o600)
        disk.flush_folder(home)
    except OSError as error:
        detail = f"{disk.quoted(folder)} cannot be written: {error.strerror}. Nothing was done."
        raise Problem("RW-HOME", detail) from error


async def take_in(inst: Installation, home: Path) -> None:
    """Let every record be an event; a local job of this home's server. Problem RW-HOME for a file that is none."""
    for path in sorted((home / FOLDER).glob("*.json")):
        try:
            record = msgspec.json.decode(disk.read(path, code="RW-HOME", limit=_LARGEST), type=Record)
        except msgspec.DecodeError as error:
            detail = f"{disk.quoted(path)} is no record: {error}. Find out who put it there, and take it away."
            raise Problem("RW-HOME", detail) from error
        await _take_in(inst, record)
        failpoint("record.stored")
        path.unlink()
        disk.flush_folder(path.parent)
        await inst.db.write(facts.forget(_TAKEN + record.id))


async def _take_in(inst: Installation, record: Record) -> None:
    now = inst.clock()

    def write(conn: Connection) -> None:
        if facts.get(conn, _TAKEN + record.id) is None:
            facts.put_once(_TAKEN + record.id, at=now).run(conn)
            _event(record, now).run(conn)

    await inst.db.write(write)
    log.warning(record.kind, authority=record.authority, user=record.user)


def _event(record: Record, now: datetime) -> Rows:
    # Spelled out: no kind comes out of a file.
    begun = "key.backup-begun" if record.kind == "key.backup-begun" else "key.restore-begun"
    done = "key.backed-up" if record.kind == "key.backed-up" else "key.restored"
    return events.record(
        begun if record.kind.endswith("-begun") else done,
        actor=SYSTEM,
        authority=record.authority,
        request_id="system:records",
        data={"key": record.key, "file": record.file, "user": record.user, "done_at": rfc3339(record.at)},
        at=now,
    )
