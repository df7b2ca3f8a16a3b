"""Two servers for all ACME clients, each started when the first test asks for it: one as it comes, one with chaos."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.clients.acme.world import World, world


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A server as it comes."""
    with world(tmp_path_factory.mktemp("plain")) as started:
        yield started


@pytest.fixture(scope="session")
def chaotic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A server that refuses good nonces, shuffles and delays: what a client must bear."""
    with world(tmp_path_factory.mktemp("chaotic"), chaos=True) as started:
        yield started


@pytest.fixture(params=["plain", "chaotic"])
def acme(request: pytest.FixtureRequest) -> World:
    """Each of the two."""
    found: World = request.getfixturevalue(request.param)
    return found
