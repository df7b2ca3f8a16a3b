"""What comes after a ceremony, at home: who signs later compares the result with their paper, and whoever verifies it
brings the files that they know.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from random import Random

import pytest

from rootward.cli.talk import groups
from rootward.core import paperwork
from rootward.core.transcript import verify_result
from tests.support.ceremonies import asked, witnessed
from tests.support.ceremony_room import ANSWERS, READ, ROOTWARD, lab, result_of, room, rootward
from tests.support.terminal import Person

SIGN = (*ROOTWARD, "ceremony", "sign", "out/result.json", "--key", "Bob.key", "--name", "Bob")
UNSIGNED = f"{ANSWERS}\n\n\n"


def paper(result: paperwork.Result) -> Callable[[str], str]:
    """Who wrote the transcript's hash down, and reads the group that is asked for."""
    written = groups(sha256(result.transcript.encode()).hexdigest())
    return lambda screen: written[int(screen.rpartition("group ")[2].partition(" ")[0]) - 1]


@pytest.fixture
def held(tmp_path: Path) -> Path:
    """A lab's ceremony that nobody has signed."""
    room(tmp_path, lab=True)
    lab(tmp_path, UNSIGNED)
    return tmp_path


@pytest.mark.invariant("I-37")
def test_nobody_signs_a_result_that_was_swapped_on_the_way(held: Path) -> None:
    """For that of another ceremony, with another root and the same people: all of it agrees with itself."""
    true = result_of(held)
    for name in ("out", "root-key"):
        (held / name).rename(held / f"true-{name}")
    lab(held, UNSIGNED)
    swapped = (held / "out" / "result.json").read_bytes()
    person = Person(SIGN, held)
    screen = person.answer([(READ, paper(true))] * 3)
    assert person.code == 1
    assert "wrong three times" in screen
    assert "passphrase" not in screen
    assert (held / "out" / "result.json").read_bytes() == swapped


def test_who_signs_later_sees_what_and_is_asked_before_the_screen_shows_it(held: Path) -> None:
    person = Person((*SIGN, "--script", "script.yaml"), held)
    screen = person.answer([(READ, paper(result_of(held))), ("passphrase:", "the key of Bob")])
    assert person.code == 0, screen
    found = verify_result(result_of(held))
    asked_for, shown = screen.partition(READ)[::2]
    assert all(text in asked_for for text in ("Root of Example", "root.pem", *groups(found.transcript.script)))
    assert not all(f"{at:>2}  {text}" in asked_for for at, text in enumerate(groups(found.sha256), start=1))
    assert all(f"{at:>2}  {text}" in shown for at, text in enumerate(groups(found.sha256), start=1))
    assert max(map(len, screen.split("\n"))) <= 80


def test_who_signs_later_compares_with_a_script_of_their_own(held: Path) -> None:
    (held / "mine.yaml").write_bytes((held / "script.yaml").read_bytes() + b"# changed\n")
    words = ("--key", "Bob.key", "--name", "Bob", "--script", "mine.yaml")
    assert "another script" in rootward(held, "ceremony", "sign", "out/result.json", *words, code=1)
    assert not result_of(held).signatures


def test_a_file_that_the_script_does_not_name_is_no_comparison(held: Path) -> None:
    """Whoever brings a request that the ceremony never saw would be told that all is well."""
    (held / "junk.csr").write_text("hello")
    (held / "other.request").write_bytes(paperwork.write(asked("req-2")))
    person = Person(SIGN, held)
    person.answer([(READ, paper(result_of(held))), ("passphrase:", "the key of Bob")])
    verify = ("ceremony", "verify", "out/result.json", "--request", "issuing.request")
    assert "is what its script says" in rootward(held, *verify)
    for file in ("junk.csr", "other.request"):
        said = rootward(held, *verify, "--request", file, code=1)
        assert f"names no file like {file}" in " ".join(said.split())
    script = (held / "script.yaml").read_bytes()
    (held / "mine.yaml").write_bytes(script + b"# changed\n")
    said = rootward(held, *verify, "--request", "junk.csr", "--script", "mine.yaml", code=1)
    assert "another script" in said
    assert "names no file like" in said  # every reason


@pytest.mark.invariant("I-37")
@pytest.mark.parametrize("changed", ["result.json", "script.yaml", "issuing.request"])
def test_every_random_change_is_found(tmp_path: Path, changed: str) -> None:
    """Of the result, of the reviewed script and of the request that somebody brings along: each is said, as such."""
    held, random = witnessed(), Random(20261124)
    (request,) = held.files.values()
    files = {"result.json": paperwork.write(held.result), "script.yaml": held.script, "issuing.request": request}
    verify = ("ceremony", "verify", "result.json", "--script", "script.yaml", "--request", "issuing.request")
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    rootward(tmp_path, *verify)
    for _ in range(20):
        (tmp_path / changed).write_bytes(altered(random, files[changed]))
        assert "RW-CEREMONY" in rootward(tmp_path, *verify, code=1)


def altered(random: Random, data: bytes) -> bytes:
    """One byte is another one, gone, or more."""
    at = random.randrange(len(data))
    way = random.randrange(3)
    if way == 0:
        return data[:at] + bytes([data[at] ^ 1 << random.randrange(8)]) + data[at + 1 :]
    if way == 1:
        return data[:at] + data[at + 1 :]
    return data[:at] + bytes([random.randrange(256)]) + data[at:]
