"""The judge of the kill loop can say no: each thing that it looks for is put into a record that was right, and found.

One short episode is played on SQLite; each test doctors a copy of its database and of its journals.
"""
# ruff: noqa: S608  # the statements are constants of this file

from __future__ import annotations

import ast
import datetime as dt
import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from tests.faults import doctors_acme, oracle, oracle_acme
from tests.faults.loop import evidence
from tests.faults.loop import record as journals
from tests.faults.loop.drive import episode
from tests.faults.loop.record import packed, unpacked
from tests.support.faults import Founder

SIGNED_BYTES = 400_000  # how much the keys are to sign before the episode ends


@dataclass(frozen=True)
class Record:
    """An episode that went right, or a copy of one."""

    folder: Path
    issuer: x509.Certificate

    @property
    def url(self) -> str:
        return f"sqlite:///{self.folder}/rootward.db"

    def codes(self) -> set[str]:
        """What the judge finds."""
        findings, _ = oracle.check(self.folder, self.url, self.issuer)
        return {finding.code for finding in findings}

    def sql(self, *statements: str) -> None:
        """Change the database, past its triggers and constraints."""
        with closing(sqlite3.connect(self.folder / "rootward.db")) as conn, conn:
            for (name,) in conn.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
                conn.execute(f"DROP TRIGGER {name}")
            for statement in statements:
                assert conn.execute(statement).rowcount, statement

    def lines(self, pattern: str) -> list[dict[str, Any]]:
        """Of the journals."""
        return list(journals.lines(self.folder, pattern))

    def add(self, name: str, line: dict[str, Any]) -> None:
        """One more line."""
        with (self.folder / name).open("a") as file:
            file.write(json.dumps(line) + "\n")

    def exchange(self, path: str, content: bytes, *, began: float) -> None:
        """One more answer on the wire."""
        head = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(content)
        line = {"client": "x", "began": began, "ended": began, "method": "GET", "path": path, "who": "", "key": ""}
        self.add("wire-x.jsonl", line | {"door": "http", "body": "", "seen": packed(head + content), "whole": True})

    def seen(self) -> list[evidence.Exchange]:
        return evidence.exchanges(self.folder)

    def given(self) -> evidence.Exchange:
        """A certificate that was given out at the beginning, under a key."""
        return next(one for one in self.seen() if one.status == 201 and one.key and one.json.get("certificate"))


@pytest.fixture(scope="module")
def right(founder: Founder, tmp_path_factory: pytest.TempPathFactory) -> Record:
    """An episode with one kill, in which nothing is found."""
    folder = tmp_path_factory.mktemp("oracle")
    with founder.home("sqlite", folder) as home, episode(home, folder, 1) as going:
        outcome = going.run(["issue.signed"], calm_bytes=SIGNED_BYTES)
        assert outcome.findings == []
        assert outcome.counts["revocations acknowledged"] > 3
        assert outcome.counts["ACME revocations acknowledged"] > 0
        shutil.copy(home.folder / "rootward.db", going.record)
        return Record(going.record, going.town.issuer)


@pytest.fixture
def doctored(right: Record, tmp_path: Path) -> Record:
    """A copy, to be spoilt."""
    shutil.copytree(right.folder, tmp_path / "record")
    return Record(tmp_path / "record", right.issuer)


ISSUED = "issued_at IS NOT NULL AND requester NOT LIKE 'system:%' AND profile = 'server'"
ONE = f"(SELECT min(n) FROM certificates WHERE {ISSUED})"
OTHER = f"(SELECT max(n) FROM certificates WHERE {ISSUED})"


def lost_row(r: Record) -> None:
    r.sql(f"DELETE FROM certificates WHERE n = {ONE}")


def lost_event(r: Record) -> None:
    r.sql(
        f"DELETE FROM events WHERE kind = 'issue.done' AND certificate = (SELECT id FROM certificates WHERE n = {ONE})"
    )


def made_up_event(r: Record) -> None:
    r.sql(
        "INSERT INTO events (at, kind, actor, certificate, request_id, data) SELECT 0, 'certificate.revoked', 'x', id, "
        f"'x', '{{}}' FROM certificates WHERE {ISSUED} AND revoked_at IS NULL LIMIT 1"
    )


def other_signature(r: Record) -> None:
    r.sql(f"UPDATE certificates SET signature = (SELECT signature FROM certificates WHERE n = {OTHER}) WHERE n = {ONE}")


def open_orphan(r: Record) -> None:
    r.sql("UPDATE certificates SET orphaned_at = NULL WHERE orphaned_at IS NOT NULL")


def orphan_called_failed(r: Record) -> None:
    r.sql("UPDATE certificates SET failed_at = orphaned_at, orphaned_at = NULL WHERE orphaned_at IS NOT NULL")


def lost_revocation(r: Record) -> None:
    r.sql("UPDATE certificates SET revoked_at = NULL, reason = NULL WHERE revoked_at IS NOT NULL AND issued_at > 0")


