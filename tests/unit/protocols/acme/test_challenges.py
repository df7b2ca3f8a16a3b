"""What proves a name and what does not, for what has been fetched already (RFC 8555 8.3, 8.4; RFC 8737; RFC 8738)."""

from __future__ import annotations

import base64
import hashlib

import pytest

from rootward.core import der
from rootward.core.names import DnsName, IpName, parse_dns, parse_ip
from rootward.egress import Answer, Peer
from rootward.protocols.acme.challenges import CHALLENGES, Failed, Task, dns01, http01, tlsalpn01
from tests.support.alpn import AUTHORIZATION, DIGEST, alt_names, certificate, dns, extension, identifier, ip

NAME = parse_dns("a.internal")
WILDCARD = parse_dns("*.internal")
V4, V6 = parse_ip("10.0.0.1"), parse_ip("fd00::1")


def task(name: DnsName | IpName) -> Task:
    return Task(name, "token", "thumbprint")


def test_the_key_authorization() -> None:
    assert task(NAME).key_authorization == AUTHORIZATION


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("http-01", [NAME, V4, V6]),
        ("dns-01", [NAME, WILDCARD]),
        ("tls-alpn-01", [NAME, V4, V6]),
    ],
)
def test_what_a_challenge_is_offered_for(kind: str, names: list[DnsName | IpName]) -> None:
    assert [name for name in (NAME, WILDCARD, V4, V6) if CHALLENGES[kind].offered(name)] == names


def test_every_name_has_a_challenge() -> None:
    assert list(CHALLENGES) == ["http-01", "dns-01", "tls-alpn-01"]


# http-01


@pytest.mark.parametrize("behind", [b"", b"\n", b"\r\n", b" \t\r\n\v\f", b" " * (127 - len(AUTHORIZATION))])
def test_the_key_authorization_with_whitespace_behind(behind: bytes) -> None:
    http01.check(Answer(200, AUTHORIZATION + behind), AUTHORIZATION)


META = b'<html><head><meta http-equiv="refresh" content="0; url=http://b.internal/">'


@pytest.mark.parametrize(
    ("answer", "kind", "again"),
    [
        (Answer(200, b""), "incorrectResponse", False),
        (Answer(200, b" " + AUTHORIZATION), "incorrectResponse", False),
        (Answer(200, b"\xef\xbb\xbf" + AUTHORIZATION), "incorrectResponse", False),
        (Answer(200, AUTHORIZATION + b"\0"), "incorrectResponse", False),
        (Answer(200, AUTHORIZATION + b"\nx"), "incorrectResponse", False),
        (Answer(200, AUTHORIZATION + b"\xc2\xa0"), "incorrectResponse", False),
        (Answer(200, AUTHORIZATION[:-1]), "incorrectResponse", False),
        (Answer(200, AUTHORIZATION.upper()), "incorrectResponse", False),
        (Answer(200, b"token.other"), "incorrectResponse", False),
        (Answer(200, AUTHORIZATION.ljust(127), more=True), "incorrectResponse", False),
        (Answer(206, AUTHORIZATION), "incorrectResponse", False),
        (Answer(404, AUTHORIZATION), "incorrectResponse", False),
        (Answer(403, b""), "incorrectResponse", False),
        (Answer(500, AUTHORIZATION), "incorrectResponse", True),
        (Answer(503, b""), "incorrectResponse", True),
        (Answer(300, AUTHORIZATION), "connection", False),
        (Answer(301, AUTHORIZATION), "connection", False),  # without a Location, or it had been followed
        (Answer(303, AUTHORIZATION), "connection", False),
        (Answer(304, AUTHORIZATION), "connection", False),
        (Answer(305, AUTHORIZATION), "connection", False),
        (Answer(200, META), "connection", False),
        (Answer(200, META, more=True), "connection", False),
        (Answer(200, META.replace(b'"refresh"', b"REFRESH")), "connection", False),
        (Answer(200, b"", refresh=True), "connection", False),
    ],
)
def test_what_is_no_proof_by_http(answer: Answer, kind: str, again: bool) -> None:
    with pytest.raises(Failed) as caught:
        http01.check(answer, AUTHORIZATION)
    assert (caught.value.kind, caught.value.again) == (kind, again)


