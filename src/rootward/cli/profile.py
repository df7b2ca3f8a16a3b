"""`rootward profile`: what may be issued. Files are YAML or JSON, as `profile show --yaml` prints them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from rootward.cli import screen
from rootward.cli.failure import USAGE, Failure
from rootward.cli.options import Limit, Session, noun, remote

app = noun("See and change what may be issued.")

_PATH = "/api/v1/profiles"
Name = Annotated[str, typer.Argument(metavar="NAME", help="The profile's name.")]
File = Annotated[Path, typer.Argument(metavar="FILE", help="The profile, YAML or JSON; - for standard input.")]


@app.command("list")
@remote
def list_(session: Session, limit: Limit = None) -> None:
    """List the profiles."""
    page = session.client.pages(_PATH, {}, limit=limit)
    if session.json:
        screen.write_json(screen.encode(page))
        return
    from rootward.core.profile import Lifetime  # here: only a list needs the default

    rows = [
        (
            *(item.get(field) for field in ("name", "version", "authority", "state")),
            ((item.get("profile") or {}).get("lifetime") or {}).get("default", Lifetime().default),
            (item.get("profile") or {}).get("description"),
        )
        for item in page["items"]
    ]
    headings = ("name", "version", "authority", "state", "lifetime", "description")
    screen.table(headings, rows, empty="There is no profile yet.", spare=("authority",), folds=("description",))


@app.command("show")
@remote
def show(
    session: Session,
    name: Name,
    version: Annotated[int | None, typer.Option("--version", min=1, help="An older version.")] = None,
    yaml: Annotated[
        bool, typer.Option("--yaml", help="Print the profile alone, as create and update read it.")
    ] = False,
) -> None:
    """Show one profile."""
    from rootward.cli.client import segment

    path = f"{_PATH}/{segment(name)}"
    answer = session.client.get(path if version is None else f"{path}/versions/{version}")
    if session.json:
        screen.write_json(answer.body)
        return
    if not yaml:
        value = answer.value
        screen.details(
            (field.replace("_", " "), value.get(field))
            for field in ("name", "version", "state", "created_at", "created_by")
        )
        screen.say()
    _print_yaml(answer.value.get("profile"))
    if not yaml:
        screen.note("What is not shown has its default.")


@app.command("create")
@remote
def create(session: Session, file: File) -> None:
    """Create a profile."""
    answer = session.client.post(_PATH, _read(file))
    _done(session, answer, "is there")


@app.command("update")
@remote
def update(session: Session, file: File) -> None:
    """Give a profile a new version; certificates keep the version that made them."""
    from rootward.cli.client import segment

    body = _read(file)
    answer = session.client.put(f"{_PATH}/{segment(str(body.get('name', '')))}", body)
    _done(session, answer, "is changed")


@app.command("delete")
@remote
def delete(session: Session, name: Name) -> None:
    """Retire a profile: nothing is issued under it any more, and its history stays."""
    from rootward.cli.client import segment

    answer = session.client.delete(f"{_PATH}/{segment(name)}")
    _done(session, answer, "is retired")


def _done(session: Session, answer: Any, what: str) -> None:
    if session.json:
        screen.write_json(answer.body)
        return
    value = answer.value
    screen.say(f"The profile {screen.safe(value.get('name'))} {what}, version {screen.safe(value.get('version'))}.")


def _read(file: Path) -> dict[str, Any]:
    """The profile in a file."""
    return read_yaml(file, "profile", next="rootward profile show server --yaml prints one to begin with.")


def read_yaml(file: Path, what: str, *, next: str | None = None) -> dict[str, Any]:
    """What a file holds, as JSON would have it. Failure (exit 2) where it is none."""
    import sys

    import yaml

    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
        found = yaml.safe_load(text)  # JSON is YAML
    except OSError as error:
        raise Failure(f"{file} cannot be read.", f"{error.strerror}.", exit=USAGE) from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise Failure(f"{file} is not YAML or JSON.", str(error).replace("\n", " "), exit=USAGE) from error
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise Failure(f"{file} holds no {what}.", next=next, exit=USAGE)
    return found


def _print_yaml(value: Any) -> None:
    import yaml

    text = yaml.safe_dump(value, sort_keys=False, allow_unicode=False, width=100)
    screen.say("\n".join(screen.safe(line) for line in text.rstrip("\n").split("\n")))
