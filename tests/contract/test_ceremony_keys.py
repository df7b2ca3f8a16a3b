"""What ceremonies do to keys: custodians with shares, their yearly check and their change, copies, the end of a key;
and participants who sign with a token.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import msgspec
import pytest

from rootward.ca import ceremony
from rootward.cli import medium
from rootward.cli.medium import Medium
from rootward.cli.talk import Answers
from rootward.core import paperwork
from rootward.core.minutes import Transcript, good_signature
from rootward.core.paperwork import Result
from rootward.core.participants import Participant
from rootward.core.problems import Problem
from rootward.core.pubkey import KeyAlgorithm
from rootward.core.script import (
    BackUpKey,
    ChangeCustodians,
    CheckShares,
    DestroyKey,
    FileKey,
    MakeKey,
    Present,
    Script,
    SignCrl,
    Step,
    TokenKey,
    read_script,
    write_script,
)
from rootward.core.times import rfc3339
from rootward.core.transcript import verify_result
from rootward.keys import BACKENDS, Backend, KeySettings, quorum
from rootward.keys.participant_token import sign_in_token
from rootward.keys.quorum import make_quorum, open_quorum, open_share, unseal_pin
from rootward.keys.share_file import read_header
from tests.support.ceremonies import signed_by, witnessed
from tests.support.ceremony_room import CHEAP, PASSPHRASE, ROOTWARD, change, room, rootward
from tests.support.programs import run
from tests.support.softhsm import MODULE, PIN, SoftToken, make_token, soft_token

HOLDERS = ("Cyd", "Dan", "Eli")
NEW = ("Dan", "Fay", "Gus")
SECRETS = {name: f"the passphrase of {name}" for name in {*HOLDERS, *NEW}}
QUORUM = FileKey("root-key", HOLDERS, 2)


def play(folder: Path, script: Script, name: str, *answers: str, code: int = 0) -> str:
    """A lab's script carried out under a name, with these answers."""
    (folder / f"{name}.yaml").write_bytes(write_script(script))
    (folder / "answers").write_text("\n".join(answers) + "\n")
    arguments = ("ceremony", "run", f"{name}.yaml", "--out", name, "--answers", "answers")
    return rootward(folder, *arguments, code=code)


def result(folder: Path, name: str) -> Result:
    return paperwork.read((folder / name / "result.json").read_bytes(), Result)


def facts(folder: Path, name: str) -> list[str]:
    transcript = msgspec.json.decode(result(folder, name).transcript, type=Transcript)
    return [fact for record in transcript.steps for fact in record.facts]


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a root whose key 2 of 3 custodians open, made in a ceremony."""
    folder = tmp_path_factory.mktemp("custody")
    script = room(folder, lab=True, edit=with_holders)
    chosen = [text for name in HOLDERS for text in (SECRETS[name], SECRETS[name])]
    people = ["+"] * 2 * len(script.participants)
    steps = ["yes", *chosen, "+", *["yes", "+"] * 3]
    play(folder, script, "made", *people, *steps, "Ada.key", "the key of Ada", *[""] * (len(script.participants) - 1))
    return folder


def with_holders(script: Script) -> Script:
    people = (
        *script.participants,
        *(Participant(name, "custodian") for name in (*HOLDERS, *sorted({*NEW} - {*HOLDERS}))),
    )
    return change(script, participants=people, keys={"root": QUORUM})


def later(folder: Path, *steps: Step, place: FileKey = QUORUM) -> Script:
    """A lab's script for the root that is there."""
    before = (folder / "made.yaml").read_bytes()
    root = result(folder, "made").certificates[0].certificate
    return change(read_script(before), keys={"root": place}, authorities={"root": Present(root, "root")}, steps=steps)


def crl() -> SignCrl:
    at = datetime.now(UTC).replace(microsecond=0)
    return SignCrl("root", int(at.timestamp() * 1000), rfc3339(at), rfc3339(at + timedelta(days=30)))


def here(script: Script, *absent: str) -> list[str]:
    """Everybody confirms but who is absent."""
    return [text for one in script.participants for text in ([""] if one.name in absent else ["+", "+"])]


def files(folder: Path, sets: int = 0) -> list[str]:
    """The share files of one set, by when it was made, in the order of the custodians."""
    by_set: dict[str, list[Path]] = {}
    for path in sorted((folder / "shares").iterdir(), key=lambda path: path.stat().st_mtime_ns):
        by_set.setdefault(path.name.rsplit("-", 1)[0], []).append(path)
    return [f"shares/{path.name}" for path in sorted(list(by_set.values())[sets])]


