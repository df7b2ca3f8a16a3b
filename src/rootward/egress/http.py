"""The pure half of an HTTP GET: URLs, where a redirect may lead, and an answer read within bounds (RFC 9110, 9112).

Only what a validation needs: one request on one connection, no cookies, no caches, no decompression. The parser is
llhttp, strict; what it does not take is an EgressError.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import urljoin, urlsplit

import httptools

from rootward.core.names import DnsName, IpName, parse_host, parse_ip
from rootward.core.problems import Problem
from rootward.egress.errors import EgressError, refused

Host = DnsName | IpName
REDIRECTS: Final = frozenset({301, 302, 307, 308})
STANDARD: Final = {"http": 80, "https": 443}
_URL_BYTES: Final = 2048
# RFC 3986 2: what a URI may hold. No backslash, no space, no control character: readers differ over those.
_URI: Final = re.compile(rb"(?:[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=-]|%[0-9A-Fa-f]{2})+")
# A scheme without a host, or too many slashes: some readers take the host of the page for it, some what comes next.
_HOSTLESS: Final = re.compile(rb"[A-Za-z][A-Za-z0-9+.-]*:(?!//[^/])|///")
_NETLOC: Final = re.compile(r"(?P<host>\[[^\]]*\]|[^:@\[\]]+)(?::(?P<port>[0-9]{1,5}))?", re.ASCII)
_NO_TARGET: Final = "A redirect leads to something that is not followed."


@dataclass(frozen=True)
class Url:
    """An absolute URL, taken apart. `target` is path and query as they are sent."""

    scheme: str
    host: Host
    port: int
    target: str

    @property
    def authority(self) -> str:
        """As the Host header has it (RFC 9110 7.2)."""
        host = bare(self.host)
        shown = f"[{host}]" if ":" in host else host
        return shown if self.port == STANDARD[self.scheme] else f"{shown}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}{self.target}"


def bare(host: Host) -> str:
    """The name or address by itself; of a wildcard what it stands above."""
    return host.base if isinstance(host, DnsName) else str(host.address)


def redirected(base: Url, location: bytes, ports: dict[str, int]) -> Url:
    """Where a Location field leads; `ports` has the one port of each scheme that may be followed. EgressError
    `connection` for anything else: another scheme or port, userinfo, a host that is neither a name nor an address in
    its usual form.
    """
    if len(location) > _URL_BYTES or not _URI.fullmatch(location) or _HOSTLESS.match(location):
        raise refused(_NO_TARGET)
    try:
        parts = urlsplit(urljoin(str(base), location.decode("ascii")))
    except ValueError:
        raise refused(_NO_TARGET) from None
    netloc = _NETLOC.fullmatch(parts.netloc)
    if parts.scheme not in ports or netloc is None:
        raise refused(_NO_TARGET)
    port = int(netloc["port"] or STANDARD[parts.scheme])
    if port != ports[parts.scheme]:
        raise refused("A redirect leads to a port that is not followed.")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Url(parts.scheme, _host(netloc["host"]), port, target)


def _host(text: str) -> Host:
    try:
        if text.startswith("["):
            return parse_ip(text[1:-1])
        return parse_ip(text) if re.fullmatch(r"[0-9.]+", text, re.ASCII) else parse_host(text)
    except Problem:
        raise refused(_NO_TARGET) from None


def request(url: Url, user_agent: str) -> bytes:
    """The GET. `identity`: what is compressed would have to be decompressed, and a little can become a lot."""
    return (
        f"GET {url.target} HTTP/1.1\r\n"
        f"Host: {url.authority}\r\n"
        f"User-Agent: {user_agent}\r\n"
        "Accept: */*\r\n"
        "Accept-Encoding: identity\r\n"
        "Connection: close\r\n\r\n"
    ).encode("ascii")


@dataclass(frozen=True)
class Answer:
    """`body` has at most as many bytes as were asked for; `more` where it went on. `location` of a redirect only.
    `refresh`: it has a Refresh field, which browsers follow.
    """

    status: int
    body: bytes
    more: bool = False
    location: bytes | None = None
    refresh: bool = False


class Reading:
    """An answer as it comes in. `feed` until it says True, `end` where the connection ended before.

    Of a redirect only the head is read, of another answer at most `body_bytes`.
    """

    def __init__(self, *, header_bytes: int, body_bytes: int) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._header_bytes, self._body_bytes = header_bytes, body_bytes
        self._came = self._fields_size = 0
        self._fields: dict[bytes, bytes] = {}
        self._body = bytearray()
        self._status = 0  # until the head is there
        self._whole = False

    def feed(self, data: bytes) -> bool:
        """Whether that is enough for `answer`. EgressError `incorrectResponse` where it is no HTTP, or its head is too
        large.
        """
        self._came += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            if not self._whole:  # what follows an answer is nobody's
                raise EgressError("incorrectResponse", "The answer is not HTTP.", again=False) from None
        if self._fields_size > self._header_bytes or (not self._status and self._came > self._header_bytes):
            raise EgressError("incorrectResponse", "The head of the answer is too large.", again=False)
        return self._whole or self._status in REDIRECTS or len(self._body) > self._body_bytes

    def end(self) -> None:
        """The connection ended. EgressError `connection` unless the end is what ends this answer (RFC 9112 6.3)."""
        framed = b"content-length" in self._fields or b"transfer-encoding" in self._fields
        if not self._status or (framed and not self._whole):
            raise EgressError("connection", "The connection ended before the answer did.")

    def answer(self) -> Answer:
        """What was read."""
        return Answer(
            status=self._status,
            body=bytes(self._body[: self._body_bytes]),
            more=len(self._body) > self._body_bytes,
            location=self._fields.get(b"location") if self._status in REDIRECTS else None,
            refresh=b"refresh" in self._fields,
        )

    # What llhttp calls. One answer only: the second on a connection is not read.

    def on_header(self, name: bytes, value: bytes) -> None:
        """One field; the last of a name counts."""
        self._fields_size += len(name) + len(value) + 4
        if not self._whole:
            self._fields[name.lower()] = value

    def on_headers_complete(self) -> None:
        """The head is there, or that of an interim answer (1xx, RFC 9110 15.2), which says nothing."""
        self._fields_size += 16  # the status line
        status = self._parser.get_status_code()
        if status < 200:
            self._fields.clear()
        elif not self._whole:
            self._status = status

    def on_body(self, data: bytes) -> None:
        """A part of the body; no more is kept than one byte beyond what is asked for."""
        if self._status and not self._whole:
            self._body += data[: self._body_bytes + 1 - len(self._body)]

    def on_message_complete(self) -> None:
        """Nothing follows that belongs to the answer."""
        self._whole = self._status > 0
