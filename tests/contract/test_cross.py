"""Cross-signed certificates of authorities on both stores: who may, what is kept, what is said; and the REST door."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import ExtendedKeyUsageOID

from rootward.ca import cross, profiles
from rootward.ca.access import Caller
from rootward.core.chain import verify_chain
from rootward.core.problems import Problem
from rootward.core.roles import Grant, Role
from rootward.protocols.acme.download import chains_of
from rootward.store.cross import Cross
from tests.support.authority import DAY, PEM, Authority
from tests.support.crossing import crossed
from tests.support.postgres import Postgres
from tests.support.rest import Api, rest
from tests.support.store import DIALECTS, fresh_url
from tests.support.world import ISSUING, World, refused

URL = "/api/v1/authorities/issuing/cross-certificates"


def pem(*certificates: x509.Certificate) -> bytes:
    return b"".join(certificate.public_bytes(PEM) for certificate in certificates)


def sha256(certificate: x509.Certificate) -> str:
    return certificate.fingerprint(hashes.SHA256()).hex()


@pytest.fixture(scope="module")
def theirs() -> Authority:
    return Authority("Their Root")


async def admin(lab: World, *, of: str = ISSUING) -> Caller:
    return await lab.person(f"admin-{of}", Grant(Role.ADMIN, of))


async def test_added_listed_removed(lab: World, theirs: Authority) -> None:
    ann, policy = await admin(lab), Authority("Their Policy CA", theirs)
    made, direct = crossed(lab.inst, policy), crossed(lab.inst, theirs)
    chain = pem(made, policy.certificate, theirs.certificate)
    first = await cross.add(lab.inst, ISSUING, chain, ann)
    assert (first.authority, first.sha256, first.removed_at) == (ISSUING, sha256(made), None)
    assert first.chain == pem(made, policy.certificate)
    assert first.created_at == lab.clock()
    second = await cross.add(lab.inst, ISSUING, pem(direct), ann)
    assert await cross.listed(lab.inst, ISSUING) == [first, second]
    assert await cross.listed(lab.inst, "root") == []
    (event, _) = await lab.events("authority.cross-added")
    assert (event.actor, event.authority, event.request_id) == (ann.principal.id, ISSUING, "req_admin-issuing")
    assert event.values() == {"sha256": first.sha256}
    gone = await cross.remove(lab.inst, ISSUING, first.sha256, ann)
    assert (gone.sha256, gone.removed_at) == (first.sha256, lab.clock())
    assert await cross.listed(lab.inst, ISSUING) == [second]
    (event,) = await lab.events("authority.cross-removed")
    assert (event.actor, event.authority, event.values()) == (ann.principal.id, ISSUING, {"sha256": first.sha256})


async def test_what_is_issued_is_valid_by_the_chains_that_acme_offers(lab: World, theirs: Authority) -> None:
    """Of the issuing authority and of the root above it, for whoever trusts the other root alone."""
    ann, rooted = await admin(lab), await admin(lab, of="root")
    await cross.add(lab.inst, ISSUING, pem(crossed(lab.inst, theirs)), ann)
    await cross.add(lab.inst, "root", pem(crossed(lab.inst, theirs, of="root")), rooted)
    row = await lab.issue("a.internal")
    assert row.der is not None
    leaf = x509.load_der_x509_certificate(row.der)
    usual, *others = await chains_of(lab.inst, lab.inst.authority(ISSUING))
    assert len(others) == 2
    for text in others:
        chain = x509.load_pem_x509_certificates(text.encode())
        report = verify_chain(leaf, chain, [theirs.certificate], now=lab.clock(), purpose="server")
        assert report.ok, report.steps
    chain = x509.load_pem_x509_certificates(usual.encode())
    assert not verify_chain(leaf, chain, [theirs.certificate], now=lab.clock()).ok
    lab.clock.move(timedelta(days=365 * 40))  # what has ended is offered to nobody
    assert await chains_of(lab.inst, lab.inst.authority(ISSUING)) == [usual]


async def test_who_may(lab: World, theirs: Authority) -> None:
    made = crossed(lab.inst, theirs)
    ann = await admin(lab)
    grants = (
        Grant(Role.ADMIN, "root"),
        Grant(Role.OFFICER),
        Grant(Role.SYSTEM_ADMIN),
        Grant(Role.ADMIN, ISSUING, "server"),
    )
    callers = [await lab.person(f"p{number}", grant) for number, grant in enumerate(grants)]
    for caller in callers:
        assert await refused(cross.add(lab.inst, ISSUING, pem(made), caller)) == "RW-FORBIDDEN"
        assert await refused(cross.add(lab.inst, ISSUING, b"no chain", caller)) == "RW-FORBIDDEN"
    await cross.add(lab.inst, ISSUING, pem(made), ann)
    for caller in callers:
        assert await refused(cross.remove(lab.inst, ISSUING, sha256(made), caller)) == "RW-FORBIDDEN"
    assert await refused(cross.remove(lab.inst, "root", sha256(made), await admin(lab, of="root"))) == "RW-NOT-FOUND"
    assert [one.sha256 for one in await cross.listed(lab.inst, ISSUING)] == [sha256(made)]


async def test_what_is_not_there(lab: World, theirs: Authority) -> None:
    ann = await admin(lab)
    for name in ("nothing", "", "' OR 1=1 --"):
        assert await refused(cross.listed(lab.inst, name)) == "RW-NOT-FOUND"
        assert await refused(cross.add(lab.inst, name, pem(crossed(lab.inst, theirs)), ann)) == "RW-NOT-FOUND"
    assert await refused(cross.remove(lab.inst, ISSUING, "00" * 32, ann)) == "RW-NOT-FOUND"
    assert await lab.events("authority.cross-added", "authority.cross-removed") == []


async def test_one_that_is_in_use_is_not_added_and_one_that_was_comes_back(lab: World, theirs: Authority) -> None:
    ann, policy = await admin(lab), Authority("Their Policy CA", theirs)
    made = crossed(lab.inst, policy)
    before = await cross.add(lab.inst, ISSUING, pem(made), ann)
    assert await refused(cross.add(lab.inst, ISSUING, pem(made, policy.certificate), ann)) == "RW-CONFLICT"
    await cross.remove(lab.inst, ISSUING, sha256(made), ann)
    assert await refused(cross.remove(lab.inst, ISSUING, sha256(made), ann)) == "RW-NOT-FOUND"
    lab.clock.move(DAY)
    again = await cross.add(lab.inst, ISSUING, pem(made, policy.certificate), ann)
    assert (again.n, again.removed_at, again.created_at) == (before.n, None, lab.clock())
    assert again.chain == pem(made, policy.certificate)
    counts = await lab.counts()
    assert (counts["authority.cross-added"], counts["authority.cross-removed"]) == (2, 1)


async def test_of_many_at_once_one_counts(lab: World, theirs: Authority) -> None:
    ann, made = await admin(lab), crossed(lab.inst, theirs)
    for call, kind in ((add_one, "authority.cross-added"), (remove_one, "authority.cross-removed")):
        outcomes = await asyncio.gather(*(call(lab, made, ann) for _ in range(6)), return_exceptions=True)
        assert len([one for one in outcomes if isinstance(one, Cross)]) == 1, outcomes
        lost = {one.code for one in outcomes if isinstance(one, Problem)}
        assert lost <= {"RW-CONFLICT", "RW-NOT-FOUND"}
        assert (await lab.counts())[kind] == 1


async def add_one(lab: World, made: x509.Certificate, caller: Caller) -> Cross:
    return await cross.add(lab.inst, ISSUING, pem(made), caller)


async def remove_one(lab: World, made: x509.Certificate, caller: Caller) -> Cross:
    return await cross.remove(lab.inst, ISSUING, sha256(made), caller)


async def test_there_are_only_so_many(lab: World) -> None:
    ann = await admin(lab)
    others = [Authority(f"Root {number}") for number in range(cross.MOST + 1)]
    for one in others[:-1]:
        await cross.add(lab.inst, ISSUING, pem(crossed(lab.inst, one)), ann)
    last = pem(crossed(lab.inst, others[-1]))
    assert await refused(cross.add(lab.inst, ISSUING, last, ann)) == "RW-CONFLICT"
    await cross.remove(lab.inst, ISSUING, (await cross.listed(lab.inst, ISSUING))[0].sha256, ann)
    assert await cross.add(lab.inst, ISSUING, last, ann)


async def test_what_is_below_is_known(lab: World, theirs: Authority) -> None:
    """Path lengths and usages are held against the authorities and profiles that there are."""
    ann, rooted = await admin(lab), await admin(lab, of="root")
    short = crossed(lab.inst, theirs, of="root", path_length=0)
    assert await said(cross.add(lab.inst, "root", pem(short), rooted)) == ["allows 0 CAs below it, and there are 1"]
    assert await cross.add(lab.inst, ISSUING, pem(crossed(lab.inst, theirs, path_length=0)), ann)
    server_only = [ExtendedKeyUsageOID.SERVER_AUTH]
    for of, caller in ((ISSUING, ann), ("root", rooted)):
        narrow = pem(crossed(lab.inst, theirs, of=of, usages=server_only))
        (why,) = await said(cross.add(lab.inst, of, narrow, caller))
        assert "may not certify all extended key usages of the profiles" in why
        assert "client" in why
        assert "server" not in why


async def said(awaitable: Any) -> list[str]:
    """What comes behind the certificate's name in each reason of the Problem RW-CROSS that must come."""
    with pytest.raises(Problem) as caught:
        await awaitable
    assert {reason.code for reason in caught.value.reasons} == {"RW-CROSS"}
    return [reason.detail.rpartition('" ')[2].rstrip(".") for reason in caught.value.reasons]


