"""The pure half of a GET: where redirects may lead, and answers in pieces of any size."""

from __future__ import annotations

import gzip
from itertools import pairwise

import pytest

from rootward.core.names import parse_dns, parse_ip
from rootward.egress import Answer, EgressError, Url
from rootward.egress.http import Reading, redirected, request

PORTS = {"http": 80, "https": 443}
BASE = Url("http", parse_dns("a.internal"), 80, "/.well-known/acme-challenge/tok")

FOLLOWED = [
    (b"http://b.internal/x", "http://b.internal/x"),
    (b"http://B.Internal/x", "http://b.internal/x"),
    (b"HTTP://b.internal", "http://b.internal/"),
    (b"http://b.internal:80/x?y=%20z", "http://b.internal/x?y=%20z"),
    (b"http://b.internal?y", "http://b.internal/?y"),
    (b"https://b.internal/x#top", "https://b.internal/x"),
    (b"https://b.internal:443/", "https://b.internal/"),
    (b"//b.internal/x", "http://b.internal/x"),
    (b"/x", "http://a.internal/x"),
    (b"x", "http://a.internal/.well-known/acme-challenge/x"),
    (b"../../x", "http://a.internal/x"),
    (b"?q", "http://a.internal/.well-known/acme-challenge/tok?q"),
    (b"http://10.0.0.1/", "http://10.0.0.1/"),
    (b"http://[fd00::1]/", "http://[fd00::1]/"),
    (b"http://[FD00:0::1]:80/", "http://[fd00::1]/"),
]
NOT_FOLLOWED = [
    # other schemes
    b"ftp://b.internal/",
    b"file:///etc/passwd",
    b"gopher://b.internal:80/_x",
    b"javascript:alert(1)",
    b"data:text/plain,x",
    b"ws://b.internal/",
    b"unix:/run/docker.sock",
    # other ports
    b"http://b.internal:22/",
    b"http://b.internal:8500/",
    b"http://b.internal:49152/",
    b"http://b.internal:443/",
    b"https://b.internal:80/",
    b"http://b.internal:0/",
    b"http://b.internal:65616/",  # 80 in sixteen bits
    b"http://b.internal:99999/",
    b"http://b.internal:8o/",
    b"http://b.internal:+80/",
    # somebody's name or password
    b"http://user@b.internal/",
    b"http://user:pass@b.internal/",
    b"http://b.internal@127.0.0.1/",
    b"http://b.internal:80@127.0.0.1/",
    b"http://@b.internal/",
    # hosts that readers differ over
    b"http://2130706433/",
    b"http://0x7f000001/",
    b"http://0x7f.0.0.1/",
    b"http://0177.0.0.1/",
    b"http://127.1/",
    b"http://127.0.0.1./",
    b"http://b.internal./",
    b"http://*.internal/",
    b"http://b_c.internal/",
    b"http://b%2einternal/",
    b"http://b.internal%00.evil/",
    b"http:///x",
    b"http:x",
    b"http:/x",
    b"///b.internal/",
    b"////b.internal/",
    b"http://:80/",
    b"http://[::1",
    b"http://[::1]x/",
    b"http://[fe80::1%25eth0]/",
    b"http://[fe80::1%eth0]/",
    b"http://[::ffff:127.0.0.1]/",
    b"http://[v1.x]/",
    b"http://[127.0.0.1]/",
    b"http://0.0.0.0/",
    b"http://169.254.169.254/latest/meta-data/",
    b"http://[::]/",
    b"http://[64:ff9b::7f00:1]/",
    b"http://[2002:7f00:1::]/",
    b"http://255.255.255.255/",
    b"http://224.0.0.1/",
    # bytes that no URI has
    b"",
    b" http://b.internal/",
    b"http://b.internal/ x",
    b"http://b.internal\\@127.0.0.1/",
    b"http:\\\\127.0.0.1/",
    b"http://b.internal/\t",
    b"http://b.internal/\x00",
    b"http://b.internal/%",
    b"http://b.internal/%zz",
    "http://b.internal/é".encode(),
    "http://ⓑ.internal/".encode(),
    b"http://b.internal/" + b"x" * 2048,
]