def nobody_signs(script: Script, *absent: str) -> list[str]:
    return [""] * (len(script.participants) - len(absent))


@pytest.fixture
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shares that cost little to make and to open."""
    monkeypatch.setattr(quorum, "make_quorum", partial(quorum.make_quorum, cost=CHEAP))


def copy(folder: Path, tmp_path: Path) -> Path:
    """The room as it was, for a test that changes it."""
    return shutil.copytree(folder, tmp_path / "custody")


def test_two_of_three_custodians_sign_a_crl(kept: Path) -> None:
    script = later(kept, crl())
    first, second, _ = files(kept)
    answers = ["yes", first, SECRETS["Cyd"], second, SECRETS["Dan"], "+", *nobody_signs(script, "Eli")]
    play(kept, script, "crl", *here(script, "Eli"), *answers)
    assert verify_result(result(kept, "crl"), signatures=0).lists


@pytest.mark.invariant("I-39")
def test_one_custodian_alone_or_a_wrong_share_is_told_who(kept: Path) -> None:
    script = later(kept, crl())
    first, second, _ = files(kept)
    said = play(kept, script, "alone", *here(script, "Dan", "Eli"), code=1)
    assert "2 custodians are needed to open the key root; here: 1." in said
    wrong = [first, SECRETS["Dan"], second, SECRETS["Dan"], "shares/none"]
    said = play(kept, script, "alone", *here(script, "Eli"), "yes", *wrong, code=1)
    for why in ('"Cyd" does not open', 'That is the share of "Dan".', "There is no file", "wrong three times"):
        assert why in said
    assert not (kept / "alone").exists()


@pytest.mark.invariant("I-39")
def test_who_cannot_open_a_share_is_made_up_for_by_another_one(kept: Path) -> None:
    script = later(kept, crl())
    first, second, third = files(kept)
    wrong = [first, "I forgot it, it seems"] * 3
    opened = [second, SECRETS["Dan"], third, SECRETS["Eli"]]
    said = play(kept, script, "forgot", *here(script), "yes", *wrong, *opened, "+", *nobody_signs(script))
    assert "It goes on without the share of Cyd." in said
    assert verify_result(result(kept, "forgot"), signatures=0).lists
    said = play(kept, script, "both", *here(script), "yes", *wrong, *[second, "so did I, alas"] * 3, code=1)
    assert said.count("It goes on without") == 1
    assert "wrong three times" in said


@pytest.mark.invariant("I-39")
@pytest.mark.parametrize("whose", ["Cyd", "Dan"])
def test_a_share_of_another_set_is_made_up_for_by_another_one(kept: Path, tmp_path: Path, whose: str) -> None:
    """It opens by itself, and the custodian who hands it in may have kept it for that."""
    folder = copy(kept, tmp_path)
    script = later(folder, crl())
    foreign = make_quorum("root", {name: SECRETS[name] for name in HOLDERS}, 2, cost=CHEAP).files[whose]
    own = dict(zip(HOLDERS, files(folder), strict=True))
    (folder / own[whose]).write_bytes(foreign)
    opened = [text for name in HOLDERS for text in (own[name], SECRETS[name])]
    play(folder, script, "foreign", *here(script), "yes", *opened, "+", *nobody_signs(script))
    assert verify_result(result(folder, "foreign"), signatures=0).lists
    said = play(folder, script, "two", *here(script, "Eli"), "yes", *opened[:4], code=1)
    assert "several sets" in said


def test_a_share_is_read_from_a_file_that_ends(kept: Path, tmp_path: Path) -> None:
    script = later(kept, crl())
    os.mkfifo(pipe := tmp_path / "pipe")
    said = play(kept, script, "endless", *here(script, "Eli"), "yes", "/dev/zero", str(pipe), "shares", code=1)
    assert " ".join(said.split()).count("is not a regular file") == 3


# ── Copies ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_copy_that_is_refused_leaves_no_folder(kept: Path) -> None:
    """An empty one in its place would stop the next try to make a key there."""
    script = later(kept, BackUpKey("root", "refused"))
    first, _, _ = files(kept)
    play(kept, script, "no-copy", *here(script, "Eli"), "yes", *[first, "I forgot it, it seems"] * 3, code=1)
    assert not (kept / "refused").exists()


def test_a_copy_in_a_new_keys_folder_by_another_path_is_refused(tmp_path: Path, cheap: None) -> None:
    """Which folder a whole path is the script cannot know; and a folder that has a name already gets no other one."""
    copied = BackUpKey("root", str(tmp_path / "root-key" / "copy"))
    script = room(
        tmp_path, lab=True, edit=lambda script: change(one := with_holders(script), steps=(one.steps[0], copied))
    )
    said = play(tmp_path, script, "made", *here(script), *NEW_KEY, "yes", code=1)
    assert "is in the folder of a new key" in " ".join(said.split())
    assert not (tmp_path / "root-key").exists()
    assert not list(tmp_path.glob("*.making"))


# ── The shares of a new key count with it ─────────────────────────────────────────────────────────────────────────


NEW_KEY = ["yes", *[text for name in HOLDERS for text in (SECRETS[name], SECRETS[name])], "+"]


def waits(script: Script) -> list[str]:
    """Answers of a ceremony that makes the root for its custodians, up to the signatures."""
    return [*here(script), *NEW_KEY, *["yes", "+"] * 3]


def is_as_made(folder: Path) -> None:
    """The shares beside the script are those of the key that was kept, and nothing else is."""
    assert not list(folder.glob("*.making"))
    assert len(list((folder / "shares").iterdir())) == len(HOLDERS)
    (key,) = (folder / "root-key" / "keys").iterdir()
    shares = files(folder)
    for some in (shares[:2], shares[1:]):
        names = [read_header((folder / path).read_bytes()).custodian for path in some]
        typed = [word for name in names for word in ("--passphrase-file", f"{name}.pass")]
        for name in names:
            (folder / f"{name}.pass").write_text(SECRETS[name])
            (folder / f"{name}.pass").chmod(0o600)
        rootward(folder, "ceremony", "share", "check", *some, *typed, "--opens", str(key))


@pytest.mark.invariant("I-39")
def test_a_ceremony_that_is_given_up_leaves_no_share(tmp_path: Path, cheap: None) -> None:
    """One that opens nothing would be taken for a good one: it is sound by itself."""
    script = room(tmp_path, lab=True, edit=with_holders)
    play(tmp_path, script, "made", *here(script), *NEW_KEY[:-1], "no", code=1)
    play(tmp_path, script, "made", *waits(script)[:-1], "no", code=1)
    assert not (tmp_path / "shares").exists()
    assert not list(tmp_path.glob("*.making"))
    said = play(tmp_path, script, "made", *waits(script), *nobody_signs(script))
    is_as_made(tmp_path)
    of = read_header((tmp_path / files(tmp_path)[0]).read_bytes()).set
    assert f'The shares that open the key "root" are those of the set {of}.' in " ".join(said.split())


@pytest.mark.invariant("I-39")
def test_a_ceremony_that_is_cut_off_leaves_no_share_that_counts(
    tmp_path: Path, cheap: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = room(tmp_path, lab=True, edit=with_holders)
    with monkeypatch.context() as patch:
        patch.setattr(Medium, "give_up", lambda _medium: None)  # as the power does it
        play(tmp_path, script, "made", *waits(script)[:-1], "no", code=1)
    assert not (tmp_path / "shares").exists()
    (tmp_path / "shares.making" / ".new-0011223344556677").write_text("not all of a share")
    other = tmp_path / "shares.making" / "root-2-00112233-1.share"
    other.write_text("another ceremony's")
    answers = waits(script)
    at = len(here(script)) + 1
    play(tmp_path, script, "made", *answers[:at], "remove", *answers[at:], *nobody_signs(script))
    other.unlink()
    other.parent.rmdir()
    is_as_made(tmp_path)


@pytest.mark.invariant("I-39")
@pytest.mark.parametrize("named", ["nothing", "the key", "the key and a share"])
def test_a_ceremony_that_only_waits_for_its_names_gives_the_shares_theirs(
    tmp_path: Path, cheap: None, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    script = room(tmp_path, lab=True, edit=with_holders)

    def cut_off(_medium: Medium) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Medium, "keep", cut_off)
        play(tmp_path, script, "made", *waits(script), *nobody_signs(script), code=130)
    assert not (tmp_path / "shares").exists()
    if named != "nothing":
        (tmp_path / "root-key.making").rename(tmp_path / "root-key")
    if named == "the key and a share":
        (tmp_path / "shares").mkdir()
        share = next((tmp_path / "shares.making").iterdir())
        share.rename(tmp_path / "shares" / share.name)
    assert "nothing was done a second time" in play(tmp_path, script, "made")
    is_as_made(tmp_path)


def test_a_new_key_is_checked_and_changes_hands_in_its_own_ceremony(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its shares are used before they have their names; those that were replaced go with the rest."""
    quorums = [make_quorum("root", {one: SECRETS[one] for one in names}, 2, cost=CHEAP) for names in (HOLDERS, NEW)]
    dealt = iter(quorums)
    monkeypatch.setattr(quorum, "make_quorum", lambda *_: next(dealt))
    last = (CheckShares("root"), ChangeCustodians("root", NEW, 2), CheckShares("root"))
    script = room(
        tmp_path, lab=True, edit=lambda script: change(one := with_holders(script), steps=(*one.steps, *last))
    )
    opened = [
        [
            text
            for at, name in enumerate(made.files, 1)
            for text in (f"shares/root-{made.set[:8]}-{at}.share", SECRETS[name])
        ]
        for made in quorums
    ]
    chosen = [text for name in NEW for text in (SECRETS[name], SECRETS[name])]
    steps = ["yes", *opened[0], "yes", *opened[0][:4], *chosen, "yes", *opened[1]]
    play(tmp_path, script, "made", *waits(script), *steps, *nobody_signs(script))
    assert {path.name.rpartition("-")[0] for path in (tmp_path / "shares").iterdir()} == {f"root-{quorums[1].set[:8]}"}
    assert not list(tmp_path.glob("*.making"))


