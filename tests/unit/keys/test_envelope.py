"""The envelope: it gives the key back to who may have it, and notices every change."""

import base64
import json

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, mldsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)
from hypothesis import given
from hypothesis import strategies as st

from rootward import keys
from rootward.core.problems import Problem
from rootward.core.pubkey import public_key_of
from rootward.keys import envelope
from rootward.keys.kek import _KeyKek

SECRET = bytes(range(32))
KEK = _KeyKek(SECRET)
OTHER = _KeyKek(bytes(32))
WORDS = keys.kek_from_passphrase("correct horse battery", keys.Argon2(memory_kib=8 * 1024, passes=1, lanes=1))
PRIVATE = ec.derive_private_key(12345, ec.SECP256R1())
ID = public_key_of(PRIVATE.public_key()).id
SEALED = envelope.seal(PRIVATE, label="issuing", kek=KEK)


def pkcs8(private):
    return private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


def opened(data, *, label="issuing", public_id=ID, kek=KEK):
    return envelope.unseal(data, label=label, public_id=public_id, kek=kek)


def refusal(data, **how):
    with pytest.raises(Problem) as caught:
        opened(data, **how)
    return caught.value


def rewritten(**fields):
    """The sealed file with other header fields, in its canonical form."""
    line, body, _ = SEALED.split(b"\n")
    header = json.loads(line)
    header.update(fields)
    return json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode() + b"\n" + body + b"\n"


def resealed(inside, *, secret=SECRET):
    """A file with our KEK and a true tag around any bytes: what a holder of the KEK could make."""
    line, _, _ = SEALED.split(b"\n")
    header = json.loads(line)
    own = HKDF(hashes.SHA256(), 32, bytes.fromhex(header["salt"]), b"rootward key file 1").derive(secret)
    sealed = AESGCM(own).encrypt(bytes.fromhex(header["nonce"]), inside, line)
    return line + b"\n" + base64.b64encode(sealed) + b"\n"


@pytest.mark.parametrize("kek", [KEK, WORDS], ids=["key", "passphrase"])
def test_what_was_sealed_comes_back(kek):
    data = envelope.seal(PRIVATE, label="issuing", kek=kek)
    assert pkcs8(opened(data, kek=kek)) == pkcs8(PRIVATE)


def test_the_format_is_the_documented_one():
    """Opened here step by step, with nothing of the module: a file must be readable without this program."""
    line, body, end = SEALED.split(b"\n")
    header = json.loads(line)
    assert end == b""
    assert list(header) == ["format", "version", "label", "public_id", "algorithm", "cipher", "salt", "nonce", "kek"]
    assert (header["format"], header["version"], header["cipher"]) == ("rootward-key", 1, "aes-256-gcm")
    assert (header["label"], header["public_id"], header["algorithm"]) == ("issuing", ID, "p256")
    assert header["kek"] == {"source": "key", "id": KEK.id}
    own = HKDF(hashes.SHA256(), 32, bytes.fromhex(header["salt"]), b"rootward key file 1").derive(SECRET)
    inside = AESGCM(own).decrypt(bytes.fromhex(header["nonce"]), base64.b64decode(body), line)
    assert load_der_private_key(inside, None).private_numbers() == PRIVATE.private_numbers()


def test_two_envelopes_of_one_key_share_no_salt_nonce_or_ciphertext():
    files = [envelope.seal(PRIVATE, label="issuing", kek=KEK) for _ in range(50)]
    headers = [json.loads(data.split(b"\n")[0]) for data in files]
    for values in ([h["salt"] for h in headers], [h["nonce"] for h in headers], [d.split(b"\n")[1] for d in files]):
        assert len(set(values)) == 50


def test_every_changed_byte_is_noticed():
    for at in range(len(SEALED)):
        for flip in (0x01, 0x20, 0x80):
            changed = bytearray(SEALED)
            changed[at] ^= flip
            assert refusal(bytes(changed)).code in {"RW-KEY-FILE", "RW-KEY-MISMATCH", "RW-KEK"}


def test_a_torn_or_lengthened_file_is_noticed():
    for size in range(len(SEALED)):
        assert refusal(SEALED[:size]).code == "RW-KEY-FILE"
    for more in (b"\n", b" ", b"\0", SEALED, b"AAAA\n"):
        assert refusal(SEALED + more).code == "RW-KEY-FILE"
        assert refusal(more + SEALED).code == "RW-KEY-FILE"


def test_a_changed_byte_inside_is_told_from_a_wrong_kek():
    line, body, _ = SEALED.split(b"\n")
    inside = bytearray(base64.b64decode(body))
    inside[0] ^= 1
    tampered = refusal(line + b"\n" + base64.b64encode(inside) + b"\n")
    assert (tampered.code, "changed or damaged" in tampered.detail) == ("RW-KEY-FILE", True)
    wrong = refusal(SEALED, kek=OTHER)
    assert wrong.code == "RW-KEK"
    assert KEK.id in wrong.detail
    assert OTHER.id in wrong.detail


def test_a_kek_id_that_was_written_over_does_not_make_the_kek_right():
    forged = rewritten(kek={"source": "key", "id": OTHER.id})
    assert refusal(forged, kek=OTHER).code == "RW-KEY-FILE"


