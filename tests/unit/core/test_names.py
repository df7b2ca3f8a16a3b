"""Names: what is one, what is none, and that every form of a name leads to the same value."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Network, ip_address
from typing import Any

import idna
import pytest
from cryptography import x509
from hypothesis import given, settings
from hypothesis import strategies as st

from rootward.core.labels import one_script
from rootward.core.names import (
    DnsName,
    EmailName,
    IpName,
    Name,
    UriName,
    from_general_names,
    guess_name,
    parse_dns,
    parse_email,
    parse_ip,
    parse_name,
    parse_uri,
    sort_key,
    to_general_name,
)
from rootward.core.problems import Problem

GOOD_DNS = [
    "localhost",
    "a.internal",
    "*.a.internal",
    "*.internal",
    "0.internal",
    "1a.2b.3c",
    "a-b.internal",
    "a" * 63 + ".internal",
    ".".join(["a"] * 10),
    "xn--bcher-kva.internal",
    "xn--p1ai",
    "0x7g",
    ".".join(["a" * 60] * 4) + ".internal",
]


@pytest.mark.parametrize("text", GOOD_DNS)
def test_a_dns_name_is_one(text: str) -> None:
    name = parse_dns(text)
    assert (name.value, name.wildcard) == (text, text.startswith("*."))
    assert name.base == text.removeprefix("*.")
    assert parse_dns(text.upper()) == name
    assert parse_name(str(name)) == name


BAD_DNS = {
    "": "empty",
    ".": "dot",
    "a.": "dot",
    "a..b": "label is empty",
    ".a": "label is empty",
    "*.": "dot",
    "*..a": "label is empty",
    "a" * 64: "63",
    "a." * 127 + "a": "253",
    "a." * 10 + "a": "labels",
    "*." + "a." * 9 + "a": "labels",
    "-a": "hyphen",
    "a-": "hyphen",
    "a_b": "letters",
    "a b": "letters",
    "a\n": "letters",
    "a/b": "letters",
    "a:1": "letters",
    "1.2.3.4": "number",
    "1": "number",
    "a.1": "number",
    "a.0x1f": "number",
    "0x": "number",
    "*.127.0.0.1": "number",
    "*": "wildcard",
    "**.a": "wildcard",
    "*a.b": "wildcard",
    "a*.b": "wildcard",
    "a.*": "wildcard",
    "*.*.a": "wildcard",
    "\N{KELVIN SIGN}.internal": "ASCII",
    "b\u00fccher.internal": "ASCII",
    "ab--c.internal": "A-label",
    "xn--.internal": "hyphen",
    "xn--a.internal": "A-label",
    "*.xn--bcher-kva.internal": "wildcard",
}


@pytest.mark.parametrize("text", list(BAD_DNS))
def test_what_is_no_dns_name_is_refused_with_the_reason(text: str) -> None:
    with pytest.raises(Problem, match="RW-NAME: ") as caught:
        parse_dns(text, field="names")
    assert BAD_DNS[text] in caught.value.detail
    assert caught.value.reasons[0].field == "names"


@settings(max_examples=500)
@given(st.text(max_size=80) | st.text("ab1-.*_x0\n\u00fc", max_size=30))
def test_any_text_is_a_name_or_a_problem(text: str) -> None:
    for parse in (parse_dns, parse_ip, parse_uri, parse_email, parse_name, guess_name):
        made = _tried(parse, text)
        if isinstance(made, Problem):
            assert made.code in ("RW-NAME", "RW-NAME-TYPE", "RW-NAME-SCRIPT")
        else:
            assert parse_name(str(made)) == made
            assert str(made).isascii()


def _tried(parse: Callable[[str], Name], text: str) -> Name | Problem:
    try:
        return parse(text)
    except Problem as problem:
        return problem


@settings(max_examples=500)
@given(
    st.lists(st.from_regex(r"\A[a-z0-9]([a-z0-9-]{0,8}[a-z0-9])?\Z"), min_size=1, max_size=6),
    st.booleans(),
)
def test_host_names_are_taken_as_they_are(labels: list[str], wildcard: bool) -> None:
    text = ".".join(["*"] * wildcard + labels)
    odd = any(label[2:4] == "--" for label in labels) or labels[-1].isdigit() or labels[-1].startswith("0x")
    if odd:
        return
    assert parse_dns(text).value == text


LABELS = {
    "bücher": True,
    "παράδειγμα": True,
    "пример": True,
    "例え": True,
    "ひらがなカタカナ漢字abc": True,
    "한국漢字abc": True,
    "ㄅㄆ漢字": True,
    "मिसाल": True,
    "مثال": True,
    "שלום": True,
    "ไทย": True,
    "a1b": True,
    "раypal": False,
    "gооgle": False,
    "αbc": False,
    "аα": False,
    "한ひ": False,
    "漢жa": False,
    "ひж": False,
}


@pytest.mark.parametrize("label", list(LABELS))
def test_scripts_that_are_not_written_together_are_refused(label: str) -> None:
    assert one_script(label) is LABELS[label]
    if label.isascii():
        return
    text = idna.alabel(label).decode() + ".internal"
    if LABELS[label]:
        assert parse_dns(text).value == text
        assert guess_name(label + ".internal") == parse_dns(text)
    else:
        with pytest.raises(Problem, match="RW-NAME-SCRIPT"):
            parse_dns(text)


def test_a_letter_that_unicode_here_does_not_know_goes_with_nothing() -> None:
    assert not one_script("a\U0003fffd")


GOOD_IP = ["10.0.0.1", "127.0.0.1", "8.8.8.8", "::1", "fd00::1", "2001:db8::1", "2001:1::1", "2003::1"]


@pytest.mark.parametrize("text", GOOD_IP)
def test_an_address_is_one(text: str) -> None:
    name = parse_ip(text)
    assert name.address == ip_address(text)
    assert parse_name(str(name)) == guess_name(text) == name


@pytest.mark.parametrize(
    "text",
    [
        "",
        "10.0.0",
        "10.0.0.01",
        "010.0.0.1",
        "0x7f.0.0.1",
        "2130706433",
        "10.0.0.1/32",
        "10.0.0.1 ",
        "[::1]",
        "fe80::1%eth0",
        "fd00::1%eth0",
        "\u0661.1.1.1",
        "0.0.0.0",  # noqa: S104 - an address to refuse, not to listen on
        "0.1.2.3",
        "169.254.169.254",
        "224.0.0.1",
        "239.255.255.255",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::127.0.0.1",
        "::ffff:10.0.0.1",
        "::ffff:0:10.0.0.1",
        "64:ff9b::a00:1",
        "64:ff9b:1::1",
        "100::1",
        "2001::1",
        "2002:a00:1::",
        "fe80::1",
        "fec0::1",
        "ff02::1",
    ],
)
def test_what_no_peer_can_have_is_refused(text: str) -> None:
    with pytest.raises(Problem, match="RW-NAME: "):
        parse_ip(text)


GOOD_URI = {
    "spiffe://a.internal": "a.internal",
    "spiffe://a.internal/ns/x/sa/y": "a.internal",
    "spiffe://a_b.internal/X": "a_b.internal",
    "https://a.internal": None,
    "https://a.internal:8443/x?y=%20z": None,
    "https://10.0.0.1/x": None,
    "https://[fd00::1]:1/x": None,
    "urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6": None,
    "ldap:/x": None,
}


@pytest.mark.parametrize("text", list(GOOD_URI))
def test_a_uri_is_one(text: str) -> None:
    name = parse_uri(text)
    assert (name.value, name.trust_domain) == (text, GOOD_URI[text])
    assert parse_name(str(name)) == guess_name(text) == name


def test_scheme_and_host_of_a_uri_are_folded_but_nothing_else() -> None:
    assert parse_uri("HTTPS://A.Internal:1/X?Y").value == "https://a.internal:1/X?Y"
    assert parse_uri("SPIFFE://a.internal/X").value == "spiffe://a.internal/X"
    assert parse_uri("https://[FD00:0::1]/").value == "https://[fd00::1]/"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a.internal",
        "//a.internal/",
        "https:",
        "https://",
        "https:///x",
        "1https://a.internal",
        "https://u@a.internal",
        "https://u:p@a.internal",
        "https://a.internal:0",
        "https://a.internal:65536",
        "https://a.internal:x",
        "https://a_b.internal",
        "https://*.a.internal",
        "https://2130706433/",
        "https://10.0.0/",
        "https://0.0.0.0/",
        "https://[::1",
        "https://[fe80::1]/",
        "https://a.internal/x#y",
        "https://a.internal/%",
        "https://a.internal/%zz",
        "https://a.internal/.",
        "https://a.internal/../x",
        "https://a.internal/%2e%2e/x",
        "https://a.internal/x%2Fy",
        "https://a.internal/x%5cy",
        "https://a.internal/x%00",
        "https://a.internal/\\x",
        "https://a.internal/<x>",
        "https://a.internal/x\n",
        "https://a.internal/" + "x" * 2030,
        "javascript:alert(1)",
        "JAVASCRIPT:alert(1)",
        "data:,x",
        "file:///etc/passwd",
        "vbscript:x",
        "spiffe:a.internal",
        "spiffe://",
        "spiffe://A.internal",
        "spiffe://a.internal/",
        "spiffe://a.internal//x",
        "spiffe://a.internal/./x",
        "spiffe://a.internal/x/..",
        "spiffe://a.internal/x?y",
        "spiffe://a.internal:1/x",
        "spiffe://u@a.internal/x",
        "spiffe://" + "a" * 256,
    ],
)
def test_what_is_no_uri_for_a_certificate_is_refused(text: str) -> None:
    with pytest.raises(Problem, match="RW-NAME: "):
        parse_uri(text)


def test_an_e_mail_address_keeps_its_local_part() -> None:
    name = parse_email("First.Last+tag@A.Internal")
    assert (name.value, name.local, name.domain) == ("First.Last+tag@a.internal", "First.Last+tag", "a.internal")
    assert parse_name(str(name)) == guess_name("First.Last+tag@a.internal") == name


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "@a.internal",
        "a@",
        "a@b@c",
        ".a@b",
        "a.@b",
        "a..b@c",
        '"a"@b',
        "a b@c",
        "a@b c",
        "a\0@b",
        "a@[10.0.0.1]",
        "a@10.0.0.1",
        "a@*.b",
        "\u00e4@b",
        "a@\u00e4",
        "a" * 65 + "@b",
        "a@" + ".".join(["b" * 63] * 4),
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(Problem, match="RW-NAME: "):
        parse_email(text)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a.internal", "dns:a.internal"),
        ("*.a.internal", "dns:*.a.internal"),
        ("B\u00fccher.internal", "dns:xn--bcher-kva.internal"),
        ("10.0.0.1", "ip:10.0.0.1"),
        ("fd00::1", "ip:fd00::1"),
        ("x@B\u00fccher.internal", "email:x@xn--bcher-kva.internal"),
        ("urn:x:y", "uri:urn:x:y"),
        ("uri:urn:x:y", "uri:urn:x:y"),
        ("dns:a.internal", "dns:a.internal"),
    ],
)
def test_the_kind_is_seen_from_the_form(text: str, wanted: str) -> None:
    assert str(guess_name(text)) == wanted


@pytest.mark.parametrize("text", ["1.2.3.400", "\u2603.internal", "a\u0430b.internal", "a..\u00fc", "\u00fc" * 300])
def test_what_looks_like_nothing_is_refused(text: str) -> None:
    with pytest.raises(Problem, match="RW-NAME"):
        guess_name(text)


@pytest.mark.invariant("I-45")
@pytest.mark.parametrize("text", ["", "dns", "DNS:a.internal", "upn:x@y", "othername:x", ":a", " dns:a"])
def test_an_unknown_kind_is_refused(text: str) -> None:
    with pytest.raises(Problem, match="RW-NAME-TYPE"):
        parse_name(text)


def test_names_are_ordered_whatever_their_order_was() -> None:
    texts = ["email:a@b", "ip:10.0.0.10", "dns:b.a", "uri:urn:x:y", "ip:10.0.0.9", "ip:fd00::1", "dns:a.b"]
    wanted = ["dns:a.b", "dns:b.a", "ip:10.0.0.9", "ip:10.0.0.10", "ip:fd00::1", "uri:urn:x:y", "email:a@b"]
    assert [str(name) for name in sorted(map(parse_name, texts), key=sort_key)] == wanted
    assert [str(name) for name in sorted(map(parse_name, reversed(texts)), key=sort_key)] == wanted


@pytest.mark.parametrize("kind", [DnsName, IpName, UriName, EmailName])
def test_a_name_is_made_by_its_check_alone(kind: Any) -> None:
    with pytest.raises(TypeError):
        kind(value="evil")


@pytest.mark.parametrize(
    "text", ["dns:*.a.internal", "ip:10.0.0.1", "ip:fd00::1", "uri:spiffe://a.internal/x", "email:x@a.internal"]
)
def test_a_name_goes_into_a_certificate_and_comes_back(text: str) -> None:
    name = parse_name(text)
    assert from_general_names([to_general_name(name)]) == ([name], [])


def test_every_wrong_general_name_is_said() -> None:
    upn = x509.OtherName(x509.ObjectIdentifier("1.3.6.1.4.1.311.20.2.3"), b"\x0c\x01x")
    names, reasons = from_general_names(
        [
            x509.DNSName("A.internal"),
            x509.DNSName("a_b"),
            x509.IPAddress(IPv4Network("10.0.0.0/8")),
            x509.IPAddress(ip_address("::")),
            x509.UniformResourceIdentifier("javascript:x"),
            x509.RFC822Name("x"),
            upn,
            x509.OtherName(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00"),
            x509.DirectoryName(x509.Name([])),
            x509.RegisteredID(x509.ObjectIdentifier("1.2.3.4")),
        ]
    )
    assert names == [parse_dns("a.internal")]
    assert [reason.code for reason in reasons] == ["RW-NAME"] * 5 + ["RW-NAME-TYPE"] * 4
    assert "user principal name" in reasons[5].detail
