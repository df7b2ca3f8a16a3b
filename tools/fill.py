"""Fills the store of a home with realistic certificates, a million in minutes: for benches and for trying things out at
size. It is a tool: `rootward` itself knows nothing of it.

    .venv/bin/python -m tools.fill --home DIR --certificates N [--revoked M] [--orders O] [--events] [--seed S]

The home was founded by `rootward quickstart` and is not being served. A row is as an issued one is: the TBS is a real
draft of the profile, in whose DER a key, names, serial and dates of its own take the place of the sample's. Only the
signature is made up: random, and right in form, so that these certificates verify nowhere. Among the rows are expired,
revoked (`--revoked`, all of them unexpired, so that the CRL lists them), held and orphaned ones, and owners, labels and
names that a search finds. With `--orders` so many of them came by ACME (tools/fill_acme.py), with `--events` each has
the events that the real road writes, in the audit tree.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import heapq
import os
import random
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from rootward import home as homes
from rootward.ca import profiles
from rootward.ca.installation import Installation
from rootward.core.capture import assemble
from rootward.core.csr import parse_csr
from rootward.core.ledger import leaf_hash, unpacked
from rootward.core.plan import Ask, Draft, Plan, make_serial
from rootward.core.template import subject_name
from rootward.store import events as event_rows
from rootward.store.events import Event
from rootward.store.schema import certificates, events
from tools.fill_acme import Acme
from tools.fill_store import Store, postgres, sqlite

BATCH = 5_000
PROFILES = ("server", "client", "peer")
DAY = 86_400
LIVES = (30 * DAY, 60 * DAY, 90 * DAY)
KINDS = ("api", "web", "sql", "mqx", "img", "log", "pay", "geo")
ZONES = ("alpha", "bravo", "delta", "gamma", "kappa", "sigma", "theta", "omega")
REASONS = ("superseded", "cessationOfOperation", "keyCompromise", "affiliationChanged", "unspecified")
_SAMPLE = "aaa-0000000.alpha.internal"
_POINT = re.compile(rb"\x03\x42\x00\x04.{64}", re.DOTALL)
_TIME = re.compile(rb"\x17\x0d[0-9]{12}Z")
_ROW = tuple(column.name for column in certificates.columns)
_EVENT = tuple(column.name for column in events.columns)
_HEX = "0123456789abcdef"


@dataclass(frozen=True)
class Wanted:
    """How much of what. `revoked` of the `certificates` are revoked, the first `orders` came by ACME; `seed` makes the
    same rows again.
    """

    certificates: int
    revoked: int = 0
    events: bool = False
    orders: int = 0
    seed: int = 1


class Template:
    """A profile's draft, cut where a certificate has something of its own."""

    def __init__(self, plan: Plan, draft: Draft, issuer: int) -> None:
        self.profile, self.version = plan.policy.profile.name, plan.policy.version
        self.authority, self.algorithm, self.issuer = plan.policy.profile.authority, draft.algorithm, issuer
        self.subject = subject_name(plan.subject).rfc4514_string()
        self.facts = plan.facts
        tbs = draft.tbs
        point = _POINT.search(tbs)
        if point is None:
            raise ValueError("the sample has no P-256 key")
        at = point.end() - 65
        self._prefix = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d030107034200")  # RFC 5480 2.1.1
        key_ids = (
            hashlib.sha1(tbs[at : point.end()], usedforsecurity=False).digest(),
            *_rfc7093(tbs[at : point.end()]),
        )
        self._hash = next(number for number, found in enumerate(key_ids) if found in tbs)
        marks = [(tbs.index(draft.serial), 20, "serial"), (at, 65, "point")]
        marks += [
            (match.start() + 2, 13, name) for match, name in zip(_TIME.finditer(tbs), ("begin", "end"), strict=True)
        ]
        marks.append((tbs.index(key_ids[self._hash]), 20, "key_id"))
        marks += [(match.start(), len(_SAMPLE), "name") for match in re.finditer(re.escape(_SAMPLE.encode()), tbs)]
        self._parts: list[bytes | str] = []
        done = 0
        for start, size, name in sorted(marks):
            self._parts += [tbs[done:start], name]
            done = start + size
        self._parts.append(tbs[done:])

    def tbs(self, *, serial: bytes, point: bytes, begin: int, end: int, name: str) -> bytes:
        """The bytes for these values; times in Unix seconds."""
        digest = (
            hashlib.sha1(point, usedforsecurity=False).digest() if self._hash == 0 else _rfc7093(point)[self._hash - 1]
        )
        own = {"serial": serial, "point": point, "key_id": digest, "name": name.encode()}
        own |= {"begin": _utc_time(begin), "end": _utc_time(end)}
        return b"".join([part if isinstance(part, bytes) else own[part] for part in self._parts])

    def key_id(self, point: bytes) -> str:
        """SHA-256 of the SPKI, hex."""
        return hashlib.sha256(self._prefix + point).hexdigest()


