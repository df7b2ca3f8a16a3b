"""docs/reference/backup.md: its commands run as they stand, beside a running server."""

from __future__ import annotations

from tests.docs.console import Terminal, commands, expected
from tests.docs.markdown import REFERENCE, blocks, read
from tests.support.ports import free_port


def test_every_command(terminal: Terminal) -> None:
    typed = [command for block in blocks(read(REFERENCE / "backup.md"), "console") for command in commands(block.text)]
    assert {command.split()[2] for command in typed if command.startswith("rootward backup")} == {
        "create",
        "verify",
        "restore",
    }
    ports = {f":{port}": f":{free_port()}" for port in (9443, 9444, 9080)}
    terminal = Terminal(terminal.folder, {**terminal.replaced, **ports})
    terminal.run("export PATH=$PWD/.venv/bin:$PATH")
    try:
        for command in typed:
            done = terminal.run(command)
            assert done.code == expected(command), done
            if command.startswith("rootward backup verify"):
                assert "sound" in done.stdout.splitlines()[-1]
    finally:
        terminal.run("test ! -e restored.pid || kill $(cat restored.pid) 2>/dev/null || true")
    said = (terminal.folder / "restored.log").read_text()
    assert f"ready: https://localhost{ports[':9443']}" in said
    assert "external_url" in said
    assert (terminal.folder / "restored" / "admin.token").is_file()
    assert not (terminal.folder / "restored" / "offline-root").exists()
