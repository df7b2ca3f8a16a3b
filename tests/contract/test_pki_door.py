"""The doors without a login, over a real socket and a real installation: CRL, OCSP, issuer certificates, health and
metrics.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import urllib.parse
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, pkcs7
from cryptography.x509 import ocsp
from starlette.types import ASGIApp

from rootward.ca.publish import current_crl, publish_due
from rootward.core.problems import Problem
from rootward.fleet.gauges import Gauges
from rootward.protocols import ops, pki
from rootward.protocols.edge import Edge
from rootward.protocols.http import HttpLimits
from tests.support.installation import Lab, lab
from tests.support.listener import Answer, Running, read, running

SCRAPE = "a-scrape-token-of-the-tests"
LIMITS = HttpLimits(bodies=((b"/ocsp/", 64 * 1024),))
MALFORMED, INTERNAL, TRY_LATER, UNAUTHORIZED = (b"\x30\x03\x0a\x01" + bytes([n]) for n in (1, 2, 3, 6))


class Door:
    """The listener, what is behind it, and what its responder is to say instead, if anything."""

    def __init__(self) -> None:
        self.lab: Lab
        self.running: Running
        self.failure: Problem | None = None
        self.state = ops.State()

    async def ocsp(self, authority: str, request: bytes) -> pki.Answer:
        if self.failure is not None:
            raise self.failure
        return await self.lab.responder.answer(authority, request)

    def ask(self, method: str, path: str, headers: dict[str, str] | None = None, body: bytes | None = None) -> Answer:
        lines = [f"{method} {path} HTTP/1.1".encode(), b"Host: pki.test", b"Connection: close"]
        lines += [f"{name}: {value}".encode() for name, value in (headers or {}).items()]
        if body is not None:
            lines.append(b"Content-Length: %d" % len(body))
        with self.running.dial() as sock:
            sock.sendall(b"\r\n".join([*lines, b"", b""]) + (body or b""))
            return read(sock, head=method == "HEAD")


def build(door: Door, folder: Path) -> Any:
    @contextlib.asynccontextmanager
    async def opened() -> AsyncIterator[ASGIApp]:
        async with lab(f"sqlite:///{folder}/rootward.db", home=folder) as made:
            door.lab = made
            await publish_due(made.inst)
            real = made.inst.clock
            made.inst.clock = lambda: real() + timedelta(seconds=1)  # a CRL has no date in its first second
            crl = partial(current_crl, made.inst)
            routes = pki.routes(made.inst, crl=crl, ocsp=door.ocsp, tls=True)
            gauges = Gauges(made.inst)
            routes += ops.routes(made.inst, crl=crl, state=door.state, gauges=gauges, scrape_token=SCRAPE)
            yield Edge("test", routes)

    return opened


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    door = Door()
    with running(build(door, tmp_path_factory.mktemp("pki")), limits=LIMITS) as made:
        door.running = made
        yield door


@pytest.fixture
def door(shared: Door) -> Iterator[Door]:
    yield shared
    shared.failure = None
    shared.state.stopping = False


@pytest.fixture(scope="module")
def issuing(shared: Door) -> x509.Certificate:
    return shared.lab.inst.authority("issuing").issuer.certificate


def request_for(certificate: x509.Certificate, issuer: x509.Certificate, nonce: bytes | None = None) -> bytes:
    builder = ocsp.OCSPRequestBuilder().add_certificate(certificate, issuer, hashes.SHA256())
    if nonce is not None:
        builder = builder.add_extension(x509.OCSPNonce(nonce), critical=False)
    return builder.build().public_bytes(Encoding.DER)


@pytest.fixture(scope="module")
def question(shared: Door, issuing: x509.Certificate) -> bytes:
    """A request about a certificate that the installation has issued: its responder's own."""
    own = shared.lab.responder._own["issuing"].certificate
    return request_for(own, issuing)


