"""One server for all documents, and a folder in which their commands find what they expect."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.console import Terminal
from tests.support.server import Server


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """What `make start` runs, on ports of its own."""
    with Server(tmp_path_factory.mktemp("docs") / "home") as started:
        yield started


@pytest.fixture
def terminal(server: Server, tmp_path: Path) -> Terminal:
    """A new folder that looks like the project's after `make start`: `.venv`, `var`."""
    (tmp_path / "var").symlink_to(server.home)
    (tmp_path / ".venv").symlink_to(sys.prefix)
    return Terminal(tmp_path, {"https://localhost:8443": server.url})
