"""What runs on the server's own machine: `quickstart`, `init`, `serve`, and the repairs that need no server."""

from __future__ import annotations

import os
from typing import Annotated, Final

import typer

from rootward.cli import screen
from rootward.cli.connection import home_of
from rootward.cli.failure import USAGE, Failure
from rootward.cli.options import Session, local

Https = Annotated[
    str | None, typer.Option("--https", help="Where HTTPS listens; 127.0.0.1:8443 if not given. (ROOTWARD_HTTPS)")
]
Mtls = Annotated[
    str | None,
    typer.Option("--mtls", help="HTTPS with client certificates; 127.0.0.1:8444 if not given. (ROOTWARD_MTLS)"),
]
Http = Annotated[
    str | None,
    typer.Option("--http", help="CRL, OCSP, issuer certificates; 127.0.0.1:8080 if not given. (ROOTWARD_HTTP)"),
]
Hosts = Annotated[list[str] | None, typer.Option("--host", help="A name in the server's own certificate; repeats.")]
Org = Annotated[str | None, typer.Option("--org", help="The organisation's name.")]
Domains = Annotated[list[str] | None, typer.Option("--domain", help="A suffix below which names are allowed; repeats.")]


def _app() -> typer.Typer:
    return typer.Typer(rich_markup_mode="rich", add_completion=False)


_quickstart, _init, _serve = _app(), _app(), _app()
COMMANDS: Final = {"quickstart": _quickstart, "init": _init, "serve": _serve}


@_quickstart.command("quickstart")
@local
def quickstart(
    session: Session,
    https: Https = None,
    mtls: Mtls = None,
    http: Http = None,
    host: Hosts = None,
    org: Org = None,
    domain: Domains = None,
) -> None:
    """Run a whole PKI. An empty home first gets a root and an issuing authority, in a lab ceremony. It asks nothing."""
    from rootward import quickstart as lab

    lab.quickstart(
        home=home_of(session.flags),
        https=https or os.environ.get("ROOTWARD_HTTPS"),
        mtls=mtls or os.environ.get("ROOTWARD_MTLS"),
        http=http or os.environ.get("ROOTWARD_HTTP"),
        hosts=host or [],
        org=org,
        domains=domain or [],
    )


@_init.command("init")
@local
def init(
    session: Session,
    host: Hosts = None,
    org: Org = None,
    domain: Domains = None,
    pki_url: Annotated[
        str | None, typer.Option("--pki-url", help="Where CRLs and OCSP are found: it is in every certificate.")
    ] = None,
    external_url: Annotated[str | None, typer.Option("--external-url", help="What clients call the server.")] = None,
    single_tier: Annotated[
        bool,
        typer.Option("--single-tier", help="A lab with an online root and nothing else. It says so for ever."),
    ] = False,
) -> None:
    """Make a home without authorities. rootward ca create asks for the first one."""
    from rootward import begin
    from rootward import quickstart as lab
    from rootward.config import Config

    home = home_of(session.flags)
    # Its own machine calls it localhost, whatever others call it (cli.connection).
    hosts = list(dict.fromkeys([*host, *Config().hosts])) if host else None
    flags = {"org": org, "hosts": hosts, "pki_url": pki_url, "external_url": external_url}
    if single_tier:
        lab.init_home(home, flags | lab.lab_flags())
        begin.found_single_tier(home, "file", tuple(domain or ()))
        screen.note("This is a single-tier lab: its root is online, and every certificate says so. Never rely on it.")
        screen.tell(f"{home} is a home now, with a root that issues.")
        screen.note(f"Next: rootward serve --home {home}")
        return
    if domain:
        raise Failure("--domain is for rootward ceremony import, or --single-tier.", exit=USAGE)
    lab.init_home(home, flags)
    screen.tell(f"{home} is a home now, without authorities.")
    screen.note(f"Next: rootward ca create issuing --parent root --home {home}")


@_serve.command("serve")
@local
def serve(session: Session) -> None:
    """Serve a home that is there."""
    from rootward import quickstart as lab

    lab.serve_home(home_of(session.flags))


def recover(session: Session) -> None:
    """`rootward access recover`."""
    from rootward import quickstart as lab

    screen.note(f"A new token is in {lab.recover(home_of(session.flags))}. The old one no longer works.")


def accept_clock(session: Session) -> None:
    """`rootward doctor --accept-clock`."""
    from rootward import quickstart as lab

    lab.accept_clock(home_of(session.flags))
    screen.say("The clock is accepted as it is.")


def accept_log(session: Session) -> None:
    """`rootward doctor --accept-log`."""
    from rootward import quickstart as lab

    lab.accept_log(home_of(session.flags))
    screen.say("The audit log goes on from what the store has, under another origin. The event says what is missing.")
