"""A quorum: m custodians open what it seals, fewer do not, and people can be changed under the same key."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from rootward import keys
from rootward.core.problems import Problem
from rootward.core.pubkey import KeyAlgorithm
from rootward.keys import envelope, quorum, share_file

CHEAP = keys.Argon2(memory_kib=8 * 1024, passes=1, lanes=1)
PEOPLE = {"Ada": "the passphrase of Ada", "Grace": "the passphrase of Grace", "Alan": "the passphrase of Alan"}
OTHERS = {"Ada": "the new words of Ada", "Zoë": "the passphrase of Zoë", "Barbara": "the words of Barbara"}
MADE = quorum.make_quorum("root", PEOPLE, 2, cost=CHEAP)
HELD = [(MADE.files[name], PEOPLE[name]) for name in PEOPLE]
NEW = keys.kek_from_bytes(b"7" * 64, "new")
OPENED = [quorum.open_share(*held) for held in HELD]


def refusal(call, *args, **more) -> Problem:
    with pytest.raises(Problem) as caught:
        call(*args, **more)
    return caught.value


@pytest.fixture
def root(tmp_path: Path) -> tuple[Path, str]:
    """A folder with the root's key, sealed by MADE, and the key's public id."""
    backend = keys.BACKENDS["file"](keys.KeySettings(folder=tmp_path / "keys", kek=MADE.kek))
    return tmp_path / "keys", backend.generate("root", KeyAlgorithm.P256).public.id


def loads(folder: Path, public_id: str, kek: keys.Kek) -> bool:
    try:
        keys.BACKENDS["file"](keys.KeySettings(folder=folder, kek=kek)).load("root", public_id)
    except Problem as problem:
        if problem.code != "RW-KEK":
            raise
        return False
    return True


@pytest.mark.invariant("I-39")
def test_any_two_of_three_open_the_roots_key_and_one_does_not(root: tuple[Path, str]) -> None:
    for some in (OPENED[:2], OPENED[1:], OPENED[::2], OPENED):
        assert loads(*root, quorum.open_quorum(some))
    assert refusal(quorum.open_quorum, OPENED[:1]).detail == "2 shares are needed, and 1 were given."


def test_each_quorum_is_another_one() -> None:
    again = quorum.make_quorum("root", PEOPLE, 2, cost=CHEAP)
    assert again.set != MADE.set
    assert again.kek.id != MADE.kek.id
    mixed = [OPENED[0], quorum.open_share(again.files["Grace"], PEOPLE["Grace"])]
    assert len(refusal(quorum.open_quorum, mixed).reasons) == 2


@pytest.mark.parametrize(
    ("label", "people", "threshold", "code", "word"),
    [
        ("Root", PEOPLE, 2, "RW-FIELD", "label"),
        ("root", PEOPLE, 1, "RW-SHARE", "at least 2"),
        ("root", PEOPLE, 4, "RW-SHARE", "4 of 3"),
        ("root", {"": "a passphrase of 12", **PEOPLE}, 2, "RW-SHARE", "name"),
        ("root", {"Bob": "short", **PEOPLE}, 2, "RW-SHARE", "12 characters"),
        ("root", {"Bob": PEOPLE["Ada"], **PEOPLE}, 2, "RW-SHARE", "same passphrase"),
    ],
)
def test_a_poor_quorum_is_refused(label, people, threshold, code, word) -> None:
    problem = refusal(quorum.make_quorum, label, people, threshold, cost=CHEAP)
    assert problem.code == code
    assert word in problem.detail
    assert not any(words in problem.detail for words in people.values())


def test_share_files_are_written_for_their_owner_alone(tmp_path: Path) -> None:
    paths = quorum.write_shares(tmp_path, MADE)
    assert [path.name for path in paths] == [f"root-{MADE.set[:8]}-{index}.share" for index in (1, 2, 3)]
    assert {stat.S_IMODE(path.stat().st_mode) for path in paths} == {0o600}
    assert [path.read_bytes() for path in paths] == list(MADE.files.values())
    assert "cannot be written" in refusal(quorum.write_shares, tmp_path, MADE).detail


def test_the_yearly_check_opens_everything_and_no_key(root: tuple[Path, str]) -> None:
    folder, _ = root
    files = [path.read_bytes() for path in folder.iterdir()]
    sealed = quorum.seal_pin(b"1234", MADE.kek, name="root")
    found = quorum.check_shares(HELD, opens=[*files, sealed])
    assert found == quorum.Checked(MADE.set, ("Ada", "Grace", "Alan"), (), opened=True)


def test_the_yearly_check_names_who_cannot_open() -> None:
    damaged = bytearray(HELD[0][0])
    damaged[-5] = ord("A") if damaged[-5] != ord("A") else ord("B")
    held = [(bytes(damaged), HELD[0][1]), (HELD[1][0], "another passphrase"), HELD[2]]
    found = quorum.check_shares(held)
    assert found.sound == ("Alan",)
    assert not found.opened
    assert len(found.findings) == 3
    assert found.findings[0].startswith('Share 1: The share of "Ada" was changed or damaged')
    assert found.findings[1].startswith('Share 2: The share of "Grace" does not open')
    assert quorum.check_shares([(b"", ""), HELD[1]]).findings[0].startswith("Share 1: This is no share's file")
    assert found.findings[2] == "2 shares are needed, and 1 were given."
    assert quorum.check_shares([]).findings == ("No share was given.",)


def test_the_yearly_check_finds_foreign_and_doubled_shares_and_another_lock(root: tuple[Path, str]) -> None:
    other = quorum.make_quorum("root", OTHERS, 2, cost=CHEAP)
    foreign = (other.files["Zoë"], OTHERS["Zoë"])
    assert '"Zoë" belongs to the set' in quorum.check_shares([*HELD, foreign]).findings[0]
    assert "is there twice" in quorum.check_shares([HELD[0], HELD[0]]).findings[0]
    data = next(root[0].iterdir()).read_bytes()
    found = quorum.check_shares([(other.files[name], OTHERS[name]) for name in OTHERS], opens=[data])
    assert found.findings == (f"The quorum {other.set} is not the one that the key file of root was sealed for.",)
    assert not found.opened


def test_a_change_of_custodians_leaves_the_old_shares_with_nothing(root: tuple[Path, str], tmp_path: Path) -> None:
    folder, public_id = root
    (file,) = folder.iterdir()
    copy = file.read_bytes()
    os.link(file, tmp_path / "disk")  # what the disk has where the old file was
    old, made = quorum.change_custodians(OPENED[:2], OTHERS, 2, cost=CHEAP)
    quorum.write_shares(tmp_path, made)
    assert quorum.change_keys(folder, old=old, new=made.kek) == [file.name]
    assert [path.name for path in folder.iterdir()] == [file.name]
    assert not loads(folder, public_id, quorum.open_quorum(OPENED))
    kept = [quorum.open_share(made.files[name], OTHERS[name]) for name in ("Zoë", "Barbara")]
    assert loads(folder, public_id, quorum.open_quorum(kept))
    # The old inode has another name here, so it is not overwritten; without one it is (below).
    assert (tmp_path / "disk").read_bytes() == copy
    # What no change can take back, and OLD_COPIES says: a copy made before opens with the old shares.
    assert envelope.unseal(copy, label="root", public_id=public_id, kek=quorum.open_quorum(OPENED[:2]))
    assert "old set" in quorum.OLD_COPIES


def test_a_change_of_keys_that_was_cut_off_is_finished_by_the_same_call(root: tuple[Path, str]) -> None:
    folder, public_id = root
    (file,) = folder.iterdir()
    new = NEW
    # Cut off after the file was sealed anew, before the old copy was overwritten.
    os.link(file, folder / f".old-{file.name}")
    keys.reseal(folder, old=MADE.kek, new=new)
    assert quorum.change_keys(folder, old=MADE.kek, new=new) == []
    assert [path.name for path in folder.iterdir()] == [file.name]
    # Cut off before anything was sealed anew, or run once more than needed: the key file itself is never overwritten.
    os.link(file, folder / f".old-{file.name}")
    assert quorum.change_keys(folder, old=MADE.kek, new=new) == []
    assert loads(folder, public_id, new)


@pytest.mark.parametrize("begun", [True, False])
def test_what_a_change_of_keys_left_is_ended_by_whoever_opens_them_next(root: tuple[Path, str], begun: bool) -> None:
    """Killed before the old copy was overwritten: until somebody did, the old custodians could still open that."""
    folder, public_id = root
    (file,) = folder.iterdir()
    os.link(file, folder / f".old-{file.name}")
    if begun:
        keys.reseal(folder, old=MADE.kek, new=NEW)
        quorum.finish_change(folder, MADE.kek)  # who has the old shares ends nothing
        assert len(list(folder.iterdir())) == 2
    quorum.finish_change(folder, NEW if begun else MADE.kek)
    assert [path.name for path in folder.iterdir()] == [file.name]
    assert loads(folder, public_id, NEW if begun else MADE.kek)


def test_a_change_of_keys_that_is_refused_changes_nothing(root: tuple[Path, str]) -> None:
    folder, _ = root
    (file,) = folder.iterdir()
    before = file.read_bytes()
    wrong = keys.kek_from_bytes(b"8" * 64, "wrong")
    assert refusal(quorum.change_keys, folder, old=wrong, new=NEW).code == "RW-KEK"
    assert [path.read_bytes() for path in folder.iterdir()] == [before]


def test_the_old_copy_is_overwritten(root: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, _ = root
    (file,) = folder.iterdir()
    before = file.read_bytes()
    shredded = []
    real = quorum.shred
    monkeypatch.setattr(quorum, "shred", lambda path: (shredded.append(path.read_bytes()), real(path)))
    quorum.change_keys(folder, old=MADE.kek, new=NEW)
    assert shredded == [before]


def test_a_sealed_pin_opens_for_its_quorum_and_its_token() -> None:
    sealed = quorum.seal_pin(b"123456", MADE.kek, name="root")
    assert quorum.unseal_pin(sealed, quorum.open_quorum(OPENED[1:]), name="root") == b"123456"
    assert refusal(quorum.unseal_pin, sealed, MADE.kek, name="other").code == "RW-KEK"
    other = quorum.make_quorum("root", OTHERS, 2, cost=CHEAP)
    assert refusal(quorum.unseal_pin, sealed, other.kek, name="root").code == "RW-KEK"


class Token:
    """A token with a PIN, whose line can be lost before or after it took a new one."""

    def __init__(self, pin: bytes) -> None:
        self.pin = pin
        self.fails = ""

    def set_pin(self, old: bytes, new: bytes) -> None:
        if old != self.pin or self.fails == "before":
            raise Problem("RW-KEY-UNAVAILABLE", "The token refused.")
        self.pin = new
        if self.fails == "after":
            raise Problem("RW-KEY-UNAVAILABLE", "The token is gone.")

    def works(self, pin: bytes) -> bool:
        return pin == self.pin


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    path = tmp_path / "root.pin"
    path.write_bytes(quorum.seal_pin(b"123456", MADE.kek, name="root"))
    path.chmod(0o600)
    return path


@pytest.fixture
def token() -> Token:
    return Token(b"123456")


THIRD = keys.kek_from_bytes(b"9" * 64, "third")


def change(path: Path, token: Token, old: keys.Kek, new: keys.Kek) -> None:
    quorum.change_pin(path, name="root", old=old, new=new, set_pin=token.set_pin, works=token.works)


def test_a_change_of_pin(sealed: Path, token: Token) -> None:
    change(sealed, token, MADE.kek, NEW)
    assert len(token.pin) == 24
    assert quorum.unseal_pin(sealed.read_bytes(), NEW, name="root") == token.pin
    assert quorum.read_pin(sealed, NEW, name="root") == token.pin
    assert refusal(quorum.read_pin, sealed, MADE.kek, name="root").code == "RW-KEK"
    assert [path.name for path in sealed.parent.iterdir()] == ["root.pin"]


@pytest.mark.parametrize(("fails", "needed", "useless"), [("before", MADE.kek, NEW), ("after", NEW, MADE.kek)])
def test_a_change_of_pin_that_was_cut_off_loses_no_pin(
    sealed: Path, token: Token, fails: str, needed: keys.Kek, useless: keys.Kek
) -> None:
    """The shares of those who have the token's PIN are the ones to go on with; the others are told so."""
    token.fails = fails
    assert refusal(change, sealed, token, MADE.kek, NEW).code == "RW-KEY-UNAVAILABLE"
    token.fails = ""
    assert quorum.read_pin(sealed, needed, name="root") == token.pin
    before = {path.name: path.read_bytes() for path in sealed.parent.iterdir()}
    assert "was cut off" in refusal(change, sealed, token, useless, THIRD).detail
    assert {path.name: path.read_bytes() for path in sealed.parent.iterdir()} == before
    change(sealed, token, needed, THIRD)
    assert quorum.unseal_pin(sealed.read_bytes(), THIRD, name="root") == token.pin
    assert [path.name for path in sealed.parent.iterdir()] == ["root.pin"]


