"""`rootward ca sign`: another system's CA, certified by an online authority."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from rootward.cli import request, screen
from rootward.cli.failure import USAGE, Failure
from rootward.cli.options import Session, remote


@remote
def sign(
    session: Session,
    csr: Annotated[Path, typer.Argument(metavar="CSR", help="The other system's CSR, PEM. It gives the key alone.")],
    under: Annotated[str, typer.Option("--under", help="The online authority that signs.")],
    spec: Annotated[
        Path, typer.Option("--spec", help="YAML or JSON: what the CA gets. docs/hierarchies.md has examples.")
    ],
    out: Annotated[Path, typer.Option("--out", help="Where its certificate goes, with the chain; a new file.")],
) -> None:
    """Certify another system's CA. A second person must agree; then the same command writes the certificate."""
    from rootward.cli.client import segment

    if out.exists():
        raise Failure(f"{out} is there already.", next="Take another name: nothing is overwritten.", exit=USAGE)
    body = {"spec": _spec(spec), "csr": _text(csr)}
    answer = session.client.post(f"/api/v1/authorities/{segment(under)}/subordinates", body)
    if answer.status == 202:
        if not session.json:
            compared(answer.value.get("body") or {})
        request.wait(answer, f"Certifying a CA under {under}")
    text = f"{answer.value.get('certificate') or ''}{answer.value.get('chain') or ''}"
    try:
        with out.open("x", encoding="ascii") as file:
            file.write(text)
    except (OSError, UnicodeEncodeError) as error:
        raise Failure(f"{out} cannot be written.", str(error), exit=USAGE) from error
    if session.json:
        screen.write_json(answer.body)
        return
    screen.say(f"{out} has the certificate {screen.safe(answer.value.get('serial'))} and its chain.")


def compared(body: dict[str, Any]) -> None:
    """What the CSR asks for beside what is given, for people."""
    rows = [
        tuple(line.get(field) for field in ("what", "asked", "given"))
        for line in body.get("compared") or []
        if isinstance(line, dict)
    ]
    screen.table(("what", "the CSR asks for", "the CA gets"), rows, empty="", folds=("the CSR asks for", "the CA gets"))


def _spec(file: Path) -> dict[str, Any]:
    import yaml

    text = _text(file)
    try:
        found = yaml.safe_load(text)  # JSON is YAML
    except (yaml.YAMLError, RecursionError) as error:
        raise Failure(f"{file} is not YAML or JSON.", str(error).replace("\n", " "), exit=USAGE) from error
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise Failure(f"{file} holds no specification.", next="docs/hierarchies.md has examples.", exit=USAGE)
    return found


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise Failure(f"{file} cannot be read.", f"{error.strerror}.", exit=USAGE) from error
    except UnicodeDecodeError as error:
        raise Failure(f"{file} is not text.", next="A CSR is PEM, a specification YAML.", exit=USAGE) from error
