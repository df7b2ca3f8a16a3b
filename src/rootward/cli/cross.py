"""`rootward ca cross`: cross-signed certificates of an authority."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Annotated, Any

import typer

from rootward.cli import screen
from rootward.cli.authority import leave_request
from rootward.cli.failure import USAGE, Failure
from rootward.cli.options import Limit, Session, noun, remote
from rootward.core.problems import Problem

app = noun("Manage cross-signed certificates of an authority: further ways to other roots.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="The authority's name.")]
By = Annotated[
    str, typer.Option("--by", metavar="AUTHORITY", help="The offline authority that signs it, in its ceremony.")
]


@app.command("list")
@remote
def list_(session: Session, name: Name, limit: Limit = None) -> None:
    """List those in use."""
    page = session.client.pages(_path(name), {}, limit=limit)
    if session.json:
        screen.write_json(screen.encode(page))
        return
    rows = [tuple(item.get(field) for field in ("sha256", "not_after", "added_at", "issuer")) for item in page["items"]]
    screen.table(
        ("sha256", "expires", "added", "issuer"),
        rows,
        empty="There is no cross-signed certificate.",
        spare=("added",),
        folds=("issuer", "sha256"),
    )


@app.command("request")
@remote
def request(
    session: Session,
    name: Name,
    by: By,
    out: Annotated[
        Path | None, typer.Option("--out", help="Where the file goes; NAME-by-AUTHORITY-request.json if not given.")
    ] = None,
) -> None:
    """Ask an offline authority for one: write the file for its ceremony. The result brings it into use."""
    answer = session.client.post(f"{_path(name)}/requests", {"by": by})
    if session.json:
        screen.write_json(answer.body)
    path = out or Path(f"{name}-by-{by}-request.json")
    leave_request(f"{name} waits to be certified by {by}.", str(answer.value["file"]), path, quiet=session.json)


@app.command("withdraw")
@remote
def withdraw(session: Session, name: Name, by: By) -> None:
    """Take back what an offline authority was asked for."""
    answer = session.client.post(f"{_path(name)}/requests/withdraw", {"by": by})
    if session.json:
        screen.write_json(answer.body)
        return
    screen.say(
        f"{screen.safe(by)} is asked for no certificate of {screen.safe(name)} any more. A ceremony's result that "
        "brings it all the same is refused."
    )


@app.command("add")
@remote
def add(
    session: Session,
    name: Name,
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="PEM: the cross-signed certificate, then all above it, up to the root."),
    ],
) -> None:
    """Add one. From then on ACME clients can choose its chain."""
    chain = _certificates(file)
    _told(session, session.client.post(_path(name), {"chain": chain}), "is added")


@app.command("remove")
@remote
def remove(
    session: Session,
    name: Name,
    sha256: Annotated[str, typer.Argument(metavar="SHA256", help="Its SHA-256 in hex, as list shows it.")],
) -> None:
    """Use one no longer. It can be added again."""
    from rootward.cli.client import segment

    wanted = sha256.replace(":", "").lower()
    _told(session, session.client.post(f"{_path(name)}/{segment(wanted)}/remove", {}), "is removed")


def _certificates(file: Path) -> str:
    """The certificates of a file in its order, PEM: nothing else of it leaves this machine."""
    from rootward.core.upload import read_upload

    try:
        items = read_upload(file.read_bytes())
    except OSError as error:
        raise Failure(f"{file} cannot be read.", f"{error.strerror}.", exit=USAGE) from error
    except Problem as problem:
        raise Failure(f"{file} holds no certificates that can be read.", problem.detail, exit=USAGE) from None
    why = dict.fromkeys(item.refused.detail for item in items if item.refused is not None)
    if why:
        raise Failure(f"{file} must hold certificates and nothing else.", *why, exit=USAGE)
    return "".join(ssl.DER_cert_to_PEM_cert(item.der) for item in items)


def _path(name: str) -> str:
    from rootward.cli.client import segment

    return f"/api/v1/authorities/{segment(name)}/cross-certificates"


def _told(session: Session, answer: Any, what: str) -> None:
    if session.json:
        screen.write_json(answer.body)
        return
    value = answer.value
    screen.say(f"The certificate by {screen.safe(value.get('issuer'))} {what}: {screen.safe(value.get('sha256'))}.")
