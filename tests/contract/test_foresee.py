"""Agreeing before any order, on both stores: what a person asks for in an ACME account's place is what the account's
next order finds (I-42).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from sqlalchemy import update

from rootward.ca import accounts, foresee, freeze, people, profiles
from rootward.ca.access import Caller
from rootward.ca.approve import approve, deny
from rootward.ca.issue import Issued, issue
from rootward.ca.log import Told
from rootward.core.problems import Problem
from rootward.core.profile import Acme, Approval, Condition, DnsRules, NameRules
from rootward.core.pubkey import KeyAlgorithm
from rootward.core.roles import Grant, Role
from rootward.fleet.auditor import Report, verify_store
from rootward.fleet.books import Uses, undecided
from rootward.store import accounts as rows
from rootward.store import requests
from rootward.store.accounts import Account
from rootward.store.requests import Filters, Parked
from rootward.store.schema import requests as requests_table
from rootward.store.schema_acme import accounts as accounts_table
from tests.support.acme import Client, Wire, b64
from tests.support.postgres import Postgres
from tests.support.rest import Api, rest
from tests.support.store import DIALECTS, fresh_url
from tests.support.world import APPROVER, ISSUING, OFFICER, REQUESTER, World, ask, issued, new_key, pending, refused
from tests.vectors.csr_parts import good_csr

NAMES = NameRules(dns=DnsRules(allow=(".internal",), wildcards=True), ip=("10.0.0.0/8",))
OPEN = Acme(accounts="open")


def account(id: str, **more: Any) -> Account:
    """A new account of this id."""
    return Account(
        **{
            "n": 0,
            "id": id,
            "thumbprint": f"print of {id}",
            "jwk": "{}",
            "contacts": "[]",
            "terms_at": None,
            "binding": None,
            "owner": None,
            "made_by": None,
            "profile": None,
            "names": "[]",
            "preauthorized": "[]",
            "address": "127.0.0.1",
            "deactivated_at": None,
            **more,
        }
    )


async def registered(lab: World, id: str = "Acc_1", **more: Any) -> Account:
    """An account with its principal, as the door makes them."""
    now = lab.clock()
    made = account(id, created_at=now, **more)
    await lab.inst.db.write(
        rows.add(made) + people.people.add_principal(id, kind="account", name=accounts.name_of(id), at=now)
    )
    return made


async def careful(lab: World, name: str = "careful", **changes: Any) -> None:
    """A profile for ACME that wants a yes."""
    await lab.profile(name, **{"approval": Approval("always"), "names": NAMES, "acme": OPEN, **changes})


async def orders(lab: World, account: Account, *names: str, profile: str = "careful", **more: Any) -> Any:
    """What the account's order comes to, by the one road."""
    found = await profiles.current(lab.inst, profile)
    assert found is not None
    caller = Caller(accounts.principal_of(account, found[1]), "req_order")
    return await issue(lab.inst, ask(*names, profile=profile, **more), caller)


async def foresees(lab: World, caller: Caller, *names: str, account: str = "Acc_1", profile: str = "careful") -> Parked:
    return await foresee.ask(lab.inst, account, profile, names or ("dns:a.internal",), caller)


async def codes(awaitable: Any) -> list[tuple[str, str | None]]:
    """Code and field of each reason of the Problem that must come."""
    with pytest.raises(Problem) as caught:
        await awaitable
    return [(reason.code, reason.field) for reason in caught.value.reasons]


async def all_of(lab: World, **filters: Any) -> list[Parked]:
    found = await lab.inst.db.read(lambda conn: requests.list(conn, Filters(**filters), now=lab.clock()))
    return list(found)


