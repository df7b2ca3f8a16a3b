"""`rootward key rewrap`: another key-encryption key (KEK) for a home, on the server's own machine.

The command makes the new KEK the current one. A server that runs does the rest by itself, within seconds; where none
does, the command does it. The old KEK is destroyed when nothing is sealed with it any more.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rootward.cli import screen
from rootward.cli.connection import home_of
from rootward.cli.failure import USAGE, WAITING, Failure
from rootward.cli.options import Session, offline
from rootward.core.words import count

if TYPE_CHECKING:
    from rootward.config import Config
    from rootward.keys.ring import Change

_TURN_SECONDS = 0.2


@offline
def rewrap(
    session: Session,
    prepare: Annotated[
        bool,
        typer.Option(
            "--prepare", help="Only make the next one, kek.next, to copy it to the homes of all other hosts first."
        ),
    ] = False,
    wait: Annotated[
        int, typer.Option("--wait", min=0, help="Seconds to wait for the server that seals what it holds.")
    ] = 60,
) -> None:
    """Change the key that all key files and stored secrets are sealed with, while the server runs or not. One that was
    cut off is gone on with.
    """
    from rootward import home as homes
    from rootward.keys import disk, ring

    config = homes.read_config(home_of(session.flags), os.environ)
    path = homes.kek_file(config)
    if path is None:
        raise Failure(
            f"The key-encryption key comes from {screen.safe(config.kek.source)}, which Rootward does not change.",
            "Make the new one kek.source and the old one kek.previous in rootward.toml, and restart the server: it "
            "seals everything anew. rootward doctor says when kek.previous can go.",
            exit=USAGE,
        )
    if prepare:
        _tell(session, {"state": "prepared", "new": ring.prepare(path).id, "file": f"{path}{ring.NEXT}"})
        return
    with disk.claim(config.home) as mine:
        change = homes.begin_kek_change(path) if mine else ring.change_of(path)
    if change is None:
        raise Failure("Another process changes this key at this moment.", "Run the same command again.")
    done = _here(config)
    asyncio.run(_until_over(path, wait))
    _end(session, config, path, change, done)


async def _until_over(path: Path, seconds: int) -> None:
    """Until the server's job, or another command, has come to the end of the change."""
    from rootward.keys import ring

    for _ in range(int(seconds / _TURN_SECONDS)):
        if ring.change_of(path) is None:
            return
        await asyncio.sleep(_TURN_SECONDS)


def _here(config: Config) -> int | None:
    """Do it in this process; None where a server has the database: it does."""
    from rootward import home as homes
    from rootward import telemetry
    from rootward.core.problems import Problem

    telemetry.configure_logging(config.log.format, config.log.level)  # to standard error
    try:
        db = homes.open_store(config)
    except Problem as problem:
        if problem.code != "RW-HOME":
            raise
        return None
    try:
        done = asyncio.run(homes.change_kek(homes.installation(config, db, os.environ), config, os.environ))
        return None if done is None else done.stored
    finally:
        db.close()


def _end(session: Session, config: Config, path: Path, change: Change, stored: int | None) -> None:
    from rootward.keys import key_files, ring
    from rootward.keys.file import sealed_otherwise

    over, folder = ring.change_of(path) is None, config.home / "keys"
    left = [] if over else sealed_otherwise(folder, kek=change.new)
    body = {
        "state": "done" if over else "waiting",
        "old": change.old.id,
        "new": change.new.id,
        "files": len(key_files(folder)),
        "stored": stored,
        "left": left,
    }
    _tell(session, body)
    if not over:
        raise typer.Exit(WAITING)


def _tell(session: Session, body: dict[str, Any]) -> None:
    if session.json:
        screen.write_json(screen.encode(body))
    elif body["state"] == "prepared":
        screen.say(
            f"The next key-encryption key is {body['new']}, in {screen.safe(body['file'])}. Nothing uses it yet."
        )
    elif body["state"] == "done":
        screen.say(
            f"Everything is sealed with {body['new']} now: {count(body['files'], 'key file')}, and what the database "
            f"keeps. {body['old']} is destroyed here."
        )
        screen.note("Make a new backup. Backups from before need the old one, which is in them.")
    else:
        files = f" Key files that are left: {', '.join(map(screen.safe, body['left']))}." if body["left"] else ""
        screen.note(
            f"The new key-encryption key is {body['new']}, and something is still sealed with {body['old']}.{files} "
            "The server goes on with it. rootward doctor says what is wrong; run the same command again."
        )
