"""Hostile targets of a validation, and a few good ones: what leads there, what comes of it, and how often somebody was
called. Played by `tests/support/outside.py`, where every address there is leads to a listener that counts.

Bad inputs 166 to 188.
"""

from __future__ import annotations

from typing import NamedTuple

GOOD, GOOD6 = "10.0.0.80", "fd00::80"  # the one host that may be called
PROOF = b"token.thumbprint"
HEAD = b"HTTP/1.1 200 OK\r\n"


class Target(NamedTuple):
    """`kinds` are the failures that are right; none: the name is proven. `hits` is how often the good host is called;
    nobody else ever is. `page` is what the good host answers, or the name of a way to answer (`outside.py`).

    `a` and `aaaa` are what the name's addresses are, question after question.
    """

    id: str
    kinds: tuple[str, ...] = ("connection",)
    hits: int = 0
    challenge: str = "http-01"
    name: str = "dns:a.internal"
    a: tuple[tuple[str, ...], ...] = ((GOOD,),)
    aaaa: tuple[tuple[str, ...], ...] = ()
    page: bytes | str = HEAD + b"\r\n" + PROOF
    allow: tuple[str, ...] | None = None  # None: the default
    suffixes: tuple[str, ...] = ()
    port: int = 80
    seconds: float = 60.0  # only what must end by time has few


# What a name of any redirect below leads to. `a.internal` is the target's own.
ZONE: dict[str, tuple[str, ...]] = {
    "b.internal": (GOOD,),
    "b.example": (GOOD,),
    "loopback.internal": ("127.0.0.1",),
    "loopback6.internal": ("::1",),
    "meta.internal": ("169.254.169.254",),
    "meta6.internal": ("fd00:ec2::254",),
    "public.internal": ("8.8.8.8",),
    "mapped.internal": ("::ffff:10.0.0.80",),
    "nat64.internal": ("64:ff9b::a00:50",),
    "mixed.internal": (GOOD, "127.0.0.1"),
    "own.internal": ("10.0.0.5",),
}

ADDRESSES = """
0.0.0.0 0.1.2.3 127.0.0.1 127.0.0.53 127.1.2.3 127.255.255.254 169.254.0.1 169.254.169.254 169.254.170.2 169.254.170.23
100.100.100.200 168.63.129.16 192.0.0.192 192.0.0.1 192.0.2.1 198.18.0.1 198.51.100.1 203.0.113.1 224.0.0.1
239.255.255.250 240.0.0.1 255.255.255.255 8.8.8.8 1.1.1.1 100.63.255.255 172.32.0.1 192.169.0.1 11.0.0.1
:: ::1 ::2 ::7f00:1 ::a00:50 ::ffff:127.0.0.1 ::ffff:10.0.0.80 ::ffff:169.254.169.254 ::ffff:0:7f00:1 64:ff9b::7f00:1
64:ff9b::a00:50 64:ff9b::a9fe:a9fe 64:ff9b:1::a00:50 2002:7f00:1:: 2002:a00:50::1 2002:a9fe:a9fe::
2001:0:a00:50::80ff:fffe 2001:db8::1 100::1 fe80::1 fe80::a9fe:a9fe fec0::1 ff02::1 ff0e::1 fd00:ec2::254 fd20:ce::254
2606:4700::1111 4000::1 2001:2::1 3fff::1 5f00::1
""".split()
BROAD = ("0.0.0.0/0", "::/0")
PUBLIC = ("8.8.8.8", "1.1.1.1", "100.63.255.255", "172.32.0.1", "192.169.0.1", "11.0.0.1", "2606:4700::1111")


def at(address: str, **more: object) -> Target:
    """The name leads straight there."""
    turns = ((address,),)
    base = Target("", a=(), aaaa=turns) if ":" in address else Target("", a=turns)
    return base._replace(**more)  # type: ignore[arg-type]  # fields of Target


def to(location: str, *, status: int = 302, **more: object) -> Target:
    """The good host redirects there."""
    page = f"HTTP/1.1 {status} X\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()
    return Target(f"redirect {status} to {location}", hits=1, page=page)._replace(**more)  # type: ignore[arg-type]  # as above


def tls(way: str, *kinds: str, **more: object) -> Target:
    """tls-alpn-01, and how the good host shakes hands."""
    return Target(f"tls {way}", kinds, 1, "tls-alpn-01", page=way)._replace(**more)  # type: ignore[arg-type]  # as above


