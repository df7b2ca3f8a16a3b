"""`rootward ca create|renew|request|withdraw|install|revoke`: new authorities, and the end of one.

In a home whose installation is not founded yet there is no server: there `create` and its likes work on the home
itself, and the first ceremony's result founds it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from rootward.cli import request as proposal
from rootward.cli import screen
from rootward.cli.connection import home_of
from rootward.cli.failure import USAGE, Failure
from rootward.cli.options import Session, remote
from rootward.cli.paper import read_file, write_file

_PATH = "/api/v1/authorities"
Name = Annotated[str, typer.Argument(metavar="NAME", help="The authority's name.")]
Domains = Annotated[list[str] | None, typer.Option("--domain", help="A suffix below which names are allowed; repeats.")]
Out = Annotated[
    Path | None, typer.Option("--out", help="Where the file goes; NAME-request.json or NAME-csr.pem if not given.")
]


@remote
def create(
    session: Session,
    name: Name,
    parent: Annotated[
        str | None,
        typer.Option("--parent", help="The authority that certifies it: in a ceremony, where it is offline."),
    ] = None,
    external: Annotated[bool, typer.Option("--external", help="Somebody else's CA certifies it: write a CSR.")] = False,
    cn: Annotated[str | None, typer.Option("--cn", help="Its common name.")] = None,
    org: Annotated[str | None, typer.Option("--org", help="Its organisation; the home's if not given.")] = None,
    country: Annotated[str, typer.Option("--country", help="Its country, two letters.")] = "",
    key_type: Annotated[str, typer.Option("--key-type", help="p256, p384, rsa-3072, ed25519 and so on.")] = "p256",
    lifetime: Annotated[str, typer.Option("--lifetime", help="How long its certificate lasts.")] = "5y",
    spec: Annotated[
        Path | None,
        typer.Option("--spec", help="All of it, with name constraints and policies, as YAML or JSON."),
    ] = None,
    key_store: Annotated[
        str, typer.Option("--key-store", help="A \\[keys.NAME] of rootward.toml; the home's own files if not given.")
    ] = "",
    out: Out = None,
) -> None:
    """Make the key of a new issuing authority, and the file that asks for its certificate."""
    if external is (parent is not None):
        raise Failure("Say who certifies it: --parent NAME, or --external.", exit=USAGE)
    given = _spec(name, spec, cn=cn, org=org, country=country, key_type=key_type, lifetime=lifetime, session=session)
    if is_local(session):
        from rootward import begin
        from rootward.core.authority import read_spec

        pending, asked = begin.create(home_of(session.flags), read_spec(given), parent, key_store or "file")
        _leave(name, asked.body.decode(), _csr(pending.csr) if external else None, out)
        return
    answer = session.client.post(_PATH, {"spec": given, "parent": parent, "key_store": key_store})
    if answer.status == 202:
        proposal.wait(answer, f"Certifying {name} under {parent}")
    if session.json:
        screen.write_json(answer.body)
    _leave(name, str(answer.value["file"]), str(answer.value["csr"]) if external else None, out, quiet=session.json)


@remote
def renew(
    session: Session,
    name: Name,
    successor: Annotated[
        str, typer.Option("--as", help="The new authority's name: an authority has one key for good.")
    ],
    key_store: Annotated[
        str, typer.Option("--key-store", help="A \\[keys.NAME] of rootward.toml; where the old key is if not given.")
    ] = "",
    out: Out = None,
) -> None:
    """Make the key of an authority that can take the place of another one, of the same kind and for the same names, and
    the file that asks for its certificate. When it is certified, two people let it: ca succeed, or ca compromise.
    """
    answer = session.client.post(f"{_named(name)}/renew", {"successor": successor, "key_store": key_store})
    if session.json:
        screen.write_json(answer.body)
    csr = None if answer.value.get("authority") else str(answer.value["csr"])
    _leave(successor, str(answer.value["file"]), csr, out, quiet=session.json)


@remote
def request(
    session: Session,
    name: Name,
    csr: Annotated[bool, typer.Option("--csr", help="Write the CSR alone, for somebody else's CA.")] = False,
    out: Out = None,
) -> None:
    """Write the file again that asks for an authority's certificate."""
    if is_local(session):
        from rootward import begin

        pending, asked = begin.request(home_of(session.flags), name)
        _leave(name, asked.body.decode(), _csr(pending.csr) if csr else None, out)
        return
    answer = session.client.get(f"{_named(name)}/request")
    if session.json:
        screen.write_json(answer.body)
        return
    _leave(name, str(answer.value["file"]), str(answer.value["csr"]) if csr else None, out)


