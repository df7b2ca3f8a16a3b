"""docs/reference/cli.md is what the command line says of itself."""

from __future__ import annotations

import ast
import re

from rootward.cli import failure
from tests.docs.cli import cell, reference, sentence, wrapped
from tests.docs.kinds import SOURCE, nodes
from tests.docs.markdown import REFERENCE, codes, read, rows

DOCUMENT = REFERENCE / "cli.md"
AGAIN = "docs/reference/cli.md is not what the program says: python -m tests.docs.cli > docs/reference/cli.md"


def test_the_reference_is_the_program() -> None:
    assert read(DOCUMENT) == reference(), AGAIN


def test_every_exit_code() -> None:
    known = {0, failure.FAILED, failure.USAGE, failure.WAITING, failure.UNREACHABLE, failure.INTERRUPTED}
    assert {int(code) for code, _ in rows(read(DOCUMENT), "code")} == known


def test_each_option_of_a_server_that_a_command_takes() -> None:
    """Those about a home or a file alone take fewer."""
    of = dict(
        re.findall(
            r"^### `rootward ([^`]+)`$.*?^\[Server options\]\(#server-options\): (.*?)\.$", read(DOCUMENT), re.M | re.S
        )
    )
    assert of["ca list"] == "all"
    assert of["backup create"] == of["audit verify"] == "`--home`, `--json`"


def test_every_variable_of_the_environment() -> None:
    """Those that the sources name as a whole string; in prose and help they stand in parentheses."""
    used = {
        node.value
        for node in nodes(SOURCE)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and re.fullmatch("ROOTWARD_[A-Z_]+", node.value)
    }
    told = {name for cells in rows(read(DOCUMENT), "variable") for name in codes(cells[0])}
    assert "ROOTWARD_HOME" in used
    assert used | {"NO_COLOR"} == told


def test_how_it_is_written() -> None:
    assert sentence("Such as\n  30d") == "Such as 30d."
    assert sentence("All, …") == "All, …"
    assert cell("ID|SERIAL") == r"ID\|SERIAL"
    assert list(wrapped(["a", "b", "c"], width=3)) == ["a b", "    c"]


def test_help_shows_what_stands_in_brackets() -> None:
    """Rich takes `[keys.NAME]` for markup, and shows nothing of it."""
    told = [cells[1] for cells in rows(read(DOCUMENT), "option")]
    assert any(r"\[keys.NAME]" in text for text in told)
    assert [text for text in told if re.search(r"(?<!\\)\[[a-z]", text)] == []
