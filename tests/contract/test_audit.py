"""The audit log end to end: nothing happens that it cannot record, reading it is in it, and a whole server whose store
was cut off behind its back.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from sqlalchemy import Connection, NullPool, create_engine, make_url, text, update

from rootward.ca import people
from rootward.ca.access import Caller
from rootward.ca.approve import approve
from rootward.ca.issue import Issued, Pending, issue
from rootward.ca.log import Told
from rootward.ca.publish import publish
from rootward.ca.revoke import revoke
from rootward.cli import app as cli
from rootward.core.problems import Problem
from rootward.core.profile import Approval
from rootward.core.revocation import RevocationReason
from rootward.core.roles import Grant, Role
from rootward.fleet.auditor import Report, summary, verify_export, verify_store
from rootward.fleet.export import Reading, export, lines, read, scratch, verify_file
from rootward.fleet.imports import import_certificates
from rootward.keys import NotSigned
from rootward.store import certificates, requests
from rootward.store.errors import Constraint
from rootward.store.schema import certificates as rows
from rootward.store.schema import requests as requests_table
from rootward.telemetry import TOKEN_PREFIX
from tests.faults.tampering import unlock
from tests.support.faults import watch
from tests.support.postgres import Postgres
from tests.support.server import Server
from tests.support.store import DIALECTS, NOW
from tests.support.world import ISSUING, World, ask, issued, new_key, pending, refused
from tests.vectors import imports as vectors

NO_EVENTS = {
    "sqlite": ["CREATE TRIGGER no_events BEFORE INSERT ON events BEGIN SELECT RAISE(ABORT, 'no events today'); END"],
    "postgresql": [
        """CREATE FUNCTION no_events() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        RAISE EXCEPTION 'no events today' USING ERRCODE = 'integrity_constraint_violation'; END $$""",
        "CREATE TRIGGER no_events BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION no_events()",
    ],
}


@pytest.mark.invariant("I-58", "I-56")
async def test_what_cannot_be_recorded_does_not_happen(lab: World) -> None:
    row = await lab.issue()
    asked: list[bytes] = []
    watch(lab.inst, lambda tbs, sign: (asked.append(tbs), sign())[1])
    before = await lab.rows()

    def forbid(conn: Connection) -> None:
        for statement in NO_EVENTS[lab.dialect]:
            conn.execute(text(statement))

    await lab.inst.db.write(forbid)
    with pytest.raises((Constraint, Problem)):
        await lab.issue("b.internal")
    assert asked == []  # the key was never asked
    with pytest.raises((Constraint, Problem)):
        await revoke(lab.inst, row.id, RevocationReason.SUPERSEDED, lab.admin)
    with pytest.raises((Constraint, Problem)):
        await people.create_person(lab.inst, "somebody", lab.admin)
    crl = await lab.inst.db.read(lambda conn: conn.execute(text("SELECT max(number) FROM crls")).scalar_one())
    with pytest.raises((Constraint, Problem)):
        await publish(lab.inst, lab.inst.authority(ISSUING))
    assert crl == await lab.inst.db.read(lambda conn: conn.execute(text("SELECT max(number) FROM crls")).scalar_one())
    assert await lab.rows() == before
    with pytest.raises((Constraint, Problem)):
        await export(lab.inst, lab.admin)  # nor is it read as a whole


@pytest.mark.invariant("I-60")
async def test_reading_it_is_in_it_and_secrets_are_not(lab: World) -> None:
    person = await people.create_person(lab.inst, "somebody", lab.admin)
    _, secret = await people.create_token(
        lab.inst, principal_id=person.id, label="x", lifetime=timedelta(days=1), scopes=None, caller=lab.admin
    )
    await lab.issue()
    written = b"".join([piece async for piece in await export(lab.inst, lab.admin)])
    lines = [json.loads(line) for line in written.splitlines()]
    last = [line for line in lines if "kind" in line][-1]
    assert (last["kind"], last["actor"]) == ("audit.exported", lab.admin.principal.id)
    for value in (secret, lab.token):
        assert value.encode() not in written
        assert value.removeprefix(TOKEN_PREFIX).encode() not in written
    nobody = Caller((await lab.person("nobody", Grant(Role.REQUESTER))).principal, "r")
    assert await refused(export(lab.inst, nobody)) == "RW-FORBIDDEN"


async def test_an_export_says_what_its_head_says_while_others_go_on(lab: World) -> None:
    """Made under way: what happened after its head is in neither half."""
    first, second = await lab.issue("a.internal"), await lab.issue("b.internal")
    made = b"".join([piece async for piece in await export(lab.inst, lab.admin)])
    assert made
    opened = lab.inst.log
    assert opened is not None
    await revoke(lab.inst, first.id, RevocationReason.SUPERSEDED, lab.admin)
    third = await lab.issue("c.internal")  # none of this has a place yet
    with lab.inst.db.snapshot() as conn:
        written = b"".join(lines(conn, opened.verifier))
    told = {
        line["certificate"]["id"]: line["certificate"]
        for line in map(json.loads, written.splitlines())
        if "certificate" in line
    }
    assert told[first.id]["revoked_at"] is None
    assert second.id in told
    assert third.id not in told
    reading, report = Reading(), Report()
    with scratch() as conn:
        assert [*read(conn, BytesIO(written), reading)] == []
        assert [*verify_export(conn, reading.head, reading.verifier, opened.verifier, report)] == []
    assert report.certificates == len(told)


async def test_a_gap_is_one_finding_and_another_file_as_well(lab: World, tmp_path: Path) -> None:
    for _ in range(3):
        await publish(lab.inst, lab.inst.authority(ISSUING))
    written = b"".join([piece async for piece in await export(lab.inst, lab.admin)]).splitlines(keepends=True)
    file = tmp_path / "export.ndjson"

    def found() -> list[str]:
        return [f"{finding.about}: {finding.detail}" for finding in verify_file(file, None, Report())]

    published = [number for number, line in enumerate(written) if b'"kind":"crl.published"' in line]
    gap = published[-2]
    file.write_bytes(b"".join(written[:gap] + written[gap + 1 :]))
    assert found() == [f"event {json.loads(written[gap + 1])['id']}: it has leaf {gap + 1}, and leaf {gap} is missing"]
    file.write_bytes(b"".join([*written[:gap], written[gap + 1], written[gap], *written[gap + 2 :]]))
    assert found() == [f"line {gap + 2}: leaf {gap} comes behind leaf {gap + 1}"]
    file.write_text("# Rootward\n\nA text.\n" * 30)
    assert found() == ["the file: this is no export of rootward audit export"]


@pytest.mark.parametrize(("findings", "said"), [(0, "no finding."), (1, "1 finding."), (2, "2 findings.")])
def test_the_summary_counts_in_words(findings: int, said: str) -> None:
    line = summary(Report(findings=findings, size=1, certificates=1, waiting=1, went_on=1))
    assert "1 event and 1 certificate, 1 event without a place yet, gone on from an older state 1 time: " in line
    assert line.endswith(said)


@pytest.mark.invariant("I-59", "I-27")
async def test_one_of_ours_that_was_made_one_of_others_is_found_and_is_not_good(lab: World) -> None:
    """A revoked certificate in the form of an imported one, with whatever belongs to that form."""
    row = await lab.issue()
    await revoke(lab.inst, row.id, RevocationReason.SUPERSEDED, lab.admin)
    authority = lab.inst.authority(ISSUING)

    def tamper(conn: Connection) -> None:
        unlock(conn)
        values = {"source": "imported", "tbs": row.der, "revoked_at": None, "reason": None}
        conn.execute(update(rows).where(rows.c.id == row.id).values(**values))

    await lab.inst.db.write(tamper)
    assert await lab.inst.db.read(lambda conn: certificates.status_of(conn, authority.n, row.serial)) is None
    found = await findings_about(lab, "certificate")
    assert any("tells of issue.intended" in detail for detail in found), found
    assert await found_in_export(lab) != []


async def found_in_export(lab: World) -> list[str]:
    """What checking an export that is made now finds."""
    written = b"".join([piece async for piece in await export(lab.inst, lab.admin)])
    reading, report = Reading(), Report()
    with scratch() as conn:
        found = [*read(conn, BytesIO(written), reading)]
        found += verify_export(conn, reading.head, reading.verifier, None, report)
    return [one.detail for one in found]


@pytest.mark.invariant("I-59")
@pytest.mark.parametrize(
    "values",
    [
        {"owner": "x"},
        {"labels": "{}"},
        {"names": '["dns:x"]'},
        {"subject": "CN=x"},
        {"key_id": "00"},
        {"requester": "x"},
        {"serial": b"\x01"},
        {"not_after": NOW},
        {"issuer": -5},
        {"issuer": 1},
        {"revoked_at": NOW, "reason": "superseded"},
        {"source": "discovered"},
        {"source": "issued"},
    ],
    ids=str,
)
async def test_a_changed_certificate_of_others_is_found(lab: World, values: dict[str, Any]) -> None:
    content = partial(vectors.real_der, "others.internal")
    await import_certificates(lab.inst, content, password=None, owner="o", labels={"a": "b"}, caller=lab.admin)
    assert await found_in_export(lab) == []
    imported = rows.c.source == "imported"
    await lab.inst.db.write(lambda conn: conn.execute(update(rows).where(imported).values(**values)).rowcount)
    assert await findings_about(lab, "certificate") != []
    if values != {"issuer": -5}:  # an export does not say it
        assert await found_in_export(lab) != []


@pytest.mark.invariant("I-59")
async def test_an_authority_s_certificate_whose_key_cannot_be_read_is_found(lab: World) -> None:
    """It parses, but its point is on no curve."""
    issuing = lab.inst.authority(ISSUING).issuer
    point = issuing.key.bits
    spoilt = issuing.certificate.tbs_certificate_bytes.replace(point, point[:-1] + bytes([point[-1] ^ 1]))
    changed = update(rows).where(rows.c.key_id == issuing.key.id, rows.c.profile.is_(None)).values(tbs=spoilt)
    assert await lab.inst.db.write(lambda conn: conn.execute(changed).rowcount) == 1
    assert any("cannot be read" in detail for detail in await findings_about(lab, "certificate"))
    assert await found_in_export(lab) != []


async def test_certificates_of_others_with_one_serial_are_two_in_an_export(lab: World) -> None:
    for name in ("one.internal", "two.internal"):
        content = partial(vectors.certificate, serial=b"\x11", extensions=(vectors.alt_names(name),))
        await import_certificates(lab.inst, content, password=None, owner=None, labels={}, caller=lab.admin)
    assert await found_in_export(lab) == []


async def findings_about(lab: World, about: str) -> list[str]:
    """What checking the store finds about certificates or requests."""
    with lab.inst.db.snapshot() as conn:
        return [one.detail for one in verify_store(conn, Told(None, None), None, Report()) if about in one.about]


@pytest.mark.invariant("I-59", "I-07", "I-42")
async def test_a_yes_that_is_not_what_was_given_or_was_used_before_is_found(lab: World) -> None:
    await lab.profile("careful", approval=Approval("always", binds="names"))

    key = new_key()

    async def asked(name: str = "a.internal") -> Issued | Pending:
        return await issue(lab.inst, ask(name, profile="careful", key=key), lab.admin)

    id = pending(await asked()).id
    await approve(lab.inst, id, None, lab.admin)

    def refuse(_tbs: bytes, _sign: object) -> bytes:
        raise NotSigned("a test")

    watch(lab.inst, refuse)
    assert await refused(asked()) == "RW-KEY-UNAVAILABLE"  # the yes is given back
    assert await findings_about(lab, "request") == []
    watch(lab.inst, lambda _tbs, sign: sign())
    first = issued(await asked())
    assert await findings_about(lab, "request") == []
    pending(await asked("b.internal"))
    lab.clock.move(timedelta(days=60))
    pending(await asked("b.internal"))  # closes the one before, which has expired
    assert await findings_about(lab, "request") == []

    before = await lab.inst.db.read(lambda conn: requests.by_id(conn, id))
    assert before is not None
    changes: list[dict[str, Any]] = [
        {"used_at": None},
        {"closed_at": None},
        {"closed_at": before.expires_at},
        {"certificate": None},
        {"certificate": first.retry_of},
        *({name: "x"} for name in ("names", "binds", "binding", "summary", "ask")),
        {"expires_at": before.expires_at + timedelta(days=1)},
        {"profile_version": 2},
    ]
    for values in changes:
        await edit(lab, id, values)
        assert await findings_about(lab, "request") != [], values
        await edit(lab, id, {name: getattr(before, name) for name in values})
    assert await findings_about(lab, "request") == []


async def edit(lab: World, id: str, values: dict[str, Any]) -> None:
    """Somebody with the database in hand changes a request."""
    change = update(requests_table).where(requests_table.c.id == id).values(**values)
    await lab.inst.db.write(lambda conn: conn.execute(change).rowcount)


@pytest.mark.invariant("I-07", "I-59")
async def test_a_second_certificate_by_a_yes_that_was_reset_is_found(lab: World) -> None:
    await lab.profile("careful", approval=Approval("always", binds="names"))
    key = new_key()

    async def asked() -> Issued | Pending:
        return await issue(lab.inst, ask("a.internal", profile="careful", key=key), lab.admin)

    id = pending(await asked()).id
    await approve(lab.inst, id, None, lab.admin)
    issued(await asked())
    await edit(lab, id, {"used_at": None, "closed_at": None})
    issued(await asked())
    assert any("used it" in detail for detail in await findings_about(lab, "request"))


# ── A whole server ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(params=DIALECTS)
def server(request: pytest.FixtureRequest, tmp_path: Path, postgres: Postgres) -> Iterator[Server]:
    environ = {} if request.param == "sqlite" else {"ROOTWARD_DATABASE": postgres.url()}
    with Server(tmp_path / "home", environ=environ) as made:
        yield made


def database(server: Server) -> str:
    return server._environ.get("ROOTWARD_DATABASE", f"sqlite:///{server.home}/rootward.db")


def behind_its_back(server: Server, *statements: str) -> None:
    """The server is stopped; somebody has the database in hand."""
    url = make_url(database(server))
    if url.get_backend_name() == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
    with create_engine(url, poolclass=NullPool).begin() as conn:
        unlock(conn)
        for statement in statements:
            conn.execute(text(statement))


Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(server: Server, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command line, in this process: its exit code and what it said."""
    for name, value in server._environ.items():
        monkeypatch.setenv(name, value)

    def called(*arguments: str) -> tuple[int, str]:
        capsys.readouterr()
        code = cli.run(["--home", str(server.home), *arguments])
        return code, "".join(capsys.readouterr())

    return called


