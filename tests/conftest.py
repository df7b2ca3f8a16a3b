"""Fixtures for every test."""

from collections.abc import Iterator

import pytest
import structlog
from hypothesis import HealthCheck, settings

from tests.support.postgres import Postgres

# Files that take minutes, and folders of such that take long: the whole suite begins with them, so that none of its
# workers is left alone with one at the end.
LONGEST = ("tests/faults/test_kill_", "tests/faults/", "tests/clients/", "tests/docs/", "tests/contract/")

# No property is about time, and a busy machine holds up an example now and then.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first; within a file the order stays."""
    items.sort(
        key=lambda item: next((at for at, path in enumerate(LONGEST) if item.nodeid.startswith(path)), len(LONGEST))
    )


@pytest.fixture(autouse=True)
def logs_as_before() -> Iterator[None]:
    """What a test starts in this process says where the log goes, and from which level on; the next one hears all."""
    before = structlog.get_config()
    yield
    structlog.configure(**before)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    """A private PostgreSQL server; `postgres.url()` is a fresh database. Started when the first test asks for it."""
    with Postgres() as server:
        yield server


@pytest.fixture
def postgres_url(postgres: Postgres) -> Iterator[str]:
    """A fresh, empty PostgreSQL database that is dropped after the test."""
    url = postgres.url()
    yield url
    postgres.drop(url)
