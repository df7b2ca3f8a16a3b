"""What every key backend does, over `BACKENDS` itself: a new row there is tested here without a line more."""

import contextlib
import copy
import json
import pickle
import traceback

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from rootward import keys
from rootward.core.problems import Problem
from rootward.core.pubkey import KeyAlgorithm, public_key_of
from rootward.core.signature import signature_of, verifies
from rootward.keys.backend import CRL_ROOM
from rootward.keys.key import PrivateKey
from tests.support.keystores import ASKED, KEYSTORES

MAKING = [name for name in keys.BACKENDS if name not in ASKED]  # whose keys are made here, and sign what they are given


@pytest.fixture(params=MAKING)
def store(request, tmp_path):
    with KEYSTORES[request.param](tmp_path) as made:
        yield request.param, made


@pytest.fixture
def backend(store):
    name, made = store
    return keys.BACKENDS[name](made.settings)


@pytest.fixture(scope="module", params=MAKING)
def shared_store(request, tmp_path_factory):
    """One keystore for the tests that only add to it: RSA keys take their time."""
    with KEYSTORES[request.param](tmp_path_factory.mktemp("keys")) as made:
        yield request.param, made


@pytest.fixture(scope="module")
def shared(shared_store):
    name, made = shared_store
    return keys.BACKENDS[name](made.settings)


@pytest.fixture(scope="module", params=KeyAlgorithm)
def made(request, shared):
    """A backend, and a key of one algorithm in it; skipped for the algorithms that it does not declare."""
    if request.param not in shared.algorithms:
        pytest.skip(f"{shared.name} has no {request.param}")
    return shared, shared.generate("issuing", request.param)


def code_of(call, *args):
    with pytest.raises(Problem) as caught:
        call(*args)
    return caught.value.code


def test_every_backend_has_a_keystore_to_be_tested_with():
    assert list(KEYSTORES) == list(keys.BACKENDS)


def test_the_registry_names_what_it_opens(store, backend):
    assert backend.name == store[0]
    assert backend.algorithms
    assert backend.algorithms <= set(KeyAlgorithm)
    assert backend.list() == []


def test_a_key_is_what_was_asked_for_and_signs(made):
    _, key = made
    signature = keys.sign_tbs(key, b"to be signed")
    assert verifies(key.public, signature, b"to be signed")
    assert not verifies(key.public, signature, b"to be signEd")
    assert key.label == "issuing"


def test_a_loaded_key_is_the_generated_one(made):
    backend, key = made
    loaded = backend.load("issuing", key.public.id)
    assert (loaded.public, loaded.label, loaded.slow) == (key.public, key.label, key.slow)
    assert verifies(key.public, keys.sign_tbs(loaded, b"after loading"), b"after loading")


def test_a_key_that_was_expected_is_the_loaded_one(made):
    backend, key = made
    expected = backend.expect("issuing", key.public)
    assert (expected.public, expected.label, expected.slow) == (key.public, key.label, key.slow)
    assert verifies(key.public, keys.sign_tbs(expected, b"expected"), b"expected")


def test_an_expected_key_that_is_another_signs_nothing(backend):
    other = ec.generate_private_key(ec.SECP256R1()).public_key()
    backend.generate("issuing", KeyAlgorithm.P256)
    with pytest.raises((Problem, keys.NotSigned)):
        keys.sign_tbs(backend.expect("issuing", public_key_of(other)), b"to be signed")


def test_an_rsa_key_signs_by_the_scheme_that_is_named_or_certainly_not(made):
    """RSA-PSS reaches every backend as padding and hash; one whose keys know one scheme alone refuses the other."""
    backend, key = made
    how = signature_of(key.public.algorithm, "pss")
    if how.pss is None:
        return
    if not backend.pss:
        with pytest.raises(keys.NotSigned):
            keys.sign_tbs(key, b"to be signed", how.identifier)
        return
    signature = keys.sign_tbs(key, b"to be signed", how.identifier)
    assert verifies(key.public, signature, b"to be signed", algorithm=how.identifier)
    assert not verifies(key.public, signature, b"to be signed")