# dns-01

RIGHT = base64.urlsafe_b64encode(DIGEST).rstrip(b"=")


@pytest.mark.parametrize("values", [[RIGHT], [b"", b"x", RIGHT], [RIGHT, RIGHT]])
def test_a_txt_record_with_the_digest(values: list[bytes]) -> None:
    dns01.check(values, AUTHORIZATION)


@pytest.mark.parametrize(
    ("values", "kind", "again"),
    [
        ([], "dns", True),
        ([b""], "incorrectResponse", False),
        ([RIGHT + b"="], "incorrectResponse", False),
        ([RIGHT + b" "], "incorrectResponse", False),
        ([b'"' + RIGHT + b'"'], "incorrectResponse", False),
        ([RIGHT.swapcase()], "incorrectResponse", False),
        ([base64.b64encode(hashlib.sha256(b"token.other").digest())], "incorrectResponse", False),
        ([hashlib.sha256(AUTHORIZATION).hexdigest().encode()], "incorrectResponse", False),
        ([AUTHORIZATION], "incorrectResponse", False),
        ([RIGHT[:20], RIGHT[20:]], "incorrectResponse", False),
    ],
)
def test_what_is_no_proof_by_dns(values: list[bytes], kind: str, again: bool) -> None:
    with pytest.raises(Failed) as caught:
        dns01.check(values, AUTHORIZATION)
    assert (caught.value.kind, caught.value.again) == (kind, again)


# tls-alpn-01


@pytest.mark.parametrize(
    ("name", "server_name"),
    [
        (NAME, "a.internal"),
        (V4, "1.0.0.10.in-addr.arpa"),
        (V6, "1." + "0." * 29 + "d.f.ip6.arpa"),
    ],
)
def test_what_is_asked_for_by_sni(name: DnsName | IpName, server_name: str) -> None:
    assert tlsalpn01.server_name(name) == server_name


OTHER = extension("2.5.29.19", der.sequence())


@pytest.mark.parametrize(
    ("name", "extensions"),
    [
        (NAME, [alt_names(dns("a.internal")), identifier()]),
        (NAME, [identifier(), OTHER, alt_names(dns("A.Internal"))]),
        (V4, [alt_names(ip("10.0.0.1")), identifier()]),
        (V6, [alt_names(ip("fd00::1")), identifier()]),
    ],
)
def test_a_certificate_that_proves_a_name(name: DnsName | IpName, extensions: list[bytes]) -> None:
    tlsalpn01.check(Peer(certificate(*extensions), "acme-tls/1"), task(name))


SAN = alt_names(dns("a.internal"))
LONG = extension("1.3.6.1.5.5.7.1.31", der.octet_string(DIGEST) + b"\x05\x00", critical=True)
BARE = extension("1.3.6.1.5.5.7.1.31", DIGEST, critical=True)
OLD = extension("1.3.6.1.5.5.7.1.30.1", der.octet_string(DIGEST), critical=True)  # of the drafts before RFC 8737


