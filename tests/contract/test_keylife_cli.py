"""The life of keys through the command line, beside a server that runs and while it is stopped: cryptoperiod, another
KEK that was cut off, backup and restore of a key, its destruction.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import multiprocessing
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from rootward import home as homes
from rootward.cli.app import run as run_here
from rootward.core.problems import Problem
from rootward.core.pubkey import KeyAlgorithm
from rootward.keys import BACKENDS, KeySettings, create_kek_file, keepsake, kek_from_file, kek_from_passphrase
from rootward.store.failpoint import armed
from tests.support.programs import until
from tests.support.second import add_sibling
from tests.support.server import Server

NEW = "second"
PASSPHRASE = "a passphrase for the backup"
KILLS = ("kek.prepared", "kek.linked", "kek.renamed", "kek.files-sealed", "kek.secrets-sealed", "kek.finished")


def rootward(home: Path, *words: str | Path, code: int = 0) -> Any:
    """What the command prints with --json, or its text; run in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        ended = run_here([*map(str, words), "--home", str(home)])
    assert ended == code, out.getvalue() + err.getvalue()
    return json.loads(out.getvalue()) if "--json" in words else out.getvalue() + err.getvalue()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A lab with two issuing authorities; served."""
    folder = tmp_path_factory.mktemp("life")
    server = Server(folder / "home")
    with server:
        pass
    add_sibling(server.home, NEW)
    (folder / "words").write_text(PASSPHRASE + "\n")
    (folder / "words").chmod(0o600)
    with server:
        yield server


@pytest.mark.slow
def test_the_life_of_keys(served: Server, tmp_path: Path) -> None:
    """One story: each step needs what the one before left."""
    home, words, kept = served.home, served.home.parent / "words", tmp_path / "second.backup"
    url = ("--url", served.url)
    assert states_at(home, url) == {"root": "active", "issuing": "active", NEW: "active"}

    # Cryptoperiod: what the longest lifetime of a profile leaves is over.
    profile = yaml.safe_load(rootward(home, "profile", "show", "server", "--yaml", *url))
    profile |= {"name": "long", "lifetime": {"minimum": "1h", "default": "1d", "maximum": "1826d"}}
    (tmp_path / "long.yaml").write_text(json.dumps(profile))
    rootward(home, "profile", "create", tmp_path / "long.yaml", *url)
    refused = rootward(
        home, "cert", "issue", "--profile", "long", "--name", "a.internal", "--out", tmp_path / "x", *url, code=1
    )
    assert "RW-VALIDITY" in refused
    assert "Its successor has to take over" in refused
    rootward(home, "profile", "delete", "long", *url)

    # A backup of one key, then another KEK, both while the server runs.
    rootward(home, "key", "backup", NEW, "--out", kept, "--passphrase-file", words)
    assert PASSPHRASE.encode() not in kept.read_bytes()
    assert oct(kept.stat().st_mode & 0o777) == "0o600"
    rootward(home, "key", "backup", NEW, "--out", kept, "--passphrase-file", words, code=2)
    rootward(home, "key", "backup", "root", "--out", tmp_path / "r", "--passphrase-file", words, code=2)
    before = kek_from_file(home / "kek").id
    done = rootward(home, "key", "rewrap", "--json")
    assert (done["state"], done["old"], done["left"]) == ("done", before, [])
    assert not (home / "kek.old").exists()
    assert kek_from_file(home / "kek").id == done["new"]
    (event,) = told_at(home, "kek.rewrapped", url)
    assert event["data"]["files"] == done["files"]
    issued = ("--profile", "server", "--name", "b.internal", "--out", tmp_path / "b")
    rootward(home, "cert", "issue", *issued, *url)  # the server goes on

    # The key's file is lost, and comes back from the backup; the KEK is another one by now.
    (file,) = (home / "keys").glob(f"{NEW}-*.key")
    file.rename(tmp_path / "lost")
    assert "is there already" not in rootward(home, "key", "restore", kept, "--passphrase-file", words)
    rootward(home, "key", "restore", kept, "--passphrase-file", words, code=2)
    assert oct(file.stat().st_mode & 0o777) == "0o600"
    served.stop()
    served.start()
    url = ("--url", served.url)
    until(lambda: bool(told_at(home, "key.restored", url)), seconds=30)
    (event,) = told_at(home, "key.restored", url)
    assert event["authority"] == NEW
    assert len(told_at(home, "key.backed-up", url)) == 1

    # The end.
    said = rootward(home, "key", "destroy", NEW, *url, code=1)
    assert "Retire it first" in said
    approve(home, url, "ca", "retire", NEW)
    approve(home, url, "key", "destroy", NEW)
    assert not list((home / "keys").glob(f"{NEW}-*.key"))
    assert states_at(home, url)[NEW] == "destroyed"
    shown = rootward(home, "ca", "show", NEW, *url)
    assert "destroyed" in shown
    (event,) = told_at(home, "key.destroyed", url)
    assert event["data"]["how"] == "the file was overwritten and unlinked"
    assert "was destroyed" in rootward(home, "key", "restore", kept, "--passphrase-file", words, code=2)
    served.stop()
    served.start()
    url = ("--url", served.url)
    assert states_at(home, url)[NEW] == "destroyed"
    rootward(home, "cert", "issue", "--profile", "server", "--name", "c.internal", "--out", tmp_path / "c", *url)


def states_at(home: Path, url: tuple[str, str]) -> dict[str, str]:
    return {one["authority"]: one["state"] for one in rootward(home, "key", "states", "--json", *url)["items"]}


def told_at(home: Path, kind: str, url: tuple[str, str]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = rootward(home, "audit", "list", "--kind", kind, "--json", *url)["items"]
    return found


def approve(home: Path, url: tuple[str, str], *words: str) -> None:
    """Propose, and agree: in a lab there is one person, who may."""
    made = rootward(home, *words, "--json", *url, code=3)
    rootward(home, "request", "approve", made["id"], *url)


# ── killed in between ─────────────────────────────────────────────────────────────────────────────────────────────


def rewrap(home: Path, trap: str) -> int | None:
    """`rootward key rewrap` in a process of its own; its exit code, or the signal that ended it."""

    def child() -> None:
        with armed(trap):
            os._exit(run_here(["key", "rewrap", "--home", str(home), "--json"]))

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(60)
    return process.exitcode


@pytest.mark.invariant("I-61")
@pytest.mark.parametrize("place", KILLS)
def test_a_rewrap_that_is_killed_goes_on(lab_home: Path, place: str) -> None:
    config = homes.read_config(lab_home, {})
    ((label, key_id),) = homes.open_backend(config, {}).list()
    first = kek_from_file(lab_home / "kek").id
    assert rewrap(lab_home, f"{place}:kill") == -signal.SIGKILL
    # At no time is a key unreadable.
    assert homes.open_backend(config, {}).load(label, key_id).public.id == key_id
    assert rewrap(lab_home, "") == 0
    assert homes.open_backend(config, {}).load(label, key_id).public.id == key_id
    assert not {"kek.old", "kek.next"} & set(os.listdir(lab_home))
    assert kek_from_file(lab_home / "kek").id != first


def test_a_rewrap_that_cannot_destroy_the_old_key_says_so_and_begins_no_other(
    lab_home: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def refuse(_file: Path) -> None:
        raise Problem("RW-KEY-FILE", "It cannot be destroyed: Permission denied.")

    with monkeypatch.context() as patch:
        patch.setattr(keepsake, "shred", refuse)
        assert rewrap(lab_home, "") == 1
        said = capfd.readouterr()
        assert "Permission denied" in said.err
        assert '"done"' not in said.out
        new = kek_from_file(lab_home / "kek").id
        assert rewrap(lab_home, "") == 1
    assert rewrap(lab_home, "") == 0
    assert json.loads(capfd.readouterr().out.splitlines()[-1])["new"] == new
    assert kek_from_file(lab_home / "kek").id == new
    assert not {"kek.old", "kek.next", ".gone-kek.old"} & set(os.listdir(lab_home))


@pytest.fixture
def lab_home(tmp_path: Path) -> Path:
    """The smallest home that has a key."""
    assert run_here(["init", "--single-tier", "--home", str(tmp_path / "home")]) == 0
    return tmp_path / "home"


def test_what_rewrap_refuses(lab_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_here(["key", "rewrap", "--prepare", "--json", "--home", str(lab_home)]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["state"] == "prepared"
    settings = lab_home / "rootward.toml"
    settings.write_text(settings.read_text().replace('# source = "file:kek"', 'source = "credential:kek"'))
    assert run_here(["key", "rewrap", "--home", str(lab_home)]) == 2
    assert "kek.previous" in capsys.readouterr().err


def key_of(home: Path) -> tuple[str, str]:
    """The label and public id of the one key, which opens."""
    backend = homes.open_backend(homes.read_config(home, {}), {})
    ((label, key_id),) = backend.list()
    backend.load(label, key_id)
    return label, key_id


def test_a_kek_that_others_give(lab_home: Path) -> None:
    """Such as a credential: the settings name both, and nothing is taken away."""
    held = key_of(lab_home)
    create_kek_file(lab_home / "given")
    settings = lab_home / "rootward.toml"
    both = '# source = "file:kek"', 'source = "file:given"\nprevious = "file:kek"'
    settings.write_text(settings.read_text().replace(*both).replace('# previous = ""', ""))
    config = homes.read_config(lab_home, {})
    db = homes.open_store(config)
    try:
        inst = homes.installation(config, db, {})
        done = asyncio.run(homes.change_kek(inst, config, {}))
        assert done is not None
        assert (done.files, done.new) == (1, kek_from_file(lab_home / "given").id)
        assert inst.process.kek is not None
        assert inst.process.kek.over
        assert asyncio.run(homes.change_kek(inst, config, {})) is None  # nothing is left to do
    finally:
        db.close()
    settings.write_text(settings.read_text().replace('previous = "file:kek"', ""))
    (lab_home / "kek").unlink()
    assert key_of(lab_home) == held


def test_a_backup_takes_both_along(lab_home: Path, tmp_path: Path) -> None:
    held = key_of(lab_home)
    homes.begin_kek_change(lab_home / "kek")  # and cut off: the key file is still sealed with the old one
    words = tmp_path / "words"
    words.write_text(PASSPHRASE + "\n")
    words.chmod(0o600)
    out, new = tmp_path / "out", tmp_path / "new"
    opened = ("--passphrase-file", str(words))
    assert run_here(["backup", "create", "--out", str(out), *opened, "--home", str(lab_home)]) == 0
    assert run_here(["backup", "verify", str(out), *opened]) == 0
    assert run_here(["backup", "restore", str(out), *opened, "--home", str(new)]) == 0
    assert key_of(new)[0] == held[0]
    assert rewrap(new, "") == 0
    assert not (new / "kek.old").exists()
    backend = homes.open_backend(homes.read_config(new, {}), {})
    assert held in backend.list()
    assert backend.load(*held).public.id == held[1]


def test_what_a_restore_of_a_key_refuses(lab_home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    label, key_id = key_of(lab_home)
    words, wrong = tmp_path / "words", tmp_path / "wrong"
    for file, text in ((words, PASSPHRASE), (wrong, "another passphrase")):
        file.write_text(text + "\n")
        file.chmod(0o600)
    out, file = tmp_path / "out", lab_home / "keys" / f"{label}-{key_id[:16]}.key"
    ours = ("--home", str(lab_home))
    assert run_here(["key", "backup", "root", "--out", str(out), "--passphrase-file", str(words), *ours]) == 0
    file.unlink()

    def refused(*command: str | Path, code: int = 1) -> str:
        capsys.readouterr()
        assert run_here([*map(str, command), *ours]) == code
        return capsys.readouterr().err

    assert "passphrase" in refused("key", "restore", out, "--passphrase-file", wrong)
    assert "cannot be read" in refused("key", "restore", tmp_path / "none", "--passphrase-file", words, code=2)
    assert "nobody to ask" in refused("key", "restore", out, code=2)
    assert "no authority nobody" in refused(
        "key", "backup", "nobody", "--out", tmp_path / "o", "--passphrase-file", words, code=2
    )
    other = BACKENDS["file"](KeySettings(folder=tmp_path / "k", kek=kek_from_passphrase(PASSPHRASE)))
    other.generate("root", KeyAlgorithm.P384)
    (theirs,) = (tmp_path / "k").glob("*.key")
    assert "No authority here has the key root" in refused("key", "restore", theirs, "--passphrase-file", words, code=2)
    damaged = out.read_bytes().replace(b'"label":"root"', b'"label":"toor"')
    (tmp_path / "damaged").write_bytes(damaged)
    assert "No authority here" in refused("key", "restore", tmp_path / "damaged", "--passphrase-file", words, code=2)
    assert not file.exists()
    assert run_here(["key", "restore", str(out), "--passphrase-file", str(words), *ours]) == 0
    assert key_of(lab_home) == (label, key_id)
