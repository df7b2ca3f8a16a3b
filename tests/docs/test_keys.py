"""docs/keys/pkcs11.md: its commands run as they stand, its settings are a server's."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.docs.console import Terminal, commands, expected
from tests.docs.markdown import ROOT, blocks, read
from tests.support.server import Server

GUIDE = ROOT / "docs" / "keys" / "pkcs11.md"


def test_every_command(tmp_path: Path) -> None:
    text = read(GUIDE)
    (settings,) = blocks(text, "toml")
    first, *others = blocks(text, "console")
    home = tmp_path / "home"
    with Server(home) as server:
        (tmp_path / "var").symlink_to(home)
        (tmp_path / ".venv").symlink_to(sys.prefix)
        terminal = Terminal(tmp_path, {})
        for command in commands(first.text):
            done = terminal.run(command)
            assert done.code == expected(command), done
        server.stop()
        with (home / "rootward.toml").open("a") as file:
            file.write(settings.text)
        server.start(SOFTHSM2_CONF=str(tmp_path / "softhsm2.conf"))
        said = []
        for command in [command for block in others for command in commands(block.text)]:
            done = terminal.run(command)
            assert done.code == expected(command), done
            said.append(done.stdout)
        assert "The key store hsm answers: 0 keys." in said[0]
        assert "sensitive, always sensitive, never extractable, local" in said[-1]
        assert (tmp_path / "plant-request.json").is_file()
        assert "The key store hsm answers: 1 key." in terminal.run("rootward doctor --home ./var || true").stdout