# ── What is parked ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.invariant("I-42")
async def test_the_next_order_finds_the_yes_and_uses_it_up(lab: World) -> None:
    await careful(lab)
    mia, bob, acme = await lab.person("mia", REQUESTER), await lab.person("bob", APPROVER), await registered(lab)
    request = await foresees(lab, mia)
    assert (request.principal, request.asked_by, request.binds) == ("Acc_1", mia.principal.id, "names")
    assert request.status(lab.clock()) == "waiting"
    assert pending(await orders(lab, acme, "a.internal")).id == request.id  # an order meanwhile waits for the same yes
    done = await approve(lab.inst, request.id, "fine", bob)
    assert done.status(lab.clock()) == "approved"
    assert [row for row in await lab.rows() if row.profile == "careful"] == []  # nobody has a key yet
    assert pending(await orders(lab, acme, "b.internal")).id != request.id
    row = issued(await orders(lab, acme, "a.internal"))
    assert (row.requester, row.names) == ("Acc_1", ("dns:a.internal",))
    (used,) = await all_of(lab, status="issued")
    assert (used.id, used.certificate) == (request.id, row.id)
    assert pending(await orders(lab, acme, "a.internal")).status(lab.clock()) == "waiting"


@pytest.mark.invariant("I-42")
async def test_of_many_orders_one_gets_the_yes(lab: World) -> None:
    await careful(lab)
    mia, bob, acme = await lab.person("mia", REQUESTER), await lab.person("bob", APPROVER), await registered(lab)
    await approve(lab.inst, (await foresees(lab, mia)).id, None, bob)
    outcomes = await asyncio.gather(*(orders(lab, acme, "a.internal") for _ in range(6)), return_exceptions=True)
    assert len([one for one in outcomes if isinstance(one, Issued)]) == 1, outcomes
    assert len([row for row in await lab.rows() if row.profile == "careful"]) == 1


@pytest.mark.invariant("I-42", "I-07")
async def test_at_the_acme_door_the_order_is_valid_at_once(lab: World) -> None:
    """And the next one for the same names waits for a person again."""
    await careful(lab)
    mia, bob, client = await lab.person("mia", REQUESTER), await lab.person("bob", APPROVER), Client(Wire.of(lab.inst))
    id = (await client.register()).headers["location"].rpartition("/")[2]
    owns = update(accounts_table).where(accounts_table.c.id == id).values(preauthorized='[".internal"]')
    await lab.inst.db.write(lambda conn: conn.execute(owns).rowcount)
    names = ("dns:a.internal", "dns:*.b.internal")
    request = await foresees(lab, mia, *names, account=id)
    await approve(lab.inst, request.id, None, bob)
    first, second = [await finalized(client, *names) for _ in range(2)]
    assert (first["status"], second["status"]) == ("valid", "processing")
    (used,) = await all_of(lab, status="issued")
    assert (used.id, used.principal, used.asked_by) == (request.id, id, mia.principal.id)
    assert (await lab.row(used.certificate or "")).requester == id


async def finalized(client: Client, *names: str) -> Any:
    """An order for names that the account need not prove, finalized with a new key."""
    wanted = [dict(zip(("type", "value"), name.split(":"), strict=True)) for name in names]
    order = await client.post("new-order", {"identifiers": wanted, "profile": "careful"})
    assert (order.status, order.json["status"]) == (201, "ready"), order.body
    csr = good_csr(names=list(names), key=new_key())
    done = await client.post(order.json["finalize"], {"csr": b64(csr)})
    assert done.status == 200, done.body
    return done.json


async def test_what_it_says_of_itself(lab: World) -> None:
    await careful(lab)
    mia = await lab.person("mia", REQUESTER)
    await registered(lab)
    names = ("ip:10.0.0.1", "dns:*.a.internal", "dns:a.internal", "dns:A.internal")
    request = await foresees(lab, mia, *names)
    told = ["dns:*.a.internal", "dns:a.internal", "ip:10.0.0.1"]
    assert msgspec.json.decode(request.names) == told
    summary = msgspec.json.decode(request.summary)
    assert list(summary) == ["profile", "version", "authority", "issuer", "names", "extended_key_usage", "policies"]
    assert (summary["profile"], summary["version"], summary["names"]) == ("careful", 1, told)
    (event,) = await lab.events("request.parked")
    assert (event.actor, event.authority, event.request_id) == (mia.principal.id, ISSUING, "req_mia")
    assert event.values() == {
        "request": request.id,
        "profile": "careful",
        "plan": request.plan,
        "sha256": request.sha256,
        "account": "Acc_1",
    }