@pytest.mark.parametrize(
    "swapped",
    [{"label": "root"}, {"public_id": "0" * 64}, {"algorithm": "p384"}, {"salt": "0" * 32}, {"nonce": "0" * 24}],
    ids=str,
)
def test_a_header_field_that_was_swapped_is_noticed_by_the_tag(swapped):
    """Asked for by the swapped name, so that only the associated data stands in the way."""
    how = {name: value for name, value in swapped.items() if name in {"label", "public_id"}}
    assert refusal(rewritten(**swapped), **how).code == "RW-KEY-FILE"


def test_another_label_or_public_key_than_asked_for_is_a_mismatch():
    assert refusal(SEALED, label="root").code == "RW-KEY-MISMATCH"
    assert refusal(SEALED, public_id=ID[:16] + "0" * 48).code == "RW-KEY-MISMATCH"


@pytest.mark.parametrize(
    "inside",
    [
        pkcs8(ec.derive_private_key(54321, ec.SECP256R1())),
        pkcs8(ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32))),
        pkcs8(mldsa.MLDSA44PrivateKey.from_seed_bytes(bytes(32))),
        pkcs8(dsa.generate_private_key(2048)),
    ],
    ids=["p256", "ed25519", "ml-dsa-44", "dsa"],
)
def test_another_key_inside_is_a_mismatch_even_with_a_true_tag(inside):
    assert refusal(resealed(inside)).code == "RW-KEY-MISMATCH"
    assert pkcs8(opened(resealed(pkcs8(PRIVATE)))) == pkcs8(PRIVATE)


@pytest.mark.parametrize(
    "inside", [b"", b"\x30\x00", b"\x30" * 5000, pkcs8(PRIVATE)[:-1]], ids=["none", "der", "deep", "torn"]
)
def test_no_key_inside_is_said(inside):
    assert refusal(resealed(inside)).code == "RW-KEY-FILE"


@pytest.mark.parametrize(
    "cost",
    [
        {"memory_kib": 1024 * 1024 + 1},
        {"memory_kib": 2**62},
        {"memory_kib": 2**70},
        {"memory_kib": -1},
        {"memory_kib": 1},
        {"memory_kib": "65536"},
        {"memory_kib": 65536.5},
        {"passes": 0},
        {"passes": 17},
        {"lanes": 0},
        {"lanes": 17},
        {"salt": ""},
        {"salt": "0" * 33},
        {"id": "x" * 16},
        {"more": 1},
    ],
    ids=str,
)
def test_a_header_cannot_make_argon2_cost_more_than_its_bounds(cost, monkeypatch):
    monkeypatch.setattr("rootward.keys.kek.hash_secret_raw", lambda *_args, **_more: pytest.fail("Argon2 was run"))
    honest = {"source": "argon2id", "id": "0" * 16, "salt": "0" * 32, "memory_kib": 65536, "passes": 3, "lanes": 4}
    assert refusal(rewritten(kek=honest | cost), kek=WORDS).code == "RW-KEY-FILE"


@pytest.mark.parametrize(
    "swapped",
    [
        {"format": "other"},
        {"version": 2},
        {"version": True},
        {"cipher": "aes-128-gcm"},
        {"cipher": "none"},
        {"algorithm": "rsa-1024"},
        {"label": "A"},
        {"label": "a\n"},
        {"salt": ""},
        {"nonce": "0" * 22},
        {"kek": {"source": "none"}},
        {"kek": None},
        {"more": 1},
    ],
    ids=str,
)
def test_a_header_of_another_form_is_refused(swapped):
    assert refusal(rewritten(**swapped)).code == "RW-KEY-FILE"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        b"-----BEGIN PRIVATE KEY-----\n",
        pkcs8(PRIVATE),
        b"[" * 60_000,
        b'{"kek":' + b"[" * 60_000,
        b'{"kek":{"a":' + b"[" * 60_000,
        SEALED.replace(b'"kek"', b'"label":"issuing","kek"'),
        SEALED.replace(b'":"', b'": "'),
        SEALED.replace(b"\n", b"\r\n"),
        SEALED.replace(b'"rootward-key"', b'"rootward\\u002dkey"'),
        SEALED + b"A" * envelope.LARGEST,
    ],
    ids=["empty", "newline", "pem", "der", "deep", "deep-kek", "deep-tag", "twice", "space", "crlf", "escape", "huge"],
)
def test_what_is_no_canonical_key_file_is_refused(data):
    assert refusal(data).code == "RW-KEY-FILE"
    with pytest.raises(Problem, match="RW-KEY-FILE"):
        envelope.read_header(data)  # without a KEK, where no tag helps


@given(st.binary(max_size=300), st.integers(0, len(SEALED)), st.integers(0, len(SEALED)))
def test_nothing_but_a_problem_comes_of_any_bytes(noise, start, end):
    data = SEALED[:start] + noise + SEALED[end:]
    if data != SEALED:
        assert refusal(data).code in {"RW-KEY-FILE", "RW-KEY-MISMATCH", "RW-KEK"}


def test_a_label_that_is_none_is_not_sealed():
    with pytest.raises(Problem, match="RW-FIELD"):
        envelope.seal(PRIVATE, label="../issuing", kek=KEK)


@pytest.mark.invariant("I-35")
def test_nothing_of_the_key_is_in_the_envelope():
    value = PRIVATE.private_numbers().private_value.to_bytes(32, "big")
    for data in (SEALED, base64.b64decode(SEALED.split(b"\n")[1])):
        for form in (pkcs8(PRIVATE)[:30], value, value[-4:], value.hex().encode(), SECRET, SECRET.hex().encode()):
            assert form not in data
            assert base64.b64encode(form) not in data
