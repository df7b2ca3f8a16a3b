"""The npm package acme-client, in the program that docs/acme/acme-client.md shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.clients.acme.world import World, assert_good, assert_revoked
from tests.docs.markdown import ROOT, blocks, read
from tests.support.programs import run

PAGE = ROOT / "docs" / "acme" / "acme-client.md"


@pytest.mark.slow
def test_obtain_renew_and_revoke(acme: World, tmp_path: Path) -> None:
    (program,) = blocks(read(PAGE), "js")
    (tmp_path / "certificate.mjs").write_text(program.text)
    (tmp_path / "node_modules").symlink_to(ROOT / ".node" / "node_modules")
    environ = {
        "NODE_EXTRA_CA_CERTS": str(acme.root),
        "ACME_DIRECTORY": acme.directory(),
        "HTTP01_ADDRESS": "127.0.0.1",
        "HTTP01_PORT": str(acme.http01_port),
    }
    serials = []
    for _ in range(2):
        run("node", "certificate.mjs", "obtain", "a.internal", "b.test", cwd=tmp_path, env=environ)
        names = ("DNS:a.internal", "DNS:b.test")
        serials.append(assert_good(acme, tmp_path / "fullchain.pem", *names, key=tmp_path / "key.pem"))
    assert len(set(serials)) == 2
    run("node", "certificate.mjs", "revoke", cwd=tmp_path, env=environ)
    assert_revoked(acme, serials[1], 4)
