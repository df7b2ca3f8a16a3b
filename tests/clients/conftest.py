"""One running server for all of other people's programs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.clients.pki import PROMISE, Issued, Pki
from tests.support.programs import until
from tests.support.server import Server


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pki]:
    """A quickstart that serves, and a folder for its clients."""
    folder = tmp_path_factory.mktemp("clients")
    (folder / "made").mkdir()
    with Server(folder / "home") as server:
        yield Pki(server, folder / "made")


@pytest.fixture(scope="session")
def revoked(pki: Pki) -> Issued:
    """A certificate (for server and client) that was revoked and is in the CRL."""
    issued = pki.issue(profile="peer")
    pki.revoke(issued, "privilegeWithdrawn")
    until(lambda: issued.serial in pki.revocations(), seconds=PROMISE)
    return issued
