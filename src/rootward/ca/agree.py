"""Whether those who ask are told what the inventory says (I-34): once an hour up to `SAMPLE` certificates are looked up
in the CRL, asked for by OCSP, and compared.

The sample is random rows, the latest revocations and entries of the CRL itself; what did not agree the last time is in
the next one, so that a finding stays until it is mended. Differences of the moment are none: a revocation that the next
CRL will list, a certificate that expired. What seems to differ is read once more before it is told: as an event, a
metric and a fact that `doctor` shows. Bounded: single rows by key, one pass over the CRL in slices, one OCSP answer
each, and others have their turn in between.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterable
from itertools import islice
from typing import Final

import msgspec
from sqlalchemy import Connection

from rootward import telemetry
from rootward.ca.access import SYSTEM
from rootward.ca.installation import Authority, Installation
from rootward.ca.publish import current_crl
from rootward.core.crl_serials import serials
from rootward.core.ocsp import OcspError, cert_id_for, check_response, parse_response, request_for
from rootward.core.ocsp_response import BadResponse
from rootward.core.revocation import Good, Revoked, Status
from rootward.store import certificates, events, facts, sample
from rootward.store.authorities import Crl
from rootward.store.rows import UNFENCED, Rows
from rootward.store.sample import Sampled

SAMPLE: Final = 1000
MISMATCH: Final = "status.mismatch"
AGAIN: Final = 2.0  # seconds; within one a revocation at another replica is seen here (reading.FRESH)
_SLICE: Final = 5_000  # entries of a CRL between two turns of the loop
_SILENT: Final = "none"
_TOLD: Final = 20  # findings that are kept


class Mismatch(msgspec.Struct, frozen=True):
    """One serial (hex) of an issuer about which there are two opinions; each is `good`, `revoked`,
    `unknown`, or says why not.
    """

    authority: str
    serial: str
    inventory: str
    crl: str
    ocsp: str


async def agree(inst: Installation, fence: Rows = UNFENCED) -> list[Mismatch]:
    """Compare a sample of every online authority; what does not agree."""
    online = [one for one in inst.authorities.values() if one.key is not None]
    last = await inst.db.read(lambda conn: facts.get(conn, MISMATCH))
    known = msgspec.json.decode(last.data, type=list[Mismatch]) if last is not None and last.data else []
    found: list[Mismatch] = []
    for authority in online:
        again = [bytes.fromhex(one.serial) for one in known if one.authority == authority.name]
        found += await _compare(inst, authority, again, SAMPLE // len(online))
    found = found[:_TOLD]
    if found or known:
        await _tell(inst, found, known, fence)
    return found


async def _compare(inst: Installation, authority: Authority, known: list[bytes], most: int) -> list[Mismatch]:
    crl = await current_crl(inst, authority.name)
    if crl is None:
        return []  # `doctor` and the metrics tell that
    listed = await _chosen(crl, most // 10)
    asked = list(dict.fromkeys([*known, *listed, *await _sample(inst, authority, most - len(listed))]))
    inside = await _listed(crl, set(asked))
    suspects = set()
    for serial in asked:
        telemetry.STATUS_COMPARED.inc()
        if await _differs(inst, authority, serial, crl, serial in inside) is not None:
            suspects.add(serial)
    if not suspects:
        return []
    # Once more, by what is current then: one may just have been revoked, at another replica, and a new CRL made.
    await asyncio.sleep(AGAIN)
    current = await current_crl(inst, authority.name) or crl
    inside = await _listed(current, suspects)
    again = [await _differs(inst, authority, serial, current, serial in inside) for serial in sorted(suspects)]
    return [mismatch for mismatch in again if mismatch is not None]


async def _sample(inst: Installation, authority: Authority, most: int) -> list[bytes]:
    """Serials of issued certificates: the latest revocations, and random rows."""

    def read(conn: Connection) -> list[bytes]:
        recent = sample.lately_revoked(conn, authority.n, most // 4)
        highest = sample.highest(conn)
        wanted = sorted(1 + secrets.randbelow(highest) for _ in range(most - len(recent))) if highest else []
        rows = (sample.issued_from(conn, authority.n, n) for n in dict.fromkeys(wanted))
        return recent + [serial for serial in rows if serial is not None]

    return await inst.db.read(read)


async def _chosen(crl: Crl, most: int) -> list[bytes]:
    """Some of the entries, spread over the whole list."""
    every = max(1, crl.entries // max(1, most))
    found, skip = list[bytes](), secrets.randbelow(every)
    async for part in _slices(crl, every, skip):
        found += part
    return found[:most]


async def _listed(crl: Crl, wanted: set[bytes]) -> set[bytes]:
    """Those that the CRL lists."""
    found: set[bytes] = set()
    if wanted:
        async for part in _slices(crl, 1, 0):
            found |= wanted.intersection(part)
    return found


async def _slices(crl: Crl, every: int, skip: int) -> AsyncIterator[list[bytes]]:
    """Every so many serials of a CRL, in parts of bounded work."""
    walk = islice(serials(crl.der), skip, None, every)
    most = max(1, _SLICE // every)
    while part := list(islice(walk, most)):
        yield part
        await asyncio.sleep(0)


async def _differs(inst: Installation, authority: Authority, serial: bytes, crl: Crl, present: bool) -> Mismatch | None:
    """None where the three agree, as far as they can at this moment."""

    def read(conn: Connection) -> tuple[Sampled | None, int]:
        return sample.sampled(conn, authority.n, serial), certificates.watermark(conn)

    row, count = await inst.db.read(read)
    told = await _asked(inst, authority, serial)
    says = "unknown" if row is None else "good" if row.revoked_at is None else "revoked"
    listing = "revoked" if present else "good"
    current = crl.watermark == count
    if row is None:
        wrong = present or told not in ("unknown", _SILENT)
    elif row.revoked_at is None:
        wrong = (present and current) or told not in ("good", _SILENT)
    else:
        # an entry stays for as long as its certificate is valid; before that only a CRL that knows of it must have it
        due = row.revoked_at < crl.this_update and row.not_after > crl.this_update
        wrong = (due and current and not present) or told not in ("revoked", _SILENT)
    return Mismatch(authority.name, serial.hex(), says, listing, told) if wrong else None


async def _asked(inst: Installation, authority: Authority, serial: bytes) -> str:
    """What a client hears by OCSP and believes, why it does not believe it, or `none` where it hears nothing: then
    there is nothing to compare, and the check `ocsp` tells it.
    """
    cert_id = cert_id_for(authority.issuer, serial, "sha1")
    if inst.process.ocsp is None:
        return _SILENT
    body = await inst.process.ocsp(authority.name, request_for([cert_id]))
    await asyncio.sleep(0)  # an answer may be made without a pause, and a thousand of them are long
    try:
        response = parse_response(body)
        return _named(check_response(response, cert_id=cert_id, issuer=authority.issuer, now=inst.clock()))
    except OcspError:
        return _SILENT
    except BadResponse as error:
        return " ".join(error.reasons)[:200]


def _named(status: Status) -> str:
    return "good" if isinstance(status, Good) else "revoked" if isinstance(status, Revoked) else "unknown"


async def _tell(inst: Installation, found: list[Mismatch], known: Iterable[Mismatch], fence: Rows) -> None:
    now = inst.clock()
    rows = fence + facts.put(MISMATCH, at=now, data=msgspec.json.encode(found).decode() if found else "")
    for one in found:
        telemetry.STATUS_MISMATCHES.labels(one.authority).inc()
        if one in known:
            continue
        rows += events.record(
            "status.mismatch",
            actor=SYSTEM,
            authority=one.authority,
            request_id="system:agree",
            data=msgspec.structs.asdict(one),
            at=now,
        )
    await inst.db.write(rows)