async def test_retired_profiles_do_not_count(lab: World, theirs: Authority) -> None:
    ann = await admin(lab)
    narrow = pem(crossed(lab.inst, theirs, usages=[ExtendedKeyUsageOID.SERVER_AUTH]))
    (why,) = await said(cross.add(lab.inst, ISSUING, narrow, ann))
    for name in why.partition("profiles ")[2].split(", "):
        await profiles.retire(lab.inst, name, lab.admin)
    assert await cross.add(lab.inst, ISSUING, narrow, ann)


# ── REST ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module", params=DIALECTS)
def api(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, postgres: Postgres) -> Iterator[Api]:
    with rest(fresh_url(request.param, tmp_path_factory.mktemp("rest"), postgres)) as made:
        yield made


def test_rest_adds_lists_and_removes(api: Api, theirs: Authority) -> None:
    made = [crossed(api.inst, theirs) for _ in range(3)]
    added = [api.call("POST", URL, {"chain": pem(one).decode()}) for one in made]
    assert [reply.status for reply in added] == [201] * 3
    first = added[0].json
    assert list(first) == ["sha256", "issuer", "not_before", "not_after", "chain", "added_at", "removed_at"]
    assert (first["sha256"], first["issuer"], first["removed_at"]) == (sha256(made[0]), "CN=Their Root", None)
    assert x509.load_pem_x509_certificate(first["chain"].encode()) == made[0]
    assert api.call("GET", URL).json == {"items": [reply.json for reply in added], "next_cursor": None}
    assert api.pages(URL + "?limit=1") == [reply.json for reply in added]
    assert api.call("POST", URL, {"chain": pem(made[0]).decode()}).code == "RW-CONFLICT"
    for one in made:
        gone = api.call("POST", f"{URL}/{sha256(one)}/remove")
        assert (gone.status, gone.json["sha256"]) == (200, sha256(one))
        assert gone.json["removed_at"] is not None
        assert api.call("POST", f"{URL}/{sha256(one)}/remove", {}).code == "RW-NOT-FOUND"
    assert api.call("GET", URL).json["items"] == []