@pytest.mark.invariant("I-59", "I-61", "I-63")
def test_a_server_whose_log_was_cut_off(server: Server, run: Run, tmp_path: Path) -> None:
    out = tmp_path / "a"
    assert run("cert", "issue", "--profile", "server", "--name", "a.internal", "--out", str(out))[0] == 0
    code, said = run("audit", "verify")  # while it runs
    assert code == 0, said
    assert "no finding" in said
    file, key = tmp_path / "export.ndjson", server.home / "log" / "key"
    assert run("audit", "export", "--out", str(file))[0] == 0
    assert run("audit", "verify", str(file), "--key", str(key))[0] == 0
    lines = file.read_bytes().splitlines(keepends=True)
    (tmp_path / "cut").write_bytes(b"".join(lines[:5] + lines[6:]))
    code, said = run("audit", "verify", str(tmp_path / "cut"), "--json")
    assert code == 1
    assert json.loads(said)["findings"]
    assert run("audit", "verify", str(tmp_path / "nothing"))[0] == 2
    assert run("audit", "verify", "--key", str(file))[0] == 2

    server.stop()
    code, said = run("audit", "verify", "--json")
    assert (code, json.loads(said)["waiting"], json.loads(said)["findings"]) == (0, 0, [])  # its last act was to settle
    behind_its_back(
        server,
        "UPDATE events SET leaf = NULL, leaf_hash = NULL WHERE leaf > (SELECT min(size) FROM heads)",
        "DELETE FROM events WHERE kind = 'audit.exported'",
        "DELETE FROM heads WHERE size > (SELECT min(size) FROM heads)",
        "UPDATE events SET leaf = NULL, leaf_hash = NULL WHERE leaf >= (SELECT max(size) FROM heads)",
    )
    code, said = run("audit", "verify")
    assert code == 1
    assert "it was cut off" in said

    server.start()
    code, said = run("cert", "issue", "--profile", "server", "--name", "b.internal", "--out", str(tmp_path / "b"))
    assert code == 1
    assert "RW-LOG-BEHIND" in said
    serial = x509.load_pem_x509_certificate((out / "cert.pem").read_bytes()).serial_number
    hexed = serial.to_bytes((serial.bit_length() + 8) // 8, "big").hex()
    assert run("cert", "revoke", hexed, "--reason", "superseded")[0] == 0
    code, said = run("doctor")
    assert code == 1
    assert "accept-log" in said
    server.stop()

    code, said = run("doctor", "--accept-log")
    assert code == 0, said
    code, said = run("audit", "verify", "--json")
    assert json.loads(said)["went_on"] == 1, said
    assert code == 0, said
    server.start()
    code, said = run("cert", "issue", "--profile", "server", "--name", "c.internal", "--out", str(tmp_path / "c"))
    assert code == 0, said
    assert run("audit", "verify", "--key", str(key))[0] == 0
