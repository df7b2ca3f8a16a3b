"""`rootward ca`: the authorities."""

from __future__ import annotations

from typing import Annotated

import typer

from rootward.cli import adopting, authority, cross, replacement, screen, subordinate
from rootward.cli.options import Limit, Session, noun, remote

app = noun("See the authorities; make new ones; stop one from issuing.")
app.add_typer(cross.app, name="cross")
replacement.add_to(app)
app.command("sign")(subordinate.sign)
for _verb in ("create", "renew", "request", "withdraw", "install", "revoke"):
    app.command(_verb)(getattr(authority, _verb))
app.command("import")(adopting.import_)

_PATH = "/api/v1/authorities"
Name = Annotated[str, typer.Argument(metavar="NAME", help="The authority's name.")]
Why = Annotated[str | None, typer.Option("--reason", help="For people; it goes into the event.")]


@app.command("list")
@remote
def list_(session: Session, limit: Limit = None) -> None:
    """List the authorities."""
    page = session.client.pages(_PATH, {}, limit=limit)
    if session.json:
        screen.write_json(screen.encode(page))
        return
    rows = [
        (
            item.get("name"),
            f"{item.get('kind')} (lab)" if item.get("lab") else item.get("kind"),
            *(item.get(field) for field in ("state", "key_algorithm", "key_state", "not_after", "subject")),
        )
        for item in page["items"]
    ]
    screen.table(
        ("name", "kind", "state", "key", "key state", "expires", "subject"),
        rows,
        empty="There is no authority yet.",
        spare=("key state",),
        folds=("subject",),
    )


@app.command("show")
@remote
def show(
    session: Session,
    name: Name,
    pem: Annotated[bool, typer.Option("--pem", help="Print its certificate and chain, root last.")] = False,
) -> None:
    """Show one authority."""
    from rootward.cli.client import segment

    answer = session.client.get(f"{_PATH}/{segment(name)}")
    value = answer.value
    if session.json:
        screen.write_json(answer.body)
        return
    if pem:
        text = str(value.get("chain") or value.get("certificate") or "")
        screen.say("\n".join(screen.safe(line) for line in text.strip().split("\n")))
        return
    crl = value.get("crl") or {}
    screen.details(
        [
            *((field, value.get(field)) for field in ("name", "kind", "state", "subject", "serial")),
            ("lab", "a single-tier lab: the root is online, never rely on it" if value.get("lab") else None),
            ("parent", value.get("parent")),
            ("key store", value.get("key_store")),
            ("key", value.get("key_algorithm")),
            ("key state", value.get("key_state")),
            ("key destroyed", value.get("destroyed_at")),
            ("key id", value.get("key_id")),
            ("not before", value.get("not_before")),
            ("not after", value.get("not_after")),
            ("sha256", value.get("sha256")),
            ("crl", crl.get("url")),
            ("crl number", crl.get("number")),
            ("crl from", crl.get("this_update")),
            ("crl until", crl.get("next_update")),
            ("crl entries", crl.get("entries")),
            ("ocsp", value.get("ocsp_url")),
            ("successor", value.get("successor")),
        ]
    )


@app.command("freeze")
@remote
def freeze(session: Session, name: Name, reason: Why = None) -> None:
    """Stop an authority from issuing, at once. Its CRL and OCSP go on, and revoking works."""
    _change(session, name, "freeze", reason)


@app.command("unfreeze")
@remote
def unfreeze(session: Session, name: Name, reason: Why = None) -> None:
    """Let an authority issue again."""
    _change(session, name, "unfreeze", reason)


def _change(session: Session, name: str, verb: str, reason: str | None) -> None:
    from rootward.cli.client import segment

    answer = session.client.post(f"{_PATH}/{segment(name)}/{verb}", {} if reason is None else {"reason": reason})
    if session.json:
        screen.write_json(answer.body)
        return
    screen.say(f"{screen.safe(answer.value.get('name'))} is {screen.safe(answer.value.get('state'))}.")
