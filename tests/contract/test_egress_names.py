"""Names on the way out: every answer judged, CNAMEs and sizes bounded, several resolvers, nothing but DNS (bad inputs
174 to 181).
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Awaitable, Callable
from pathlib import Path

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rrset
import pytest
import uvloop

from rootward.core.names import parse_dns
from rootward.egress import Egress, EgressError, Limits, Url, make_rules
from rootward.protocols.acme.challenges import CHALLENGES, Failed, Task, Ways
from tests.support.alpn import DIGEST
from tests.support.names import Names, Query, answered, cut

RIGHT = base64.urlsafe_b64encode(DIGEST).rstrip(b"=").decode()
SILENT = ("127.0.0.1", 9)  # nobody listens there, and a datagram to it gets no answer that anybody reads


def way(names: Names, *, allow: tuple[str, ...] = (), suffixes: tuple[str, ...] = (), **limits: float) -> Egress:
    """Everything of the resolvers is fast here, so only what must fail by time has short limits."""
    return Egress(
        rules=make_rules(allow, suffixes=suffixes),
        resolvers=(names.address,),
        limits=Limits(**limits),  # type: ignore[arg-type]  # numbers of both kinds
    )


async def failure(call: Awaitable[object]) -> EgressError:
    """What a call says when it fails: never an address, a port, or what came back."""
    with pytest.raises(EgressError) as caught:
        await call
    sentence = caught.value.sentence
    assert not any(secret in sentence for secret in ("127.", "10.", "::", "53", "evil", "hidden"))
    return caught.value


async def addresses(egress: Egress, name: str) -> list[str]:
    return [str(address) for address in await egress.resolver.addresses(name)]


# Addresses


async def test_both_kinds_of_addresses_ipv6_first_without_repetition() -> None:
    async with Names() as names:
        names.set("a.internal", "A", ["10.0.0.2", "10.0.0.1"])
        names.set("a.internal", "AAAA", ["fd00::1"])
        found = await addresses(way(names), "a.internal")
    assert found[0] == "fd00::1"
    assert sorted(found[1:]) == ["10.0.0.1", "10.0.0.2"]


async def test_one_kind_is_enough_also_where_the_other_fails() -> None:
    def only_a(query: Query, _: bool) -> list[bytes]:
        if query.question[0].rdtype == dns.rdatatype.A:
            return [answered(query, dns.rrset.from_text(query.question[0].name, 1, "IN", "A", "10.0.0.1"))]
        return [answered(query, code=dns.rcode.SERVFAIL)]

    async with Names() as names:
        names.odd("a.internal", only_a)
        assert await addresses(way(names), "a.internal") == ["10.0.0.1"]


def own_names() -> list[str]:
    """A name of one label that this machine's /etc/hosts has, if it has one."""
    rows = [line.partition("#")[0].split() for line in Path("/etc/hosts").read_text(encoding="utf-8").splitlines()]
    names = {row[1] for row in rows if len(row) > 1} - {"localhost"}
    return sorted(name for name in names if name.replace("-", "").isalnum())[:1]


OWN_NAMES = own_names()


@pytest.mark.parametrize("name", ["intranet", "a.internal", *OWN_NAMES])
async def test_a_name_is_asked_for_as_it_is_and_nowhere_else(name: str) -> None:
    """No search list (181), whether it has dots or exists, and no /etc/hosts."""
    async with Names() as names:
        error = await failure(way(names).resolver.addresses(name))
        assert (error.kind, error.again) == ("dns", True)
        assert {asked for asked, _, _ in names.asked} == {f"{name}."}


@pytest.mark.parametrize("name", ["localhost", "a.localhost", "a.b.localhost"])
async def test_localhost_is_answered_in_a_lab_only_and_never_asked_for(name: str) -> None:
    async with Names() as names:
        names.set(name, "A", ["10.0.0.1"])
        error = await failure(way(names).resolver.addresses(name))
        assert (error.kind, error.again) == ("dns", False)
        lab = Egress(make_rules([]), (names.address,), localhost=True)
        assert await addresses(lab, name) == ["127.0.0.1", "::1"]
        assert names.asked == []


