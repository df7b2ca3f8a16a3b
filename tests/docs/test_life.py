"""docs/keys/life.md: its commands run as they stand, beside a server of their own; its states are the program's."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from rootward.core.keystate import KeyState
from tests.docs.console import Terminal, commands, expected
from tests.docs.markdown import ROOT, blocks, read
from tests.support.server import Server

DOCUMENT = read(ROOT / "docs" / "keys" / "life.md")


def test_the_states_are_the_program_s() -> None:
    text = DOCUMENT.partition("## States")[2].partition("These are")[0]
    assert re.findall(r"^\| ([a-z-]+) \| (?!is )", text, re.MULTILINE) == [state.value for state in KeyState]


@pytest.mark.slow
def test_every_command(tmp_path: Path) -> None:
    with Server(tmp_path / "home") as server:
        (tmp_path / "var").symlink_to(server.home)
        (tmp_path / "words").write_text("a passphrase for the backup\n")
        (tmp_path / "words").chmod(0o600)
        terminal = Terminal(tmp_path, {})
        terminal.run(f"export PATH={Path(sys.prefix) / 'bin'}:$PATH")
        terminal.run(f"export ROOTWARD_URL={server.url}")
        for command in [command for block in blocks(DOCUMENT, "console") for command in commands(block.text)]:
            done = terminal.run(command)
            assert done.code == expected(command), done
        assert (server.home / "kek.next").is_file()
        assert (tmp_path / "issuing.backup").is_file()
        assert list((server.home / "keys").glob("issuing-*.key"))
