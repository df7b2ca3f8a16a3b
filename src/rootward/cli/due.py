"""`rootward ceremony due`: what only people can renew, and until when."""

from __future__ import annotations

import typer

from rootward.cli import screen
from rootward.cli.options import Session, remote
from rootward.core.words import count

_PATH = "/api/v1/ceremonies/due"


@remote
def due(session: Session) -> None:
    """List what is due, the nearest first; exit code 1 where something is overdue."""
    answer = session.client.get(_PATH)
    items = answer.value.get("items") or []
    if session.json:
        screen.write_json(answer.body)
    else:
        rows = [
            (item.get("authority"), item.get("what"), item.get("due_at"), _left(item.get("days"))) for item in items
        ]
        screen.table(("authority", "what", "due", "left"), rows, empty="Nothing here needs a ceremony.")
        for item in items:
            if item.get("request"):
                name, id = (screen.safe(item.get(field)) for field in ("authority", "request"))
                screen.say(f"The request for the next CRL of {name} waits: rootward ceremony request {id}")
    if any(item.get("days") == 0 for item in items):
        raise typer.Exit(1)


def _left(days: int | None) -> str:
    if days is None:
        return ""
    return "overdue" if days == 0 else f"less than {count(days, 'day')}"
