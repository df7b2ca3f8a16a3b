"""newOrder, orders and their lists (RFC 8555 7.1.3, 7.4; RFC 8738), on each kind of store: the table of bad inputs, 153
to 161 and 205, and what every order promises.
"""

from __future__ import annotations

from collections import Counter
from datetime import datetime, timedelta
from typing import Any

import msgspec
import pytest
from cryptography import x509
from sqlalchemy import func, select

from rootward.ca import profiles
from rootward.core.profile import Acme, DnsRules, Lifetime, NameRules
from rootward.core.times import rfc3339
from rootward.protocols.acme.app import Settings
from rootward.protocols.acme.orders import ORDER_LIVES
from rootward.store.schema_acme import authorizations, orders
from tests.support.acme import Client, Wire
from tests.support.orders import NOTHING, acme, ari_id, csr_for, finalize, identifiers, new_order, refused
from tests.support.world import World

HERE = "https://localhost:8443/acme"
OTHERS = f"{'A' * 27}.{'A' * 27}"  # the name of another CA's certificate


async def written(lab: World) -> Counter[str]:
    """Everything that an order could have left behind."""
    counts = await lab.counts()
    for table in (orders, authorizations):
        found = await lab.inst.db.read(lambda conn, t=table: conn.execute(select(func.count()).select_from(t)).scalar())
        counts[table.name] = found
    counts["rows"] = len(await lab.rows())
    return counts