async def test_a_name_that_ends_like_localhost_is_an_ordinary_one() -> None:
    async with Names() as names:
        names.set("notlocalhost", "A", ["10.0.0.1"])
        lab = Egress(make_rules([]), (names.address,), localhost=True)
        assert await addresses(lab, "notlocalhost") == ["10.0.0.1"]


async def test_too_many_addresses() -> None:
    async with Names() as names:
        names.set("a.internal", "A", [f"10.0.0.{number}" for number in range(1, 18)])
        error = await failure(way(names).resolver.addresses("a.internal"))
    assert (error.kind, error.again) == ("dns", False)


async def test_a_name_without_addresses_may_have_some_later() -> None:
    async with Names() as names:
        names.set("a.internal", "TXT", ["x"])
        error = await failure(way(names).resolver.addresses("a.internal"))
    assert (error.kind, error.again) == ("dns", True)


# CNAMEs


@pytest.mark.parametrize("chases", [True, False])
async def test_eight_cnames_are_followed(chases: bool) -> None:
    """177; also where the resolver gives one step at a time."""
    async with Names() as names:
        names.chases = chases
        for number in range(8):
            names.set(f"c{number}.internal", "CNAME", [f"c{number + 1}.internal."])
        names.set("c8.internal", "A", ["10.0.0.1"])
        assert await addresses(way(names), "c0.internal") == ["10.0.0.1"]


@pytest.mark.parametrize("chases", [True, False])
async def test_nine_cnames_are_too_many(chases: bool) -> None:
    async with Names() as names:
        names.chases = chases
        for number in range(30):
            names.set(f"c{number}.internal", "CNAME", [f"c{number + 1}.internal."])
        names.set("c9.internal", "A", ["10.0.0.1"])
        error = await failure(way(names).resolver.addresses("c0.internal"))
        assert (error.kind, error.again) == ("dns", False)
        assert len(names.asked) <= 2 * 9


@pytest.mark.parametrize("chases", [True, False])
@pytest.mark.parametrize("length", [1, 2, 5])
async def test_cnames_in_a_circle(chases: bool, length: int) -> None:
    """177."""
    async with Names() as names:
        names.chases = chases
        for number in range(length):
            names.set(f"c{number}.internal", "CNAME", [f"c{(number + 1) % length}.internal."])
        error = await failure(way(names).resolver.addresses("c0.internal"))
        assert (error.kind, error.again) == ("dns", False)
        assert error.sentence == "The name's CNAMEs go round in a circle."
        assert len(names.asked) <= 2 * length  # and is not gone round again


async def test_a_cname_to_nothing() -> None:
    async with Names() as names:
        names.set("a.internal", "CNAME", ["gone.internal."])
        error = await failure(way(names).resolver.addresses("a.internal"))
    assert (error.kind, error.again) == ("dns", True)


async def test_records_beside_the_chain_do_not_count() -> None:
    def beside(query: Query, _: bool) -> list[bytes]:
        other = dns.rrset.from_text("other.internal.", 1, "IN", "A", "10.6.6.6")
        return [answered(query, other)]

    async with Names() as names:
        names.odd("a.internal", beside)
        assert (await failure(way(names).resolver.addresses("a.internal"))).kind == "dns"


async def test_cnames_stay_within_the_domains_that_are_allowed() -> None:
    """180."""
    async with Names() as names:
        names.set("_acme-challenge.a.internal", "CNAME", ["a.acme.corp.example."])
        names.set("a.acme.corp.example", "TXT", [RIGHT])
        name = "_acme-challenge.a.internal"
        assert await way(names).texts(name) == [RIGHT.encode()]
        assert await way(names, suffixes=("internal", "acme.corp.example")).texts(name) == [RIGHT.encode()]
        error = await failure(way(names, suffixes=("internal",)).texts(name))
        assert (error.kind, error.again) == ("dns", False)


@pytest.mark.parametrize("name", ["a.example", "_acme-challenge.a.example", "internal.example", "xinternal"])
async def test_a_name_outside_the_domains_is_not_even_looked_up(name: str) -> None:
    """174."""
    async with Names() as names:
        names.set(name, "TXT", [RIGHT])
        error = await failure(way(names, suffixes=("internal",)).texts(name))
        assert (error.kind, error.again, names.asked) == ("connection", False, [])


# TXT