def lost_release(r: Record) -> None:
    r.sql(
        "UPDATE certificates SET revoked_at = 1, reason = 'certificateHold' WHERE revoked_at IS NULL AND id IN "
        "(SELECT certificate FROM events WHERE kind = 'certificate.released')"
    )


def lost_token(r: Record) -> None:
    r.sql("DELETE FROM tokens WHERE label LIKE 't-%'")


def lost_grant(r: Record) -> None:
    r.sql("DELETE FROM grants WHERE role = 'auditor'")


def lost_request(r: Record) -> None:
    r.sql("DELETE FROM requests")


def lost_yes(r: Record) -> None:
    r.sql("UPDATE requests SET approved_at = NULL")


def yes_used_twice(r: Record) -> None:
    r.sql("UPDATE requests SET certificate = (SELECT max(certificate) FROM requests) WHERE certificate IS NOT NULL")


def key_used_twice(r: Record) -> None:
    r.sql(
        "UPDATE certificates SET key_id = (SELECT key_id FROM certificates WHERE id = '" + r.given().json["id"] + "')"
    )


def key_told_twice(r: Record) -> None:
    """The same key, another certificate."""
    first = r.given()
    other = next(o for o in r.seen() if o.status == 201 and o.json.get("serial") not in (None, first.json["serial"]))
    (line,) = [ln for ln in r.lines("wire-*.jsonl") if (ln["client"], ln["began"]) == (other.client, other.began)]
    r.add("wire-x.jsonl", line | {"client": "x", "key": first.key, "who": first.who})


def newest_crl_lost(r: Record) -> None:
    r.sql("DELETE FROM crls WHERE number = (SELECT max(number) FROM crls)")


def gap_in_the_tree(r: Record) -> None:
    r.sql("UPDATE events SET leaf = leaf + 1000000 WHERE leaf = (SELECT max(leaf) FROM events)")


def uses_of(r: Record, wanted: Callable[[evidence.Use], object]) -> dict[str, Any]:
    """The first line of a signature of this kind."""
    lines = [line for line in r.lines("signed-*.jsonl") if line["what"] == "signed" and line["label"] == "issuing"]
    return next(
        line
        for line in lines
        if wanted(evidence.Use("signed", 0, "issuing", "", unpacked(line["tbs"]), unpacked(line["signature"])))
    )


def signed_and_forgotten(r: Record) -> None:
    """The key signed something that nobody wrote down, with a serial that was used."""
    line = uses_of(r, evidence.is_certificate)
    tbs = unpacked(line["tbs"])
    r.add("signed-x.jsonl", line | {"tbs": packed(tbs[:-1] + bytes([tbs[-1] ^ 1]))})


def signed_twice(r: Record) -> None:
    r.add("signed-x.jsonl", uses_of(r, evidence.is_certificate) | {"signature": packed(b"other")})


def crl_number_twice(r: Record) -> None:
    line = uses_of(r, evidence.crl_of)
    tbs = unpacked(line["tbs"])
    at = tbs.index(b"Z")  # the end of thisUpdate: one second of it changes
    r.add(
        "signed-x.jsonl",
        line | {"tbs": packed(tbs[: at - 1] + (b"7" if tbs[at - 1 : at] == b"3" else b"3") + tbs[at:])},
    )


def end_of(r: Record) -> float:
    return max(one.ended for one in r.seen()) + 1


def older_crl_seen_last(r: Record) -> None:
    first = next(one for one in r.seen() if one.path.startswith("/crl/") and one.status == 200)
    assert first.content is not None
    r.exchange(first.path, first.content, began=end_of(r))


def forged_crl(r: Record) -> None:
    """Somebody else's, with nothing on it."""
    now = dt.datetime.now(dt.UTC)
    builder = x509.CertificateRevocationListBuilder().issuer_name(r.issuer.subject).last_update(now)
    builder = builder.next_update(now + dt.timedelta(days=1)).add_extension(x509.CRLNumber(1 << 60), critical=False)
    made = builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    r.exchange("/crl/issuing.crl", made.public_bytes(Encoding.DER), began=end_of(r))


def list_of_before(r: Record) -> None:
    """A revocation that was acknowledged two minutes before the first list that was seen and that does not have it;
    somebody was served all the time.
    """
    case = oracle.Case(r.folder, r.url, r.issuer)
    list(case.promises())
    first = next(one for one in case.seen if one.path.startswith("/crl/") and one.status == 200 and one.content)
    listed = evidence.entries_of(x509.load_der_x509_crl(first.content or b""))
    gone = {
        f"/api/v1/certificates/{id}/revoke"
        for id, said in case.acknowledged.items()
        if said[-1][1] not in ("", "certificateHold") and case.serial(id) not in listed
    }
    said = next(one for one in case.seen if one.path in gone and one.status == 200)
    line = next(line for line in r.lines("wire-*.jsonl") if (line["path"], line["began"]) == (said.path, said.began))
    for second in range(120):
        r.exchange("/healthz", b"", began=first.began - second)
    r.add("wire-x.jsonl", line | {"began": first.began - 120, "ended": first.began - 120})