def test_a_token_that_is_away_costs_no_sealed_pin(sealed: Path, token: Token) -> None:
    """`works` says no when the token cannot be asked: nothing may be destroyed on that."""
    token.fails = "after"
    refusal(change, sealed, token, MADE.kek, NEW)
    away = Token(b"nobody knows")
    for kek in (MADE.kek, NEW):
        assert refusal(change, sealed, away, kek, THIRD).code == "RW-KEK"
    assert quorum.read_pin(sealed, NEW, name="root") == token.pin


def test_foreign_shares_change_no_pin(sealed: Path, token: Token) -> None:
    before = sealed.read_bytes()
    assert refusal(change, sealed, token, NEW, THIRD).code == "RW-KEK"
    assert "no sealed PIN" in refusal(quorum.read_pin, sealed.with_name("none"), NEW, name="root").detail
    assert sealed.read_bytes() == before
    assert [path.name for path in sealed.parent.iterdir()] == ["root.pin"]


@pytest.mark.invariant("I-35")
def test_a_quorum_shows_no_secret() -> None:
    shown = repr(MADE.kek) + repr(OPENED) + repr(quorum.check_shares(HELD[:1]))
    assert not any(words in shown for words in PEOPLE.values())
    assert not any(share.value.hex() in shown or repr(share.value) in shown for share in OPENED)
    assert share_file.read_header(HELD[0][0]).custodian == "Ada"
