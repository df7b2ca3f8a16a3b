"""`rootward cert`: get, renew, revoke, import, list, show and verify certificates."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from rootward.cli import lookup, screen
from rootward.cli.failure import USAGE, Failure
from rootward.cli.options import Limit, Session, noun, remote

app = noun("Get, renew, revoke, import, list, show and verify certificates.")

_PATH = "/api/v1/certificates"
Which = Annotated[str, typer.Argument(metavar="ID|SERIAL", help="The certificate's id, or its serial in hex.")]
Out = Annotated[Path, typer.Option("--out", help="The folder for key.pem, cert.pem, chain.pem and fullchain.pem.")]
KeyType = Annotated[
    str | None, typer.Option("--key-type", help="p256 if not given; rsa-2048, p384, ed25519, ml-dsa-65, …")
]
CsrFile = Annotated[Path | None, typer.Option("--csr", help="A CSR of your own, PEM or DER; then no key is made.")]
Lifetime = Annotated[
    str | None, typer.Option("--lifetime", help="Such as 24h or 30d; the profile's default if not given.")
]
Owner = Annotated[str | None, typer.Option("--owner", help="Who is responsible for it.")]
Labels = Annotated[list[str] | None, typer.Option("--label", help="KEY=VALUE; repeats.")]


@app.command("issue")
@remote
def issue(
    session: Session,
    profile: Annotated[str, typer.Option("--profile", help="What kind of certificate.")],
    out: Out,
    name: Annotated[list[str] | None, typer.Option("--name", help="A name, address, URI or mailbox; repeats.")] = None,
    cn: Annotated[str | None, typer.Option("--cn", help="The common name.")] = None,
    key_type: KeyType = None,
    csr: CsrFile = None,
    lifetime: Lifetime = None,
    owner: Owner = None,
    label: Labels = None,
) -> None:
    """Get a certificate. The key is made here, and only a CSR is sent; the same command goes on where it stopped."""
    from rootward.cli import enrol

    names = enrol.names_of(name or [])
    algorithm = enrol.key_type(key_type or "p256")
    if csr is not None and (names or cn or key_type):
        raise Failure(
            "--csr has the names and the key already.", next="Leave --name, --cn and --key-type out.", exit=USAGE
        )
    if csr is None and not names and cn is None:
        raise Failure("There is nothing to certify.", next="Say it with --name (or --cn, or --csr).", exit=USAGE)
    asked: dict[str, Any] = {
        "profile": profile,
        "names": [str(item) for item in names],
        "cn": cn,
        "key_type": None if csr else str(algorithm),
        "csr": None if csr is None else enrol.read_csr(csr),
        "lifetime": lifetime,
        "owner": owner,
        "labels": _labels(label),
    }
    sent = ("profile", "csr", "lifetime", "owner", "labels")
    body = {field: asked[field] for field in sent if asked[field]}
    answer = enrol.enrol(session.client, out, asked=asked, body=body, algorithm=algorithm, names=names, common_name=cn)
    _got(session, answer.body, answer.value, out, own_key=csr is None)


@app.command("renew")
@remote
def renew(
    session: Session,
    which: Which,
    out: Out,
    key_type: KeyType = None,
    lifetime: Lifetime = None,
) -> None:
    """Get a successor with the same names and profile, and a new key. The old one stays valid until it expires or is
    revoked.
    """
    from rootward.cli import enrol

    old = lookup.certificate(session, which).value
    text = key_type or str(old.get("key_algorithm") or "p256")
    algorithm = enrol.key_type(text)
    asked: dict[str, Any] = {"renews": old["id"], "key_type": str(algorithm), "lifetime": lifetime}
    body = {
        "profile": old["profile"],
        "replaces": old["id"],
        "lifetime": lifetime,
        "owner": old.get("owner"),
        "labels": old.get("labels"),
    }
    answer = enrol.enrol(
        session.client,
        out,
        asked=asked,
        body={field: value for field, value in body.items() if value},
        algorithm=algorithm,
        names=enrol.parsed(old["names"]),
        common_name=enrol.common_name_of(old["certificate"]),
    )
    _got(session, answer.body, answer.value, out, own_key=True)


@app.command("revoke")
@remote
def revoke(
    session: Session,
    which: Which,
    reason: Annotated[
        str | None,
        typer.Option(
            "--reason", help="keyCompromise, superseded, cessationOfOperation, certificateHold, …; unspecified if none."
        ),
    ] = None,
) -> None:
    """Revoke a certificate. Only certificateHold can be taken back (cert release)."""
    with lookup.naming(which):
        answer = session.client.post(f"{lookup.path(which)}/revoke", {} if reason is None else {"reason": reason})
    _changed(session, answer.body, answer.value, reason)


@app.command("release")
@remote
def release(session: Session, which: Which) -> None:
    """Take a certificate off hold."""
    with lookup.naming(which):
        answer = session.client.post(f"{lookup.path(which)}/release", {})
    _changed(session, answer.body, answer.value)


@app.command("list")
@remote
def list_(
    session: Session,
    q: Annotated[str | None, typer.Option("--q", help="Any part of a name, 3 characters or more.")] = None,
    status: Annotated[str | None, typer.Option("--status", help="active, expired, revoked, held or orphan.")] = None,
    source: Annotated[str | None, typer.Option("--source", help="issued, imported or discovered.")] = None,
    owner: Annotated[str | None, typer.Option("--owner", help="Its owner.")] = None,
    authority: Annotated[str | None, typer.Option("--authority", help="Its authority.")] = None,
    profile: Annotated[str | None, typer.Option("--profile", help="Its profile.")] = None,
    expires_before: Annotated[str | None, typer.Option("--expires-before", help="A time, or from now on: 30d.")] = None,
    expires_after: Annotated[str | None, typer.Option("--expires-after", help="A time, or from now on: 30d.")] = None,
    limit: Limit = None,
) -> None:
    """List certificates."""
    query = {
        "q": q,
        "status": status,
        "source": source,
        "owner": owner,
        "authority": authority,
        "profile": profile,
        "expires_before": expires_before,
        "expires_after": expires_after,
    }
    page = session.client.pages(_PATH, query, limit=limit)
    if session.json:
        screen.write_json(screen.encode(page))
        return
    rows = [
        (
            item.get("status"),
            _some(item.get("names") or []),
            item.get("profile"),
            str(item.get("not_after") or "").removesuffix("Z")[:16].replace("T", " "),
            item.get("id"),
            item.get("serial"),
        )
        for item in page["items"]
    ]
    headings = ("status", "names", "profile", "expires (utc)", "id", "serial")
    spare = ("serial", "profile")
    screen.table(headings, rows, empty="No certificate matches.", spare=spare, folds=("names",))


@app.command("show")
@remote
def show(session: Session, which: Which) -> None:
    """Show one certificate."""
    answer = lookup.certificate(session, which)
    if session.json:
        screen.write_json(answer.body)
        return
    _details(answer.value)


@app.command("import")
@remote
def import_(
    session: Session,
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE…", help="PEM, DER, PKCS#7 or PKCS#12; each may hold many.")
    ],
    password_file: Annotated[
        Path | None, typer.Option("--password-file", help="The password of PKCS#12 files, on its first line.")
    ] = None,
    owner: Owner = None,
    label: Labels = None,
) -> None:
    """Take certificates of others into the inventory. Files are opened here: keys and passwords are not sent."""
    from rootward.cli import importing

    importing.run(session, files, password_file=password_file, owner=owner, labels=_labels(label))


@app.command("verify")
@remote
def verify(
    session: Session,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="The certificate, PEM or DER; with its chain, leaf first.")
    ],
    host: Annotated[str | None, typer.Option("--host", help="The name or address that it must be for.")] = None,
    roots: Annotated[
        Path | None, typer.Option("--roots", help="The roots to trust, PEM; else --ca-file and the home's.")
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Ask nobody about revocation.")] = False,
    purpose: Annotated[str | None, typer.Option("--purpose", help="server or client; server with --host.")] = None,
) -> None:
    """Say what a relying party would say: chain, validity, usage, names, revocation. Needs no server of ours."""
    from rootward.cli import verify as verifier

    verifier.verify(session, file, host=host, roots=roots, offline=offline, purpose=purpose)


def _labels(texts: list[str] | None) -> dict[str, str]:
    found = {}
    for text in texts or []:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise Failure(f"{text} is not a label.", next="Write it as --label team=payments.", exit=USAGE)
        found[key] = value
    return found


def _some(names: list[Any]) -> str:
    bare = screen.bare(names)
    return ", ".join(bare[:3]) + (f" and {len(bare) - 3} more" if len(bare) > 3 else "")


def _got(session: Session, body: bytes, value: dict[str, Any], out: Path, *, own_key: bool) -> None:
    if session.json:
        screen.write_json(body)
        return
    names = screen.safe(_some(value.get("names") or []) or value.get("id"))
    screen.say(f"Certificate for {names}, until {screen.safe(value.get('not_after'))}.")
    screen.details([("id", value.get("id")), ("serial", value.get("serial")), ("sha256", value.get("sha256"))])
    files = ("key.pem", "cert.pem", "chain.pem", "fullchain.pem")[0 if own_key else 1 :]
    screen.say(f"In {screen.safe(out)}: {', '.join(files)}.")


def _changed(session: Session, body: bytes, value: dict[str, Any], reason: str | None = None) -> None:
    if session.json:
        screen.write_json(body)
        return
    why = "" if reason is None else f" ({screen.safe(reason)})"
    screen.say(f"{screen.safe(value.get('serial'))} is {screen.safe(value.get('status'))}{why}.")


def _details(value: dict[str, Any]) -> None:
    chain = value.get("chain_state") or {}
    urls = value.get("urls") or {}
    screen.details(
        [
            *(
                (field.replace("_", " "), value.get(field))
                for field in ("id", "serial", "status", "reason", "revoked_at")
            ),
            *((field, value.get(field)) for field in ("names", "subject", "profile")),
            ("version", value.get("profile_version")),
            *((field.replace("_", " "), value.get(field)) for field in ("authority", "not_before", "not_after")),
            *(
                (field.replace("_", " "), value.get(field))
                for field in ("issued_at", "requester", "owner", "labels", "source")
            ),
            *((field.replace("_", " "), value.get(field)) for field in ("replaces", "replaced_by", "request_id")),
            ("key", value.get("key_algorithm")),
            ("key id", value.get("key_id")),
            ("sha256", value.get("sha256")),
            ("crl", urls.get("crl")),
            ("ocsp", urls.get("ocsp")),
            ("issuer at", urls.get("issuer")),
        ]
    )
    if chain:
        words = " ".join(map(str, chain.get("reasons") or ["Valid."]))
        screen.steps([("ok" if chain.get("valid") else "failed", "chain", words)])