def old_answer_after_a_revocation(r: Record) -> None:
    """An answer that was right, kept by somebody for too long."""
    case = oracle.Case(r.folder, r.url, r.issuer)
    list(case.promises())
    gone = {case.serial(id) for id, said in case.acknowledged.items() if said[-1][1] not in ("", "certificateHold")}
    good = ocsp.OCSPCertStatus.GOOD
    kept = [one for one, a in case.ocsp_answers() if a.certificate_status is good and a.serial_number in gone]
    assert kept, "nobody asked in time"
    assert kept[0].content is not None
    r.exchange("/ocsp/issuing", kept[0].content, began=end_of(r))


def forged_answer(r: Record) -> None:
    """What was given out is unknown to somebody who is no responder."""
    der = x509.load_pem_x509_certificate(r.given().json["certificate"].encode())
    now = dt.datetime.now(dt.UTC)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "x")])
    responder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    responder = responder.serial_number(1).not_valid_before(now).not_valid_after(now + dt.timedelta(days=1))
    self_signed = responder.sign(key, hashes.SHA256())
    builder = ocsp.OCSPResponseBuilder().add_response(
        der, r.issuer, hashes.SHA256(), ocsp.OCSPCertStatus.UNKNOWN, now, now + dt.timedelta(days=1), None, None
    )
    builder = builder.responder_id(ocsp.OCSPResponderEncoding.HASH, self_signed).certificates([self_signed])
    answer = builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)
    r.exchange("/ocsp/issuing", answer, began=end_of(r))


def no_last_crl(r: Record) -> None:
    path = r.folder / "wire-last.jsonl"
    path.write_text("".join(line for line in path.read_text().splitlines(keepends=True) if "/crl/" not in line))


DOCTORS: list[tuple[Callable[[Record], None], set[str]]] = [
    (lost_row, {"unrecorded", "unstored", "event"}),
    (lost_event, {"unaudited", "event"}),
    (made_up_event, {"event"}),
    (other_signature, {"foreign", "signature", "unstored"}),
    (open_orphan, {"open", "unaccounted"}),
    (orphan_called_failed, {"unaccounted"}),
    (lost_revocation, {"lost", "event", "last"}),
    (lost_release, {"lost", "event", "last"}),
    (lost_token, {"lost", "event"}),
    (lost_grant, {"lost", "event"}),
    (lost_request, {"lost", "yes"}),
    (lost_yes, {"lost", "yes"}),
    (yes_used_twice, {"yes"}),
    (key_used_twice, {"key"}),
    (key_told_twice, {"key"}),
    (newest_crl_lost, {"crl-number"}),
    (gap_in_the_tree, {"leaves"}),
    (signed_and_forgotten, {"unrecorded", "serial"}),
    (signed_twice, {"twice"}),
    (crl_number_twice, {"crl-number"}),
    (older_crl_seen_last, {"crl-back"}),
    (forged_crl, {"crl-foreign", "crl-missing"}),
    (list_of_before, {"crl-missing"}),
    (old_answer_after_a_revocation, {"ocsp-good"}),
    (forged_answer, {"ocsp-foreign", "ocsp-unknown"}),
    (no_last_crl, {"last"}),
    *doctors_acme.DOCTORS,
]


def test_what_went_right_is_found_right(right: Record) -> None:
    assert right.codes() == set()


@pytest.mark.parametrize(("doctor", "codes"), DOCTORS, ids=[doctor.__name__ for doctor, _ in DOCTORS])
def test_what_is_spoilt_is_found(doctored: Record, doctor: Callable[[Record], None], codes: set[str]) -> None:
    doctor(doctored)
    assert codes <= doctored.codes()


def test_every_finding_has_its_doctor() -> None:
    """`stuck` and `integrity` are said by the loop and by SQLite itself."""
    tree = ast.parse(Path(oracle.__file__).read_text())
    of_acme = ast.parse(Path(oracle_acme.__file__).read_text())
    yields = [node.value for node in ast.walk(of_acme) if isinstance(node, ast.Yield)]
    tuples = [node.elts[0] for node in yields if isinstance(node, ast.Tuple)]
    of_orders = {node.value for node in tuples if isinstance(node, ast.Constant)}
    assert "nonce" in of_orders
    said = of_orders | {
        node.args[0].value
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "Finding"
        and isinstance(node.args[0], ast.Constant)
    }
    assert said - {"integrity"} == set().union(*(codes for _, codes in DOCTORS))


def test_the_judge_shares_nothing_with_the_product() -> None:
    for module in (oracle, oracle_acme, evidence, journals):
        for node in ast.walk(ast.parse(Path(module.__file__ or "").read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.startswith(("rootward", "tests.support")) for name in names)
