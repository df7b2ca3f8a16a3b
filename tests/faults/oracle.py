"""The judge of the kill loop. It shares no code with the product: it reads what was signed and what was seen on the
wire from the record, the database by plain SQL, and certificates, CRLs and OCSP answers by `cryptography`, and says
where they do not agree.

What the key made is all accounted for, what left the process is stored and recorded, no serial, yes or idempotency key
gave two certificates, CRL numbers only rose, and what was acknowledged stands. `tests/faults/test_oracle.py` doctors
records: each of these findings can be found.

It is longer than 400 lines so that all that is judged stands in one place.
"""

from __future__ import annotations

import bisect
import hashlib
import heapq
import itertools
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import ocsp

from tests.faults.loop.evidence import (
    AUTHORITY,
    Exchange,
    Row,
    Store,
    crl_of,
    entries_of,
    exchanges,
    is_certificate,
    number_of,
    parts,
    query,
    signed_object,
    uses,
)
from tests.faults.oracle_acme import Acme

WITH_YES = ("careful", "named")
GIVE = ("/api/v1/certificates", "/acme/certificate")
PEOPLE = ("/api/v1/principals", "/api/v1/grants")
SEEN_WITHIN = 1.0  # seconds from the acknowledgement of a revocation to OCSP at every replica
CRL_WITHIN = 60.0
AWAY = 1.0  # seconds without an answer to anybody after which nobody serves
_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----(?:\\n|\n)?", re.DOTALL)
_CERTIFICATE = re.compile(r"/api/v1/certificates/([^/]+)/(revoke|release)")
_REQUEST = re.compile(r"/api/v1/requests/([^/]+)/(approve|deny)")


@dataclass(frozen=True)
class Finding:
    """What does not agree: a short code, and the particulars."""

    code: str
    detail: str

    def __str__(self) -> str:
        return f"{self.code}: {self.detail}"


# ── the judgement ─────────────────────────────────────────────────────────────────────────────────────────────────


def check(record: Path, url: str, issuer: x509.Certificate) -> tuple[list[Finding], Counter[str]]:
    """Every finding, and how much there was to judge."""
    case = Case(record, url, issuer)
    findings = list(case.findings())
    return findings, case.counts