@pytest.mark.parametrize(("location", "leads_to"), FOLLOWED)
def test_a_redirect_that_is_followed(location: bytes, leads_to: str) -> None:
    assert str(redirected(BASE, location, PORTS)) == leads_to


@pytest.mark.parametrize("location", NOT_FOLLOWED)
def test_a_redirect_that_is_not_followed(location: bytes) -> None:
    with pytest.raises(EgressError) as caught:
        redirected(BASE, location, PORTS)
    assert (caught.value.kind, caught.value.again) == ("connection", False)
    assert caught.value.sentence in (
        "A redirect leads to something that is not followed.",
        "A redirect leads to a port that is not followed.",
    )


def test_a_redirect_keeps_to_the_ports_that_are_set() -> None:
    base = Url("http", parse_dns("a.internal"), 5002, "/x")
    ports = {"http": 5002, "https": 5001}
    assert str(redirected(base, b"/y", ports)) == "http://a.internal:5002/y"
    assert str(redirected(base, b"https://b.internal:5001/", ports)) == "https://b.internal:5001/"
    for location in (b"http://b.internal/", b"https://b.internal/", b"http://b.internal:5001/"):
        with pytest.raises(EgressError):
            redirected(base, location, ports)


@pytest.mark.parametrize(
    ("url", "host"),
    [
        (BASE, b"a.internal"),
        (Url("http", parse_dns("a.internal"), 5002, "/"), b"a.internal:5002"),
        (Url("https", parse_dns("a.internal"), 80, "/"), b"a.internal:80"),
        (Url("http", parse_ip("10.0.0.1"), 80, "/"), b"10.0.0.1"),
        (Url("http", parse_ip("fd00::1"), 80, "/"), b"[fd00::1]"),
        (Url("http", parse_ip("fd00::1"), 81, "/"), b"[fd00::1]:81"),
    ],
)
def test_the_request(url: Url, host: bytes) -> None:
    lines = request(url, "rootward/1").split(b"\r\n")
    assert lines[0] == b"GET " + url.target.encode() + b" HTTP/1.1"
    assert lines.count(b"Host: " + host) == 1
    assert b"User-Agent: rootward/1" in lines
    assert b"Accept-Encoding: identity" in lines
    assert lines[-2:] == [b"", b""]


def read(data: bytes, *, piece: int, body_bytes: int = 127, header_bytes: int = 1024) -> Answer:
    reading = Reading(header_bytes=header_bytes, body_bytes=body_bytes)
    for start, end in pairwise([*range(0, len(data), piece), len(data)]):
        if reading.feed(data[start:end]):
            return reading.answer()
    reading.end()
    return reading.answer()


