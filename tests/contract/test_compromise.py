"""An authority's key is in other hands: a yes of two people, and it stops everywhere, another one takes its place, and
everybody is told to renew; on each kind of store.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from sqlalchemy import Connection, update
from starlette.routing import Router

from rootward.ca import acts, compromise, own, proposals
from rootward.ca.access import Caller
from rootward.ca.installation import Installation
from rootward.ca.issue import issue
from rootward.ca.publish import publish
from rootward.ca.revoke import revoke
from rootward.ca.succession import settle
from rootward.core.problems import Problem
from rootward.core.revocation import Good, RevocationReason
from rootward.core.roles import Grant, Role
from rootward.fleet import replacement, vitals
from rootward.protocols import pki
from rootward.store import authorities, blocked, certificates, paperwork, succession
from rootward.store import replacement as store
from rootward.store.certificates import Certificate
from rootward.store.errors import Constraint
from rootward.store.failpoint import Injected, armed
from rootward.store.proposals import Proposal
from rootward.store.replacement import Counts
from tests.support.orders import Acme, acme, ari_id
from tests.support.rest import Door, asked
from tests.support.second import add_second
from tests.support.store import intent
from tests.support.world import APPROVER, ISSUING, World, ask, issued, new_key, refused

NEW = "second"
HERE = "https://localhost:8443/acme"


async def propose(lab: World, caller: Caller | None = None, *, successor: str | None = NEW, **more: Any) -> Proposal:
    given = {"reason": "the token was stolen", "waves": None, **more}
    return await compromise.propose(lab.inst, ISSUING, successor, caller=caller or lab.admin, **given)


async def compromised(lab: World, **more: Any) -> Caller:
    """`issuing` is, and `second` follows; who agreed."""
    await add_second(lab.inst, NEW)
    bob = await lab.person("bob", APPROVER)
    done = await acts.approve(lab.inst, (await propose(lab, **more)).id, None, bob)
    assert done.status(lab.clock()) == "done"
    return bob


async def counts(lab: World) -> Counts:
    return (await replacement.report(lab.inst, ISSUING, after=None, limit=50))[0].counts


def second_process(lab: World) -> Installation:
    """Another replica, which has asked nobody since it started."""
    return Installation(
        db=lab.inst.db,
        keys=lab.inst.keys,
        sealer=lab.inst.sealer,
        pki_url=lab.inst.pki_url,
        external_url=lab.inst.external_url,
        lab=True,
        clock=lab.clock,
    )


@pytest.mark.invariant("I-42")
async def test_it_stops_when_a_second_person_agrees_and_not_before(lab: World) -> None:
    await add_second(lab.inst, NEW)
    olga = await lab.person("olga", Grant(Role.OFFICER, ISSUING))
    bob = await lab.person("bob", APPROVER)
    made = await propose(lab, olga)
    assert (await lab.issue()).authority == ISSUING
    assert await refused(acts.approve(lab.inst, made.id, None, olga)) == "RW-FORBIDDEN"
    await acts.approve(lab.inst, made.id, None, bob)
    old = lab.inst.authority(ISSUING)
    assert (old.state, old.successor) == ("compromised", NEW)
    assert (await lab.issue()).authority == NEW
    assert await lab.inst.db.read(lambda conn: blocked.why(conn, old.issuer.key_id)) == "cACompromise"
    told = (await lab.events("authority.compromised"))[0].values()
    assert (told["reason"], told["successor"], told["certificates"]) == ("the token was stolen", NEW, 1)
    assert await refused(propose(lab, olga)) == "RW-CONFLICT"


@pytest.mark.invariant("I-22")
async def test_it_issues_nowhere_at_once(lab: World) -> None:
    """Another process that knows nothing of it learns it from the intent's own statement (ADR 0020)."""
    other = second_process(lab)
    await other.load_authorities()
    own.register(other)
    await compromised(lab)
    assert other.authority(ISSUING).state == "active"
    values = intent(other.db.lease, issuer=other.authority(ISSUING).n, authority=ISSUING)
    with pytest.raises(Constraint):
        await other.db.write(certificates.intend_while_open(values))
    await other.load_authorities()
    assert other.authority(ISSUING).state == "compromised"
    assert issued(await issue(other, ask(), lab.admin)).authority == NEW


async def test_its_crl_and_ocsp_go_on(lab: World) -> None:
    row = await lab.issue()
    await compromised(lab)
    await lab.responder.renew()
    assert await lab.status(row.serial) == Good()
    await publish(lab.inst, lab.inst.authority(ISSUING))
    lab.clock.move(timedelta(hours=40))
    await lab.responder.renew()
    assert await lab.status(row.serial) == Good()


