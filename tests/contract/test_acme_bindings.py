"""External account bindings (RFC 8555 7.3.4) on each kind of store: handed out, used, used up, revoked; at the door and
as the verbs of `ca`. REST is in test_rest_acme.py.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from rootward.ca import accounts as verbs
from rootward.ca import bindings
from rootward.ca.access import Caller
from rootward.ca.approve import approve
from rootward.ca.issue import issue
from rootward.ca.secret import left, reseal, shared
from rootward.core.jwk import read_jwk
from rootward.core.problems import Problem
from rootward.core.profile import Acme, Approval, Profile
from rootward.core.roles import Grant, Role
from rootward.keys import Sealer, kek_from_bytes
from rootward.store import accounts, events
from rootward.store import bindings as rows
from rootward.store.bindings import Binding
from tests.support.acme import Client, Nothing, Reply, Wire, b64, bound, jwk_of, new_key, unb64
from tests.support.world import APPROVER, World, ask, pending, refused

DAY = timedelta(days=1)


@pytest.fixture
def wire(lab: World) -> Wire:
    return Wire.of(lab.inst)


async def inner(lab: World, name: str = "inner", **more: Any) -> Profile:
    """A profile that wants bindings."""
    return await lab.profile(name, acme=Acme("bound"), **more)


async def handed_out(lab: World, **changes: Any) -> tuple[Binding, bytes]:
    """A binding for the profile `inner`."""
    given: dict[str, Any] = {
        "profile": "inner",
        "owner": "shop",
        "names": (),
        "preauthorized": (),
        "uses": 1,
        "lifetime": DAY,
        "caller": lab.admin,
    }
    return await bindings.create(lab.inst, **given | changes)


async def made(client: Client, binding: Binding, secret: bytes, **header: Any) -> Reply:
    """newAccount with this binding."""
    eab = bound(binding.id, secret, header.pop("jwk", jwk_of(client.key)), client.path("new-account"), header)
    return await client.register(externalAccountBinding=eab)


async def test_what_is_handed_out_is_no_option(lab: World) -> None:
    """A client's command line takes `--eab-kid -9y...` for an option without its value."""
    dashes, rest = b"\xfb" * 16, b"\x00" * 16  # b"\xfb" begins with the 62nd character, "-"
    given = iter([dashes, rest, 2 * dashes, 2 * rest])
    await inner(lab)
    lab.inst.random, random = (lambda _size: next(given)), lab.inst.random
    try:
        binding, secret = await handed_out(lab)
    finally:
        lab.inst.random = random
    assert (binding.id, secret) == (b64(rest), 2 * rest)


async def row(lab: World, id: str) -> Binding:
    found = await lab.inst.db.look(lambda conn: rows.by_id(conn, id))
    assert found is not None
    return found


@pytest.mark.invariant("I-52")
async def test_an_account_with_a_binding(lab: World, wire: Wire) -> None:
    await inner(lab)
    binding, secret = await handed_out(lab, names=(".shop.internal",), preauthorized=("10.0.0.0/8",))
    client = Client(wire, directory="inner")
    assert (await client.register()).problem == "externalAccountRequired"
    reply = await made(client, binding, secret)
    assert reply.status == 201, reply.body
    assert set(reply.json["externalAccountBinding"]) == {"protected", "payload", "signature"}
    assert "externalAccountBinding" not in (await client.post(client.kid or "")).json
    id = (client.kid or "").rpartition("/")[2]
    found = await lab.inst.db.look(lambda conn: accounts.by_id(conn, id))
    assert found is not None
    assert (found.binding, found.owner, found.profile) == (binding.id, "shop", "inner")
    assert (found.names, found.preauthorized) == ('[".shop.internal"]', '["10.0.0.0/8"]')
    assert found.made_by == lab.admin.principal.id
    assert (await row(lab, binding.id)).status(lab.clock()) == "used"
    used, created = await lab.events("acme.binding-used"), await lab.events("acme.account-created")
    assert used[0].values() == {"binding": binding.id, "account": id, "owner": "shop"}
    assert created[0].values()["binding"] == binding.id
    assert used[0].authority == created[0].authority == "issuing"