async def test_the_plan_shown_does_not_hang_on_a_key_that_nobody_has(lab: World) -> None:
    await careful(lab)
    mia = await lab.person("mia", REQUESTER)
    for id in ("One", "Two"):
        await registered(lab, id)
    first, second = [await foresees(lab, mia, account=id) for id in ("One", "Two")]
    assert (first.plan, first.summary) == (second.plan, second.summary)
    assert first.ask != second.ask
    assert (await foresees(lab, mia, "dns:b.internal", account="One")).plan != first.plan


async def test_the_same_is_parked_once(lab: World) -> None:
    await careful(lab)
    mia, tom, acme = await lab.person("mia", REQUESTER), await lab.person("tom", OFFICER), await registered(lab)
    await registered(lab, "Acc_2")
    calls = [foresees(lab, who, *names) for who in (mia, tom) for names in (("dns:a.internal", "dns:b.internal"),) * 4]
    (first,) = {one.id for one in await asyncio.gather(*calls)}
    assert (await foresees(lab, tom, "dns:b.internal", "dns:a.internal")).id == first
    own = pending(await orders(lab, acme, "c.internal"))
    assert own.asked_by is None
    found = await foresees(lab, mia, "dns:c.internal")
    assert (found.id, found.asked_by) == (own.id, None)
    others = [await foresees(lab, mia), await foresees(lab, mia, "dns:a.internal", "dns:b.internal", account="Acc_2")]
    assert len({first, own.id, *(one.id for one in others)}) == 4
    assert (await lab.counts())["request.parked"] == 4


async def test_a_new_version_of_the_profile_is_another_question(lab: World) -> None:
    await careful(lab)
    mia, bob, acme = await lab.person("mia", REQUESTER), await lab.person("bob", APPROVER), await registered(lab)
    request = await foresees(lab, mia)
    await approve(lab.inst, request.id, None, bob)
    found = await profiles.current(lab.inst, "careful")
    assert found is not None
    await profiles.update(lab.inst, msgspec.structs.replace(found[1], description="changed"), lab.admin)
    assert pending(await orders(lab, acme, "a.internal")).id != request.id


async def test_it_expires_and_is_denied_as_others(lab: World) -> None:
    await careful(lab, approval=Approval("always", expires="2h"))
    mia, bob, acme = await lab.person("mia", REQUESTER), await lab.person("bob", APPROVER), await registered(lab)
    request = await foresees(lab, mia)
    await approve(lab.inst, request.id, None, bob)
    lab.clock.move(timedelta(hours=2))
    assert pending(await orders(lab, acme, "a.internal")).status(lab.clock()) == "waiting"
    second = await foresees(lab, mia, "dns:b.internal")
    await deny(lab.inst, second.id, "no", bob)
    third = await foresees(lab, mia, "dns:b.internal")
    assert (third.id == second.id, third.status(lab.clock())) == (False, "waiting")


@pytest.mark.parametrize("algorithm", list(KeyAlgorithm), ids=str)
async def test_every_kind_of_key_that_a_profile_can_want(lab: World, algorithm: KeyAlgorithm) -> None:
    await careful(lab, keys=(algorithm,))
    mia = await lab.person("mia", REQUESTER)
    await registered(lab)
    assert (await foresees(lab, mia)).status(lab.clock()) == "waiting"


async def test_a_condition_on_the_key_is_met_with_a_key_that_meets_it(lab: World) -> None:
    await careful(lab, conditions=(Condition('key == "rsa-2048" && owner == "ops"', "RSA of ops only."),))
    mia, bob = await lab.person("mia", REQUESTER), await lab.person("bob", APPROVER)
    acme = await registered(lab, owner="ops")
    await registered(lab, "Acc_2")
    await approve(lab.inst, (await foresees(lab, mia)).id, None, bob)
    assert await refused(orders(lab, acme, "a.internal", owner="ops")) == "RW-CONDITION"  # the key that comes counts
    assert await codes(foresees(lab, mia, account="Acc_2")) == [("RW-CONDITION", None)]


