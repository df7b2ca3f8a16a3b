"""`rootward audit`: what happened, and who did it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rootward.cli import lookup, screen
from rootward.cli.connection import home_of
from rootward.cli.failure import Failure
from rootward.cli.options import Limit, Session, noun, offline, remote
from rootward.core.words import count

if TYPE_CHECKING:
    from rootward.core.ledger import Verifier
    from rootward.fleet.auditor import Report

app = noun("Read the audit log.")


@app.command("list")
@remote
def list_(
    session: Session,
    kind: Annotated[str | None, typer.Option("--kind", help="Such as issue.done.")] = None,
    certificate: Annotated[
        str | None, typer.Option("--certificate", help="About this certificate: its id or serial.")
    ] = None,
    authority: Annotated[str | None, typer.Option("--authority", help="About this authority.")] = None,
    limit: Limit = None,
) -> None:
    """List events."""
    if certificate is not None:
        certificate = lookup.certificate(session, certificate).value["id"]
    query = {"kind": kind, "certificate": certificate, "authority": authority}
    page = session.client.pages("/api/v1/events", query, limit=limit)
    if session.json:
        screen.write_json(screen.encode(page))
        return
    names = lookup.principals(session) if page["items"] else {}
    rows = [
        (
            item.get("id"),
            str(item.get("at") or "").removesuffix("Z").replace("T", " "),
            item.get("kind"),
            names.get(str(item.get("actor")), item.get("actor")),
            item.get("certificate_id") or item.get("authority"),
            ", ".join(_facts(item.get("data"))),
        )
        for item in page["items"]
    ]
    screen.table(
        ("id", "at (utc)", "kind", "actor", "about", "data"),
        rows,
        empty="No event matches.",
        spare=("data",),
        folds=("data", "about", "actor"),
    )


@app.command("show")
@remote
def show(
    session: Session, number: Annotated[int, typer.Argument(metavar="NUMBER", min=1, help="The event's id.")]
) -> None:
    """Show one event."""
    answer = session.client.get(f"/api/v1/events/{number}")
    if session.json:
        screen.write_json(answer.body)
        return
    value = answer.value
    actor = str(value.get("actor"))
    name = lookup.principals(session).get(actor)
    screen.details(
        [
            *((field, value.get(field)) for field in ("id", "at", "kind")),
            ("actor", actor if name is None else f"{name} ({actor})"),
            ("authority", value.get("authority")),
            ("certificate", value.get("certificate_id")),
            ("request id", value.get("request_id")),
            ("leaf", value.get("leaf")),
            ("data", _facts(value.get("data"))),
        ]
    )


@app.command("export")
@remote
def export(
    session: Session,
    out: Annotated[Path | None, typer.Option("--out", help="A new file (0600); standard output if not given.")] = None,
) -> None:
    """Write all events and certificates, one JSON object a line, and the signed head. The export is an event."""
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
            written = 0
            for piece in _counted(pieces):
                file.write(piece)
                written += piece.count(b"\n")
            file.flush()
            os.fsync(file.fileno())
        os.link(partial, out)  # unlike a rename, it does not replace
    finally:
        partial.unlink(missing_ok=True)
    screen.note(f"{count(written, 'line')} written to {out}.")


@app.command("verify")
@offline
def verify(
    session: Session,
    export: Annotated[
        Path | None,
        typer.Argument(
            metavar="[EXPORT]", help="A file of audit export; the home if not given.", exists=True, dir_okay=False
        ),
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option("--key", help="A file with the log's public key, which pins it.", exists=True, dir_okay=False),
    ] = None,
) -> None:
    """Check the whole log against its signed head, and the inventory against the log; without a server.

    Exit code 1 with every finding.
    """
    from rootward import home
    from rootward.fleet.auditor import Report, summary
    from rootward.fleet.export import verify_file

    report, findings = Report(), []
    pinned = None if key is None else _pinned(key)
    if export is None:
        found = home.verify(home_of(session.flags), pinned, report)
    else:
        found = verify_file(export, pinned, report)
    for finding in found:
        report.findings += 1
        if session.json:
            findings.append({"about": finding.about, "detail": finding.detail})
        else:
            screen.say(f"{screen.safe(finding.about)}: {screen.safe(finding.detail)}")
    if session.json:
        screen.write_json(screen.encode(_told(report, findings)))
    else:
        screen.say(screen.safe(summary(report)))
    if report.findings:
        raise typer.Exit(1)


def _pinned(path: Path) -> Verifier:
    from rootward.core.ledger import parse_verifier

    try:
        return parse_verifier(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise typer.BadParameter(f"{path}: {error}", param_hint="--key") from error


def _told(report: Report, findings: list[dict[str, str]]) -> dict[str, Any]:
    return {
        "key": None if report.verifier is None else report.verifier.text,
        "events": report.size,
        "waiting": report.waiting,
        "certificates": report.certificates,
        "went_on": report.went_on,
        "findings": findings,
    }


def _counted(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The same pieces, with a progress line for people who watch."""
    if not sys.stderr.isatty():
        yield from pieces
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.completed:.0f} lines"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("export", total=None)
        for piece in pieces:
            progress.advance(task, piece.count(b"\n"))
            yield piece


def _facts(data: Any) -> list[str]:
    """What an event says beyond its kind, as `name=value`."""
    return [
        f"{name}={value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}"
        for name, value in (data or {}).items()
    ]