def test_what_is_mistyped_once_is_asked_for_again(kept: Path) -> None:
    script = later(kept, crl())
    first, second, _ = files(kept)
    once = ["yes", first, "not this one", first, SECRETS["Cyd"], second, SECRETS["Dan"], "+", *nobody_signs(script)]
    assert "Once more; 2 left." in play(kept, script, "once", *here(script), *once)
    assert verify_result(result(kept, "once"), signatures=0).lists


def test_a_mistyped_passphrase_of_a_key_is_asked_for_again(tmp_path: Path) -> None:
    script = room(tmp_path, lab=True)
    made = ["yes", PASSPHRASE, PASSPHRASE, "+", *["yes", "+"] * 3]
    play(tmp_path, script, "made", *here(script), *made, *nobody_signs(script))
    again = change(later(tmp_path, crl()), keys={"root": FileKey("root-key")})
    typed = ["yes", "short", "correct horse buttery", PASSPHRASE, "+"]
    said = play(tmp_path, again, "crl", *here(again), *typed, *nobody_signs(again))
    assert "12 characters or more" in said
    assert "It does not open the key." in said
    assert verify_result(result(tmp_path, "crl"), signatures=0).lists


def test_who_gets_a_share_is_there(kept: Path, tmp_path: Path) -> None:
    """A passphrase that somebody else chose is no secret of the custodian's."""
    copied = copy(kept, tmp_path)
    script = later(copied, ChangeCustodians("root", NEW, 2))
    said = play(copied, script, "absent", *here(script, NEW[-1]), code=1)
    assert f"Everybody who gets a share of the key root must be here, and is not: {NEW[-1]}." in said
    made = room(tmp_path, lab=True, edit=with_holders)
    assert "and is not: Eli." in play(tmp_path, made, "made", *here(made, "Eli"), code=1)