async def test_its_certificate_is_revoked_in_our_books_and_a_ceremony_is_asked_for_the_crl(lab: World) -> None:
    await compromised(lab)
    rows = [row for row in await lab.rows() if row.key_id == lab.inst.authority(ISSUING).issuer.key_id]
    assert [(row.authority, row.reason) for row in rows] == [("root", "cACompromise")]
    told = (await lab.events("authority.compromised"))[0].values()
    assert (told["parent"], told["revoked"]) == ("root", True)
    asked = await lab.inst.db.read(lambda conn: paperwork.latest(conn, "crl", "root"))
    assert asked is not None  # a file for the root's next ceremony
    assert rows[0].serial.hex().encode() in asked.body


async def test_the_trust_bundle_stays_as_it_is(lab: World) -> None:
    """The root is the same, byte for byte."""

    async def crl(_name: str) -> None:
        return None

    async def roots() -> bytes:
        app = Router(pki.routes(lab.inst, crl=crl, ocsp=lab.responder.answer, tls=True))
        reply = await asked(app, "GET", "/roots.pem", [])
        assert reply.status == 200
        return reply.body

    await add_second(lab.inst, NEW)
    before = await roots()
    bob = await lab.person("bob", APPROVER)
    await acts.approve(lab.inst, (await propose(lab)).id, None, bob)
    assert await roots() == before


async def test_each_owner_is_told_once_with_how_many(lab: World) -> None:
    for owner, many in (("shop", 3), ("web", 2), (None, 1)):
        for _ in range(many):
            await lab.issue(owner=owner)
    gone = await lab.issue(owner="gone")
    await revoke(lab.inst, gone.id, RevocationReason.SUPERSEDED, lab.admin)
    await compromised(lab)
    told = {
        event.values()["owner"]: event.values()["certificates"] for event in await lab.events("certificate.replace-now")
    }
    assert told == {"shop": 3, "web": 2, None: 1}


async def test_without_a_successor_the_yes_waits_for_one(lab: World) -> None:
    """The authority stops at once; the one that is named later takes over when it issues."""
    bob = await lab.person("bob", APPROVER)
    await acts.approve(lab.inst, (await propose(lab, successor=None)).id, None, bob)
    assert lab.inst.authority(ISSUING).state == "compromised"
    assert await refused(lab.issue()) == "RW-FROZEN"
    await settle(lab.inst)
    await lab.inst.db.write(succession.follow(ISSUING, NEW))
    await settle(lab.inst)
    assert await refused(lab.issue()) == "RW-FROZEN"
    await add_second(lab.inst, NEW)
    await settle(lab.inst)
    assert (await lab.issue()).authority == NEW
    assert (await lab.counts())["authority.succeeded"] == 1
    await settle(lab.inst)
    assert (await lab.counts())["authority.succeeded"] == 1


async def test_a_root_is_not_replaced_from_here(lab: World) -> None:
    with pytest.raises(Problem) as caught:
        await compromise.propose(lab.inst, "root", None, "stolen", None, lab.admin)
    assert caught.value.code == "RW-CEREMONY"
    assert "issuing" in caught.value.detail
    assert "root-compromise.md" in caught.value.detail
    assert (await lab.counts())["proposal.made"] == 0


async def test_a_root_leaves_the_bundle_when_all_below_it_is_replaced(lab: World) -> None:
    bob = await compromised(lab)
    made = await compromise.propose(lab.inst, "root", None, "stolen", None, lab.admin)
    assert (await acts.approve(lab.inst, made.id, None, bob)).status(lab.clock()) == "done"
    assert lab.inst.authority("root").state == "compromised"

    async def crl(_name: str) -> None:
        return None

    app = Router(pki.routes(lab.inst, crl=crl, ocsp=lab.responder.answer, tls=True))
    roots = x509.load_pem_x509_certificates((await asked(app, "GET", "/roots.pem", [])).body)
    assert [one.subject for one in roots] == [lab.inst.authority("other-root").issuer.certificate.subject]


async def test_wrong_waves_and_strangers(lab: World) -> None:
    await add_second(lab.inst, NEW)
    for waves in ("", "0", "2 h", "31d", "-1h", "1w"):
        assert await refused(propose(lab, waves=waves)) == "RW-FIELD"
    for successor in ("nobody", ISSUING, "root"):
        assert await refused(propose(lab, successor=successor)) in ("RW-NOT-FOUND", "RW-CONFLICT")
    requester = await lab.person("mia", Grant(Role.REQUESTER, ISSUING))
    assert await refused(propose(lab, requester)) == "RW-FORBIDDEN"


