"""`rootward signer`: the process that holds authorities' keys beside the server, and what its administrator pins on its
host. Nothing here speaks to a server.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rootward.cli import screen
from rootward.cli.failure import USAGE, Failure
from rootward.cli.options import noun
from rootward.core.times import rfc3339

if TYPE_CHECKING:
    from rootward.core.profile import Profile

app = noun("Hold authorities' keys in a process of its own, and say there what it signs.")

Home = Annotated[
    Path,
    typer.Option(
        "--home", envvar="ROOTWARD_SIGNER_HOME", show_envvar=False, help="The signer's home. (ROOTWARD_SIGNER_HOME)"
    ),
]
_HOME, _SOCKET = Path("/var/lib/rootward-signer"), Path("/run/rootward-signer/signer.sock")
Name = Annotated[str, typer.Argument(metavar="NAME", help="The authority's name.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]


@app.command("init")
def init(
    peer: Annotated[
        list[str], typer.Option("--peer", help="Who may ask: the user that the web process runs as; repeats.")
    ],
    home: Home = _HOME,
    socket: Annotated[Path, typer.Option("--socket", help="Where it listens.")] = _SOCKET,
) -> None:
    """Make a signer's home: settings and a key-encryption key."""
    from rootward.signer import home as homes

    homes.make(home, socket=socket, peers=peer)
    screen.say(f"{screen.safe(home)} is a signer's home now. Limits and who may ask are in its signer.toml.")


@app.command("generate")
def generate(
    name: Name,
    home: Home = _HOME,
    key_type: Annotated[str, typer.Option("--key-type", help="p256, p384, rsa-3072, ed25519, ml-dsa-65, …")] = "p256",
    cn: Annotated[str | None, typer.Option("--cn", help="Its common name; NAME if not given.")] = None,
    org: Annotated[str, typer.Option("--org", help="Its organisation.")] = "",
    country: Annotated[str, typer.Option("--country", help="Its country, two letters.")] = "",
    out: Annotated[Path | None, typer.Option("--out", help="A file for the CSR; standard output if not given.")] = None,
) -> None:
    """Make an authority's key, and the CSR that gets it certified."""
    from rootward.cli import enrol
    from rootward.core.authority import AuthoritySpec
    from rootward.signer import home as homes
    from rootward.signer.settings import read_settings

    spec = AuthoritySpec(
        name=name,
        kind="issuing",
        common_name=cn or name,
        organization=org,
        country=country,
        key_algorithm=enrol.key_type(key_type),
    )
    settings = read_settings(home)
    made = homes.generate(settings, homes.open_store(settings, os.environ), spec)
    if out is None:
        screen.say(made.csr.rstrip("\n"))
    else:
        out.write_text(made.csr)
    screen.note(f"The key of {name} is made ({made.key_id}). Have its CSR certified, then: rootward signer install.")


@app.command("install")
def install(
    name: Name,
    certificate: Annotated[
        Path, typer.Option("--certificate", help="PEM: its certificate, and the chain where that is in the same file.")
    ],
    pki_url: Annotated[
        str, typer.Option("--pki-url", help="pki_url of the server's settings: it is in every certificate.")
    ],
    chain: Annotated[Path | None, typer.Option("--chain", help="PEM: the CAs above it, up to the root.")] = None,
    home: Home = _HOME,
) -> None:
    """Pin an authority's certificate and chain. From then on its key signs."""
    from cryptography import x509

    from rootward.signer import home as homes
    from rootward.signer.settings import read_settings

    pem = b"\n".join(path.read_bytes() for path in (certificate, *([chain] if chain else [])))
    made = homes.install(read_settings(home), name, pem, pki_url)
    found = x509.load_pem_x509_certificate(made.chain[0].encode())
    screen.say(f"{name} is installed: {found.subject.rfc4514_string()}, until {rfc3339(found.not_valid_after_utc)}.")