def test_the_yearly_check_opens_every_share(kept: Path) -> None:
    script = later(kept, CheckShares("root"))
    opened = [text for path, name in zip(files(kept), HOLDERS, strict=True) for text in (path, SECRETS[name])]
    play(kept, script, "check", *here(script), "yes", *opened, *nobody_signs(script))
    said = facts(kept, "check")
    assert [text for text in said if text.startswith("the share of")] == [
        f"the share of {name} is sound" for name in HOLDERS
    ]
    assert "opens the key" in said[-1]


def test_what_is_not_there_is_not_checked_changed_or_copied(kept: Path) -> None:
    """A folder without a key is no success, whatever the shares say."""
    (kept / "empty" / "keys").mkdir(parents=True, mode=0o700)
    (kept / "empty" / "keys").chmod(0o700)
    opened = [text for path, name in zip(files(kept), HOLDERS, strict=True) for text in (path, SECRETS[name])]
    for step in (CheckShares("root"), ChangeCustodians("root", NEW, 2), BackUpKey("root", "copies")):
        script = later(kept, step, place=FileKey("empty", HOLDERS, 2))
        assert "RW-KEY-MISSING" in play(kept, script, "nothing", *here(script), "yes", *opened, code=1)
        assert not (kept / "nothing").exists()


