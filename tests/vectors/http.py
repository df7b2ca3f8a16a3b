"""Hostile bytes on a connection, each with what must come back: a status and a code, or the end without a word.

`pieces` may go on without end (bounded by `MOST`): the server has to cut such a sender off, and `sent_at_most` says how
soon. Times are those that the tests configure (`header_seconds` and `body_seconds` of 1). Limits are the defaults:
8 KiB of URL, 32 KiB and 100 fields of header, 1 MiB of body, 256 KiB for an OCSP request. The same on every door,
because every row is refused before any door, or names a path that all have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import repeat

MOST = 200 * 1024 * 1024  # bytes of an endless sender
EARLY = 16 * 1024 * 1024  # what the server, the sockets and its linger may take of it
HOST = b"Host: localhost\r\n"
GET = b"GET / HTTP/1.1\r\n" + HOST
OCSP = b"POST /ocsp/issuing HTTP/1.1\r\n" + HOST + b"Content-Type: application/ocsp-request\r\n"
CHUNKED = OCSP + b"Transfer-Encoding: chunked\r\n\r\n"

Outcome = tuple[int, str] | None
TOO_LARGE, MALFORMED, TIMEOUT, NOT_FOUND = "RW-TOO-LARGE", "RW-MALFORMED", "RW-TIMEOUT", "RW-NOT-FOUND"


@dataclass(frozen=True)
class Bytes:
    """What is sent, and the outcome: (status, code), (status, "") for an answer that is no problem, None for the end of
    the connection without an answer. `slowly`: one octet at a time, until the server has enough.
    """

    name: str
    outcome: Outcome
    pieces: Callable[[], Iterable[bytes]]
    slowly: bool = False
    sent_at_most: int = EARLY


def _once(name: str, status: int, code: str, data: bytes) -> Bytes:
    return Bytes(name, (status, code), lambda: [data])


def _endless(name: str, status: int, code: str, head: bytes, piece: bytes) -> Bytes:
    def pieces() -> Iterator[bytes]:
        yield head
        yield from repeat(piece * max(1, 65_536 // len(piece)), MOST // 65_536)

    return Bytes(name, (status, code), pieces)


def _path(path: bytes) -> Bytes:
    return _once(f"path {path!r}", 404, NOT_FOUND, b"GET %b HTTP/1.1\r\n" % path + HOST + b"\r\n")


def _host(value: bytes) -> Bytes:
    return _once(f"host {value!r}", 400, MALFORMED, b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n" % value)


def _length(value: bytes) -> Bytes:
    return _once(f"length {value!r}", 400, MALFORMED, OCSP + b"Content-Length: %b\r\n\r\n" % value)


def _chunk(size: bytes) -> Bytes:
    return _once(f"chunk size {size!r}", 400, MALFORMED, CHUNKED + size + b"\r\nabc\r\n0\r\n\r\n")


ENDLESS = [
    _endless("a header without an end", 431, TOO_LARGE, GET + b"X: ", b"a"),
    _endless("a header's name without an end", 431, TOO_LARGE, GET, b"a"),
    _endless("headers without an end", 431, TOO_LARGE, GET, b"X: 1\r\n"),
    _endless("large headers without an end", 431, TOO_LARGE, GET, b"X: " + b"a" * 1000 + b"\r\n"),
    _endless("a URL without an end", 414, TOO_LARGE, b"GET /", b"a"),
    _endless("a method without an end", 400, MALFORMED, b"", b"A"),
    _endless("empty lines without an end", 431, TOO_LARGE, b"", b"\r\n"),
    _endless("a chunk's extension without an end", 431, TOO_LARGE, CHUNKED + b"1;", b"a"),
    _endless("a trailer without an end", 431, TOO_LARGE, CHUNKED + b"0\r\nX: ", b"a"),
    _endless("trailers without an end", 431, TOO_LARGE, CHUNKED + b"0\r\n", b"X: 1\r\n"),
    _endless("chunks without an end", 413, TOO_LARGE, CHUNKED, b"400\r\n" + b"a" * 1024 + b"\r\n"),
    _endless("chunks of one octet without an end", 413, TOO_LARGE, CHUNKED, b"1\r\na\r\n"),
    _endless("one chunk without an end", 413, TOO_LARGE, CHUNKED + b"7fffffff\r\n", b"a"),
    _endless("a body over the limit", 413, TOO_LARGE, OCSP + b"Content-Length: 262145\r\n\r\n", b"a"),
    _endless("a body of terabytes", 413, TOO_LARGE, OCSP + b"Content-Length: 4398046511104\r\n\r\n", b"a"),
    _endless("noise", 400, MALFORMED, b"", bytes(range(128, 256))),
]

HALF = [
    Bytes("half a request line", (408, TIMEOUT), lambda: [b"GET /cr"]),
    Bytes("half a header", (408, TIMEOUT), lambda: [GET + b"X: 1"]),
    Bytes("a header without its last line", (408, TIMEOUT), lambda: [GET]),
    Bytes("half a body", (408, TIMEOUT), lambda: [OCSP + b"Content-Length: 100\r\n\r\nabc"]),
    Bytes("half a chunk", (408, TIMEOUT), lambda: [CHUNKED + b"10\r\nabc"]),
    Bytes("a last chunk without its end", (408, TIMEOUT), lambda: [CHUNKED + b"0\r\n"]),
    Bytes("a header octet by octet", (408, TIMEOUT), lambda: [GET + b"X: " + b"a" * 20_000], slowly=True),
    Bytes(
        "a body octet by octet",
        (408, TIMEOUT),
        lambda: [OCSP + b"Content-Length: 20000\r\n\r\n", b"a" * 20_000],
        slowly=True,
    ),
    Bytes("nothing", None, list),
]

FRAMING = [
    _once("both lengths", 400, MALFORMED, OCSP + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n"),
    _once("both lengths, turned", 400, MALFORMED, OCSP + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"),
    _once("two lengths", 400, MALFORMED, OCSP + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcde"),
    _once("two codings", 400, MALFORMED, OCSP + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n"),
    _once("gzip", 400, MALFORMED, OCSP + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
    _once("identity", 400, MALFORMED, OCSP + b"Transfer-Encoding: identity\r\n\r\n"),
    _once("chunked, hidden", 400, MALFORMED, OCSP + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n"),
    _once(
        "chunked in HTTP/1.0",
        400,
        MALFORMED,
        OCSP.replace(b"/1.1", b"/1.0") + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    _length(b"-1"),
    _length(b"+5"),
    _length(b"0x5"),
    _length(b"5, 5"),
    _length(b"5 5"),
    _length(b"18446744073709551616"),
    _length(b"9" * 40),
    _chunk(b"10000000000000000"),
    _chunk(b"fffffffffffffffff"),
    _chunk(b"-1"),
    _chunk(b"0x3"),
    _chunk(b""),
    _chunk(b"zz"),
    _once("a chunk that is longer than said", 400, MALFORMED, CHUNKED + b"3\r\nabcdef\r\n0\r\n\r\n"),
    _once("a folded header", 400, MALFORMED, GET + b"X: 1\r\n 2\r\n\r\n"),
    _once("a space before the colon", 400, MALFORMED, GET + b"X : 1\r\n\r\n"),
    _once("a header without a name", 400, MALFORMED, GET + b": 1\r\n\r\n"),
    _once("a header without a colon", 400, MALFORMED, GET + b"X\r\n\r\n"),
    _once("bare line feeds", 400, MALFORMED, b"GET / HTTP/1.1\nHost: localhost\n\n"),
    _once("bare carriage returns", 400, MALFORMED, b"GET / HTTP/1.1\rHost: localhost\r\r"),
    _once("NUL in a value", 400, MALFORMED, GET + b"X: a\0b\r\n\r\n"),
    _once("NUL in a name", 400, MALFORMED, GET + b"X\0: a\r\n\r\n"),
    _once("NUL in the URL", 400, MALFORMED, b"GET /\0 HTTP/1.1\r\n" + HOST + b"\r\n"),
    _once("101 headers", 431, TOO_LARGE, GET + b"X: 1\r\n" * 100 + b"\r\n"),
]

LINE = [
    _once("no host", 400, MALFORMED, b"GET / HTTP/1.1\r\n\r\n"),
    _once("two hosts", 400, MALFORMED, GET + HOST + b"\r\n"),
    *map(_host, (b"", b" ", b"a b", b"a/b", b"u@a", b"a,b", b"a:b", b"a:999999", b"[::1", b"\xff", b"<a>", b"a\\b")),
    _once("another host in the URL", 400, MALFORMED, b"GET http://other/ HTTP/1.1\r\n" + HOST + b"\r\n"),
    _once("the same host in the URL", 404, NOT_FOUND, b"GET http://localhost/x HTTP/1.1\r\n" + HOST + b"\r\n"),
    _once("another scheme", 400, MALFORMED, b"GET file:///etc/passwd HTTP/1.1\r\n" + HOST + b"\r\n"),
    _once("no path", 400, MALFORMED, b"GET x HTTP/1.1\r\n" + HOST + b"\r\n"),
    _once("a proxy's request", 405, "RW-METHOD", b"CONNECT a:1 HTTP/1.1\r\n" + HOST + b"\r\n"),
    _once("a fragment", 400, MALFORMED, b"GET /#a HTTP/1.1\r\n" + HOST + b"\r\n"),
    _once("an unknown method", 400, MALFORMED, b"BREW / HTTP/1.1\r\n" + HOST + b"\r\n"),
    _once("a method in small letters", 400, MALFORMED, b"get / HTTP/1.1\r\n" + HOST + b"\r\n"),
    _once("HTTP/0.9", 505, MALFORMED, b"GET /\r\n\r\n"),
    _once("HTTP/2.0", 505, MALFORMED, b"GET / HTTP/2.0\r\n" + HOST + b"\r\n"),
    _once("HTTP/9.9", 400, MALFORMED, b"GET / HTTP/9.9\r\n" + HOST + b"\r\n"),
    _once("the preface of HTTP/2", 400, MALFORMED, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    _once("a TLS greeting inside", 400, MALFORMED, b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03"),
    _once("another protocol", 400, MALFORMED, b"SSH-2.0-OpenSSH_9.2\r\n"),
    _once("a WebSocket", 403, "RW-FORBIDDEN", GET + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"),
    *map(
        _path,
        (
            b"/..",
            b"/../etc/passwd",
            b"/crl/../ca/issuing.cer",
            b"/crl/%2e%2e/ca/issuing.cer",
            b"/crl/issuing%2fcrl",
            b"/crl/issuing.crl%00",
            b"/crl/%00",
            b"/crl\\issuing.crl",
            b"/crl/..%5cissuing.crl",
            b"//crl/issuing.crl",
            b"/crl//issuing.crl",
            b"/CRL/issuing.crl",
            b"/crl/issuing.crl/",
            b"/%ff",
            b"/%",
            b"/%E2%80%AE",
        ),
    ),
    _once("a header of 100 fields that are allowed", 404, NOT_FOUND, GET + b"X: 1\r\n" * 99 + b"\r\n"),
    _once(
        "expect of a body that is too long",
        413,
        TOO_LARGE,
        OCSP + b"Expect: 100-continue\r\nContent-Length: 262145\r\n\r\n",
    ),
    _once("a trailer that means nothing", 200, "", CHUNKED + b"3\r\nabc\r\n0\r\nHost: other\r\n\r\n"),
    _once("a chunk's extension that means nothing", 200, "", CHUNKED + b"3;a=b\r\nabc\r\n0\r\n\r\n"),
]

BAD_HTTP = [*ENDLESS, *HALF, *FRAMING, *LINE]
