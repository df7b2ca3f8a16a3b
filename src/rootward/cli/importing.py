"""What `rootward cert import` does: files are opened here, and only their certificates are sent; a private key or a
password never leaves this machine.
"""

from __future__ import annotations

import base64
from collections import Counter
from pathlib import Path
from typing import Any

from rootward.cli import screen
from rootward.cli.failure import USAGE, Failure, of_problem
from rootward.cli.options import Session
from rootward.core.problems import Problem
from rootward.core.upload import Item, read_upload
from rootward.core.words import count

_PATH = "/api/v1/imports"
_BATCH = 500


def run(
    session: Session, files: list[Path], *, password_file: Path | None, owner: str | None, labels: dict[str, str]
) -> None:
    """Import each file; a table of what became of each item. Exit 1 where one was refused. All files are read before
    anything is sent, so a file that cannot be opened stops the others as well.
    """
    password = None if password_file is None else _text(password_file)
    report: list[dict[str, Any]] = []
    for file, items in [(file, _items(file, password)) for file in files]:
        try:
            sent = _sent(session, items, owner, labels)
        except Failure as failure:
            if len(files) > 1:
                failure.what = f"{file}: {failure.what}"
                imported = sum(item["result"] == "imported" for item in report)
                failure.why = (*failure.why, f"Of the files before it, {count(imported, 'certificate')} imported.")
            raise
        report += [{"file": str(file), **item} for item in sent]
    counts = Counter(str(item.get("result")) for item in report)
    if session.json:
        screen.write_json(screen.encode({"items": report}))
    else:
        _show(report, counts)
    if counts["refused"]:
        raise Failure(f"{counts['refused']} of {count(len(report), 'item')} refused.")


def _items(file: Path, password: str | None) -> tuple[Item, ...]:
    try:
        return read_upload(_bytes(file), password)
    except Problem as problem:
        failure = of_problem(problem)
        why = (*failure.why, "Nothing was imported.")
        raise Failure(f"{file}: {failure.what}", *why, next=failure.next, code=problem.code) from None


def _bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise Failure(f"{file} cannot be read.", f"{error.strerror}. Nothing was imported.", exit=USAGE) from error


def _text(file: Path) -> str:
    """The first line of a password's file."""
    try:
        return _bytes(file).decode("utf-8").split("\n", 1)[0].removesuffix("\r")
    except UnicodeDecodeError:
        raise Failure(f"{file} is not UTF-8.", exit=USAGE) from None


def _sent(session: Session, items: tuple[Item, ...], owner: str | None, labels: dict[str, str]) -> list[dict[str, Any]]:
    """What became of each item, under its own number: the server's word, or why it was not sent."""
    told: dict[int, dict[str, Any]] = {}
    good = [(index, item.der) for index, item in enumerate(items) if item.refused is None]
    more = {name: value for name, value in (("owner", owner), ("labels", labels)) if value}
    for at in range(0, len(good), _BATCH):
        batch = good[at : at + _BATCH]
        content = "".join(_pem(der) for _, der in batch)
        try:
            answers = session.client.post(_PATH, {"content": content, **more}).value["items"]
        except Failure as failure:
            if failure.code != "RW-IMPORT-ITEM":  # none of these was a certificate: so say of each
                raise
            answers = [_refused(failure.code, "It is no certificate.")] * len(batch)
        for (index, _), answer in zip(batch, answers, strict=True):
            told[index] = {**answer, "index": index}
    for index, item in enumerate(items):
        if item.refused is not None:
            told[index] = {**_refused(item.refused.code, item.refused.detail), "index": index}
    return [told[index] for index in sorted(told)]


def _refused(code: str, detail: str) -> dict[str, Any]:
    reasons = [{"code": code, "field": "content", "detail": detail}]
    return {
        "index": 0,
        "result": "refused",
        "certificate_id": None,
        "sha256": None,
        "subject": None,
        "reasons": reasons,
    }


def _pem(der: bytes) -> str:
    return f"-----BEGIN CERTIFICATE-----\n{base64.b64encode(der).decode()}\n-----END CERTIFICATE-----\n"


def _show(report: list[dict[str, Any]], counts: Counter[str]) -> None:
    rows = [
        (
            item.get("result"),
            item.get("subject"),
            " ".join(str(reason.get("detail")) for reason in item.get("reasons") or []),
            item.get("certificate_id"),
        )
        for item in report
    ]
    screen.table(("result", "subject", "reasons", "id"), rows, empty="There was nothing.", folds=("subject", "reasons"))
    screen.say(", ".join(f"{counts[result]} {result}" for result in ("imported", "known", "odd", "refused")) + ".")