# Each payload with the problem that it gets, and how many subproblems that has.
A = {"type": "dns", "value": "a.internal"}
WRONG: list[tuple[object, str, int]] = [
    ({}, "malformed", 0),  # 153
    ({"identifiers": []}, "malformed", 0),
    ({"identifiers": None}, "malformed", 0),
    ({"identifiers": A}, "malformed", 0),
    ({"identifiers": "a.internal"}, "malformed", 0),
    ({"identifiers": ["a.internal"]}, "malformed", 0),
    ({"identifiers": [{"type": "dns"}]}, "malformed", 0),
    ({"identifiers": [{"value": "a.internal"}]}, "malformed", 0),
    ({"identifiers": [{"type": 1, "value": "a.internal"}]}, "malformed", 0),
    ({"identifiers": [{"type": "dns", "value": ["a.internal"]}]}, "malformed", 0),
    ({"identifiers": identifiers([f"n{n}.internal" for n in range(101)])}, "malformed", 0),
    (b'{"identifiers":[%b]}' % b",".join([b'{"type":"dns","value":"a"}'] * 1000), "malformed", 0),
    (b"[]", "malformed", 0),
    (b"null", "malformed", 0),
    (b"", "malformed", 0),  # a POST-as-GET
    (b'{"identifiers":[{"type":"dns","value":"a.internal"}],"identifiers":[]}', "malformed", 0),
    ({"identifiers": [{"type": "email", "value": "a@a.internal"}]}, "unsupportedIdentifier", 1),  # 154
    ({"identifiers": [{"type": "permanent-identifier", "value": "1"}]}, "unsupportedIdentifier", 1),
    ({"identifiers": [{"type": "", "value": ""}]}, "unsupportedIdentifier", 1),
    ({"identifiers": [{"type": "DNS", "value": "a.internal"}]}, "unsupportedIdentifier", 1),
    ({"identifiers": [{"type": "x" * 300, "value": "y" * 3000}, A]}, "unsupportedIdentifier", 1),
    ({"identifiers": [{"type": "uri", "value": "x"}, {"type": "dns", "value": "a..b"}]}, "malformed", 2),
    *(
        ({"identifiers": [{"type": "dns", "value": value}, A]}, "malformed", 1)
        for value in (
            *("", ".", "a..internal", ".internal", "a.internal.", "a_b.internal", "-a.internal", "a-.internal"),
            *("a.internal\0", "a.internal\n", " a.internal", "*", "*.", "*.*.internal", "a.*.internal", "*a.internal"),
            *("f*o.internal", "bücher.internal", "xn--a.internal", "1.2.3.4", "127.1", "[::1]", "a.internal:80"),
            *("<b>.internal", f"{'a' * 64}.internal", f"{'a.' * 130}internal", "a" * 4000),
        )
    ),
    *(
        ({"identifiers": [{"type": "ip", "value": value}]}, "malformed", 1)  # 156
        for value in (
            *(
                "",
                "010.0.0.1",
                "10.0.0.01",
                "10.1",
                "167772161",
                "0x0a000001",
                "10.0.0.1/32",
                "10.0.0.1:80",
                "[fd00::1]",
            ),
            *(
                "fe80::1%eth0",
                "fd00::1%25eth0",
                "::ffff:127.0.0.1",
                "::ffff:7f00:1",
                "fd00:0::1",
                "FD00::1",
                "a.internal",
            ),
            *(" 10.0.0.1", "10.0.0.1 ", "١٠.0.0.1"),
        )
    ),
    ({"identifiers": identifiers(["a.example"])}, "rejectedIdentifier", 1),
    ({"identifiers": identifiers(["internal"])}, "rejectedIdentifier", 1),
    ({"identifiers": identifiers(["*.internal"])}, "rejectedIdentifier", 1),
    ({"identifiers": identifiers(["ip:8.8.8.8"])}, "rejectedIdentifier", 1),
    ({"identifiers": identifiers(["a.example", "a.internal", "ip:9.9.9.9", "*.b.example"])}, "rejectedIdentifier", 3),
    ({"identifiers": [{"type": "ip", "value": "169.254.1.1"}]}, "malformed", 1),  # no address of a peer
    ({"identifiers": [A], "profile": "none-such"}, "invalidProfile", 0),  # 161
    ({"identifiers": [A], "profile": "device"}, "invalidProfile", 0),
    ({"identifiers": [A], "profile": "Server"}, "invalidProfile", 0),
    ({"identifiers": [A], "profile": "../server"}, "invalidProfile", 0),
    ({"identifiers": [A], "profile": "x" * 5000}, "invalidProfile", 0),
    ({"identifiers": [A], "profile": ["server"]}, "malformed", 0),
    *(
        ({"identifiers": [A], field: value}, "malformed", 0)  # 160
        for field in ("notBefore", "notAfter")
        for value in (
            *("", "soon", "2026", "2026-11-23", "2026-11-23 17:46:41Z", "2026-11-23T17:46:41", "2026-13-23T17:46:41Z"),
            *(
                "2026-02-30T17:46:41Z",
                "2026-11-23T24:46:41Z",
                "2026-11-23T17:46:41.5Z",
                "20261123174641Z",
                "1700000000",
            ),
            *("0000-01-01T00:00:00Z", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "9999-12-31T23:59:59Z"),
            *("1949-01-01T00:00:00Z", "2050-01-01T00:00:00Z", 1700000000, {"a": 1}),
        )
    ),
    ({"identifiers": [A], "replaces": "x"}, "malformed", 0),  # 162: the rest is in test_acme_ari
    ({"identifiers": [A], "replaces": 5}, "malformed", 0),
]


async def test_the_table_of_bad_orders(lab: World) -> None:
    """153, 154, 156, 160, 161: the exact type, every reason at once, nothing of the sender's bytes beyond its names."""
    client = Client(Wire.of(lab.inst))
    await client.register()
    before = await written(lab)
    for payload, type, subproblems in WRONG:
        reply = await client.post("new-order", payload)
        refused(reply, type, 400)
        assert len(reply.json.get("subproblems", [])) == subproblems, reply
        assert len(reply.body) < 3000, reply
        for one in reply.json.get("subproblems", []):
            assert one["type"].startswith("urn:ietf:params:acme:error:"), one
            assert one["detail"], one
    assert len(set(client.nonces)) == len(client.nonces)
    assert await written(lab) == before


