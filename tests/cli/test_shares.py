"""`rootward ceremony share`: what custodians do with their shares by themselves."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import stat
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from rootward.keys import Argon2, create_kek_file, kek_from_file
from rootward.keys.quorum import make_quorum, seal_pin, write_shares
from tests.cli.conftest import Result, Rootward
from tests.support.programs import SECONDS, environment

CHEAP = Argon2(memory_kib=8 * 1024, passes=1, lanes=1)
PEOPLE = {"Ada": "the passphrase of Ada", "Grace": "the passphrase of Grace", "Alan": "the passphrase of Alan"}
MADE = make_quorum("root", PEOPLE, 2, cost=CHEAP)


@pytest.fixture
def share(bare: Rootward, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Rootward:
    """The noun as the ceremony's application has it, with a share and a passphrase file for everybody."""
    for path, name in zip(write_shares(Path(), MADE), PEOPLE, strict=True):
        path.rename(name)
        Path(f"{name}.pass").write_text(PEOPLE[name] + "\n")
        Path(f"{name}.pass").chmod(0o600)
    return bare


def run(share: Rootward, *words: object, stdin: str = "", monkeypatch: pytest.MonkeyPatch | None = None) -> Result:
    if monkeypatch is not None:
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
    return share("ceremony", "share", *words)


def passes(*names: str) -> list[str]:
    return [word for name in names for word in ("--passphrase-file", f"{name}.pass")]


def test_whose_share_it_is(share: Rootward) -> None:
    shown = run(share, "show", "Grace")
    assert (shown.code, shown.err) == (0, "")
    assert "Grace" in shown.out
    assert "2 of 3" in shown.out
    said = json.loads(run(share, "show", "Grace", "--json").out)
    assert said == {
        "label": "root",
        "set": MADE.set,
        "custodian": "Grace",
        "index": 2,
        "shares": 3,
        "threshold": 2,
    }


def test_from_a_file_to_paper_and_back(share: Rootward, monkeypatch: pytest.MonkeyPatch) -> None:
    page = run(share, "print", "Ada")
    assert (page.code, page.err) == (0, "")
    done = run(share, "type", "again", stdin=page.out, monkeypatch=monkeypatch)
    assert (done.code, done.out) == (0, "again holds the share of Ada, 1 of 3.\n")
    assert Path("again").read_bytes() == MADE.files["Ada"]
    assert stat.S_IMODE(Path("again").stat().st_mode) == 0o600
    once_more = run(share, "type", "again", stdin=page.out, monkeypatch=monkeypatch)
    assert once_more.code == 2
    assert "nothing is overwritten" in once_more.err