@pytest.mark.invariant("I-56")
async def test_all_of_it_or_nothing(lab: World) -> None:
    """Cut off at the commit, nothing of it is there, and the same yes carries it out."""
    await add_second(lab.inst, NEW)
    bob = await lab.person("bob", APPROVER)
    made = await propose(lab)
    before = await lab.counts()
    with armed("compromise.checked:fail"), pytest.raises(Injected):
        await acts.approve(lab.inst, made.id, None, bob)
    assert (await lab.counts()) - before == {"proposal.approved": 1}
    assert lab.inst.authority(ISSUING).state == "active"
    with armed("compromise.stored:fail"), pytest.raises(Injected):
        await acts.approve(lab.inst, made.id, None, bob)
    assert (await proposals.read(lab.inst, made.id)).status(lab.clock()) == "done"
    await acts.approve(lab.inst, made.id, None, bob)
    assert (await lab.counts())["authority.compromised"] == 1


async def test_the_successor_broke_between_the_proposal_and_the_yes(lab: World) -> None:
    await add_second(lab.inst, NEW)
    bob = await lab.person("bob", APPROVER)
    made = await propose(lab)
    await lab.inst.db.write(authorities.freeze(NEW, at=lab.clock()))  # by another process
    assert await refused(acts.approve(lab.inst, made.id, None, bob)) == "RW-CONFLICT"
    assert lab.inst.authority(ISSUING).state == "active"
    await lab.inst.db.write(authorities.thaw(NEW))
    assert (await acts.approve(lab.inst, made.id, None, bob)).status(lab.clock()) == "done"


# ── The report ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_the_report_counts_to_zero(lab: World) -> None:
    """By `replaces`, by the same names for the same owner, by revocation, and by expiry."""
    named = await lab.issue("named.internal")
    same = await lab.issue("same.internal", owner="shop")
    others = await lab.issue("others.internal", owner="web")
    gone = await lab.issue("gone.internal")
    short = await lab.issue("short.internal", profile="short")
    await compromised(lab)
    assert await counts(lab) == Counts(5, 0, 0, 0, 5, others.not_after)
    await lab.issue("named.internal", replaces=named.id)
    await lab.issue("same.internal", owner="shop")
    assert (await counts(lab)).replaced == 2
    await lab.issue("others.internal", owner="somebody else")
    await lab.issue("others.internal", owner="web", profile="peer")
    assert (await counts(lab)).replaced == 2  # another owner's, and another profile's, are no replacement
    await revoke(lab.inst, gone.id, RevocationReason.KEY_COMPROMISE, lab.admin)
    lab.clock.move(timedelta(hours=30))
    assert await counts(lab) == Counts(5, 2, 1, 1, 1, others.not_after)
    _, rest = await replacement.report(lab.inst, ISSUING, after=None, limit=50)
    assert [(one.id, one.owner) for one in rest] == [(others.id, "web")]
    assert short.not_after < lab.clock()
    assert same.owner == "shop"
    await lab.issue("others.internal", owner="web")
    assert (await counts(lab)).remaining == 0
    assert (await counts(lab)).ends_at is None