async def test_the_end_of_a_certificate_has_bounds(lab: World) -> None:
    """160: what cannot be fulfilled to the second is refused (RFC 8555 7.4), and told with what could be."""
    client = Client(Wire.of(lab.inst))
    await client.register()
    now = lab.clock()
    before = await written(lab)
    for end in (now, now - timedelta(days=1), now + timedelta(minutes=3), now + timedelta(days=90)):
        reply = await new_order(client, "a.internal", notAfter=rfc3339(end))
        refused(reply, "malformed", 400)
        assert "server" in reply.json["detail"]
    refused(await new_order(client, "a.internal", notBefore=rfc3339(now)), "malformed", 400)
    assert await written(lab) == before


async def test_a_certificate_ends_when_its_order_says(lab: World) -> None:
    async with acme(lab) as door:
        client = await door.client()
        door.later(timedelta(minutes=2))  # the authority itself begins when it was founded
        end = lab.clock() + timedelta(days=40)
        for text in (
            rfc3339(end),
            rfc3339(end).replace("Z", ".000Z"),
            (end + timedelta(hours=2)).isoformat().replace("+00:00", "+02:00"),
        ):
            order = await door.ready(client, "a.internal", notAfter=text)
            assert order["notAfter"] == rfc3339(end)
            door.later(timedelta(seconds=61))
            done = await finalize(client, order)
            assert done.json["notAfter"] == rfc3339(end)
            assert (await door.certificate(client, done.json)).not_valid_after_utc == end


async def test_the_end_of_a_certificate_of_a_young_authority(lab: World) -> None:
    """Its certificates begin later than they would; the end is the one that was ordered."""
    async with acme(lab) as door:
        client = await door.client()
        end = lab.clock() + timedelta(days=3)
        order = await door.obtain(client, "a.internal", notAfter=rfc3339(end))
        assert (await door.certificate(client, order)).not_valid_after_utc == end


async def test_the_ends_at_the_very_bounds(lab: World) -> None:
    async with acme(lab) as door:
        client = await door.client()
        door.later(timedelta(minutes=2))
        told = (await new_order(client, "a.internal", notAfter="2026-01-01T00:00:00Z")).json["detail"]
        earliest, latest = told.removesuffix(".").split(" ")[-3::2]
        for end in (earliest, latest):
            order = await door.obtain(client, "a.internal", notAfter=end)
            assert rfc3339((await door.certificate(client, order)).not_valid_after_utc) == end


async def test_an_order_lives_as_long_as_it_can_be_fulfilled(lab: World) -> None:
    """`expires` is a promise (RFC 8555 7.4): until then what is left to do is the client's."""
    async with acme(lab) as door:
        client = await door.client()
        now = lab.clock()
        assert (await door.order(client, "a.internal"))["expires"] == rfc3339(now + ORDER_LIVES)
        end = now + timedelta(hours=1)
        order = await door.ready(client, "b.internal", notAfter=rfc3339(end))
        assert now + timedelta(minutes=55) <= datetime.fromisoformat(order["expires"]) < end
        door.later(datetime.fromisoformat(order["expires"]) - now - timedelta(seconds=1))
        assert (await finalize(client, order)).json["status"] == "valid"
        late = await door.ready(client, "b.internal")
        door.later(ORDER_LIVES)
        refused(await finalize(client, late), "orderNotReady", 403)
        assert (await client.post(late["url"])).json["status"] == "invalid"


async def test_an_order_ends_with_a_proof_that_it_reuses(lab: World) -> None:
    await lab.profile("long", acme=Acme("open", reuse="90d"))
    async with acme(lab) as door:
        client = await door.client("long")
        first = await door.ready(client, "a.internal")
        (url,) = first["authorizations"]
        end = (await client.post(url)).json["expires"]
        door.later(timedelta(days=28))
        order = await door.order(client, "a.internal")
        assert (order["authorizations"], order["status"], order["expires"]) == ([url], "ready", end)


