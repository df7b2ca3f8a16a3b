"""`rootward ca compromise|succeed|retire|report`: what two people decide of an authority's end, and how far it is
replaced.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from rootward.cli import request, screen
from rootward.cli.options import Limit, Session, remote

_PATH = "/api/v1/authorities"
Name = Annotated[str, typer.Argument(metavar="NAME", help="The authority's name.")]
Successor = Annotated[str, typer.Argument(metavar="SUCCESSOR", help="The authority that takes its place.")]
Waves = Annotated[
    str | None,
    typer.Option(
        "--waves", help="Over how long holders are told to renew, such as 30m; 0s: at once. At most 2h if not given."
    ),
]


def add_to(app: typer.Typer) -> None:
    """Put the verbs below `rootward ca`."""
    app.command("compromise")(compromise)
    app.command("succeed")(succeed)
    app.command("retire")(retire)
    app.command("report")(report)


@remote
def compromise(
    session: Session,
    name: Name,
    successor: Annotated[
        str | None, typer.Option("--successor", help="Which authority issues in its place from now on.")
    ] = None,
    reason: Annotated[str | None, typer.Option("--reason", help="For people; it goes into the event.")] = None,
    waves: Waves = None,
) -> None:
    """Say that an authority's key is in other hands. When a second person agrees, it stops at once, and everybody who
    has a certificate of it is told to get another one.
    """
    body = {"successor": successor, "reason": reason, "waves": waves}
    _propose(session, name, "compromise", body, f"That {screen.safe(name)} is compromised")


@remote
def succeed(session: Session, name: Name, successor: Successor) -> None:
    """Let another authority take its place: its profiles issue from that one, and its people have the same roles there.
    What it issued stays.
    """
    _propose(session, name, "succeed", {"successor": successor}, f"A successor of {screen.safe(name)}")


@remote
def retire(session: Session, name: Name, waves: Waves = None) -> None:
    """End an authority from which no profile issues: it signs CRLs and OCSP answers until its last certificate is over,
    and nothing else.
    """
    _propose(session, name, "retire", {"waves": waves}, f"The end of {screen.safe(name)}")


@remote
def report(
    session: Session,
    name: Name,
    limit: Limit = None,
) -> None:
    """Show how many certificates of an authority that stops are replaced, and whose are not. Exits with 1 while there
    are any.
    """
    from rootward.cli.client import segment

    path = f"{_PATH}/{segment(name)}/replacement"
    first = session.client.get(path, {"limit": "1"}).value
    page = session.client.pages(path, {}, limit=limit)
    counts = {field: value for field, value in first.items() if field not in ("items", "next_cursor")}
    if session.json:
        screen.write_json(screen.encode({**counts, **page}))
    else:
        _shown(counts, page["items"])
    if not counts.get("over"):
        raise typer.Exit(1)


def _shown(counts: dict[str, Any], items: list[dict[str, Any]]) -> None:
    fields = ("authority", "successor", "since", "waves_until", "total", "replaced", "revoked", "expired", "remaining")
    screen.details([(field.replace("_", " "), counts.get(field)) for field in (*fields, "ends_at")])
    screen.say()
    rows = [
        (
            item.get("id"),
            item.get("owner") or item.get("requester"),
            ", ".join(screen.bare(item.get("names") or [])),
            item.get("not_after"),
            item.get("last_seen"),
        )
        for item in items
    ]
    screen.table(
        ("id", "owner", "names", "expires", "last seen"),
        rows,
        empty="Everything is replaced.",
        spare=("last seen", "owner"),
        folds=("names",),
    )


def _propose(session: Session, name: str, verb: str, body: dict[str, str | None], what: str) -> None:
    from rootward.cli.client import segment

    said = {field: value for field, value in body.items() if value is not None}
    request.wait(session.client.post(f"{_PATH}/{segment(name)}/{verb}", said), what)