class Case:
    """All that is known of one episode."""

    def __init__(self, record: Path, url: str, issuer: x509.Certificate) -> None:
        self.url, self.issuer = url, issuer
        self.store = Store(url)
        self.seen = exchanges(record)
        self.used = uses(record)
        self.acme = Acme(self.store, self.seen)
        self.counts: Counter[str] = Counter()
        self.acknowledged: dict[str, list[tuple[float, str]]] = defaultdict(list)  # certificate: when, reason or ""

    def findings(self) -> Iterator[Finding]:
        yield from self.database()
        yield from self.signed()
        yield from self.returned()
        yield from self.events()
        yield from self.promises()
        yield from self.once()
        yield from (Finding(*found) for found in self.acme.findings())
        self.counts += self.acme.counts
        yield from self.crls()
        yield from self.ocsp()
        yield from self.at_the_end()

    def database(self) -> Iterator[Finding]:
        """It is whole, and nothing in it is unfinished."""
        if self.url.startswith("sqlite"):
            found = query(self.url, "PRAGMA integrity_check", "PRAGMA foreign_key_check")
            if found != [[{"integrity_check": "ok"}], []]:
                yield Finding("integrity", str(found))
        for row in self.store.certificates:
            if row["source"] == "issued" and all(row[end] is None for end in ("issued_at", "failed_at", "orphaned_at")):
                yield Finding("open", f"{row['id']} has no end")
        leaves = sorted(event["leaf"] for event in self.store.events if event["leaf"] is not None)
        if leaves != list(range(len(leaves))):
            yield Finding("leaves", "events have no unbroken places in the audit tree")

    def signed(self) -> Iterator[Finding]:
        """Each signature is accounted for, by its very bytes (I-01, I-03, I-05), and each stored one was made."""
        by_serial: dict[int, set[bytes]] = defaultdict(set)
        made: dict[bytes, set[bytes]] = defaultdict(set)
        for use in self.used:
            self.counts[f"keys {use.what}"] += 1
            if not is_certificate(use):
                continue
            by_serial[int.from_bytes(parts(use.tbs)[1][1][2:], "big")].add(use.tbs)
            row = self.store.by_tbs.get(use.tbs)
            if row is None:
                yield Finding("unrecorded", f"the key was asked ({use.what}) for what no row has: {use.tbs[:40].hex()}")
            elif use.what == "signed":
                made[use.tbs].add(use.signature)
                if row["failed_at"] is not None or (row["issued_at"] is None and row["orphaned_at"] is None):
                    yield Finding("unaccounted", f"{row['id']} was signed and is neither issued nor orphan")
        for row in self.store.mine:
            by_serial[int.from_bytes(row["serial"], "big")].add(bytes(row["tbs"]))
            watched = row["issued_at"] is not None and row["n"] >= self.first
            if watched and bytes(row["signature"]) not in made.get(bytes(row["tbs"]), ()):
                yield Finding("foreign", f"{row['id']} has a signature that the key did not make")
        for serial, variants in by_serial.items():
            if len(variants) > 1:
                yield Finding("serial", f"{serial:x} is in {len(variants)} certificates")
        for use in self.used:
            if use.what == "signed" and is_certificate(use) and len(made[use.tbs]) > 1:
                yield Finding("twice", f"{use.tbs[:40].hex()} was signed twice")

    @cached_property
    def first(self) -> int:
        """The first row of the record; those before it were made by keys that nobody watched."""
        return min((self.store.by_tbs[use.tbs]["n"] for use in self.used if use.tbs in self.store.by_tbs), default=0)

    def returned(self) -> Iterator[Finding]:
        """What left the process is stored and recorded (I-06)."""
        known = {self.der(row): row for row in self.store.certificates if row["issued_at"] is not None}
        for one in self.seen:
            for pem in _PEM.findall(one.seen) if one.path.startswith(GIVE) else ():
                der = x509.load_pem_x509_certificate(pem.replace(b"\\n", b"\n")).public_bytes(Encoding.DER)
                self.counts["certificates returned"] += 1
                row = known.get(der)
                if row is None:
                    yield Finding("unstored", f"{one.client} got a certificate that is not in the inventory")
                elif not {"issue.done", "authority.certified"} & {
                    event["kind"] for event in self.store.of_certificate[row["id"]]
                }:
                    yield Finding("unaudited", f"{row['id']} was returned and has no issue.done")

    def der(self, row: Row) -> bytes:
        """The certificate of a row."""
        return signed_object(bytes(row["tbs"]), bytes(row["algorithm"]), bytes(row["signature"]))

    def events(self) -> Iterator[Finding]:
        """Each effect has its event and each event its effect (I-56)."""
        key = self.issuer.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        for row in self.store.certificates:
            if row["source"] == "issued":
                yield from self.certificate_events(row, key)
        for id in self.store.of_certificate:
            if id not in self.store.by_id:
                yield Finding("event", f"events about {id}, which is not there")
        about = defaultdict(Counter[str])
        for event in self.store.events:
            for name in ("request", "id"):
                if name in event["data"]:
                    about[event["data"][name]][event["kind"]] += 1
        yield from self.effects(about)

    def certificate_events(self, row: Row, key: ec.EllipticCurvePublicKey) -> Iterator[Finding]:
        """Of one row."""
        kinds = Counter(event["kind"] for event in self.store.of_certificate[row["id"]])
        taken = kinds.pop("certificate.revoked", 0) + kinds.pop("certificate.held", 0)
        given = kinds.pop("certificate.released", 0)
        ends = {"issue.done": "issued_at", "issue.failed": "failed_at", "issue.orphaned": "orphaned_at"}
        wanted = Counter(["issue.intended", *(kind for kind, at in ends.items() if row[at] is not None)])
        if "authority.certified" in kinds:
            wanted = Counter(["authority.certified"])
        if kinds != wanted:
            yield Finding("event", f"{row['id']} has {dict(kinds)}, and its row says {dict(wanted)}")
        revoked = row["revoked_at"] is not None
        if revoked != (taken > given or row["orphaned_at"] is not None):
            yield Finding("event", f"{row['id']} is revoked: {revoked}, with {taken} revocations and {given} releases")
        if row["issued_at"] is not None and row["issuer"] == self.store.issuer:
            try:
                key.verify(bytes(row["signature"]), bytes(row["tbs"]), ec.ECDSA(hashes.SHA256()))
            except InvalidSignature:
                yield Finding("signature", f"{row['id']} does not verify")

    def effects(self, about: dict[str, Counter[str]]) -> Iterator[Finding]:
        """Of requests, people, tokens and grants."""
        for row in self.store.requests:
            for kind, at in (("approved", "approved_at"), ("denied", "denied_at"), ("failed", "failed_at")):
                if about[row["id"]][f"request.{kind}"] != (row[at] is not None):
                    yield Finding("event", f"request {row['id']}: {at} and its events do not agree")
            if about[row["id"]]["request.parked"] != 1:
                yield Finding("event", f"request {row['id']} was not parked once")
        founder = {row["id"] for row in self.store.principals if row["name"] == "admin"}
        for kind, rows in (
            ("token.created", self.store.tokens),
            ("person.created", self.store.principals),
            ("grant.created", self.store.grants),
        ):
            there = {row["id"] for row in rows}
            said = {event["data"]["id"] for event in self.store.events if event["kind"] == kind}
            others = founder | {row["id"] for row in rows if row.get("kind") == "account"}  # see oracle_acme.py
            unsaid = {row["id"] for row in rows if not others & {row["id"], row.get("principal")}} - said
            for id in unsaid | (said - there):
                yield Finding("event", f"{kind}: {id} and its events do not agree")

    # ── what was promised ─────────────────────────────────────────────────────────────────────────────────────────

    def promises(self) -> Iterator[Finding]:
        """What a whole answer said is so in the store."""
        requests = {row["id"]: row for row in self.store.requests}
        tokens = {bytes(row["hash"]) for row in self.store.tokens}
        there = {row["id"] for row in (*self.store.principals, *self.store.grants)}
        for one in self.seen:
            if one.content is None or one.method != "POST" or one.door != "https":
                continue
            self.counts[f"answers {one.status}"] += 1
            decided, certificate = _REQUEST.fullmatch(one.path), _CERTIFICATE.fullmatch(one.path)
            if one.status == 202 and one.json["id"] not in requests:
                yield Finding("lost", f"request {one.json['id']} was promised")
            elif one.status == 200 and decided is not None:
                row = requests.get(decided[1], {})
                if row.get("approved_at" if decided[2] == "approve" else "denied_at") is None:
                    yield Finding("lost", f"the {decided[2]} of request {decided[1]} was acknowledged")
            elif one.status == 200 and certificate is not None:
                reason = "" if certificate[2] == "release" else json.loads(one.body)["reason"]
                self.acknowledged[certificate[1]].append((one.ended, reason))
            elif one.status == 200 and one.path == "/api/v1/revocations":
                for item in one.json["items"]:
                    self.acknowledged[item["id"]].append((one.ended, json.loads(one.body)["reason"]))
            elif one.status == 201 and one.path == "/api/v1/tokens":
                if one.json["token"] and hashlib.sha256(one.json["token"].encode()).digest() not in tokens:
                    yield Finding("lost", f"token {one.json['id']} was promised")
            elif one.status == 201 and one.path in PEOPLE and one.json["id"] not in there:
                yield Finding("lost", f"{one.path} {one.json['id']} was promised")
        for id, at, reason in self.acme.revocations():
            self.acknowledged[id].append((at, reason))
        for id, said in self.acknowledged.items():
            yield from self.revocation(id, sorted(said))

    def revocation(self, id: str, said: Sequence[tuple[float, str]]) -> Iterator[Finding]:
        """One certificate's acknowledged revocations, holds and releases."""
        row = self.store.by_id.get(id)
        if row is None:
            yield Finding("lost", f"{id} was revoked and is not there")
            return
        self.counts["revocations acknowledged"] += 1
        final = [reason for _, reason in said if reason not in ("", "certificateHold")]
        if final and (row["revoked_at"] is None or row["reason"] != final[0]):
            yield Finding("lost", f"{id} was revoked for {final[0]}, and is {row['reason']}")
        if not final and said[-1][1] == "" and row["revoked_at"] is not None:
            yield Finding("lost", f"{id} was released and is {row['reason']}")
        released = any(one.path.endswith(f"/{id}/release") for one in self.by_path("release"))
        if not final and said[-1][1] and not released and row["reason"] != "certificateHold":
            yield Finding("lost", f"{id} was held and is {row['reason']}")

    def by_path(self, ending: str) -> list[Exchange]:
        """Requests whose path ends so."""
        kept: dict[str, list[Exchange]] = self.__dict__.setdefault("_paths", {})
        if not kept:
            for one in self.seen:
                kept.setdefault(one.path.rpartition("/")[2], []).append(one)
        return kept.get(ending, [])

    def once(self) -> Iterator[Finding]:
        """One key, one certificate; one yes, one certificate (I-07, I-42)."""
        issued: Counter[str] = Counter(row["key_id"] for row in self.store.mine if row["issued_at"] is not None)
        told: dict[tuple[str, str], set[str]] = defaultdict(set)
        judged: set[tuple[str, str]] = set()
        for one in self.seen:
            if not one.key or one.path != "/api/v1/certificates":
                continue
            asked = (one.who, one.key)
            if one.status == 201:
                told[asked].add(one.json["serial"])
            if asked in judged:
                continue
            judged.add(asked)
            csr = x509.load_pem_x509_csr(json.loads(one.body)["csr"].encode())
            spki = csr.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
            if issued[hashlib.sha256(spki).hexdigest()] > 1:
                yield Finding("key", f"the idempotency key {one.key} gave two certificates")
        self.counts["idempotency keys"] = len(judged)
        for (_, key), found in told.items():
            if len(found) > 1:
                yield Finding("key", f"the idempotency key {key} was told {len(found)} serials")
        used = Counter(row["certificate"] for row in self.store.requests if row["approved_at"] is not None)
        for row in self.store.mine:
            if row["issued_at"] is not None and row["profile"] in WITH_YES and used[row["id"]] != 1:
                yield Finding("yes", f"{row['id']} stands on {used[row['id']]} approvals")
        plans = Counter(event["data"]["plan"] for event in self.store.events if event["kind"] == "request.approved")
        taken: Counter[str] = Counter()
        for row in self.store.mine:
            if row["issued_at"] is not None and row["profile"] == WITH_YES[0]:
                (intent,) = [e for e in self.store.of_certificate[row["id"]] if e["kind"] == "issue.intended"]
                taken[intent["data"]["plan"]] += 1
        for plan, count in taken.items():
            if count > plans[plan]:
                yield Finding("yes", f"{count} certificates for {plans[plan]} approvals of plan {plan}")

    # ── CRLs and OCSP ─────────────────────────────────────────────────────────────────────────────────────────────

    def crls(self) -> Iterator[Finding]:
        """Numbers only rise, at the key, in the store and on the wire; what is listed stays listed (I-16, I-17)."""
        by_number: dict[int, bytes] = {}
        made = [(use, crl) for use in self.used if use.what == "signed" and (crl := crl_of(use)) is not None]
        for use, crl in made:
            number = number_of(crl)
            if by_number.setdefault(number, use.tbs) != use.tbs:
                yield Finding("crl-number", f"two CRLs were signed with number {number}")
        published = [
            event["data"]["number"]
            for event in self.store.events
            if event["kind"] == "crl.published" and event["authority"] == AUTHORITY
        ]
        self.counts["CRLs published"] = len(published)
        for before, after in itertools.pairwise(published):
            if after <= before:
                yield Finding("crl-number", f"{after} was published after {before}")
        newest = max((row["number"] for row in self.store.crls if row["issuer"] == self.store.issuer), default=None)
        if published and newest != max(published):
            yield Finding("crl-number", f"the newest CRL is {newest}, and {max(published)} was published")
        yield from self.crls_on_the_wire(by_number)

    def crls_on_the_wire(self, by_number: dict[int, bytes]) -> Iterator[Finding]:
        """In the order of real time: an answer that was there before a question was asked binds it. `by_number` has
        what the key signed.
        """
        waiting: list[tuple[float, int]] = []
        lists: dict[int, dict[int, str]] = {}
        least = 0
        for one in self.seen:
            if not one.path.startswith("/crl/") or one.status != 200 or one.content is None:
                continue
            crl = x509.load_der_x509_crl(one.content)
            number = number_of(crl)
            while waiting and waiting[0][0] <= one.began:
                least = max(least, heapq.heappop(waiting)[1])
            heapq.heappush(waiting, (one.ended, number))
            self.counts["CRLs seen"] += 1
            if number < least:
                yield Finding("crl-back", f"{one.client} got number {number} after {least}")
            if number in lists:
                continue
            lists[number] = entries_of(crl)
            watched = number >= min(by_number, default=0)
            if (watched and crl.tbs_certlist_bytes not in by_number.values()) or not crl.is_signature_valid(
                self.issuer.public_key()
            ):
                yield Finding("crl-foreign", f"CRL {number} was not signed by the key")
            for id, said in self.acknowledged.items():
                final = [at for at, reason in said if reason not in ("", "certificateHold")]
                missing = final and final[0] + CRL_WITHIN < one.began and self.serial(id) not in lists[number]
                if missing and self.served(final[0], one.began) > CRL_WITHIN:
                    yield Finding("crl-missing", f"{id} is not on CRL {number}")
        gone: set[int] = set()
        for number in sorted(lists):
            for serial in gone - lists[number].keys():
                yield Finding("crl-missing", f"{serial:x} was revoked and is not on CRL {number}")
            gone |= {serial for serial, reason in lists[number].items() if reason != "certificateHold"}

    def serial(self, id: str) -> int:
        """A row's."""
        return int.from_bytes(self.store.by_id[id]["serial"], "big") if id in self.store.by_id else -1

    def served(self, since: float, until: float) -> float:
        """For how many of these seconds there was somebody to keep a promise: where starts fail one after the other
        nobody gets an answer.
        """
        answers = self._answers
        between = answers[bisect.bisect(answers, since) : bisect.bisect(answers, until)]
        return sum(min(after - before, AWAY) for before, after in itertools.pairwise([since, *between, until]))

    @cached_property
    def _answers(self) -> list[float]:
        """When whole ones ended."""
        return sorted(one.ended for one in self.seen if one.content is not None)

    def ocsp(self) -> Iterator[Finding]:
        """Nothing that was revoked is good a second later, nothing that was given out is unknown (I-15, I-27)."""
        final: dict[int, float] = {}
        for id, said in self.acknowledged.items():
            times = [at for at, reason in said if reason not in ("", "certificateHold")]
            if times:
                final[self.serial(id)] = min(times)
        given: dict[int, float] = {}
        for one in self.seen:
            if one.status == 201 and one.path == "/api/v1/certificates":
                given.setdefault(int(one.json["serial"], 16), one.ended)
        signed = {use.tbs for use in self.used if use.what == "signed" and use.label.startswith("ocsp")}
        for one, answer in self.ocsp_answers():
            serial, status = answer.serial_number, answer.certificate_status
            if answer.tbs_response_bytes not in signed or not self.is_genuine(answer):
                yield Finding("ocsp-foreign", f"an answer about {serial:x} was not signed by a responder")
            if status is ocsp.OCSPCertStatus.GOOD and one.began > final.get(serial, one.ended) + SEEN_WITHIN:
                late = one.began - final[serial]
                yield Finding("ocsp-good", f"{serial:x} was good {late:.2f} s after its revocation")
            if status is ocsp.OCSPCertStatus.UNKNOWN and given.get(serial, one.ended) < one.began:
                yield Finding("ocsp-unknown", f"{serial:x} was given out and is unknown")

    def ocsp_answers(self) -> Iterator[tuple[Exchange, ocsp.OCSPResponse]]:
        """Those that say something."""
        for one in self.seen:
            if one.path.startswith("/ocsp/") and one.status == 200 and one.content:
                answer = ocsp.load_der_ocsp_response(one.content)
                self.counts[f"OCSP {answer.response_status.name.lower()}"] += 1
                if answer.response_status is ocsp.OCSPResponseStatus.SUCCESSFUL:
                    yield one, answer

    def is_genuine(self, answer: ocsp.OCSPResponse) -> bool:
        """Signed by a responder that the issuer certified."""
        (responder,) = answer.certificates
        key = responder.public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        try:
            responder.verify_directly_issued_by(self.issuer)
            key.verify(answer.signature, answer.tbs_response_bytes, ec.ECDSA(hashes.SHA256()))
        except (InvalidSignature, ValueError):
            return False
        return True

    def at_the_end(self) -> Iterator[Finding]:
        """After a clean start: inventory, CRL and OCSP say the same of every serial (I-34)."""
        last = [one for one in self.seen if one.client == "last"]
        lists = [
            x509.load_der_x509_crl(one.content)
            for one in last
            if one.path.startswith("/crl/") and one.status == 200 and one.content
        ]
        revoked = {serial for serial, row in self.store.by_serial.items() if row["revoked_at"] is not None}
        if not lists:
            yield Finding("last", "there was no CRL at the end")
        for crl in lists:
            listed = set(entries_of(crl))
            if listed != revoked:
                yield Finding("last", f"CRL and inventory differ in {[f'{one:x}' for one in listed ^ revoked][:5]}")
        said = {
            answer.serial_number: answer.certificate_status
            for one, answer in self.ocsp_answers()
            if one.client == "last"
        }
        for serial, row in self.store.by_serial.items():
            wanted = (
                ocsp.OCSPCertStatus.REVOKED
                if row["revoked_at"] is not None
                else ocsp.OCSPCertStatus.GOOD
                if row["issued_at"] is not None
                else ocsp.OCSPCertStatus.UNKNOWN
            )
            if said.get(serial) is not wanted:
                yield Finding("last", f"{serial:x}: OCSP says {said.get(serial)}, the inventory {wanted}")
        self.counts["serials"] = len(self.store.by_serial)
