"""What `rootward acme snippet` prints works as pasted; what it calls tested is what is pasted here."""

from __future__ import annotations

from typing import Any

import pytest

from rootward.cli.snippets import SNIPPETS
from tests.clients.acme.snippet import CLIENTS
from tests.support.machine import play


def test_what_is_called_tested() -> None:
    assert {name for name, snippet in SNIPPETS.items() if snippet.tested} == CLIENTS.keys()


@pytest.fixture(scope="module")
def pasted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """All of them, one after the other."""
    return play("tests.clients.acme.snippet", tmp_path_factory.mktemp("snippets"))


@pytest.mark.slow
@pytest.mark.timeout(660)  # the first one waits for all plays
@pytest.mark.parametrize("client", list(CLIENTS))
def test_it_works_as_pasted(pasted: dict[str, dict[str, Any]], client: str) -> None:
    assert "error" not in pasted[client], pasted[client]["error"]
