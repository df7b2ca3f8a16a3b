"""Fixtures of the contract suites."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from rootward.store.db import Database
from tests.support.postgres import Postgres
from tests.support.store import DIALECTS, migrated


@pytest.fixture(params=DIALECTS)
def db(request: pytest.FixtureRequest, tmp_path: Path, postgres: Postgres) -> Iterator[Database]:
    """An open database with its tables, once on each dialect."""
    database = migrated(request.param, tmp_path, postgres)
    yield database
    database.close()
