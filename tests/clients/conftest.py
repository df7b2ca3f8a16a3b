"""One running server for all of other people's programs, and where there is no network."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator

import pytest

from tests.clients.pki import PROMISE, Issued, Pki
from tests.support.outside import namespaces
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


@pytest.fixture(scope="session")
def alone() -> list[str]:
    """The command that takes a program to where there is no interface but a loopback that is down."""
    command = namespaces()
    if command is None:
        pytest.skip("no network namespaces here")
    listed = subprocess.run([*command, "ip", "-o", "link", "show", "up"], capture_output=True, text=True, check=True)
    assert listed.stdout == ""
    return command