async def test_the_strings_of_a_record_are_joined() -> None:
    """178."""
    async with Names() as names:
        names.set("t.internal", "TXT", [f'"{RIGHT[:10]}" "{RIGHT[10:]}"', '"" "" "x"', '"a b;c"'])
        assert sorted(await way(names).texts("t.internal")) == sorted([RIGHT.encode(), b"x", b"a b;c"])


async def test_no_txt_record() -> None:
    async with Names() as names:
        names.set("t.internal", "A", ["10.0.0.1"])
        assert await way(names).texts("t.internal") == []
        assert (await failure(way(names).texts("gone.internal"))).kind == "dns"


@pytest.mark.parametrize(
    "values",
    [
        pytest.param(['"xxxxxxxxxxxxxxxx"'] * 65, id="65 records"),
        pytest.param([" ".join(['"abcdef"'] * 9000)], id="one of 9,000 strings"),
        pytest.param(['"x"'] * 2500, id="2,500 records"),
        pytest.param([" ".join([f'"{"x" * 255}"'] * 250)], id="64 KiB"),
    ],
)
async def test_more_text_than_is_looked_through(values: list[str]) -> None:
    """178."""
    values = [f'"{number}" {value}' for number, value in enumerate(values)]  # a set has no two that are equal
    async with Names() as names:
        names.set("t.internal", "TXT", values)
        error = await failure(way(names).texts("t.internal"))
        assert (error.kind, error.again) == ("dns", False)
        assert error.sentence == "The name has more TXT records than can be looked through."
        assert names.asked[-1] == ("t.internal.", "TXT", True)


async def test_as_much_text_as_is_looked_through() -> None:
    values = [f'"{number:03}{"x" * 240}"' for number in range(64)]
    async with Names() as names:
        names.set("t.internal", "TXT", values)
        assert len(await way(names).texts("t.internal")) == 64


async def test_a_name_that_is_too_long_for_dns() -> None:
    async with Names() as names:
        name = parse_dns(".".join(["x" * 61] * 4))
        with pytest.raises(Failed) as caught:
            await CHALLENGES["dns-01"].validate(Task(name, "token", "thumbprint"), Ways(way(names)))
    assert (caught.value.kind, caught.value.again) == ("dns", False)


@pytest.mark.parametrize("name", ["a.internal", "*.a.internal"])
@pytest.mark.parametrize("values", [[RIGHT], ["stale", RIGHT], [f'"{RIGHT[:1]}" "{RIGHT[1:]}"']])
async def test_dns01(name: str, values: list[str]) -> None:
    async with Names() as names:
        names.set("_acme-challenge.a.internal", "TXT", values)
        await CHALLENGES["dns-01"].validate(Task(parse_dns(name), "token", "thumbprint"), Ways(way(names)))


# Resolvers


async def test_an_answer_that_is_cut_short_is_asked_for_by_tcp() -> None:
    async with Names() as names:
        names.set("t.internal", "TXT", [f'"{number:03}{"x" * 200}"' for number in range(20)])
        assert len(await way(names).texts("t.internal")) == 20
        assert names.asked == [("t.internal.", "TXT", False), ("t.internal.", "TXT", True)]


async def test_an_answer_that_is_cut_short_by_tcp_too() -> None:
    async with Names() as names:
        names.odd("t.internal", lambda query, _: [cut(query)])
        texts = await way(names).texts("t.internal")
        assert texts == []


@pytest.mark.parametrize(
    "code", [dns.rcode.SERVFAIL, dns.rcode.REFUSED, dns.rcode.FORMERR, dns.rcode.NOTIMP, dns.rcode.YXDOMAIN]
)
async def test_a_resolver_that_cannot_answer(code: dns.rcode.Rcode) -> None:
    """The next one is asked, and where there is none, the same one once more."""
    async with Names() as bad, Names() as good:
        bad.odd("t.internal", lambda query, _: [answered(query, code=code)])
        good.set("t.internal", "TXT", ["x"])
        egress = Egress(make_rules([]), (bad.address, good.address))
        assert await egress.texts("t.internal") == [b"x"]
        assert (len(bad.asked), len(good.asked)) == (1, 1)
        alone = Egress(make_rules([]), (bad.address,))
        error = await failure(alone.texts("t.internal"))
        assert (error.kind, error.again, len(bad.asked)) == ("dns", True, 3)


