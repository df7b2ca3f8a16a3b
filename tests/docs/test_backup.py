"""docs/reference/backup.md: its commands run as they stand, beside a running server."""

from __future__ import annotations

from tests.docs.console import Terminal, commands, expected
from tests.docs.markdown import REFERENCE, blocks, read


def test_every_command(terminal: Terminal) -> None:
    typed = [command for block in blocks(read(REFERENCE / "backup.md"), "console") for command in commands(block.text)]
    assert {command.split()[2] for command in typed if command.startswith("rootward backup")} == {
        "create",
        "verify",
        "restore",
    }
    terminal.run("export PATH=$PWD/.venv/bin:$PATH")
    for command in typed:
        done = terminal.run(command)
        assert done.code == expected(command), done
    assert (terminal.folder / "restored" / "admin.token").is_file()
    assert not (terminal.folder / "restored" / "offline-root").exists()
