"""The KEK of a home while it is changed: at no time is anything sealed that cannot be opened, wherever it is cut."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rootward import keys
from rootward.core.problems import Problem
from rootward.core.pubkey import KeyAlgorithm
from rootward.home import begin_kek_change
from rootward.keys import Ring, Sealer, disk, keepsake, kek_from_file, ring
from rootward.keys.file import sealed_otherwise
from rootward.store.failpoint import Injected, armed
from tests.support.rights import as_owner

STEPS = ("kek.prepared", "kek.linked", "kek.renamed")


@pytest.fixture
def kek(tmp_path: Path) -> Path:
    keys.create_kek_file(tmp_path / "kek")
    return tmp_path / "kek"


def opened(path: Path) -> Ring:
    return Ring(lambda: ring.beside(path))


@pytest.mark.parametrize("place", [*STEPS, None])
def test_a_change_is_gone_on_with(kek: Path, place: str | None) -> None:
    first = kek_from_file(kek).id
    running = Sealer(opened(kek))  # a server's, which is not restarted
    before = running.seal(b"before", purpose="p")
    if place is None:
        begin_kek_change(kek)
    else:
        with armed(f"{place}:fail"), pytest.raises(Injected):
            begin_kek_change(kek)
    meanwhile = running.seal(b"meanwhile", purpose="p")
    for sealer in (running, Sealer(opened(kek))):
        assert sealer.unseal(before, purpose="p") == b"before"
        assert sealer.unseal(meanwhile, purpose="p") == b"meanwhile"
    change = begin_kek_change(kek)
    assert (change.old.id, change.new.id) == (first, kek_from_file(kek).id)
    assert change.new.id != first
    assert Sealer(change.new).opens(running.seal(b"after", purpose="p"))
    with armed("kek.prepared:fail"):
        assert begin_kek_change(kek) is not None  # a third time: the same change, no step is done again
    assert kek_from_file(kek).id == change.new.id
    ring.finish(kek, change)
    assert ring.change_of(kek) is None
    assert sorted(os.listdir(kek.parent)) == ["kek"]
    assert running.unseal(before, purpose="p") == b"before"  # what it has seen, a process keeps
    with pytest.raises(Problem, match="another key-encryption key"):
        Sealer(opened(kek)).unseal(before, purpose="p")


def test_only_the_change_that_is_over_is_finished(kek: Path) -> None:
    change = begin_kek_change(kek)
    ring.finish(kek, change)
    again = begin_kek_change(kek)
    ring.finish(kek, change)
    assert ring.change_of(kek) is not None
    assert again.old.id == change.new.id
    with pytest.raises(Problem, match="goes on"):
        ring.prepare(kek)


def test_a_host_opens_what_another_one_sealed_with_the_next_one(kek: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "kek").write_bytes(kek.read_bytes())
    (other / "kek").chmod(0o400)
    following = ring.prepare(kek)
    assert ring.prepare(kek).id == following.id
    (other / "kek.next").write_bytes(Path(f"{kek}.next").read_bytes())
    (other / "kek.next").chmod(0o400)
    theirs = Sealer(opened(other / "kek"))
    begin_kek_change(kek)
    sealed = Sealer(opened(kek)).seal(b"here", purpose="p")
    assert theirs.unseal(sealed, purpose="p") == b"here"
    assert begin_kek_change(other / "kek").new.id == following.id


def test_key_files_are_readable_all_the_time(kek: Path, tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    backend = keys.BACKENDS["file"](keys.KeySettings(folder=folder, kek=opened(kek)))
    made = [backend.generate(f"key-{n}", KeyAlgorithm.P256) for n in range(3)]
    change = begin_kek_change(kek)
    assert len(sealed_otherwise(folder, kek=change.new)) == 3
    late = backend.generate("late", KeyAlgorithm.P256)
    assert len(sealed_otherwise(folder, kek=change.new)) == 3
    for key in (*made, late):
        assert backend.load(key.label, key.public.id).public == key.public
    assert len(keys.reseal(folder, old=change.old, new=change.new)) == 3
    ring.finish(kek, change)
    for key in (*made, late):
        assert backend.load(key.label, key.public.id).public == key.public
    assert sealed_otherwise(folder, kek=change.new) == []


def test_who_changes_it_is_alone(tmp_path: Path) -> None:
    with disk.claim(tmp_path) as mine:
        with disk.claim(tmp_path) as another:
            assert (mine, another) == (True, False)
        with disk.claim(tmp_path) as another:  # it is not given back by whoever did not get it
            assert not another
    with disk.alone(tmp_path), disk.claim(tmp_path) as another:
        assert not another


def test_who_may_not_write_the_old_one_destroys_it(kek: Path, tmp_path: Path) -> None:
    """It has the mode 0400, which means something to everybody but root."""
    (tmp_path / "disk").mkdir()
    os.link(kek, tmp_path / "disk" / "held")  # shows what the disk had at the end
    before = kek.read_bytes()
    script = """
import pathlib
from rootward.home import begin_kek_change
from rootward.keys import ring
path = pathlib.Path(sys.argv[1])
ring.finish(path, begin_kek_change(path))
"""
    as_owner(script, kek)
    assert sorted(os.listdir(tmp_path)) == ["disk", "kek"]
    assert len((tmp_path / "disk" / "held").read_bytes()) == len(before)
    assert (tmp_path / "disk" / "held").read_bytes() != before
    assert ring.change_of(kek) is None


def test_a_change_goes_on_until_the_old_one_is_overwritten(kek: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever reads the disk has it until then."""
    change = begin_kek_change(kek)
    with monkeypatch.context() as patch:
        patch.setattr(keepsake, "shred", cut_off)
        with pytest.raises(Injected):
            ring.finish(kek, change)
    assert sorted(os.listdir(kek.parent)) == [".gone-kek.old", "kek"]
    going = begin_kek_change(kek)  # no other one is begun
    assert (going.old.id, going.new.id) == (change.old.id, change.new.id)
    ring.finish(kek, going)
    assert ring.change_of(kek) is None
    assert os.listdir(kek.parent) == ["kek"]


def test_a_change_is_over_when_the_old_one_is_overwritten(kek: Path) -> None:
    change = begin_kek_change(kek)
    left = kek.with_name(".gone-kek.old")
    Path(f"{kek}.old").rename(left)
    left.chmod(0o600)
    left.write_bytes(os.urandom(65))
    assert ring.change_of(kek) is None
    again = begin_kek_change(kek)
    assert again.old.id == change.new.id
    ring.finish(kek, again)
    assert os.listdir(kek.parent) == ["kek"]


def cut_off(_file: Path) -> None:
    raise Injected("here")


def test_a_file_that_others_read_is_refused(kek: Path) -> None:
    ring.prepare(kek)
    Path(f"{kek}.next").chmod(0o644)
    with pytest.raises(Problem, match="RW-KEK"):
        ring.beside(kek)
