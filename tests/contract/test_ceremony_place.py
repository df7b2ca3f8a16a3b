"""Where a ceremony is held: its result's folder, tried before anything is done and another one where it fails; sticks
without links and modes; a clock that goes back, and a network that comes up in the middle of it.
"""

from __future__ import annotations

import errno
import os
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path

import pytest

from rootward.ca import ceremony
from rootward.cli import ceremony_run, outcome
from rootward.cli.failure import Failure
from rootward.cli.script import read_paper
from rootward.cli.talk import Answers
from rootward.core import paperwork
from rootward.core.transcript import verify_result
from tests.support.ceremony_room import ANSWERS, PASSPHRASE, SIGNED, change, lab, result_of, room, rootward, sign_later


def nothing_left(folder: Path) -> bool:
    """As if no ceremony had been held."""
    return not [path for path in folder.iterdir() if path.name.startswith(("out", "other", "root-key", "shares"))]


# ── The result's folder ───────────────────────────────────────────────────────────────────────────────────────────


def test_a_result_that_cannot_be_written_is_said_before_anything_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room(tmp_path, lab=True)
    said = lab(tmp_path, SIGNED, out="/proc/none/out", code=2)
    assert "The result cannot be written into /proc/none/out." in said
    assert "Who is here?" not in said

    def full(path: Path, data: bytes, *, mode: int) -> None:
        assert len(data) > 1024 * 1024  # as much as a result has, and not one byte to see
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(outcome, "write_new", full)
    said = lab(tmp_path, SIGNED, code=2)
    assert "No space left on device" in said
    assert "Who is here?" not in said
    assert nothing_left(tmp_path)


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """The medium with the folder `out` fails when the result's last file is written, and not before."""
    replace = outcome.replace

    def write(path: Path, data: bytes, *, mode: int) -> None:
        if path == Path("out.making/result.json"):
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        replace(path, data, mode=mode)

    monkeypatch.setattr(outcome, "replace", write)


@pytest.mark.usefixtures("broken")
def test_a_result_goes_into_another_folder_where_its_own_fails(tmp_path: Path) -> None:
    """All keys are made by then and everybody has signed: that is not given up for a medium."""
    room(tmp_path, lab=True)
    waiting = tmp_path / "away" / "waiting.making" / "result.json"
    waiting.parent.mkdir(parents=True)
    waiting.write_text("another ceremony's")
    said = lab(tmp_path, f"{SIGNED}root-key\nshares/a\naway/waiting\nother\n")
    assert "The result cannot be written into out: Input/output error." in said
    assert said.count("is a folder of the script") == 2
    result = paperwork.read((tmp_path / "other" / "result.json").read_bytes(), paperwork.Result)
    assert verify_result(result).signers
    assert (tmp_path / "root-key" / "keys").is_dir()
    assert not (tmp_path / "out.making" / "result.json").exists()
    assert waiting.exists()


@pytest.mark.usefixtures("broken")
def test_a_result_that_goes_nowhere_gives_its_keys_up(tmp_path: Path) -> None:
    room(tmp_path, lab=True)
    waiting = tmp_path / "away" / "waiting.making" / "result.json"
    waiting.parent.mkdir(parents=True)
    waiting.write_text("another ceremony's")
    assert "could not be written" in lab(tmp_path, f"{SIGNED}away/waiting\n\n", code=1)
    assert waiting.exists()
    assert not (tmp_path / "out.making" / "result.json").exists()
    assert not list(tmp_path.glob("root-key*"))