@remote
def withdraw(session: Session, name: Name) -> None:
    """Give up an authority that waits for its certificate: its key is deleted, its name is free."""
    if is_local(session):
        from rootward import begin

        begin.withdraw(home_of(session.flags), name)
    else:
        answer = session.client.post(f"{_named(name)}/withdraw", {})
        if session.json:
            screen.write_json(answer.body)
            return
    screen.say(f"{screen.safe(name)} is given up. A ceremony that certifies it all the same is refused.")


@remote
def install(
    session: Session,
    name: Name,
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="PEM: the new certificate, then all above it, up to the root."),
    ],
    parents: Annotated[
        list[str] | None,
        typer.Option("--parent-name", help="What a CA above that is new here is called, nearest first; repeats."),
    ] = None,
    domain: Domains = None,
) -> None:
    """Take the certificate that somebody else's CA made for an authority that waits for it. In an empty home it founds
    the installation.
    """
    chain = read_file(file, "a chain of certificates")
    if is_local(session):
        from rootward import begin

        home = home_of(session.flags)
        made = begin.install(home, name, chain.encode(), parents or [], tuple(domain or ()))
        screen.details([("authorities", ", ".join(made))])
        screen.say(
            f"The installation of {screen.safe(home)} is founded. Next: rootward serve --home {screen.safe(home)}"
        )
        return
    if domain:
        raise Failure("--domain is for the certificate that founds an installation.", exit=USAGE)
    answer = session.client.post(f"{_named(name)}/certificate", {"chain": chain, "parents": parents or []})
    _state(session, answer)


@remote
def revoke(
    session: Session,
    name: Name,
    reason: Annotated[str, typer.Option("--reason", help="A name of RFC 5280 5.3.1.")] = "unspecified",
) -> None:
    """Revoke an authority's certificate: it and all below it issue nothing more. A second person must agree."""
    answer = session.client.post(f"{_named(name)}/revoke", {"reason": reason})
    if answer.status == 202:
        proposal.wait(answer, f"Revoking {name}")
    _state(session, answer)
    parent = answer.value.get("parent")
    if not session.json and parent:
        screen.note(
            f"Where {screen.safe(parent)} is offline, its next CRL is asked for: rootward ceremony requests. Until it "
            "is signed and imported, relying parties do not know."
        )


def _spec(name: str, file: Path | None, *, org: str | None, session: Session, **given: Any) -> dict[str, Any]:
    if file is not None:
        from rootward.cli.profile import read_yaml

        found = read_yaml(file, "authority")
        return {"kind": "issuing", **found, "name": name}
    home = home_of(session.flags)
    if org is None and (home / "rootward.toml").exists():
        from rootward.config import load_config

        org = load_config(home, os.environ, {}).org
    cn = given["cn"] or " ".join(word for word in (org, name.replace("-", " ").title(), "CA") if word)[:64]
    made = {"name": name, "kind": "issuing", "common_name": cn, "key_algorithm": given["key_type"]}
    made |= {"organization": (org or "")[:64], "country": given["country"], "lifetime": given["lifetime"]}
    return {field: value for field, value in made.items() if value}


def is_local(session: Session) -> bool:
    """Whether this is about a home without an installation, so that there is no server to ask."""
    if session.flags.url or os.environ.get("ROOTWARD_URL"):
        return False
    from rootward import begin

    return begin.is_unfounded(home_of(session.flags))


def _leave(name: str, file: str, csr: str | None, out: Path | None, *, quiet: bool = False) -> None:
    """Write what travels, and say where it goes."""
    if csr is None:
        leave_request(f"{name} waits for its certificate.", file, out or Path(f"{name}-request.json"), quiet=quiet)
        return
    then = f"Have it certified, then: rootward ca install {name} CHAIN --parent-name NAME"
    _write(then, csr, out or Path(f"{name}-csr.pem"), quiet=quiet)


def leave_request(what: str, file: str, path: Path, *, quiet: bool) -> None:
    """Write the file of a request that goes to a ceremony; `what` waits for it, in a sentence."""
    then = (
        f"{what} Next: a ceremony's script that has this request, rootward ceremony plan "
        f"SCRIPT --request {path}; compare this hash there. Then: rootward ceremony import RESULT."
    )
    _write(then, file, path, quiet=quiet)


def _write(then: str, text: str, path: Path, *, quiet: bool) -> None:
    digest = write_file(path, text)
    if not quiet:
        screen.details([("file", path), ("sha256", digest)])
        screen.note(screen.safe(then))


def _state(session: Session, answer: Any) -> None:
    if session.json:
        screen.write_json(answer.body)
        return
    screen.say(f"{screen.safe(answer.value.get('name'))} is {screen.safe(answer.value.get('state'))}.")


def _csr(der: bytes) -> str:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    return x509.load_der_x509_csr(der).public_bytes(Encoding.PEM).decode()


def _named(name: str) -> str:
    from rootward.cli.client import segment

    return f"{_PATH}/{segment(name)}"
