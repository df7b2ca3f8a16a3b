"""Fixtures of the fault tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.faults import Founder, Home
from tests.support.postgres import Postgres
from tests.support.store import DIALECTS


@pytest.fixture(scope="session")
def founder(tmp_path_factory: pytest.TempPathFactory, postgres: Postgres) -> Founder:
    """Where homes come from."""
    return Founder(tmp_path_factory.mktemp("founded"), postgres)


@pytest.fixture(scope="module", params=DIALECTS)
def home(request: pytest.FixtureRequest, founder: Founder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """One home for a whole module, once on each dialect: it must survive all that is done to it."""
    with founder.home(request.param, tmp_path_factory.mktemp("home")) as made:
        yield made


@pytest.fixture(params=DIALECTS)
def fresh(request: pytest.FixtureRequest, founder: Founder, tmp_path: Path) -> Iterator[Home]:
    """A home for one test, where nothing happened yet."""
    with founder.home(request.param, tmp_path) as made:
        yield made


@pytest.fixture
def sqlite_home(founder: Founder, tmp_path: Path) -> Iterator[Home]:
    """As `fresh`, on SQLite alone."""
    with founder.home("sqlite", tmp_path) as made:
        yield made


@pytest.fixture
def postgres_home(founder: Founder, tmp_path: Path) -> Iterator[Home]:
    """As `fresh`, on PostgreSQL alone."""
    with founder.home("postgresql", tmp_path) as made:
        yield made
