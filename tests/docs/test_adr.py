"""Decision records: numbered without gaps, short, of one form, and dated."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.markdown import ROOT, links, read

FOLDER = ROOT / "docs" / "adr"
RECORDS = sorted(path for path in FOLDER.glob("*.md") if path.name != "template.md")
LINES = 40
_HEAD = re.compile(
    r"# (?P<number>[0-9]{4}): (?P<title>\S[^\n]+)\n\n"
    r"- Status: (?P<status>proposed|accepted|replaced by \[[0-9]{4}\]\([0-9]{4}-[a-z0-9-]+\.md\))\n"
    r"- Date: 20[0-9]{2}-[01][0-9]-[0-3][0-9]\n\n## Question\n"
)
_SECTIONS = ["Question", "Decision", "Weighed", "Consequences"]


def test_numbers_have_no_gaps() -> None:
    assert [path.name[:4] for path in RECORDS] == [f"{number:04}" for number in range(1, len(RECORDS) + 1)]


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_a_record_has_the_form_of_the_template(path: Path) -> None:
    text = read(path)
    head = _HEAD.match(text)
    assert head is not None
    assert head["number"] == path.name[:4]
    assert re.fullmatch(r"[0-9]{4}-[a-z0-9-]+\.md", path.name)
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == _SECTIONS
    assert len(text.splitlines()) <= LINES


def test_the_architecture_names_every_record() -> None:
    named = {Path(link).name for link in links(read(ROOT / "docs" / "architecture.md")) if link.startswith("adr/")}
    assert {path.name for path in RECORDS} <= named
