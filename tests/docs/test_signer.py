"""docs/keys/signer.md: its commands run as they stand, against a server and a signer of their own."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
import tomllib
from pathlib import Path

from rootward.signer.settings import AuthorityLimits, read_settings
from tests.docs.console import Done, Terminal, commands, expected
from tests.docs.markdown import REFERENCE, ROOT, blocks, codes, read, rows
from tests.support.programs import until
from tests.support.server import Server

GUIDE = read(ROOT / "docs" / "keys" / "signer.md")
REFERENCED = read(REFERENCE / "signer.md")


def test_every_command(tmp_path: Path) -> None:
    typed = [command for block in blocks(GUIDE, "console") for command in commands(block.text)]
    assert {command.split()[2] for command in typed if command.lstrip("(").startswith("rootward signer")} == {
        "init",
        "generate",
        "run",
        "install",
        "accept",
        "show",
        "journal",
    }
    (tmp_path / ".venv").symlink_to(sys.prefix)
    with Server(tmp_path / "var") as server:
        terminal = Terminal(tmp_path, {"http://pki.internal": _pki_url(server)})
        terminal.run("export PATH=$PWD/.venv/bin:$PATH")
        terminal.run(f"export ROOTWARD_URL={server.url}")
        last = ""
        try:
            for command in typed:
                if command == "systemctl restart rootward":
                    until((tmp_path / "signer.sock").exists, seconds=60)
                    server.stop()
                    server.start()
                    continue
                done = _accepted(terminal, command) if last == "sleep 2" else terminal.run(command)
                last = command
                assert done.code == expected(command), done
                if "RW-SIGNER-REFUSED" in command:
                    assert "RW-SIGNER-REFUSED" in done.output
                    assert "rootward signer accept" in done.output
                if command.startswith("rootward signer journal"):
                    assert "vaulted 1" in done.output
                    assert "refused" in done.output
        finally:
            pid = tmp_path / "signer.pid"
            if pid.exists():
                _kill(int(pid.read_text()))


def _accepted(terminal: Terminal, command: str) -> Done:
    """Two seconds are enough for the signer to look at what was accepted, where nothing else runs."""

    def asked() -> Done | None:
        done = terminal.run(command)
        return None if "RW-SIGNER-REFUSED" in done.output else done

    found = until(asked, seconds=30)
    assert found is not None
    return found


def _pki_url(server: Server) -> str:
    text = (server.home / "rootward.toml").read_text()
    return str(tomllib.loads(text).get("pki_url", "http://localhost:8080"))


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # the guide's last command ended it
        os.kill(pid, signal.SIGKILL)


def test_the_settings_of_the_guide_are_settings(tmp_path: Path) -> None:
    (example,) = blocks(GUIDE, "toml")
    text = f'socket = "{tmp_path}/s.sock"\npeers = [{os.geteuid()}]\n{example.text}'
    (tmp_path / "signer.toml").write_text(text)
    settings = read_settings(tmp_path)
    assert settings.limits("issuing-2").certificates == 200
    assert settings.limits("other").certificates == 1000


def test_every_setting_with_its_default() -> None:
    told = {codes(cells[0])[0]: codes(cells[1])[0] for cells in rows(REFERENCED, "limit")}
    defaults = {name: getattr(AuthorityLimits(), name) for name in AuthorityLimits.__struct_fields__}
    assert told == {name: _toml(value) for name, value in defaults.items()}


def _toml(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else "[]" if value == () else str(value)


def test_the_unit_has_the_limits_that_it_needs() -> None:
    (unit,) = blocks(GUIDE, "ini")
    assert re.search(r"^LimitMEMLOCK=infinity$", unit.text, re.MULTILINE)
    assert re.search(r"^LimitCORE=0$", unit.text, re.MULTILINE)