async def test_an_answer_is_not_asked_for_again_elsewhere() -> None:
    async with Names() as first, Names() as second:
        second.set("t.internal", "TXT", ["x"])
        error = await failure(Egress(make_rules([]), (first.address, second.address)).texts("t.internal"))
        assert (error.kind, second.asked) == ("dns", [])


async def test_a_silent_resolver_is_given_up() -> None:
    async with Names() as silent, Names() as good:
        silent.odd("t.internal", lambda *_: None)
        good.set("t.internal", "TXT", ["x"])
        egress = Egress(make_rules([]), (SILENT, silent.address, good.address), limits=Limits(dns=1))
        assert await egress.texts("t.internal") == [b"x"]
        alone = Egress(make_rules([]), (SILENT, silent.address), limits=Limits(dns=0.05))
        error = await failure(alone.texts("t.internal"))
        assert (error.kind, error.again) == ("dns", True)
        hurried = Egress(make_rules([]), (silent.address,), limits=Limits(dns=60, total=0.1))
        error = await failure(hurried.texts("t.internal"))
        assert (error.kind, error.again) == ("connection", True)


def another_question(query: Query) -> bytes:
    other = dns.message.make_query("evil.internal.", "TXT")
    other.id = query.id
    return answered(other, dns.rrset.from_text("t.internal.", 1, "IN", "TXT", "hidden"))


def another_id(query: Query) -> bytes:
    query = dns.message.from_wire(query.to_wire())
    query.id ^= 1
    return answered(query, dns.rrset.from_text("t.internal.", 1, "IN", "TXT", "hidden"))


FORGED: dict[str, Callable[[Query], bytes]] = {
    "another question": another_question,
    "another id": another_id,
    "nothing": lambda _: b"",
    "zeros": lambda _: bytes(12),
    "the question": lambda query: query.to_wire(),
    "cut": lambda query: answered(query)[:-3],
    "more behind it": lambda query: answered(query) + b"more",
    "noise": lambda _: b"\xff" * 1200,
    "a name that points to itself": lambda query: answered(query)[:12] + b"\xc0\x0c" * 20,
}


@pytest.mark.parametrize("forged", FORGED.values(), ids=FORGED.keys())
async def test_what_is_not_the_answer_is_not_taken_for_it(forged: Callable[[Query], bytes]) -> None:
    """It is passed over; the right one that comes behind it counts."""

    def both(query: Query, tcp: bool) -> list[bytes]:
        return [forged(query), answered(query, dns.rrset.from_text("t.internal.", 1, "IN", "TXT", "right"))]

    async with Names() as names:
        names.odd("t.internal", both)
        assert await way(names).texts("t.internal") == [b"right"]
        names.odd("t.internal", lambda query, _: [forged(query)])
        error = await failure(way(names, dns=0.05).texts("t.internal"))
        assert (error.kind, error.again) == ("dns", True)


async def test_garbage_by_tcp() -> None:
    async with Names() as names:
        names.odd("t.internal", lambda query, tcp: [b"\xff" * 60_000] if tcp else [cut(query)])
        error = await failure(way(names, dns=1).texts("t.internal"))
    assert (error.kind, error.again) == ("dns", True)


async def test_no_resolver_at_all() -> None:
    assert (await failure(Egress(make_rules(["10.0.0.0/8"]), ()).texts("t.internal"))).kind == "dns"
    url = Url("http", parse_dns("a.internal"), 80, "/")
    error = await failure(Egress(make_rules(["10.0.0.0/8"]), ()).get(url, ports={"http": 80}, body_bytes=1))
    assert error.kind == "dns"


def test_all_of_it_on_the_loop_that_the_server_runs_on() -> None:
    async def both() -> None:
        async with Names() as names:
            names.set("a.internal", "AAAA", ["fd00::1"])
            names.set("t.internal", "TXT", [f'"{number:03}{"x" * 200}"' for number in range(20)])
            assert await addresses(way(names), "a.internal") == ["fd00::1"]
            assert len(await way(names).texts("t.internal")) == 20
            names.odd("s.internal", lambda *_: None)
            assert (await failure(way(names, dns=0.05).texts("s.internal"))).kind == "dns"

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(both())
