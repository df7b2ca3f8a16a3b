"""What a ceremony makes has another name until everything is done: a ceremony that is cut off leaves nothing that
counts.

The result is made in `OUT.making`, a new key in `FOLDER.making`, the share files that open it in `shares.making`. The
result is written when all steps are done and signed, and gives the others their names: where there is a
`*.making/result.json`, a ceremony had come to its end, and the same command finishes it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from rootward.core import paperwork
from rootward.core.paperwork import Result
from rootward.core.problems import Problem
from rootward.core.script import MAKING, KeyPlace, MakeKey, TokenKey, read_script
from rootward.keys import disk

RESULT = "result.json"


def making(folder: Path) -> Path:
    """What a folder is called while it is made."""
    return folder.with_name(f"{folder.name}{MAKING}")


def give_name(folder: Path) -> None:
    """Call what was made in `making(folder)` as it is to be called, durably. OSError, and both are as they were."""
    making(folder).rename(folder)
    disk.flush_folder(folder.parent)


def shares_of(folder: Path, label: str) -> list[Path]:
    """The files in `folder` with shares of what opens the key `label`; none where there is no such folder."""
    name = re.compile(rf"{re.escape(label)}-[0-9a-f]{{8}}-[0-9]+\.share")
    return sorted(path for path in folder.iterdir() if name.fullmatch(path.name)) if folder.is_dir() else []


def hand_out(shares: Path, labels: Iterable[str]) -> None:
    """Put the share files of these keys from `making(shares)` into the folder `shares`, where custodians take them."""
    found = [path for label in labels for path in shares_of(making(shares), label)]
    if found:
        shares.mkdir(mode=0o700, exist_ok=True)
    for path in found:
        path.rename(shares / path.name)
    leave(shares)


def leave(shares: Path) -> None:
    """Remove `making(shares)` where nothing is in it any more, and make that last."""
    for folder in (shares, shares.parent):
        if folder.is_dir():
            disk.flush_folder(folder)
    with suppress(OSError):  # it is not there, or holds what is another ceremony's
        making(shares).rmdir()


def result_in(folder: Path) -> Result | None:
    """The result that a ceremony wrote at its end into `folder`, which has the name of one that is made; None where
    there is none. Problem RW-CEREMONY where it cannot be read.
    """
    path = folder / RESULT
    if not path.exists():
        return None
    data = disk.read(path, code="RW-CEREMONY", limit=paperwork.LARGEST, forbidden=0, owners=None)
    return paperwork.read(data, Result)


def refuse_finished(where: KeyPlace, folders: Iterable[Path]) -> None:
    """Problem RW-CEREMONY where a result in one of `folders` waits for its name, of a ceremony that made a key where
    this one is to be made: what is there belongs to it. Of a result that cannot be read nobody knows.
    """
    for folder in dict.fromkeys(one.resolve() for one in folders):
        for path in sorted(folder.glob(f"*{MAKING}/{RESULT}")):
            try:
                result = result_in(path.parent)
                places = [] if result is None else list(_made(result))
            except Problem as problem:
                raise Problem(problem.code, f"{path}: {problem.detail}") from problem
            if any(_same(where, other) for other in places):
                raise Problem(
                    "RW-CEREMONY",
                    f"{path} is the result of a ceremony that made its key here and was cut off at its very end. "
                    "Finish it first: run its script again with "
                    f"--out {path.parent.with_name(path.parent.name.removesuffix(MAKING))}.",
                )


def _made(result: Result) -> Iterator[KeyPlace]:
    """Where its ceremony made keys."""
    script = read_script(result.script.encode())
    for step in script.steps:
        if isinstance(step, MakeKey):
            yield script.keys[step.key]


def _same(one: KeyPlace, other: KeyPlace) -> bool:
    """Whether they may be the same place. Of a folder only its name can be compared: its path depends on where the
    other script lies.
    """
    if one.folder and other.folder and Path(one.folder).name == Path(other.folder).name:
        return True
    return isinstance(one, TokenKey) and isinstance(other, TokenKey) and one.uri == other.uri
