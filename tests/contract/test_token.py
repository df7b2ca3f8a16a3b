"""What is special about keys in a PKCS#11 token, in SoftHSM; what all backends do is in `test_keys.py`."""

from __future__ import annotations

import _ctypes
import contextlib
import ctypes
import ssl
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from pkcs11 import Attribute, ObjectClass
from pkcs11.exceptions import (
    DeviceError,
    FunctionRejected,
    PinIncorrect,
    PinInvalid,
    PinLenRange,
    PinLocked,
    SessionHandleInvalid,
)

from rootward import keys
from rootward.core.problems import Problem
from rootward.core.pubkey import KeyAlgorithm, PublicKey, public_key_of
from rootward.core.signature import verifies
from rootward.keys import Backend, Key, KeySettings, NotSigned, cryptoki, open_pkcs11, sign_tbs, token_objects
from rootward.keys.disk import write_new
from rootward.keys.pin import pin_file, pin_prompt
from rootward.keys.token import TokenBackend
from rootward.keys.token_uri import parse_token_uri
from tests.support.cloud import tls_pair
from tests.support.programs import run
from tests.support.shim import shimmed
from tests.support.softhsm import MODULE, PIN, SoftToken, pin, soft_token

P256 = KeyAlgorithm.P256


@pytest.fixture
def token() -> Iterator[SoftToken]:
    with soft_token() as made:
        yield made


@pytest.fixture
def backend(token: SoftToken) -> Backend:
    return open_pkcs11(token.settings)


@pytest.fixture(autouse=True)
def no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module is started again as often as it is asked for."""
    monkeypatch.setattr(cryptoki, "RESTART_SECONDS", 0.0)


def signs(key: Key, message: bytes = b"to be signed") -> bool:
    return verifies(key.public, sign_tbs(key, message), message)


def refusal(call: Callable[..., object], *arguments: object) -> Problem:
    with pytest.raises(Problem) as caught:
        call(*arguments)
    return caught.value


def tool(token: SoftToken, *words: str, login: bool = True) -> str:
    """pkcs11-tool's output."""
    known = ("--module", str(MODULE), "--token-label", token.label)
    return run(
        "pkcs11-tool", *known, *(("--login", "--pin", PIN) if login else ()), *words, env=token.environment
    ).stdout


def change(token: SoftToken, label: str, **values: object) -> None:
    """Change attributes of the private object under a label."""
    with token.open().session(write=True) as session:
        (one,) = session.open.get_objects({Attribute.CLASS: ObjectClass.PRIVATE_KEY, Attribute.LABEL: label})
        for name, value in values.items():
            one[getattr(Attribute, name)] = value


def found(backend: Backend, label: str) -> list[str]:
    return [public_id for one, public_id in backend.list() if one == label]


def connected(folder: Path) -> ssl.SSLObject:
    """The client's end of a TLS connection that nobody writes to."""
    made = folder / "made.pem"
    made.write_bytes(b"".join(tls_pair("a.internal")))
    serving, asking = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context(cafile=str(made))
    serving.load_cert_chain(made)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = serving.wrap_bio(to_server, to_client, server_side=True)
    client = asking.wrap_bio(to_client, to_server, server_hostname="a.internal")
    for end in (client, server, client, server):
        with contextlib.suppress(ssl.SSLWantReadError):
            end.do_handshake()
    return client


# ── what is made ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_key_is_made_inside_to_sign_and_never_to_leave(token: SoftToken, backend: Backend) -> None:
    key = backend.generate("issuing", P256)
    seen = tool(token, "--list-objects", "--type", "privkey", "--label", "issuing")
    assert f"ID:         {key.public.id}" in seen
    assert "Usage:      sign\n" in seen
    assert "Access:     sensitive, always sensitive, never extractable, local" in seen
    beside = tool(token, "--list-objects", "--type", "pubkey", "--label", "issuing")
    assert f"ID:         {key.public.id}" in beside


def test_tls_in_the_same_thread_hears_nothing_of_a_module_s_errors(backend: Backend, tmp_path: Path) -> None:
    client = connected(tmp_path)
    with pytest.raises(ssl.SSLWantReadError):
        client.read()
    backend.generate("issuing", P256)
    with pytest.raises(ssl.SSLWantReadError):
        client.read()


