"""`cert verify` against real CRLs and OCSP answers on loopback, fetched from the addresses in the certificates."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509 import ocsp

from tests.cli.conftest import Rootward
from tests.cli.fake import serve
from tests.support.authority import DAY, DER, NOW, PEM, Authority


@dataclass
class World:
    """A root and an issuing CA whose certificates point at a server that tests fill."""

    port: int = 0
    paths: dict[str, Callable[[bytes], tuple[int, bytes, dict[str, str]]]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    def start(self) -> None:
        self.root = Authority("Test Root")
        point = x509.DistributionPoint([x509.UniformResourceIdentifier(self.url("root.crl"))], None, None, None)
        self.issuing = Authority(
            "Test Issuing CA", self.root, path_length=0, extensions=[(x509.CRLDistributionPoints([point]), False)]
        )
        self.paths["/root.crl"] = lambda _: (200, self.root.crl(), {})
        self.paths["/issuing.crl"] = lambda _: (200, self.issuing.crl(), {})
        self.paths["/ocsp"] = lambda body: (200, self.ocsp(body), {})
        self.revoked: set[int] = set()

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.port}/{path}"

    def ocsp(self, body: bytes) -> bytes:
        request = ocsp.load_der_ocsp_request(body)
        gone = request.serial_number in self.revoked
        return (
            ocsp.OCSPResponseBuilder()
            .add_response_by_hash(
                request.issuer_name_hash,
                request.issuer_key_hash,
                request.serial_number,
                request.hash_algorithm,
                ocsp.OCSPCertStatus.REVOKED if gone else ocsp.OCSPCertStatus.GOOD,
                NOW - DAY,
                NOW + DAY,
                NOW - DAY if gone else None,
                x509.ReasonFlags.key_compromise if gone else None,
            )
            .responder_id(ocsp.OCSPResponderEncoding.HASH, self.issuing.certificate)
            .sign(self.issuing.key, hashes.SHA256())
            .public_bytes(DER)
        )

    def answer(self, handler: BaseHTTPRequestHandler, body: bytes) -> tuple[int, bytes, dict[str, str]]:
        self.asked.append(handler.path)
        made = self.paths.get(handler.path)
        return (404, b"", {}) if made is None else made(body)

    def leaf(self, *names: str, **options: object) -> x509.Certificate:
        both = {"crl": self.url("issuing.crl"), "ocsp": self.url("ocsp"), **options}
        return self.issuing.leaf(*(names or ("a.internal",)), **both)

    def write(self, leaf: x509.Certificate) -> None:
        Path("fullchain.pem").write_text(leaf.public_bytes(PEM).decode() + self.issuing.pem)
        Path("root.pem").write_text(self.root.pem)


@pytest.fixture
def world(bare: Rootward) -> Iterator[World]:
    made = World()
    with serve(made.answer) as port:
        made.port = port
        made.start()
        yield made


VERIFY = ("cert", "verify", "fullchain.pem", "--roots", "root.pem")


def said(rootward: Rootward, *more: str) -> tuple[int, dict[str, object], str]:
    """Exit code, the machine's verdict, and the text for people (with runs of white space as one)."""
    as_json = rootward(*VERIFY, "--json", *more)
    text = rootward(*VERIFY, *more)
    assert as_json.code == text.code
    assert not text.err
    return text.code, json.loads(as_json.out), " ".join(text.out.split())


def test_a_good_certificate(world: World, bare: Rootward) -> None:
    world.write(world.leaf())
    code, verdict, text = said(bare, "--host", "a.internal")
    assert (code, verdict["hard_fail"], verdict["soft_fail"]) == (0, "accepts", "accepts")
    assert "✓ path" in text
    assert "✓ ocsp" in text
    assert "A hard-fail client accepts." in text
    assert sorted(set(world.asked)) == ["/issuing.crl", "/ocsp", "/root.crl"]


def test_der_needs_no_pem(world: World, bare: Rootward) -> None:
    world.write(world.leaf())
    Path("leaf.der").write_bytes(world.issuing.certificate.public_bytes(DER))
    assert bare("cert", "verify", "leaf.der", "--roots", "root.pem").code == 0


@pytest.mark.parametrize("by", ["crl", "ocsp"])
def test_revoked_is_refused_by_both(world: World, bare: Rootward, by: str) -> None:
    leaf = world.leaf()
    if by == "crl":
        world.paths["/issuing.crl"] = lambda _: (200, world.issuing.crl(leaf.serial_number), {})
    else:
        world.revoked.add(leaf.serial_number)
    world.write(leaf)
    code, verdict, text = said(bare)
    assert (code, verdict["hard_fail"], verdict["soft_fail"]) == (1, "refuses", "refuses")
    assert "is revoked since" in text
    assert "(keyCompromise)" in text


def test_a_revoked_issuer_counts(world: World, bare: Rootward) -> None:
    world.paths["/root.crl"] = lambda _: (200, world.root.crl(world.issuing.certificate.serial_number), {})
    world.write(world.leaf())
    assert said(bare)[0] == 1


