"""`rootward access`: people, their tokens, and what they may do."""

from __future__ import annotations

import re
from typing import Annotated, Any

import typer

from rootward.cli import lookup, screen
from rootward.cli.failure import Failure
from rootward.cli.options import Limit, Session, local, noun, remote

app = noun("Manage who may do what.")
person = noun("Manage people and other principals.")
token = noun("Manage tokens.")
grant = noun("Manage roles.")
app.add_typer(person, name="person")
app.add_typer(token, name="token")
app.add_typer(grant, name="grant")

Id = Annotated[str, typer.Argument(metavar="ID", help="Its id.")]
Who = Annotated[str, typer.Argument(metavar="ID|NAME", help="The principal's id or name.")]
Authority = Annotated[str | None, typer.Option("--authority", help="On this authority only.")]
Profile = Annotated[str | None, typer.Option("--profile", help="On this profile only.")]
_ACCOUNT = re.compile(r"[A-Za-z0-9_-]{22}", re.ASCII)
_ROLES = "system-admin, admin, officer, approver, requester or auditor."


@person.command("list")
@remote
def list_people(session: Session, limit: Limit = None) -> None:
    """List principals."""
    _list(
        session,
        "principals",
        limit,
        ("id", "kind", "name", "state", "roles"),
        lambda item: (
            *(item.get(field) for field in ("id", "kind", "name")),
            "disabled" if item.get("disabled_at") else "active",
            ", ".join(_role(one) for one in item.get("grants") or []),
        ),
    )


@person.command("show")
@remote
def show_person(session: Session, who: Who) -> None:
    """Show one principal."""
    from rootward.cli.client import segment

    answer = session.client.get(f"/api/v1/principals/{segment(_principal(session, who))}")
    if session.json:
        screen.write_json(answer.body)
        return
    value = answer.value
    screen.details(
        [
            *(
                (field.replace("_", " "), value.get(field))
                for field in ("id", "kind", "name", "created_at", "disabled_at")
            ),
            ("roles", [_role(one) for one in value.get("grants") or []]),
        ]
    )


@person.command("create")
@remote
def create_person(
    session: Session, name: Annotated[str, typer.Argument(metavar="NAME", help="What the person is called.")]
) -> None:
    """Create a person, who then needs a role and a token."""
    try:
        answer = session.client.post("/api/v1/principals", {"name": name})
    except Failure as failure:
        if failure.code == "RW-CONFLICT":
            failure.next = _taken(session, name)
        raise
    _made(session, answer, "The person")


@person.command("delete")
@remote
def delete_person(session: Session, who: Who) -> None:
    """Disable a principal: no token of theirs works any more, and their history stays."""
    from rootward.cli.client import segment

    answer = session.client.delete(f"/api/v1/principals/{segment(_principal(session, who))}")
    _gone(session, answer, "is disabled")


@token.command("list")
@remote
def list_tokens(session: Session, limit: Limit = None) -> None:
    """List your tokens; everybody's for a system-admin."""
    _list(
        session,
        "tokens",
        limit,
        ("id", "principal", "label", "expires", "state", "scopes"),
        lambda item: (
            *(item.get(field) for field in ("id", "principal", "label", "expires_at")),
            "revoked" if item.get("revoked_at") else "active",
            ", ".join(_role(one) for one in item.get("scopes") or []) or "all of its principal's",
        ),
    )


@token.command("show")
@remote
def show_token(session: Session, id: Id) -> None:
    """Show one token, never its secret."""
    _show_one(session, "tokens", id, "scopes")


@token.command("create")
@remote
def create_token(
    session: Session,
    label: Annotated[str, typer.Option("--label", help="What it is for.")],
    lifetime: Annotated[str, typer.Option("--lifetime", help="Such as 90d.")] = "90d",
    principal: Annotated[str | None, typer.Option("--principal", help="Whose, id or name; yours if not given.")] = None,
    scope: Annotated[
        list[str] | None, typer.Option("--scope", help="ROLE, ROLE@AUTHORITY or ROLE@AUTHORITY/PROFILE; repeats.")
    ] = None,
) -> None:
    """Make a token. It is shown this once: --json or standard output is the only place where it is."""
    body: dict[str, Any] = {"label": label, "lifetime": lifetime}
    if principal is not None:
        body["principal"] = _principal(session, principal)
    if scope:
        body["scopes"] = [_scope(text) for text in scope]
    answer = session.client.post("/api/v1/tokens", body)
    if session.json:
        screen.write_json(answer.body)
        return
    screen.note(
        f"Token {answer.value.get('id')} for {answer.value.get('label')}, until {answer.value.get('expires_at')}:"
    )
    screen.say(screen.safe(answer.value.get("token")))
    screen.note("It is not shown again. Keep it in a file of mode 0600.")


@token.command("delete")
@remote
def delete_token(session: Session, id: Id) -> None:
    """Revoke a token, at once."""
    from rootward.cli.client import segment

    _gone(session, session.client.delete(f"/api/v1/tokens/{segment(id)}"), "is revoked")