@pytest.mark.slow
def test_custodians_change_and_the_old_shares_open_nothing(kept: Path, tmp_path: Path) -> None:
    folder = copy(kept, tmp_path)
    script = later(folder, ChangeCustodians("root", NEW, 2))
    first, second, _ = files(folder)
    chosen = [text for name in NEW for text in (SECRETS[name], SECRETS[name])]
    answers = ["yes", first, SECRETS["Cyd"], second, SECRETS["Dan"], *chosen]
    said = play(folder, script, "change", *here(script), *answers, *nobody_signs(script))
    assert "old set" in " ".join(said.split())
    # The old shares are refused, the new ones open it: for the same root.
    old = later(folder, crl())
    said = play(folder, old, "old", *here(old), "yes", first, SECRETS["Cyd"], second, SECRETS["Dan"], code=1)
    assert "RW-KEK" in said
    again = later(folder, crl(), place=FileKey("root-key", NEW, 2))
    fresh = files(folder, sets=1)
    opened = ["yes", fresh[0], SECRETS["Dan"], fresh[1], SECRETS["Fay"], "+"]
    play(folder, again, "new", *here(again), *opened, *nobody_signs(again))
    assert verify_result(result(folder, "new"), signatures=0).lists


@pytest.mark.slow
def test_new_custodians_are_checked_and_changed_again_in_one_ceremony(kept: Path, tmp_path: Path) -> None:
    """What comes after a change is for those who hold the key by then."""
    folder = copy(kept, tmp_path)
    more = ("Gus", "Cyd")
    script = later(folder, ChangeCustodians("root", NEW, 2), ChangeCustodians("root", more, 2), CheckShares("root"))
    first, second, _ = files(folder)
    chosen = [[text for name in names for text in (SECRETS[name], SECRETS[name])] for names in (NEW, more)]
    answers = ["yes", first, SECRETS["Cyd"], second, SECRETS["Dan"], *chosen[0], "yes", *chosen[1], "yes"]
    wrong = play(folder, script, "two", *here(script), *answers, first, SECRETS["Cyd"], second, SECRETS["Dan"], code=1)
    assert 'That is the share of "Cyd".' in " ".join(wrong.split())  # of the first set, and Gus is asked for his
    newest = files(folder, sets=2)
    last = later(folder, CheckShares("root"), place=FileKey("root-key", more, 2))
    opened = [newest[0], SECRETS["Gus"], newest[1], SECRETS["Cyd"]]
    play(folder, last, "last", *here(last), "yes", *opened, *nobody_signs(last))
    assert "opens the key" in facts(folder, "last")[-1]


@pytest.mark.parametrize("taken", [True, False])
def test_a_change_of_pin_that_is_interrupted_gives_the_token_its_pin_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taken: bool
) -> None:
    """Ctrl-C while the token is asked: nobody can know, and the random PIN was removed with the ceremony's folder."""
    pin = [PIN.encode()]

    def set_pin(_uri: str, old: bytes, new: bytes) -> None:
        assert old == pin[0]
        if taken or new == PIN.encode():
            pin[0] = new
        if new != PIN.encode():
            raise KeyboardInterrupt

    monkeypatch.setattr(medium, "set_pin", set_pin)
    monkeypatch.setattr(medium, "pin_works", lambda _uri, tried: tried == pin[0])
    script = made_in(tmp_path, TokenKey("pkcs11:token=root", "root-pin", HOLDERS, 2))
    chosen = [text for name in HOLDERS for text in (SECRETS[name], SECRETS[name])]
    play(tmp_path, script, "made", *here(script), "yes", PIN, *chosen, code=130)
    assert pin == [PIN.encode()]
    assert not (tmp_path / "root-pin.making").exists()


@dataclass
class Desk:
    """A token in this process, which can be taken away: its PIN, and its keys."""

    pin: bytes = PIN.encode()
    away: bool = False
    keys: Backend = field(default_factory=lambda: BACKENDS["memory"](KeySettings()))

    def there(self) -> Backend:
        if self.away:
            raise Problem("RW-KEY-UNAVAILABLE", "The token is away.")
        return self.keys

    def set_pin(self, _uri: str, old: bytes, new: bytes) -> None:
        self.there()
        assert old == self.pin
        self.pin = new

    def open(self, settings: KeySettings) -> Backend:
        assert settings.pin is not None
        assert settings.pin() == self.pin
        return self.there()


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch, cheap: None) -> Desk:
    token = Desk()
    monkeypatch.setattr(medium, "set_pin", token.set_pin)
    monkeypatch.setattr(medium, "pin_works", lambda _uri, tried: not token.away and tried == token.pin)
    monkeypatch.setitem(medium.BACKENDS, "pkcs11", token.open)
    return token


IN_TOKEN = TokenKey("pkcs11:token=root", "root-pin", HOLDERS, 2)


