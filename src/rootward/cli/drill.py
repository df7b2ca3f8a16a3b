"""`rootward drill`: rehearsals that change nothing."""

from __future__ import annotations

from typing import Annotated

import typer

from rootward.cli import screen
from rootward.cli.options import Session, noun, remote
from rootward.cli.replacement import Name, Waves

app = noun("Rehearse what would be done in an emergency; nothing changes.")


@app.callback()
def _noun() -> None:
    """One verb so far, which stays a verb."""


@app.command("compromise")
@remote
def compromise(
    session: Session,
    name: Name,
    successor: Annotated[
        str | None, typer.Option("--successor", help="Which authority would follow; one is made up if not given.")
    ] = None,
    waves: Waves = None,
) -> None:
    """Rehearse that an authority's key is in other hands: what would happen, when, to whom, and what is missing. An
    event says that it was held.
    """
    from rootward.cli.client import segment

    body = {field: value for field, value in {"successor": successor, "waves": waves}.items() if value is not None}
    answer = session.client.post(f"/api/v1/authorities/{segment(name)}/drill", body)
    if session.json:
        screen.write_json(answer.body)
        return
    value = answer.value
    made_up = " (made up)" if value.get("stand_in") else ""
    screen.details(
        [
            ("authority", value.get("authority")),
            ("successor", f"{value.get('successor')}{made_up}"),
            ("certificates", value.get("certificates")),
            ("all told by", value.get("waves_until")),
            ("missing", value.get("missing") or "nothing"),
        ]
    )
    screen.say()
    screen.table(
        ("step", "seconds", "what"),
        [(step.get("name"), step.get("seconds"), step.get("detail")) for step in value.get("steps") or []],
        empty="",
        folds=("what",),
    )
    screen.say()
    screen.table(
        ("owner", "certificates"),
        [(one.get("owner") or "(nobody)", one.get("certificates")) for one in value.get("owners") or []],
        empty="Nobody has a certificate of it.",
    )
    screen.say()
    screen.table(
        ("renewed from", "certificates"),
        [(one.get("start"), one.get("certificates")) for one in value.get("waves") or []],
        empty="There is nothing to renew.",
    )