def test_slow_keys_say_so(made):
    _, key = made
    assert key.slow or key.public.algorithm not in {KeyAlgorithm.RSA_3072, KeyAlgorithm.RSA_4096}


def test_the_algorithm_generated_is_the_one_asked_for(shared):
    for algorithm in (KeyAlgorithm.P256, KeyAlgorithm.P521, KeyAlgorithm.ED25519):
        if algorithm in shared.algorithms:
            assert shared.generate("other", algorithm).public.algorithm is algorithm


def test_a_message_up_to_the_limit_is_signed_and_a_larger_one_certainly_not(made):
    backend, key = made
    most = backend.max_message_of(key.public.algorithm)
    if most is None:
        message = bytes(3_000_000)  # a CRL with a hundred thousand entries
        assert verifies(key.public, keys.sign_tbs(key, message), message)
    else:
        assert verifies(key.public, keys.sign_tbs(key, bytes(most)), bytes(most))
        with pytest.raises(keys.NotSigned):
            keys.sign_tbs(key, bytes(most + 1))


def test_an_authority_that_could_not_sign_its_crl_is_refused_when_it_is_made(shared):
    for algorithm in KeyAlgorithm:
        most = shared.max_message_of(algorithm) if algorithm in shared.algorithms else 0
        if most is None or most >= CRL_ROOM:
            keys.check_fits(shared, algorithm)
        else:
            assert code_of(keys.check_fits, shared, algorithm) == "RW-KEY-TYPE"


def test_an_algorithm_that_the_backend_lacks_is_refused(backend, monkeypatch):
    monkeypatch.setattr(type(backend), "algorithms", frozenset({KeyAlgorithm.P256}))
    assert code_of(backend.generate, "issuing", KeyAlgorithm.P384) == "RW-KEY-TYPE"
    assert backend.list() == []


def test_two_keys_under_one_label_are_told_apart_by_their_id(backend):
    one, two = (backend.generate("issuing", KeyAlgorithm.P256) for _ in range(2))
    assert backend.load("issuing", one.public.id).public == one.public
    assert backend.load("issuing", two.public.id).public == two.public
    assert backend.list() == sorted([("issuing", one.public.id), ("issuing", two.public.id)])


def test_a_key_that_is_not_there_is_missing(backend):
    key = backend.generate("issuing", KeyAlgorithm.P256)
    assert code_of(backend.load, "issuing", "0" * 64) == "RW-KEY-MISSING"
    assert code_of(backend.load, "other", key.public.id) == "RW-KEY-MISSING"
    assert code_of(backend.delete, "other", key.public.id) == "RW-KEY-MISSING"
    assert backend.list() == [("issuing", key.public.id)]


def test_an_id_that_only_begins_alike_is_another_key(backend):
    key = backend.generate("issuing", KeyAlgorithm.P256)
    alike = key.public.id[:16] + "0" * 48
    assert code_of(backend.load, "issuing", alike) in {"RW-KEY-MISSING", "RW-KEY-MISMATCH"}
    assert code_of(backend.delete, "issuing", alike) in {"RW-KEY-MISSING", "RW-KEY-MISMATCH"}
    assert backend.load("issuing", key.public.id).public == key.public


def test_a_deleted_key_is_gone_and_the_others_stay(backend):
    one, two = (backend.generate("issuing", KeyAlgorithm.P256) for _ in range(2))
    backend.delete("issuing", one.public.id)
    assert code_of(backend.load, "issuing", one.public.id) == "RW-KEY-MISSING"
    assert code_of(backend.delete, "issuing", one.public.id) == "RW-KEY-MISSING"
    assert backend.list() == [("issuing", two.public.id)]


