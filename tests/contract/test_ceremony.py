"""Ceremonies by the command line: a witnessed one at a terminal on a machine without a network, labs by answers from a
file, and what each refuses.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from rootward.cli import outcome
from rootward.cli.airgap import clock_fault, network_faults
from rootward.cli.medium import Medium
from rootward.core.minutes import Transcript
from rootward.core.script import BackUpKey, Present, read_script, write_script
from rootward.core.transcript import verify_result
from rootward.keys import disk
from tests.support.ceremony_room import (
    ANSWERS,
    APART,
    PASSPHRASE,
    READ,
    ROOTWARD,
    SIGNED,
    at_terminal,
    change,
    conversation,
    lab,
    result_of,
    room,
    rootward,
    sign_later,
)
from tests.support.terminal import Person


@pytest.fixture(scope="module")
def held(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A witnessed ceremony at a terminal, in a network namespace that has nothing in it; the folder and the screen."""
    if subprocess.run([*APART, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("this machine lets nobody but root have network namespaces of their own")
    folder = tmp_path_factory.mktemp("room")
    room(folder, lab=False)
    rootward(folder, "ceremony", "rehearse", "script.yaml", "--out", "rehearsal.json")
    screen, code = at_terminal(folder)
    assert code == 0, screen
    return folder, screen


@pytest.mark.slow
@pytest.mark.invariant("I-37")
def test_a_witnessed_ceremony_at_a_terminal(held: tuple[Path, str]) -> None:
    folder, screen = held
    assert "No network interface is up" in screen
    assert "the same will be signed" in screen
    assert "That is too short." in screen
    assert "That is not it. 2 more." in screen
    assert "Bob has signed with another key" in screen  # with Ada's, which does not count
    assert PASSPHRASE not in screen
    assert max(map(len, screen.split("\n"))) <= 80
    files = {path.name for path in (folder / "out").iterdir()}
    assert files >= {"result.json", "transcript.json", "root.pem", "issuing.pem"}
    found = verify_result(result_of(folder), script=(folder / "script.yaml").read_bytes())
    assert [one.name for one in found.signers] == ["Ada", "Bob"]
    assert [one.read_back for one in found.transcript.participants] == ["group 4 of 16", "group 11 of 16"]
    assert found.transcript.steps[0].read_back == "Bob: group 7 of 16"
    assert any("no network interface" in text for text in found.transcript.room)


@pytest.mark.slow
def test_what_was_made_is_good_for_others(held: tuple[Path, str]) -> None:
    folder, _ = held
    out = folder / "out"
    (crl,) = out.glob("*.crl")
    pem = subprocess.run(["openssl", "crl", "-inform", "DER", "-in", crl], capture_output=True, text=True, check=True)
    (out / "chain.pem").write_text(pem.stdout + (out / "root.pem").read_text())
    verified = subprocess.run(
        ["openssl", "verify", "-crl_check", "-CAfile", out / "chain.pem", out / "issuing.pem"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert verified.returncode == 0, verified
    assert (
        "the result is what its script says"
        in rootward(
            folder, "ceremony", "verify", "out/result.json", "--script", "script.yaml", "--request", "issuing.request"
        ).lower()
    )


@pytest.mark.slow
def test_the_key_is_sealed_and_its_passphrase_nowhere(held: tuple[Path, str]) -> None:
    folder, _ = held
    (key,) = (folder / "root-key").rglob("*.key")
    assert key.stat().st_mode & 0o077 == 0
    everything = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    assert not [data for data in everything if b"PRIVATE KEY" in data or PASSPHRASE.encode() in data]
    assert not list(folder.glob("*.making"))


@pytest.mark.slow
def test_verify_says_what_is_wrong(held: tuple[Path, str], tmp_path: Path) -> None:
    folder, _ = held
    (tmp_path / "other.yaml").write_bytes((folder / "script.yaml").read_bytes() + b"# changed\n")
    said = rootward(tmp_path, "ceremony", "verify", str(folder / "out/result.json"), "--script", "other.yaml", code=1)
    assert "another script" in said
    (tmp_path / "known").write_text(f"Ada={'00' * 32}\n")
    said = rootward(tmp_path, "ceremony", "verify", str(folder / "out/result.json"), "--participants", "known", code=1)
    assert "key" in said
    assert "RW-CEREMONY" in rootward(tmp_path, "ceremony", "verify", str(folder / "script.yaml"), code=1)


def test_a_lab_takes_answers_from_a_file_and_is_signed_later(tmp_path: Path) -> None:
    room(tmp_path, lab=True)
    screen = lab(tmp_path, f"{ANSWERS}\n\n\n")
    assert "THIS IS A LAB" in screen
    assert "it needs 1 more signature" in screen
    assert "0 participants have signed" in rootward(tmp_path, "ceremony", "verify", "out/result.json", code=1)
    assert "has signed" in sign_later(tmp_path, "Bob", "+", "the key of Bob")
    assert "signed twice" in sign_later(tmp_path, "Bob", "+", "the key of Bob", code=1)
    assert "RW-KEK" in sign_later(tmp_path, "Bob", "+", "another passphrase", code=1)
    assert "LAB" in rootward(tmp_path, "ceremony", "verify", "out/result.json")
    assert "no participant" in sign_later(tmp_path, "Eve", "+", "the key of Bob", code=2)


def test_the_master_agrees_to_each_step_wherever_the_script_names_them(tmp_path: Path) -> None:
    room(tmp_path, lab=True, edit=lambda script: change(script, participants=script.participants[::-1]))
    screen = lab(tmp_path, f"{ANSWERS}\n\nAda.key\nthe key of Ada\n")
    assert screen.count('Ada, type "yes" to do it: yes') == 4


def test_a_rehearsal_leaves_hashes_and_nothing_else(tmp_path: Path) -> None:
    room(tmp_path, lab=True)
    before = {path.name for path in tmp_path.iterdir()}
    said = rootward(tmp_path, "ceremony", "rehearse", "script.yaml", "--out", "rehearsal.json")
    assert "none refused" in said
    assert {path.name for path in tmp_path.iterdir()} - before == {"rehearsal.json"}
    masked = json.loads((tmp_path / "rehearsal.json").read_text())["masked"]
    lab(tmp_path, SIGNED)
    transcript = msgspec.json.decode(result_of(tmp_path).transcript, type=Transcript)
    assert [one.masked for one in transcript.steps] == masked


def test_a_rehearsal_of_another_script_is_refused(tmp_path: Path) -> None:
    script = room(tmp_path, lab=True)
    rootward(tmp_path, "ceremony", "rehearse", "script.yaml", "--out", "rehearsal.json")
    (tmp_path / "script.yaml").write_bytes(write_script(change(script, title="Another")))
    (tmp_path / "answers").write_text(SIGNED)
    arguments = ("--out", "out", "--answers", "answers", "--rehearsal", "rehearsal.json")
    assert "rehearsal was of another script" in rootward(tmp_path, "ceremony", "run", "script.yaml", *arguments, code=1)
    assert not (tmp_path / "root-key").exists()


def test_nobody_but_a_lab_takes_answers(tmp_path: Path) -> None:
    room(tmp_path, lab=False)
    assert "for labs only" in lab(tmp_path, SIGNED, code=2)
    assert "at a terminal" in rootward(tmp_path, "ceremony", "run", "script.yaml", "--out", "out", code=2)


def test_a_wrong_answer_ends_it_and_nothing_is_left(tmp_path: Path) -> None:
    room(tmp_path, lab=True)
    for wrong in (SIGNED.replace("+", "Eve", 1), SIGNED.replace("+\nyes", "0000\nyes", 2), f"{ANSWERS[:-3]}"):
        lab(tmp_path, wrong, code=1)
        assert not (tmp_path / "out").exists()
        assert not (tmp_path / "root-key").exists()
        assert not list(tmp_path.glob("*.making"))
    lab(tmp_path, SIGNED)


KILLED = {"before the key": 7, "with the key": 9, "while signing": -1}


@pytest.mark.slow
@pytest.mark.parametrize("when", list(KILLED))
def test_a_ceremony_that_is_killed_is_held_again(tmp_path: Path, when: str) -> None:
    """SIGKILL at a question: nothing counts, and the same command goes through then."""
    room(tmp_path, lab=True)
    asked = conversation((tmp_path / "script.yaml").read_bytes())[: KILLED[when]]
    person = Person((*ROOTWARD, "ceremony", "run", "script.yaml", "--out", "out"), tmp_path)
    person.answer(asked, killed=True)
    assert person.code == -signal.SIGKILL
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "root-key").exists()
    assert (tmp_path / "root-key.making").exists()
    lab(tmp_path, SIGNED.replace("yes\n", "yes\nremove\n", 1))
    assert verify_result(result_of(tmp_path)).signers
    assert not list(tmp_path.glob("*.making"))


@pytest.mark.slow
def test_ctrl_c_ends_it_and_nothing_is_left(tmp_path: Path) -> None:
    room(tmp_path, lab=True)
    asked = conversation((tmp_path / "script.yaml").read_bytes())[:9]
    person = Person((*ROOTWARD, "ceremony", "run", "script.yaml", "--out", "out"), tmp_path)
    screen = person.answer([*asked, (READ, "\x03")])
    assert person.code == 130
    assert "Stopped: the ceremony ends here." in screen
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(("out", "root-key"))]


def test_a_changed_request_is_refused_before_anything(tmp_path: Path) -> None:
    room(tmp_path, lab=True)
    path = tmp_path / "issuing.request"
    path.write_bytes(path.read_bytes().replace(b"Example Issuing CA", b"Example Issuing C4"))
    assert "another file than the script names" in lab(tmp_path, SIGNED, code=1)
    path.unlink()
    assert "cannot be read" in lab(tmp_path, SIGNED, code=2)


def test_a_ceremony_that_was_cut_off_is_held_again_or_finished(tmp_path: Path) -> None:
    room(tmp_path, lab=True)
    (tmp_path / "root-key.making" / "keys").mkdir(parents=True, mode=0o700)
    (tmp_path / "out.making").mkdir()
    left = SIGNED.replace("yes\n", "yes\nremove\n", 1)
    assert "cut off" in lab(tmp_path, left)
    # and one that had come to its end is not held a second time
    before = result_of(tmp_path)
    (tmp_path / "out").rename(tmp_path / "out.making")
    (tmp_path / "root-key").rename(tmp_path / "root-key.making")
    assert "nothing was done a second time" in lab(tmp_path, "")
    assert result_of(tmp_path) == before
    assert (tmp_path / "root-key" / "keys").is_dir()
    assert "There is out already" in lab(tmp_path, SIGNED, code=2)


NESTED = ["root-key/out", "root-key.making/out", "shares.making", "shares/out", "copies/out", "around", "in.making"]


@pytest.mark.parametrize("out", ["root-key", "root-key.making", "shares", "a/../root-key", *NESTED])
def test_a_result_is_never_written_over_a_key(tmp_path: Path, out: str) -> None:
    """The result's folder is made under a name that a key's folder has too, and what is there was removed; and neither
    gets its name while the other one is in it.
    """
    copies = [BackUpKey("root", to) for to in ("copies", "around/copy", "in.making/copy")]
    room(tmp_path, lab=True, edit=lambda script: change(script, steps=(*script.steps, *copies)))
    (tmp_path / "a").mkdir()
    assert "is a folder of the script" in lab(tmp_path, SIGNED, out=out, code=2)


def test_ctrl_c_behind_the_last_file_leaves_no_result_without_its_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    room(tmp_path, lab=True)
    replace = disk.replace

    def interrupted(path: Path, data: bytes, *, mode: int) -> None:
        replace(path, data, mode=mode)
        if path.name == "result.json":
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(outcome, "replace", interrupted)
        assert lab(tmp_path, SIGNED, code=130)
    assert not (tmp_path / "root-key.making").exists()
    assert "Held." in lab(tmp_path, SIGNED)  # and not: it had come to its end
    assert verify_result(result_of(tmp_path)).signers
    assert (tmp_path / "root-key").exists()


def test_a_result_beside_the_key_that_it_was_signed_with(tmp_path: Path) -> None:
    """A key that is there already gets no name: its medium may take the result too."""
    room(tmp_path, lab=True)
    lab(tmp_path, SIGNED)
    made = read_script((tmp_path / "script.yaml").read_bytes())
    root = Present(result_of(tmp_path).certificates[0].certificate, "root")
    again = change(made, authorities={"root": root}, steps=(BackUpKey("root", "copies"),))
    (tmp_path / "script.yaml").write_bytes(write_script(again))
    assert "Held." in lab(tmp_path, "\n".join(["+"] * 4 + ["yes", PASSPHRASE, "", "", ""]), out="root-key/out")


@pytest.mark.parametrize("title", ["Root of Example", "Another one"])
def test_a_ceremony_that_only_waits_for_its_names_keeps_its_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, title: str
) -> None:
    """Its result is durable and signed, so what another ceremony finds in its place is not left over."""
    script = room(tmp_path, lab=True)
    with monkeypatch.context() as patch:
        patch.setattr(Medium, "keep", cut_off)
        lab(tmp_path, SIGNED, code=130)
    assert (tmp_path / "out.making" / "result.json").exists()
    (tmp_path / "other.yaml").write_bytes(write_script(change(script, title=title)))
    (tmp_path / "elsewhere").mkdir()
    for out in ("b", "elsewhere/b"):
        arguments = ("ceremony", "run", "other.yaml", "--out", out, "--answers", "answers")
        said = " ".join(rootward(tmp_path, *arguments, code=1).split())
        assert "Finish it first: run its script again" in said
        assert f"--out {tmp_path / 'out'}." in said
        assert (tmp_path / "root-key.making").exists()
    assert "nothing was done a second time" in lab(tmp_path, "")
    assert verify_result(result_of(tmp_path)).signers
    assert (tmp_path / "root-key").exists()


def test_of_a_result_that_cannot_be_read_nobody_knows_which_key_it_has(tmp_path: Path) -> None:
    room(tmp_path, lab=True)
    (tmp_path / "root-key.making").mkdir()
    (tmp_path / "other.making").mkdir()
    (tmp_path / "other.making" / "result.json").write_text("half of it")
    said = "".join(lab(tmp_path, SIGNED.replace("yes\n", "yes\nremove\n", 1), code=1).split())
    assert f"{tmp_path}/other.making/result.json:Thisisnoresultfile" in said
    assert (tmp_path / "root-key.making").exists()
    (tmp_path / "root-key.making").rmdir()
    assert "Held." in lab(tmp_path, SIGNED)  # it is in nobody's way while nothing is to be removed


def cut_off(_medium: Medium) -> None:
    """As the power does it."""
    raise KeyboardInterrupt


def test_a_result_whose_key_is_elsewhere_is_not_finished(tmp_path: Path) -> None:
    room(tmp_path, lab=True)
    lab(tmp_path, SIGNED)
    (tmp_path / "out").rename(tmp_path / "out.making")
    (tmp_path / "root-key").rename(tmp_path / "elsewhere")
    assert "not in one place" in lab(tmp_path, "", code=1)
    (tmp_path / "root-key").mkdir()
    (tmp_path / "elsewhere").rename(tmp_path / "root-key.making")
    assert "is another one" in lab(tmp_path, "", code=1)
    (tmp_path / "root-key").rmdir()
    assert "nothing was done a second time" in lab(tmp_path, "")


def test_a_plan_is_a_draft_that_says_what_is_missing(tmp_path: Path) -> None:
    room(tmp_path, lab=True)
    arguments = ("ceremony", "plan", "new.yaml", "--root", "root", "--request", "issuing.request", "--org", "Example")
    said = rootward(tmp_path, *arguments)
    assert "not complete yet" in said
    assert "one master" in said
    made = (tmp_path / "script.yaml").read_bytes()
    keys = {one.name: one.key for one in read_script(made).participants}
    people = ("--master", f"Ada={keys['Ada']}", "--witness", f"Bob={keys['Bob']}")
    assert "There is new.yaml already" in rootward(tmp_path, *arguments, code=2)
    (tmp_path / "new.yaml").unlink()
    rootward(tmp_path, *arguments, *people)
    script = read_script((tmp_path / "new.yaml").read_bytes())
    assert [type(step).__name__ for step in script.steps] == ["MakeKey", "CertifyRoot", "Certify", "SignCrl"]
    rootward(tmp_path, "ceremony", "rehearse", "new.yaml")


def test_a_new_root_has_the_name_of_its_organisation(tmp_path: Path) -> None:
    """It stands in every certificate's issuer for years: nothing is put there that nobody said, but in a lab."""
    room(tmp_path, lab=True)
    arguments = ("ceremony", "plan", "new.yaml", "--root", "root", "--pki-url", "http://pki.example")
    assert "--org" in rootward(tmp_path, *arguments, code=2)
    assert not (tmp_path / "new.yaml").exists()
    for words, name in ((("--org", "Ours"), "Ours Root CA"), (("--lab",), "Example Root CA")):
        rootward(tmp_path, *arguments, *words)
        assert f"common_name: {name}" in (tmp_path / "new.yaml").read_text()
        (tmp_path / "new.yaml").unlink()


def test_a_participants_key_is_made_once(tmp_path: Path) -> None:
    typed = f"{PASSPHRASE}\n{PASSPHRASE}\n"
    said = rootward(tmp_path, "ceremony", "participant", "Ada", "--out", "ada.key", typed=typed)
    assert re.search(r"key: [0-9a-f]{64}", said)
    assert (tmp_path / "ada.key").stat().st_mode & 0o077 == 0
    assert "left as it is" in rootward(
        tmp_path, "ceremony", "participant", "Ada", "--out", "ada.key", typed=typed, code=1
    )
    assert "different" in rootward(
        tmp_path, "ceremony", "participant", "Ada", "--out", "b.key", typed=f"{PASSPHRASE}\nanother one here\n", code=1
    )


# ── Where it is held ──────────────────────────────────────────────────────────────────────────────────────────────


def machine(folder: Path, *, devices: tuple[str, ...] = (), flags: str = "0x1002", **files: str) -> list[str]:
    """What would be found on a machine that looks so."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "proc" / "net").mkdir(parents=True)
    head = "Inter-|   Receive\n face |bytes\n"
    (folder / "proc" / "net" / "dev").write_text(head + "".join(f"  {name}: 0 0\n" for name in ("lo", *devices)))
    for name in devices:
        (folder / "sys" / "class" / "net" / name).mkdir(parents=True)
        (folder / "sys" / "class" / "net" / name / "flags").write_text(f"{flags}\n")
    for name, text in files.items():
        (folder / "proc" / "net" / name).write_text(text)
    return network_faults(folder / "proc", folder / "sys")


def test_every_way_out_of_a_machine_is_seen(tmp_path: Path) -> None:
    folder = tmp_path / "machine"
    assert machine(folder) == []
    assert machine(folder, devices=("eth0",)) == []
    assert "eth0 is up" in machine(folder, devices=("eth0",), flags="0x1003")[0]
    route = "Iface\tDestination\tGateway\neth0\t00000000\t0102A8C0\n"
    assert machine(folder, route=route) == ["There is an IPv4 route by eth0."]
    assert machine(folder, ipv6_route=f"{'0' * 32} 00 {'0' * 32} 00 x x x x wlan0\n") == [
        "There is an IPv6 route by wlan0."
    ]
    local = ("Main:", "+-- 0.0.0.0/0", "|-- 127.0.0.1", "/32 host LOCAL", "|-- 10.1.2.3", "/32 host LOCAL")
    trie = "".join(f"  {text}\n" for text in local)
    assert machine(folder, fib_trie=trie) == ["This machine has the address 10.1.2.3."]
    assert machine(folder, if_inet6="fe80000000000000020c29fffe000001 02 40 20 80 eth0\n") == [
        "This machine has the address fe80::20c:29ff:fe00:1."
    ]
    assert machine(folder, if_inet6=f"{'0' * 31}1 01 80 10 80 lo\n") == []
    (folder / "proc" / "net" / "dev").unlink()
    assert "cannot be seen" in network_faults(folder / "proc", folder / "sys")[0]


@pytest.mark.skipif(not Path("/proc/net/dev").exists(), reason="this machine has no /proc/net")
def test_a_machine_with_a_network_is_refused(tmp_path: Path) -> None:
    if not network_faults():
        pytest.skip("this machine has no network at all")
    room(tmp_path, lab=False)
    person = Person((*ROOTWARD, "ceremony", "run", "script.yaml", "--out", "out"), tmp_path)
    screen = person.answer([])
    assert person.code == 1
    assert "This machine can reach a network." in screen
    assert not (tmp_path / "out").exists()


def test_a_clock_that_is_absurd_is_said() -> None:
    at = datetime(2026, 3, 1, tzinfo=UTC)
    assert clock_fault(at, at + timedelta(hours=23)) is None
    assert "9 days ahead of" in str(clock_fault(at, at + timedelta(days=9)))
    assert "400 days behind" in str(clock_fault(at, at - timedelta(days=400)))


def test_a_ceremony_opens_no_socket(tmp_path: Path) -> None:
    """I-36's other half: strace sees every socket call of a whole run, and there is none."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    room(tmp_path, lab=True)
    (tmp_path / "answers").write_text(SIGNED)
    log = tmp_path / "calls"
    command = ["strace", "-f", "-qq", "-e", "trace=%network", "-o", str(log), *ROOTWARD, "ceremony", "run"]
    done = subprocess.run(
        [*command, "script.yaml", "--out", "out", "--answers", "answers"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    calls = [line for line in log.read_text().splitlines() if re.search(r"\b(socket|connect|bind|socketpair)\(", line)]
    assert calls == []