# ── CRL ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("authority", ["root", "issuing"])
def test_a_crl(door: Door, authority: str) -> None:
    answer = door.ask("GET", f"/crl/{authority}.crl")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/pkix-crl")
    crl = x509.load_der_x509_crl(answer.body)
    assert crl.is_signature_valid(door.lab.inst.authority(authority).issuer.certificate.public_key())  # type: ignore[arg-type]  # the CA key types are all among it
    cache = answer.headers["cache-control"].split(", ")
    assert 0 < int(cache[0].removeprefix("max-age=")) <= 60
    assert answer.headers["accept-ranges"] == "bytes"


@pytest.mark.invariant("I-18")
def test_a_crl_in_its_first_second_is_told_apart_by_its_tag_alone(door: Door) -> None:
    later = door.lab.inst.clock
    try:
        crl = asyncio.run(current_crl(door.lab.inst, "issuing"))
        assert crl is not None
        door.lab.inst.clock = lambda: crl.this_update
        assert "last-modified" not in door.ask("GET", "/crl/issuing.crl").headers
    finally:
        door.lab.inst.clock = later


def test_head_is_get_without_the_body(door: Door) -> None:
    whole, head = door.ask("GET", "/crl/issuing.crl"), door.ask("HEAD", "/crl/issuing.crl")
    assert head.body == b""
    same = ("content-length", "etag", "last-modified", "content-type")
    assert [head.headers[name] for name in same] == [whole.headers[name] for name in same]


def test_conditional_requests(door: Door) -> None:
    whole = door.ask("GET", "/crl/issuing.crl")
    etag, date = whole.headers["etag"], whole.headers["last-modified"]
    long_ago, never = "Sat, 01 Jan 2000 00:00:00 GMT", "Tue, 31 Dec 2099 00:00:00 GMT"
    for headers, status in (
        ({"If-None-Match": etag}, 304),
        ({"If-None-Match": f'"x", W/{etag}'}, 304),
        ({"If-None-Match": "*"}, 304),
        ({"If-None-Match": '"x"'}, 200),
        ({"If-None-Match": "no quotes"}, 200),
        ({"If-None-Match": '"x"', "If-Modified-Since": never}, 200),  # the date does not count beside a tag
        ({"If-Modified-Since": date}, 304),
        ({"If-Modified-Since": never}, 304),
        ({"If-Modified-Since": long_ago}, 200),
        ({"If-Modified-Since": "yesterday"}, 200),
        ({"If-Modified-Since": "Mon, 99 Foo 2026 99:99:99 GMT"}, 200),
        ({"If-Match": etag}, 200),
        ({"If-Match": "*"}, 200),
        ({"If-Match": '"x"'}, 412),
        ({"If-Match": f"W/{etag}"}, 412),
        ({"If-Unmodified-Since": long_ago}, 412),
        ({"If-Unmodified-Since": date}, 200),
    ):
        answer = door.ask("GET", "/crl/issuing.crl", headers)
        assert answer.status == status, headers
        if status == 304:
            assert (answer.body, answer.headers["etag"]) == (b"", etag)