async def test_what_an_order_says(lab: World) -> None:
    async with acme(lab) as door:
        client = await door.client()
        reply = await new_order(client, "a.internal", "*.a.internal", "ip:10.0.0.1", "ip:fd00::1", profile="peer")
        assert reply.status == 201
        url = reply.headers["location"]
        assert url.startswith(f"{HERE}/order/")
        order = reply.json
        assert order == (await client.post(url)).json
        assert order["finalize"] == f"{url}/finalize"
        assert (order["status"], order["profile"]) == ("pending", "peer")
        assert set(order) == {"status", "expires", "identifiers", "profile", "authorizations", "finalize"}
        wanted = identifiers(["a.internal", "*.a.internal", "ip:10.0.0.1", "ip:fd00::1"])
        assert order["identifiers"] == wanted
        assert len(set(order["authorizations"])) == 4
        for identifier, link in zip(wanted, order["authorizations"], strict=True):
            found = (await client.post(link)).json
            assert found["identifier"] == identifier | {"value": identifier["value"].removeprefix("*.")}
            assert ("wildcard" in found) is identifier["value"].startswith("*.")
            offered = {one["type"] for one in found["challenges"]}
            if "wildcard" in found:  # 158
                assert (found["wildcard"], offered) == (True, {"dns-01"})
            elif identifier["type"] == "ip":
                assert offered == {"http-01", "tls-alpn-01"}
            else:
                assert offered == {"http-01", "tls-alpn-01", "dns-01"}
            assert {one["status"] for one in found["challenges"]} == {"pending"}
            assert len({one["url"] for one in found["challenges"]}) == len(offered)


async def test_157_the_same_name_twice(lab: World) -> None:
    async with acme(lab) as door:
        client = await door.client()
        order = await door.order(
            client, "a.internal", "A.Internal", "b.internal", "a.INTERNAL", "ip:fd00::1", "ip:fd00::1"
        )
        assert order["identifiers"] == identifiers(["a.internal", "b.internal", "ip:fd00::1"])
        assert len(order["authorizations"]) == 3


async def test_a_hundred_names(lab: World) -> None:
    """153: 101 are too many, whatever a profile says; a profile may take fewer."""
    few = NameRules(dns=DnsRules(allow=(".internal",)), maximum=2)
    await lab.profile("few", names=few)
    async with acme(lab) as door:
        client = await door.bound(preauthorized=(".internal",), names=(".internal",))
        names = [f"n{n}.internal" for n in range(100)]
        order = await door.order(client, *names)
        assert (order["status"], len(order["authorizations"])) == ("ready", 100)
        done = await finalize(client, order)
        assert done.json["status"] == "valid"
        leaf = await door.certificate(client, done.json)
        found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert set(found.get_values_for_type(x509.DNSName)) == set(names)
        refused(await new_order(client, *names, "n100.internal"), "malformed", 400)
        reply = await new_order(client, *names[:3], profile="few")
        refused(reply, "rejectedIdentifier", 400)
        assert (await new_order(client, *names[:2], profile="few")).status == 201


async def test_addresses(lab: World) -> None:
    """RFC 8738, and by http-01 on loopback."""
    await lab.profile("here", names=NameRules(ip=("127.0.0.0/8", "10.0.0.0/8")))
    async with acme(lab) as door:
        client = await door.client("here")
        order = await door.obtain(client, "ip:127.0.0.1")
        leaf = await door.certificate(client, order)
        found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert [str(one) for one in found.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]
        assert len([*found]) == 1