def _rfc7093(point: bytes) -> tuple[bytes, ...]:
    return (hashlib.sha256(point).digest()[:20],)


def _utc_time(at: int) -> bytes:
    found = time.gmtime(at)
    return b"%02d%02d%02d%02d%02d%02dZ" % (found[0] % 100, *found[1:6])


# ── Rows ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def rows(templates: Sequence[Template], requester: str, wanted: Wanted, now: int) -> Iterator[dict[str, Any]]:
    """The columns of each certificate but `n`, as the driver takes them."""
    chance = random.Random(wanted.seed)  # noqa: S311  # rows to look at, not keys
    total, span = wanted.certificates, 2 * max(LIVES)
    if wanted.revoked * 2 > total:
        span = min(LIVES) - DAY  # none has expired
    for number in range(total):
        begin = now - span + span * number // total
        template = templates[chance.randrange(len(templates))]
        life = chance.choice(LIVES)
        # spread over those that have not expired, for the CRL to list them
        alive = total - number <= total * min(LIVES) // span
        left = min(total, total * min(LIVES) // span)
        place = number - (total - left)
        revoked = alive and (place + 1) * wanted.revoked // left > place * wanted.revoked // left
        yield _row(template, requester, chance, number, times=(begin, begin + life, now), revoked=revoked)


def _row(
    template: Template,
    requester: str,
    chance: random.Random,
    number: int,
    *,
    times: tuple[int, int, int],
    revoked: bool,
) -> dict[str, Any]:
    begin, end, now = times
    serial = bytes((0x40 | chance.getrandbits(6),)) + chance.randbytes(19)
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    point = key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    name = f"{chance.choice(KINDS)}-{number:07d}.{chance.choice(ZONES)}.internal"
    tbs = template.tbs(serial=serial, point=point, begin=begin, end=end, name=name)
    orphan = chance.random() < 0.0002
    signature = None if orphan else _signature(chance)
    milliseconds = begin * 1000 + chance.randrange(1000)
    row = dict.fromkeys(_ROW)
    row |= {
        "id": _id(milliseconds, chance),
        "issuer": template.issuer,
        "serial": serial,
        "source": "issued",
        "authority": template.authority,
        "profile": template.profile,
        "profile_version": template.version,
        "tbs": tbs,
        "algorithm": template.algorithm,
        "signature": signature,
        "sha256": None
        if signature is None
        else hashlib.sha256(assemble(tbs, template.algorithm, signature)).hexdigest(),
        "key_id": template.key_id(point),
        "subject": template.subject.replace(_SAMPLE, name),
        "names": f'["dns:{name}"]',
        "not_before": begin,
        "not_after": end,
        "owner": f"team-{int(chance.paretovariate(0.7)) % 400:03d}" if number % 10 else None,
        "labels": f'{{"env":"{chance.choice(("prod", "stage", "test"))}","site":"s{chance.randrange(30)}"}}',
        "requester": requester,
        "request_id": f"req-{chance.getrandbits(64):016x}",
        "lease": "fill",
        "intended_at": begin,
        "indexed_at": begin + 3,
    }
    if orphan:
        row |= {"orphaned_at": begin + 30, "revoked_at": begin + 30, "reason": "unspecified"}
        return row
    row["issued_at"] = begin
    if revoked:
        reason = "certificateHold" if chance.random() < 0.002 else chance.choices(REASONS, (5, 3, 1, 1, 1))[0]
        row |= {"revoked_at": begin + chance.randrange(max(1, now - begin)), "reason": reason}
    return row


def _signature(chance: random.Random) -> bytes:
    """What an ECDSA signature of P-256 looks like in DER; it verifies nothing."""
    numbers = []
    for _ in range(2):
        value = chance.getrandbits(255) | 1
        raw = value.to_bytes(value.bit_length() // 8 + 1, "big")
        numbers.append(bytes((2, len(raw))) + raw)
    body = b"".join(numbers)
    return bytes((0x30, len(body))) + body


def _id(milliseconds: int, chance: random.Random) -> str:
    """As store.ids has it, of that time."""
    text = f"{milliseconds:012x}7{chance.getrandbits(12):03x}{8 + chance.getrandbits(2):x}{chance.getrandbits(60):015x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def happened(row: dict[str, Any], facts: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The events of a row, but their places."""
    serial = row["serial"].hex()
    said = {**facts, "names": msgspec.json.decode(row["names"]), "key": row["key_id"], "serial": serial}
    said |= {"plan": hashlib.sha256(row["id"].encode()).hexdigest()}
    told: list[tuple[str, int, dict[str, Any]]] = [("issue.intended", row["intended_at"], said)]
    if row["orphaned_at"] is not None:
        lost = {"serial": serial, "requester": row["requester"], "tbs": row["tbs"].hex()}
        told.append(("issue.orphaned", row["orphaned_at"], lost))
    else:
        told.append(("issue.done", row["issued_at"], {"sha256": row["sha256"]}))
        if row["revoked_at"] is not None:
            kind = "certificate.held" if row["reason"] == "certificateHold" else "certificate.revoked"
            told.append((kind, row["revoked_at"], {"serial": serial, "reason": row["reason"]}))
    for kind, at, data in told:
        yield {
            "at": at,
            "kind": kind,
            "actor": row["requester"] if kind != "issue.orphaned" else "system",
            "authority": row["authority"],
            "certificate": row["id"],
            "request_id": row["request_id"],
            "data": msgspec.json.encode(data, order="sorted").decode(),
        }


# ── Filling ───────────────────────────────────────────────────────────────────────────────────────────────────────


def fill(
    home: Path, wanted: Wanted, *, environ: Mapping[str, str] = os.environ, say: Callable[[str], None] = lambda _: None
) -> None:
    """Put `wanted` into the store of a home that nobody serves."""
    config = homes.read_config(home, environ)
    db = homes.open_store(config)
    try:
        templates, requester = asyncio.run(_templates(homes.installation(config, db, environ)))
    finally:
        db.close()
    url = config.database.url
    path = config.home / url.removeprefix("sqlite:///")
    with sqlite(path) if url.startswith("sqlite") else postgres(url) as store:
        _pour(store, templates, requester, wanted, say)


def _pour(
    store: Store, templates: Sequence[Template], requester: str, wanted: Wanted, say: Callable[[str], None]
) -> None:
    now, first = int(time.time()), store.highest("certificates")
    facts = {template.profile: template.facts for template in templates}
    log = _Log(store) if wanted.events else None
    acme = Acme(store, random.Random(wanted.seed), wanted.orders, now) if wanted.orders else None  # noqa: S311  # as above
    supply, done, began = rows(templates, requester, wanted, now), 0, time.monotonic()
    while batch := list(islice(supply, BATCH)):
        for place, row in enumerate(batch):
            row["n"] = first + done + place + 1
        if acme is not None:
            acme.take(batch)
        store.put("certificates", _ROW, [tuple(row.values()) for row in batch])
        store.index_names([(row["n"], f"{row['names'][6:-2]}\n{row['subject']}".lower()) for row in batch])
        if log is not None:
            log.take(
                (event for row in batch for event in happened(row, facts[row["profile"]])),
                until=batch[-1]["intended_at"],
            )
        done += len(batch)
        if done % 100_000 < BATCH:
            say(f"{done:,} certificates, {time.monotonic() - began:.0f} s")
    if log is not None:
        log.close()
    store.run("UPDATE watermark SET revocations = revocations + ?", (wanted.revoked + 1,))
    say(f"{done:,} certificates; the indexes are made now")


class _Log:
    """Events, taken into the audit tree as the sequencer does it: behind what is there, with one head at the end."""

    def __init__(self, store: Store) -> None:
        if store.one("SELECT count(*) FROM events WHERE leaf IS NULL")[0]:
            raise SystemExit("some events have no place in the audit tree yet: start the server once, and stop it")
        self._store = store
        newest = store.one("SELECT size, frontier FROM heads ORDER BY size DESC LIMIT 1") or (0, b"")
        self._was, self._tree = int(newest[0]), unpacked(int(newest[0]), bytes(newest[1]))
        self._n = store.highest("events")
        self._last = 0
        self._later: list[tuple[int, int, dict[str, Any]]] = []  # a heap: what comes to pass after other rows began
        self._count = 0

    def take(self, found: Iterable[dict[str, Any]], *, until: int) -> None:
        """Further events, and the writing of those that are not after `until`: in the log times rise."""
        for event in found:
            self._count += 1
            heapq.heappush(self._later, (event["at"], self._count, event))
        leaves, rows = list[bytes](), list[tuple[Any, ...]]()
        while self._later and self._later[0][0] <= until:
            event = heapq.heappop(self._later)[2]
            if not self._last:  # the installation was founded today, and this happened before
                event, again = {**dict.fromkeys(event), **_put_back(event["at"])}, event
                heapq.heappush(self._later, (again["at"], 0, again))
            self._n += 1
            self._last = event["at"]
            at = datetime.fromtimestamp(event["at"], UTC)
            leaf = leaf_hash(event_rows.leaf_of(Event(**{**event, "at": at}, n=self._n, leaf=None)))
            rows.append((self._n, *event.values(), self._tree.size + len(leaves), leaf))
            leaves.append(leaf)
        self._tree = self._tree.extended(leaves)
        self._store.put("events", _EVENT, rows)

    def close(self) -> None:
        """Write what is left, and the head."""
        self.take((), until=sys.maxsize)
        tree = self._tree
        values = (tree.size, tree.root, tree.packed(), self._last, self._was)
        self._store.run("INSERT INTO heads (size, root, frontier, at, was) VALUES (?, ?, ?, ?, ?)", values)


def _put_back(at: int) -> dict[str, Any]:
    return {"at": at, "kind": "clock.accepted", "actor": "system", "request_id": "system:fill", "data": "{}"}


async def _templates(inst: Installation) -> tuple[list[Template], str]:
    await inst.load_authorities()
    sample = x509.SubjectAlternativeName([x509.DNSName(_SAMPLE)])
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).add_extension(sample, critical=False)
    csr = builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()).public_bytes(Encoding.DER)
    made = []
    for name in PROFILES:
        found = await profiles.current(inst, name)
        if found is None:
            continue
        plan = inst.policy(found[1], found[0]).admit(
            Ask(name, parse_csr(csr)), {"name": "fill", "id": "1", "kind": "person"}
        )
        draft = plan.draft(make_serial(b"\x40" + os.urandom(19)), datetime.now(UTC).replace(microsecond=0))
        made.append(Template(plan, draft, inst.authority(found[1].authority).n))
    if not made:
        raise SystemExit(f"this installation has none of the profiles {', '.join(PROFILES)}")
    admin = await inst.db.read(_admin)
    return made, admin


def _admin(conn: Any) -> str:
    return str(conn.exec_driver_sql("SELECT id FROM principals ORDER BY created_at LIMIT 1").scalar_one())


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description="Fill the store of a home with realistic certificates.")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--certificates", type=int, required=True)
    parser.add_argument("--revoked", type=int, default=0)
    parser.add_argument("--orders", type=int, default=0, help="so many of the certificates came by ACME")
    parser.add_argument("--events", action="store_true", help="their events too, in the audit tree")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    if not 0 <= asked.revoked <= asked.certificates:
        parser.error("--revoked is at most --certificates")
    wanted = Wanted(asked.certificates, asked.revoked, asked.events, asked.orders, asked.seed)
    fill(asked.home, wanted, say=lambda text: print(text, file=sys.stderr, flush=True))


if __name__ == "__main__":
    main()