@pytest.mark.invariant("I-52")
@pytest.mark.parametrize(
    ("header", "type", "status"),
    [
        ({"alg": "HS384"}, "unauthorized", 403),  # the MAC is HS256's
        ({"alg": "ES256"}, "badSignatureAlgorithm", 400),
        ({"alg": "none"}, "badSignatureAlgorithm", 400),
        ({"kid": "A" * 22}, "unauthorized", 403),  # 146
        ({"kid": ""}, "unauthorized", 403),
        ({"kid": Nothing}, "malformed", 400),
        ({"kid": 1}, "malformed", 400),
        ({"kid": "\ud800"}, "malformed", 400),  # half a surrogate pair, which no store can be asked for
        ({"kid": "\U0001f512"}, "unauthorized", 403),  # a whole one, escaped in the same way
        ({"nonce": "AAAA"}, "unauthorized", 403),  # 148
        ({"url": "https://localhost:8443/acme/new-account"}, "unauthorized", 403),  # 149: another directory's
        ({"url": Nothing}, "unauthorized", 403),
        ({"jwk": jwk_of(new_key())}, "unauthorized", 403),  # 150
        ({"jwk": {}}, "unauthorized", 403),
        ({"jwk": b"not JSON"}, "unauthorized", 403),
        ({"jwk": b""}, "unauthorized", 403),
        ({"crit": ["x"]}, "malformed", 400),
    ],
)
async def test_a_binding_that_is_wrong(lab: World, wire: Wire, header: dict[str, Any], type: str, status: int) -> None:
    await inner(lab)
    binding, secret = await handed_out(lab)
    client = Client(wire, directory="inner")
    reply = await made(client, binding, secret, **header)
    assert (reply.problem, reply.status) == (type, status), reply
    assert reply.headers["replay-nonce"]
    assert (await row(lab, binding.id)).used == 0
    assert (await lab.counts())["acme.account-created"] == 0
    assert (await made(client, binding, secret)).status == 201


@pytest.mark.invariant("I-52")
async def test_152_a_mac_that_is_wrong(lab: World, wire: Wire) -> None:
    await inner(lab)
    binding, secret = await handed_out(lab)
    other, elses = await handed_out(lab)
    client = Client(wire, directory="inner")
    url = client.path("new-account")
    eab = bound(binding.id, secret, jwk_of(client.key), url)
    mac = unb64(eab["signature"])
    flipped = [
        bytes(byte ^ (1 << bit) if at == n else byte for at, byte in enumerate(mac)) for n in (0, 31) for bit in (0, 7)
    ]
    wrong = [eab | {"signature": b64(value)} for value in (*flipped, bytes(mac[:16]), bytes(mac) + b"\0", b"")]
    wrong += [bound(binding.id, elses, jwk_of(client.key), url), bound(other.id, secret, jwk_of(client.key), url)]
    wrong += [
        bound(binding.id, bytes(32), jwk_of(client.key), url),
        bound("A" * 22, bytes(32), jwk_of(client.key), url),
    ]
    said = set()
    for one in wrong:
        reply = await client.register(externalAccountBinding=one)
        assert (reply.problem, reply.status) == ("unauthorized", 403)
        said.add(reply.json["detail"])
    assert len(said) == 1  # an unknown kid sounds like a wrong MAC
    for one in ([], "a", {"protected": 1}, {"signatures": []}, eab | {"header": {}}):
        assert (await client.register(externalAccountBinding=one)).problem == "malformed"
    assert (await row(lab, binding.id)).used == 0


@pytest.mark.invariant("I-52")
async def test_how_often_it_can_be_used(lab: World, wire: Wire) -> None:
    await inner(lab)
    binding, secret = await handed_out(lab, uses=2)
    for status in (201, 201, 403):
        client = Client(wire, directory="inner")
        reply = await made(client, binding, secret)
        assert reply.status == status
    assert reply.problem == "unauthorized"
    assert "used" in reply.json["detail"]
    again = await made(Client(wire, directory="inner", key=client.key), binding, secret)
    assert again.problem == "unauthorized"


@pytest.mark.invariant("I-52")
async def test_the_last_use_is_had_by_one(lab: World, wire: Wire) -> None:
    await inner(lab)
    binding, secret = await handed_out(lab, uses=3)
    clients = [Client(wire, directory="inner") for _ in range(20)]
    replies = await asyncio.gather(*(made(client, binding, secret) for client in clients))
    assert [reply.status for reply in replies].count(201) == 3
    assert {reply.problem for reply in replies if reply.status != 201} == {"unauthorized"}
    assert (await row(lab, binding.id)).used == 3
    counts = await lab.counts()
    assert (counts["acme.binding-used"], counts["acme.account-created"]) == (3, 3)


