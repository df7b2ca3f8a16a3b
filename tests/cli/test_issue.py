"""`cert issue` and `cert renew`: nothing is lost, nothing is overwritten, one wish gives one certificate."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from tests.cli.conftest import Rootward
from tests.cli.fake import Fake

ISSUE = ("cert", "issue", "--profile", "server", "--name", "a.internal", "--out", "tls")
FILES = {"key.pem", "cert.pem", "chain.pem", "fullchain.pem"}


def files() -> set[str]:
    return {path.name for path in Path("tls").iterdir()} if Path("tls").exists() else set()


def public(key: object) -> bytes:
    return key.public_bytes(  # type: ignore[attr-defined, no-any-return]  # any public key
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def test_issue_makes_the_key_here_and_sends_a_csr_only(rootward: Rootward, fake: Fake) -> None:
    result = rootward(*ISSUE, "--name", "10.0.0.1", "--owner", "ops", "--label", "team=a", "--lifetime", "24h")
    assert result.code == 0, result.err
    assert files() == FILES
    assert Path("tls/key.pem").stat().st_mode & 0o777 == 0o600
    key = serialization.load_pem_private_key(Path("tls/key.pem").read_bytes(), None)
    certificate = x509.load_pem_x509_certificate(Path("tls/cert.pem").read_bytes())
    assert public(key.public_key()) == public(certificate.public_key())
    assert Path("tls/fullchain.pem").read_text() == Path("tls/cert.pem").read_text() + Path("tls/chain.pem").read_text()
    (method, path, body), *more = fake.seen
    assert (method, path, more) == ("POST", "/api/v1/certificates", [])
    csr = x509.load_pem_x509_csr(body.pop("csr").encode())
    assert csr.extensions[0].value == x509.SubjectAlternativeName(
        [x509.DNSName("a.internal"), x509.IPAddress(__import__("ipaddress").ip_address("10.0.0.1"))]
    )
    assert body == {"profile": "server", "lifetime": "24h", "owner": "ops", "labels": {"team": "a"}}
    assert "a.internal" in result.out


def test_json_is_the_servers_answer(rootward: Rootward, fake: Fake) -> None:
    result = rootward(*ISSUE, "--json")
    assert json.loads(result.out) == fake.certificates["c1"]


@pytest.mark.parametrize("made", ["tls", "tls/deep/er"])
def test_a_refusal_leaves_no_folder_that_it_made(rootward: Rootward, fake: Fake, made: str) -> None:
    fake.refuse = {"title": "No", "status": 403, "code": "RW-FORBIDDEN", "reasons": []}
    assert rootward(*ISSUE[:-1], made).code == 1
    assert not Path("tls").exists()


def test_a_refusal_leaves_folders_that_were_there_or_are_used(rootward: Rootward, fake: Fake) -> None:
    fake.refuse = {"title": "No", "status": 403, "code": "RW-FORBIDDEN", "reasons": []}
    Path("tls").mkdir()
    assert rootward(*ISSUE).code == 1
    assert Path("tls").is_dir()
    fake.refuse, fake.approval = None, True
    assert rootward(*ISSUE[:-1], "tls/new").code == 3
    Path("tls/new/mine").write_text("")
    rootward("request", "deny", "req-1")
    assert rootward(*ISSUE[:-1], "tls/new").code == 1
    assert [path.name for path in Path("tls/new").iterdir()] == ["mine"]


@pytest.mark.parametrize("there", sorted(FILES))
def test_issue_overwrites_nothing(rootward: Rootward, fake: Fake, there: str) -> None:
    Path("tls").mkdir()
    (Path("tls") / there).write_text("mine")
    result = rootward(*ISSUE)
    assert (result.code, fake.seen) == (1, [])
    assert there in result.err
    assert files() == {there}
    assert (Path("tls") / there).read_text() == "mine"


def test_a_dangling_link_is_not_followed(rootward: Rootward, fake: Fake) -> None:
    Path("tls").mkdir()
    (Path("tls") / "key.pem").symlink_to("../elsewhere.pem")
    assert rootward(*ISSUE).code == 1
    assert not Path("elsewhere.pem").exists()


@pytest.mark.invariant("I-07")
def test_a_lost_answer_never_gives_two_certificates(rootward: Rootward, fake: Fake) -> None:
    fake.lose = 1
    result = rootward(*ISSUE)
    assert result.code == 4
    assert files() == {"key.pem", "request.json"}
    assert "same command" in result.err
    key = Path("tls/key.pem").read_bytes()
    assert rootward(*ISSUE).code == 0
    assert files() == FILES
    assert Path("tls/key.pem").read_bytes() == key
    assert len(fake.certificates) == 1


def test_another_command_does_not_take_over_an_unfinished_request(rootward: Rootward, fake: Fake) -> None:
    fake.lose = 1
    rootward(*ISSUE)
    result = rootward(*ISSUE, "--name", "b.internal")
    assert result.code == 1
    assert "unfinished request" in result.err
    assert files() == {"key.pem", "request.json"}


def test_waiting_is_exit_three_and_the_same_command_finishes(rootward: Rootward, fake: Fake) -> None:
    fake.approval = True
    first = rootward(*ISSUE)
    assert first.code == 3
    assert files() == {"key.pem", "request.json"}
    assert "rootward request approve req-1" in " ".join(first.err.split())
    assert rootward(*ISSUE, "--json").code == 3
    assert rootward("request", "approve", "req-1").code == 0
    last = rootward(*ISSUE)
    assert last.code == 0, last.err
    assert files() == FILES
    assert len([seen for seen in fake.seen if seen[:2] == ("POST", "/api/v1/certificates")]) == 1


def test_a_denied_request_leaves_nothing(rootward: Rootward, fake: Fake) -> None:
    fake.approval = True
    rootward(*ISSUE)
    rootward("request", "deny", "req-1", "--comment", "no")
    result = rootward(*ISSUE)
    assert result.code == 1
    assert "Not today." in result.err
    assert files() == set()


def test_a_refusal_says_every_reason_and_leaves_nothing(rootward: Rootward, fake: Fake) -> None:
    reasons = [
        {"code": "RW-NAME-PERMITTED", "field": "names", "detail": "a.internal is outside."},
        {"code": "RW-VALIDITY", "field": "lifetime", "detail": "10y is too long."},
    ]
    fake.refuse = {
        "type": "x",
        "title": "A name is outside what the profile allows",
        "status": 400,
        "detail": "…",
        "code": "RW-NAME-PERMITTED",
        "request_id": "r-77",
        "reasons": reasons,
    }
    result = rootward(*ISSUE)
    assert result.code == 1
    lines = result.err.splitlines()
    assert lines[0] == "A name is outside what the profile allows (RW-NAME-PERMITTED)."
    assert "  • names: a.internal is outside." in lines
    assert "  • lifetime: 10y is too long. (RW-VALIDITY)" in lines
    assert lines[-2].startswith("Next: ")
    assert lines[-1] == "Request: r-77"
    assert files() == set()
    as_json = rootward(*ISSUE, "--json")
    assert json.loads(as_json.out) == fake.refuse


def test_what_may_still_be_issued_is_kept(rootward: Rootward, fake: Fake) -> None:
    fake.refuse = {"title": "Not now", "status": 503, "code": "RW-UNAVAILABLE", "request_id": "r", "reasons": []}
    assert rootward(*ISSUE).code == 1
    assert files() == {"key.pem", "request.json"}
    fake.refuse = None
    assert rootward(*ISSUE).code == 0


def test_a_certificate_for_another_key_is_not_kept(rootward: Rootward, fake: Fake) -> None:
    fake.wrong_key = True
    result = rootward(*ISSUE)
    assert result.code == 1
    assert "not for the key" in result.err
    assert "cert.pem" not in files()


def test_a_csr_of_ones_own(rootward: Rootward, fake: Fake) -> None:
    key = ed25519.Ed25519PrivateKey.generate()
    names = x509.SubjectAlternativeName([x509.DNSName("b.internal")])
    csr = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).add_extension(names, True).sign(key, None)
    Path("b.csr").write_bytes(csr.public_bytes(serialization.Encoding.DER))
    result = rootward("cert", "issue", "--profile", "server", "--csr", "b.csr", "--out", "tls")
    assert result.code == 0, result.err
    assert files() == FILES - {"key.pem"}
    both = rootward("cert", "issue", "--profile", "server", "--csr", "b.csr", "--name", "c.internal", "--out", "t2")
    assert both.code == 2


def test_renew_has_the_same_names_and_a_new_key(rootward: Rootward, fake: Fake) -> None:
    rootward(*ISSUE, "--cn", "a.internal", "--owner", "ops")
    result = rootward("cert", "renew", "c1", "--out", "next", "--key-type", "p384")
    assert result.code == 0, result.err
    body = fake.seen[-1][2]
    assert (body["replaces"], body["profile"], body["owner"]) == ("c1", "server", "ops")
    old, new = (x509.load_pem_x509_certificate(Path(f"{folder}/cert.pem").read_bytes()) for folder in ("tls", "next"))
    assert new.subject == old.subject
    assert isinstance(new.public_key(), ec.EllipticCurvePublicKey)
    assert new.public_key().key_size == 384


@pytest.mark.parametrize(
    "arguments",
    [
        ("--name", "not a name"),
        ("--name", "a..b", "--name", "-x.internal"),
        ("--name", "a.internal", "--key-type", "p257"),
        ("--name", "a.internal", "--label", "novalue"),
        (),
    ],
)
def test_wrong_usage_is_exit_two_before_anything_is_made(
    rootward: Rootward, fake: Fake, arguments: tuple[str, ...]
) -> None:
    result = rootward("cert", "issue", "--profile", "server", "--out", "tls", *arguments)
    assert (result.code, fake.seen, files()) == (2, [], set())
    assert "Traceback" not in result.err