def test_every_line_that_was_typed_wrong_is_named(share: Rootward, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = run(share, "print", "Ada").out.splitlines()
    first = next(at for at, line in enumerate(lines) if line.startswith(" 1 "))
    for at in (first + 1, first + 4):
        lines[at] = lines[at][:4] + ("0" if lines[at][4] != "0" else "2") + lines[at][5:]
    done = run(share, "type", "again", stdin="\n".join(lines), monkeypatch=monkeypatch)
    assert done.code == 1
    assert "Line 2 was typed wrong" in done.err
    assert "Line 5 was typed wrong" in done.err
    assert not Path("again").exists()


def test_a_share_by_itself_and_the_quorum(share: Rootward) -> None:
    alone = run(share, "check", "Ada", *passes("Ada"))
    assert (alone.code, alone.err) == (0, "")
    assert "not opened: 2 are needed" in alone.out
    create_kek_file(Path("kek"))
    Path("mine").write_bytes(seal_pin(b"1234", MADE.kek, name="root"))
    Path("other").write_bytes(seal_pin(b"1234", kek_from_file(Path("kek")), name="root"))
    both = json.loads(run(share, "check", "Ada", "Alan", *passes("Ada", "Alan"), "--opens", "mine", "--json").out)
    assert both == {"set": MADE.set, "sound": ["Ada", "Alan"], "findings": [], "opened": True}
    wrong = run(share, "check", "Ada", "Alan", *passes("Ada", "Alan"), "--opens", "other")
    assert wrong.code == 1
    assert "does not open" in wrong.out
    assert "is not the one that the sealed PIN was sealed for" in wrong.err


def test_what_is_not_sound_is_named(share: Rootward) -> None:
    done = run(share, "check", "Ada", "Grace", *passes("Ada", "Ada"))
    assert done.code == 1
    assert "Grace" in done.err
    assert "does not open with this passphrase" in done.err
    assert PEOPLE["Ada"] not in done.out + done.err
    alone = run(share, "check", "Grace", *passes("Ada"))
    assert alone.code == 1
    assert run(share, "check", "Ada", "Grace", *passes("Ada")).code == 2
    nobody = run(share, "check", "none", *passes("Ada"))
    assert (nobody.code, "cannot be read" in nobody.err) == (2, True)
    Path("thesis").write_text("no share")
    assert "RW-SHARE" in run(share, "show", "thesis").err
    assert "thesis: This is no share's file" in run(share, "check", "Ada", "thesis", *passes("Ada", "Ada")).err


def test_what_has_no_end_is_not_read_to_its_end(share: Rootward) -> None:
    assert "RW-TOO-LARGE" in run(share, "show", "/dev/zero").err
    done = run(share, "check", "Ada", "Grace", *passes("Ada", "Grace"), "--opens", "/dev/zero")
    assert "RW-TOO-LARGE" in done.err


def test_a_passphrase_file_that_others_can_read_is_refused(share: Rootward) -> None:
    Path("Ada.pass").chmod(0o644)
    done = run(share, "check", "Ada", *passes("Ada"))
    assert done.code == 1
    assert "chmod 600" in done.err
    assert "no file" in run(share, "check", "Ada", "--passphrase-file", "none").err


def at_a_terminal(*words: str, typed: Sequence[tuple[str, str]]) -> tuple[int, str]:
    """Run the noun where somebody types an answer whenever a text has appeared: its exit code and the screen."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "rootward", "ceremony", "share", *words]
    with subprocess.Popen(
        ["setsid", "--ctty", "--wait", *command], stdin=theirs, stdout=theirs, stderr=theirs, env=environment()
    ) as process:
        os.close(theirs)
        screen, seen, waiting = "", 0, list(typed)
        with contextlib.suppress(OSError):  # EIO: nobody holds the other end any more
            while piece := os.read(ours, 65536):
                screen += piece.decode()
                while waiting and waiting[0][0] in screen[seen:]:
                    seen = len(screen)
                    os.write(ours, waiting.pop(0)[1].encode())
        os.close(ours)
        code = process.wait(SECONDS)
    assert not waiting, f"{waiting} was never asked for:\n{screen}"
    return code, screen.replace("\r\n", "\n")


def test_a_wrong_line_is_asked_for_again_at_a_terminal(share: Rootward) -> None:
    lines = [line for line in run(share, "print", "Ada").out.splitlines() if line.strip()[:1].isdigit()]
    answers = [(f"line {number} ", f"{line}\n") for number, line in enumerate(lines, start=1)]
    slip = ("line 2 ", f" 2  {lines[1][9:]}\n")
    code, screen = at_a_terminal("type", "again", typed=[answers[0], slip, *answers[1:]])
    assert code == 0, screen
    assert "some are missing, or too many. Once more." in screen
    assert f"line 2 of {len(lines)} > " in screen
    assert Path("again").read_bytes() == MADE.files["Ada"]
    code, screen = at_a_terminal("type", "third", typed=[answers[0], ("line 2 ", "\x04")])
    assert code == 1
    assert "nothing was written" in screen
    assert not Path("third").exists()


@pytest.mark.invariant("I-35")
def test_a_passphrase_is_typed_unseen(share: Rootward) -> None:
    code, screen = at_a_terminal("check", "Ada", typed=[("Passphrase of Ada: ", PEOPLE["Ada"] + "\n")])
    assert code == 0, screen
    assert "sound   Ada" in screen
    assert PEOPLE["Ada"] not in screen
