"""`rootward acme snippet`: a configuration of an ACME client for the server that the command line talks to."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from rootward.cli import screen
from rootward.cli.failure import USAGE, Failure
from rootward.cli.options import Session, remote
from rootward.cli.snippets import SNIPPETS, Facts, render

if TYPE_CHECKING:
    from rootward.core.profile import Profile

_DIRECTORY = re.compile(r"https://[A-Za-z0-9.:\[\]-]+/acme/[a-z0-9-]+/")  # nothing that a shell or YAML would take up
_PATH = re.compile(r"/[\w./+@=,: -]*")
_PLACE = "NAME"  # for the host's name, where none was given

Client = Annotated[
    Literal["certbot", "lego", "caddy", "nginx", "apache", "traefik", "cert-manager", "acme.sh"],
    typer.Option("--client", help="The client. The output says whether a test of Rootward runs it."),
]


@remote
def snippet(
    session: Session,
    client: Client,
    profile: Annotated[str, typer.Option("--profile", help="What kind of certificate: the profile.")],
    name: Annotated[
        list[str] | None, typer.Option("--name", help="A name of the host; repeats. The first names files.")
    ] = None,
    root: Annotated[
        Path | None,
        typer.Option("--root", help="Where root.pem is on the client's host; where it is here if not given."),
    ] = None,
) -> None:
    """Print a configuration for an ACME client that works as pasted."""
    names = tuple(_host(one) for one in name or ()) or (_PLACE,)
    found = _profile(session, profile)
    proof = SNIPPETS[client].proof
    if found.acme.accounts == "none":
        raise Failure(
            f"The profile {profile} takes no ACME accounts.",
            next="Set accounts under acme to bound or open: rootward profile show NAME --yaml, then profile update.",
        )
    if found.acme.challenges and proof not in found.acme.challenges:
        raise Failure(
            f"The profile {profile} does not take {proof}, by which this configuration proves names.",
            f"It takes {', '.join(found.acme.challenges)}.",
            next="Configure the client by its own manual, with the profile's directory URL.",
        )
    path, anchors = _root(session, root)
    facts = Facts(_directory(session, profile), names, path, anchors, found.acme.accounts == "bound", _days(found))
    text = render(client, facts)
    if session.json:
        told: dict[str, Any] = {"client": client, "profile": profile, "directory": facts.directory}
        screen.write_json(screen.encode({**told, "tested": SNIPPETS[client].tested, "text": text}))
        return
    screen.say(text.removesuffix("\n"))


def _host(text: str) -> str:
    """A name that http-01 proves and every one of these clients takes. Problem RW-NAME for others."""
    from rootward.core.names import parse_host

    return parse_host(text, field="--name").value


def _profile(session: Session, name: str) -> Profile:
    import msgspec

    from rootward.cli.client import segment
    from rootward.core.profile import Profile

    answer = session.client.get(f"/api/v1/profiles/{segment(name)}").value
    return msgspec.convert(answer.get("profile"), Profile)


def _directory(session: Session, profile: str) -> str:
    """As the server writes it in its own directory: of `external_url`, whatever address we call it by."""
    from rootward.cli.client import segment

    said = session.client.get(f"/acme/{segment(profile)}/directory").value
    base = str(said.get("newNonce")).removesuffix("new-nonce")
    if not _DIRECTORY.fullmatch(base):
        raise Failure("The server's ACME directory cannot be read.", f"Its newNonce is {screen.safe(base)}.")
    return f"{base}directory"


def _root(session: Session, asked: Path | None) -> tuple[str | None, bytes]:
    """The path that the snippet names, and the file here; None where the system's store vouches for the server."""
    from rootward.cli.connection import ca_file_of

    here = ca_file_of(session.flags)
    anchors = here.read_bytes() if here is not None else b""
    said = asked or here
    path = None if said is None else os.path.abspath(said)
    if path is not None and not _PATH.fullmatch(path):
        what = f"{screen.safe(path)} has characters that not every configuration can hold."
        raise Failure(what, next="Name a plain path with --root, and put root.pem there.", exit=USAGE)
    return path, anchors


def _days(profile: Profile) -> int:
    """How long certificates live, in whole days."""
    from rootward.core.times import parse_duration

    return parse_duration(profile.lifetime.default).days
