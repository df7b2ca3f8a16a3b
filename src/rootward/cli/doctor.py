"""`rootward doctor`: what is wrong with an installation, and what mends it."""

from __future__ import annotations

import os
from typing import Annotated, Any

import typer

from rootward.cli import screen
from rootward.cli.connection import home_of
from rootward.cli.options import Session, remote
from rootward.core.words import count

app = typer.Typer(rich_markup_mode="rich", add_completion=False)


@app.command("doctor")
@remote
def doctor(
    session: Session,
    accept_clock: Annotated[
        bool,
        typer.Option(
            "--accept-clock", help="On the server's own machine, stopped: take the clock as it is. It is an event."
        ),
    ] = False,
    accept_log: Annotated[
        bool,
        typer.Option(
            "--accept-log", help="On the server's own machine, stopped: go on from the audit log as it is. An event."
        ),
    ] = False,
) -> None:
    """Check the installation; exit code 1 if there is an error."""
    if accept_log:
        from rootward.cli import local

        local.accept_log(session)
        return
    if accept_clock:
        from rootward.cli import local

        local.accept_clock(session)
        return
    answer = session.client.get("/api/v1/doctor")
    checks = answer.value.get("checks") or []
    if session.json:
        screen.write_json(answer.body)
    else:
        checks = [*checks, *_beside(session)]
        screen.steps((str(check.get("state")), str(check.get("name")), _sentence(check)) for check in checks)
        errors = sum(check.get("state") == "error" for check in checks)
        warnings = sum(check.get("state") == "warning" for check in checks)
        screen.say(f"{count(len(checks), 'check')}, {count(errors, 'error')}, {count(warnings, 'warning')}.")
    if any(check.get("state") == "error" for check in checks):
        raise typer.Exit(1)


def _beside(session: Session) -> list[dict[str, str]]:
    """A warning while the root's key of the lab ceremony lies in the home. The server itself never looks there."""
    folder = home_of(session.flags) / "offline-root"
    if not os.path.lexists(folder):
        return []
    detail = f"The root's key still lies beside the server, in {folder}."
    mend = "Take the folder away; its README.txt says how."
    return [{"name": "offline-root", "state": "warning", "detail": detail, "mend": mend}]


def _sentence(check: dict[str, Any]) -> str:
    """What was found, and what mends it where it is not right."""
    mend = check.get("mend") if check.get("state") != "ok" else None
    return f"{check.get('detail') or ''} {mend or ''}".strip()
