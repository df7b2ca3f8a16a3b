"""Key files on disk: nothing in the clear, nothing half written, nothing that others can read."""

import base64
import os
import stat
import subprocess
import sys

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from rootward import keys
from rootward.core.problems import Problem
from rootward.core.pubkey import KeyAlgorithm
from rootward.keys import envelope, file, keepsake
from tests.support.rights import as_owner

CHEAP = keys.Argon2(memory_kib=8 * 1024, passes=1, lanes=1)


@pytest.fixture
def kek(tmp_path):
    keys.create_kek_file(tmp_path / "kek")
    return keys.kek_from_file(tmp_path / "kek")


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "keys"


@pytest.fixture
def backend(folder, kek):
    return keys.BACKENDS["file"](keys.KeySettings(folder=folder, kek=kek))


def refusal(call, *args, **more):
    with pytest.raises(Problem) as caught:
        call(*args, **more)
    return caught.value


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_there_is_no_backend_without_a_kek_or_a_folder(folder, kek):
    """No plaintext fallback: there is nothing to give that would write a bare key."""
    assert refusal(keys.open_file, keys.KeySettings(folder=folder)).code == "RW-KEK"
    assert refusal(keys.open_file, keys.KeySettings(kek=kek)).code == "RW-CONFIG"
    assert not folder.exists()


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_names_and_modes_are_as_promised_whatever_the_umask(backend, folder, umask):
    before = os.umask(umask)
    try:
        key = backend.generate("issuing", KeyAlgorithm.P256)
    finally:
        os.umask(before)
    assert os.listdir(folder) == [f"issuing-{key.public.id[:16]}.key"]
    assert (mode(folder), mode(folder / os.listdir(folder)[0])) == (0o700, 0o600)


@pytest.mark.invariant("I-35")
@pytest.mark.parametrize(
    "algorithm", [KeyAlgorithm.RSA_2048, KeyAlgorithm.P256, KeyAlgorithm.ED25519, KeyAlgorithm.ML_DSA_65]
)
def test_no_private_value_is_anywhere_on_the_disk(backend, tmp_path, algorithm):
    private = backend.generate("issuing", algorithm)._private
    forms = [private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())[-24:]]
    if hasattr(private, "private_bytes_raw"):
        forms.append(private.private_bytes_raw())
    else:
        numbers = private.private_numbers()
        for value in [numbers.p, numbers.q, numbers.d] if hasattr(numbers, "p") else [numbers.private_value]:
            forms.append(value.to_bytes((value.bit_length() + 7) // 8, "big"))
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 2
    for path in files:
        text = path.read_bytes()
        sealed = base64.b64decode(text.split(b"\n")[1])
        for form in forms:
            assert not any(shape in text for shape in (form, form.hex().encode(), base64.b64encode(form)[2:-4]))
            assert form not in sealed


def test_a_restart_with_the_right_kek_finds_the_keys(backend, folder, kek):
    key = backend.generate("issuing", KeyAlgorithm.P256)
    again = keys.open_file(keys.KeySettings(folder=folder, kek=kek))
    assert again.list() == [("issuing", key.public.id)]
    assert again.load("issuing", key.public.id).public == key.public


def test_a_wrong_kek_is_a_clear_problem_and_lists_still(backend, folder, tmp_path):
    key = backend.generate("issuing", KeyAlgorithm.P256)
    keys.create_kek_file(tmp_path / "other")
    other = keys.open_file(keys.KeySettings(folder=folder, kek=keys.kek_from_file(tmp_path / "other")))
    assert refusal(other.load, "issuing", key.public.id).code == "RW-KEK"
    assert other.list() == [("issuing", key.public.id)]


def test_a_file_moved_to_another_name_is_not_taken(backend, folder):
    one, two = (backend.generate("issuing", KeyAlgorithm.P256) for _ in range(2))
    first, second = (folder / f"issuing-{key.public.id[:16]}.key" for key in (one, two))
    first.replace(second)
    assert refusal(backend.load, "issuing", two.public.id).code == "RW-KEY-MISMATCH"
    assert refusal(backend.delete, "issuing", two.public.id).code == "RW-KEY-MISMATCH"
    second.rename(folder / f"root-{one.public.id[:16]}.key")
    assert refusal(backend.load, "root", one.public.id).code == "RW-KEY-MISMATCH"


@pytest.mark.parametrize("bad", [0o640, 0o604, 0o620, 0o602, 0o700])
def test_a_key_file_that_others_can_get_at_is_refused_with_the_mending_command(backend, folder, bad):
    key = backend.generate("issuing", KeyAlgorithm.P256)
    path = folder / os.listdir(folder)[0]
    path.chmod(bad)
    problem = refusal(backend.load, "issuing", key.public.id)
    assert (problem.code, problem.detail.rpartition("Run: ")[2]) == ("RW-KEY-FILE", f'chmod 600 "{path}"')
    assert refusal(backend.list).code == "RW-KEY-FILE"
    path.chmod(0o600)
    assert backend.load("issuing", key.public.id).public == key.public


@pytest.mark.parametrize("bad", [0o750, 0o705, 0o701, 0o777])
def test_a_folder_that_others_can_enter_is_refused_with_the_mending_command(backend, folder, bad):
    key = backend.generate("issuing", KeyAlgorithm.P256)
    folder.chmod(bad)
    for call in (
        lambda: backend.load("issuing", key.public.id),
        lambda: backend.generate("issuing", KeyAlgorithm.P256),
        lambda: backend.delete("issuing", key.public.id),
        backend.list,
    ):
        problem = refusal(call)
        assert (problem.code, problem.detail.rpartition("Run: ")[2]) == ("RW-KEY-FILE", f'chmod 700 "{folder}"')
    folder.chmod(0o700)
    assert backend.list() == [("issuing", key.public.id)]


def test_what_is_no_folder_or_cannot_be_made_is_said(tmp_path, kek):
    (tmp_path / "file").write_text("x")
    for folder in (tmp_path / "file", tmp_path / "none" / "keys"):
        backend = keys.open_file(keys.KeySettings(folder=folder, kek=kek))
        assert refusal(backend.generate, "issuing", KeyAlgorithm.P256).code == "RW-KEY-FILE"


def test_an_existing_file_is_never_overwritten(backend, folder, monkeypatch):
    key = backend.generate("issuing", KeyAlgorithm.P256)
    before = (folder / os.listdir(folder)[0]).read_bytes()
    monkeypatch.setattr("rootward.keys.file.generate_private", lambda _algorithm: key._private)
    problem = refusal(backend.generate, "issuing", KeyAlgorithm.P256)
    assert "already" in problem.detail
    assert [(folder / name).read_bytes() for name in os.listdir(folder)] == [before]


def test_the_bytes_are_flushed_before_the_name_and_the_name_before_the_answer(backend, folder, monkeypatch):
    folder.mkdir(mode=0o700)
    steps = []
    fsync, link = os.fsync, os.link

    def flush(descriptor):
        steps.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)

    def name(source, target):
        steps.append("name")
        link(source, target)

    monkeypatch.setattr(os, "fsync", flush)
    monkeypatch.setattr(os, "link", name)
    key = backend.generate("issuing", KeyAlgorithm.P256)
    assert steps == ["folder", "file", "name", "folder"]
    backend.delete("issuing", key.public.id)
    assert steps[4:] == ["folder", "file", "folder"]  # another name first, so that a crash leaves no damaged key file


@pytest.mark.parametrize("step", ["fsync", "link", "fchmod"])
def test_a_write_that_fails_leaves_nothing_behind(backend, folder, monkeypatch, step):
    backend.generate("issuing", KeyAlgorithm.P256)
    before = os.listdir(folder)

    def full(*args):
        if step != "fsync" or stat.S_ISREG(os.fstat(args[0]).st_mode):
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, full)
    problem = refusal(backend.generate, "issuing", KeyAlgorithm.P256)
    assert (problem.code, "No space left" in problem.detail) == ("RW-KEY-FILE", True)
    assert os.listdir(folder) == before