SILENCES: dict[str, tuple[int, bytes]] = {
    "404": (404, b""),
    "empty": (200, b""),
    "tryLater": (200, b"\x30\x03\x0a\x01\x03"),
    "html": (200, b"<html>"),
    "redirect": (302, b""),
}


@pytest.mark.parametrize("silence", SILENCES)
def test_without_an_answer_soft_and_hard_differ(world: World, bare: Rootward, silence: str) -> None:
    status, body = SILENCES[silence]
    world.paths["/ocsp"] = world.paths["/issuing.crl"] = lambda _: (status, body, {"location": world.url("elsewhere")})
    world.write(world.leaf())
    code, verdict, _ = said(bare)
    assert (code, verdict["hard_fail"], verdict["soft_fail"]) == (1, "refuses", "accepts")
    assert "/elsewhere" not in world.asked


def test_one_good_answer_is_enough(world: World, bare: Rootward) -> None:
    del world.paths["/issuing.crl"]
    world.write(world.leaf())
    assert said(bare)[0] == 0


def test_an_answer_of_another_issuer_proves_nothing(world: World, bare: Rootward) -> None:
    other = Authority("Test Issuing CA", world.root)
    world.paths["/issuing.crl"] = lambda _: (200, other.crl(), {})
    world.write(world.leaf(ocsp=None))
    code, verdict, text = said(bare)
    assert (code, verdict["soft_fail"]) == (1, "accepts")
    assert "It is not well signed" in text


def test_a_stale_crl_proves_nothing(world: World, bare: Rootward) -> None:
    world.paths["/issuing.crl"] = lambda _: (200, world.issuing.crl(start=NOW - 3 * DAY, end=NOW - DAY), {})
    world.write(world.leaf(ocsp=None))
    assert said(bare)[1]["hard_fail"] == "refuses"


def test_no_rev_avail_needs_no_answer(world: World, bare: Rootward) -> None:
    extension = x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.56"), b"\x05\x00")
    world.write(world.leaf(crl=None, ocsp=None, extensions=[(extension, False)]))
    code, _, text = said(bare)
    assert code == 0
    assert "noRevAvail, RFC 9608" in text
    assert set(world.asked) == {"/root.crl"}


def test_no_source_at_all_is_not_good(world: World, bare: Rootward) -> None:
    world.write(world.leaf(crl=None, ocsp=None))
    assert said(bare)[0] == 1


def test_offline_asks_nobody(world: World, bare: Rootward) -> None:
    world.write(world.leaf())
    code, verdict, text = said(bare, "--offline")
    assert (code, verdict["hard_fail"], verdict["soft_fail"]) == (0, None, "accepts")
    assert "was not judged (--offline)" in text
    assert world.asked == []


@pytest.mark.parametrize(
    ("names", "host", "code"),
    [
        (("a.internal",), "b.internal", 1),
        (("*.a.internal",), "x.a.internal", 0),
        (("*.a.internal",), "x.y.a.internal", 1),
        (("a.internal",), "A.Internal", 0),
        (("a.internal",), "127.0.0.1", 1),
    ],
)
def test_the_host_is_looked_for(world: World, bare: Rootward, names: tuple[str, ...], host: str, code: int) -> None:
    world.write(world.leaf(*names))
    assert said(bare, "--host", host)[0] == code


def test_addresses_in_a_certificate_that_nobody_vouches_for_are_not_fetched(world: World, bare: Rootward) -> None:
    world.write(world.leaf())
    Path("root.pem").write_text(Authority("Test Root").pem)
    code, _, text = said(bare)
    assert code == 1
    assert "no trusted root vouches" in text
    assert world.asked == []


def test_only_http_is_fetched(world: World, bare: Rootward) -> None:
    Path("secret").write_text("x")
    world.write(world.leaf(crl=f"file://{Path('secret').absolute()}", ocsp="https://127.0.0.1:1/ocsp"))
    code, _, text = said(bare)
    assert code == 1
    assert text.count("is no http address") == 2


def test_a_certificate_alone_gets_a_hint(world: World, bare: Rootward) -> None:
    world.write(world.leaf())
    Path("fullchain.pem").write_bytes(world.leaf().public_bytes(PEM))
    code, _, text = said(bare)
    assert code == 1
    assert "fullchain.pem" in text


@pytest.mark.parametrize(
    "content", [b"", b"nonsense", b"-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"]
)
def test_a_file_that_is_no_certificate_is_wrong_usage(world: World, bare: Rootward, content: bytes) -> None:
    world.write(world.leaf())
    Path("fullchain.pem").write_bytes(content)
    assert bare(*VERIFY).code == 2
    assert bare("cert", "verify", "nowhere.pem", "--roots", "root.pem").code == 2
    assert bare(*VERIFY, "--host", "*.a.internal").code == 2