DIRECT = [
    *(at(address, id=f"http-01 at {address}") for address in ADDRESSES),
    *(
        at(address, id=f"http-01 at {address} with everything allowed", allow=BROAD)
        for address in ADDRESSES
        if address not in PUBLIC
    ),
    *(
        at(address, id=f"tls-alpn-01 at {address}", challenge="tls-alpn-01")
        for address in (
            "127.0.0.1",
            "169.254.169.254",
            "8.8.8.8",
            "::1",
            "::ffff:127.0.0.1",
            "fd00:ec2::254",
            "10.0.0.5",
        )
    ),
    *(
        Target(f"{challenge} of {name}", challenge=challenge, name=name)
        for challenge in ("http-01", "tls-alpn-01")
        for name in ("ip:127.0.0.1", "ip:::1", "ip:8.8.8.8", "ip:2606:4700::1111", "ip:203.0.113.1", "ip:10.0.0.5")
    ),
    Target("a private address that is not allowed", allow=("192.168.0.0/16",)),
    Target("nothing is allowed", allow=()),
    Target("a name outside the domains", suffixes=("example",)),
    at("10.0.0.5", id="our own http listener"),
    at("fd00::5", id="a listener of ours on every address, by IPv6", port=8444),
    at("10.0.0.7", id="a listener of ours on every address", port=8444),
    at("10.0.0.6", id="our own database", port=5432),
    at("10.0.0.6", id="our own database with everything allowed", port=5432, allow=BROAD),
    Target("http-01 of localhost", ("dns",), name="dns:localhost"),
    Target("http-01 of a.localhost", ("dns",), name="dns:a.localhost"),
]

ANSWERS = [
    Target("one of three addresses is loopback", a=((GOOD, "10.0.0.81", "127.0.0.1"),)),
    Target("one of three addresses is public", a=((GOOD, "10.0.0.81", "8.8.8.8"),)),
    Target("a good IPv4 and a bad IPv6 address", aaaa=(("::1",),)),
    Target("a good IPv6 and a bad IPv4 address", a=(("169.254.169.254",),), aaaa=((GOOD6,),)),
    Target("tls: one of two addresses is metadata", challenge="tls-alpn-01", a=((GOOD, "169.254.169.254"),)),
    Target("rebinding: the second answer is loopback", (), 1, a=((GOOD,), ("127.0.0.1",))),
    Target("rebinding: the first answer is loopback", a=(("127.0.0.1",), (GOOD,))),
    to("/other", a=((GOOD,), ("127.0.0.1",)), id="rebinding between two hops"),
    to("https://a.internal/", a=((GOOD,), ("169.254.169.254",)), id="rebinding before the https hop"),
    Target("good: IPv6 only", (), 1, a=(), aaaa=((GOOD6,),)),
    Target("good: an address", (), 1, name=f"ip:{GOOD}"),
    Target("good: an IPv6 address", (), 1, name=f"ip:{GOOD6}"),
]

REDIRECTS = [
    *(
        to(f"http://{f'[{address}]' if ':' in address else address}/")
        for address in ADDRESSES
        if address not in ("::2", "2001:2::1", "3fff::1", "5f00::1")  # enough of those
    ),
    *(to(f"http://{name}/") for name in ZONE if name not in ("b.internal", "b.example")),
    *(to(f"https://{name}/") for name in ("loopback.internal", "meta.internal", "mixed.internal", "own.internal")),
    *(to("http://loopback.internal/", status=status) for status in (301, 307, 308)),
    *(to("http://b.internal/", status=status) for status in (300, 303, 304, 305, 306)),
    *(to(f"http://b.internal:{port}/") for port in (22, 443, 8500, 5432, 6379, 2375, 49152)),
    to("https://b.internal:80/"),
    to("https://b.internal:8443/"),
    to("http://user@b.internal/"),
    to("http://user:secret@b.internal/"),
    to("http://b.internal@127.0.0.1/"),
    to("http://b.internal\\@127.0.0.1/"),
    to("ftp://b.internal/"),
    to("file:///etc/passwd"),
    to("gopher://b.internal:80/_GET"),
    to("http://2130706433/"),
    to("http://0x7f.1/"),
    to("http://0177.0.0.1/"),
    to("http://127.1/"),
    to("http://localhost/", kinds=("dns",)),
    to("http://a.localhost/", kinds=("dns",)),
    to("http://nowhere.internal/", kinds=("dns",)),
    to("http://b.example/", suffixes=("internal",)),
    to("http://b.internal/ x"),
    Target("a redirect to nowhere", hits=1, page=b"HTTP/1.1 302 X\r\nContent-Length: 0\r\n\r\n"),
    Target("a Refresh field", hits=1, page=HEAD + b"Refresh: 0; url=http://b.internal/\r\n\r\n"),
    Target("a page that refreshes", hits=1, page=HEAD + b'\r\n<meta http-equiv="refresh" content="0; url=/x">'),
    Target("a redirect to itself", hits=1, page="loop"),
    Target("two redirects in a circle", hits=2, page="circle"),
    Target("eleven redirects", hits=11, page="hops:11"),
    Target("good: ten redirects", (), 11, page="hops:10"),
    to("https://b.internal/x", kinds=(), hits=2, id="good: a redirect to https, by any certificate"),
    to("https://10.0.0.80/x", kinds=(), hits=2, id="good: a redirect to https at an address"),
]

