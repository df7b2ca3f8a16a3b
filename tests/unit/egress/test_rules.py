"""Which addresses may be called: every edge of every range, under no, narrow and the broadest lists."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import pytest

from rootward.config import Config
from rootward.egress import Rules, make_rules
from rootward.egress.rules import embedded, special_of

ALL = make_rules(["0.0.0.0/0", "::/0"])
DEFAULT = make_rules(Config().egress.allow)
NOTHING = make_rules([])
PORT = 80

# (what it is for the log, network). Written down here from the registries, not taken from the code.
SPECIAL = [
    ("unspecified", "0.0.0.0/8"),
    ("unspecified", "::/128"),
    ("loopback", "127.0.0.0/8"),
    ("loopback", "::1/128"),
    ("link-local", "169.254.0.0/17"),
    ("link-local", "169.254.192.0/18"),
    ("link-local", "fe81::/16"),
    ("link-local", "febf::/16"),
    ("metadata", "169.254.169.254/32"),
    ("metadata", "169.254.169.253/32"),
    ("metadata", "169.254.170.2/32"),
    ("metadata", "169.254.170.23/32"),
    ("metadata", "100.100.100.200/32"),
    ("metadata", "168.63.129.16/32"),
    ("metadata", "192.0.0.192/32"),
    ("metadata", "fd00:ec2::254/128"),
    ("metadata", "fd00:ec2::23/128"),
    ("metadata", "fd20:ce::254/128"),
    ("metadata", "fe80::a9fe:a9fe/128"),
    ("site-local", "fec0::/10"),
    ("multicast", "224.0.0.0/4"),
    ("multicast", "ff00::/8"),
    ("broadcast", "255.255.255.255/32"),
    ("reserved", "192.0.0.0/25"),
    ("reserved", "192.0.2.0/24"),
    ("reserved", "192.88.99.0/24"),
    ("reserved", "198.18.0.0/15"),
    ("reserved", "198.51.100.0/24"),
    ("reserved", "203.0.113.0/24"),
    ("reserved", "240.0.0.0/5"),
    ("reserved", "255.255.255.0/25"),
    ("reserved", "0:1::/32"),
    ("reserved", "80::/16"),
    ("reserved", "100::/64"),
    ("reserved", "200::/7"),
    ("reserved", "400::/6"),
    ("reserved", "800::/5"),
    ("reserved", "1000::/4"),
    ("reserved", "2001:2::/48"),
    ("reserved", "2001:10::/28"),
    ("reserved", "2001:20::/28"),
    ("reserved", "2001:db8::/32"),
    ("reserved", "3fff::/20"),
    ("reserved", "4000::/3"),
    ("reserved", "5f00::/16"),
    ("reserved", "6000::/3"),
    ("reserved", "8000::/3"),
    ("reserved", "a000::/3"),
    ("reserved", "c000::/3"),
    ("reserved", "e000::/4"),
    ("reserved", "f000::/5"),
    ("reserved", "f800::/6"),
    ("reserved", "fe00::/9"),
    ("mapped", "::ffff:0:0/96"),
    ("compatible", "::2/127"),
    ("compatible", "::7f00:0/104"),
    ("translated", "::ffff:0:0:0/96"),
    ("translated", "64:ff9b::/96"),
    ("translated", "64:ff9b:1::/48"),
    ("6to4", "2002::/16"),
    ("Teredo", "2001::/32"),
]
PRIVATE = ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/11", "100.96.0.0/14", "fc00::/8", "fd01::/16"]
PUBLIC = [
    "1.1.1.1/32",
    "8.8.8.8/32",
    "9.255.255.255/32",
    "11.0.0.0/32",
    "100.63.255.255/32",
    "100.128.0.0/32",
    "126.255.255.255/32",
    "128.0.0.0/32",
    "168.63.129.15/32",
    "168.63.129.17/32",
    "169.253.255.255/32",
    "169.255.0.0/32",
    "172.15.255.255/32",
    "172.32.0.0/32",
    "191.255.255.255/32",
    "192.0.1.0/32",
    "192.0.3.0/32",
    "192.167.255.255/32",
    "192.169.0.0/32",
    "198.17.255.255/32",
    "198.20.0.0/32",
    "198.51.99.255/32",
    "198.51.101.0/32",
    "203.0.112.255/32",
    "203.0.114.0/32",
    "223.255.255.255/32",
    "2000::/128",
    "2001:200::/23",
    "2001:4860:4860::8888/128",
    "2003::/16",
    "2606:4700::/32",
    "2fff:ffff::/32",
    "3ffe::/16",
]


def places(text: str) -> list[IPv4Address | IPv6Address]:
    """First, last and one in the middle."""
    network = ip_network(text)
    return list(dict.fromkeys([network[0], network[network.num_addresses // 2], network[-1]]))


def spread(rows: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(what, str(address)) for what, text in rows for address in places(text)]


EVERY_SPECIAL = spread(SPECIAL)
EVERY_PRIVATE = [str(address) for text in PRIVATE for address in places(text)]
EVERY_PUBLIC = [str(address) for text in PUBLIC for address in places(text)]


def test_the_table_is_large() -> None:
    assert len({address for _, address in EVERY_SPECIAL}) + len(EVERY_PRIVATE) + len(EVERY_PUBLIC) > 200


@pytest.mark.parametrize(("what", "address"), EVERY_SPECIAL)
def test_a_special_address_is_refused_whatever_broad_network_is_listed(what: str, address: str) -> None:
    where = ip_address(address)
    halves = [*ip_network("0.0.0.0/0").subnets(), *ip_network("::/0").subnets()]
    for rules in (ALL, DEFAULT, NOTHING, Rules(allow=tuple(halves))):
        assert rules.refusal(where, PORT) == what


@pytest.mark.parametrize(("what", "address"), EVERY_SPECIAL)
def test_the_network_right_around_a_range_does_not_open_it(what: str, address: str) -> None:
    where = ip_address(address)
    row = special_of(where)
    assert row is not None
    if row.network.prefixlen:
        assert Rules(allow=(row.network.supernet(),)).refusal(where, PORT) == what


@pytest.mark.parametrize(("what", "address"), EVERY_SPECIAL)
def test_a_special_address_opens_to_its_very_address(what: str, address: str) -> None:
    """One that stands for an IPv4 address is still judged by that."""
    where = ip_address(address)
    inner = embedded(where, what)
    alone = make_rules([address])
    if inner is None:
        assert alone.refusal(where, PORT) is None
        assert (
            alone.refusal(where + (-1 if where == ip_network(f"{where}/1", strict=False)[-1] else 1), PORT) is not None
        )
    else:
        assert alone.refusal(where, PORT) == NOTHING.refusal(inner, PORT)
        assert make_rules([address, str(inner)]).refusal(where, PORT) is None


@pytest.mark.parametrize("address", EVERY_PRIVATE)
def test_private_addresses_are_allowed_by_default(address: str) -> None:
    assert DEFAULT.refusal(ip_address(address), PORT) is None
    assert NOTHING.refusal(ip_address(address), PORT) == "not allowed"


@pytest.mark.parametrize("address", EVERY_PUBLIC)
def test_public_addresses_are_allowed_by_name_only(address: str) -> None:
    assert DEFAULT.refusal(ip_address(address), PORT) == "not allowed"
    assert ALL.refusal(ip_address(address), PORT) is None
    assert make_rules([address]).refusal(ip_address(address), PORT) is None


@pytest.mark.parametrize(
    ("allow", "address", "why"),
    [
        ("127.0.0.0/8", "127.0.0.1", None),
        ("127.0.0.0/16", "127.0.200.1", None),
        ("127.0.0.0/16", "127.1.0.1", "loopback"),
        ("126.0.0.0/7", "127.0.0.1", "loopback"),
        ("::1/128", "::1", None),
        ("::/127", "::1", "loopback"),
        ("127.0.0.0/8", "::1", "loopback"),
        ("127.0.0.0/8", "::ffff:127.0.0.1", "mapped"),
        ("127.0.0.0/8", "::127.0.0.1", "compatible"),
        ("127.0.0.0/8", "64:ff9b::7f00:1", "translated"),
        ("127.0.0.0/8", "2002:7f00:1::", "6to4"),
        ("169.254.0.0/16", "169.254.1.1", None),
        ("169.254.0.0/16", "169.254.169.254", "metadata"),
        ("169.254.169.254/31", "169.254.169.254", "metadata"),
        ("169.254.169.254/32", "169.254.169.254", None),
        ("100.64.0.0/10", "100.100.100.200", "metadata"),
        ("100.100.100.200/32", "100.100.100.200", None),
        ("fd00:ec2::/32", "fd00:ec2::254", "metadata"),
        ("fd00:ec2::254/128", "fd00:ec2::254", None),
        ("64:ff9b:1::/48", "64:ff9b:1::a00:1", "translated"),
        ("fe80::/10", "fe80::1", None),
        ("fe80::/10", "fe80::1%eth0", "zone"),
        ("fe80::1/128", "fe80::1%1", "zone"),
        ("240.0.0.0/4", "255.255.255.255", "broadcast"),
    ],
)
def test_what_a_listed_network_opens(allow: str, address: str, why: str | None) -> None:
    assert make_rules([allow]).refusal(ip_address(address), PORT) == why


@pytest.mark.parametrize(
    ("also", "address", "why"),
    [
        ("64:ff9b::/96", "64:ff9b::a00:1", None),
        ("64:ff9b::/96", "64:ff9b::7f00:1", "loopback"),
        ("64:ff9b::/96", "64:ff9b::a9fe:a9fe", "metadata"),
        ("64:ff9b::/96", "64:ff9b::808:808", "not allowed"),
        ("::ffff:0:0/96", "::ffff:10.0.0.1", None),
        ("::ffff:0:0/96", "::ffff:0.0.0.0", "unspecified"),
        ("::ffff:0:0/96", "::ffff:224.0.0.1", "multicast"),
        ("2002::/16", "2002:a00:1::1", None),
        ("2002::/16", "2002:7f00:1::1", "loopback"),
        ("2001::/32", "2001:0:a00:1::f5ff:fffe", None),  # the client's address, inverted: 10.0.0.1
        ("2001::/32", "2001:0:a00:1::80ff:fffe", "loopback"),
        ("::ffff:0:0:0/96", "::ffff:0:169.254.169.254", "metadata"),
    ],
)
def test_an_ipv4_address_inside_is_judged_too(also: str, address: str, why: str | None) -> None:
    assert make_rules(["10.0.0.0/8", also]).refusal(ip_address(address), PORT) == why


ANY = str(ip_address(0))
OWN = [("10.0.0.5", 443), ("fd00::5", 443), ("127.0.0.1", 8443), (ANY, 80)]


@pytest.mark.parametrize(
    ("address", "port", "here", "why"),
    [
        ("10.0.0.5", 443, False, "own listener"),
        ("10.0.0.5", 444, False, None),
        ("10.0.0.6", 443, False, None),
        ("fd00::5", 443, False, "own listener"),
        ("127.0.0.1", 8443, False, "own listener"),
        ("127.0.0.2", 8443, False, None),
        ("::ffff:10.0.0.5", 443, False, "own listener"),
        ("10.0.0.7", 80, False, None),
        ("10.0.0.7", 80, True, "own listener"),
        ("10.0.0.7", 81, True, None),
        ("fd00::7", 80, True, "own listener"),
        ("127.0.0.1", 80, False, "own listener"),
        ("::1", 80, False, "own listener"),
        ("::ffff:127.0.0.1", 80, False, "own listener"),
    ],
)
def test_what_we_listen_on(address: str, port: int, here: bool, why: str | None) -> None:
    broad = [*Config().egress.allow, "127.0.0.0/8", "::1/128", "::ffff:0:0/96"]
    where = ip_address(address)
    assert make_rules(broad, own=OWN).refusal(where, port, here=here) == why
    named = make_rules([*broad, address, "10.0.0.5/32", "127.0.0.1/32"], own=OWN)
    # "::1/128" is all of IPv6's loopback, so it cannot mean the listener
    assert named.refusal(where, port, here=here) == ("own listener" if address == "::1" else None)


def test_a_listener_on_every_address_is_told() -> None:
    rules = make_rules([], own=OWN)
    assert (rules.everywhere(80), rules.everywhere(443)) == (True, False)


@pytest.mark.parametrize(
    ("name", "covered"),
    [
        ("internal", True),
        ("a.internal", True),
        ("a.b.internal", True),
        ("ainternal", False),
        ("internal.example", False),
        ("a.corp.example", True),
        ("corp.example.evil", False),
        ("example", False),
    ],
)
def test_suffixes_are_whole_labels(name: str, covered: bool) -> None:
    assert make_rules([], suffixes=["internal", "corp.example"]).covers(name) is covered
    assert make_rules([]).covers(name)


def test_no_special_range_hides_another_one_that_is_wider() -> None:
    """What the log says is the narrowest: 169.254.169.254 is metadata before it is link-local."""
    for address in ("169.254.169.254", "fd00:ec2::254", "::ffff:127.0.0.1", "2001:0:1::"):
        row = special_of(ip_address(address))
        assert row is not None
        networks: list[IPv4Network | IPv6Network] = [
            ip_network(text) for _, text in SPECIAL if ip_address(address) in ip_network(text)
        ]
        assert all(network.prefixlen >= row.network.prefixlen for network in networks)