def test_a_token_whose_custodians_changed_at_once_is_given_back(tmp_path: Path, desk: Desk) -> None:
    """The change closed the token: it is opened again to delete the key that was made."""
    script = made_in(tmp_path, IN_TOKEN, ChangeCustodians("root", NEW, 2))
    chosen = [[text for name in names for text in (SECRETS[name], SECRETS[name])] for names in (HOLDERS, NEW)]
    made = [*here(script), "yes", PIN, *chosen[0], "+", "yes", *chosen[1], "no"]
    said = play(tmp_path, script, "made", *made, code=1)
    assert "Step 3 of 5" in said
    assert "stays done" not in said
    assert desk.pin == PIN.encode()
    assert desk.keys.list() == []
    assert not list(tmp_path.glob("*.making"))


def test_a_key_in_a_token_whose_result_only_waits_for_its_name_is_not_left_over(
    tmp_path: Path, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = made_in(tmp_path, TokenKey("pkcs11:token=root"))

    def cut_off(_medium: Medium) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Medium, "keep", cut_off)
        play(
            tmp_path, script, "made", *here(script), "yes", PIN, "+", *["yes", "+"] * 3, *nobody_signs(script), code=130
        )
    said = play(tmp_path, script, "other", *here(script), "yes", PIN, "remove", code=1)
    assert "Finish it first" in " ".join(said.split())
    assert len(desk.keys.list()) == 1
    assert "nothing was done a second time" in play(tmp_path, script, "made")