@pytest.mark.parametrize(
    ("name", "extensions"),
    [
        (NAME, []),
        (NAME, [SAN]),
        (NAME, [identifier()]),
        (NAME, [SAN, identifier(critical=None)]),
        (NAME, [SAN, identifier(critical=False)]),
        (NAME, [SAN, identifier(bytes(32))]),
        (NAME, [SAN, identifier(DIGEST[:31])]),
        (NAME, [SAN, identifier(DIGEST + b"\0")]),
        (NAME, [SAN, LONG]),
        (NAME, [SAN, BARE]),
        (NAME, [SAN, OLD]),
        (NAME, [SAN, identifier(), identifier()]),
        (NAME, [SAN, identifier(), identifier(bytes(32))]),
        (NAME, [SAN, identifier(), identifier(critical=None)]),
        (NAME, [SAN, SAN, identifier()]),
        (NAME, [alt_names(), identifier()]),
        (NAME, [extension("2.5.29.17", der.set_of(dns("a.internal"))), identifier()]),
        (NAME, [extension("2.5.29.17", der.sequence(dns("a.internal")) + b"\x05\x00"), identifier()]),
        (NAME, [alt_names(dns("a.internal"), dns("b.internal")), identifier()]),
        (NAME, [alt_names(dns("a.internal"), dns("a.internal")), identifier()]),
        (NAME, [alt_names(dns("a.internal"), ip("10.0.0.1")), identifier()]),
        (NAME, [alt_names(dns("b.internal")), identifier()]),
        (NAME, [alt_names(dns("*.internal")), identifier()]),
        (NAME, [alt_names(dns("a.internal.")), identifier()]),
        (NAME, [alt_names(dns("a.internal\0.evil")), identifier()]),
        (NAME, [alt_names(ip("10.0.0.1")), identifier()]),
        (NAME, [alt_names(der.implicit(1, b"a.internal")), identifier()]),
        (NAME, [alt_names(der.implicit(6, b"a.internal")), identifier()]),
        (V4, [alt_names(dns("10.0.0.1")), identifier()]),
        (V4, [alt_names(dns("1.0.0.10.in-addr.arpa")), identifier()]),
        (V4, [alt_names(ip("10.0.0.2")), identifier()]),
        (V4, [alt_names(ip("::ffff:10.0.0.1")), identifier()]),
        (V4, [alt_names(der.implicit(7, bytes((10, 0, 0, 1, 255, 255, 255, 255)))), identifier()]),
        (V6, [alt_names(ip("fd00::2")), identifier()]),
        (V6, [alt_names(ip("fd00::1"), ip("10.0.0.1")), identifier()]),
    ],
)
def test_a_certificate_that_proves_nothing(name: DnsName | IpName, extensions: list[bytes]) -> None:
    with pytest.raises(Failed) as caught:
        tlsalpn01.check(Peer(certificate(*extensions), "acme-tls/1"), task(name))
    assert (caught.value.kind, caught.value.again) == ("incorrectResponse", False)


@pytest.mark.parametrize("alpn", [None, "", "h2", "http/1.1", "acme-tls/2", "ACME-TLS/1"])
def test_without_the_protocol_no_certificate_counts(alpn: str | None) -> None:
    with pytest.raises(Failed) as caught:
        tlsalpn01.check(Peer(certificate(SAN, identifier()), alpn), task(NAME))
    assert (caught.value.kind, caught.value.again) == ("tls", False)


GOOD = certificate(SAN, identifier())


@pytest.mark.parametrize(
    "leaf",
    [
        b"",
        b"\x30\x00",
        GOOD[:-1],
        GOOD + b"\0",
        b"\x30\x80" + GOOD,
        der.sequence(der.sequence(der.explicit(3))),
        der.sequence(der.sequence(der.explicit(3, der.sequence(der.sequence())))),
        der.sequence(der.sequence(der.explicit(3, der.sequence(der.null())))),
        der.sequence(der.sequence(der.explicit(3, der.sequence(der.sequence(der.null(), der.null()))))),
        der.sequence(der.octet_string(GOOD)),
        b"\x30\x82\xff\xff" * 1000,
        bytes(100_000),
    ],
)
def test_what_is_no_certificate(leaf: bytes) -> None:
    with pytest.raises(Failed) as caught:
        tlsalpn01.check(Peer(leaf, "acme-tls/1"), task(NAME))
    assert caught.value.kind == "incorrectResponse"
