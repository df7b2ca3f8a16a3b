"""`rootward audit`: what happened, and who did it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from rootward.cli import screen
from rootward.cli.failure import Failure
from rootward.cli.options import Limit, Session, noun, remote

app = noun("Read the audit log.")


@app.command("list")
@remote
def list_(
    session: Session,
    kind: Annotated[str | None, typer.Option("--kind", help="Such as issue.done.")] = None,
    certificate: Annotated[str | None, typer.Option("--certificate", help="About this certificate.")] = None,
    authority: Annotated[str | None, typer.Option("--authority", help="About this authority.")] = None,
    limit: Limit = None,
) -> None:
    """List events."""
    query = {"kind": kind, "certificate": certificate, "authority": authority}
    page = session.client.pages("/api/v1/events", query, limit=limit)
    if session.json:
        screen.write_json(screen.encode(page))
        return
    rows = [
        (
            *(item.get(field) for field in ("id", "at", "kind", "actor", "authority", "certificate_id")),
            _short(item.get("data")),
        )
        for item in page["items"]
    ]
    screen.table(
        ("id", "at", "kind", "actor", "authority", "certificate", "data"),
        rows,
        empty="There is no such event.",
        spare=("certificate", "authority", "actor"),
        folds="data",
    )


@app.command("export")
@remote
def export(
    session: Session,
    out: Annotated[Path | None, typer.Option("--out", help="A new file (0600); standard output if not given.")] = None,
) -> None:
    """Write all events as one JSON object a line. The export itself is an event."""
    pieces = session.client.lines("/api/v1/events/export")
    if out is None:
        for piece in pieces:
            sys.stdout.buffer.write(piece)
        sys.stdout.flush()
        return
    if os.path.lexists(out):
        raise Failure(f"{out} is there already, and nothing is overwritten.", next="Choose another --out.")
    partial = out.with_name(f".{out.name}.part")
    try:
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600), "wb") as file:
            count = 0
            for piece in _counted(pieces):
                file.write(piece)
                count += piece.count(b"\n")
            file.flush()
            os.fsync(file.fileno())
        os.link(partial, out)  # unlike a rename, it does not replace
    finally:
        partial.unlink(missing_ok=True)
    screen.note(f"{count} events are in {out}.")


def _counted(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The same pieces, with a progress line for people who watch."""
    if not sys.stderr.isatty():
        yield from pieces
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.completed:.0f} events"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("export", total=None)
        for piece in pieces:
            progress.advance(task, piece.count(b"\n"))
            yield piece


def _short(data: Any) -> str:
    text = json.dumps(data, ensure_ascii=False) if data else ""
    return text if len(text) <= 120 else text[:119] + "…"