async def test_one_key_at_once_uses_it_once(lab: World, wire: Wire) -> None:
    """Who already has an account needs no binding, and uses none up."""
    await inner(lab)
    binding, secret = await handed_out(lab, uses=5)
    client = Client(wire, directory="inner")
    for _ in range(10):
        await client.get("new-nonce")
    replies = await asyncio.gather(*(made(client, binding, secret) for _ in range(10)))
    assert sorted(reply.status for reply in replies) == [200] * 9 + [201]
    assert (await row(lab, binding.id)).used == 1
    assert (await client.register()).status == 200


async def test_it_ends(lab: World, wire: Wire) -> None:
    await inner(lab)
    late, secret = await handed_out(lab, lifetime=timedelta(minutes=1))
    gone, other = await handed_out(lab)
    await bindings.revoke(lab.inst, gone.id, lab.admin)
    lab.clock.move(timedelta(minutes=1))
    for binding, key, why in ((late, secret, "expired"), (gone, other, "revoked")):
        reply = await made(Client(wire, directory="inner"), binding, key)
        assert (reply.problem, reply.status) == ("unauthorized", 403)
        assert why in reply.json["detail"]


async def test_it_ends_in_between(lab: World, wire: Wire) -> None:
    """What was open when it was looked at is asked once more in the transaction."""
    await inner(lab)
    binding, _ = await handed_out(lab)
    await bindings.revoke(lab.inst, binding.id, lab.admin)
    new = verbs.New(read_jwk(jwk_of(new_key())), (), False, binding, "")
    with pytest.raises(verbs.BindingSpent):
        await verbs.register(lab.inst, new, lab.admin, lab.inst.db.write)
    assert (await lab.counts())["acme.account-created"] == 0


async def test_which_directory_it_is_for(lab: World, wire: Wire) -> None:
    await inner(lab)
    await inner(lab, "other")
    binding, secret = await handed_out(lab)
    reply = await made(Client(wire, directory="other"), binding, secret)
    assert (reply.problem, reply.status) == ("unauthorized", 403)
    assert "another profile" in reply.json["detail"]
    assert (await made(Client(wire), binding, secret)).status == 201  # the common one has them all
    every, key = await handed_out(lab, profile=None)
    assert (await made(Client(wire, directory="other"), every, key)).status == 201


async def test_where_none_is_wanted_it_counts_all_the_same(lab: World, wire: Wire) -> None:
    binding, secret = await handed_out(lab, profile="server")
    client = Client(wire, directory="server")
    assert (await made(client, binding, secret)).status == 201
    assert (await row(lab, binding.id)).used == 1
    assert (await made(Client(wire, directory="server"), binding, secret)).problem == "unauthorized"


async def test_another_kek_opens_nothing(lab: World, wire: Wire) -> None:
    await inner(lab)
    binding, secret = await handed_out(lab)
    client = Client(wire, directory="inner")
    await client.get("new-nonce")
    lab.inst.sealer = Sealer(kek_from_bytes(b"f" * 64, "another"))
    reply = await made(client, binding, secret)
    assert (reply.problem, reply.status, reply.json["code"]) == ("serverInternal", 503, "RW-KEK")


# ── the verbs ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.invariant("I-60")
async def test_the_secret_is_nowhere(lab: World, wire: Wire) -> None:
    await inner(lab)
    binding, secret = await handed_out(lab)
    await made(Client(wire, directory="inner"), binding, secret)
    assert secret not in binding.secret
    kept = await lab.inst.db.read(lambda conn: events.page(conn, after=0, limit=10_000))
    for form in (secret.hex(), b64(secret)):
        assert all(form not in event.data for event in kept)
        assert form not in repr(binding)
    assert bindings.secret_of(lab.inst, binding) == secret


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"owner": ""}, "owner"),
        ({"owner": "a\nb"}, "owner"),
        ({"owner": " a"}, "owner"),
        ({"owner": "a" * 201}, "owner"),
        ({"names": ("{user}.internal",)}, "names"),
        ({"names": ("*.internal",)}, "names"),
        ({"names": ("a b",)}, "names"),
        ({"names": (".a.internal",) * 101}, "names"),
        ({"preauthorized": ("10.0.0.1/8",)}, "preauthorized"),
        ({"uses": 0}, "uses"),
        ({"uses": 10_001}, "uses"),
        ({"lifetime": timedelta(days=367)}, "expires"),
        ({"lifetime": timedelta(seconds=59)}, "expires"),
        ({"profile": "nothing"}, "profile"),
        ({"profile": "device"}, "profile"),  # takes no ACME accounts
    ],
)
async def test_what_a_binding_may_be(lab: World, changes: dict[str, Any], field: str) -> None:
    await inner(lab)
    with pytest.raises(Problem, match="RW-FIELD") as caught:
        await handed_out(lab, **changes)
    assert [reason.field for reason in caught.value.reasons] == [field]
    assert (await lab.counts())["acme.binding-created"] == 0


