"""One running server for all of other people's programs."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.clients.pki import PROMISE, Issued, Pki
from tests.support.programs import until
from tests.support.server import Server


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pki]:
    """A quickstart that serves, and a folder for its clients. It writes down whatever it is asked."""
    folder = tmp_path_factory.mktemp("clients")
    (folder / "made").mkdir()
    with Server(folder / "home") as server:
        server.stop()
        settings = server.home / "rootward.toml"
        text, count = re.subn(r'(?m)^# level = "info"$', 'level = "debug"', settings.read_text())
        assert count == 1
        settings.write_text(text)
        server.start()
        yield Pki(server, folder / "made")


@pytest.fixture(scope="session")
def revoked(pki: Pki) -> Issued:
    """A certificate (for server and client) that was revoked and is in the CRL."""
    issued = pki.issue(profile="peer")
    pki.revoke(issued, "privilegeWithdrawn")
    until(lambda: issued.serial in pki.revocations(), seconds=PROMISE)
    return issued