def test_rest_answers_the_same_call_once(api: Api, theirs: Authority) -> None:
    body, headers = {"chain": pem(crossed(api.inst, theirs)).decode()}, {"idempotency-key": "cross"}
    first = api.call("POST", URL, body, headers=headers)
    assert first.status == 201
    assert api.call("POST", URL, body, headers=headers).json == first.json
    assert api.call("POST", f"{URL}/{first.json['sha256']}/remove").status == 200


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({}, 422, "RW-FIELD"),
        ({"chain": ""}, 422, "RW-FIELD"),
        ({"chain": 1}, 422, "RW-FIELD"),
        ({"chain": ["x"]}, 422, "RW-FIELD"),
        ({"chain": "x", "authority": "root"}, 422, "RW-FIELD"),
        ({"chain": "x"}, 422, "RW-CROSS"),
        ({"chain": "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----"}, 422, "RW-CROSS"),
        ({"chain": "-----BEGIN PRIVATE KEY-----\nMAA=\n-----END PRIVATE KEY-----"}, 422, "RW-IMPORT-KEY"),
        ({"chain": "-----BEGIN CERTIFICATE-----" + "\u00e9" * 33_000}, 413, "RW-TOO-LARGE"),
    ],
)
def test_rest_bad_bodies(api: Api, body: dict[str, object], status: int, code: str) -> None:
    reply = api.call("POST", URL, body)
    assert (reply.status, reply.code) == (status, code), reply.body


def test_rest_every_reason(api: Api) -> None:
    own = api.inst.authority(ISSUING).issuer.certificate
    reply = api.call("POST", URL, {"chain": pem(own).decode()})
    assert reply.code == "RW-CROSS"
    assert len(reply.json["reasons"]) == 2
    assert {reason["field"] for reason in reply.json["reasons"]} == {"chain"}


def test_rest_paths(api: Api) -> None:
    for path in (f"{URL}/{'0' * 63}/remove", f"{URL}/{'A' * 64}/remove", f"{URL}/{'0' * 64}", URL + "/"):
        assert api.call("POST", path, {}).code == "RW-NOT-FOUND"
    assert api.call("DELETE", URL).status == 405


def test_rest_who(api: Api, theirs: Authority) -> None:
    chain = {"chain": pem(crossed(api.inst, theirs)).decode()}
    _, auditor = api.person("cross-auditor", {"role": "auditor", "authority": "issuing"})
    _, stranger = api.person("cross-stranger", {"role": "admin", "authority": "root"})
    assert api.call("GET", URL, token=auditor).status == 200
    assert api.call("POST", URL, chain, token=auditor).code == "RW-FORBIDDEN"
    assert api.call("POST", f"{URL}/{'0' * 64}/remove", token=auditor).code == "RW-FORBIDDEN"
    for method, path, body in (("GET", URL, None), ("POST", URL, chain), ("POST", f"{URL}/{'0' * 64}/remove", None)):
        assert api.call(method, path, body, token=stranger).code == "RW-NOT-FOUND"