@pytest.mark.invariant("I-43")
async def test_who_may_hand_them_out(lab: World) -> None:
    await inner(lab)
    everywhere = await lab.person("ann", Grant(Role.ADMIN))
    here = await lab.person("bob", Grant(Role.ADMIN, "issuing"))
    elsewhere = await lab.person("cid", Grant(Role.ADMIN, "root"))
    reads = await lab.person("dan", Grant(Role.AUDITOR, "issuing"), Grant(Role.OFFICER, "issuing"))
    nobody = await lab.person("eve", Grant(Role.REQUESTER), Grant(Role.SYSTEM_ADMIN))
    for caller, one, every in (
        (everywhere, "", ""),
        (here, "", "RW-FORBIDDEN"),
        (elsewhere, "RW-FORBIDDEN", "RW-FORBIDDEN"),
        (reads, "RW-FORBIDDEN", "RW-FORBIDDEN"),
        (nobody, "RW-FORBIDDEN", "RW-FORBIDDEN"),
    ):
        for profile, code in (("inner", one), (None, every)):
            if code:
                assert await refused(handed_out(lab, caller=caller, profile=profile)) == code
            else:
                await handed_out(lab, caller=caller, profile=profile)
    of_one, _ = await handed_out(lab)
    of_every, _ = await handed_out(lab, profile=None)
    for caller, binding, code in (
        (reads, of_one, "RW-FORBIDDEN"),
        (reads, of_every, "RW-NOT-FOUND"),
        (elsewhere, of_one, "RW-NOT-FOUND"),
        (nobody, of_one, "RW-NOT-FOUND"),
        (here, of_every, "RW-NOT-FOUND"),
    ):
        assert await refused(bindings.revoke(lab.inst, binding.id, caller)) == code
    assert (await bindings.revoke(lab.inst, of_one.id, here)).revoked_at == lab.clock()
    lab.clock.move(DAY)
    assert (await bindings.revoke(lab.inst, of_one.id, here)).revoked_at == lab.clock() - DAY
    assert (await lab.counts())["acme.binding-revoked"] == 1


async def test_an_administrator_ends_an_account(lab: World, wire: Wire) -> None:
    await inner(lab)
    binding, secret = await handed_out(lab)
    client = Client(wire, directory="inner")
    await made(client, binding, secret)
    id = (client.kid or "").rpartition("/")[2]
    officer = await lab.person("olaf", Grant(Role.OFFICER, "issuing"))
    admin = await lab.person("ada", Grant(Role.ADMIN, "issuing"))
    stranger = await lab.person("sam", Grant(Role.ADMIN, "root"))
    assert await refused(verbs.disable(lab.inst, id, officer)) == "RW-FORBIDDEN"
    assert await refused(verbs.disable(lab.inst, id, stranger)) == "RW-NOT-FOUND"
    assert await refused(verbs.disable(lab.inst, "A" * 22, admin)) == "RW-NOT-FOUND"
    for _ in range(2):
        assert (await verbs.disable(lab.inst, id, admin)).status == "revoked"
    reply = await client.post(client.kid or "")
    assert (reply.problem, reply.status) == ("unauthorized", 401)
    (event,) = await lab.events("acme.account-deactivated")
    assert event.actor == admin.principal.id
    assert event.values() == {"account": id, "owner": "shop"}


