"""`rootward request`: what waits for a person's yes or no, certificates and all else: for people it is one list."""

from __future__ import annotations

from typing import Annotated, Any, NoReturn

import typer

from rootward.cli import screen
from rootward.cli.failure import WAITING, Failure
from rootward.cli.options import Limit, Session, noun, remote

app = noun("See what waits for approval, and decide.")

_PATH = "/api/v1/requests"
_PROPOSALS = "/api/v1/proposals"
_GONE = 404
_YES = {"plan": "exactly this plan, with its key", "names": "these names, whatever key comes with them, once"}
Id = Annotated[str, typer.Argument(metavar="ID", help="The request's or proposal's id.")]
Comment = Annotated[str | None, typer.Option("--comment", help="Why; kept in the audit log.")]


@app.command("list")
@remote
def list_(
    session: Session,
    status: Annotated[
        str | None,
        typer.Option("--status", help="waiting if not given; approved, denied, expired, issued, done, failed."),
    ] = None,
    limit: Limit = None,
) -> None:
    """List requests for certificates, and proposals of what is done to authorities."""
    page = _page(session, _PATH, status, limit, but="done")
    proposed = _page(session, _PROPOSALS, status, limit, but="issued")
    if session.json:
        screen.write_json(screen.encode({**page, "proposals": proposed["items"]}))
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
    rows += [
        (
            item.get("id"),
            item.get("status"),
            item.get("kind"),
            item.get("authority"),
            item.get("proposed_by"),
            item.get("expires_at"),
        )
        for item in proposed["items"]
    ]
    screen.table(
        ("id", "status", "profile or act", "names", "requester", "expires"),
        rows,
        empty="No request waits." if status in (None, "waiting") else "No request matches.",
        spare=("requester", "expires", "profile or act"),
        folds=("names",),
    )


def _page(session: Session, path: str, status: str | None, limit: int | None, *, but: str) -> dict[str, Any]:
    """A list of one status; none of the status that only the other kind has."""
    if status == but:
        return {"items": [], "next_cursor": None}
    return session.client.pages(path, {"status": status}, limit=limit)


@app.command("show")
@remote
def show(session: Session, id: Id) -> None:
    """Show one, and the hash of the plan or proposal that an approval is bound to."""
    from rootward.cli.client import segment

    try:
        _shown(session, session.client.get(f"{_PATH}/{segment(id)}"))
    except Failure as failure:
        if failure.status != _GONE:
            raise
        _proposal(session, session.client.get(f"{_PROPOSALS}/{segment(id)}"))


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
    what = "request"
    try:
        answer = session.client.post(f"{_PATH}/{segment(id)}/{verb}", body)
    except Failure as failure:
        if failure.status != _GONE:
            raise
        what, answer = "proposal", session.client.post(f"{_PROPOSALS}/{segment(id)}/{verb}", body)
    if session.json:
        screen.write_json(answer.body)
        return
    screen.say(f"The {what} {screen.safe(answer.value.get('id'))} is {screen.safe(answer.value.get('status'))}.")


def wait(answer: Any, what: str) -> NoReturn:
    """The end of a command whose effect another person must agree to: exit code 3."""
    id = screen.safe(answer.value.get("id"))
    raise Failure(
        f"{what} needs a second person.",
        f"The proposal is {id}; it expires at {screen.safe(answer.value.get('expires_at'))}.",
        next=f"Another approver runs: rootward request approve {id}.",
        exit=WAITING,
        body=answer.body,
    )


def _proposal(session: Session, answer: Any) -> None:
    if session.json:
        screen.write_json(answer.body)
        return
    value = answer.value
    yes, no = value.get("approval") or {}, value.get("denial") or {}  # both where a yes was taken back
    screen.details(
        [
            *((field, value.get(field)) for field in ("id", "status", "kind", "authority")),
            *((str(field), said) for field, said in (value.get("body") or {}).items()),
            ("proposed by", value.get("proposed_by")),
            ("proposed at", value.get("proposed_at")),
            ("expires at", value.get("expires_at")),
            ("approved by", yes.get("approved_by")),
            ("denied by", no.get("denied_by")),
            ("comment", (no or yes).get("comment")),
            ("done at", value.get("done_at")),
            ("digest", value.get("digest")),
            ("reasons", [item.get("detail") for item in value.get("reasons") or [] if isinstance(item, dict)]),
        ]
    )


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
