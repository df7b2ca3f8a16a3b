"""Where a KEK comes from: each source, and each way in which it can be wrong."""

import copy
import os
import pickle
import stat
import unicodedata

import pytest

from rootward import keys
from rootward.core.problems import Problem
from rootward.keys.kek import ByKey, ByPassphrase

LINE = b"00112233445566778899aabbccddeeff" * 2
CHEAP = keys.Argon2(memory_kib=8 * 1024, passes=1, lanes=1)
WORDS = "correct horse battery"


def refusal(call, *args):
    with pytest.raises(Problem) as caught:
        call(*args)
    assert caught.value.code == "RW-KEK"
    return caught.value.detail


def put(path, data, mode=0o400):
    path.write_bytes(data)
    path.chmod(mode)
    return path


def same(one, other):
    """Whether two KEKs are the same key, which neither shows."""
    wrap, own = one.wrap(b"salt", b"info")
    return other.unwrap(wrap, b"salt", b"info") == own


def test_a_created_file_is_a_kek_and_each_is_another(tmp_path):
    for name in ("a", "b"):
        keys.create_kek_file(tmp_path / name)
    one, two = keys.kek_from_file(tmp_path / "a"), keys.kek_from_file(tmp_path / "b")
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o400
    assert one.id != two.id
    assert same(one, keys.kek_from_file(tmp_path / "a"))
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


def test_the_id_is_fixed_by_the_key_for_ever(tmp_path):
    # A known answer, computed with OpenSSL's HKDF: ids stand in files, so they must not change with a version.
    assert keys.kek_from_file(put(tmp_path / "kek", LINE)).id == "53890f99064f2526"


def test_an_existing_file_is_never_overwritten(tmp_path):
    put(tmp_path / "kek", LINE)
    assert "already" in refusal(keys.create_kek_file, tmp_path / "kek")
    assert (tmp_path / "kek").read_bytes() == LINE
    assert os.listdir(tmp_path) == ["kek"]


def test_a_place_that_cannot_be_written_is_said(tmp_path):
    assert "cannot be written" in refusal(keys.create_kek_file, tmp_path / "none" / "kek")


@pytest.mark.parametrize("mode", [0o400, 0o600])
@pytest.mark.parametrize("end", [b"", b"\n"], ids=["bare", "newline"])
def test_a_file_that_only_we_can_read_is_taken(tmp_path, mode, end):
    assert same(
        keys.kek_from_file(put(tmp_path / "a", LINE + end, mode)), keys.kek_from_file(put(tmp_path / "b", LINE))
    )


@pytest.mark.parametrize("mode", [0o440, 0o404, 0o644, 0o660, 0o602, 0o700, 0o777])
def test_a_file_that_others_can_get_at_is_refused_with_the_mending_command(tmp_path, mode):
    path = put(tmp_path / "kek", LINE, mode)
    detail = refusal(keys.kek_from_file, path)
    command = detail.rpartition("Run: ")[2].replace('"', "").split()
    assert command[0] == "chmod"
    path.chmod(int(command[1], 8))
    assert keys.kek_from_file(path).id


def test_somebody_elses_file_is_refused(tmp_path, monkeypatch):
    path = put(tmp_path / "kek", LINE)
    monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
    assert "chown" in refusal(keys.kek_from_file, path)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        LINE[:-1],
        LINE + b"0",
        LINE.upper(),
        LINE + b"\n\n",
        b" " + LINE,
        LINE + b"\r\n",
        bytes(32),
        b"0" * 2000,
    ],
    ids=["empty", "newline", "short", "long", "upper", "two-newlines", "space", "crlf", "binary", "huge"],
)
def test_a_file_of_another_form_is_refused_and_not_shown(tmp_path, data):
    detail = refusal(keys.kek_from_file, put(tmp_path / "kek", data))
    assert "001122" not in detail


def test_a_missing_file_a_folder_and_a_fifo_are_refused_at_once(tmp_path):
    assert "no key-encryption key" in refusal(keys.kek_from_file, tmp_path / "none")
    assert "not a regular file" in refusal(keys.kek_from_file, tmp_path)
    os.mkfifo(tmp_path / "fifo", 0o600)
    assert "not a regular file" in refusal(keys.kek_from_file, tmp_path / "fifo")


@pytest.mark.parametrize("mode", [0o400, 0o440])
def test_a_systemd_credential_is_taken(tmp_path, mode):
    put(tmp_path / "kek", LINE + b"\n", mode)
    found = keys.kek_from_credential("kek", {"CREDENTIALS_DIRECTORY": str(tmp_path)})
    assert same(found, keys.kek_from_file(put(tmp_path / "file", LINE)))


@pytest.mark.parametrize("mode", [0o444, 0o460, 0o402])
def test_a_credential_that_anybody_can_read_or_write_is_refused(tmp_path, mode):
    put(tmp_path / "kek", LINE, mode)
    refusal(keys.kek_from_credential, "kek", {"CREDENTIALS_DIRECTORY": str(tmp_path)})


@pytest.mark.parametrize("name", ["", "..", ".", "../kek", "a/b", "a\0", "/etc/passwd", "kek\n"])
def test_a_credential_name_cannot_leave_the_folder(tmp_path, name):
    put(tmp_path / "kek", LINE)
    assert "name" in refusal(keys.kek_from_credential, name, {"CREDENTIALS_DIRECTORY": str(tmp_path / "x")})


@pytest.mark.parametrize("environ", [{}, {"CREDENTIALS_DIRECTORY": ""}, {"CREDENTIALS_DIRECTORY": "relative"}], ids=str)
def test_without_systemd_the_unit_line_is_said(environ):
    assert "LoadCredential=kek:" in refusal(keys.kek_from_credential, "kek", environ)


