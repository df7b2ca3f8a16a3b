"""docs/ceremonies: the scripts can be carried out, the screens are those of a real run, the commands run."""

from __future__ import annotations

import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

import msgspec
import pytest

from rootward.ca import ceremony
from rootward.cli.script import read_paper
from rootward.core.participants import Participant, Role
from rootward.core.script import (
    FileKey,
    Present,
    Script,
    Step,
    TokenKey,
    kind_of,
    read_script,
)
from tests.docs.console import Terminal, commands, expected
from tests.docs.markdown import ROOT, blocks, codes, links, read, rows
from tests.support.ceremony_room import APART, at_terminal, room, rootward

FOLDER = ROOT / "docs" / "ceremonies"
SCRIPTS = sorted((FOLDER / "scripts").glob("*.yaml"))
GUIDE = read(FOLDER / "index.md")


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_every_script_can_be_carried_out(path: Path) -> None:
    paper = read_paper(path)
    done = ceremony.rehearse(paper.script, paper.files, clock=lambda: datetime.now(UTC))
    assert len(done) == len(paper.script.steps)
    assert not paper.script.lab
    assert path.read_text().startswith("# ")  # what to change stands first


def test_every_kind_of_step_has_a_script_and_every_script_a_runbook() -> None:
    steps = {kind_of(step) for path in SCRIPTS for step in read_script(path.read_bytes()).steps}
    assert steps == {str(kind.__struct_config__.tag) for kind in get_args(Step)}
    assert {link for link in links(read(FOLDER / "runbooks.md")) if link.startswith("scripts/")} == {
        f"scripts/{path.name}" for path in SCRIPTS
    }


def test_every_field_is_explained() -> None:
    text = read(FOLDER / "script.md")
    named = set(codes(text))
    for kind in (Script, Participant, FileKey, TokenKey, Present, *get_args(Step)):
        fields = {one.encode_name for one in msgspec.structs.fields(kind)}
        assert fields - {"participants", "keys", "authorities", "steps"} <= named, kind
    told = {codes(cells[0])[0] for cells in rows(text, "`do`")}
    assert told == {str(kind.__struct_config__.tag) for kind in get_args(Step)}
    assert set(get_args(Role)) <= named


def plain(line: str) -> str:
    """A line of a screen without what is another one each time: hashes, words, times, versions."""
    line = re.sub(r"^( *\d+)  [0-9a-f]{4}  .*$", r"\1 HASH", line.rstrip())
    line = re.sub(r"(or its two words:).*", r"\1", line)
    line = re.sub(r"\b[0-9a-f]{32,}\b", "HEX", line)
    line = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "TIME", line)
    line = re.sub(r"\b\d{13}\b", "NUMBER", line)
    return re.sub(r"^rootward .*", "VERSIONS", line)


def test_the_screens_are_those_of_a_real_run(tmp_path: Path) -> None:
    if subprocess.run([*APART, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("this machine lets nobody but root have network namespaces of their own")
    room(tmp_path, lab=False)
    rootward(tmp_path, "ceremony", "rehearse", "script.yaml", "--out", "rehearsal.json")
    screen, code = at_terminal(tmp_path)
    assert code == 0
    real = "\n".join(plain(line) for line in screen.split("\n"))
    shown = [block.text for block in blocks(GUIDE, "text") if not block.text.startswith("rootward ")]
    assert len(shown) == 7
    for picture in shown:
        wanted = "\n".join(plain(line) for line in picture.rstrip("\n").split("\n"))
        assert wanted in real, f"{wanted}\n\nis not in\n\n{real}"


def test_every_command_of_the_lab_runs(tmp_path: Path) -> None:
    typed = [command for block in blocks(GUIDE, "console") for command in commands(block.text)]
    assert len(typed) == 8
    terminal = Terminal(tmp_path, {})
    (tmp_path / ".venv").symlink_to(sys.prefix)
    terminal.run("export PATH=$PWD/.venv/bin:$PATH")
    for command in typed:
        done = terminal.run(command if command.startswith("mkdir") else f"cd room; {command}")
        assert done.code == expected(command), done
    assert "Example Root CA" in done.stdout
