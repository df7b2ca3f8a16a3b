"""docs/reference/audit.md: its verifier, run as it stands there, believes our exports and nothing that was changed."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from rootward.ca.log import open_log
from rootward.core.ledger import leaf
from rootward.fleet.export import export
from tests.docs.console import Terminal, commands, expected
from tests.docs.markdown import REFERENCE, blocks, read
from tests.support.installation import lab

DOCUMENT = read(REFERENCE / "audit.md")


def block(kind: str) -> str:
    found = re.search(rf"^```{kind}\n(.*?)^```", DOCUMENT, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def exported(folder: Path) -> Path:
    async def pieces() -> list[bytes]:
        async with lab(f"sqlite:///{folder}/rootward.db") as made:
            await open_log(made.inst, folder / "log")
            return [piece async for piece in await export(made.inst, made.admin)]

    folder.mkdir()
    (folder / "export.ndjson").write_bytes(b"".join(asyncio.run(pieces())))
    return folder / "export.ndjson"


def verdict(*arguments: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", block("python"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_every_command(terminal: Terminal) -> None:
    terminal.run("export PATH=$PWD/.venv/bin:$PATH")
    typed = [command for found in blocks(DOCUMENT, "console") for command in commands(found.text)]
    assert len(typed) == 5
    for command in typed:
        done = terminal.run(command)
        assert done.code == expected(command), done
    file, key = (terminal.folder / name for name in ("export.ndjson", "log.key"))
    assert verdict(file, key).returncode == 0


@pytest.mark.invariant("I-59")
def test_the_documented_verifier(tmp_path: Path) -> None:
    file = exported(tmp_path / "one")
    key = tmp_path / "one" / "log" / "key"
    for arguments in ((file,), (file, key)):
        done = verdict(*arguments)
        assert done.returncode == 0, done.stderr
        assert "events are the ones that localhost:8443/log/" in done.stdout
    lines = file.read_bytes().splitlines(keepends=True)
    spoilt = tmp_path / "spoilt"
    for changed in (lines[1:], [lines[1], lines[0], *lines[2:]], [lines[0].replace(b"system", b"nobody"), *lines[1:]]):
        spoilt.write_bytes(b"".join(changed))
        assert verdict(spoilt).returncode == 1
    other = exported(tmp_path / "two")
    assert verdict(other).returncode == 0
    assert verdict(other, key).returncode == 1


def test_the_leaf_of_the_example() -> None:
    (line,) = block("json").splitlines()
    said = json.loads(line)
    made = leaf(
        n=int(said["id"]),
        at=said["at"],
        kind=said["kind"],
        actor=said["actor"],
        authority=said["authority"],
        certificate=said["certificate_id"],
        request_id=said["request_id"],
        data=json.dumps(said["data"], sort_keys=True, separators=(",", ":")).encode(),
    )
    assert made == line.encode()