KILLED = """
import os, pathlib, sys
from rootward import keys
from rootward.core.pubkey import KeyAlgorithm
home = pathlib.Path(sys.argv[1])
os.link = lambda *names: os._exit(9)
kek = keys.kek_from_file(home / "kek")
keys.open_file(keys.KeySettings(folder=home / "keys", kek=kek)).generate("issuing", KeyAlgorithm.P256)
"""


def test_a_process_killed_before_the_name_leaves_only_what_nobody_reads(backend, folder, tmp_path):
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False, timeout=60)
    assert done.returncode == 9
    (left,) = os.listdir(folder)
    assert left.startswith(".new-")
    assert envelope.read_header((folder / left).read_bytes()).label == "issuing"  # whole, sealed, and no key of ours
    assert backend.list() == []
    key = backend.generate("issuing", KeyAlgorithm.P256)
    assert backend.list() == [("issuing", key.public.id)]


def test_a_key_file_that_only_its_owner_reads_is_destroyed_by_who_may_not_write_it(backend, folder, tmp_path):
    key = backend.generate("issuing", KeyAlgorithm.P256)
    (path,) = folder.iterdir()
    path.chmod(0o400)
    script = """
import pathlib
from rootward import keys
home, public_id = pathlib.Path(sys.argv[2]), sys.argv[3]
kek = keys.kek_from_file(home / "kek")
keys.open_file(keys.KeySettings(folder=home / "keys", kek=kek)).delete("issuing", public_id)
"""
    as_owner(script, path, tmp_path, key.public.id)
    assert os.listdir(folder) == []


def test_a_destruction_that_was_cut_off_is_ended_by_the_same_call(backend, folder, kek, monkeypatch):
    """Else the retry would say that the key was not there any more, and a copy that the KEK opens would be."""
    key = backend.generate("issuing", KeyAlgorithm.P256)
    with monkeypatch.context() as patch:
        patch.setattr(keepsake, "shred", lambda _path: os.stat("/nowhere"))
        with pytest.raises(FileNotFoundError):
            backend.delete("issuing", key.public.id)
    (left,) = os.listdir(folder)
    assert left.startswith(".gone-issuing-")
    assert backend.list() == []
    other = backend.generate("issuing", KeyAlgorithm.P256)
    backend.delete("issuing", key.public.id)
    assert backend.list() == [("issuing", other.public.id)]
    assert len(os.listdir(folder)) == 1
    assert refusal(backend.delete, "issuing", key.public.id).code == "RW-KEY-MISSING"


