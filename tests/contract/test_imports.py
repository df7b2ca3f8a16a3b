"""Importing certificates of others into an inventory, on each kind of store: what is kept, known, odd, refused."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from rootward.ca.access import Caller, Principal
from rootward.ca.issue import issue
from rootward.ca.revoke import revoke, revoke_by_key
from rootward.core.problems import Problem
from rootward.core.revocation import RevocationReason, Unknown
from rootward.core.roles import Grant, Role
from rootward.fleet import imports, inventory
from rootward.fleet.imports import Imported, import_certificates
from rootward.store import certificates
from rootward.store.db import Database
from tests.support.world import ISSUING, OFFICER, REQUESTER, World, ask, issued, opened, refused
from tests.vectors import imports as made
from tests.vectors.csr_parts import pem


async def take_in(of: World, content: bytes, password: str | None = None, **more: Any) -> list[Imported]:
    """The report of one upload by the administrator, or by `caller`."""
    given = {"owner": None, "labels": {}, "caller": of.admin, **more}
    return await import_certificates(of.inst, lambda: content, password=password, **given)


def results(report: list[Imported]) -> list[str]:
    return [one.result for one in report]


async def imported_rows(of: World) -> list[certificates.Certificate]:
    return [row for row in await of.rows() if row.source == "imported"]


async def test_every_form_gives_the_same_certificate(lab: World) -> None:
    der = made.real_der()
    forms = [
        (der, None),
        (pem(der, "CERTIFICATE"), None),
        (b"Subject: somebody\n" + pem(der, "X509 CERTIFICATE") + b"and so on\n", None),
        (pem(der + b"\x30\0", "TRUSTED CERTIFICATE"), None),
        (made.pkcs7_of(made.REAL), None),
        (made.pkcs7_of(made.REAL, encoding=Encoding.PEM), None),
        (made.pkcs12_of(), made.PASSWORD),
        (made.pkcs12_of(old=True), made.PASSWORD),
        (made.pkcs12_of(""), None),
        (made.pkcs12_of(""), ""),
    ]
    first = await take_in(lab, *forms[0], owner="team-a", labels={"env": "lab"})
    assert results(first) == ["imported"]
    for content, password in forms[1:]:
        report = await take_in(lab, content, password)
        assert report[0].result == "known", report
        assert report[0].certificate_id == first[0].certificate_id
    row = await lab.row(str(first[0].certificate_id))
    assert (row.der, row.source, row.authority, row.owner) == (der, "imported", None, "team-a")
    assert (row.labels, row.names, row.subject) == ({"env": "lab"}, (f"dns:{made.REAL}",), f"CN={made.REAL}")
    assert row.serial == made.real(made.REAL)[0].serial_number.to_bytes(20, "big").lstrip(b"\0")
    assert row.status(lab.clock()) == "active"


async def test_each_new_one_has_an_event_with_its_id_and_hash(lab: World) -> None:
    content = pem(made.real_der(), "CERTIFICATE") + pem(made.certificate(serial=b"\0"), "CERTIFICATE")
    report = await take_in(lab, content + made.private_key())
    told = await lab.events("certificate.imported")
    assert [(one.certificate, one.values()["sha256"], one.values()["odd"]) for one in told] == [
        (report[0].certificate_id, report[0].sha256, []),
        (report[1].certificate_id, report[1].sha256, ["serial"]),
    ]
    (done,) = await lab.events("import.done")
    assert done.values() == {"imported": 1, "known": 0, "odd": 1, "refused": 1, "private_keys": 1}
    await take_in(lab, content)
    assert len(await lab.events("certificate.imported")) == 2


@pytest.mark.parametrize("odd", made.ODD)
async def test_odd_ones_are_kept_as_they_came_and_what_is_odd_is_said(lab: World, odd: str) -> None:
    """322."""
    field, make = made.ODD[odd]
    content = make()
    (report,) = await take_in(lab, content)
    assert report.result == "odd"
    assert field in {reason.field for reason in report.reasons}
    assert {reason.code for reason in report.reasons} == {"RW-IMPORT-ODD"}
    assert all(reason.detail.isprintable() for reason in report.reasons)
    row = await lab.row(str(report.certificate_id))
    assert row.der == content
    assert (row.source, row.authority, row.issuer < 0) == ("imported", None, True)
    assert row.status(lab.clock()) in {"active", "expired"}
    assert results(await take_in(lab, content)) == ["known"]
    assert not any(authority.issuer.key_id == row.key_id for authority in lab.inst.authorities.values())


@pytest.mark.invariant("I-03")
async def test_others_may_use_a_serial_as_often_as_they_like(lab: World) -> None:
    ours = await lab.issue()
    serials = [b"\0", b"\1", ours.serial]
    uploads = [pem(made.certificate(serial=serial, spki=made.SPKI), "CERTIFICATE") for serial in serials]
    twins = [made.certificate(serial=serial, subject=made.name(str(n))) for serial in serials for n in range(3)]
    report = await take_in(lab, b"".join(uploads) + b"".join(pem(twin, "CERTIFICATE") for twin in twins))
    assert "refused" not in results(report)
    assert "known" not in results(report)
    assert len({one.certificate_id for one in report}) == 12
    found = await lab.inst.db.read(lambda conn: inventory.by_serial(conn, ours.serial))
    assert found[0].id == ours.id
    assert len(found) == 5


@pytest.mark.invariant("I-27")
async def test_an_import_says_nothing_about_what_we_issued(lab: World) -> None:
    """Its serial has no status with us, its key is not taken, and revoking by key passes it by."""
    content = made.certificate(serial=b"\x55" * 16)
    (report,) = await take_in(lab, content)
    assert await lab.status(b"\x55" * 16) == Unknown()
    somebody = Caller(Principal("somebody", "person", "somebody", (REQUESTER,)), "req_test")
    mine = issued(await issue(lab.inst, ask(key=made.KEY), somebody))
    assert await refused(revoke(lab.inst, str(report.certificate_id), RevocationReason.SUPERSEDED, lab.admin)) == (
        "RW-CONFLICT"
    )
    done = await revoke_by_key(lab.inst, mine.key_id, RevocationReason.SUPERSEDED, lab.admin)
    assert [one.id for one in done] == [mine.id]


async def test_what_we_issued_is_known(lab: World) -> None:
    row = await lab.issue()
    root = lab.inst.authority("root").issuer.certificate.public_bytes(Encoding.DER)
    assert row.der is not None
    report = await take_in(lab, pem(row.der, "CERTIFICATE") + pem(root, "CERTIFICATE"))
    assert results(report) == ["known", "known"]
    assert report[0].certificate_id == row.id
    assert (await lab.row(str(report[1].certificate_id))).authority == "root"
    assert await imported_rows(lab) == []


async def test_a_lookalike_of_our_root_is_flagged(lab: World) -> None:
    """324."""
    root = lab.inst.authority("root").issuer.certificate
    name = root.subject.public_bytes()
    (report,) = await take_in(lab, made.certificate(subject=name, issuer=name, extensions=(made.CA,)))
    assert report.result == "odd"
    assert any("not trusted" in reason.detail for reason in report.reasons)
    assert len(lab.inst.authorities) == 2


async def test_what_our_key_signed_and_nobody_knows_of_is_flagged(lab: World) -> None:
    """As a key that leaked would show itself."""
    row = await lab.issue()
    assert row.signature is not None
    assert row.der is not None
    await lab.inst.db.write(lambda conn: _forget(conn, row.id))
    (report,) = await take_in(lab, row.der)
    assert report.result == "odd"
    assert any(ISSUING in reason.detail and "signed it" in reason.detail for reason in report.reasons)


def _forget(conn: Any, id: str) -> None:
    from sqlalchemy import text

    conn.execute(text("DELETE FROM certificates WHERE id = :id"), {"id": id})


async def test_expired_ones_and_long_chains(lab: World) -> None:
    """325: nothing is built of a chain, so its length costs what its bytes do."""
    (old,) = await take_in(lab, made.certificate(validity=made.dates(b"200101000000Z", b"210101000000Z")))
    assert (await lab.row(str(old.certificate_id))).status(lab.clock()) == "expired"
    chain = [made.certificate(subject=made.name(f"ca {n}"), issuer=made.name(f"ca {n - 1}")) for n in range(1_000)]
    loop = [made.certificate(subject=made.name("x"), issuer=made.name("y")), made.certificate(issuer=made.name("x"))]
    report = await take_in(lab, b"".join(pem(one, "CERTIFICATE") for one in chain + loop))
    assert results(report) == ["imported"] * 1_002
    assert [one.index for one in report] == list(range(1_002))


async def test_they_are_found(lab: World) -> None:
    await take_in(lab, made.real_der())
    await lab.issue("a.internal")
    await lab.inst.db.write(lambda conn: certificates.index_names(conn, 100))
    for filters in (inventory.Filters(source="imported"), inventory.Filters(q="eal.foreign")):
        found = await lab.inst.db.read(
            lambda conn, filters=filters: inventory.search(conn, filters, now=lab.clock(), limit=10)  # type: ignore[misc]  # bound now
        )
        assert [row.names for row in found.certificates] == [(f"dns:{made.REAL}",)]


async def test_officers_and_admins_of_everything_import(lab: World) -> None:
    for grant, may in (
        (OFFICER, True),
        (Grant(Role.ADMIN), True),
        (REQUESTER, False),
        (Grant(Role.OFFICER, ISSUING), False),
        (Grant(Role.SYSTEM_ADMIN), False),
    ):
        caller = Caller(Principal("p", "person", "p", (grant,)), "req_test")
        if may:
            assert len(await take_in(lab, made.real_der(), caller=caller)) == 1
        else:
            assert await refused(take_in(lab, made.real_der(), caller=caller)) == "RW-FORBIDDEN"


async def test_a_private_key_is_never_kept(lab: World) -> None:
    """321: neither in the store nor in an event; the certificate beside it is."""
    key = made.private_key()
    report = await take_in(lab, key + pem(made.certificate(), "CERTIFICATE"))
    assert results(report) == ["refused", "imported"]
    assert report[0].reasons[0].code == "RW-IMPORT-KEY"
    report = await take_in(lab, made.pkcs12_of(), made.PASSWORD)
    assert results(report) == ["imported", "imported"]
    private = made.real(made.REAL)[1].private_numbers().private_value.to_bytes(32, "big")
    secrets = [made.der_key(), private, made.KEY.private_numbers().private_value.to_bytes(32, "big")]
    kept = repr(await lab.rows()).encode() + repr(await lab.events()).encode() + repr(report).encode()
    whole = b"".join(row.tbs for row in await lab.rows())
    for secret in secrets:
        assert secret not in whole
        assert secret.hex().encode() not in kept
    assert made.PASSWORD.encode() not in kept


async def test_an_upload_without_any_certificate_is_refused_and_still_an_event(lab: World) -> None:
    assert await refused(take_in(lab, made.private_key())) == "RW-IMPORT-KEY"
    (done,) = await lab.events("import.done")
    assert done.values() == {"imported": 0, "known": 0, "odd": 0, "refused": 1, "private_keys": 1}


@pytest.mark.invariant("I-66")
async def test_only_so_many_uploads_wait(lab: World) -> None:
    content = b"".join(pem(made.certificate(), "CERTIFICATE") for _ in range(200))
    done = await asyncio.gather(
        *(take_in(lab, content) for _ in range(3 * imports.MOST_WAITING)), return_exceptions=True
    )
    codes = {one.code for one in done if isinstance(one, Problem)}
    assert codes == {"RW-UNAVAILABLE"}
    whole = [one for one in done if not isinstance(one, BaseException)]
    assert whole
    assert len(await imported_rows(lab)) == 200
    assert sum(results(one).count("imported") for one in whole) <= 200


def test_two_replicas_import_the_same(postgres_lab: World) -> None:
    content = b"".join(pem(made.certificate(), "CERTIFICATE") for _ in range(100))
    with opened(postgres_lab.url, postgres_lab.inst.keys, postgres_lab.token) as other:

        async def both() -> list[list[Imported]]:
            return list(await asyncio.gather(take_in(postgres_lab, content), take_in(other, content)))

        found = asyncio.run(both())
        counts = [results(one).count("imported") for one in found]
        assert sum(counts) == 100
        assert [one.certificate_id for one in found[0]] == [one.certificate_id for one in found[1]]
        assert len(asyncio.run(imported_rows(postgres_lab))) == 100
        assert len(asyncio.run(postgres_lab.events("certificate.imported"))) == 100


def test_the_number_of_others_is_never_an_issuers(db: Database) -> None:
    assert db.dialect
    for sha256 in ("0" * 64, "f" * 64, "7" + "f" * 63, "8" + "0" * 63):
        assert -(1 << 63) <= certificates.issuer_of_others(sha256) < 0
