"""A ceremony's room for tests: a folder with a script of today and everything that it needs, the people in it with
their keys and papers, and what they answer.
"""

from __future__ import annotations

import contextlib
import io
import re
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from rootward.cli.app import run
from rootward.cli.talk import groups
from rootward.core import paperwork
from rootward.core.paperwork import Result
from rootward.core.participants import Participant
from rootward.core.script import FileKey, Script, SignCrl, sha256_of, write_script
from rootward.core.spoken import words_of
from rootward.core.times import rfc3339
from rootward.keys import Argon2, kek_from_passphrase
from rootward.keys.participant import make_key_file
from tests.support.ceremonies import asked, two_tier
from tests.support.terminal import Person

ROOTWARD = (sys.executable, "-m", "rootward")
APART = ("unshare", "--net")
CHEAP = Argon2(memory_kib=8 * 1024, passes=1, lanes=1)
PASSPHRASE = "correct horse battery"
change = msgspec.structs.replace


def rootward(folder: Path, *arguments: str, code: int = 0, typed: str = "") -> str:
    """One command in a folder, in this process; its output, errors too."""
    out = io.StringIO()
    with (
        contextlib.chdir(folder),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(out),
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(sys, "stdin", io.StringIO(typed))
        ended = run(list(arguments))
    assert ended == code, out.getvalue()
    return out.getvalue()


def room(folder: Path, *, lab: bool, edit: Callable[[Script], Script] = lambda script: script) -> Script:
    """A folder with a script of today, its request, and the keys of Ada and Bob."""
    request = asked()
    (folder / "issuing.request").write_bytes(paperwork.write(request))
    people = []
    for name in ("Ada", "Bob"):
        public = make_key_file(folder / f"{name}.key", kek_from_passphrase(f"the key of {name}", CHEAP))
        people.append(Participant(name, "master" if name == "Ada" else "witness", public))
    at = datetime.now(UTC).replace(microsecond=0)
    script = two_tier(request)
    crl = SignCrl("root", int(at.timestamp() * 1000), rfc3339(at), rfc3339(at + timedelta(days=90)))
    script = change(
        script,
        lab=lab,
        at=rfc3339(at),
        participants=tuple(people),
        keys={"root": FileKey("root-key")},
        steps=(*script.steps[:3], crl),
    )
    script = edit(script)
    (folder / "script.yaml").write_bytes(write_script(script))
    return script


def result_of(folder: Path) -> Result:
    return paperwork.read((folder / "out" / "result.json").read_bytes(), Result)


def last_hash(screen: str) -> list[str]:
    """The groups of the hash that was shown last."""
    rows = re.findall(r"^ +(\d+)  ([0-9a-f]{4})  \w+ +\w+ +(\d+)  ([0-9a-f]{4}) ", screen, re.MULTILINE)[-8:]
    found = {int(number): text for row in rows for number, text in ((row[0], row[1]), (row[2], row[3]))}
    return [found[number] for number in range(1, 17)]


def from_paper(screen: str) -> str:
    """The group that the last question asks for."""
    asked = int(re.findall(r"group (\d+) of 16", screen)[-1])
    return last_hash(screen)[asked - 1]


def script_group(data: bytes, *, words: bool = False) -> Callable[[str], str]:
    """From the participant's own paper: the script's hash."""

    def read(screen: str) -> str:
        group = groups(sha256_of(data))[int(re.findall(r"group (\d+) of 16", screen)[-1]) - 1]
        return " ".join(words_of(bytes.fromhex(group))) if words else group

    return read


READ = "or its two words:"


def conversation(data: bytes) -> list[tuple[str, str | Callable[[str], str]]]:
    """What Ada and Bob answer."""
    step = [('type "yes" to do it:', "yes"), (READ, from_paper)]
    return [
        ("Ada (master), your name:", "Ada"),
        (READ, script_group(data)),
        ("Bob (witness), your name:", "bob"),
        (READ, script_group(data, words=True)),
        ('type "yes" to do it:', "yes"),
        ("12 characters or more:", "short"),
        ("12 characters or more:", PASSPHRASE),
        ("The same again:", PASSPHRASE),
        (READ, "wrong"),
        (READ, from_paper),
        *step,
        *step,
        *step,
        ("(Enter: sign later):", "Ada.key"),
        ("passphrase:", "the key of Ada"),
        ("(Enter: sign later):", "Ada.key"),
        ("passphrase:", "the key of Ada"),
        ("(Enter: sign later):", "Bob.key"),
        ("passphrase:", "the key of Bob"),
    ]


ANSWERS = "\n".join(["+"] * 4 + ["yes", PASSPHRASE, PASSPHRASE, "+", *["yes", "+"] * 3])
SIGNED = f"{ANSWERS}\nAda.key\nthe key of Ada\n\n"


def lab(folder: Path, answers: str, *, code: int = 0, out: str = "out") -> str:
    (folder / "answers").write_text(answers)
    return rootward(folder, "ceremony", "run", "script.yaml", "--out", out, "--answers", "answers", code=code)


def sign_later(folder: Path, name: str, *answers: str, code: int = 0, out: str = "out") -> str:
    """A lab's participant signs the result with Bob's key; the screen."""
    (folder / "signing").write_text("\n".join(answers))
    words = ("--key", "Bob.key", "--name", name, "--answers", "signing")
    return rootward(folder, "ceremony", "sign", f"{out}/result.json", *words, code=code)


def at_terminal(folder: Path) -> tuple[str, int]:
    """The witnessed ceremony of `room`, in a network namespace that has nothing in it; the screen, and how it ended."""
    command = (*APART, *ROOTWARD, "ceremony", "run", "script.yaml", "--out", "out", "--rehearsal", "rehearsal.json")
    person = Person(command, folder)
    screen = person.answer(conversation((folder / "script.yaml").read_bytes()))
    return screen, person.code