@pytest.mark.parametrize("label", ["", "A", "a" * 65, "../x", "a/b", "a.b", "a\n", "a\0", "ä", "a b"])
def test_a_label_that_is_no_file_name_is_refused(backend, label):
    assert code_of(backend.generate, label, KeyAlgorithm.P256) == "RW-FIELD"
    assert code_of(backend.load, label, "0" * 64) == "RW-FIELD"
    assert code_of(backend.delete, label, "0" * 64) == "RW-FIELD"


@pytest.mark.parametrize("public_id", ["", "0" * 63, "0" * 65, "A" * 64, "../" * 21 + "0", "0" * 64 + "\n"])
def test_an_id_that_is_no_hash_is_refused(backend, public_id):
    assert code_of(backend.load, "issuing", public_id) == "RW-FIELD"
    assert code_of(backend.delete, "issuing", public_id) == "RW-FIELD"


@pytest.mark.parametrize("label", ["a", "0", "-", "a" * 64, "ocsp-issuing", "tls"])
def test_every_label_of_the_form_works(backend, label):
    key = backend.generate(label, KeyAlgorithm.P256)
    assert backend.list() == [(label, key.public.id)]
    assert backend.load(label, key.public.id).public == key.public


def secrets_of(key):
    """The private key in the forms in which it could leak; none where it is elsewhere."""
    private = key._private
    try:
        forms = [private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())]
    except NotImplementedError:
        assert key.slow
        return []
    if hasattr(private, "private_bytes_raw"):
        forms.append(private.private_bytes_raw())
    else:
        numbers = private.private_numbers()
        value = numbers.private_value if hasattr(numbers, "private_value") else numbers.p
        forms += [str(value).encode(), value.to_bytes((value.bit_length() + 7) // 8, "big")]
    return forms


@pytest.mark.invariant("I-35")
def test_a_key_shows_nothing_of_itself(made, shared_store):
    backend, key = made
    try:
        keys.sign_tbs(key, None)
    except Exception as error:  # noqa: BLE001 - whatever it is: its text and locals must be clean
        trace = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    shown = " ".join([repr(key), str(key), f"{key}", trace, repr([getattr(key, name) for name in dir(key)])])
    shown += repr(backend) + repr(shared_store[1].settings)
    assert "issuing" in shown
    for form in [*secrets_of(key), *shared_store[1].secrets]:
        assert repr(form)[2:-1] not in shown
        assert form.hex() not in shown
        assert "BEGIN" not in shown


@pytest.mark.invariant("I-35")
@pytest.mark.parametrize(
    "leak",
    [pickle.dumps, copy.copy, copy.deepcopy, json.dumps, msgspec.json.encode, vars],
    ids=["pickle", "copy", "deepcopy", "json", "msgspec", "vars"],
)
def test_a_key_cannot_be_copied_or_written_out(backend, leak):
    with pytest.raises(TypeError):
        leak(backend.generate("issuing", KeyAlgorithm.P256))


@pytest.mark.invariant("I-38")
def test_a_key_can_do_nothing_by_itself(made):
    _, key = made
    public = [name for name in dir(key) if not name.startswith("_")]
    assert public == ["decides", "label", "public", "slow"]
    assert not any(isinstance(getattr(key, name), PrivateKey) or callable(getattr(key, name)) for name in public)
    for name in public:
        with pytest.raises(AttributeError):
            setattr(key, name, None)


# A key that is asked: what it promises instead


@pytest.fixture(scope="module", params=sorted(ASKED))
def asked(request, tmp_path_factory):
    """(its name, the keystore, the backend); one key `issuing` is in it."""
    with (
        KEYSTORES[request.param](tmp_path_factory.mktemp("asked")) as made,
        contextlib.closing(keys.BACKENDS[request.param](made.settings)) as backend,
    ):
        yield request.param, made, backend


def test_a_backend_that_is_asked_names_itself_and_lists_what_is_held_elsewhere(asked):
    name, _, backend = asked
    assert backend.name == name
    assert backend.algorithms <= set(KeyAlgorithm)
    ((label, key_id),) = backend.list()
    assert label == "issuing"
    key = backend.load(label, key_id)
    assert (key.label, key.public.id, key.slow) == (label, key_id, True)
    assert backend.expect(label, key.public).public == key.public


@pytest.mark.invariant("I-38")
def test_a_key_that_is_asked_signs_no_plain_bytes(asked):
    backend = asked[2]
    key = backend.load(*backend.list()[0])
    for message in (b"to be signed", b"", bytes(3_000_000), b"\x30\x03\x02\x01\x01"):
        with pytest.raises(keys.NotSigned):
            keys.sign_tbs(key, message)


def test_a_backend_that_is_asked_makes_no_keys_and_destroys_none(asked):
    backend = asked[2]
    ((label, key_id),) = backend.list()
    assert code_of(backend.generate, "other", KeyAlgorithm.P256) == "RW-CONFLICT"
    assert code_of(backend.delete, label, key_id) == "RW-CONFLICT"
    assert backend.list() == [(label, key_id)]


def test_what_a_backend_that_is_asked_does_not_hold_is_missing(asked):
    backend = asked[2]
    ((label, key_id),) = backend.list()
    for wanted in ((label, "0" * 64), ("other", key_id), (label, key_id[:16] + "0" * 48)):
        assert code_of(backend.load, *wanted) == "RW-KEY-MISSING"
        assert code_of(backend.delete, *wanted) == "RW-KEY-MISSING"
    assert code_of(backend.load, "../x", key_id) == "RW-FIELD"
    assert code_of(backend.load, label, "../x") == "RW-FIELD"
    assert code_of(backend.generate, "../x", KeyAlgorithm.P256) == "RW-FIELD"


def test_another_key_than_the_held_one_is_refused_when_it_is_asked(asked):
    backend = asked[2]
    other = public_key_of(ec.generate_private_key(ec.SECP256R1()).public_key())
    with pytest.raises(keys.NotSigned):
        keys.sign_tbs(backend.expect("issuing", other), b"to be signed")


@pytest.mark.invariant("I-35")
def test_a_key_that_is_asked_shows_nothing_of_what_opens_it(asked):
    _, made, backend = asked
    key = backend.load(*backend.list()[0])
    try:
        keys.sign_tbs(key, b"to be signed")
    except keys.NotSigned as error:
        trace = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    shown = " ".join([repr(key), trace, repr(backend), repr(made.settings)])
    assert "issuing" in shown
    for secret in made.secrets:
        assert secret.decode() not in shown
    for leak in (pickle.dumps, copy.copy, copy.deepcopy, json.dumps, vars):
        with pytest.raises(TypeError):
            leak(key)
    assert [name for name in dir(key) if not name.startswith("_")] == ["decides", "label", "public", "slow"]
    with pytest.raises(TypeError):
        keys.tls_private(key)


@pytest.mark.parametrize("uri", ["", "unix:", "unix:relative", "/run/signer.sock", "tcp://127.0.0.1:1"])
def test_a_signers_uri_is_an_absolute_socket(uri):
    assert code_of(keys.open_signer, keys.KeySettings(store="vault", uri=uri)) == "RW-CONFIG"


def test_a_signer_that_is_away_is_unavailable_and_nothing_was_signed(tmp_path):
    backend = keys.open_signer(keys.KeySettings(store="vault", uri=f"unix:{tmp_path}/nobody.sock"))
    assert code_of(backend.list) == "RW-KEY-UNAVAILABLE"
    assert code_of(backend.load, "issuing", "0" * 64) == "RW-KEY-UNAVAILABLE"
    public = public_key_of(ec.generate_private_key(ec.SECP256R1()).public_key())
    with pytest.raises(keys.NotSigned):
        keys.sign_tbs(backend.expect("issuing", public), b"\x30\x03\x02\x01\x01")
