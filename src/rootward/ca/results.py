"""What comes back from a ceremony is taken in: certificates for authorities that wait, new roots and policy CAs, CRLs
of offline authorities, cross-signed certificates. All of it or nothing, in one transaction with the event
`ceremony.imported`, which has the transcript's hash.

That the result is whole, and signed by whom, is proved from its files alone (`core/transcript.py`). In here it is held
against what this installation knows: whom it trusts, what it asked for, what it has revoked. The first result founds
the installation, and its participants are known from then on: later results are signed by two of them, and bring in
whoever their script adds.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import Connection

from rootward.ca import certified, cross, founding, freeze, offline_keys, publish
from rootward.ca.access import Caller
from rootward.ca.answers import FORGOTTEN, PARTICIPANTS, Answers, Known, against, known_to, pinned
from rootward.ca.authorities import refuse_single_tier, require_system_admin
from rootward.ca.certified import Certified
from rootward.ca.filing import Filer, file
from rootward.ca.founding import Beginning
from rootward.ca.installation import Authority, AuthoritySettings, Installation
from rootward.ca.paper import CRL
from rootward.core.foreign import read_foreign
from rootward.core.issuer import Issuer
from rootward.core.paperwork import Result
from rootward.core.paperwork import read as read_paper
from rootward.core.participants import WITNESSES, participant_key
from rootward.core.problems import Problem
from rootward.core.times import rfc3339
from rootward.core.transcript import verify_result
from rootward.store import authorities as rows
from rootward.store import certificates, events, facts
from rootward.store import paperwork as papers
from rootward.store.errors import Lost, Taken
from rootward.store.failpoint import failpoint
from rootward.store.ids import new_id
from rootward.store.paperwork import Held


@dataclass(frozen=True)
class Vouched:
    """What was proved of a result from its files alone. `signers` and `participants` (of the script) are names with the
    SHA-256 of the public key that each signs with, `destroyed` the public keys (SHA-256) of which nothing was left in
    the script's places; hex.
    """

    title: str
    lab: bool
    script_sha256: str
    transcript_sha256: str
    held_at: datetime
    signers: Mapping[str, str]
    participants: Mapping[str, str]
    destroyed: frozenset[str] = frozenset()


async def import_result(inst: Installation, data: bytes, caller: Caller, *, beginning: Beginning | None = None) -> Held:
    """Take in the result file `data`, once it is proved from itself and from the requests that it answers. Problems as
    `take_in`, and RW-TOO-LARGE.
    """
    require_system_admin(caller)
    result = read_paper(data, Result)
    # Those that are answered or withdrawn too: what answers one of them must not pass for another one's answer.
    asked = await inst.db.read(papers.all_requests)
    requests = {hashlib.sha256(one.body).hexdigest(): one.body for one in asked}
    vouched = await asyncio.to_thread(vouch, result, requests)
    return await take_in(inst, result, data, vouched, caller, beginning=beginning)


def vouch(result: Result, requests: Mapping[str, bytes]) -> Vouched:
    """What the result proves by itself, with the request files (by SHA-256) that are at hand; Problem RW-CEREMONY."""
    proved = verify_result(result, requests=requests)
    return Vouched(
        title=proved.transcript.title,
        lab=proved.transcript.lab,
        script_sha256=proved.transcript.script,
        transcript_sha256=proved.sha256,
        held_at=proved.transcript.ended_at.astimezone(UTC).replace(microsecond=0),
        signers={one.name: one.key_id for one in proved.signers},
        participants={one.name: participant_key(one.key).id for one in proved.script.participants if one.key},
        destroyed=offline_keys.destroyed(proved.script),
    )


async def take_in(
    inst: Installation,
    result: Result,
    data: bytes,
    vouched: Vouched,
    caller: Caller,
    *,
    beginning: Beginning | None = None,
) -> Held:
    """Take the result in whose file is `data`. With `beginning` it founds the installation.

    Problems: RW-FORBIDDEN; RW-CONFLICT where it was taken in before, or the installation is (not) founded; RW-CEREMONY
    with every reason.
    """
    require_system_admin(caller)
    await refuse_single_tier(inst)
    known = await inst.db.read(known_to)
    _check_standing(known, vouched, beginning)
    taken = against(inst, result, known)
    for problem in _trust(known, vouched):
        taken.fault(problem)
    if beginning is not None and not taken.reasons:
        _check_founding(inst, taken)
    if taken.reasons:
        raise Problem.of(taken.reasons)
    chains = [(one, await cross.read(inst, taken.issuers[one.name], one.chain)) for one in taken.crossed]
    id, now = new_id(), inst.clock()

    def write(conn: Connection) -> None:
        held = papers.hold(
            id,
            script_sha256=vouched.script_sha256,
            transcript_sha256=vouched.transcript_sha256,
            title=vouched.title,
            lab=vouched.lab,
            held_at=vouched.held_at,
            at=now,
            by=caller.principal.id,
            result=data,
        )
        held.run(conn)
        for name in sorted(_signers(taken)):
            offline_keys.note_found(conn, name, id, vouched.held_at, caller, now)
        for one in taken.made:
            certified.keep(conn, inst, one, caller)
        for issuer, certificate in taken.others:
            _keep_other(conn, inst, issuer, certificate, caller)
        for crossed, chain in chains:
            made = Certified(crossed.name, "cross", crossed.by, crossed.certificate)
            certified.keep_further(conn, inst, made, caller)
            cross.keep(conn, crossed.name, chain, caller, now)
        for request in taken.answered:  # before the lists, which take back what is open of whom they end
            papers.answer(request, ceremony=id, at=now).run(conn)
        for issuer, der in taken.lists:
            _keep_list(conn, inst, issuer, der, caller)
        for issuer, _ in taken.lists:  # it has all that was asked for: the same again would be refused
            papers.withdraw(CRL, issuer.authority, issuer.authority, at=now).run(conn)
        for key in sorted(vouched.destroyed):
            offline_keys.note_destroyed(conn, key, id, sorted(vouched.signers), caller, now)
        added = _pin(conn, vouched, now)
        if beginning is not None:
            online = next(one.name for one in taken.made if one.backend is not None)
            wanted = founding.first_profiles(online, beginning.domains)
            founding.begin(conn, inst, wanted, title=vouched.title, lab=vouched.lab, token_hash=beginning.token_hash)
        events.record(
            "ceremony.imported",
            actor=caller.principal.id,
            request_id=caller.request_id,
            data=_said(id, vouched, taken, added),
            at=now,
        ).run(conn)

    try:
        await inst.db.write(write)
    except Taken:
        raise Problem("RW-CONFLICT", "This result was taken in before.", field="result") from None
    except Lost:  # a request was withdrawn or asked anew, or something was revoked, since it was held against it
        detail = "Something that it answers changed just now: import it again."
        raise Problem("RW-CONFLICT", detail, retry_after=1, field="result") from None
    finally:
        inst.process.told += 1  # its lists may have revoked something, also where it failed
    failpoint("ceremony.imported")
    await certified.begin(inst)
    await freeze.look_again(inst)
    found = await inst.db.read(lambda conn: papers.ceremony(conn, id))
    if found is None:
        raise Problem("RW-NOT-FOUND", "There is no such ceremony.")
    return found


async def participants(inst: Installation) -> dict[str, str]:
    """Who is known to sign transcripts: names, and the SHA-256 of their public keys, hex."""
    return pinned(await inst.db.look(lambda conn: facts.get(conn, PARTICIPANTS)))


async def forget(inst: Installation, name: str, caller: Caller) -> dict[str, str]:
    """Let a participant's signature count no more, whichever script names that key again; those who are left.

    Problems: RW-FORBIDDEN, RW-NOT-FOUND, and RW-CONFLICT where so few would be left that no result could be taken in.
    """
    require_system_admin(caller)
    now = inst.clock()

    def apply(conn: Connection) -> dict[str, str]:
        known = pinned(facts.get(conn, PARTICIPANTS))
        if name not in known:
            raise Problem("RW-NOT-FOUND", "There is no such participant.")
        if len(known) <= WITNESSES:
            detail = (
                f"{WITNESSES} participants must stay: first bring in another one, by a script that two have signed."
            )
            raise Problem("RW-CONFLICT", detail)
        left = {who: key for who, key in known.items() if who != name}
        gone = {**pinned(facts.get(conn, FORGOTTEN)), known[name]: name}
        for fact, data in ((PARTICIPANTS, left), (FORGOTTEN, gone)):
            facts.put(fact, at=now, data=msgspec.json.encode(data, order="sorted").decode()).run(conn)
        events.record(
            "ceremony.participant-forgotten",
            actor=caller.principal.id,
            request_id=caller.request_id,
            data={"name": name, "key": known[name]},
            at=now,
        ).run(conn)
        return left

    return await inst.db.write(apply)


async def listed(inst: Installation, *, before: int | None, limit: int) -> tuple[Held, ...]:
    """The ceremonies that were taken in, newest first."""
    return await inst.db.read(lambda conn: papers.list(conn, before=before, limit=limit))


async def shown(inst: Installation, id: str) -> tuple[Held, Result]:
    """One ceremony with its result; Problem RW-NOT-FOUND."""

    def read(conn: Connection) -> tuple[Held | None, bytes | None]:
        return papers.ceremony(conn, id), papers.result(conn, id)

    held, data = await inst.db.read(read)
    if held is None or data is None:
        raise Problem("RW-NOT-FOUND", "There is no such ceremony.")
    return held, read_paper(data, Result)


def _check_standing(known: Known, vouched: Vouched, beginning: Beginning | None) -> None:
    before = known.transcripts.get(vouched.transcript_sha256)
    if before is not None:
        detail = f"This result was taken in before, at {rfc3339(before.imported_at)}."
        raise Problem("RW-CONFLICT", detail, field="result")
    if known.founded is None and beginning is None:
        detail = "This installation is not founded yet: rootward ceremony import founds it, on its own machine."
        raise Problem("RW-CONFLICT", detail)
    if known.founded is not None and beginning is not None:
        raise Problem("RW-CONFLICT", "This installation is founded already: its server takes results in.")


def _trust(known: Known, vouched: Vouched) -> list[str]:
    """What speaks against those who signed."""
    if vouched.lab and known.founded is not None and known.founded.data != "lab":
        return ["It is a lab's, which nobody watched, and this installation is none."]
    needed = 1 if vouched.lab else WITNESSES
    if len(vouched.signers) < needed or len(set(vouched.signers.values())) < needed:
        return [f"It needs the signatures of {needed} participants."]
    if not known.participants:
        return []  # the first one: who signed it is known from now on
    mine = [name for name, key in vouched.signers.items() if known.participants.get(name) == key]
    if len(mine) >= needed:
        return []
    who = ", ".join(sorted(known.participants))
    return [f"It is signed by {len(mine)} of the participants who are known here, and {needed} are needed of: {who}."]


def _check_founding(inst: Installation, taken: Answers) -> None:
    kinds = {one.kind for one in taken.made} | {one.kind for one in inst.authorities.values()}
    if "root" not in kinds:
        taken.fault("It has no root, and an installation begins with one.")
    if not any(one.backend is not None for one in taken.made):
        taken.fault("It answers no request of this home: rootward ca create makes one before the ceremony.")


def _keep_list(conn: Connection, inst: Installation, issuer: Issuer, der: bytes, caller: Caller) -> None:
    """The CRL of an offline authority, which is in the store by now."""
    row = rows.by_name(conn, issuer.authority)
    kept = rows.list_issuers(conn, issuer.authority)
    if row is None or not kept:
        raise Problem("RW-NOT-FOUND", "There is no such authority.")
    settings = msgspec.json.decode(row.settings, type=AuthoritySettings)
    authority = Authority(row.name, row.kind, issuer, kept[-1].n, None, settings, row.created_at, None, None)
    publish.take(conn, inst, authority, der, caller)


def _keep_other(
    conn: Connection, inst: Installation, issuer: Issuer, certificate: x509.Certificate, caller: Caller
) -> None:
    """The CA of another system: in the inventory like every certificate of whoever signed it."""
    found = read_foreign(certificate.public_bytes(Encoding.DER))
    signer = rows.list_issuers(conn, issuer.authority)[-1]
    id, _ = file(conn, signer, found, Filer(caller, inst.clock(), inst.db.lease))
    there = certificates.by_id(conn, id)
    if there is not None and not there.is_bare and there.sha256 != found.sha256:
        detail = f"The serial {found.serial.hex()} is that of another certificate by {issuer.authority}."
        raise Problem("RW-CONFLICT", detail, field="result")


def _signers(taken: Answers) -> set[str]:
    """Whose keys signed what came."""
    found = {issuer.authority for issuer, _ in (*taken.lists, *taken.others)}
    return found | {one.by for one in taken.crossed} | {one.parent for one in taken.made if one.parent is not None}


def _pin(conn: Connection, vouched: Vouched, now: datetime) -> list[str]:
    """Know the script's participants from now on; the names of those who are new or have another key. A key that was
    forgotten does not come back, and nobody's is replaced but by who signed with the new one.
    """
    known, forgotten = pinned(facts.get(conn, PARTICIPANTS)), pinned(facts.get(conn, FORGOTTEN))
    added = {
        name: key
        for name, key in vouched.participants.items()
        if key not in forgotten and known.get(name) != key and (name not in known or vouched.signers.get(name) == key)
    }
    trusted = msgspec.json.encode({**known, **added}, order="sorted").decode()
    facts.put(PARTICIPANTS, at=now, data=trusted).run(conn)
    return sorted(added)


def _said(id: str, vouched: Vouched, taken: Answers, added: list[str]) -> dict[str, object]:
    return {
        "ceremony": id,
        "title": vouched.title,
        "lab": vouched.lab,
        "script_sha256": vouched.script_sha256,
        "transcript_sha256": vouched.transcript_sha256,
        "held_at": rfc3339(vouched.held_at),
        "signers": dict(vouched.signers),
        "new_participants": added,
        "authorities": [one.name for one in taken.made],
        "cross": [one.name for one in taken.crossed],
        "crls": [issuer.authority for issuer, _ in taken.lists],
        "requests": taken.answered,
    }
