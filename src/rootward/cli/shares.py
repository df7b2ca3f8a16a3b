"""`rootward ceremony share`: a custodian's share on paper and back, and whether it is sound. No server, no home."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from rootward.cli import screen
from rootward.cli.failure import USAGE, Failure
from rootward.cli.options import Session, noun, offline
from rootward.cli.paper import read_bytes
from rootward.core.problems import Problem
from rootward.core.words import count

app = noun("Print, type in and check the shares of custodians.")

File = Annotated[Path, typer.Argument(metavar="FILE", help="A custodian's share.")]


@app.command("show")
@offline
def show(session: Session, file: File) -> None:
    """Show whose share a file holds, and of which set. No passphrase is needed, and nothing is proved."""
    from rootward.keys.share_file import read_header

    header = read_header(_read(file))
    if session.json:
        said = {name: getattr(header, name) for name in ("label", "set", "custodian", "index", "shares", "threshold")}
        screen.write_json(screen.encode(said))
        return
    screen.details(
        [
            ("opens", header.label),
            ("custodian", header.custodian),
            ("share", f"{header.index} of {header.shares}"),
            ("needed", header.threshold),
            ("set", header.set),
        ]
    )


@app.command("print")
@offline
def print_(session: Session, file: File) -> None:
    """Write the page to print to standard output. It is as sealed as the file; the passphrase is not on it."""
    from rootward.keys.share_file import printed

    page = printed(_read(file))
    if session.json:
        screen.write_json(screen.encode({"page": page}))
        return
    screen.say("\n".join(screen.safe(line) for line in page.rstrip("\n").split("\n")))


@app.command("type")
@offline
def type_(
    session: Session, out: Annotated[Path, typer.Argument(metavar="NEW-FILE", help="A new file (0600).")]
) -> None:
    """Type a printed share in, line by line with its number, and write the file that was printed.

    A line that was typed wrong is asked for again; from a pipe, every wrong line is named.
    """
    from rootward.keys import disk
    from rootward.keys.share_file import read_header, typed

    if out.exists() or out.is_symlink():
        raise Failure(f"{out} is there already, and nothing is overwritten.", next="Choose another name.", exit=USAGE)
    data = typed(_asked() if sys.stdin.isatty() else _piped())
    try:
        disk.write_new(out, data, mode=0o600)
    except OSError as error:
        raise Failure(f"{out} cannot be written.", f"{error.strerror}.") from error
    header = read_header(data)
    if session.json:
        screen.write_json(screen.encode({"file": str(out), "custodian": header.custodian, "set": header.set}))
        return
    screen.say(f"{out} holds the share of {screen.safe(header.custodian)}, {header.index} of {header.shares}.")


@app.command("check")
@offline
def check(
    session: Session,
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="One custodian's share, or several.")],
    passphrase_file: Annotated[
        list[Path] | None,
        typer.Option("--passphrase-file", help="Instead of asking: one for each share, in their order; repeats."),
    ] = None,
    opens: Annotated[
        list[Path] | None,
        typer.Option("--opens", help="A key file or sealed PIN that the quorum should open; repeats.", exists=True),
    ] = None,
) -> None:
    """Open each share with its passphrase; with enough of them, the quorum too. No private key is used.

    Exit code 1 where a share is not sound.
    """
    from rootward.keys import envelope
    from rootward.keys.quorum import Checked, check_shares, open_share
    from rootward.keys.share_file import read_header

    given = passphrase_file or []
    if given and len(given) != len(files):
        raise Failure(f"{count(len(files), 'share')} and {count(len(given), 'passphrase file')}.", exit=USAGE)
    held = []
    for at, file in enumerate(files):
        data = _read(file)
        try:
            whose = read_header(data)
        except Problem as problem:
            raise Problem(problem.code, f"{screen.safe(file)}: {problem.detail}") from problem
        held.append((data, _passphrase(given[at]) if given else _secret(whose.custodian)))
    sealed = [read_bytes(path, envelope.LARGEST) for path in opens or []]
    needed = read_header(held[0][0]).threshold
    if len(held) >= needed or sealed:
        found = check_shares(held, opens=sealed)
    else:  # fewer than a quorum: each by itself
        sound, findings = [], []
        for data, passphrase in held:
            try:
                sound.append(open_share(data, passphrase))
            except Problem as problem:
                findings += [reason.detail for reason in problem.reasons]
        found = Checked(
            sound[0].set if sound else "", tuple(share.custodian for share in sound), tuple(findings), opened=False
        )
    if session.json:
        said = {"set": found.set, "sound": found.sound, "findings": found.findings, "opened": found.opened}
        screen.write_json(screen.encode(said))
    else:
        enough = len(found.sound) >= needed
        quorum = "opens" if found.opened else "does not open" if enough else f"not opened: {needed} are needed"
        screen.details([("set", found.set), ("sound", ", ".join(found.sound)), ("quorum", quorum)])
    if found.findings:
        raise Failure(
            "The shares are not as they should be.",
            *found.findings,
            next="While the others are enough, change the custodians: that makes new shares for everybody.",
        )


def _read(file: Path) -> bytes:
    from rootward.keys.share_file import LARGEST

    return read_bytes(file, LARGEST)


def _passphrase(file: Path) -> str:
    from rootward.keys import disk

    try:
        text = disk.read(file, code="RW-SHARE", limit=4096).decode()
    except FileNotFoundError as error:
        raise Failure(f"There is no file {file}.", exit=USAGE) from error
    except UnicodeDecodeError as error:
        raise Failure(f"{file} is not UTF-8.", exit=USAGE) from error
    return text.removesuffix("\n").removesuffix("\r")


def _secret(custodian: str) -> str:
    """The passphrase, typed unseen by its custodian."""
    import getpass

    if not sys.stdin.isatty():
        raise Failure("There is nobody to ask for a passphrase.", next="Name a --passphrase-file for each share.")
    return getpass.getpass(f"Passphrase of {screen.safe(custodian)}: ")


def _asked() -> list[str]:
    """The lines of a page, each asked for until it fits."""
    from rootward.core.paper import lines_missing, read_line

    screen.note(
        "Type each line of the page with its number, and Enter. Ctrl-C stops; nothing is written until the end."
    )
    lines: list[str] = []
    parts: list[bytes] = []
    while lines_missing(parts):
        number = len(lines) + 1
        try:
            line = input(
                f"line {number} > " if not parts else f"line {number} of {len(parts) + lines_missing(parts)} > "
            )
            parts.append(read_line(line, number))
        except Problem as problem:
            screen.note(f"{problem.detail} Once more.")
        except (EOFError, KeyboardInterrupt) as error:
            raise Failure("The page was not typed to its end, and nothing was written.") from error
        else:
            lines.append(line)
    return lines


def _piped() -> list[str]:
    """The numbered lines among those of a whole page."""
    from rootward.core.paper import LARGEST

    text = sys.stdin.read(LARGEST * 8)
    return [line for line in text.splitlines() if line.strip()[:1].isdigit()]
