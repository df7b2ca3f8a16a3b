"""One running server for all of other people's programs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.clients.pki import Pki
from tests.support.server import Server


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pki]:
    """A quickstart that serves, and a folder for its clients."""
    folder = tmp_path_factory.mktemp("clients")
    (folder / "made").mkdir()
    with Server(folder / "home") as server:
        yield Pki(server, folder / "made")