WRONG = ("incorrectResponse",)
BODIES = [
    Target("good: 127 bytes with whitespace", (), 1, page=HEAD + b"\r\n" + PROOF.ljust(127)),
    Target("128 bytes", WRONG, 1, page=HEAD + b"\r\n" + PROOF.ljust(128)),
    Target("10 GB by Content-Length", WRONG, 1, page=HEAD + b"Content-Length: 10000000000\r\n\r\n" + b"x" * 4096),
    Target("an endless body", WRONG, 1, page="endless body"),
    Target("an endless body in chunks of one byte", WRONG, 1, page="endless chunks"),
    Target("endless extensions of a chunk", WRONG, 1, page="endless extension"),
    Target("an endless head", WRONG, 1, page="endless head"),
    Target("endless interim answers", WRONG, 1, page="endless interim"),
    Target("an endless status line", WRONG, 1, page="endless line"),
    Target("a byte now and then", hits=1, page="drip", seconds=1),
    Target("a head that never ends", hits=1, page="half a head", seconds=0.5),
    Target("a body that never ends", hits=1, page="half a body", seconds=0.5),
    Target("no answer", hits=1, page="silence", seconds=0.5),
    Target("a connection that ends at once", hits=1, page=b""),
    Target("a body that is cut short", hits=1, page=HEAD + b"Content-Length: 100\r\n\r\n" + PROOF),
    Target("a gzip bomb", WRONG, 1, page="bomb"),
    Target("compressed proof", WRONG, 1, page="compressed"),
    Target("not HTTP", WRONG, 1, page=b"SSH-2.0-OpenSSH_9.2\r\n"),
    Target("not found", WRONG, 1, page=b"HTTP/1.1 404 Not Found\r\n\r\n" + PROOF),
    Target("another proof", WRONG, 1, page=HEAD + b"\r\ntoken.other"),
]

HANDSHAKES = [
    tls("good"),
    tls("good", id="good: tls by IPv6", a=(), aaaa=((GOOD6,),)),
    tls("good", id="good: tls of an address", name=f"ip:{GOOD}"),
    tls("good", id="good: tls of an IPv6 address", name=f"ip:{GOOD6}"),
    tls("good", "incorrectResponse", id="tls: a certificate for another name", name="dns:b.internal"),
    tls("no protocol", "tls"),
    tls("another protocol", "tls"),
    tls("two names", "incorrectResponse"),
    tls("an address for a name", "incorrectResponse"),
    tls("no identifier", "incorrectResponse"),
    tls("not critical", "incorrectResponse"),
    tls("wrong digest", "incorrectResponse"),
    tls("two identifiers", "incorrectResponse"),
    tls("huge chain", "tls"),
    tls("huge certificate", "tls"),
    tls("plain HTTP", "tls"),
    tls("ends at once", "tls"),
    tls("alert", "tls"),
    tls("endless", "tls"),
    tls("endless records", "tls"),
    tls("silence", "connection", seconds=0.5),
    tls("drip", "connection", seconds=1),
]

TARGETS = [*DIRECT, *ANSWERS, *REDIRECTS, *BODIES, *HANDSHAKES]

# Bad inputs by number, and their targets. 177, 178, 180 and 181 are in tests/contract/test_egress_names.py.
BAD_INPUTS: dict[int, tuple[str, ...]] = {
    166: tuple(target.id for target in BODIES),
    168: (
        "redirect 300 to http://b.internal/",
        "redirect 303 to http://b.internal/",
        "a page that refreshes",
        "a Refresh field",
    ),
    169: ("a redirect to itself", "two redirects in a circle", "eleven redirects"),
    170: tuple(f"redirect 302 to http://b.internal:{port}/" for port in (22, 8500, 49152)),
    172: (
        *(
            f"redirect 302 to http://{address}/"
            for address in (
                "169.254.169.254",
                "[fd00:ec2::254]",
                "127.0.0.1",
                "0.0.0.0",  # noqa: S104  a target, not a listener
                "[::]",
                "[::ffff:127.0.0.1]",
                "[64:ff9b::7f00:1]",
                "100.100.100.200",
                "own.internal",
            )
        ),
        "our own database",
        "a listener of ours on every address",
    ),
    173: ("redirect 302 to http://user@b.internal/", "redirect 302 to http://user:secret@b.internal/"),
    174: ("redirect 302 to http://b.example/",),
    176: ("one of three addresses is loopback", "one of three addresses is public"),
    182: ("tls no protocol", "tls another protocol"),
    184: ("tls no identifier", "tls not critical", "tls wrong digest", "tls two identifiers"),
    185: ("tls two names",),
    186: ("tls an address for a name",),
    188: ("tls huge chain", "tls huge certificate"),
}
