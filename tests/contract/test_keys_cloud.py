"""What the cloud key backends promise besides the contract of all backends: one request for each signature, the very
key that was found, and an honest word about what may have been signed. Against doubles of the services, and moto.
"""

import dataclasses
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from moto.server import ThreadedMotoServer

from rootward import keys
from rootward.core.problems import Problem
from rootward.core.pubkey import KeyAlgorithm
from rootward.core.signature import verifies
from rootward.keys import cloud
from tests.support.clouds import CLOUDS
from tests.support.fake_aws import REGION, credentials, fake_aws
from tests.support.fake_azure import VAULT, fake_azure
from tests.support.fake_gcp import RING, fake_gcp, secured_gcp


@pytest.fixture(params=CLOUDS)
def kind(request):
    return CLOUDS[request.param]


@pytest.fixture
def service(kind, tmp_path):
    with kind.opening(tmp_path) as opened:
        yield opened


@pytest.fixture
def fake(service):
    return service[0]


@pytest.fixture
def settings(service):
    return service[1]


@pytest.fixture
def backend(kind, settings):
    return keys.BACKENDS[kind.name](settings)


@pytest.fixture
def key(backend):
    return backend.generate("issuing", KeyAlgorithm.P256)


def problem_of(call, *args):
    with pytest.raises(Problem) as caught:
        call(*args)
    return caught.value


# ── one signature, one request ────────────────────────────────────────────────────────────────────────────────────


def test_one_signature_is_one_request(kind, fake, key):
    before = len(fake.script.asked)
    for message in (b"", b"a", bytes(100_000)):
        if message or kind.name != "aws-kms":
            assert verifies(key.public, keys.sign_tbs(key, message), message)
    assert set(fake.script.asked[before:]) == {kind.sign}
    assert len(fake.script.asked) - before == len(fake.script.made)


@pytest.mark.invariant("I-05")
def test_a_refusal_is_asked_once_and_nothing_is_signed(kind, fake, key):
    for fault in kind.refusals:
        before = fake.script.count(kind.sign)
        fake.script.faults.append(fault)
        with pytest.raises(keys.NotSigned):
            keys.sign_tbs(key, b"to be signed")
        assert (fault, fake.script.count(kind.sign) - before, fake.script.made) == (fault, 1, [])
    assert verifies(key.public, keys.sign_tbs(key, b"then"), b"then")


@pytest.mark.invariant("I-05")
def test_an_answer_in_doubt_is_asked_once_and_never_called_unsigned(kind, fake, key):
    for fault in [fault for fault in kind.doubts if fault != "hang"]:
        before = fake.script.count(kind.sign)
        fake.script.faults.append(fault)
        with pytest.raises(keys.SignatureUnknown):
            keys.sign_tbs(key, b"to be signed")
        assert (fault, fake.script.count(kind.sign) - before) == (fault, 1)
    assert verifies(key.public, keys.sign_tbs(key, b"then"), b"then")