HEAD = b"HTTP/1.1 200 OK\r\n"
GOOD = [
    (HEAD + b"Content-Length: 2\r\n\r\nok", Answer(200, b"ok")),
    (HEAD + b"\r\nok", Answer(200, b"ok")),
    (b"HTTP/1.0 200 OK\r\n\r\nok", Answer(200, b"ok")),
    (HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\no\r\n1;x=y\r\nk\r\n0\r\n\r\n", Answer(200, b"ok")),
    (b"HTTP/1.1 103 Early Hints\r\nRefresh: 1\r\n\r\n" + HEAD + b"Content-Length: 2\r\n\r\nok", Answer(200, b"ok")),
    (b"HTTP/1.1 100 Continue\r\n\r\n" * 3 + HEAD + b"\r\nok", Answer(200, b"ok")),
    (HEAD + b"Content-Length: 2\r\n\r\nokHTTP/1.1 404 No\r\nContent-Length: 1\r\n\r\nx", Answer(200, b"ok")),
    (HEAD + b"Content-Length: 2\r\nConnection: close\r\n\r\nok and more", Answer(200, b"ok")),
    (HEAD + b"Content-Length: 0\r\nRefresh: 0; url=http://b.internal/\r\n\r\n", Answer(200, b"", refresh=True)),
    (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", Answer(404, b"")),
    (b"HTTP/1.1 204 No Content\r\nLocation: /x\r\n\r\n", Answer(204, b"")),
    (b"HTTP/1.1 303 See Other\r\nLocation: /x\r\nContent-Length: 0\r\n\r\n", Answer(303, b"")),
    (b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n", Answer(302, b"")),
    (HEAD + b"\r\n" + b"x" * 127, Answer(200, b"x" * 127)),
    (HEAD + b"\r\n" + b"x" * 128, Answer(200, b"x" * 127, more=True)),
    (HEAD + b"Content-Length: 10000000000\r\n\r\n" + b"x" * 200, Answer(200, b"x" * 127, more=True)),
]


@pytest.mark.parametrize("piece", [1, 7, 64, 100_000])
@pytest.mark.parametrize(("data", "answer"), GOOD)
def test_an_answer_in_pieces(data: bytes, answer: Answer, piece: int) -> None:
    assert read(data, piece=piece) == answer


@pytest.mark.parametrize("status", [301, 302, 307, 308])
@pytest.mark.parametrize("piece", [1, 100_000])
def test_of_a_redirect_the_head_is_enough(status: int, piece: int) -> None:
    data = b"HTTP/1.1 %d X\r\nLocation: /y\r\nContent-Length: 10000000000\r\n\r\n" % status
    answer = read(data, piece=piece)
    assert (answer.status, answer.location, answer.more) == (status, b"/y", False)


def test_what_is_compressed_stays_so() -> None:
    bomb = gzip.compress(bytes(10_000_000))
    answer = read(HEAD + b"Content-Encoding: gzip\r\n\r\n" + bomb, piece=1000)
    assert answer == Answer(200, bomb[:127], more=True)


BAD = [
    (b"SSH-2.0-OpenSSH_9.2\r\n", "incorrectResponse"),
    (b"\x16\x03\x01\x02\x00", "incorrectResponse"),
    (b"HTTP/9.9 200 OK\r\n\r\n", "incorrectResponse"),
    (b"HTTP/1.1 2000 OK\r\n\r\n", "incorrectResponse"),
    (HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nok", "incorrectResponse"),
    (HEAD + b"Content-Length: -1\r\n\r\nok", "incorrectResponse"),
    (HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\nok", "incorrectResponse"),
    (HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nok", "incorrectResponse"),
    (HEAD + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\nok", "incorrectResponse"),
    (HEAD + b"A b: c\r\n\r\nok", "incorrectResponse"),
    (HEAD + b"X: " + b"y" * 1100, "incorrectResponse"),
    (HEAD + b"X: y\r\n" * 400 + b"\r\nok", "incorrectResponse"),
    (b"HTTP/1.1 100 Continue\r\n\r\n" * 100 + HEAD + b"\r\nok", "incorrectResponse"),
    (b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", "incorrectResponse"),
    (b"", "connection"),
    (b"HTTP/1.1 200", "connection"),
    (HEAD + b"Content-Length: 3\r\n\r\nok", "connection"),
    (HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", "connection"),
    (b"HTTP/1.1 103 Early\r\n\r\n", "connection"),
    (b"HTTP/1.1 000 OK\r\n\r\n" + b"x" * 200, "connection"),
]


@pytest.mark.parametrize("piece", [1, 50, 100_000])
@pytest.mark.parametrize(("data", "kind"), BAD)
def test_what_is_no_answer(data: bytes, kind: str, piece: int) -> None:
    with pytest.raises(EgressError) as caught:
        read(data, piece=piece)
    assert caught.value.kind == kind
    assert caught.value.again is (kind == "connection")
