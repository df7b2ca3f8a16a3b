"""`rootward request`: what waits for a person's yes or no."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from rootward.cli import screen
from rootward.cli.failure import WAITING, Failure
from rootward.cli.options import Limit, Session, noun, remote

app = noun("See what waits for approval, and decide.")

_PATH = "/api/v1/requests"
_YES = {"plan": "exactly this plan, with its key", "names": "these names, whatever key comes with them, once"}
Id = Annotated[str, typer.Argument(metavar="ID", help="The request's id.")]
Comment = Annotated[str | None, typer.Option("--comment", help="Why; kept in the audit log.")]


@app.command("list")
@remote
def list_(
    session: Session,
    status: Annotated[
        str | None, typer.Option("--status", help="waiting if not given; approved, denied, expired, issued, failed.")
    ] = None,
    limit: Limit = None,
) -> None:
    """List requests."""
    page = session.client.pages(_PATH, {"status": status}, limit=limit)
    if session.json:
        screen.write_json(screen.encode(page))
        return
    rows = [
        (
            item.get("id"),
            item.get("status"),
            item.get("profile"),
            ", ".join(screen.bare(item.get("names") or [])),
            item.get("requester"),
            item.get("expires_at"),
        )
        for item in page["items"]
    ]
    screen.table(
        ("id", "status", "profile", "names", "requester", "expires"),
        rows,
        empty="No request waits." if status in (None, "waiting") else "No request matches.",
        spare=("requester", "profile", "expires"),
        folds=("names",),
    )


@app.command("show")
@remote
def show(session: Session, id: Id) -> None:
    """Show one request, and the hash of the plan that an approval is bound to."""
    from rootward.cli.client import segment

    _shown(session, session.client.get(f"{_PATH}/{segment(id)}"))


@app.command("create")
@remote
def create(
    session: Session,
    account: Annotated[str, typer.Option("--account", help="The ACME account's id.")],
    profile: Annotated[str, typer.Option("--profile", help="Under which profile it will order.")],
    name: Annotated[list[str], typer.Option("--name", help="A name or address that it will order; repeats.")],
) -> None:
    """Ask in an ACME account's place, before it orders: its next order for exactly these names finds the answer."""
    from rootward.cli import enrol

    body = {"account": account, "profile": profile, "names": [str(item) for item in enrol.names_of(name)]}
    answer = session.client.post(_PATH, body)
    id, status = screen.safe(answer.value.get("id")), answer.value.get("status")
    if status == "waiting":
        raise Failure(
            "Waiting for approval.",
            f"The request is {id}.",
            next=f"An approver runs: rootward request approve {id}. Then the account can order.",
            exit=WAITING,
            body=answer.body,
        )
    if session.json:
        screen.write_json(answer.body)
    else:
        screen.say(f"The request {id} is {screen.safe(status)} already.")


@app.command("approve")
@remote
def approve(session: Session, id: Id, comment: Comment = None) -> None:
    """Say yes. The requester then runs the same command again, or is served when it asks the next time."""
    _decide(session, id, "approve", comment)


@app.command("deny")
@remote
def deny(session: Session, id: Id, comment: Comment = None) -> None:
    """Say no."""
    _decide(session, id, "deny", comment)


def _decide(session: Session, id: str, verb: str, comment: str | None) -> None:
    from rootward.cli.client import segment

    body = {} if comment is None else {"comment": comment}
    answer = session.client.post(f"{_PATH}/{segment(id)}/{verb}", body)
    if session.json:
        screen.write_json(answer.body)
        return
    screen.say(f"The request {screen.safe(answer.value.get('id'))} is {screen.safe(answer.value.get('status'))}.")


def _shown(session: Session, answer: Any) -> None:
    if session.json:
        screen.write_json(answer.body)
        return
    value = answer.value
    decision = value.get("approval") or value.get("denial") or {}
    reasons = [item.get("detail") if isinstance(item, dict) else item for item in value.get("reasons") or []]
    screen.details(
        [
            *((field, value.get(field)) for field in ("id", "status", "profile", "authority")),
            ("names", screen.bare(value.get("names") or [])),
            ("requester", value.get("requester")),
            ("asked by", value.get("asked_by")),
            ("a yes is to", _YES.get(str(value.get("binds")), value.get("binds"))),
            ("summary", _summary(value.get("summary") or {})),
            ("created at", value.get("created_at")),
            ("expires at", value.get("expires_at")),
            ("approved by", decision.get("approved_by")),
            ("denied by", decision.get("denied_by")),
            ("comment", decision.get("comment")),
            ("plan", value.get("plan")),
            ("certificate", value.get("certificate_id")),
            ("reasons", reasons),
        ]
    )


def _summary(facts: dict[str, Any]) -> dict[str, Any]:
    """What the certificate will say, in the words of a profile where there are some."""
    from datetime import timedelta

    from rootward.core.profile import EXTENDED_KEY_USAGES
    from rootward.core.times import show_duration

    shown = dict(facts)
    words = {oid.dotted_string: name for name, oid in EXTENDED_KEY_USAGES.items()}
    if "extended_key_usage" in facts:
        shown["extended_key_usage"] = [words.get(str(usage), usage) for usage in facts["extended_key_usage"] or []]
    if isinstance(facts.get("lifetime"), int):
        shown["lifetime"] = show_duration(timedelta(seconds=facts["lifetime"]))
    if "names" in facts:
        shown["names"] = screen.bare(facts["names"] or [])
    if "subject" in facts:
        shown["subject"] = ["=".join(map(str, part)) for part in facts["subject"] or []]
    return shown