def test_ranges(door: Door) -> None:
    whole = door.ask("GET", "/crl/issuing.crl")
    size, etag = len(whole.body), whole.headers["etag"]
    for asked, first, last in (
        ("bytes=0-0", 0, 0),
        ("bytes=10-19", 10, 19),
        ("bytes=10-", 10, size - 1),
        ("bytes=-10", size - 10, size - 1),
        (f"bytes=0-{size * 9}", 0, size - 1),
        (f"bytes=-{size * 9}", 0, size - 1),
        ("Bytes=1-2", 1, 2),
    ):
        answer = door.ask("GET", "/crl/issuing.crl", {"Range": asked})
        assert (answer.status, answer.body) == (206, whole.body[first : last + 1]), asked
        assert answer.headers["content-range"] == f"bytes {first}-{last}/{size}"
    for odd in (
        "bytes=-",
        "bytes=5-1",
        "bytes=a-b",
        "bytes=0-1,3-4",
        "lines=0-1",
        "bytes",
        "bytes=0x1-2",
        "bytes=1-2-3",
        "bytes=\u0661-".encode().decode("latin-1"),
    ):
        answer = door.ask("GET", "/crl/issuing.crl", {"Range": odd})
        assert (answer.status, answer.body) == (200, whole.body), odd
    for behind in (f"bytes={size}-", f"bytes={size}-{size + 1}", "bytes=-0"):
        answer = door.ask("GET", "/crl/issuing.crl", {"Range": behind})
        assert (answer.status, answer.headers["content-range"]) == (416, f"bytes */{size}"), behind
    assert door.ask("GET", "/crl/issuing.crl", {"Range": "bytes=0-0", "If-Range": etag}).status == 206
    assert door.ask("GET", "/crl/issuing.crl", {"Range": "bytes=0-0", "If-Range": '"x"'}).status == 200
    assert door.ask("GET", "/crl/issuing.crl", {"Range": "bytes=0-0", "If-None-Match": etag}).status == 304
    assert door.ask("HEAD", "/crl/issuing.crl", {"Range": "bytes=0-0"}).status == 200


@pytest.mark.parametrize(
    "path",
    [
        "/crl/unknown.crl",
        "/crl/issuing",
        "/crl/issuing.pem",
        "/crl/issuing.delta.crl",
        "/crl/issuing/1.crl",
        "/crl/ISSUING.crl",
        "/crl/.crl",
        "/crl/",
        "/crl/../crl/issuing.crl",
        "/crl/%2e%2e/crl/issuing.crl",
        "/crl/..%2fcrl%2fissuing.crl",
        "/crl/issuing%2ecrl%00",
        "/crl/issuing%00.crl",
        "/crl//issuing.crl",
        "/crl/issuing.crl/",
        "/ca/unknown.cer",
        "/ca/issuing.crl",
        "/ca/issuing%2F.cer",
        "/ocsp/unknown/MAA=",
        "/ocsp/..%2Fissuing/MAA=",
        "/ocsp%2Fissuing/MAA=",
        "/",
        "/nothing",
    ],
)
def test_what_is_not_there(door: Door, path: str) -> None:
    answer = door.ask("GET", path)
    assert (answer.status, answer.headers["content-type"]) == (404, "application/problem+json")
    assert answer.json["code"] == "RW-NOT-FOUND"
    assert answer.json["request_id"] == answer.headers["x-request-id"]


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("PUT", "/crl/issuing.crl", {"GET", "HEAD"}),
        ("POST", "/ca/issuing.cer", {"GET", "HEAD"}),
        ("PUT", "/ocsp/issuing", {"POST"}),
        ("GET", "/ocsp/issuing", {"POST"}),
        ("PUT", "/ocsp/issuing/MAA=", {"GET", "HEAD", "POST"}),
        ("DELETE", "/roots.pem", {"GET", "HEAD"}),
    ],
)
def test_a_wrong_method(door: Door, method: str, path: str, allow: set[str]) -> None:
    answer = door.ask(method, path)
    assert (answer.status, answer.json["code"]) == (405, "RW-METHOD")
    assert set(answer.headers["allow"].split(", ")) == allow


# ── issuer certificates ───────────────────────────────────────────────────────────────────────────────────────────


def test_issuer_certificates(door: Door, issuing: x509.Certificate) -> None:
    answer = door.ask("GET", "/ca/issuing.cer")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/pkix-cert")
    assert answer.body == issuing.public_bytes(Encoding.DER)
    answer = door.ask("GET", "/ca/issuing.p7c")
    assert answer.headers["content-type"].startswith("application/pkcs7-mime")
    assert pkcs7.load_der_pkcs7_certificates(answer.body) == [issuing]
    answer = door.ask("GET", "/ca/root.p7c")
    assert pkcs7.load_der_pkcs7_certificates(answer.body) == [door.lab.root]


def test_the_roots(door: Door) -> None:
    answer = door.ask("GET", "/roots.pem")
    assert x509.load_pem_x509_certificates(answer.body) == [door.lab.root]


