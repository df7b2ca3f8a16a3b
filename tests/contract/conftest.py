"""Fixtures of the contract suites. A test that is a coroutine function runs in an event loop of its own."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest

from rootward.store.db import Database
from tests.support.postgres import Postgres
from tests.support.store import DIALECTS, fresh
from tests.support.world import World, Worlds


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run coroutine functions."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = inspect.signature(pyfuncitem.obj).parameters
    asyncio.run(pyfuncitem.obj(**{name: pyfuncitem.funcargs[name] for name in names}))
    return True


@pytest.fixture(params=DIALECTS)
def db(request: pytest.FixtureRequest, tmp_path: Path, postgres: Postgres) -> Iterator[Database]:
    """An open database with its tables, once on each dialect."""
    with fresh(request.param, tmp_path, postgres) as database:
        yield database


@pytest.fixture
def postgres_db(tmp_path: Path, postgres: Postgres) -> Iterator[Database]:
    """The same on PostgreSQL alone, where two write at one moment."""
    with fresh("postgresql", tmp_path, postgres) as database:
        yield database


@pytest.fixture(scope="session")
def worlds(tmp_path_factory: pytest.TempPathFactory, postgres: Postgres) -> Iterator[Worlds]:
    """Where installations come from."""
    made = Worlds(tmp_path_factory.mktemp("worlds"), postgres)
    yield made
    made.close()


@pytest.fixture(params=DIALECTS)
def lab(request: pytest.FixtureRequest, worlds: Worlds, tmp_path: Path) -> Iterator[World]:
    """A founded installation of its own for each test, once on each dialect."""
    with worlds.world(request.param, tmp_path) as made:
        yield made


@pytest.fixture
def postgres_lab(worlds: Worlds, tmp_path: Path) -> Iterator[World]:
    """The same on PostgreSQL alone."""
    with worlds.world("postgresql", tmp_path) as made:
        yield made