async def test_what_is_looked_at_all_the_time_is_counted_by_a_job(lab: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many certificates a count takes a second: no scrape waits for it, and after the end nobody counts."""
    asked: list[str] = []
    count = store.counts

    def counted(conn: Connection, authority: str, *arguments: Any, **more: Any) -> Counts:
        asked.append(authority)
        return count(conn, authority, *arguments, **more)

    monkeypatch.setattr(store, "counts", counted)

    async def told() -> int:
        return (await vitals.measure(lab.inst)).unreplaced.get(ISSUING, 0)

    row = await lab.issue("a.internal")
    await compromised(lab)
    assert (await told(), asked) == (0, [])
    await replacement.recount(lab.inst)
    assert (await told(), await told(), asked) == (1, 1, [ISSUING])
    await lab.issue("a.internal", replaces=row.id)
    await replacement.recount(lab.inst)
    assert await told() == 0
    asked.clear()
    lab.clock.move(timedelta(days=400))
    await settle(lab.inst)
    await replacement.recount(lab.inst)
    assert (await told(), asked) == (0, [])


async def test_the_report_through_the_door(lab: World) -> None:
    door = Door(lab.inst, lab.token)
    assert (await door("GET", f"/authorities/{ISSUING}/replacement")).code == "RW-CONFLICT"
    assert (await door("GET", "/authorities/nobody/replacement")).code == "RW-NOT-FOUND"
    rows = [await lab.issue(f"n{n}.internal", owner="shop") for n in range(5)]
    await add_second(lab.inst, NEW)
    bob = await lab.person("bob", APPROVER)
    body = {"successor": NEW, "reason": "a test", "waves": "1h"}
    answer = await door("POST", f"/authorities/{ISSUING}/compromise", body)
    assert (answer.status, answer.json["status"], answer.json["body"]) == (202, "waiting", body)
    assert answer.headers["location"] == f"/api/v1/proposals/{answer.json['id']}"
    await acts.approve(lab.inst, answer.json["id"], None, bob)
    found, path = [], f"/authorities/{ISSUING}/replacement?limit=2"
    cursor = ""
    while True:
        page = (await door("GET", path + cursor)).json
        assert (page["total"], page["remaining"], page["over"], page["compromised"]) == (5, 5, False, True)
        found += page["items"]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert [item["id"] for item in found] == [row.id for row in rows]
    assert found[0]["names"] == ["dns:n0.internal"]
    assert (await door("GET", f"/authorities/{ISSUING}")).json["state"] == "compromised"
    for wrong in ({"waves": "x"}, {"successor": ""}, {"reason": "a\nb"}, {"more": 1}):
        assert (await door("POST", f"/authorities/{NEW}/compromise", wrong)).status in (400, 422)


# ── ARI (RFC 9773) ──────────────────────────────────────────────────────────────────────────────────────────────────


async def window(client: Any, certificate: x509.Certificate) -> tuple[datetime, datetime, int, str | None]:
    reply = await client.get(f"{HERE}/renewal-info/{ari_id(certificate)}")
    start, end = (datetime.fromisoformat(reply.json["suggestedWindow"][name]) for name in ("start", "end"))
    assert start < end
    return start, end, int(reply.headers["retry-after"]), reply.json.get("explanationURL")


async def obtained(door: Acme, client: Any, *names: str) -> x509.Certificate:
    return await door.certificate(client, await door.obtain(client, *names))


async def test_a_few_certificates_are_to_be_renewed_at_once(lab: World) -> None:
    async with acme(lab) as door:
        client = await door.client()
        certificate = await obtained(door, client, "a.internal")
        start, _, again, why = await window(client, certificate)
        assert (start > lab.clock(), again, why) == (True, 21600, None)
        await compromised(lab)
        start, end, again, why = await window(client, certificate)
        assert (end < lab.clock(), again) == (True, 600)
        assert why is not None
        assert b"replaced" in (await client.get(why)).body
        order = await door.obtain(client, "a.internal", replaces=ari_id(certificate))
        new = await door.certificate(client, order)
        assert new.issuer == lab.inst.authority(NEW).issuer.certificate.subject
        assert (await counts(lab)).remaining == 0
        start, _, again, why = await window(client, new)
        assert (start > lab.clock(), again, why) == (True, 21600, None)


async def test_many_are_renewed_in_waves_and_late_ones_at_once(lab: World) -> None:
    async with acme(lab) as door:
        client = await door.bound(preauthorized=(".internal",))
        found = [await obtained(door, client, f"n{n}.internal") for n in range(8)]
        began = lab.clock()
        await compromised(lab)
        until = began + timedelta(hours=1)
        await lab.inst.db.write(  # as if there were so many
            lambda conn: conn.execute(
                update(authorities.table).values(waves_until=until).where(authorities.table.c.name == ISSUING)
            )
        )
        windows = [await window(client, one) for one in found]
        assert all(began <= start <= until and end - start == timedelta(minutes=1) for start, end, _, _ in windows)
        assert len({start for start, _, _, _ in windows}) > 4
        assert [one[:2] for one in windows] == [(await window(client, one))[:2] for one in found]
        lab.clock.move(timedelta(hours=2))
        assert all([(await window(client, one))[1] < lab.clock() for one in found])


async def test_it_is_told_by_every_process(lab: World) -> None:
    """The window follows from the authority's row, which is read each time."""
    async with acme(lab) as door:
        client = await door.client()
        certificate = await obtained(door, client, "a.internal")
        now = lab.clock()
        await lab.inst.db.write(succession.compromise(ISSUING, at=now, waves_until=now))  # by another process
        assert lab.inst.authority(ISSUING).state == "active"
        assert (await window(client, certificate))[1] < now


async def test_rows_are_not_written_for_certificates(lab: World) -> None:
    """Ten or ten thousand: what the yes writes is the same but for the owners."""
    for n in range(10):
        await lab.issue(f"n{n}.internal", key=new_key())
    before = {row.id: row for row in await lab.rows()}
    await compromised(lab)
    after = {row.id: row for row in await lab.rows()}
    changed: list[Certificate] = [row for id, row in after.items() if before.get(id, row) != row]
    assert [row.authority for row in changed] == ["root"]
