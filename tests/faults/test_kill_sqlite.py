"""The kill loop on SQLite: one server, eight clients.

A failure names its seed: `make test-kill SEED=…` plays more of the kind.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.loop.drive import check
from tests.support.faults import Founder


@pytest.mark.timeout(1200)  # two minutes where nothing else runs
@pytest.mark.invariant("I-01")
@pytest.mark.invariant("I-03")
@pytest.mark.invariant("I-05")
@pytest.mark.invariant("I-06")
@pytest.mark.invariant("I-07")
@pytest.mark.invariant("I-15")
@pytest.mark.invariant("I-16")
@pytest.mark.invariant("I-17")
@pytest.mark.invariant("I-34")
@pytest.mark.invariant("I-42")
@pytest.mark.invariant("I-56")
def test_a_hundred_kills(founder: Founder, tmp_path: Path) -> None:
    check(founder, "sqlite", tmp_path, seed=601)