# ── who stands behind an account ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.invariant("I-42")
async def test_who_made_the_binding_does_not_approve(lab: World, wire: Wire) -> None:
    profile = await inner(lab, approval=Approval(required="always"))
    approvers = {name: await lab.person(name, APPROVER) for name in ("mia", "ann", "bob")}
    mia = approvers["mia"].principal
    once_admin = Caller(replace(mia, grants=(Grant(Role.ADMIN, "issuing"),)), "req_mia")
    binding, secret = await handed_out(lab, owner="bob", caller=once_admin)
    client = Client(wire, directory="inner")
    await made(client, binding, secret)
    id = (client.kid or "").rpartition("/")[2]
    found = await lab.inst.db.look(lambda conn: accounts.by_id(conn, id))
    assert found is not None
    asks = Caller(verbs.principal_of(found, profile), "req_acme")
    request = pending(await issue(lab.inst, ask("a.internal", profile="inner"), asks))
    assert request.principal == id
    for caller in (approvers["mia"], approvers["bob"]):  # made its binding; is its owner by name
        assert await refused(approve(lab.inst, request.id, None, caller)) == "RW-SAME-PERSON"
    done = await approve(lab.inst, request.id, None, approvers["ann"])
    assert done.status(lab.clock()) == "approved"


async def test_a_request_of_an_account_that_has_ended_is_not_approved(lab: World, wire: Wire) -> None:
    profile = await lab.profile("careful", approval=Approval(required="always"))
    client = Client(wire, directory="careful")
    assert (await client.register()).status == 201
    id = (client.kid or "").rpartition("/")[2]
    found = await lab.inst.db.look(lambda conn: accounts.by_id(conn, id))
    assert found is not None
    asks = Caller(verbs.principal_of(found, profile), "req_acme")
    request = pending(await issue(lab.inst, ask("a.internal", profile="careful"), asks))
    await client.post(client.kid or "", {"status": "deactivated"})
    assert await verbs.requester(lab.inst, id, "careful") is None
    assert await refused(approve(lab.inst, request.id, None, lab.admin)) == "RW-APPROVAL"


async def test_an_account_as_requester(lab: World, wire: Wire) -> None:
    await inner(lab)
    client = Client(wire)
    await client.register()
    id = (client.kid or "").rpartition("/")[2]
    for name, roles in (("server", [Role.REQUESTER]), ("inner", []), ("nothing", [])):
        found = await verbs.requester(lab.inst, id, name)
        assert found is not None
        assert [grant.role for grant in found.grants] == roles
    assert await verbs.requester(lab.inst, "A" * 22, "server") is None


# ── another KEK ───────────────────────────────────────────────────────────────────────────────────────────────────


async def test_secrets_are_sealed_anew(lab: World, wire: Wire) -> None:
    """The nonces that were handed out and the bindings that were made stay good."""
    await inner(lab)
    binding, secret = await handed_out(lab)
    client = Client(wire, directory="inner")
    await client.get("new-nonce")
    old, new = lab.inst.sealer, Sealer(kek_from_bytes(b"f" * 64, "another"))
    third = Sealer(kek_from_bytes(b"e" * 64, "a third"))
    with pytest.raises(Problem, match="RW-KEK"):
        await lab.inst.db.write(lambda conn: reseal(conn, old=third, new=new, at=lab.clock()))
    assert await lab.inst.db.read(lambda conn: left(conn, new=new)) == 2
    assert await lab.inst.db.write(lambda conn: reseal(conn, old=old, new=new, at=lab.clock())) == 2
    assert await lab.inst.db.read(lambda conn: left(conn, new=new)) == 0
    # Cut off after it, or simply done twice: what the new one opens is left alone.
    assert await lab.inst.db.write(lambda conn: reseal(conn, old=third, new=new, at=lab.clock())) == 2
    lab.inst.sealer = new
    client.wire = Wire.of(lab.inst)  # as after a start
    assert (await made(client, binding, secret)).status == 201
    lab.inst.sealer = old
    client.wire = Wire.of(lab.inst)
    reply = await client.post(client.kid or "", header={"nonce": client.nonces.pop()})
    assert (reply.problem, reply.status, reply.json["code"]) == ("serverInternal", 503, "RW-KEK")


async def test_a_shared_secret_has_a_known_name(lab: World) -> None:
    with pytest.raises(ValueError, match="not in SHARED"):
        await shared(lab.inst, "another")


async def test_two_replicas_make_one_secret(lab: World) -> None:
    found = await asyncio.gather(*(shared(lab.inst, "acme.nonce-key") for _ in range(20)))
    assert len(set(found)) == 1
    assert len(found[0]) == 32
