"""Patterns match what they say and nothing that an identity or a name can smuggle in; name constraints hold."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from rootward.core.constraints import within_constraints
from rootward.core.names import parse_dns, parse_email, parse_ip, parse_name, parse_uri
from rootward.core.patterns import (
    matches_ip,
    parse_dns_pattern,
    parse_email_pattern,
    parse_network,
    parse_uri_pattern,
)
from rootward.core.problems import Problem

ALICE = {"user": "alice", "team": "web"}


@pytest.mark.parametrize(
    ("pattern", "name", "matches"),
    [
        ("localhost", "localhost", True),
        ("localhost", "a.localhost", False),
        ("localhost", "*.localhost", False),
        (".internal", "a.internal", True),
        (".internal", "a.b.c.internal", True),
        (".INTERNAL", "a.internal", True),
        (".internal", "internal", False),
        (".internal", "ainternal", False),
        (".internal", "a.internal.example.com", False),
        (".internal", "*.internal", False),
        (".internal", "*.a.internal", True),
        (".a.internal", "*.a.internal", False),
        (".a.internal", "b.internal", False),
        ("a.internal", "*.a.internal", False),
        ("{user}.people.internal", "alice.people.internal", True),
        ("{user}.people.internal", "bob.people.internal", False),
        ("{user}.people.internal", "*.people.internal", False),
        ("{user}.people.internal", "*.alice.people.internal", False),
        ("{user}.people.internal", "a.alice.people.internal", False),
        ("{other}.people.internal", "alice.people.internal", False),
        ("{user}.{team}.internal", "alice.web.internal", True),
        ("{user}.{team}.internal", "web.alice.internal", False),
        (".{team}.internal", "a.web.internal", True),
        (".{team}.internal", "a.b.web.internal", True),
        (".{team}.internal", "web.internal", False),
        (".{team}.internal", "a.db.internal", False),
    ],
)
def test_dns_patterns(pattern: str, name: str, matches: bool) -> None:
    assert parse_dns_pattern(pattern).matches(parse_dns(name), ALICE) is matches


@pytest.mark.invariant("I-44")
@pytest.mark.parametrize(
    "value",
    [
        "",
        "*",
        "a.b",
        "a.*",
        "alice.",
        ".alice",
        "-alice",
        "alice-",
        "al_ice",
        "alicé",
        "xn--bcher-kva",
        "ab--c",
        "{user}",
        "(alice|bob)",
        "alice\n",
        "a" * 64,
        "K",
        "alice people",
    ],
)
def test_an_attribute_that_is_not_one_label_matches_nothing(value: str) -> None:
    pattern = parse_dns_pattern("{user}.people.internal")
    for name in ("alice.people.internal", "a.b.people.internal", "k.people.internal", "xn--bcher-kva.people.internal"):
        assert not pattern.matches(parse_dns(name), {"user": value})


@pytest.mark.invariant("I-44")
@given(st.text(max_size=70) | st.from_regex(r"\A[a-zA-Z0-9.*-]{1,10}\Z"), st.from_regex(r"\A[a-z0-9]{1,5}\Z"))
def test_an_attribute_only_ever_gives_its_own_name(value: str, label: str) -> None:
    pattern = parse_dns_pattern("{user}.people.internal")
    name = parse_dns(f"{label}.people.internal")
    assert pattern.matches(name, {"user": value}) is (value.isascii() and value.lower() == label)


def test_attributes_are_compared_as_dns_compares() -> None:
    assert parse_dns_pattern("{user}.internal").matches(parse_dns("alice.internal"), {"user": "Alice"})


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "..a",
        "a..b",
        "*",
        "*.internal",
        ".*.internal",
        "a*",
        "{user}",
        ".{user}",
        "a.{user}",
        "{User}.internal",
        "x{user}.internal",
        "{user}x.internal",
        "{}.internal",
        "{user.internal",
        "a_b",
        "a.1",
        "bücher",
        "/x/",
        "^a$",
        "{user}{team}.internal",
        "a.internal.",
    ],
)
def test_what_is_no_dns_pattern_is_refused(text: str) -> None:
    with pytest.raises(Problem, match="RW-PROFILE-INVALID"):
        parse_dns_pattern(text)


@pytest.mark.parametrize(
    ("pattern", "uri", "matches"),
    [
        ("spiffe://a.internal/x", "spiffe://a.internal/x", True),
        ("spiffe://a.internal/x", "spiffe://a.internal/x/y", False),
        ("spiffe://a.internal/x", "spiffe://a.internal/X", False),
        ("spiffe://a.internal/**", "spiffe://a.internal/x", True),
        ("spiffe://a.internal/**", "spiffe://a.internal/x/y/z", True),
        ("spiffe://a.internal/**", "spiffe://a.internal", False),
        ("spiffe://a.internal/**", "spiffe://a.internal.example.com/x", False),
        ("spiffe://a.internal/ns/**", "spiffe://a.internal/nsx/y", False),
        ("spiffe://a.internal/ns/{team}/sa/{user}", "spiffe://a.internal/ns/web/sa/alice", True),
        ("spiffe://a.internal/ns/{team}/sa/{user}", "spiffe://a.internal/ns/db/sa/alice", False),
        ("spiffe://a.internal/ns/{team}/sa/{user}", "spiffe://a.internal/ns/web/sa/alice/x", False),
        ("spiffe://a.internal/ns/{team}/**", "spiffe://a.internal/ns/web/x/y", True),
        ("spiffe://a.internal/ns/{team}/**", "spiffe://a.internal/ns/web", False),
        ("spiffe://a.internal/{other}", "spiffe://a.internal/alice", False),
        ("https://A.internal/x", "https://a.internal/x", True),
        ("https://A.internal/x/**", "https://a.internal/x/y", True),
        ("https://a.internal/**", "https://a.internal:8443/y", False),
        ("https://a.internal/**", "https://a.internal/x?y", False),
        ("https://a.internal/**", "https://a.internal/x//y", False),
        ("https://a.internal/**", "https://a.internal/", False),
        ("https://a.internal/x?y", "https://a.internal/x?y", True),
        ("urn:x:y", "urn:x:y", True),
        ("urn:x:y", "urn:x:y:z", False),
    ],
)
def test_uri_patterns(pattern: str, uri: str, matches: bool) -> None:
    assert parse_uri_pattern(pattern).matches(parse_uri(uri), ALICE) is matches


@pytest.mark.invariant("I-44")
@pytest.mark.parametrize(
    "value", ["", ".", "..", "**", "*", "a/b", "a%2fb", "a b", "{user}", "alice\n", "a" * 129, "a?b"]
)
def test_an_attribute_that_is_not_one_segment_matches_nothing(value: str) -> None:
    pattern = parse_uri_pattern("https://a.internal/{user}/x")
    for uri in ("https://a.internal/a/b/x", "https://a.internal/alice/x", "https://a.internal/*/x"):
        assert not pattern.matches(parse_uri(uri), {"user": value})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "spiffe://{user}/x",
        "spiffe://**",
        "{user}://a.internal/x",
        "spiffe://a.internal/**/x",
        "urn:**",
        "urn:/**",
        "https://a.internal/x{user}",
        "https://a.internal/{user}?x",
        "javascript:x",
        "https://a.internal/../**",
        "https://*/x",
        "https://a.internal/{user.x}",
    ],
)
def test_what_is_no_uri_pattern_is_refused(text: str) -> None:
    with pytest.raises(Problem, match="RW-PROFILE-INVALID"):
        parse_uri_pattern(text)


@pytest.mark.parametrize(
    ("pattern", "address", "matches"),
    [
        ("root@a.internal", "root@A.internal", True),
        ("root@a.internal", "Root@a.internal", False),
        ("root@a.internal", "root@b.a.internal", False),
        ("@a.internal", "x@a.internal", True),
        ("@a.internal", "x@b.a.internal", False),
        ("@a.internal", "x@ba.internal", False),
        ("@.internal", "x@a.internal", True),
        ("@.internal", "x@internal", False),
    ],
)
def test_email_patterns(pattern: str, address: str, matches: bool) -> None:
    assert parse_email_pattern(pattern).matches(parse_email(address), {}) is matches


@pytest.mark.parametrize(
    "text", ["", "@", "@.", "a", "*@a.internal", "@*.internal", "a@", "@a@b", "a@.internal", "@a b"]
)
def test_what_is_no_email_pattern_is_refused(text: str) -> None:
    with pytest.raises(Problem, match="RW-PROFILE-INVALID"):
        parse_email_pattern(text)


def test_networks_hold_addresses_of_their_own_version() -> None:
    networks = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))
    assert matches_ip(networks, parse_ip("10.1.2.3"))
    assert matches_ip(networks, parse_ip("fd00::1"))
    assert not matches_ip(networks, parse_ip("11.0.0.1"))
    assert not matches_ip((ip_network("0.0.0.0/0"),), parse_ip("fd00::1"))
    assert parse_network("10.0.0.0/8") == networks[0]
    for text in ("10.0.0.1/8", "x", "10.0.0.0/33"):
        with pytest.raises(Problem, match="RW-PROFILE-INVALID"):
            parse_network(text)


def _trees(*texts: str) -> list[x509.GeneralName] | None:
    found: list[x509.GeneralName] = []
    for text in texts:
        kind, _, value = text.partition(":")
        match kind:
            case "dns":
                found.append(x509.DNSName(value))
            case "ip":
                found.append(x509.IPAddress(ip_network(value)))
            case "email":
                found.append(x509.RFC822Name(value))
            case _:
                found.append(x509.UniformResourceIdentifier(value))
    return found or None


@pytest.mark.invariant("I-46")
@pytest.mark.parametrize(
    ("permitted", "excluded", "name", "within"),
    [
        (["dns:a.internal"], [], "dns:a.internal", True),
        (["dns:a.internal"], [], "dns:b.a.internal", True),
        (["dns:A.Internal"], [], "dns:*.a.internal", True),
        (["dns:a.internal"], [], "dns:*.internal", False),
        (["dns:a.internal"], [], "dns:ba.internal", False),
        (["dns:.a.internal"], [], "dns:b.a.internal", True),
        (["dns:.a.internal"], [], "dns:a.internal", False),
        (["dns:a.internal"], [], "ip:10.0.0.1", True),
        (["dns:a.internal", "dns:b.internal"], [], "dns:b.internal", True),
        (["dns:internal"], ["dns:a.internal"], "dns:b.internal", True),
        (["dns:internal"], ["dns:a.internal"], "dns:x.a.internal", False),
        (["dns:internal"], ["dns:a.internal"], "dns:*.internal", False),
        (["dns:internal"], ["dns:a.b.internal"], "dns:*.internal", True),
        ([], ["dns:"], "dns:a.internal", False),
        (["ip:10.0.0.0/8"], [], "ip:10.0.0.1", True),
        (["ip:10.0.0.0/8"], [], "ip:11.0.0.1", False),
        (["ip:10.0.0.0/8"], [], "ip:fd00::1", False),
        (["ip:fd00::/8"], [], "ip:fd00::1", True),
        ([], ["ip:10.0.0.0/8"], "ip:10.0.0.1", False),
        ([], ["ip:0.0.0.0/0"], "ip:fd00::1", True),
        (["email:a.internal"], [], "email:x@a.internal", True),
        (["email:a.internal"], [], "email:x@b.a.internal", False),
        (["email:.a.internal"], [], "email:x@b.a.internal", True),
        (["email:.a.internal"], [], "email:x@a.internal", False),
        (["email:x@a.internal"], [], "email:x@a.internal", True),
        (["email:x@a.internal"], [], "email:X@a.internal", False),
        ([], ["email:a.internal"], "email:x@a.internal", False),
        (["uri:a.internal"], [], "uri:https://a.internal/x", True),
        (["uri:a.internal"], [], "uri:https://a.internal:1/x", True),
        (["uri:a.internal"], [], "uri:spiffe://a.internal/x", True),
        (["uri:a.internal"], [], "uri:https://b.a.internal/x", False),
        (["uri:.a.internal"], [], "uri:https://b.a.internal/x", True),
        (["uri:a.internal"], [], "uri:https://10.0.0.1/x", False),
        (["uri:a.internal"], [], "uri:urn:x:a.internal", False),
        ([], ["uri:a.internal"], "uri:urn:x:y", False),
        ([], ["uri:a.internal"], "uri:https://[fd00::1]/", False),
        ([], ["uri:a.internal"], "uri:https://b.internal/a.internal", True),
    ],
)
def test_name_constraints(permitted: list[str], excluded: list[str], name: str, within: bool) -> None:
    trees = _trees(*permitted), _trees(*excluded)
    reasons = within_constraints([parse_name(name)], x509.NameConstraints(*trees))
    assert [reason.code for reason in reasons] == ([] if within else ["RW-NAME-CONSTRAINED"])