def test_plain_http_has_no_roots(door: Door) -> None:
    paths = {
        route.path
        for route in pki.routes(door.lab.inst, crl=partial(current_crl, door.lab.inst), ocsp=door.ocsp, tls=False)
    }
    assert "/roots.pem" not in paths
    assert len(paths) == 4


# ── OCSP ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def post(door: Door, body: bytes, authority: str = "issuing", kind: str = "application/ocsp-request") -> Answer:
    return door.ask("POST", f"/ocsp/{authority}", {"Content-Type": kind}, body)


def test_ocsp_by_post(door: Door, question: bytes) -> None:
    for answer in (post(door, question), post(door, question, kind="Application/OCSP-Request; charset=x")):
        assert (answer.status, answer.headers["content-type"]) == (200, "application/ocsp-response")
        assert ocsp.load_der_ocsp_response(answer.body).certificate_status is ocsp.OCSPCertStatus.GOOD


def test_ocsp_by_post_to_the_address_with_a_slash(door: Door, question: bytes) -> None:
    answer = door.ask("POST", "/ocsp/issuing/", {"Content-Type": "application/ocsp-request"}, question)
    assert ocsp.load_der_ocsp_response(answer.body).certificate_status is ocsp.OCSPCertStatus.GOOD


def test_ocsp_by_get_has_honest_cache_headers(door: Door, question: bytes) -> None:
    path = "/ocsp/issuing/" + base64.b64encode(question).decode()
    answer = door.ask("GET", path)
    assert ocsp.load_der_ocsp_response(answer.body).certificate_status is ocsp.OCSPCertStatus.GOOD
    cache = answer.headers["cache-control"].split(", ")
    assert 0 < int(cache[0].removeprefix("max-age=")) <= 60
    assert cache[1:] == ["public", "no-transform", "must-revalidate"]
    assert {"etag", "last-modified", "expires", "date"} <= answer.headers.keys()
    assert door.ask("GET", path, {"If-None-Match": answer.headers["etag"]}).status == 304
    head = door.ask("HEAD", path)
    assert (head.status, head.body, head.headers["content-length"]) == (200, b"", str(len(answer.body)))


