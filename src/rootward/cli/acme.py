"""`rootward acme`: who may make ACME accounts, the accounts that there are, and what goes into clients."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from rootward.cli import screen
from rootward.cli.options import Limit, Session, noun, remote
from rootward.cli.snippet import snippet

app = noun("Serve other people's ACME clients.")
eab = noun("Manage external account bindings: keys with which ACME clients make accounts.")
account = noun("Manage the accounts of ACME clients.")
app.add_typer(eab, name="eab")
app.add_typer(account, name="account")
app.command("snippet")(snippet)

Kid = Annotated[str, typer.Argument(metavar="KID", help="Its key identifier.")]
Id = Annotated[str, typer.Argument(metavar="ID", help="Its id.")]
_BINDINGS, _ACCOUNTS = "/api/v1/eab", "/api/v1/acme-accounts"


@eab.command("create")
@remote
def create_binding(
    session: Session,
    owner: Annotated[str, typer.Option("--owner", help="Who answers for its accounts and their certificates.")],
    profile: Annotated[
        str | None, typer.Option("--profile", help="For this profile; for each that wants a binding if not given.")
    ] = None,
    name: Annotated[
        list[str] | None,
        typer.Option("--name", metavar="PATTERN", help="Its accounts get these names only, as .a.internal; repeats."),
    ] = None,
    preauthorize: Annotated[
        list[str] | None,
        typer.Option("--preauthorize", metavar="PATTERN", help="Its accounts prove nothing for these names; repeats."),
    ] = None,
    uses: Annotated[int, typer.Option("--uses", min=1, help="How many accounts it makes.")] = 1,
    expires: Annotated[str, typer.Option("--expires", help="For how long it can be used.")] = "30d",
) -> None:
    """Make a binding. Its MAC key is shown this once: --json or standard output is the only place where it is."""
    body: dict[str, Any] = {"owner": owner, "uses": uses, "expires": expires}
    if profile is not None:
        body["profile"] = profile
    body |= {"names": name or [], "preauthorized": preauthorize or []}
    answer = session.client.post(_BINDINGS, body)
    if session.json:
        screen.write_json(answer.body)
        return
    value = answer.value
    screen.note(f"For {value.get('uses')} account(s) of {value.get('owner')}, until {value.get('expires_at')}:")
    screen.say(f"kid       {screen.safe(value.get('kid'))}")
    screen.say(f"hmac key  {screen.safe(value.get('hmac_key'))}")
    screen.note("The key is not shown again. A client takes both when it makes its account.")


@eab.command("list")
@remote
def list_bindings(
    session: Session,
    status: Annotated[str | None, typer.Option("--status", help="Open, used, expired or revoked ones.")] = None,
    limit: Limit = None,
) -> None:
    """List bindings, newest first, never their keys."""
    _list(session, _BINDINGS, {"status": status}, limit, ("kid", "status", "owner", "profile", "used", "expires"))


@eab.command("show")
@remote
def show_binding(session: Session, kid: Kid) -> None:
    """Show one binding, never its key."""
    _show(session, _BINDINGS, kid)


@eab.command("revoke")
@remote
def revoke_binding(session: Session, kid: Kid) -> None:
    """Let a binding make no more accounts. Those that it made stay."""
    _end(session, _BINDINGS, kid, "revoke", "makes no more accounts")


@account.command("list")
@remote
def list_accounts(
    session: Session,
    status: Annotated[str | None, typer.Option("--status", help="Valid, deactivated or revoked ones.")] = None,
    owner: Annotated[str | None, typer.Option("--owner", help="Of this owner.")] = None,
    limit: Limit = None,
) -> None:
    """List accounts, newest first."""
    headings = ("id", "status", "owner", "profile", "contacts", "created")
    _list(session, _ACCOUNTS, {"status": status, "owner": owner}, limit, headings)


@account.command("show")
@remote
def show_account(session: Session, id: Id) -> None:
    """Show one account."""
    _show(session, _ACCOUNTS, id)


@account.command("deactivate")
@remote
def deactivate_account(session: Session, id: Id) -> None:
    """End an account, at once and for good. Its certificates stay."""
    _end(session, _ACCOUNTS, id, "deactivate", "is ended")


def _list(
    session: Session, path: str, filters: dict[str, str | None], limit: int | None, headings: tuple[str, ...]
) -> None:
    page = session.client.pages(path, {name: value for name, value in filters.items() if value}, limit=limit)
    if session.json:
        screen.write_json(screen.encode(page))
        return
    rows = [tuple(_cell(item, heading) for heading in headings) for item in page["items"]]
    screen.table(headings, rows, empty="There is none.", spare=headings[-1:], folds=headings[-2:-1])


def _cell(item: dict[str, Any], heading: str) -> object:
    match heading:
        case "profile":
            return item.get("profile") or "every"
        case "used":
            return f"{item.get('used')} of {item.get('uses')}"
        case "expires" | "created":
            return item.get(f"{heading}_at")
        case "contacts":
            return ", ".join(str(one).removeprefix("mailto:") for one in item.get("contacts") or [])
        case _:
            return item.get(heading)


def _show(session: Session, path: str, id: str) -> None:
    from rootward.cli.client import segment

    answer = session.client.get(f"{path}/{segment(id)}")
    if session.json:
        screen.write_json(answer.body)
        return
    screen.details((field.replace("_", " "), value) for field, value in answer.value.items())


def _end(session: Session, path: str, id: str, verb: str, what: str) -> None:
    from rootward.cli.client import segment

    answer = session.client.post(f"{path}/{segment(id)}/{verb}", {})
    if session.json:
        screen.write_json(answer.body)
    else:
        screen.say(f"{screen.safe(id)} {what}.")
