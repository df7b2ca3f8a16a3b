"""docs/authorities.md: its commands run as they stand. Ceremonies are held in this process by the scripts that the page
makes; what other CAs bring is OpenSSL's.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.clients.test_import_ca import Old
from tests.docs.console import Terminal, commands, expected
from tests.docs.markdown import ROOT, blocks, read
from tests.support.ports import free_port
from tests.support.programs import run, until
from tests.support.site import Site, hexes

EXTENSIONS = """\
basicConstraints=critical,CA:TRUE,pathlen:0
keyUsage=critical,keyCertSign,cRLSign
subjectKeyIdentifier=hash
authorityKeyIdentifier=keyid
"""


def others(folder: Path) -> None:
    """What comes from elsewhere: a corporate root, and a CA that OpenSSL ran."""
    (folder / "ca.ext").write_text(EXTENSIONS)
    run(
        *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "3650"),
        *("-subj", "/CN=Corp Root", "-keyout", "corp.key", "-out", "corp.pem"),
        *("-addext", "keyUsage=critical,keyCertSign,cRLSign"),
        cwd=folder,
    )
    old = Old(folder / "old")
    for name, here in (
        ("chain.pem", "legacy-chain.pem"),
        ("sealed.key", "legacy.key"),
        ("pass", "passphrase"),
        ("old.crl", "legacy.crl"),
        ("issued.pem", "issued.pem"),
    ):
        (folder / here).write_bytes((old.folder / name).read_bytes())


@pytest.mark.slow
def test_every_command(tmp_path: Path) -> None:
    site = Site(tmp_path)
    others(tmp_path)
    anna, ben = hexes(site.people)
    http, https, mtls = free_port(), free_port(), free_port()
    terminal = Terminal(tmp_path, {":9080": f":{http}", "& echo $!": "> served.log 2>&1 & echo $!"})
    for line in (
        f"export PATH={ROOT}/.venv/bin:$PATH",
        f"export ANNA='{anna}' BEN='{ben}'",
        f"export ROOTWARD_HTTP=127.0.0.1:{http} ROOTWARD_HTTPS=127.0.0.1:{https} ROOTWARD_MTLS=127.0.0.1:{mtls}",
    ):
        terminal.run(line)
    page = read(ROOT / "docs" / "authorities.md")
    try:
        for command in [command for block in blocks(page, "console") for command in commands(block.text)]:
            if command.startswith("rootward ceremony import"):
                site.hold(tmp_path / command.split()[3].replace(".result.json", ".yaml"))
            done = terminal.run(command)
            assert done.code == expected(command), done
            if command.startswith("rootward serve"):
                until(lambda: "ready" in (tmp_path / "served.log").read_text(), seconds=60)
    finally:
        terminal.run("test ! -e served.pid || kill $(cat served.pid) 2>/dev/null || true")