def test_other_files_in_the_folder_are_left_alone(backend, folder):
    key = backend.generate("issuing", KeyAlgorithm.P256)
    for name in (
        "notes.txt",
        "x.key",
        "issuing-XYZ.key",
        ".issuing-0123456789abcdef.key",
        "issuing-0123456789abcdef.key~",
    ):
        (folder / name).write_text("not a key")
    assert backend.list() == [("issuing", key.public.id)]


def test_a_key_that_another_process_deletes_meanwhile_is_not_listed(backend, folder, monkeypatch):
    first, second = (backend.generate("tls", KeyAlgorithm.P256) for _ in range(2))
    real = file.key_files

    def then_deleted(where):
        found = real(where)
        backend.delete("tls", first.public.id)
        return found

    monkeypatch.setattr(file, "key_files", then_deleted)
    assert backend.list() == [("tls", second.public.id)]


def test_a_damaged_file_is_named_by_list(backend, folder):
    backend.generate("issuing", KeyAlgorithm.P256)
    (folder / "issuing-0123456789abcdef.key").write_bytes(b"torn")
    (folder / "issuing-0123456789abcdef.key").chmod(0o600)
    problem = refusal(backend.list)
    assert problem.code == "RW-KEY-FILE"
    assert "issuing-0123456789abcdef.key" in problem.detail


def test_a_key_that_cannot_be_read_back_is_not_given_out(backend, monkeypatch):
    monkeypatch.setattr(envelope, "seal", lambda *_args, **_more: b"torn by the disk")
    assert refusal(backend.generate, "issuing", KeyAlgorithm.P256).code == "RW-KEY-FILE"


def test_reseal_changes_the_kek_of_every_file(backend, folder, kek):
    made = [backend.generate(label, KeyAlgorithm.P256) for label in ("issuing", "tls", "ocsp-issuing")]
    words = keys.kek_from_passphrase("correct horse battery", CHEAP)
    assert len(keys.reseal(folder, old=kek, new=words)) == 3
    new = keys.open_file(keys.KeySettings(folder=folder, kek=words))
    for key in made:
        assert new.load(key.label, key.public.id).public == key.public
        assert refusal(backend.load, key.label, key.public.id).code == "RW-KEK"
    assert {mode(path) for path in folder.iterdir()} == {0o600}
    assert keys.reseal(folder, old=kek, new=words) == []
    assert len(keys.reseal(folder, old=words, new=kek)) == 3


@pytest.mark.parametrize(("flushes", "rest"), [(0, 4), (4, 2), (5, 1)], ids=["at-once", "file", "folder"])
def test_a_reseal_that_was_cut_off_is_finished_by_the_same_call(
    backend, folder, kek, tmp_path, monkeypatch, flushes, rest
):
    made = [backend.generate("issuing", KeyAlgorithm.P256) for _ in range(4)]
    keys.create_kek_file(tmp_path / "new")
    new = keys.kek_from_file(tmp_path / "new")
    fsync, left = os.fsync, iter(range(flushes))

    def full(descriptor):
        if next(left, None) is None:
            raise OSError(28, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    assert "No space left" in refusal(keys.reseal, folder, old=kek, new=new).detail
    monkeypatch.setattr(os, "fsync", fsync)
    assert len(os.listdir(folder)) == 4
    assert len(keys.reseal(folder, old=kek, new=new)) == rest
    again = keys.open_file(keys.KeySettings(folder=folder, kek=new))
    assert [again.load("issuing", key.public.id).public for key in made] == [key.public for key in made]


def test_a_reseal_with_a_wrong_old_kek_changes_nothing(backend, folder, tmp_path):
    backend.generate("issuing", KeyAlgorithm.P256)
    before = [path.read_bytes() for path in folder.iterdir()]
    for name in ("a", "b"):
        keys.create_kek_file(tmp_path / name)
    wrong, new = keys.kek_from_file(tmp_path / "a"), keys.kek_from_file(tmp_path / "b")
    assert refusal(keys.reseal, folder, old=wrong, new=new).code == "RW-KEK"
    assert [path.read_bytes() for path in folder.iterdir()] == before


def test_a_folder_under_a_passphrase_needs_nothing_else(folder):
    """What an offline root's folder is: taken to another machine, the passphrase alone opens it."""
    made = keys.open_file(
        keys.KeySettings(folder=folder, kek=keys.kek_from_passphrase("correct horse battery", CHEAP))
    ).generate("root", KeyAlgorithm.P384)
    fresh = keys.open_file(keys.KeySettings(folder=folder, kek=keys.kek_from_passphrase("correct horse battery")))
    assert fresh.load("root", made.public.id).public == made.public