async def test_what_a_binding_lets_an_account_name(lab: World) -> None:
    """Names outside of it are rejected, each by itself; what is its own is not proved."""
    async with acme(lab) as door:
        client = await door.bound(
            names=(".web.internal", "10.1.0.0/16"), preauthorized=(".own.web.internal", "10.1.1.0/24")
        )
        for names in (["a.internal"], ["web.internal"], ["ip:10.2.0.1"], ["*.internal"]):
            reply = await new_order(client, *names, "b.web.internal")
            refused(reply, "rejectedIdentifier", 400)
            assert [one["identifier"]["value"] for one in reply.json["subproblems"]] == [
                one["value"] for one in identifiers(names)
            ]
        order = await door.order(client, "b.web.internal", "a.own.web.internal", "*.own.web.internal", "ip:10.1.1.9")
        found = [(await client.post(url)).json for url in order["authorizations"]]
        assert [one["status"] for one in found] == ["pending", "valid", "pending", "valid"]
        assert found[1]["challenges"] == []
        own = await door.obtain(client, "a.own.web.internal", "ip:10.1.1.9")
        row = next(row for row in await lab.rows() if row.names == ("dns:a.own.web.internal", "ip:10.1.1.9"))
        assert row.owner == "team-web"
        assert own["status"] == "valid"
        other = await door.client()
        assert (await door.order(other, "a.own.web.internal"))["status"] == "pending"  # it is that account's alone


async def test_profiles(lab: World) -> None:
    """The directory's, the order's own, or the server's choice for an order that names none."""
    await lab.profile("closed", acme=Acme("bound"))
    async with acme(lab, Settings(profile="short")) as door:
        client = await door.client()
        assert (await door.order(client, "a.internal"))["profile"] == "short"
        assert (await door.order(client, "a.internal", profile=""))["profile"] == "short"
        assert (await door.order(client, "a.internal", profile="client"))["profile"] == "client"
        client.directory = "peer"
        assert (await door.order(client, "a.internal"))["profile"] == "peer"
        assert (await door.order(client, "a.internal", profile="peer"))["profile"] == "peer"
        refused(await new_order(client, "a.internal", profile="server"), "invalidProfile", 400)
        client.directory = ""
        refused(await new_order(client, "a.internal", profile="closed"), "unauthorized", 403)
        bound = await door.bound(profile="closed")
        assert (await door.order(bound, "a.internal", profile="closed"))["profile"] == "closed"
        refused(await new_order(bound, "a.internal", profile="server"), "unauthorized", 403)
        await profiles.retire(lab.inst, "peer", lab.admin)
        refused(await new_order(client, "a.internal", profile="peer"), "invalidProfile", 400)


async def test_a_name_that_nothing_could_prove(lab: World) -> None:
    await lab.profile("web", acme=Acme("open", challenges=("http-01",)))
    async with acme(lab) as door:
        client = await door.client("web")
        reply = await new_order(client, "*.a.internal", "a.internal")
        refused(reply, "rejectedIdentifier", 400)
        assert [one["identifier"]["value"] for one in reply.json["subproblems"]] == ["*.a.internal"]
        order = await door.order(client, "a.internal")
        (found,) = [(await client.post(url)).json for url in order["authorizations"]]
        assert [one["type"] for one in found["challenges"]] == ["http-01"]


async def test_205_the_list_of_orders(lab: World) -> None:
    """RFC 8555 7.1.2.1: without those that are invalid by their own row; a cursor is one of the list's own."""
    async with acme(lab) as door:
        client, other = await door.client(), await door.client()
        first = await door.order(client, "a.internal")
        door.later(ORDER_LIVES)
        second = await door.obtain(client, "b.internal")
        theirs = await door.order(other, "a.internal")
        url = f"{client.kid}/orders"
        assert (await client.post(url)).json == {"orders": [second["url"]]}
        assert (await client.post(first["url"])).json["status"] == "invalid"
        for cursor in (theirs["url"].rpartition("/")[2], NOTHING, "1", "x" * 200, "%41", "a&cursor=b", ""):
            refused(await client.post(f"{url}?cursor={cursor}"), "malformed", 400)
        refused(await client.post(f"{url}?n=1"), "malformed", 400)
        refused(await client.post(f"{client.kid}?cursor={NOTHING}"), "malformed", 400)