def test_a_token_that_is_away_at_the_end_keeps_what_opens_it_and_nothing_else(
    tmp_path: Path, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its PIN is sealed in one place alone. The other key goes all the same."""
    other = {"other": FileKey("other-key"), "root": IN_TOKEN}
    script = made_in(tmp_path, IN_TOKEN)
    made = MakeKey("other", KeyAlgorithm.P256)
    script = change(script, keys=other, steps=(script.steps[0], made, *script.steps[1:]))
    chosen = [text for name in HOLDERS for text in (SECRETS[name], SECRETS[name])]
    expect = Answers.expect

    def taken_away(talk: Answers, question: str, right: Iterable[str]) -> str:
        desk.away = (tmp_path / "other-key.making").exists()
        return expect(talk, question, right)

    monkeypatch.setattr(Answers, "expect", taken_away)
    monkeypatch.setattr(desk.keys, "delete", lambda *_: desk.there())
    answers = ["yes", PIN, *chosen, "+", "yes", PASSPHRASE, PASSPHRASE, "no"]
    said = " ".join(play(tmp_path, script, "made", *here(script), *answers, code=1).split())
    assert 'The new key "root" is in its token still: - The token is away.' in said
    assert 'The token of "root" has its new PIN still: - The token is away.' in said
    assert {path.name for path in tmp_path.glob("*.making")} == {"root-pin.making", "shares.making"}
    sealed = (tmp_path / "root-pin.making" / "pin").read_bytes()
    shares = sorted((tmp_path / "shares.making").iterdir())
    opened = [open_share(path.read_bytes(), SECRETS[name]) for path, name in zip(shares, HOLDERS, strict=True)]
    assert unseal_pin(sealed, open_quorum(opened), name="root") == desk.pin


@pytest.mark.slow
def test_a_key_is_copied_and_destroyed_and_the_copy_still_opens(kept: Path, tmp_path: Path) -> None:
    folder = copy(kept, tmp_path)
    public = verify_result(result(folder, "made"), signatures=0).transcript.steps[0].key
    first, second, _ = files(folder)
    open_ = [first, SECRETS["Cyd"], second, SECRETS["Dan"]]
    half = later(folder, BackUpKey("root", "other-copy"), crl())
    said = play(folder, half, "half", *here(half), "yes", *open_, "no", code=1)
    assert "stays done" in said
    assert "read again and opened" in said.partition("stays done")[2]
    script = later(folder, BackUpKey("root", "copy"), DestroyKey("root", public, "the medium is replaced"))
    answers = ["yes", *open_, "yes", "+", *nobody_signs(script)]
    play(folder, script, "end", *here(script), *answers)
    assert not list((folder / "root-key").rglob("*.key"))
    said = facts(folder, "end")
    assert any("read again and opened" in text for text in said)
    assert any("overwritten and removed" in text for text in said)
    # from the copy, the same root signs on
    (folder / "moved").mkdir(mode=0o700)
    (folder / "copy").rename(folder / "moved" / "keys")
    again = later(folder, crl(), place=FileKey("moved", HOLDERS, 2))
    play(folder, again, "moved-on", *here(again), "yes", *open_, "+", *nobody_signs(again))
    assert verify_result(result(folder, "moved-on"), signatures=0).lists


@pytest.mark.invariant("I-39")
def test_what_a_change_of_custodians_left_is_destroyed_too(kept: Path, tmp_path: Path) -> None:
    """A change that was cut off: the copy beside the key opens with the shares of those who were replaced."""
    folder = copy(kept, tmp_path)
    public = verify_result(result(folder, "made"), signatures=0).transcript.steps[0].key
    (file,) = (folder / "root-key" / "keys").iterdir()
    shutil.copy(file, file.with_name(f".old-{file.name}"))
    shutil.copy(file, file.with_name("spare"))
    file.with_name("spare").chmod(0o444)
    script = later(folder, DestroyKey("root", public, "the medium is replaced"))
    answers = ["yes", "+", *nobody_signs(script)]
    play(folder, script, "end", *here(script), *answers)
    assert list(file.parent.iterdir()) == []
    assert facts(folder, "end") == [
        f"the file {name} with the key {public} was overwritten and removed"
        for name in (f".old-{file.name}", file.name, "spare")
    ]
    # A ceremony that was cut off leaves the file under another name, and the next one ends it.
    shutil.copy(kept / file.relative_to(folder), file.with_name(f".gone-{file.name}"))
    play(folder, script, "again", *here(script), *answers)
    assert list(file.parent.iterdir()) == []
    (fact,) = facts(folder, "again")
    assert fact == f"the file .gone-{file.name} with the key {public} was overwritten and removed"
    play(folder, script, "gone", *here(script), "yes", "+", *answers[1:])
    assert facts(folder, "gone") == [f"the key {public} was not there any more"]


# ── Participants with a token ─────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def token() -> Iterator[str]:
    """A token like a PIV card, with a P-256, a P-384 and an RSA key; its URI without the key."""
    with soft_token() as card:
        for id, kind in (("01", "EC:secp256r1"), ("02", "EC:secp384r1"), ("03", "rsa:2048")):
            make = ["pkcs11-tool", "--module", str(MODULE), "--token-label", card.label, "--login", "--pin", PIN]
            run(*make, "--keypairgen", "--key-type", kind, "--id", id, env=card.environment)
        yield card.uri


def with_id(token: str, id: str) -> str:
    """The URI of the key with that id."""
    return token.replace("?", f";id=%{id}?")


@pytest.mark.parametrize(("id", "algorithm"), [("01", "ecdsa-sha256"), ("02", "ecdsa-sha384"), ("03", "rsa-sha256")])
def test_a_participant_signs_with_a_card(token: str, id: str, algorithm: str) -> None:
    held = witnessed()
    bare = held.result.transcript
    made = sign_in_token(with_id(token, id), PIN, bare, name="Bob", role="witness")
    assert made.algorithm == algorithm
    key = good_signature(made, bare)
    assert key is not None
    known = {one.name: one.key_id for one in verify_result(held.result).signers} | {"Cyd": key.id}
    unsigned = replace(held, result=msgspec.structs.replace(held.result, signatures=()))
    both = signed_by(unsigned, "Ada")
    third = sign_in_token(with_id(token, id), PIN, bare, name="Cyd", role="witness")
    assert len(verify_result(ceremony.signed(both, third), participants=known).signers) == 2
    assert good_signature(msgspec.structs.replace(made, name="Cyd"), bare) is None


@pytest.mark.parametrize(
    ("uri", "why"),
    [
        ("pkcs11:token=other;id=%01?module-path={m}", "no token is"),
        ("pkcs11:token={t}?module-path={m}", "3 private keys"),
        ("pkcs11:token={t};id=%07?module-path={m}", "0 private keys"),
        ("pkcs11:token={t};id=%01?module-path=/nowhere.so", "cannot be loaded"),
        ("pkcs11:token={t};id=%01", "module-path"),
        ("pkcs11:id=%01?module-path={m}", "token"),
        ("pkcs11:token={t};id=%01?module-path={m}&pin-value=1234", "pin-value"),
    ],
)
def test_what_a_token_refuses_is_said(token: str, uri: str, why: str) -> None:
    label = token.partition("=")[2].partition("?")[0]
    with pytest.raises(Problem, match=why):
        sign_in_token(uri.format(t=label, m=MODULE), PIN, witnessed().result.transcript, name="Bob", role="witness")


def test_a_wrong_pin_is_refused(token: str) -> None:
    """In a process of its own: a login is the process's, and this one may have one."""
    program = (
        "import sys; from rootward.keys.participant_token import sign_in_token; "
        "sign_in_token(*sys.argv[1:4], name='Bob', role='witness')"
    )
    command = [sys.executable, "-c", program, with_id(token, "01"), "9999", witnessed().result.transcript]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "The token refused: PinIncorrect" in done.stderr


# ── A root in a token ─────────────────────────────────────────────────────────────────────────────────────────────


def in_process(folder: Path, token: SoftToken, script: Script, name: str, *answers: str, code: int = 0) -> str:
    """As `play`, in a process of its own: a module reads once which tokens there are."""
    (folder / f"{name}.yaml").write_bytes(write_script(script))
    (folder / "answers").write_text("\n".join(answers) + "\n")
    command = [*ROOTWARD, "ceremony", "run", f"{name}.yaml", "--out", name, "--answers", "answers"]
    environment = os.environ | token.environment
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    assert PIN not in done.stdout + done.stderr
    return done.stdout + done.stderr


def made_in(folder: Path, place: TokenKey, *more: Step) -> Script:
    """The script that makes a root in the token; what else is done right after that."""

    def edit(script: Script) -> Script:
        first, *others = script.steps
        return change(with_holders(script), keys={"root": place}, steps=(first, *more, *others))

    return room(folder, lab=True, edit=edit)


def test_a_root_lives_in_a_token_whose_pin_is_typed(tmp_path: Path) -> None:
    with soft_token() as token:
        place = TokenKey(token.uri)
        script = made_in(tmp_path, place)
        asked = ["yes", PIN, "+", *["yes", "+"] * 3]
        play(tmp_path, script, "made", *here(script), *asked, *nobody_signs(script))
        again = change(later(tmp_path, crl()), keys={"root": place})
        play(tmp_path, again, "crl", *here(again), "yes", PIN, "+", *nobody_signs(again))
        assert verify_result(result(tmp_path, "crl"), signatures=0).lists
        # a second root of that name is not made over the first one
        said = play(tmp_path, script, "over", *here(script), "yes", PIN, "no", code=1)
        assert "holds a key" in said
        play(tmp_path, again, "after", *here(again), "yes", PIN, "+", *nobody_signs(again))
        # a ceremony that was cut off after it destroyed the key is held again, and says what it found
        public = verify_result(result(tmp_path, "made"), signatures=0).transcript.steps[0].key
        last = change(later(tmp_path, DestroyKey("root", public, "the root ends")), keys={"root": place})
        play(tmp_path, last, "end", *here(last), "yes", "+", PIN, *nobody_signs(last))
        assert facts(tmp_path, "end") == [f"the key {public} was deleted from the token"]
        play(tmp_path, last, "gone", *here(last), "yes", "+", PIN, "+", *nobody_signs(last))
        assert facts(tmp_path, "gone") == [f"the key {public} was not there any more"]


@pytest.mark.slow
@pytest.mark.invariant("I-39")
def test_the_pin_of_a_roots_token_is_split_among_custodians(tmp_path: Path) -> None:
    token = make_token("root", tmp_path / "hsm")
    place = TokenKey(token.uri, "root-pin", HOLDERS, 2)
    script = made_in(tmp_path, place)
    chosen = [text for name in HOLDERS for text in (SECRETS[name], SECRETS[name])]
    steps = ["yes", PIN, *chosen, "+", *["yes", "+"] * 3]
    # one that ends half way gives the token its PIN back, and leaves no key in it
    in_process(tmp_path, token, script, "half", *here(script), *steps[:-3], "no", code=1)
    assert not (tmp_path / "root-pin.making").exists()
    steps.insert(1, "no such PIN")
    said = in_process(tmp_path, token, script, "made", *here(script), *steps, *nobody_signs(script))
    assert "The token does not take it." in said
    first, second, _ = files(tmp_path)
    open_ = [first, SECRETS["Cyd"], second, SECRETS["Dan"]]
    again = change(later(tmp_path, crl()), keys={"root": place})
    # Custodians change: the token has a new PIN, and the old shares open nothing.
    other = change(later(tmp_path, ChangeCustodians("root", NEW, 2)), keys={"root": place})
    fresh = [text for name in NEW for text in (SECRETS[name], SECRETS[name])]
    in_process(tmp_path, token, other, "change", *here(other), "yes", *open_, *fresh, *nobody_signs(other))
    said = in_process(tmp_path, token, again, "old", *here(again), "yes", *open_, code=1)
    assert "sealed with another key-encryption key" in " ".join(said.split())
    newer = change(again, keys={"root": TokenKey(token.uri, "root-pin", NEW, 2)})
    one, two, _ = files(tmp_path, sets=1)
    opened = ["yes", one, SECRETS["Dan"], two, SECRETS["Fay"], "+"]
    in_process(tmp_path, token, newer, "new", *here(newer), *opened, *nobody_signs(newer))
    assert verify_result(result(tmp_path, "new"), signatures=0).lists
