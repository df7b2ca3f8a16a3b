"""docs/architecture.md and the records: rooms, arrows, paths and failpoints are those of the sources."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from rootward.core.problems import CODES
from rootward.store.failpoint import NAMES
from tests.docs.kinds import SOURCE, kinds_of, nodes
from tests.docs.markdown import REFERENCE, ROOT, codes, documents, read, rows
from tests.unit.test_arrows import MAY

DOCUMENT = read(ROOT / "docs" / "architecture.md")
FAILPOINTS = read(REFERENCE / "failpoints.md")
PROFILES = read(REFERENCE / "profiles.md")
SETTINGS = read(REFERENCE / "configuration.md")
LINES = 250
PARTS = (".py", ".md", ".toml", ".txt", ".sh")
FILES = (".pem", ".mjs", ".py", "kek.next", "kek.old")  # of the form of a kind, and none
_PATH = re.compile(r"[a-z_][a-zA-Z0-9_./-]*")
_ROWS = re.compile(r"`([a-z_]+)` and what it may")


def built() -> set[str]:
    """The rooms that have files."""
    return {path.stem if path.suffix == ".py" else path.name for path in SOURCE.iterdir() if _is_room(path)}


def _is_room(path: Path) -> bool:
    return path.name != "__init__.py" and (path.suffix == ".py" or (path / "__init__.py").exists())


def told() -> dict[str, set[str]]:
    """Room to rooms that it may import, as the page says."""
    cells = {codes(room)[0]: may for room, _, may in rows(DOCUMENT, "room")}
    found: dict[str, set[str]] = {}
    for room, may in cells.items():
        through = _ROWS.fullmatch(may)
        if may == "everything":
            found[room] = built() - {room}
        elif through is not None:
            found[room] = {through[1], *found[through[1]]}
        else:
            found[room] = set(codes(may))
    return found


def test_every_room_with_its_arrows() -> None:
    assert built() <= MAY.keys()
    assert told() == {room: (MAY[room] & built()) - {room} for room in built()}


def test_every_failpoint_both_ways() -> None:
    used = {
        node.args[0].value
        for node in nodes(SOURCE)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "failpoint"
        and isinstance(node.args[0], ast.Constant)
    }
    assert used == NAMES
    assert {codes(cells[0])[0] for cells in rows(FAILPOINTS, "failpoint")} == used


def missing(text: str) -> list[str]:
    """What stands in backticks, looks like a file of ours and is none, here or below src/rootward or docs."""
    found = []
    for word in codes(text):
        if "/" not in word or not word.endswith(PARTS) or not _PATH.fullmatch(word):
            continue
        if not any((folder / word).is_file() for folder in (ROOT, SOURCE, ROOT / "docs")):
            found.append(word)
    return found


@pytest.mark.parametrize("document", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_path_is_there(document: Path) -> None:
    assert missing(read(document)) == []


def test_a_path_that_is_not_there_is_found() -> None:
    assert missing("`ca/issue.py` `src/rootward/ca/issue.py` `tests/conftest.py` `/api/docs` `a b/c.py`") == []
    assert missing("`ca/gone.py` `docs/gone.md`") == ["ca/gone.py", "docs/gone.md"]


@pytest.mark.parametrize("document", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_event_kind_and_problem_code_that_is_named_is_one(document: Path) -> None:
    """A kind is told by its first word; failpoints, settings and fields of profiles are of the same form."""
    kinds = kinds_of(SOURCE).keys()
    tables = rows(FAILPOINTS, "failpoint") + rows(PROFILES, "field") + rows(SETTINGS, "setting")
    others = {codes(cells[0])[0] for cells in tables}
    nouns = {kind.partition(".")[0] for kind in kinds}
    named = set(codes(read(document)))
    shaped = {word for word in named if re.fullmatch(r"[a-z]+\.[a-z_]+", word) and word.partition(".")[0] in nouns}
    assert {word for word in shaped if not word.endswith(FILES)} - kinds - others == set()
    assert {word for word in named if re.fullmatch("RW-[A-Z-]+", word)} <= CODES.keys()


def test_it_is_short() -> None:
    assert len(DOCUMENT.splitlines()) <= LINES
