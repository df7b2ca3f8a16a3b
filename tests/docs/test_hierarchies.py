"""The page about hierarchies: its examples are made, and its fields are those of a specification."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from rootward.core.authority import AuthoritySpec, read_spec
from rootward.core.pubkey import KeyAlgorithm
from tests.docs.markdown import ROOT, read
from tests.support.tiers import Tier, certify

PAGE = read(ROOT / "docs" / "hierarchies.md")
BLOCKS = re.findall(r"^## ([^\n]+)\n(?:(?!^## ).)*?^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(("title", "block"), BLOCKS, ids=[title for title, _ in BLOCKS])
def test_an_example_can_be_made(title: str, block: str) -> None:
    made: dict[str, Tier] = {}
    items: list[dict[str, Any]] = yaml.safe_load(block)
    for item in items:
        above = item.pop("under", None)
        spec = read_spec(item)
        made[spec.name] = certify(spec, None if above is None else made[above])
    assert len(made) == len(items) > 1


def test_every_block_is_an_example() -> None:
    assert len(BLOCKS) == PAGE.count("```yaml") == 5


def test_the_table_has_every_field_and_algorithm() -> None:
    table = PAGE.partition("## The fields")[2].partition("\n## ")[0]
    named = {
        name for row in re.findall(r"^\| (`[^|]+) \|", table, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)
    }
    assert named == set(AuthoritySpec.__struct_fields__)
    row = next(line for line in table.splitlines() if line.startswith("| `key_algorithm`"))
    assert set(re.findall(r"`([a-z0-9-]+)`", row.rpartition("|")[0].partition("`p256` |")[2])) == set(KeyAlgorithm)