@pytest.mark.invariant("I-05")
def test_an_answer_that_does_not_come_is_in_doubt(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(cloud, "READ_SECONDS", 6)
    with kind.opening(tmp_path) as (fake, settings):
        key = keys.BACKENDS[kind.name](settings).generate("issuing", KeyAlgorithm.P256)
        fake.script.faults.append("hang")
        with pytest.raises(keys.SignatureUnknown):
            keys.sign_tbs(key, b"to be signed")
        assert (fake.script.count(kind.sign), len(fake.script.made)) == (1, 1)


def test_what_never_reached_the_service_is_not_signed(kind, tmp_path):
    with kind.opening(tmp_path) as (fake, settings):
        backend = keys.BACKENDS[kind.name](settings)
        key = backend.generate("issuing", KeyAlgorithm.P256)
        keys.sign_tbs(key, b"there")
    fake.script.made.clear()
    # A pooled connection ends in doubt, the ones after it are refused.
    with pytest.raises((keys.NotSigned, keys.SignatureUnknown)):
        keys.sign_tbs(key, b"gone")
    if kind.name != "azure-kv":  # its name would now be looked up in earnest
        with pytest.raises(keys.NotSigned):
            keys.sign_tbs(key, b"gone")
    assert fake.script.made == []


def test_many_threads_share_a_key(kind, fake, key):
    messages = [bytes([number]) * 50 for number in range(40)]
    with ThreadPoolExecutor(16) as pool:
        signatures = list(pool.map(lambda message: keys.sign_tbs(key, message), messages))
    assert all(verifies(key.public, *pair) for pair in zip(signatures, messages, strict=True))
    assert fake.script.count(kind.sign) == 40


# ── a service that is away ────────────────────────────────────────────────────────────────────────────────────────


def test_a_key_of_a_service_that_is_away_is_unavailable_and_not_missing(fake, backend, key):
    fake.script.away = True
    for call in (
        lambda: backend.load("issuing", key.public.id),
        backend.list,
        lambda: backend.delete("issuing", key.public.id),
        lambda: backend.generate("issuing", KeyAlgorithm.P256),
    ):
        assert problem_of(call).code == "RW-KEY-UNAVAILABLE"
    fake.script.away = False
    assert backend.load("issuing", key.public.id).public == key.public


def test_an_expected_key_signs_once_the_service_is_there(kind, fake, settings, key):
    fake.script.away = True
    backend = keys.BACKENDS[kind.name](settings)  # as after a start
    expected = backend.expect("issuing", key.public)
    before = fake.script.count(kind.sign)
    for _ in range(2):
        with pytest.raises(keys.NotSigned):
            keys.sign_tbs(expected, b"to be signed")
    assert fake.script.count(kind.sign) == before
    fake.script.away = False
    assert verifies(key.public, keys.sign_tbs(expected, b"to be signed"), b"to be signed")
    looked = len(fake.script.asked)
    keys.sign_tbs(expected, b"again")
    assert len(fake.script.asked) == looked + 1  # it was found once and is kept


def switch(fake, on):
    """Disable or enable every key over there."""
    for key in (fake.versions if hasattr(fake, "versions") else fake.keys).values():
        key.facts |= {"enabled": on, "state": "ENABLED" if on else "DISABLED"}
        if on:
            key.facts.pop("disabled", None)
        else:
            key.facts["disabled"] = True


def test_a_disabled_key_is_unavailable_until_it_is_enabled(fake, backend, key):
    switch(fake, False)
    problem = problem_of(backend.load, "issuing", key.public.id)
    assert problem.code == "RW-KEY-UNAVAILABLE"
    assert "is disabled" in problem.detail
    assert backend.list() == []
    expected = backend.expect("issuing", key.public)
    for one in (key, expected):
        with pytest.raises(keys.NotSigned):
            keys.sign_tbs(one, b"to be signed")
    assert problem_of(backend.load, "other", key.public.id).code == "RW-KEY-MISSING"
    switch(fake, True)
    for one in (key, expected, backend.load("issuing", key.public.id)):
        assert verifies(key.public, keys.sign_tbs(one, b"to be signed"), b"to be signed")


@pytest.mark.invariant("I-13")
def test_a_signature_of_another_key_is_handed_on_to_be_found_out(fake, key):
    """Its form is right, so it is not this room that judges: ca/sign.py verifies it and stops the authority."""
    fake.script.faults.append("swapped")
    assert not verifies(key.public, keys.sign_tbs(key, b"to be signed"), b"to be signed")


# ── credentials ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["aws-kms", "gcp-kms", "azure-kv"])
def test_without_credentials_nothing_is_signed_and_they_may_come_later(name, tmp_path, monkeypatch):
    """Places that ask the network are shut, so that only the environment is looked at."""
    kind = CLOUDS[name]
    with kind.opening(tmp_path) as (_, settings):
        key = keys.BACKENDS[name](settings).generate("issuing", KeyAlgorithm.P256)
        with monkeypatch.context() as without:
            without.delenv("AWS_ACCESS_KEY_ID", raising=False)
            without.setenv("AZURE_TOKEN_CREDENTIALS", "EnvironmentCredential")
            without.setenv("NO_GCE_CHECK", "true")
            without.setenv("HOME", str(tmp_path))
            without.setenv("CLOUDSDK_CONFIG", str(tmp_path))
            without.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
            if name == "gcp-kms":
                settings = dataclasses.replace(settings, endpoint="")  # a double on this machine gets no credentials
            backend = keys.BACKENDS[name](settings)
            assert problem_of(backend.load, "issuing", key.public.id).code == "RW-KEY-UNAVAILABLE"
            with pytest.raises(keys.NotSigned):
                keys.sign_tbs(backend.expect("issuing", key.public), b"to be signed")
        if name == "aws-kms":
            assert backend.load("issuing", key.public.id).public == key.public


# ── AWS ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def aws():
    with fake_aws() as (fake, settings):
        yield fake, keys.BACKENDS["aws-kms"](settings)


@pytest.mark.invariant("I-13")
def test_a_moved_alias_is_no_way_to_another_key(aws):
    fake, backend = aws
    ours, theirs = (backend.generate("issuing", KeyAlgorithm.P256) for _ in range(2))
    alias = f"alias/rootward/issuing/{ours.public.id[:16]}"
    other = f"alias/rootward/issuing/{theirs.public.id[:16]}"
    fake.aliases[alias] = fake.aliases[other]
    assert problem_of(backend.load, "issuing", ours.public.id).code == "RW-KEY-MISMATCH"
    assert problem_of(backend.delete, "issuing", ours.public.id).code == "RW-KEY-MISMATCH"
    assert backend.list() == [("issuing", theirs.public.id)]
    with pytest.raises(keys.NotSigned):
        keys.sign_tbs(backend.expect("issuing", ours.public), b"to be signed")
    # What was loaded before asks for the key itself, and not for the alias.
    assert verifies(ours.public, keys.sign_tbs(ours, b"to be signed"), b"to be signed")
    del fake.aliases[alias]
    assert problem_of(backend.load, "issuing", ours.public.id).code == "RW-KEY-MISSING"


def test_up_to_4096_bytes_go_as_they_are_and_more_as_a_digest_or_mu(aws):
    fake, backend = aws
    for algorithm in (KeyAlgorithm.P384, KeyAlgorithm.RSA_2048, KeyAlgorithm.ML_DSA_44):
        key = backend.generate("issuing", algorithm)
        for size, sent in ((4096, 4096), (4097, {"p384": 48, "rsa-2048": 32, "ml-dsa-44": 64}[algorithm])):
            message = bytes(size)
            assert verifies(key.public, keys.sign_tbs(key, message), message)
            assert len(fake.script.made[-1]) == sent


def test_a_deleted_key_waits_as_long_as_aws_lets_it(aws):
    fake, backend = aws
    key = backend.generate("issuing", KeyAlgorithm.P256)
    backend.delete("issuing", key.public.id)
    (stored,) = fake.keys.values()
    assert stored.facts["deleted"] == 30
    assert fake.aliases == {}


def test_a_deletion_that_was_cut_off_leaves_a_name_that_leads_to_nothing(aws):
    fake, backend = aws
    key = backend.generate("issuing", KeyAlgorithm.P256)
    next(iter(fake.keys.values())).facts["deleted"] = 30
    assert problem_of(backend.load, "issuing", key.public.id).code == "RW-KEY-MISSING"
    assert backend.list() == []


def test_a_key_that_could_not_be_named_is_named_in_the_problem(aws):
    fake, backend = aws
    fake._CreateAlias = lambda _asked: (400, {"__type": "LimitExceededException"}, {})
    problem = problem_of(backend.generate, "issuing", KeyAlgorithm.P256)
    assert next(iter(fake.keys)) in problem.detail
    assert "schedule its deletion" in problem.detail


def test_a_key_of_a_kind_that_the_house_does_not_take_is_refused(aws):
    fake, backend = aws
    key = backend.generate("issuing", KeyAlgorithm.RSA_2048)
    fake._GetPublicKey = lambda _asked: (200, {"PublicKey": "AAAA"}, {})
    assert problem_of(backend.load, "issuing", key.public.id).code == "RW-KEY-FILE"
    fake._GetPublicKey = lambda _asked: (200, {}, {})
    assert problem_of(backend.load, "issuing", key.public.id).code == "RW-KEY-UNAVAILABLE"


@pytest.fixture(scope="module")
def moto():
    """AWS KMS as others imitate it."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    with credentials():
        endpoint = f"http://127.0.0.1:{server.get_host_and_port()[1]}"
        yield keys.BACKENDS["aws-kms"](keys.KeySettings(store="moto", uri=f"aws-kms:{REGION}", endpoint=endpoint))
    server.stop()


@pytest.mark.parametrize("algorithm", ["p256", "p384", "p521", "rsa-2048"])
def test_moto_understands_it_too(moto, algorithm):
    key = moto.generate("moto", KeyAlgorithm(algorithm))
    for message in (b"a", bytes(4096)):
        assert verifies(key.public, keys.sign_tbs(moto.load("moto", key.public.id), message), message)
    assert ("moto", key.public.id) in moto.list()
    # No deletion: moto takes no ARN there, which AWS does.


# ── Google ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_keys_are_made_in_an_hsm_unless_software_is_asked_for():
    with fake_gcp(uri=RING) as (fake, settings):
        backend = keys.BACKENDS["gcp-kms"](settings)
        backend.generate("issuing", KeyAlgorithm.P256)
        assert {key.facts["level"] for key in fake.keys.values()} == {"HSM"}
        assert problem_of(backend.generate, "issuing", KeyAlgorithm.ML_DSA_65).code == "RW-KEY-TYPE"
        software = keys.BACKENDS["gcp-kms"](dataclasses.replace(settings, uri=f"{RING}?protection=software"))
        software.generate("issuing", KeyAlgorithm.ML_DSA_65)
        assert {key.facts["level"] for key in fake.keys.values()} == {"HSM", "SOFTWARE"}


def test_a_key_that_takes_its_time_is_waited_for():
    with fake_gcp() as (fake, settings):
        fake.making = 3
        key = keys.BACKENDS["gcp-kms"](settings).generate("issuing", KeyAlgorithm.P256)
        assert verifies(key.public, keys.sign_tbs(key, b"made"), b"made")


@pytest.mark.parametrize("spoilt", ["other-key", "wrong-sum", "garbage"])
def test_a_public_key_that_was_damaged_or_is_another_s_is_not_taken(spoilt):
    with fake_gcp() as (fake, settings):
        backend = keys.BACKENDS["gcp-kms"](settings)
        key = backend.generate("issuing", KeyAlgorithm.P256)
        fake.spoilt = spoilt
        assert problem_of(backend.load, "issuing", key.public.id).code == "RW-KEY-UNAVAILABLE"
        fake.spoilt = ""
        assert backend.load("issuing", key.public.id).public == key.public


_ONE_SIGNATURE = """
import sys
from rootward import keys
from rootward.core.pubkey import KeyAlgorithm
from rootward.core.signature import verifies

settings = keys.KeySettings(store="cloud", uri=sys.argv[1], endpoint=sys.argv[2])
key = keys.BACKENDS["gcp-kms"](settings).generate("issuing", KeyAlgorithm.P256)
assert verifies(key.public, keys.sign_tbs(key, b"to be signed"), b"to be signed")
"""


def test_with_tls_each_call_brings_the_account_s_token(tmp_path):
    """In a process of its own: gRPC reads its roots once in a process."""
    with secured_gcp(tmp_path) as (fake, settings):
        environment = {
            "PATH": "/usr/bin",
            "GOOGLE_APPLICATION_CREDENTIALS": str(tmp_path / "account.json"),
            "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH": str(tmp_path / "roots.pem"),
        }
        command = [sys.executable, "-c", _ONE_SIGNATURE, settings.uri, settings.endpoint]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        assert fake.script.count("AsymmetricSign") == 1
        assert fake.tokens == len(fake.script.asked)
        # Without the root nobody is spoken to.
        del environment["GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"]
        before = len(fake.script.asked)
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
        assert "RW-KEY-UNAVAILABLE" in done.stderr
        assert len(fake.script.asked) == before


# ── Azure ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_rotation_by_others_changes_nothing(tmp_path):
    with fake_azure(tmp_path) as (fake, settings):
        backend = keys.BACKENDS["azure-kv"](settings)
        key = backend.generate("issuing", KeyAlgorithm.P256)
        (path,) = fake.versions
        facts = fake.versions[path].facts
        fake.add(path.partition("/")[0], KeyAlgorithm.P256, **facts)
        again = backend.load("issuing", key.public.id)
        assert verifies(key.public, keys.sign_tbs(again, b"pinned"), b"pinned")
        assert len(backend.list()) == 2
        # A deletion would take the other version along.
        assert problem_of(backend.delete, "issuing", key.public.id).code == "RW-CONFLICT"
        assert backend.load("issuing", key.public.id).public == key.public


@pytest.mark.parametrize(
    ("query", "kty"), [("", "EC-HSM"), ("?protection=hsm", "EC-HSM"), ("?protection=software", "EC")]
)
def test_azure_keys_are_made_in_an_hsm_unless_software_is_asked_for(tmp_path, query, kty):
    with fake_azure(tmp_path, uri=VAULT + query) as (fake, settings):
        keys.BACKENDS["azure-kv"](settings).generate("issuing", KeyAlgorithm.P256)
        assert [key.facts["kty"] for key in fake.versions.values()] == [kty]


def test_a_vault_with_another_certificate_is_not_spoken_to(tmp_path, monkeypatch):
    with fake_azure(tmp_path) as (fake, settings):
        monkeypatch.delenv("REQUESTS_CA_BUNDLE")
        backend = keys.BACKENDS["azure-kv"](settings)
        problem = problem_of(backend.generate, "issuing", KeyAlgorithm.P256)
        assert problem.code == "RW-KEY-UNAVAILABLE"
        assert "CERTIFICATE_VERIFY_FAILED" in problem.detail
        assert fake.script.asked == []


# ── other ways to sign ────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["aws-kms", "azure-kv"])
def test_an_rsa_key_also_signs_with_pss(name, tmp_path):
    with CLOUDS[name].opening(tmp_path) as (_, settings):
        key = keys.BACKENDS[name](settings).generate("issuing", KeyAlgorithm.RSA_2048)
        how = (padding.PSS(padding.MGF1(hashes.SHA384()), hashes.SHA384().digest_size), hashes.SHA384())
        for message in (b"short", bytes(5000)):
            key.public.key.verify(key._private.sign(message, *how), message, *how)


def test_google_s_keys_sign_in_the_one_way_that_they_were_made_for(tmp_path):
    with fake_gcp() as (fake, settings):
        key = keys.BACKENDS["gcp-kms"](settings).generate("issuing", KeyAlgorithm.RSA_2048)
        how = (padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256())
        with pytest.raises(keys.NotSigned):
            key._private.sign(b"message", *how)
        assert fake.script.count("AsymmetricSign") == 0


# ── the table in rootward.toml ────────────────────────────────────────────────────────────────────────────────────

NO_URLS = (
    *("kms.internal", "kms.internal:443", "//kms.internal", "https://", "https:kms.internal"),
    *("ftp://kms.internal", "https://kms.internal:99999", "https://[::1", "https://:443"),
)
GOOD = {"aws-kms": f"aws-kms:{REGION}", "gcp-kms": RING, "azure-kv": VAULT}


@pytest.mark.parametrize(
    ("name", "changes", "said"),
    [
        ("aws-kms", {"uri": ""}, "aws-kms:REGION"),
        ("aws-kms", {"uri": "eu-central-1"}, "aws-kms:REGION"),
        ("aws-kms", {"uri": "aws-kms:eu-central-1/../x"}, "aws-kms:REGION"),
        ("aws-kms", {"endpoint": "http://kms.internal"}, "no TLS"),
        ("aws-kms", {"endpoint": "http://localhost:5555"}, "no TLS"),
        *(
            (name, {"endpoint": endpoint}, "no URL with scheme and host")
            for name in ("aws-kms", "gcp-kms")
            for endpoint in NO_URLS
        ),
        ("gcp-kms", {"endpoint": "http://10.0.0.1:5555"}, "no TLS"),
        ("gcp-kms", {"uri": "projects/p/keyRings/r"}, "projects/PROJECT/locations"),
        ("gcp-kms", {"uri": f"{RING}?protection=none"}, "protection=hsm or protection=software"),
        ("gcp-kms", {"uri": f"{RING}?"}, None),
        ("gcp-kms", {"uri": f"{RING}?x=y"}, "protection=hsm or protection=software"),
        ("azure-kv", {"uri": "http://name.vault.azure.net"}, "https://NAME.vault.azure.net"),
        ("azure-kv", {"uri": "https://name.vault.azure.net/keys"}, "https://NAME.vault.azure.net"),
        ("azure-kv", {"uri": "https://user@name.vault.azure.net"}, "https://NAME.vault.azure.net"),
        ("azure-kv", {"endpoint": "https://127.0.0.1:8443"}, "Remove endpoint"),
        *((name, {"pin": lambda: b"1234"}, "Remove pin") for name in GOOD),
    ],
)
def test_a_wrong_table_is_refused_with_its_reason(name, changes, said):
    settings = dataclasses.replace(keys.KeySettings(store="cloud", uri=GOOD[name]), **changes)
    if said is None:
        assert keys.BACKENDS[name](settings).name == name
        return
    problem = problem_of(keys.BACKENDS[name], settings)
    assert problem.code == "RW-CONFIG"
    assert problem.detail.startswith("[keys.cloud]: ")
    assert said in problem.detail
    assert problem.reasons[0].field == "keys.cloud"


@pytest.mark.parametrize("endpoint", ["", "https://kms.internal", "http://127.0.0.1:5555", "http://[::1]:5555"])
def test_an_endpoint_with_tls_or_on_this_machine_is_taken(endpoint):
    for name in ("aws-kms", "gcp-kms"):
        settings = keys.KeySettings(store="cloud", uri=GOOD[name], endpoint=endpoint)
        assert keys.BACKENDS[name](settings).name == name


@pytest.mark.parametrize("name", ["aws-kms", "gcp-kms"])
def test_what_has_no_tls_is_not_given_to_a_proxy(name, tmp_path, monkeypatch):
    for variable in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "grpc_proxy"):
        monkeypatch.setenv(variable, "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with CLOUDS[name].opening(tmp_path) as (_, settings):
        key = keys.BACKENDS[name](settings).generate("issuing", KeyAlgorithm.P256)
        assert verifies(key.public, keys.sign_tbs(key, b"to be signed"), b"to be signed")


@pytest.mark.parametrize(
    ("name", "module", "extra"),
    [("aws-kms", "boto3", "aws"), ("gcp-kms", "google.cloud.kms_v1", "gcp"), ("azure-kv", "azure.identity", "azure")],
)
def test_a_missing_library_is_named_with_its_extra(monkeypatch, name, module, extra):
    monkeypatch.setitem(sys.modules, module, None)
    problem = problem_of(keys.BACKENDS[name], keys.KeySettings(store="cloud", uri=GOOD[name]))
    assert problem.code == "RW-CONFIG"
    assert f"pip install 'rootward[{extra}]'" in problem.detail


def test_the_libraries_are_not_loaded_before_they_are_needed():
    """In a process of its own: here they are loaded already."""
    code = "import sys, rootward.keys; print([n for n in ('boto3', 'botocore', 'grpc', 'azure') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
