"""`rootward ceremony import|list|show|requests|request`: what the online side sends to ceremonies and takes back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rootward.cli import screen
from rootward.cli.authority import Domains, is_local
from rootward.cli.connection import home_of
from rootward.cli.failure import Failure
from rootward.cli.options import Limit, Session, remote
from rootward.cli.paper import read_file, write_file
from rootward.core.words import count

_PATH = "/api/v1/ceremonies"
_REQUESTS = "/api/v1/ceremony-requests"


@remote
def import_(
    session: Session,
    file: Annotated[Path, typer.Argument(metavar="RESULT", help="The result file that came back.")],
    domain: Domains = None,
) -> None:
    """Take in the result of a ceremony: all of it or nothing. The first one founds the home's installation."""
    text = read_file(file, "the result of a ceremony")
    if is_local(session):
        from rootward import begin

        home = home_of(session.flags)
        held = begin.found(home, text.encode(), tuple(domain or ()))
        screen.details([("ceremony", held.id), ("title", held.title), ("transcript", held.transcript_sha256)])
        screen.tell(
            f"The installation of {home} is founded. Its root.pem is what others trust, its admin.token opens the API."
        )
        screen.note(f"Next: rootward serve --home {home}")
        return
    if domain:
        raise Failure("--domain is for the first result, which founds an installation.")
    answer = session.client.post(_PATH, {"result": text})
    if session.json:
        screen.write_json(answer.body)
        return
    value = answer.value
    screen.details(
        (label, value.get(name))
        for label, name in (
            ("ceremony", "id"),
            ("title", "title"),
            ("held at", "held_at"),
            ("transcript", "transcript_sha256"),
        )
    )
    screen.say("The result is taken in.")


@remote
def list_(session: Session, limit: Limit = None) -> None:
    """List the ceremonies whose results were taken in, newest first."""
    page = session.client.pages(_PATH, {}, limit=limit)
    if session.json:
        screen.write_json(screen.encode(page))
        return
    rows = [
        (
            item.get("id"),
            item.get("held_at"),
            item.get("imported_at"),
            "lab" if item.get("lab") else "",
            item.get("title"),
        )
        for item in page["items"]
    ]
    screen.table(
        ("id", "held", "imported", "lab", "title"),
        rows,
        empty="No result of a ceremony was taken in yet.",
        spare=("imported", "lab"),
        folds=("title",),
    )


@remote
def show(
    session: Session,
    id: Annotated[str, typer.Argument(metavar="ID", help="The ceremony's id.")],
    transcript: Annotated[bool, typer.Option("--transcript", help="Print the transcript.")] = False,
    script: Annotated[bool, typer.Option("--script", help="Print the script.")] = False,
) -> None:
    """Show one ceremony."""
    from rootward.cli.client import segment

    answer = session.client.get(f"{_PATH}/{segment(id)}")
    value = answer.value
    if session.json:
        screen.write_json(answer.body)
        return
    if transcript or script:
        text = str(value.get("transcript" if transcript else "script"))
        screen.say("\n".join(screen.safe(line) for line in text.rstrip("\n").split("\n")))
        return
    fields = ("id", "title", "lab", "held_at", "imported_at", "imported_by", "script_sha256", "transcript_sha256")
    screen.details((name.removesuffix("_sha256").replace("_", " "), value.get(name)) for name in fields)
    made = (
        count(len(value.get(name) or []), noun) for name, noun in (("certificates", "certificate"), ("crls", "CRL"))
    )
    screen.say(f"It made {' and '.join(made)}.")


@remote
def requests(session: Session, limit: Limit = None) -> None:
    """List what offline authorities are asked to sign, and have not yet."""
    page = session.client.pages(_REQUESTS, {}, limit=limit)
    if session.json:
        screen.write_json(screen.encode(page))
        return
    rows = [
        tuple(item.get(name) for name in ("id", "kind", "authority", "subject", "made_at")) for item in page["items"]
    ]
    screen.table(
        ("id", "asks for", "of", "about", "since"),
        rows,
        empty="Nothing waits for a ceremony.",
        spare=("since",),
        folds=("about", "of"),
    )


@remote
def request(
    session: Session,
    id: Annotated[str, typer.Argument(metavar="ID", help="The request's id, as requests shows it.")],
    out: Annotated[Path, typer.Option("--out", help="A new file.")],
) -> None:
    """Write the file of a request, to be carried to the ceremony."""
    page = session.client.pages(_REQUESTS, {}, limit=None)
    found = [item for item in page["items"] if item.get("id") == id]
    if not found:
        raise Failure("There is no such open request.", next="rootward ceremony requests lists them.")
    digest = write_file(out, str(found[0]["file"]))
    screen.details([("file", out), ("sha256", digest)])
    screen.note(f"Next: rootward ceremony plan SCRIPT --under {found[0].get('authority')}=FILE --request {out}")


@remote
def crl_request(
    session: Session, name: Annotated[str, typer.Argument(metavar="NAME", help="The offline authority.")]
) -> None:
    """Ask for the next CRL of an offline authority, with all that is revoked under it now."""
    from rootward.cli.client import segment

    answer = session.client.post(f"/api/v1/authorities/{segment(name)}/crl-request", {})
    if session.json:
        screen.write_json(answer.body)
        return
    id = screen.safe(answer.value.get("id"))
    screen.say(f"The request is {id}.")
    screen.note(f"Next: rootward ceremony request {id} --out FILE")


@remote
def participants(
    session: Session,
    forget: Annotated[
        str | None, typer.Option("--forget", metavar="NAME", help="Let this one's signature count no more.")
    ] = None,
) -> None:
    """List whose signatures under transcripts count here."""
    path = "/api/v1/ceremony-participants"
    if forget is not None:
        answer = session.client.post(f"{path}/forget", {"name": forget})
        if session.json:
            screen.write_json(answer.body)
            return
        screen.say(f"{screen.safe(answer.value.get('name'))} is forgotten.")
        return
    page = session.client.pages(path, {}, limit=None)
    if session.json:
        screen.write_json(screen.encode(page))
        return
    rows = [(item.get("name"), item.get("key_id")) for item in page["items"]]
    screen.table(("name", "sha256 of the key"), rows, empty="Nobody is known yet: the next result brings them.")


def register(app: typer.Typer) -> None:
    """Put these commands under the noun."""
    app.command("import")(import_)
    app.command("list")(list_)
    app.command("show")(show)
    app.command("requests")(requests)
    app.command("request")(request)
    app.command("crl-request")(crl_request)
    app.command("participants")(participants)
