"""What is kept of a file key, put back, and how one ends."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from rootward import keys
from rootward.core.problems import Problem
from rootward.core.pubkey import KeyAlgorithm
from rootward.keys import disk, envelope, keepsake
from rootward.keys.kek import kek_from_bytes
from rootward.store.failpoint import Injected

CHEAP = keys.Argon2(memory_kib=8 * 1024, passes=1, lanes=1)
KEK = kek_from_bytes(b"1" * 64, "one")
WORDS = keys.kek_from_passphrase("correct horse battery", CHEAP)


@pytest.fixture
def made(tmp_path: Path) -> tuple[Path, str]:
    """A key file, and its public id."""
    backend = keys.BACKENDS["file"](keys.KeySettings(folder=tmp_path / "keys", kek=KEK))
    public_id = backend.generate("issuing", KeyAlgorithm.P256).public.id
    return tmp_path / "keys" / f"issuing-{public_id[:16]}.key", public_id


def refusal(call, *args, **more) -> Problem:
    with pytest.raises(Problem) as caught:
        call(*args, **more)
    return caught.value


def test_a_backup_is_put_back_under_another_kek(tmp_path: Path, made: tuple[Path, str]) -> None:
    file, public_id = made
    out = tmp_path / "issuing.backup"
    assert keepsake.back_up(file, out, kek=KEK, under=WORDS) == ("issuing", public_id)
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    other = kek_from_bytes(b"2" * 64, "two")
    again = keepsake.restore(out, tmp_path / "new", label="issuing", public_id=public_id, kek=WORDS, under=other)
    assert again.name == file.name
    backend = keys.BACKENDS["file"](keys.KeySettings(folder=tmp_path / "new", kek=other))
    assert backend.load("issuing", public_id).public.id == public_id


def test_nothing_is_overwritten(tmp_path: Path, made: tuple[Path, str]) -> None:
    file, public_id = made
    before = file.read_bytes()
    assert refusal(keepsake.back_up, file, file, kek=KEK, under=WORDS).code == "RW-KEY-FILE"
    keepsake.back_up(file, tmp_path / "b", kek=KEK, under=WORDS)
    how = {"label": "issuing", "public_id": public_id, "kek": WORDS, "under": KEK}
    assert "left as it is" in refusal(keepsake.restore, tmp_path / "b", file.parent, **how).detail
    assert file.read_bytes() == before


def test_another_key_is_not_put_back(tmp_path: Path, made: tuple[Path, str]) -> None:
    file, public_id = made
    keepsake.back_up(file, tmp_path / "b", kek=KEK, under=WORDS)
    how = {"kek": WORDS, "under": KEK}
    for label, id in (("root", public_id), ("issuing", "0" * 64)):
        problem = refusal(keepsake.restore, tmp_path / "b", tmp_path / "new", label=label, public_id=id, **how)
        assert problem.code == "RW-KEY-MISMATCH"
    wrong = keys.kek_from_passphrase("correct horse batterx", CHEAP)
    how = {"label": "issuing", "public_id": public_id, "kek": wrong, "under": KEK}
    assert refusal(keepsake.restore, tmp_path / "b", tmp_path / "new", **how).code == "RW-KEK"
    assert refusal(keepsake.restore, tmp_path / "none", tmp_path / "new", **how).code == "RW-KEY-MISSING"
    assert not (tmp_path / "new").exists()


def test_a_damaged_backup_is_refused(tmp_path: Path, made: tuple[Path, str]) -> None:
    file, public_id = made
    keepsake.back_up(file, tmp_path / "b", kek=KEK, under=WORDS)
    data = bytearray((tmp_path / "b").read_bytes())
    data[-10] ^= 1
    (tmp_path / "b").write_bytes(data)
    how = {"label": "issuing", "public_id": public_id, "kek": WORDS, "under": KEK}
    assert refusal(keepsake.restore, tmp_path / "b", tmp_path / "new", **how).code == "RW-KEY-FILE"


def test_a_destroyed_key_is_gone(tmp_path: Path, made: tuple[Path, str]) -> None:
    file, public_id = made
    link = tmp_path / "held"
    os.link(file, link)  # shows what the disk had at the end
    before = file.read_bytes()
    assert keepsake.destroy(file, public_id=public_id) == [file.name]
    assert not file.exists()
    assert link.stat().st_size == len(before)
    assert before[:40] not in link.read_bytes()


def test_only_the_named_key_is_destroyed(tmp_path: Path, made: tuple[Path, str]) -> None:
    file, public_id = made
    before = file.read_bytes()
    assert refusal(keepsake.destroy, file, public_id="0" * 64).code == "RW-KEY-MISMATCH"
    assert keepsake.destroy(tmp_path / "no", public_id=public_id) == []
    assert file.read_bytes() == before
    other = tmp_path / "other"
    other.write_bytes(b"my thesis")
    other.chmod(0o600)
    assert refusal(keepsake.destroy, other, public_id=public_id).code == "RW-KEY-FILE"
    assert other.read_bytes() == b"my thesis"


@pytest.fixture
def litter(made: tuple[Path, str]) -> tuple[Path, str]:
    """A key file with all that processes that died can have left beside it, and what is none of it."""
    file, public_id = made
    folder, name = file.parent, file.name
    private = envelope.unseal(file.read_bytes(), label="issuing", public_id=public_id, kek=KEK)
    for left in (f".old-{name}", f".gone-{name}", ".new-0123456789abcdef"):
        disk.write_new(folder / left, envelope.seal(private, label="issuing", kek=KEK), mode=0o600)
    os.link(file, folder / ".new-written")
    disk.write_new(folder / ".new-torn", file.read_bytes()[:90], mode=0o600)
    other = keys.BACKENDS["file"](keys.KeySettings(folder=folder, kek=KEK)).generate("issuing", KeyAlgorithm.P256)
    (theirs,) = folder.glob(f"issuing-{other.public.id[:16]}.key")
    os.link(theirs, folder / f".old-{theirs.name}")
    disk.write_new(folder / ".new-theirs", theirs.read_bytes(), mode=0o600)
    return made


def left_of_it(file: Path) -> list[str]:
    """What is there of the key, without what is torn or another's."""
    public = file.stem.rpartition("-")[2].encode()
    return sorted(
        path.name for path in file.parent.iterdir() if public in path.read_bytes() and path.name != ".new-torn"
    )