async def test_too_many_orders(lab: World) -> None:
    """RFC 8555 6.6: with Retry-After, and over within it; what was refused is not counted."""
    async with acme(lab, Settings(orders_per_hour=2)) as door:
        client, other = await door.client(), await door.client()
        await door.order(client, "a.internal")
        door.later(timedelta(minutes=20))
        for _ in range(3):
            refused(await new_order(client, "a.example"), "rejectedIdentifier", 400)
        order = await door.order(client, "b.internal")
        before = await written(lab)
        limited = await new_order(client, "c.internal")
        refused(limited, "rateLimited", 429)
        assert int(limited.headers["retry-after"]) == 40 * 60
        assert await written(lab) == before
        assert (await client.post(order["url"])).status == 200
        await door.order(other, "a.internal")
        door.later(timedelta(seconds=int(limited.headers["retry-after"])))
        await door.order(client, "c.internal")


async def test_too_many_accounts(lab: World) -> None:
    async with acme(lab, Settings(accounts_per_hour=1)) as door:
        await door.client()
        door.later(timedelta(minutes=45))
        second = Client(door.wire)
        door.clients.append(second)
        limited = await second.register()
        refused(limited, "rateLimited", 429)
        assert int(limited.headers["retry-after"]) == 15 * 60
        assert (await Client(door.wire, address="127.0.0.2").register()).status == 201
        await door.bound()  # its binding is its limit
        door.later(timedelta(minutes=15))
        assert (await second.register()).status == 201


async def test_too_many_failures(lab: World) -> None:
    async with acme(lab, Settings(failures_per_hour=1)) as door:
        client = await door.client()
        order, further = await door.order(client, "a.internal"), await door.order(client, "b.internal")
        (challenge,) = [
            one
            for one in (await client.post(order["authorizations"][0])).json["challenges"]
            if one["type"] == "http-01"
        ]
        assert (await client.post(challenge["url"], {})).status == 200  # nothing is put up
        await door.tried()
        assert (await client.post(order["url"])).json["status"] == "invalid"
        door.later(timedelta(minutes=10))
        limited = await new_order(client, "c.internal")
        refused(limited, "rateLimited", 429)
        assert int(limited.headers["retry-after"]) == 50 * 60
        refused(await door.answer(client, further["authorizations"][0]), "rateLimited", 429)
        door.later(timedelta(minutes=50))
        assert await door.prove(client, further) == ["valid"]


async def test_conditions_and_approval_are_of_the_profile_as_it_is_then(lab: World) -> None:
    """A profile that changed meanwhile counts as it is when the order is finalized; the order stays ready."""
    profile = await lab.profile("changing")
    async with acme(lab) as door:
        client = await door.client("changing")
        order = await door.ready(client, "a.internal")
        narrow = msgspec.structs.replace(profile, names=NameRules(dns=DnsRules(allow=(".web.internal",))))
        await profiles.update(lab.inst, narrow, lab.admin)
        refused(await finalize(client, order), "rejectedIdentifier", 400)
        assert (await client.post(order["url"])).json["status"] == "ready"
        short = msgspec.structs.replace(profile, lifetime=Lifetime(default="1h", maximum="2h"))
        await profiles.update(lab.inst, short, lab.admin)
        done = await finalize(client, order)
        leaf = await door.certificate(client, done.json)
        assert leaf.not_valid_after_utc - leaf.not_valid_before_utc < timedelta(hours=1)
        assert ari_id(leaf)


@pytest.mark.parametrize("accounts", ["bound", "none"])
async def test_a_profile_that_is_shut_meanwhile(lab: World, accounts: Any) -> None:
    profile = await lab.profile("changing")
    async with acme(lab) as door:
        client = await door.client()
        order = await door.ready(client, "a.internal", profile="changing")
        await profiles.update(lab.inst, msgspec.structs.replace(profile, acme=Acme(accounts)), lab.admin)
        wrong = ("unauthorized", 403) if accounts == "bound" else ("invalidProfile", 400)
        before = await written(lab)
        refused(await finalize(client, order, csr_for(order)), *wrong)
        assert await written(lab) == before