@app.command("accept")
def accept(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="What rootward profile show NAME --json printed; - for standard input."),
    ],
    home: Home = _HOME,
    yes: Yes = False,
) -> None:
    """Accept a version of a profile, in the place of the one before, once you have read what it allows."""
    from rootward.core.widening import differences, values
    from rootward.signer import home as homes
    from rootward.signer.settings import read_settings

    profile, version = _read(file)
    settings = read_settings(home)
    before = next((one for one in homes.accepted(home) if one.profile.name == profile.name), None)
    if before is None:
        screen.say(f"{profile.name} version {version} of {profile.authority} is new here. It allows:")
        screen.details((field, _shown(value)) for field, value in values(profile))
    else:
        found = differences(before.profile, profile)
        screen.say(
            f"{profile.name} version {version} of {profile.authority}, against version {before.version}, which is "
            f"accepted now: {'no difference' if not found else ''}"
        )
        for one in found:
            mark = "WIDER" if one.wider else "narrower"
            screen.say(f"  {mark}  {one.field}: {screen.safe(_shown(one.before))} -> {screen.safe(_shown(one.after))}")
    if profile.approval.required != "never":
        screen.note(
            "This profile wants approvals. The signer cannot see them: it has only the web process's word for that."
        )
    if not yes and not _agreed():
        raise Failure("Nothing was accepted.")
    made = homes.accept(settings, profile, version)
    screen.say(f"Accepted: {profile.name} version {version}, SHA-256 {made.sha256}. A running signer takes it at once.")


@app.command("forget")
def forget(
    profile: Annotated[str, typer.Argument(metavar="PROFILE", help="The profile's name.")], home: Home = _HOME
) -> None:
    """Accept no version of a profile any more."""
    from rootward.signer import home as homes
    from rootward.signer.settings import read_settings

    read_settings(home)
    homes.forget(home, profile)
    screen.say(f"No version of {profile} is accepted any more.")


@app.command("let-go")
def let_go(
    name: Name,
    serials: Annotated[
        list[str], typer.Argument(metavar="SERIAL...", help="40 hex digits each, as a refusal has them.")
    ],
    home: Home = _HOME,
    yes: Yes = False,
) -> None:
    """Allow CRLs to leave out certificates that were revoked, as when the server lost them with its database."""
    from rootward.signer import home as homes

    screen.note("Whoever has these certificates and their keys is no longer told to be revoked.")
    if not yes and not _agreed():
        raise Failure("Nothing was let go.")
    homes.let_go(home, name, serials)
    screen.say(f"CRLs of {name} may leave out {', '.join(serials)}.")


@app.command("show")
def show(home: Home = _HOME) -> None:
    """Show the keys, and the versions of profiles that are accepted."""
    from rootward.signer import home as homes
    from rootward.signer.settings import read_settings

    read_settings(home)
    keys = [
        (one.name, one.key_id, "installed" if one.chain else "waits for its certificate")
        for one in homes.authorities(home)
    ]
    screen.table(("authority", "key id", "state"), keys, empty="There is no key yet.")
    screen.say()
    rows = [
        (one.profile.name, one.version, one.profile.authority, one.accepted_at, one.sha256)
        for one in homes.accepted(home)
    ]
    screen.table(("profile", "version", "authority", "accepted", "sha256"), rows, empty="No profile is accepted yet.")


@app.command("journal")
def journal(
    home: Home = _HOME,
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most so many, the newest first.")] = 50,
) -> None:
    """Show what was signed and what was refused."""
    from rootward.signer.journal import read_entries

    rows = [
        (rfc3339(one.at), one.kind, one.what, "" if one.tbs is None else one.tbs.hex(), one.peer, one.why)
        for one in read_entries(home, limit=limit)
    ]
    screen.table(
        ("at", "kind", "what", "tbs sha256", "peer", "why"),
        rows,
        empty="Nothing yet.",
        spare=("tbs sha256", "peer", "what"),
        folds=("why",),
    )


@app.command("run")
def run(home: Home = _HOME) -> None:
    """Serve the keys at the socket until it is told to end. No core is written, and no debugger gets in."""
    from rootward.signer.process import run as serve
    from rootward.telemetry import configure_logging

    configure_logging("console", "info", stream=sys.stderr)
    serve(home, os.environ, screen.say)


def _read(file: Path) -> tuple[Profile, int]:
    """A profile and its version, of what `profile show --json` prints."""
    import msgspec

    from rootward.core.profile import parse_profile

    data = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    try:
        found: Any = msgspec.json.decode(data)
        version, profile = found["version"], msgspec.json.encode(found["profile"])
    except (msgspec.DecodeError, UnicodeDecodeError, TypeError, KeyError) as error:
        raise Failure(
            f"{file} holds no version of a profile.",
            next="rootward profile show NAME --json, on the server's side, prints one.",
            exit=USAGE,
        ) from error
    if not isinstance(version, int) or version < 1:
        raise Failure(f"{file} has no version number.", exit=USAGE)
    return parse_profile(profile), version


def _shown(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_shown, value)) or "none"
    if isinstance(value, dict):
        return "; ".join(f"{key}: {_shown(inner)}" for key, inner in value.items())
    return "none" if value == "" else str(value)


def _agreed() -> bool:
    screen.note("Do you agree? Type yes:")
    return sys.stdin.readline().strip() == "yes"
