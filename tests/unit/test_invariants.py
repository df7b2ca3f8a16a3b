"""The table of invariants can fail: a line without a test, or without one on a store that takes part."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def load() -> Any:
    """The tool, which is no package."""
    spec = importlib.util.spec_from_file_location("invariants_tool", ROOT / "tools/invariants.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


tool = load()
TEXT = (ROOT / "docs/reference/invariants.md").read_text()


def proofs(**counts: int) -> Any:
    """Proofs by one test function."""
    made = tool.Proofs(functions={"test"})
    made.counts.update(counts)
    return made


def test_the_document_has_all_of_them() -> None:
    assert len(tool.promises(TEXT)) == 68
    with pytest.raises(ValueError, match="I-01 to I-68"):
        tool.promises(TEXT.replace("| I-17 |", "| I-71 |"))


@pytest.mark.parametrize(
    ("stores", "counts", "why"),
    [
        ("both", {"sqlite": 1, "postgresql": 2}, ""),
        ("both", {"sqlite": 1}, "no test on postgresql"),
        ("both", {"other": 3}, "no test on sqlite and postgresql"),
        ("one", {"other": 1}, ""),
        ("none", {"other": 1}, ""),
    ],
)
def test_what_a_line_lacks(stores: str, counts: dict[str, int], why: str) -> None:
    assert tool.missing(tool.Promise("I-01", "something", stores, ""), proofs(**counts)) == why


def test_a_line_without_a_test_is_not_proven() -> None:
    assert tool.missing(tool.Promise("I-01", "something", "none", ""), tool.Proofs()) == "no test"
    assert tool.missing(tool.Promise("I-47", "something", "both", "ACME"), tool.Proofs()) == "open: ACME"