@grant.command("list")
@remote
def list_grants(session: Session, limit: Limit = None) -> None:
    """List who has which role."""
    _list(
        session,
        "grants",
        limit,
        ("id", "principal", "role", "authority", "profile"),
        lambda item: (
            *(item.get(field) for field in ("id", "principal", "role")),
            item.get("authority") or "every",
            item.get("profile") or "every",
        ),
    )


@grant.command("show")
@remote
def show_grant(session: Session, id: Id) -> None:
    """Show one grant."""
    _show_one(session, "grants", id, "")


@grant.command("create")
@remote
def create_grant(
    session: Session,
    principal: Annotated[str, typer.Option("--principal", help="To whom, id or name.")],
    role: Annotated[str, typer.Option("--role", help=_ROLES)],
    authority: Authority = None,
    profile: Profile = None,
) -> None:
    """Give a role, on everything or on one authority or profile."""
    body = {"principal": _principal(session, principal), "role": role, "authority": authority, "profile": profile}
    answer = session.client.post("/api/v1/grants", {field: value for field, value in body.items() if value is not None})
    _made(session, answer, "The grant")


@grant.command("delete")
@remote
def delete_grant(session: Session, id: Id) -> None:
    """Take a role away, at once."""
    from rootward.cli.client import segment

    _gone(session, session.client.delete(f"/api/v1/grants/{segment(id)}"), "is taken away")


@app.command("recover")
@local
def recover(session: Session) -> None:
    """Make a new admin token, on the server's own machine. With SQLite the server must be stopped. It is an event."""
    from rootward.cli import local as here

    here.recover(session)


def _principal(session: Session, text: str) -> str:
    """The id of the principal with this id or name."""
    items = session.client.pages("/api/v1/principals", {}, limit=None)["items"]
    found = [item for item in items if item.get("id") == text] or [item for item in items if item.get("name") == text]
    if len(found) == 1:
        return str(found[0]["id"])
    if not found and _ACCOUNT.fullmatch(text):
        return text  # an ACME account, which only the server knows
    if found:
        raise Failure(f"Several principals are called {text}.", next="Name it by its id: rootward access person list.")
    raise Failure(f"There is no principal {text}.", next="rootward access person list shows all of them.")


def _taken(session: Session, name: str) -> str:
    """What to do about a name that a principal has or had."""
    items = session.client.pages("/api/v1/principals", {}, limit=None)["items"]
    if any(item.get("name") == name and item.get("disabled_at") for item in items):
        return "That person is deleted, and the names of deleted persons are never given again. Choose another name."
    return "Choose another name. rootward access person list shows all that are taken."


def _scope(text: str) -> dict[str, str]:
    match = re.fullmatch(r"(?P<role>[a-z-]+)(?:@(?P<authority>[a-z0-9-]+)(?:/(?P<profile>[a-z0-9-]+))?)?", text)
    if match is None:
        raise Failure(f"{text} is not a scope.", next="Write it as requester@issuing/server.", exit=2)
    return {field: value for field, value in match.groupdict().items() if value is not None}


def _role(item: dict[str, Any]) -> str:
    where = "/".join(str(item[field]) for field in ("authority", "profile") if item.get(field))
    return f"{item.get('role')}{f'@{where}' if where else ''}"


def _list(session: Session, what: str, limit: int | None, headings: tuple[str, ...], row: Any) -> None:
    """A list whose last column may fold; principals are shown by their names where those may be seen."""
    page = session.client.pages(f"/api/v1/{what}", {}, limit=limit)
    if session.json:
        screen.write_json(screen.encode(page))
        return
    if "principal" in headings:
        names = lookup.principals(session)
        for item in page["items"]:
            item["principal"] = names.get(str(item.get("principal")), item.get("principal"))
    rows = [row(item) for item in page["items"]]
    spare = [heading for heading in ("kind", "expires") if heading in headings]
    screen.table(headings, rows, empty="There is none.", spare=spare, folds=headings[-1:])


def _show_one(session: Session, what: str, id: str, roles: str) -> None:
    """One item out of its list: there is no address for it alone."""
    items = session.client.pages(f"/api/v1/{what}", {}, limit=None)["items"]
    found = next((item for item in items if str(item.get("id")) == id), None)
    if found is None:
        raise Failure(f"There is no such thing: {id}.", next=f"rootward access {what[:-1]} list shows all of them.")
    if session.json:
        screen.write_json(screen.encode(found))
        return
    screen.details(
        (field.replace("_", " "), [_role(one) for one in value or []] if field == roles else value)
        for field, value in found.items()
    )


def _made(session: Session, answer: Any, what: str) -> None:
    if session.json:
        screen.write_json(answer.body)
    else:
        screen.say(f"{what} is there: {screen.safe(answer.value.get('id'))}.")


def _gone(session: Session, answer: Any, what: str) -> None:
    if session.json:
        screen.write_json(answer.body or b"{}")
    else:
        screen.say(f"{screen.safe((answer.value or {}).get('id', 'It'))} {what}.")
