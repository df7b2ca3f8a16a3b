"""`rootward key backup|restore`: one authority's key file under a passphrase, on the server's own machine.

Both need the home and its database, and no server; one may run. Each leaves two records, which the server makes events
of (`ca/records.py`).
"""

from __future__ import annotations

import getpass
import os
import pwd
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from rootward.cli import screen
from rootward.cli.connection import home_of
from rootward.cli.failure import USAGE, Failure
from rootward.cli.options import Session, offline

if TYPE_CHECKING:
    from rootward.config import Config
    from rootward.keys import Kek

PassphraseFile = Annotated[
    Path | None,
    typer.Option(
        "--passphrase-file",
        help="A file of mode 0600 with the passphrase (12 characters or more); else it is asked for.",
    ),
]


class _Held(NamedTuple):
    """An authority whose key is in a file of this home: under which label, and its public key's SHA-256."""

    name: str
    label: str
    key_id: str

    @property
    def file(self) -> str:
        return f"{self.label}-{self.key_id[:16]}.key"


@offline
def backup(
    session: Session,
    authority: Annotated[str, typer.Argument(metavar="AUTHORITY", help="The authority's name.")],
    out: Annotated[Path, typer.Option("--out", help="A new file (0600).")],
    passphrase_file: PassphraseFile = None,
) -> None:
    """Write an authority's key to a file that only a passphrase opens, while its server runs or not."""
    from rootward import home as homes
    from rootward.keys import keepsake

    config = homes.read_config(home_of(session.flags), os.environ)
    held = _held(config, authority)
    if os.path.lexists(out):
        raise Failure(f"{screen.safe(out)} is there already.", "Nothing is overwritten.", exit=USAGE)
    under = _new_passphrase(passphrase_file)
    kek = homes.open_kek(config, os.environ)
    _note(config, "key.backup-begun", held, out)
    keepsake.back_up(config.home / "keys" / held.file, out, kek=kek, under=under)
    _note(config, "key.backed-up", held, out)
    if session.json:
        screen.write_json(screen.encode({"authority": held.name, "key_id": held.key_id, "file": str(out)}))
        return
    screen.say(f"{screen.safe(out)} has the key of {held.name} ({held.key_id[:16]}…). It was read again and opened.")
    screen.note("Keep the file and its passphrase in different places, away from this machine.")


@offline
def restore(
    session: Session,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What rootward key backup wrote.")],
    passphrase_file: PassphraseFile = None,
) -> None:
    """Put an authority's key back where its server finds it. It must be the key of the authority's certificate, and
    nothing is overwritten.
    """
    from rootward import home as homes
    from rootward.keys import disk, envelope, keepsake

    config = homes.read_config(home_of(session.flags), os.environ)
    header = envelope.read_header(_read(file))
    held = _held(config, label=header.label, key_id=header.public_id)
    folder = config.home / "keys"
    if os.path.lexists(folder / held.file):
        raise Failure(
            f"{screen.safe(folder / held.file)} is there already.",
            "Nothing is overwritten. Where it is damaged, move it away first.",
            exit=USAGE,
        )
    passphrase = _opened(passphrase_file) if passphrase_file else _asked(f"Passphrase of the backup of {held.name}:")
    kek = homes.open_kek(config, os.environ)
    _note(config, "key.restore-begun", held, file)
    folder.mkdir(mode=0o700, exist_ok=True)
    with disk.alone(folder):  # as whoever changes the KEK expects of every new key file
        path = keepsake.restore(file, folder, label=held.label, public_id=held.key_id, kek=passphrase, under=kek)
    _note(config, "key.restored", held, file)
    if session.json:
        screen.write_json(screen.encode({"authority": held.name, "key_id": held.key_id, "file": str(path)}))
        return
    screen.say(f"The key of {held.name} is in {screen.safe(path)} again. The server loads it at its next start.")


def _held(config: Config, name: str | None = None, *, label: str | None = None, key_id: str | None = None) -> _Held:
    """The authority of that name, or with that key, as the home's database has it."""
    from rootward.ca.installation import settings_of
    from rootward.store import authorities as rows
    from rootward.store.snapshot import snapshot

    with snapshot(config.database.url, home=config.home) as conn:
        issuers = {row.authority: row for row in rows.list_issuers(conn)}
        found = [(row, issuers[row.name]) for row in rows.list(conn) if row.name in issuers]
    for row, issuer in found:
        held = _Held(row.name, settings_of(row).key_label or row.name, issuer.key_id)
        if name is None and (label, key_id) != (held.label, held.key_id):
            continue
        if name is not None and row.name != name:
            continue
        if issuer.backend != "file":
            where = "offline" if issuer.backend is None else f"in the key store {screen.safe(issuer.backend)}"
            raise Failure(f"The key of {held.name} is {where}, not in a file of this home.", exit=USAGE)
        if row.destroyed_at is not None:
            raise Failure(f"The key of {held.name} was destroyed.", "Two people agreed to that.", exit=USAGE)
        return held
    if name is not None:
        raise Failure(f"There is no authority {screen.safe(name)} with a certificate here.", exit=USAGE)
    raise Failure(
        f"No authority here has the key {screen.safe(label)} with the public key {screen.safe(key_id)}.",
        "The backup is another installation's, or its authority is gone. Nothing was written.",
        exit=USAGE,
    )


def _note(config: Config, kind: str, held: _Held, file: Path) -> None:
    from rootward.ca import records

    try:
        user = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        user = str(os.geteuid())
    records.keep(config.home, kind, held.name, key=held.key_id, file=file.name, user=user, at=datetime.now(UTC))


def _new_passphrase(file: Path | None) -> Kek:
    from rootward.keys import kek_from_passphrase

    if file is not None:
        return _opened(file)
    first = _ask("Passphrase for the backup, 12 characters or more:")
    if _ask("The same again:") != first:
        raise Failure("The two passphrases are different.", "Nothing was written.", exit=USAGE)
    return kek_from_passphrase(first, code="RW-BACKUP-PASSPHRASE")


def _asked(question: str) -> Kek:
    from rootward.keys import kek_from_passphrase

    return kek_from_passphrase(_ask(question), code="RW-BACKUP-PASSPHRASE")


def _opened(file: Path) -> Kek:
    from rootward.keys import kek_from_passphrase_file

    return kek_from_passphrase_file(file, code="RW-BACKUP-PASSPHRASE")


def _ask(question: str) -> str:
    if not sys.stdin.isatty():
        raise Failure("There is nobody to ask for a passphrase.", next="Name a --passphrase-file.", exit=USAGE)
    return getpass.getpass(f"{question} ")


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as opened:
            return opened.read(128 * 1024)
    except OSError as error:
        raise Failure(f"{screen.safe(file)} cannot be read.", f"{error.strerror}.", exit=USAGE) from error
