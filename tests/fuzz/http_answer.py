"""What a web server answers to a validation: an answer, and where it redirects to, or an `EgressError`.

The first octet says in pieces of what size it comes.
"""

from __future__ import annotations

from rootward.core.names import parse_dns
from rootward.egress import EgressError, Url
from rootward.egress.http import Reading, redirected
from rootward.protocols.acme.challenges import Failed
from rootward.protocols.acme.challenges.http01 import check

LARGEST = 20 * 1024
BODY, HEADER = 127, 2048
BASE = Url("http", parse_dns("a.internal"), 80, "/.well-known/acme-challenge/token")
PORTS = {"http": 80, "https": 443}


def one(data: bytes) -> None:
    """Anything that is raised from here is a crasher."""
    piece = (data[0] if data else 0) * 8 + 1
    reading = Reading(header_bytes=HEADER, body_bytes=BODY)
    try:
        for at in range(1, len(data), piece):
            if reading.feed(data[at : at + piece]):
                break
        else:
            reading.end()
        answer = reading.answer()
        if len(answer.body) > BODY or answer.status < 200:
            raise AssertionError("more was read than was asked for")
        if answer.location is not None:
            url = redirected(BASE, answer.location, PORTS)
            if url.port != PORTS[url.scheme] or redirected(BASE, str(url).encode(), PORTS) != url:
                raise AssertionError("a redirect leads elsewhere than it says")
            return
        check(answer, b"token.thumbprint")
    except EgressError as error:
        if error.kind not in ("connection", "incorrectResponse"):
            raise AssertionError(error.kind) from error
    except Failed as failed:
        if failed.kind not in ("connection", "incorrectResponse"):
            raise AssertionError(failed.kind) from failed
    else:
        if b"token.thumbprint" not in data.replace(b"\r\n", b"") and b"chunked" not in data.lower():
            raise AssertionError("proven by something else than the proof")


def seeds() -> list[bytes]:
    """Right answers and wrong ones, and every redirect there is."""
    from tests.vectors.targets import TARGETS

    pages = [target.page for target in TARGETS if isinstance(target.page, bytes)]
    head = b"HTTP/1.1 200 OK\r\n"
    odd = [
        head + b"Transfer-Encoding: chunked\r\n\r\n5\r\ntoken\r\nb;x=y\r\n.thumbprint\r\n0\r\nA: b\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + head + b"Content-Length: 16\r\n\r\ntoken.thumbprint",
        b"HTTP/1.0 200 OK\r\n\r\ntoken.thumbprint  \r\n",
        b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/1.1 301 X\r\nLocation: //[fd00::1]:80/../x?y#z\r\n\r\n",
    ]
    return [bytes([at % 256]) + page for at, page in enumerate([*odd, *pages])]
