"""The kill loop on SQLite: one server, eight clients."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.loop.drive import episode, plan
from tests.support.faults import Founder

SEED = 20_260_101


@pytest.mark.invariant("I-05")
def test_kills_on_sqlite(founder: Founder, tmp_path: Path) -> None:
    with founder.home("sqlite", tmp_path) as home, episode(home, tmp_path, SEED) as going:
        outcome = going.run(plan(SEED, 50), store_seconds=15)
    print(outcome.table())
    assert outcome.findings == []