@pytest.fixture
def stick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose files have no links and no modes, as Linux has a FAT or exFAT file system: link(2) and fchmod(2)
    are not permitted there.
    """
    folder = tmp_path / "stick"
    folder.mkdir()
    link, fchmod = os.link, os.fchmod

    def refuse(path: Path) -> None:
        if path.resolve().is_relative_to(folder):
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    def no_link(source: Path, target: Path) -> None:
        refuse(target)
        link(source, target)

    def no_mode(descriptor: int, mode: int) -> None:
        refuse(Path(f"/proc/self/fd/{descriptor}"))
        fchmod(descriptor, mode)

    monkeypatch.setattr(os, "link", no_link)
    monkeypatch.setattr(os, "fchmod", no_mode)
    return folder


def test_a_fat_stick_takes_script_rehearsal_and_result(tmp_path: Path, stick: Path) -> None:
    room(tmp_path, lab=True)
    plan = ("ceremony", "plan", "stick/plan.yaml", "--root", "root", "--request", "issuing.request", "--lab")
    rootward(tmp_path, *plan)
    assert "There is stick/plan.yaml already" in rootward(tmp_path, *plan, code=2)
    rootward(tmp_path, "ceremony", "rehearse", "script.yaml", "--out", "stick/rehearsal.json")
    lab(tmp_path, f"{ANSWERS}\n\n\n", out="stick/out")
    assert "has signed" in sign_later(tmp_path, "Bob", "+", "the key of Bob", out="stick/out")
    assert verify_result(result_of(stick)).signers
    assert {path.name for path in stick.iterdir()} == {"plan.yaml", "rehearsal.json", "out"}
    assert not list(stick.rglob(".*"))


def test_a_fat_stick_takes_no_key_and_that_is_said_first(tmp_path: Path, stick: Path) -> None:
    """The script, its files and everything else on one new stick: what a first-timer has."""
    room(tmp_path, lab=True)
    for name in ("script.yaml", "issuing.request"):
        (tmp_path / name).rename(stick / name)
    said = lab(stick, SIGNED, code=2)
    assert "cannot take a key or a share" in said
    assert "ext4" in said
    assert "Who is here?" not in said
    assert nothing_left(stick)
    assert not list(stick.glob(".*"))
    made = ("ceremony", "participant", "Ada", "--out", "ada.key")
    assert "as on a FAT stick" in rootward(stick, *made, typed=f"{PASSPHRASE}\n{PASSPHRASE}\n", code=1)


# ── The clock and the network ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("reading", [2, 11, 12, 14, 19, 20])
def test_a_clock_that_goes_back_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reading: int) -> None:
    """By two seconds: in the roll call, in the rehearsal, before a step, in one, at the end."""
    room(tmp_path, lab=True)
    read: list[datetime] = []
    began = datetime.now(UTC)

    class Back(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]  # of the class that it stands for
            back = timedelta(seconds=2 if len(read) >= reading - 1 else 0)
            read.append((began + timedelta(milliseconds=10 * len(read)) - back).astimezone(tz))
            return read[-1]

    monkeypatch.setattr(ceremony_run, "datetime", Back)
    said = lab(tmp_path, SIGNED, code=1)
    assert "The clock went back" in said
    assert "Held." not in said
    assert len(read) == reading
    assert nothing_left(tmp_path)


def test_a_result_that_no_signature_makes_good_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    room(tmp_path, lab=True)
    true = ceremony.result

    def untrue(*given: object, **named: object) -> paperwork.Result:
        made = true(*given, **named)  # type: ignore[arg-type]  # what the run gives
        return change(made, transcript=made.transcript.replace("Root of Example", "Root of another"))

    monkeypatch.setattr(ceremony, "result", untrue)
    said = lab(tmp_path, SIGNED, code=1)
    assert "another title than the script" in said
    assert "your key's file" not in said
    assert nothing_left(tmp_path)


@pytest.mark.parametrize("after", [0, 1, 3, 4, 5])
def test_a_network_that_comes_up_ends_it_before_the_next_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """It is looked at in the beginning and before each of the four steps."""
    room(tmp_path, lab=False)
    looked: list[int] = []

    def faults() -> list[str]:
        looked.append(1)
        return ["The network interface eth0 is up."] if len(looked) > after else []

    monkeypatch.setattr(ceremony_run, "network_faults", faults)
    people = f"{tmp_path}/Ada.key\nthe key of Ada\n{tmp_path}/Bob.key\nthe key of Bob\n"
    (tmp_path / "answers").write_text(f"{ANSWERS}\n{people}")
    paper, talk = read_paper(tmp_path / "script.yaml"), Answers(tmp_path / "answers")
    if after < 5:
        with pytest.raises(Failure, match="can reach a network"):
            ceremony_run.run(paper, tmp_path / "out", talk, None)
        assert nothing_left(tmp_path)
        return
    result = ceremony_run.run(paper, tmp_path / "out", talk, None)
    found = verify_result(result)
    assert len(looked) == 5
    assert any("at the beginning and before each step" in text for text in found.transcript.room)