def test_rsa_signs_with_either_padding(backend: Backend) -> None:
    key = backend.generate("issuing", KeyAlgorithm.RSA_2048)
    assert signs(key)
    for digest in (hashes.SHA256(), hashes.SHA384(), hashes.SHA512()):
        pss = padding.PSS(padding.MGF1(digest), digest.digest_size)
        private = key._private
        assert isinstance(private, rsa.RSAPrivateKey)
        private.public_key().verify(private.sign(b"message", pss, digest), b"message", pss, digest)
        pkcs1 = padding.PKCS1v15()
        private.public_key().verify(private.sign(b"message", pkcs1, digest), b"message", pkcs1, digest)


@pytest.mark.parametrize("algorithm", [P256, KeyAlgorithm.ED25519])
def test_a_crl_of_a_million_entries_is_signed(backend: Backend, algorithm: KeyAlgorithm) -> None:
    keys.check_fits(backend, algorithm)
    assert signs(backend.generate("issuing", algorithm), bytes(40_000_000))


def test_ed25519_in_a_token_that_is_not_known_to_take_long_messages_is_refused(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rootward.keys.token._TAKES_ANY", frozenset[str]())
    assert "signs 2048 bytes at most" in refusal(keys.check_fits, backend, KeyAlgorithm.ED25519).detail
    keys.check_fits(backend, P256)
    key = backend.generate("issuing", KeyAlgorithm.ED25519)
    with pytest.raises(NotSigned):
        sign_tbs(key, bytes(2049))
    assert signs(key, bytes(2048))


# ── what is refused ───────────────────────────────────────────────────────────────────────────────────────────────


def make_with_tool(token: SoftToken, *words: str) -> None:
    tool(token, "--keypairgen", "--key-type", "EC:prime256v1", "--label", "issuing", "--id", "01", *words)


@pytest.mark.invariant("I-61")
@pytest.mark.parametrize(
    ("words", "why"),
    [(("--extractable", "--sensitive"), "CKA_EXTRACTABLE"), (("--extractable",), "CKA_EXTRACTABLE")],
)
def test_an_extractable_key_is_refused(token: SoftToken, backend: Backend, words: tuple[str, ...], why: str) -> None:
    make_with_tool(token, *words)
    (public_id,) = found(backend, "issuing")
    problem = refusal(backend.load, "issuing", public_id)
    assert problem.code == "RW-KEY-EXTRACTABLE"
    assert why in problem.detail


@pytest.mark.invariant("I-61")
def test_a_key_that_was_extractable_once_is_refused(token: SoftToken, backend: Backend) -> None:
    make_with_tool(token, "--extractable", "--sensitive")
    change(token, "issuing", EXTRACTABLE=False)
    (public_id,) = found(backend, "issuing")
    problem = refusal(backend.load, "issuing", public_id)
    assert problem.code == "RW-KEY-EXTRACTABLE"
    assert "CKA_NEVER_EXTRACTABLE" in problem.detail
    backend.delete("issuing", public_id)  # which is what one does with it
    assert backend.list() == []


@pytest.mark.invariant("I-61")
def test_an_expected_key_that_turns_out_to_be_extractable_signs_nothing(token: SoftToken, backend: Backend) -> None:
    make_with_tool(token, "--extractable", "--sensitive")
    (public_id,) = found(backend, "issuing")
    with token.open().session() as session:
        (_, public) = token_objects.find(session.open, "issuing", public_id, where="it")
    with pytest.raises(NotSigned, match="CKA_EXTRACTABLE"):
        sign_tbs(backend.expect("issuing", public), b"to be signed")


def test_a_key_that_another_program_made_is_found_by_its_label_and_public_key(
    token: SoftToken, backend: Backend
) -> None:
    make_with_tool(token, "--sensitive")
    (public_id,) = found(backend, "issuing")
    assert signs(backend.load("issuing", public_id))
    assert refusal(backend.load, "issuing", "0" * 64).code == "RW-KEY-MISSING"


def test_a_key_that_was_moved_into_the_token_is_found_too(token: SoftToken, backend: Backend, tmp_path: object) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    path = f"{tmp_path}/key.pem"
    with open(path, "wb") as file:
        file.write(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    words = ("--import", path, "--token", token.label, "--label", "issuing", "--id", "02", "--pin", PIN)
    run("softhsm2-util", *words, env=token.environment)
    public = public_key_of(key.public_key())
    loaded = backend.load("issuing", public.id)
    assert loaded.public == public
    assert signs(loaded)


def test_a_key_without_its_public_object_is_refused_with_the_reason(token: SoftToken, backend: Backend) -> None:
    key = backend.generate("issuing", P256)
    with token.open().session(write=True) as session:
        (one,) = session.open.get_objects({Attribute.CLASS: ObjectClass.PUBLIC_KEY})
        one.destroy()
    problem = refusal(backend.load, "issuing", key.public.id)
    assert problem.code == "RW-KEY-MISMATCH"
    assert "no public key beside it" in problem.detail


@pytest.mark.invariant("I-61")
def test_a_key_swapped_under_label_and_id_is_refused(token: SoftToken, backend: Backend) -> None:
    mine, other = backend.generate("issuing", P256), backend.generate("other", P256)
    backend.delete("issuing", mine.public.id)
    change(token, "other", LABEL="issuing", ID=bytes.fromhex(mine.public.id))
    with token.open().session(write=True) as session:
        (one,) = session.open.get_objects({Attribute.CLASS: ObjectClass.PUBLIC_KEY})
        one[Attribute.ID] = bytes.fromhex(mine.public.id)
    problem = refusal(backend.load, "issuing", mine.public.id)
    assert problem.code == "RW-KEY-MISMATCH"
    assert other.public.id[:16] in problem.detail
    with pytest.raises(NotSigned):
        sign_tbs(mine, b"to be signed")


@pytest.mark.parametrize("ours", [True, False], ids=["our-id", "another-programs-id"])
def test_a_deletion_that_is_cut_off_leaves_no_private_key(
    token: SoftToken, monkeypatch: pytest.MonkeyPatch, ours: bool
) -> None:
    """What is left is the public one, and the next try says truly that there is no key."""
    with shimmed(monkeypatch) as shim:
        backend = open_pkcs11(token.settings)
        if ours:
            backend.generate("issuing", P256)
        else:
            make_with_tool(token, "--sensitive")
            logout(token)
        (public_id,) = found(backend, "issuing")
        shim.after["destroy"] = [DeviceError()]
        assert refusal(backend.delete, "issuing", public_id).code == "RW-KEY-MISSING"
        assert refusal(backend.delete, "issuing", public_id).code == "RW-KEY-MISSING"
        with token.open().session() as session:
            left = [one[Attribute.CLASS] for one in session.open.get_objects()]
        assert left == [ObjectClass.PUBLIC_KEY]


def test_a_key_that_the_token_does_not_destroy_is_there_still(
    token: SoftToken, monkeypatch: pytest.MonkeyPatch
) -> None:
    with shimmed(monkeypatch) as shim:
        backend = open_pkcs11(token.settings)
        key = backend.generate("issuing", P256)
        shim.before["destroy"] = [FunctionRejected() for _ in range(9)]
        assert refusal(backend.delete, "issuing", key.public.id).code == "RW-KEY-UNAVAILABLE"
        assert len(shim.before["destroy"]) == 6
        shim.clear()
        assert signs(backend.load("issuing", key.public.id))
        backend.delete("issuing", key.public.id)
        assert backend.list() == []
        with token.open().session() as session:
            assert list(session.open.get_objects()) == []


# ── opening ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_token_that_is_not_there_is_away_and_its_key_is_expected(backend: Backend) -> None:
    key = backend.generate("issuing", P256)
    away = open_pkcs11(KeySettings(uri=f"pkcs11:token=nowhere?module-path={MODULE}", pin=pin))
    problem = refusal(away.load, "issuing", key.public.id)
    assert problem.code == "RW-KEY-UNAVAILABLE"
    assert "no token is token=nowhere" in problem.detail
    with pytest.raises(NotSigned, match="no token is token=nowhere"):
        sign_tbs(away.expect("issuing", key.public), b"to be signed")


def test_what_the_uri_says_must_all_be_true(token: SoftToken) -> None:
    with token.open().slot() as slot:
        has = slot.get_token()
    all_of_it = f"pkcs11:token={token.label};serial={has.serial.decode()};slot-id={has.slot.slot_id};"
    all_of_it += "manufacturer=SoftHSM%20project;model=SoftHSM%20v2"
    assert open_pkcs11(KeySettings(uri=f"{all_of_it}?module-path={MODULE}", pin=pin)).list() == []
    for was, other in ((has.serial.decode(), "0"), (f"slot-id={has.slot.slot_id}", "slot-id=9"), ("v2", "v3")):
        wrong = open_pkcs11(KeySettings(uri=f"{all_of_it.replace(was, other)}?module-path={MODULE}", pin=pin))
        assert refusal(wrong.list).code == "RW-KEY-UNAVAILABLE"


@pytest.mark.parametrize(
    ("path", "why"), [("/nowhere/at-all.so", "cannot be loaded"), ("/usr/bin/env", "cannot be loaded")]
)
def test_a_module_that_does_not_load_is_a_mistake_in_the_settings(path: str, why: str) -> None:
    problem = refusal(open_pkcs11, KeySettings(uri=f"pkcs11:token=a?module-path={path}", pin=pin))
    assert problem.code == "RW-CONFIG"
    assert why in problem.detail


def test_a_library_that_is_no_module_is_a_mistake_in_the_settings() -> None:
    problem = refusal(open_pkcs11, KeySettings(uri=f"pkcs11:token=a?module-path={_ctypes.__file__}", pin=pin))
    assert problem.code == "RW-CONFIG"


def test_without_its_library_the_problem_names_the_extra() -> None:
    script = (
        "import sys; sys.modules['pkcs11'] = None\n"
        "from rootward import keys\n"
        "from rootward.core.problems import Problem\n"
        "try: keys.BACKENDS['pkcs11'](keys.KeySettings(uri='pkcs11:token=a?module-path=/m.so'))\n"
        "except Problem as problem: print(problem)\n"
    )
    done = run(sys.executable, "-c", script)
    assert "RW-CONFIG" in done.stdout
    assert "pip install 'rootward[pkcs11]'" in done.stdout


# ── the PIN ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.invariant("I-35")
def test_a_wrong_pin_is_tried_once_and_shown_nowhere(token: SoftToken, monkeypatch: pytest.MonkeyPatch) -> None:
    place = [b"canary-wrong-pin"]
    opened = cryptoki.Token(parse_token_uri(token.uri), lambda: place[0])
    backend = TokenBackend(opened)
    tried: list[int] = []
    real = cryptoki.log.error
    monkeypatch.setattr(cryptoki.log, "error", lambda *a, **k: (tried.append(1), real(*a, **k)))
    logout(token)
    for _ in range(3):
        problem = refusal(backend.list)
        assert problem.code == "RW-KEY-UNAVAILABLE"
        assert "refused" in problem.detail
        trace = "".join(traceback.TracebackException.from_exception(problem, capture_locals=True).format())
        assert "canary-other-pin" not in trace
        assert "canary-wrong-pin" not in trace.replace(repr(place), "") + repr(opened) + repr(vars(opened))
    assert len(tried) == 1
    place[0] = b"canary-other-pin"
    assert "refused its PIN" in refusal(backend.list).detail
    assert len(tried) == 2
    place[0] = PIN.encode()
    assert backend.list() == []


def test_a_pin_that_was_changed_while_it_was_tried_is_not_the_refused_one(token: SoftToken) -> None:
    said = iter([b"canary-wrong-pin", PIN.encode(), PIN.encode()])
    backend = TokenBackend(cryptoki.Token(parse_token_uri(token.uri), lambda: next(said)))
    logout(token)
    assert "refused its PIN" in refusal(backend.list).detail
    assert backend.list() == []


@pytest.mark.parametrize("says", [PinLenRange, PinInvalid, PinIncorrect, PinLocked])
def test_no_pin_that_a_token_refused_is_tried_again(
    token: SoftToken, monkeypatch: pytest.MonkeyPatch, says: type[Exception]
) -> None:
    """Whatever it says of it: a token may count it, and lock itself after a few."""
    backend = open_pkcs11(token.settings)
    with shimmed(monkeypatch) as shim:
        shim.before["open"] = [says() for _ in range(10)]
        for _ in range(5):
            assert refusal(backend.list).code == "RW-KEY-UNAVAILABLE"
        assert len(shim.before["open"]) == 9


@pytest.mark.parametrize(("content", "why"), [(None, "There is no"), (b"\n", "is empty")])
def test_a_pin_file_that_has_none_leaves_the_token_away(
    token: SoftToken, tmp_path: Path, content: bytes | None, why: str
) -> None:
    """Its key is expected, and what is to be signed surely is not: no orphans come of a file that is gone."""
    key = open_pkcs11(token.settings).generate("issuing", P256)
    if content is not None:
        write_new(tmp_path / "pin", content, mode=0o600)
    logout(token)
    away = open_pkcs11(KeySettings(uri=token.uri, pin=pin_file(tmp_path / "pin")))
    problem = refusal(away.load, "issuing", key.public.id)
    assert problem.code == "RW-KEY-UNAVAILABLE"
    assert why in problem.detail
    with pytest.raises(NotSigned, match=why):
        sign_tbs(away.expect("issuing", key.public), b"to be signed")


def test_a_pin_is_asked_for_once_and_only_where_somebody_can_type_it(monkeypatch: pytest.MonkeyPatch) -> None:
    typed = iter([EOFError(), OSError(), "", "canary-typed-pin"])

    def ask(_question: str) -> str:
        said = next(typed)
        if isinstance(said, Exception):
            raise said
        return said

    monkeypatch.setattr("getpass.getpass", ask)
    place = pin_prompt()
    for _ in range(3):
        assert refusal(place).code == "RW-CONFIG"
    assert place() == place() == b"canary-typed-pin"


def logout(token: SoftToken) -> None:
    """End this process's login at all tokens, as a new process begins."""
    opened = token.open()
    assert opened.restart(opened.generation)


@pytest.mark.parametrize(
    ("place", "why"),
    [(None, "the setting pin names none"), (lambda: b"\xff\xfe", "not UTF-8")],
    ids=["none", "binary"],
)
def test_a_pin_that_cannot_be_used_is_told(token: SoftToken, place: Callable[[], bytes] | None, why: str) -> None:
    logout(token)
    assert why in refusal(open_pkcs11(KeySettings(uri=token.uri, pin=place)).list).detail


def test_a_pin_that_cannot_be_read_leaves_the_token_away(token: SoftToken) -> None:
    def gone() -> bytes:
        raise Problem("RW-CONFIG", "/etc/pin cannot be opened: No such file.")

    logout(token)
    problem = refusal(open_pkcs11(KeySettings(uri=token.uri, pin=gone)).list)
    assert problem.code == "RW-KEY-UNAVAILABLE"
    assert "/etc/pin cannot be opened" in problem.detail


# ── sessions, threads, processes ──────────────────────────────────────────────────────────────────────────────────


def test_many_threads_sign_find_and_make_keys_at_once(backend: Backend) -> None:
    key = backend.generate("issuing", P256)
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for turn in range(16):
                assert signs(key, bytes([number, turn]))
                if turn == number:
                    assert signs(backend.generate(f"other-{number}", P256))
                    backend.list()
        except BaseException as error:  # noqa: BLE001  # told below
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert failures == []


def test_a_token_with_few_sessions_is_waited_for(
    token: SoftToken, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One session is the login's, three sign, and three more callers come meanwhile. Nothing is started anew for it."""
    key, other = backend.generate("issuing", P256), backend.generate("other", P256)
    opened = token.open()
    with shimmed(monkeypatch) as shim, ThreadPoolExecutor(6) as threads:
        shim.most, shim.signing = 4, lambda: shim.full.wait(30)
        before = opened.generation
        assert all(threads.map(signs, [key, other] * 3, map(bytes, range(6))))
        assert shim.full.is_set()
        shim.most = 2  # the idle ones of one key make room for the other's
        for one in (key, other, key):
            assert signs(one)
        assert backend.list()
        assert opened.generation == before


def test_a_token_without_a_session_is_waited_for_until_none_comes(
    token: SoftToken, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, opened = backend.generate("issuing", P256), token.open()
    with shimmed(monkeypatch) as shim:
        before, shim.most = opened.generation, 2
        monkeypatch.setattr(cryptoki, "BUSY_SECONDS", 0.1)
        held: Any = backend
        with held._token.session(), pytest.raises(NotSigned, match="no session left"):
            sign_tbs(key, b"to be signed")
        assert opened.generation == before
        assert signs(key)
        shim.most = 0  # somebody else has them all: a new start would bring back what we lost ourselves
        with pytest.raises(NotSigned, match="no session left"):
            sign_tbs(backend.expect("other", key.public), b"to be signed")
        assert opened.generation != before


def test_what_a_token_is_asked_and_told_waits_for_a_restart_and_a_restart_for_it(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever fails; `shimmed` sees each call. What is forgotten is closed, once."""
    key = backend.generate("issuing", KeyAlgorithm.ED25519)
    with shimmed(monkeypatch) as shim:
        assert backend.algorithms
        assert backend.max_message_of(KeyAlgorithm.ED25519) is None
        assert signs(key)
        shim.before["sign"] = [SessionHandleInvalid()]
        assert signs(key)
        shim.before["get_objects"] = [DeviceError()]
        assert backend.list()
        assert signs(key)
        # The first login; for each later one a try, which the library leaves open, and a session; one that is idle.
        assert shim.sessions == 1 + 2 * 2 + 1


@pytest.mark.invariant("I-61")
def test_a_module_that_does_not_start_again_is_away(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    key = backend.generate("issuing", P256)
    with shimmed(monkeypatch) as shim:
        for _ in range(2):
            shim.before = {"get_slots": [DeviceError()], "initialize": [DeviceError(), DeviceError()]}
            assert refusal(backend.load, "issuing", key.public.id).code == "RW-KEY-UNAVAILABLE"
            assert "does not start" in refusal(backend.list).detail
        shim.before = {"get_slots": [DeviceError()], "initialize": [DeviceError(), DeviceError()]}
        with pytest.raises(NotSigned):
            sign_tbs(backend.expect("other", key.public), b"to be signed")
        with pytest.raises(NotSigned, match="does not start"):
            sign_tbs(key, b"to be signed")
        assert signs(key)


def test_a_token_that_closed_its_idle_sessions_signs_on(token: SoftToken, backend: Backend) -> None:
    key = backend.generate("issuing", P256)
    assert signs(key)
    with token.open().slot() as slot:
        assert ctypes.CDLL(str(MODULE)).C_CloseAllSessions(ctypes.c_ulong(slot.slot_id)) == 0  # which logs out, too
    assert signs(key)


@pytest.mark.invariant("I-61")
def test_a_token_that_was_away_signs_again_by_itself(token: SoftToken, backend: Backend) -> None:
    key = backend.generate("issuing", P256)
    assert signs(key)
    elsewhere = token.folder.parent.parent / "elsewhere"
    token.folder.rename(elsewhere)
    try:
        for _ in range(2):
            with pytest.raises(NotSigned):
                sign_tbs(key, b"to be signed")
        assert refusal(backend.load, "issuing", key.public.id).code == "RW-KEY-UNAVAILABLE"
    finally:
        elsewhere.rename(token.folder)
    assert signs(key)
    assert backend.load("issuing", key.public.id).public == key.public


def test_a_forked_process_opens_sessions_of_its_own(token: SoftToken) -> None:
    script = f"""
import os, sys
from rootward import keys
from rootward.core.pubkey import KeyAlgorithm
from rootward.core.signature import verifies

pin = sys.stdin.readline().strip().encode()
backend = keys.BACKENDS["pkcs11"](keys.KeySettings(uri={token.uri!r}, pin=lambda: pin))
key = backend.generate("issuing", KeyAlgorithm.P256)
good = lambda: verifies(key.public, keys.sign_tbs(key, b"tbs"), b"tbs")
assert good()
child = os.fork()
if child == 0:
    os._exit(0 if good() and good() else 1)
assert os.waitpid(child, 0)[1] == 0
assert good()
print("both")
"""
    done = run(sys.executable, "-W", "ignore", "-c", script, stdin=PIN + "\n", env=token.environment)
    assert done.stdout == "both\n"
    logout(token)  # this process sees what that one made only after a new start


def test_a_public_key_is_read_from_the_token_and_not_believed(backend: Backend) -> None:
    key = backend.generate("issuing", KeyAlgorithm.P384)
    assert isinstance(key.public, PublicKey)
    assert backend.load("issuing", key.public.id).public.spki == key.public.spki