@pytest.mark.parametrize("raw", ["+/=", "/", "none"])
def test_ocsp_by_get_with_every_character_of_base64(door: Door, issuing: x509.Certificate, raw: str) -> None:
    own = door.lab.responder._own["issuing"].certificate
    seen = ""
    for n in range(400):
        body = request_for(
            own, issuing, bytes([n % 256, 0xFF, 0xFF, 0xFB, 0xEF, 0xFF, n // 256]) * 4 + b"\xff" * (n % 5)
        )
        text = base64.b64encode(body).decode()
        if not all(mark in text for mark in ("+", "/", "=", "//")):
            continue
        seen += text
        answer = door.ask("GET", "/ocsp/issuing/" + urllib.parse.quote(text, safe=raw.removeprefix("none")))
        response = ocsp.load_der_ocsp_response(answer.body)
        assert response.certificate_status is ocsp.OCSPCertStatus.GOOD
        assert response.extensions.get_extension_for_class(x509.OCSPNonce).value.nonce
        assert answer.headers["cache-control"] == "no-store"
        if len(seen) > 2000:
            break
    assert seen


@pytest.mark.parametrize("text", ["", "!!!!", "MAA", "MA A=", "MAA%3", "a" * 2052, "-_-_", "MAA=MAA="])
def test_ocsp_by_get_that_is_none(door: Door, text: str) -> None:
    answer = door.ask("GET", "/ocsp/issuing/" + urllib.parse.quote(text, safe="%=!"))
    assert (answer.status, answer.headers["content-type"]) == (200, "application/ocsp-response")
    assert answer.body == MALFORMED
    assert answer.headers["cache-control"] == "no-store"
    assert "etag" not in answer.headers


@pytest.mark.parametrize("more", ["%0A", "%00", "%FF", "%C3%A9", "%EF%BC%9D", "%20", "="])
def test_ocsp_by_get_with_something_more(door: Door, question: bytes, more: str) -> None:
    text = urllib.parse.quote(base64.b64encode(question).decode(), safe="")
    answer = door.ask("GET", f"/ocsp/issuing/{text}{more}")
    assert (answer.status, answer.body) == (200, MALFORMED)


def test_ocsp_that_is_no_request(door: Door, question: bytes) -> None:
    for body in (b"", b"\x30", question + b"\0", b"x" * 30_000):
        answer = post(door, body)
        assert (answer.status, answer.body, answer.headers["cache-control"]) == (200, MALFORMED, "no-store")
    assert post(door, question, kind="application/json").status == 415
    assert door.ask("POST", "/ocsp/issuing", {}, question).status == 415
    assert post(door, b"x" * 65_537).status == 413
    assert post(door, question, authority="unknown").status == 404


def test_ocsp_of_the_root_is_unauthorized(door: Door, question: bytes) -> None:
    assert post(door, question, authority="root").body == UNAUTHORIZED
    answer = door.ask("GET", "/ocsp/root/" + base64.b64encode(question).decode())
    assert (answer.status, answer.body, answer.headers["cache-control"]) == (200, UNAUTHORIZED, "no-store")


@pytest.mark.parametrize(("code", "status"), [("RW-STORE", TRY_LATER), ("RW-INTERNAL", INTERNAL)])
def test_ocsp_that_fails_says_so_as_ocsp(door: Door, question: bytes, code: str, status: bytes) -> None:
    door.failure = Problem(code, "for a test")
    answer = post(door, question)
    assert (answer.status, answer.body, answer.headers["cache-control"]) == (200, status, "no-store")


# ── health and metrics ────────────────────────────────────────────────────────────────────────────────────────────


def test_health(door: Door) -> None:
    assert door.ask("GET", "/healthz").json == {"status": "ok"}
    assert door.ask("GET", "/readyz").json == {"status": "ready", "failed": []}
    door.state.stopping = True
    answer = door.ask("GET", "/readyz")
    assert (answer.status, answer.json["failed"]) == (503, ["running"])
    assert door.ask("GET", "/healthz").status == 200


def test_readiness_follows_the_store_and_not_a_halt(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    inst = door.lab.inst
    with monkeypatch.context() as patch:
        # nothing is issued; CRL and OCSP go on, and no load balancer may take them away
        patch.setitem(inst.process.halted, "log", Problem("RW-CLOCK", "for a test"))
        assert door.ask("GET", "/readyz").status == 200

    async def away(_work: object) -> None:
        raise Problem("RW-STORE", "for a test")

    with monkeypatch.context() as patch:
        patch.setattr(inst.db, "status", away)
        answer = door.ask("GET", "/readyz")
        assert (answer.status, answer.json["failed"]) == (503, ["store", "crl"])
        assert door.ask("GET", "/healthz").json == {"status": "ok"}  # to start it anew would mend nothing
        assert door.ask("GET", "/crl/issuing.crl").status == 503
    assert door.ask("GET", "/readyz").status == 200
    with monkeypatch.context() as patch:
        real = inst.clock
        patch.setattr(inst, "clock", lambda: real() + timedelta(days=2))
        answer = door.ask("GET", "/readyz")
        assert (answer.status, answer.json["failed"]) == (503, ["crl"])


def test_metrics_are_for_auditors_and_scrapers(door: Door) -> None:
    assert door.ask("GET", "/metrics").status == 401
    assert door.ask("GET", "/metrics", {"Authorization": "Bearer wrong"}).status == 401
    for token in (SCRAPE, door.lab.token):
        answer = door.ask("GET", "/metrics", {"Authorization": f"Bearer {token}"})
        assert answer.status == 200
        assert b'rootward_http_requests_total{door="test",status="401"}' in answer.body
        assert b'rootward_crl_age_seconds{authority="issuing"}' in answer.body
        assert b'rootward_requests_running{door="test"} 1.0' in answer.body  # this very one
