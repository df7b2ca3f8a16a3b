"""`rootward ca import`: a CA that was elsewhere before, with its key, on the server's own machine. A private key never
travels through the API.
"""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import Annotated

import typer

from rootward.cli import screen
from rootward.cli.authority import Domains
from rootward.cli.connection import home_of
from rootward.cli.failure import USAGE, Failure
from rootward.cli.options import Session, offline
from rootward.core.words import count

File = Annotated[Path | None, typer.Option("--key", help="Its private key: PEM, DER or PKCS#12.")]


@offline
def import_(
    session: Session,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What it is called here.")],
    chain: Annotated[
        Path, typer.Argument(metavar="CHAIN", help="PEM: its certificate, then all above it, up to the root.")
    ],
    key: File = None,
    passphrase_file: Annotated[
        Path | None, typer.Option("--passphrase-file", help="What opens the key file; asked for if not given.")
    ] = None,
    key_store: Annotated[
        str | None, typer.Option("--key-store", help="A \\[keys.NAME] of rootward.toml in which its key is already.")
    ] = None,
    key_label: Annotated[str, typer.Option("--key-label", help="The key's label there; NAME if not given.")] = "",
    crl: Annotated[Path | None, typer.Option("--crl", help="Its newest CRL, PEM or DER.")] = None,
    inventory: Annotated[
        Path | None, typer.Option("--inventory", help="The certificates that it has issued, PEM or PKCS#7.")
    ] = None,
    parents: Annotated[
        list[str] | None,
        typer.Option("--parent-name", help="What a CA above that is new here is called, nearest first; repeats."),
    ] = None,
    domain: Domains = None,
) -> None:
    """Take in a CA that was elsewhere before. Its server here must be stopped. An empty home is founded by it."""
    from rootward import begin
    from rootward.ca.adopt import Arriving, crl_der
    from rootward.core.answer import read_certificates
    from rootward.keys.incoming import open_incoming

    home = home_of(session.flags)
    data = None if key is None else _bytes(key)
    incoming = None
    if data is not None:
        passphrase = _passphrase(passphrase_file) if passphrase_file is not None or _is_sealed(data) else None
        incoming = open_incoming(data, passphrase)
    arriving = Arriving(
        name=name,
        chain=read_certificates(_bytes(chain), field="chain"),
        key=incoming,
        store=key_store,
        label=key_label,
        parents=tuple(parents or ()),
        crl=None if crl is None else crl_der(_bytes(crl)),
        inventory=() if inventory is None else _inventory(inventory),
    )
    done = begin.adopt(home, arriving, tuple(domain or ()))
    if session.json:
        body = {
            "authorities": done.authorities,
            "certificates": done.certificates,
            "revoked": done.revoked,
            "unknown": done.unknown,
            "refused": done.refused,
        }
        screen.write_json(screen.encode(body))
    else:
        screen.details(
            [
                ("new authorities", ", ".join(done.authorities) or "none"),
                ("certificates", done.certificates + done.revoked - done.unknown),
                ("revoked", done.revoked),
                ("of these known by serial", done.unknown or None),
            ]
        )
        screen.note(
            "OCSP says unknown of what is not in the inventory: import it too, with the same command. Destroy copies "
            f"of the key that are elsewhere. Next: rootward serve --home {screen.safe(home)}"
        )
    if done.refused:
        raise Failure(f"{count(len(done.refused), 'item')} of the inventory refused.", *done.refused[:20])


def _inventory(file: Path) -> tuple[bytes, ...]:
    from rootward.core.upload import read_upload

    return tuple(item.der for item in read_upload(_bytes(file)) if item.refused is None)


def _is_sealed(data: bytes) -> bool:
    return b"ENCRYPTED" in data or b"-----BEGIN" not in data


def _passphrase(file: Path | None) -> bytes:
    if file is None:
        return getpass.getpass("Passphrase of the key file: ").encode()
    return _bytes(file).split(b"\n", 1)[0].removesuffix(b"\r")


def _bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise Failure(f"{file} cannot be read.", f"{error.strerror}.", exit=USAGE) from error
