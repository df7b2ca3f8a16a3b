"""What is kept of a file key, put back, and how one ends."""

from __future__ import annotations

import os
import stat
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from rootward import keys
from rootward.core.problems import Problem
from rootward.core.pubkey import KeyAlgorithm
from rootward.keys import keepsake
from rootward.keys.kek import kek_from_bytes

CHEAP = keys.Argon2(memory_kib=8 * 1024, passes=1, lanes=1)
KEK = kek_from_bytes(b"1" * 64, "one")
WORDS = keys.kek_from_passphrase("correct horse battery", CHEAP)
NOW = datetime(2026, 11, 24, tzinfo=UTC)


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


def test_a_destroyed_key_is_gone_and_recorded(tmp_path: Path, made: tuple[Path, str]) -> None:
    file, public_id = made
    link = tmp_path / "held"
    os.link(file, link)  # shows what the disk had at the end
    before = file.read_bytes()
    record = keepsake.destroy(file, public_id=public_id, at=NOW, by=("Ada", "Grace"))
    assert not file.exists()
    assert link.stat().st_size == len(before)
    assert before[:40] not in link.read_bytes()
    assert record.label == "issuing"
    assert record.public_id == public_id
    assert record.by == ("Ada", "Grace")
    assert msgspec.json.decode(msgspec.json.encode(record), type=keepsake.Destroyed) == record


def test_only_the_named_key_is_destroyed(tmp_path: Path, made: tuple[Path, str]) -> None:
    file, public_id = made
    before = file.read_bytes()
    assert refusal(keepsake.destroy, file, public_id="0" * 64, at=NOW, by=("Ada",)).code == "RW-KEY-MISMATCH"
    assert refusal(keepsake.destroy, file, public_id=public_id, at=NOW, by=()).code == "RW-FIELD"
    assert refusal(keepsake.destroy, tmp_path / "no", public_id=public_id, at=NOW, by=("A",)).code == "RW-KEY-MISSING"
    assert file.read_bytes() == before
    other = tmp_path / "other"
    other.write_bytes(b"my thesis")
    other.chmod(0o600)
    assert refusal(keepsake.destroy, other, public_id=public_id, at=NOW, by=("Ada",)).code == "RW-KEY-FILE"
    assert other.read_bytes() == b"my thesis"


def test_what_a_link_points_to_is_not_shredded(tmp_path: Path, made: tuple[Path, str]) -> None:
    file, _ = made
    before = file.read_bytes()
    (tmp_path / "link").symlink_to(file)
    assert "cannot be destroyed" in refusal(keepsake.shred, tmp_path / "link").detail
    assert "cannot be destroyed" in refusal(keepsake.shred, tmp_path / "none").detail
    os.mkfifo(tmp_path / "fifo")
    assert refusal(keepsake.shred, tmp_path / "fifo").code == "RW-KEY-FILE"
    assert file.read_bytes() == before