def test_a_missing_credential_is_said(tmp_path):
    assert "LoadCredential=" in refusal(keys.kek_from_credential, "kek", {"CREDENTIALS_DIRECTORY": str(tmp_path)})


@pytest.mark.invariant("I-35")
def test_no_variable_of_the_environment_can_hold_the_key():
    values = {name: LINE.decode() for name in ("kek", "KEK", "ROOTWARD_KEK", "CREDENTIALS_DIRECTORY")}
    refusal(keys.kek_from_credential, "kek", values)


@pytest.mark.parametrize("wrong", [WORDS + "!", "C" + WORDS[1:], WORDS + " ", WORDS[:-1]])
def test_a_passphrase_opens_what_it_sealed_and_no_other_does(wrong):
    sealed = keys.kek_from_passphrase(WORDS, CHEAP)
    assert same(sealed, keys.kek_from_passphrase(WORDS))
    assert "passphrase is not" in refusal(same, sealed, keys.kek_from_passphrase(wrong))


def test_each_file_under_a_passphrase_has_its_own_salt():
    kek = keys.kek_from_passphrase(WORDS, CHEAP)
    wraps = [kek.wrap(b"salt", b"info") for _ in range(2)]
    assert wraps[0][0].salt != wraps[1][0].salt
    assert wraps[0][1] != wraps[1][1]


def test_the_default_cost_is_the_second_recommended_option_of_rfc_9106():
    assert keys.Argon2() == keys.Argon2(memory_kib=65536, passes=3, lanes=4)


def test_accents_typed_in_another_way_are_the_same_passphrase():
    text = "Grüße aus Zürich"
    one, two = (keys.kek_from_passphrase(unicodedata.normalize(form, text), CHEAP) for form in ("NFC", "NFD"))
    assert same(one, two)


@pytest.mark.parametrize("passphrase", ["", "short", "elevenchars", "surrogate \ud800 inside"])
def test_a_poor_passphrase_is_refused(passphrase):
    assert passphrase not in refusal(keys.kek_from_passphrase, passphrase, CHEAP) or not passphrase


@pytest.mark.parametrize(
    "cost",
    [
        keys.Argon2(memory_kib=1024),
        keys.Argon2(memory_kib=1024 * 1024 + 1),
        keys.Argon2(passes=0),
        keys.Argon2(passes=17),
        keys.Argon2(lanes=0),
        keys.Argon2(lanes=17),
    ],
    ids=str,
)
def test_a_cost_that_no_file_may_have_is_refused(cost):
    assert "Argon2id" in refusal(keys.kek_from_passphrase, WORDS, cost)


def test_a_created_passphrase_is_taken_from_its_file(tmp_path):
    keys.create_passphrase_file(tmp_path / "passphrase")
    text = (tmp_path / "passphrase").read_text()
    assert stat.S_IMODE((tmp_path / "passphrase").stat().st_mode) == 0o400
    assert len(text.strip().replace("-", "")) == 32
    assert keys.kek_from_passphrase_file(tmp_path / "passphrase").id == "passphrase"
    # Typed from paper, without the newline, it is the same.
    typed = keys.kek_from_passphrase(text.strip())
    assert same(keys.kek_from_passphrase_file(tmp_path / "passphrase"), typed)


def test_a_passphrase_file_that_is_missing_open_to_others_or_no_text_is_refused(tmp_path):
    assert "no passphrase" in refusal(keys.kek_from_passphrase_file, tmp_path / "none")
    assert "chmod" in refusal(keys.kek_from_passphrase_file, put(tmp_path / "open", WORDS.encode(), 0o644))
    assert "UTF-8" in refusal(keys.kek_from_passphrase_file, put(tmp_path / "binary", b"\xff" * 20))


def test_a_key_and_a_passphrase_are_told_apart(tmp_path):
    key, words = keys.kek_from_file(put(tmp_path / "kek", LINE)), keys.kek_from_passphrase(WORDS, CHEAP)
    assert "passphrase was given" in refusal(same, key, words)
    assert "sealed with a passphrase" in refusal(same, words, key)


def test_a_wrong_key_is_named_by_both_ids(tmp_path):
    one = keys.kek_from_file(put(tmp_path / "a", LINE))
    two = keys.kek_from_file(put(tmp_path / "b", LINE[::-1]))
    detail = refusal(same, one, two)
    assert one.id in detail
    assert two.id in detail


@pytest.mark.invariant("I-35")
def test_a_kek_shows_nothing_and_cannot_be_copied(tmp_path):
    for kek in (keys.kek_from_file(put(tmp_path / "kek", LINE)), keys.kek_from_passphrase(WORDS, CHEAP)):
        shown = repr(kek) + str(kek) + repr(kek.wrap(b"salt", b"info")[0])
        assert kek.id in shown
        assert "horse" not in shown
        assert "001122" not in shown
        for leak in (pickle.dumps, copy.copy, copy.deepcopy, vars):
            with pytest.raises(TypeError):
                leak(kek)


@pytest.mark.invariant("I-35")
def test_the_id_in_a_header_is_no_part_of_the_key(tmp_path):
    wrap, own = keys.kek_from_file(put(tmp_path / "kek", LINE)).wrap(b"salt", b"info")
    assert isinstance(wrap, ByKey)
    assert wrap.id.encode() not in LINE
    assert wrap.id not in own.hex()
    words, own = keys.kek_from_passphrase(WORDS, CHEAP).wrap(b"salt", b"info")
    assert isinstance(words, ByPassphrase)
    assert words.id not in own.hex()