def test_what_dead_processes_left_of_a_key_is_destroyed_with_it(litter: tuple[Path, str]) -> None:
    """Each opens with an older or the current KEK, or with the shares of custodians who were replaced."""
    file, public_id = litter
    assert len(left_of_it(file)) == 5
    others = set(os.listdir(file.parent)) - set(left_of_it(file))
    assert len(keepsake.destroy(file, public_id=public_id)) == 5
    assert set(os.listdir(file.parent)) == others
    assert len(others) == 4
    assert keepsake.files_of(file.parent, public_id) == []
    assert keepsake.end(file) == []


@pytest.mark.parametrize("turn", range(4))
def test_a_destruction_that_is_cut_off_is_ended_wherever(
    litter: tuple[Path, str], turn: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, public_id = litter
    real, turns = keepsake.shred, iter(range(turn))

    def cut_off(path: Path) -> None:
        if next(turns, None) is None:
            raise Injected("here")
        real(path)

    with monkeypatch.context() as patch:
        patch.setattr(keepsake, "shred", cut_off)
        with pytest.raises(Injected):
            keepsake.end(file)
    assert keepsake.files_of(file.parent, public_id) == [file]
    if file.exists():
        assert envelope.read_header(file.read_bytes()).public_id == public_id  # not damaged under its own name
    assert keepsake.end(file)
    assert left_of_it(file) == []


def test_a_link_to_the_key_file_is_no_copy(made: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a change of custodians cut off before anything was sealed: the name goes, and then the file."""
    file, public_id = made
    os.link(file, file.with_name(f".old-{file.name}"))
    shredded = []
    real = keepsake.shred
    monkeypatch.setattr(keepsake, "shred", lambda path: (shredded.append(path.name), real(path)))
    keepsake.destroy(file, public_id=public_id)
    assert shredded == [f".gone-{file.name}"]
    assert list(file.parent.iterdir()) == []


def test_a_folder_that_is_not_there_has_no_key_files(tmp_path: Path) -> None:
    assert keepsake.files_of(tmp_path / "none", "0" * 64) == []


def test_what_a_link_points_to_is_not_shredded(tmp_path: Path, made: tuple[Path, str]) -> None:
    file, _ = made
    before = file.read_bytes()
    (tmp_path / "link").symlink_to(file)
    assert "cannot be destroyed" in refusal(keepsake.shred, tmp_path / "link").detail
    assert "cannot be destroyed" in refusal(keepsake.shred, tmp_path / "none").detail
    os.mkfifo(tmp_path / "fifo")
    assert refusal(keepsake.shred, tmp_path / "fifo").code == "RW-KEY-FILE"
    assert file.read_bytes() == before