async def test_keys_are_not_made_where_another_one_would_not_help(lab: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """RSA keys take long."""
    made: list[KeyAlgorithm] = []
    one = foresee._csr

    async def counted(algorithm: KeyAlgorithm, names: Any) -> bytes:
        made.append(algorithm)
        return await one(algorithm, names)

    monkeypatch.setattr(foresee, "_csr", counted)
    await careful(lab, conditions=(Condition('owner == "ops"', "Of ops only."),))
    mia = await lab.person("mia", REQUESTER)
    await registered(lab)
    assert await codes(foresees(lab, mia)) == [("RW-CONDITION", None)]
    assert await codes(foresees(lab, mia, "dns:a.example")) == [("RW-NAME-PERMITTED", "names")]
    assert made == [KeyAlgorithm.P256]


# ── What is refused ─────────────────────────────────────────────────────────────────────────────────────────────────


async def test_bad_names_and_every_reason(lab: World) -> None:
    await careful(lab)
    mia = await lab.person("mia", REQUESTER)
    await registered(lab)
    for names, said in (
        (("dns:a.example",), [("RW-NAME-PERMITTED", "names")]),
        (("ip:192.168.0.1",), [("RW-NAME-PERMITTED", "names")]),
        (("a.internal",), [("RW-NAME-TYPE", "names[0]")]),
        (("dns:a.internal", "uri:https://a.internal/"), [("RW-NAME-TYPE", "names[1]")]),
        (("email:a@a.internal", "dns:-"), [("RW-NAME-TYPE", "names[0]"), ("RW-NAME", "names[1]")]),
        (tuple(f"dns:n{number}.internal" for number in range(101)), [("RW-TOO-MANY", "names")]),
    ):
        assert await codes(foresees(lab, mia, *names)) == said, names
    assert await codes(foresee.ask(lab.inst, "Acc_1", "careful", (), mia)) == [("RW-TOO-MANY", "names")]
    assert await all_of(lab) == []


async def test_a_name_that_is_there_twice_counts_once(lab: World) -> None:
    await careful(lab, names=msgspec.structs.replace(NAMES, maximum=2))
    mia = await lab.person("mia", REQUESTER)
    await registered(lab)
    assert await foresees(lab, mia, "dns:a.internal", "dns:b.internal", "dns:A.INTERNAL")
    assert await codes(foresees(lab, mia, *(f"dns:{label}.internal" for label in "abc"))) == [("RW-TOO-MANY", "names")]


async def test_the_binding_of_the_account_limits_it(lab: World) -> None:
    await careful(lab)
    mia = await lab.person("mia", REQUESTER)
    await registered(lab, names='["a.internal",".b.internal","10.1.0.0/16"]')
    assert await foresees(lab, mia, "dns:a.internal", "dns:x.b.internal", "ip:10.1.2.3")
    said = await codes(foresees(lab, mia, "dns:a.internal", "dns:c.internal", "ip:10.2.0.1", "dns:x.example"))
    assert said == [("RW-NAME-PERMITTED", "names")] * 4  # x.example by the profile, and all three by the binding


async def test_where_nobody_needs_to_agree(lab: World) -> None:
    await careful(lab, "plain", approval=Approval())
    await careful(lab, approval=Approval("sensitive", (".corp.internal",)))
    mia = await lab.person("mia", REQUESTER)
    await registered(lab)
    assert await codes(foresees(lab, mia, profile="plain")) == [("RW-CONFLICT", "names")]
    assert await codes(foresees(lab, mia, "dns:a.internal")) == [("RW-CONFLICT", "names")]
    assert (await foresees(lab, mia, "dns:a.internal", "dns:x.corp.internal")).status(lab.clock()) == "waiting"


async def test_accounts_that_cannot_order(lab: World) -> None:
    mia = await lab.person("mia", REQUESTER)
    await careful(lab)
    await careful(lab, "closed", acme=Acme(accounts="none"))
    await careful(lab, "bound", acme=Acme(accounts="bound"))
    acme = await registered(lab)
    await registered(lab, "Bound", binding="kid", profile="bound")
    await people.create_grant(
        lab.inst, principal_id="Acc_1", role=Role.REQUESTER, authority=None, profile="closed", caller=lab.admin
    )
    for id, profile in (("Acc_1", "closed"), ("Acc_1", "bound"), ("Bound", "careful")):
        assert await codes(foresees(lab, mia, account=id, profile=profile)) == [("RW-CONFLICT", "account")]
    assert await foresees(lab, mia, account="Bound", profile="bound")
    for id in ("nobody", "", mia.principal.id, "acc_1"):
        assert await codes(foresees(lab, mia, account=id)) == [("RW-NOT-FOUND", "account")]
    await lab.inst.db.write(rows.deactivate(acme.id, at=lab.clock()))
    await lab.inst.db.write(people.people.disable("Bound", at=lab.clock()))
    for id, profile in (("Acc_1", "careful"), ("Bound", "bound")):
        assert await codes(foresees(lab, mia, account=id, profile=profile)) == [("RW-NOT-FOUND", "account")]
    assert len(await all_of(lab)) == 1


async def test_who_may(lab: World) -> None:
    await careful(lab)
    await registered(lab)
    own = Grant(Role.REQUESTER, ISSUING, "careful")
    may = (REQUESTER, OFFICER, Grant(Role.ADMIN), own, Grant(Role.OFFICER, ISSUING))
    for number, grant in enumerate(may):
        caller = await lab.person(f"may{number}", grant)
        assert await foresees(lab, caller, f"dns:n{number}.internal")
    not_ = (
        *(APPROVER, Grant(Role.AUDITOR), Grant(Role.SYSTEM_ADMIN), Grant(Role.REQUESTER, ISSUING, "server")),
        *(Grant(Role.OFFICER, "root"), Grant(Role.ADMIN, "root")),
    )
    for number, grant in enumerate(not_):
        caller = await lab.person(f"not{number}", grant)
        assert await refused(foresees(lab, caller)) == "RW-FORBIDDEN"
        assert await refused(foresees(lab, caller, "rubbish", account="nobody")) == "RW-FORBIDDEN"
        assert await refused(foresees(lab, caller, profile="nothing")) == "RW-PROFILE"


async def test_nothing_is_asked_for_where_nothing_is_issued(lab: World) -> None:
    await careful(lab)
    mia = await lab.person("mia", REQUESTER)
    await registered(lab)
    lab.inst.process.halted["log"] = Problem("RW-LOG-BEHIND", "Behind.")
    assert await refused(foresees(lab, mia)) == "RW-LOG-BEHIND"
    lab.inst.process.halted.clear()
    await freeze.freeze(lab.inst, ISSUING, "a test", lab.admin)
    assert await refused(foresees(lab, mia)) == "RW-FROZEN"


# ── Who decides ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.invariant("I-42")
async def test_whoever_asked_does_not_approve(lab: World) -> None:
    await careful(lab)
    both, tom = await lab.person("eve", REQUESTER, APPROVER), await lab.person("tom", REQUESTER, APPROVER)
    await registered(lab)
    request = await foresees(lab, both)
    assert await refused(approve(lab.inst, request.id, None, both)) == "RW-SAME-PERSON"
    assert (await foresees(lab, tom)).id == request.id  # who asks for what is there already has not asked first
    assert (await approve(lab.inst, request.id, None, tom)).status(lab.clock()) == "approved"
    assert await lab.events("approval.single_person") == []


@pytest.mark.invariant("I-42")
async def test_nor_does_whoever_stands_behind_the_account(lab: World) -> None:
    await careful(lab)
    mia, ann, bob = [await lab.person(name, REQUESTER, APPROVER) for name in ("mia", "ann", "bob")]
    await registered(lab, made_by=ann.principal.id)
    request = await foresees(lab, mia)
    for caller in (mia, ann):
        assert await refused(approve(lab.inst, request.id, None, caller)) == "RW-SAME-PERSON"
    assert (await approve(lab.inst, request.id, None, bob)).status(lab.clock()) == "approved"


@pytest.mark.invariant("I-42")
async def test_the_single_person_decides_alone_and_it_is_an_event(lab: World) -> None:
    await careful(lab)
    await registered(lab)
    request = await foresees(lab, lab.admin)
    assert (await approve(lab.inst, request.id, None, lab.admin)).status(lab.clock()) == "approved"
    (event,) = await lab.events("approval.single_person")
    assert event.values()["request"] == request.id


# ── The books ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def findings(lab: World) -> list[str]:
    """What checking the store finds about requests."""
    with lab.inst.db.snapshot() as conn:
        found = list(verify_store(conn, Told(None, None), None, Report()))
    return [one.detail for one in found if one.about.startswith("request")]


@pytest.mark.invariant("I-59", "I-42")
async def test_who_asked_is_in_the_log(lab: World) -> None:
    """Whoever makes a row say that somebody else asked, or that nobody asked in the account's place, is found."""
    await careful(lab)
    mia, acme = await lab.person("mia", REQUESTER), await registered(lab)
    foreseen = await foresees(lab, mia)
    own = pending(await orders(lab, acme, "b.internal"))
    assert await findings(lab) == []
    changes: list[tuple[Parked, dict[str, str | None]]] = [
        (foreseen, {"asked_by": None}),
        (foreseen, {"asked_by": "somebody"}),
        (foreseen, {"principal": "somebody"}),
        (foreseen, {"principal": mia.principal.id, "asked_by": None}),
        (own, {"asked_by": mia.principal.id}),
        (own, {"asked_by": "Acc_1"}),
    ]
    for row, values in changes:
        await edit(lab, row.id, values)
        assert any("who asked" in detail for detail in await findings(lab)), values
        await edit(lab, row.id, {name: getattr(row, name) for name in values})
    assert await findings(lab) == []


async def edit(lab: World, id: str, values: dict[str, str | None]) -> None:
    change = update(requests_table).where(requests_table.c.id == id).values(**values)
    await lab.inst.db.write(lambda conn: conn.execute(change).rowcount)


async def test_what_was_parked_before_there_was_such_a_thing_is_as_it_was(lab: World) -> None:
    """The hash of a request is over the columns that it always was over, and an older event has no account."""
    await careful(lab)
    acme = await registered(lab)
    row = pending(await orders(lab, acme, "a.internal"))
    assert msgspec.structs.replace(row, asked_by="x").sha256 == row.sha256
    assert "asked_by" not in requests._FIXED
    (event,) = await lab.events("request.parked")
    said = {name: value for name, value in event.values().items() if name != "account"}
    older = msgspec.structs.replace(event, data=msgspec.json.encode(said).decode())
    assert list(undecided(row, [older], Uses({}, (), ()))) == []


# ── REST ────────────────────────────────────────────────────────────────────────────────────────────────────────────

URL = "/api/v1/requests"
BODY = {"account": "Acc_1", "profile": "careful", "names": ["dns:a.internal"]}


@pytest.fixture(scope="module", params=DIALECTS)
def api(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, postgres: Postgres) -> Iterator[Api]:
    """With the profile `careful` and the account `Acc_1`."""
    with rest(fresh_url(request.param, tmp_path_factory.mktemp("rest"), postgres)) as made:
        profile = {
            "name": "careful",
            "authority": "issuing",
            "names": {"dns": {"allow": [".internal"]}},
            "extended_key_usage": ["server_auth"],
            "approval": {"required": "always"},
            "acme": {"accounts": "open"},
        }
        assert made.call("POST", "/api/v1/profiles", profile).status == 201
        now = made.inst.clock()
        new = rows.add(account("Acc_1", created_at=now))
        new += people.people.add_principal("Acc_1", kind="account", name="acme:Acc_1", at=now)
        made.run(made.inst.db.write(new))
        yield made


def test_rest_parks_and_shows(api: Api) -> None:
    id, token = api.person("asker", {"role": "requester", "authority": "issuing"})
    _, other = api.person("other", {"role": "requester", "authority": "issuing"})
    made = api.call("POST", URL, BODY, token=token)
    assert made.status == 202, made.body
    assert made.headers["location"] == f"{URL}/{made.json['id']}"
    told = {name: made.json[name] for name in ("status", "requester", "asked_by", "binds", "names", "certificate_id")}
    assert told == {
        "status": "waiting",
        "requester": "Acc_1",
        "asked_by": id,
        "binds": "names",
        "names": ["dns:a.internal"],
        "certificate_id": None,
    }
    assert {"key", "key_algorithm", "key_usage", "lifetime", "subject"} & set(made.json["summary"]) == set()
    assert api.call("POST", URL, BODY, token=token).json == made.json
    assert api.call("GET", made.headers["location"], token=token).json == made.json
    assert [one["id"] for one in api.call("GET", URL, token=token).json["items"]] == [made.json["id"]]
    assert api.call("GET", made.headers["location"], token=other).code == "RW-NOT-FOUND"
    assert api.call("GET", URL, token=other).json["items"] == []
    assert made.json["id"] in [one["id"] for one in api.call("GET", URL).json["items"]]


def test_rest_of_others_says_how_it_came(api: Api) -> None:
    from tests.support.rest import csr

    parked = api.call("POST", "/api/v1/certificates", {"profile": "careful", "csr": csr("own.internal")})
    assert (parked.json["asked_by"], parked.json["binds"]) == (None, "plan")


def test_rest_answers_the_same_call_once(api: Api) -> None:
    body, headers = {**BODY, "names": ["dns:once.internal"]}, {"idempotency-key": "foreseen"}
    first = api.call("POST", URL, body, headers=headers)
    again = api.call("POST", URL, body, headers=headers)
    assert (first.status, again.status, again.json) == (202, 202, first.json)
    assert again.headers["location"] == first.headers["location"]
    assert api.call("POST", URL, BODY, headers=headers).code == "RW-IDEMPOTENCY"


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"account": ""}, 422, "RW-FIELD"),
        ({"account": "a/b"}, 422, "RW-FIELD"),
        ({"account": "Acc_1\n"}, 422, "RW-FIELD"),
        ({"account": "x" * 65}, 422, "RW-FIELD"),
        ({"account": None}, 422, "RW-FIELD"),
        ({"account": "Acc_2"}, 404, "RW-NOT-FOUND"),
        ({"profile": "nothing"}, 400, "RW-PROFILE"),
        ({"profile": "server"}, 409, "RW-CONFLICT"),
        ({"names": []}, 422, "RW-FIELD"),
        ({"names": "dns:a.internal"}, 422, "RW-FIELD"),
        ({"names": [""]}, 422, "RW-FIELD"),
        ({"names": ["dns:" + "a" * 300]}, 422, "RW-FIELD"),
        ({"names": ["dns:a.internal"] * 101}, 422, "RW-FIELD"),
        ({"names": ["a.internal"]}, 400, "RW-NAME-TYPE"),
        ({"names": ["dns:a..internal"]}, 400, "RW-NAME"),
        ({"names": ["dns:a.example"]}, 400, "RW-NAME-PERMITTED"),
        ({"asked_by": "somebody"}, 422, "RW-FIELD"),
        ({"binds": "names"}, 422, "RW-FIELD"),
        ({"status": "approved"}, 422, "RW-FIELD"),
    ],
)
def test_rest_bad_bodies(api: Api, changes: dict[str, object], status: int, code: str) -> None:
    reply = api.call("POST", URL, {**BODY, **changes})
    assert (reply.status, reply.code) == (status, code), reply.body


def test_rest_without_a_role(api: Api) -> None:
    _, token = api.person("outsider")
    assert api.call("POST", URL, BODY, token=token).code == "RW-FORBIDDEN"
