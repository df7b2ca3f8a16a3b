"""`rootward backup`: an installation as one sealed file, on the server's own machine and without the server."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rootward.cli import screen
from rootward.cli.connection import home_of
from rootward.cli.failure import Failure
from rootward.cli.options import Session, noun, offline
from rootward.core.times import rfc3339
from rootward.core.words import count

if TYPE_CHECKING:
    from rootward.keys import Kek

app = noun("Back up the server's home and its database, and restore them.")

_NOTE = 8192  # characters of a head that are read; none has so many
PassphraseFile = Annotated[
    Path, typer.Option("--passphrase-file", help="A file of mode 0600 with the passphrase, 12 characters or more.")
]
File = Annotated[Path, typer.Argument(metavar="FILE", help="The backup.")]


@app.command("create")
@offline
def create(
    session: Session,
    passphrase_file: PassphraseFile,
    out: Annotated[Path, typer.Option("--out", help="A new file (0600).")],
) -> None:
    """Write a backup of the home, while its server runs or not."""
    from rootward import home as homes
    from rootward.backup.create import create as make

    config = homes.read_config(home_of(session.flags), os.environ)
    passphrase = _passphrase(passphrase_file)
    with _progress("backup", "rows") as progress:
        made = make(config, out, passphrase, progress)
    if session.json:
        screen.write_json(screen.encode({"file": str(out), "size": made.size, **_said(made.head, made.counts)}))
        return
    screen.details([("file", out), ("size", f"{made.size} bytes"), *_lines(made.head, made.counts)])


@app.command("verify")
@offline
def verify(session: Session, file: File, passphrase_file: PassphraseFile) -> None:
    """Check a backup to its end, without writing anything. Exit code 1 where something is wrong."""
    from rootward.backup.verify import verify as check

    passphrase = _passphrase(passphrase_file)
    with _progress("verify", "bytes") as progress:
        found = check(file, passphrase, os.environ, progress)
    if session.json:
        body = {**_said(found.head, found.counts), "findings": found.findings, "notes": found.notes}
        screen.write_json(screen.encode(body))
    else:
        screen.details(_lines(found.head, found.counts))
        for note in found.notes:
            screen.note(note)
        if not found.findings:
            screen.say("The backup is sound: it can be restored with this passphrase.")
    if found.findings:
        raise Failure("The backup does not fit together.", *found.findings)


@app.command("restore")
@offline
def restore(
    session: Session,
    file: File,
    passphrase_file: PassphraseFile,
    database: Annotated[
        str | None,
        typer.Option(
            "--database",
            help="An empty PostgreSQL database's URL, or sqlite for the home's own file; as it was if not given.",
        ),
    ] = None,
    head: Annotated[
        Path | None,
        typer.Option("--head", help="log/checkpoint of the old host, to learn what is missing.", exists=True),
    ] = None,
    crl: Annotated[
        list[Path] | None,
        typer.Option("--crl", help="A CRL of the old server: what it lists stays revoked; repeats.", exists=True),
    ] = None,
) -> None:
    """Put a backup into a new home (--home) and an empty database; all of it or nothing."""
    from rootward.backup.restore import Outside
    from rootward.backup.restore import restore as put_back

    home = home_of(session.flags)
    passphrase = _passphrase(passphrase_file)
    note = None if head is None else head.read_text(encoding="utf-8", errors="replace")[:_NOTE]
    outside = Outside(note, tuple(path.read_bytes() for path in crl or []))
    with _progress("restore", "bytes") as progress:
        done = put_back(
            file, passphrase, home=home, database=database, outside=outside, environ=os.environ, seen=progress
        )
    if session.json:
        body = {
            "home": str(home),
            **_said(done.head, done.counts),
            "findings": done.findings,
            "notes": done.notes,
            "changed": done.changed,
            "missing": done.went.missing,
            "halted": done.went.halted,
            "recalled": sum(one.revoked for one in done.recalled),
        }
        screen.write_json(screen.encode(body))
        return
    screen.details([("home", home), *_lines(done.head, done.counts), ("changed settings", done.changed)])
    for line in [*done.findings, *done.notes, *_missing(done)]:
        screen.note(line)
    screen.say(next_steps(screen.safe(home), halted=done.went.halted))


def _passphrase(file: Path) -> Kek:
    from rootward.keys import kek_from_passphrase_file

    return kek_from_passphrase_file(file, code="RW-BACKUP-PASSPHRASE")


def next_steps(home: str, *, halted: bool) -> str:
    """What to type after a restore, in its order."""
    steps = [f"rootward access recover --home {home}", f"rootward serve --home {home}"]
    if halted:
        accept = f"rootward doctor --accept-log --home {home} (once you know what is missing; before it is served)"
        steps.insert(1, accept)
    return f"Next: {', then '.join(steps)}."


def _missing(done: Any) -> Iterator[str]:
    """What the head that was given says is not in the backup."""
    since = rfc3339(datetime.fromtimestamp(done.head.at, UTC))
    if done.went.missing:
        yield f"Missing: {count(done.went.missing, 'event')} logged after {since}."
    for one in done.recalled:
        yield (
            f"CRL {one.number} of {one.authority}: {count(one.revoked, 'certificate')} revoked anew, {one.unknown} of "
            "them known by their serials alone."
        )
    if done.went.halted:
        yield (
            "The head given is ahead of the backup, or of another history: nothing is issued until "
            "rootward doctor --accept-log says to go on. Revocation, CRLs and OCSP work."
        )


def _said(head: Any, counts: Any) -> dict[str, object]:
    return {
        "at": rfc3339(datetime.fromtimestamp(head.at, UTC)),
        "instance": head.instance,
        "schema": head.schema,
        "program": head.program,
        "store": head.dialect,
        "tree_size": head.leaves,
        "tables": counts.tables,
        "files": counts.files,
    }


def _lines(head: Any, counts: Any) -> Iterator[tuple[str, object]]:
    said = _said(head, counts)
    for name in ("at", "instance", "schema", "program", "store"):
        yield name, said[name]
    yield "rows", sum(counts.tables.values())
    for name in ("certificates", "events", "crls"):
        yield name, counts.tables.get(name)
    yield "files", len(counts.files)


@contextmanager
def _progress(what: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """A bar for people who watch; standard output stays clean."""
    import sys

    if not sys.stderr.isatty():
        yield lambda _done, _total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    amount = DownloadColumn() if unit == "bytes" else MofNCompleteColumn()
    columns = (TextColumn(what), BarColumn(), amount, TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
