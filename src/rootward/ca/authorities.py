"""From a key to an authority: made here, certified by somebody else.

`create` makes the key in its key store and asks for its certificate: an authority that waits. What it asks is a file
that travels to the ceremony of its parent, or a CSR for somebody else's root. The answer comes back as a ceremony's
result (`ca/results.py`), or as a certificate that `install` takes. One authority has one key for good (ADR 0036).

Who may is a system-admin: a new authority widens what can be issued.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial

import msgspec
import structlog
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import Connection

from rootward.ca import certified, founding, freeze, paper, subordinate
from rootward.ca.access import SYSTEM, Caller, require, system_caller
from rootward.ca.certified import Certified
from rootward.ca.founding import Beginning
from rootward.ca.installation import SINGLE_TIER, AuthoritySettings, Installation
from rootward.ca.paper import CERTIFY
from rootward.ca.sign import sign_soon
from rootward.core import answer
from rootward.core.authority import AuthoritySpec, check_spec, subject_of
from rootward.core.csr import parse_csr
from rootward.core.csr_draft import draft_csr, finish_csr
from rootward.core.hierarchy import plan_authority
from rootward.core.paperwork import Certify
from rootward.core.problems import Kind, Problem, shown
from rootward.core.profile import check_name
from rootward.core.roles import Role
from rootward.keys import TLS_LABEL, Backend, Key, NotSigned, RemoteBackend, SignatureUnknown, check_fits
from rootward.store import authorities as rows
from rootward.store import events, facts
from rootward.store import paperwork as papers
from rootward.store.authorities import Pending
from rootward.store.errors import Lost, Taken
from rootward.store.failpoint import failpoint
from rootward.store.ids import new_id
from rootward.store.paperwork import Asked
from rootward.store.proposals import Proposal
from rootward.store.rows import Rows

log = structlog.get_logger()


def require_system_admin(caller: Caller) -> None:
    """RW-FORBIDDEN unless a system-admin asks, or the installation itself on its own machine."""
    if caller.principal.id != SYSTEM:
        require(caller.principal, Role.SYSTEM_ADMIN)


async def create(inst: Installation, spec: AuthoritySpec, parent: str | None, store: str, caller: Caller) -> Pending:
    """Make the key of a new issuing authority in the key store of that name, and ask for its certificate: of the
    authority `parent`, or of somebody else's (None). An online parent certifies it as soon as a second person agrees
    (`proposal`, `settle`). Nothing is left where it is refused.

    Problems: RW-FORBIDDEN, RW-CONFLICT (the name is taken, or the parent has stopped for good), RW-CONFIG (no such key
    store), RW-KEY-TYPE, and those of `plan_authority`.
    """
    require_system_admin(caller)
    _check_spec(spec)
    await refuse_single_tier(inst)
    await freeze.look_again(inst)
    backend = inst.key_store(store)
    check_fits(backend, spec.key_algorithm, spec.rsa_signature)
    if await inst.db.read(lambda conn: rows.by_name(conn, spec.name)) is not None:
        raise _taken(spec.name)
    above = None if parent is None else inst.authorities.get(parent)
    if parent is not None and above is None and inst.authorities:
        raise Problem("RW-NOT-FOUND", f"There is no authority {shown(parent)}.", field="parent")
    if above is not None and above.retired_at is not None:
        raise certified.stopped(above.name, compromised=above.compromised_at is not None)
    key, csr = await _key(backend, spec)
    try:
        if above is not None:
            plan_authority(spec, key.public, above.issuer)
        if above is not None and above.key is not None:
            await subordinate.propose(inst, above.name, spec, _pem(csr), caller)
        failpoint("authority.key-made")
        return await _ask(inst, spec, parent, key, store, csr, caller)
    except Problem as problem:
        if problem.kind is not Kind.UNAVAILABLE:  # else nobody knows whether it was written down
            await _drop(backend, spec.name, key.public.id)
        raise


def check_own_name(name: str) -> None:
    """Problem RW-FIELD where no authority can have this name: keys of our own are filed under it, or it is none."""
    check_name(name, field="name", code="RW-FIELD")
    check_own_label(name, field="name")


def check_own_label(label: str, *, field: str) -> None:
    """Problem RW-FIELD where keys of our own are filed under it, which no authority's key is (I-38)."""
    if label in (TLS_LABEL, "log") or label.startswith("ocsp-"):
        raise Problem("RW-FIELD", f"Keys of our own are filed under {label}: take another name.", field=field)


def _check_spec(spec: AuthoritySpec) -> None:
    """Whether such an authority can have its key here, under its own name."""
    check_own_name(spec.name)
    if reasons := check_spec(spec):
        raise Problem.of(reasons)
    if spec.kind != "issuing":
        detail = f"A {spec.kind} authority is offline: its key is made in a ceremony."
        raise Problem("RW-CEREMONY", detail, field="kind")


async def refuse_single_tier(inst: Installation) -> None:
    """Problem RW-CONFLICT in a single-tier lab: it stays one."""
    if await inst.db.look(lambda conn: facts.get(conn, SINGLE_TIER)) is not None:
        detail = (
            "This is a single-tier lab: it has one authority, and can be turned into nothing else. Make a new home."
        )
        raise Problem("RW-CONFLICT", detail)


async def _key(backend: Backend, spec: AuthoritySpec) -> tuple[Key, bytes]:
    """The key and its CSR: made now, or in a signer by its administrator, before."""
    if not isinstance(backend, RemoteBackend):
        key = await asyncio.to_thread(backend.generate, spec.name, spec.key_algorithm)
        try:
            return key, await _csr(key, spec)
        except (NotSigned, SignatureUnknown) as error:
            # Signed or not: a CSR certifies nothing, so the key can go.
            await _drop(backend, spec.name, key.public.id)
            detail = f"The key was made, did not sign its request ({error}), and was given up. Ask again."
            raise Problem("RW-KEY-UNAVAILABLE", detail, retry_after=5) from error
    csr = await asyncio.to_thread(backend.csr, spec.name)
    public = parse_csr(csr).public_key
    if public.algorithm != spec.key_algorithm:
        detail = f"The signer's key {spec.name} is of the type {public.algorithm}, not {spec.key_algorithm}."
        raise Problem("RW-KEY-TYPE", detail, field="key_algorithm")
    return await asyncio.to_thread(backend.load, spec.name, public.id), csr


async def _drop(backend: Backend, name: str, key_id: str) -> None:
    """Forget a key that no authority needs; one in a signer is its administrator's."""
    if not isinstance(backend, RemoteBackend):
        await asyncio.to_thread(backend.delete, name, key_id)


async def _csr(key: Key, spec: AuthoritySpec) -> bytes:
    draft = draft_csr(key.public, subject=subject_of(spec))
    return finish_csr(draft, await sign_soon(key, key.public, draft))


async def _ask(
    inst: Installation,
    spec: AuthoritySpec,
    parent: str | None,
    key: Key,
    store: str,
    csr: bytes,
    caller: Caller,
) -> Pending:
    now, id = inst.clock(), new_id()
    above = None if parent is None else inst.authorities.get(parent)
    wanted = Certify(parent or "", spec, _pem(csr).decode())
    told = msgspec.json.encode(spec, order="sorted").decode()
    made = Pending(
        name=spec.name,
        kind=spec.kind,
        parent=None if above is None else above.name,
        settings=msgspec.json.encode(AuthoritySettings()).decode(),
        created_at=now,
        spec=told,
        backend=store,
        key_id=key.public.id,
        csr=csr,
        requested_at=now,
    )
    data = {"parent": parent, "spec": msgspec.json.decode(told), "store": store, "key": key.public.id, "request": id}
    work = rows.request(
        made.name,
        made.kind,
        parent=made.parent,
        settings=made.settings,
        spec=told,
        backend=store,
        key_id=made.key_id,
        csr=csr,
        at=now,
    )
    work += _event("authority.requested", spec.name, data, caller, now)

    def write(conn: Connection) -> None:
        (work + paper.ask(conn, inst, id, wanted, subject=spec.name, caller=caller, at=now)).run(conn)

    try:
        await inst.db.write(write)
    except Taken:
        raise _taken(spec.name) from None
    return made


async def proposal(inst: Installation, pending: Pending, caller: Caller) -> Proposal | None:
    """What a second person must agree to, for one that waits for an online parent; None for others."""
    parent = inst.authorities.get(pending.parent or "")
    if parent is None or parent.key is None:
        return None
    spec = msgspec.json.decode(pending.spec, type=AuthoritySpec)
    found = await subordinate.propose(inst, parent.name, spec, _pem(pending.csr), caller)
    return found if isinstance(found, Proposal) else None


async def settle(inst: Installation) -> list[str]:
    """Let those be authorities whose online parents have certified them; their names. A local job of every process:
    the one that is first does it, and the others learn of it.
    """
    done = []
    for one in await waiting(inst):
        parent = inst.authorities.get(one.parent or "")
        if parent is None or parent.key is None or parent.retired_at is not None:
            continue
        spec = msgspec.json.decode(one.spec, type=AuthoritySpec)
        try:
            plan = plan_authority(spec, parse_csr(_pem(one.csr)).public_key, parent.issuer)
        except Problem as problem:  # what was asked for before a rule was there that refuses it; the others go on
            log.warning("authority.cannot-settle", authority=one.name, why=problem.detail)
            continue
        row = await subordinate.made_before(inst, parent, plan)
        if row is None or row.der is None:
            continue
        settings = msgspec.json.decode(one.settings, type=AuthoritySettings)
        certificate = x509.load_der_x509_certificate(row.der)
        made = Certified(one.name, one.kind, parent.name, certificate, one.backend, settings)
        try:
            await inst.db.write(partial(_settled, inst=inst, made=made))
        except (Problem, Lost) as error:
            log.info("authority.settled-elsewhere", authority=one.name, error=str(error))
            continue
        done.append(one.name)
    if done:
        await certified.begin(inst)
    return done


def _settled(conn: Connection, *, inst: Installation, made: Certified) -> None:
    certified.keep(conn, inst, made, system_caller("settle"))
    asked = papers.latest(conn, CERTIFY, made.name)
    if asked is not None and asked.is_open:
        papers.answer(asked.id, ceremony=None, at=inst.clock()).run(conn)


def _pem(csr: bytes) -> bytes:
    return x509.load_der_x509_csr(csr).public_bytes(Encoding.PEM)


async def waiting(inst: Installation) -> tuple[Pending, ...]:
    """The authorities that wait for their certificates."""
    return await inst.db.read(rows.pending)


async def request(inst: Installation, name: str) -> tuple[Pending, Asked]:
    """The authority of that name, which waits, and the request for its certificate; Problem RW-NOT-FOUND."""

    def read(conn: Connection) -> tuple[Pending | None, Asked | None]:
        return rows.pending_by_name(conn, name), papers.latest(conn, CERTIFY, name)

    pending, asked = await inst.db.read(read)
    if pending is None or asked is None:
        raise Problem("RW-NOT-FOUND", f"No authority {shown(name)} waits for a certificate.")
    return pending, asked


async def withdraw(inst: Installation, name: str, caller: Caller) -> None:
    """Give an authority up that waits for its certificate: its request, its name, its key, and what was proposed of it
    are gone. Problems: RW-FORBIDDEN, RW-NOT-FOUND, RW-CONFLICT where it is certified already.
    """
    require_system_admin(caller)
    pending, asked = await request(inst, name)
    now = inst.clock()
    work = papers.withdraw(CERTIFY, name, asked.authority, at=now) + rows.give_up(name)
    data = {"request": asked.id, "key": pending.key_id}
    work += _event("authority.withdrawn", name, data, caller, now)

    def give_up(conn: Connection) -> None:
        work.run(conn)
        subordinate.take_back(conn, _pem(pending.csr), caller, now)

    try:
        await inst.db.write(give_up)
    except Lost:
        raise Problem("RW-NOT-FOUND", f"{name} does not wait any longer.") from None
    failpoint("authority.withdrawn")
    await _drop(inst.key_store(pending.backend), name, pending.key_id)


async def install(
    inst: Installation,
    name: str,
    chain: bytes,
    parents: Sequence[str],
    caller: Caller,
    *,
    beginning: Beginning | None = None,
) -> list[str]:
    """Take the certificate that somebody else's CA made for the authority `name`, which waits for it. `chain` is PEM:
    the certificate, then all above it up to the root. Those above that are not known here yet become offline
    authorities under the names in `parents`, in the chain's order. The names of all that is new.

    With `beginning` it founds the installation.

    Problems: RW-FORBIDDEN, RW-NOT-FOUND, RW-CONFLICT, and RW-CERTIFICATE with every reason why it is not what was asked
    for.
    """
    require_system_admin(caller)
    await refuse_single_tier(inst)
    pending, asked = await request(inst, name)
    if asked.authority:
        detail = f"{name} is certified in a ceremony of {asked.authority}: rootward ceremony import takes its result."
        raise Problem("RW-CONFLICT", detail)
    certificates = answer.read_certificates(chain, field="chain")
    spec = msgspec.json.decode(pending.spec, type=AuthoritySpec)
    now = inst.clock()
    reasons = [
        *answer.check_answer(certificates[0], spec, pending.key_id, now=now),
        *answer.check_above(certificates, now=now),
    ]
    if reasons:
        raise Problem.of(reasons)
    above, fresh = certified.named(inst, certificates[1:], parents)
    settings = msgspec.json.decode(pending.settings, type=AuthoritySettings)
    made = [*reversed(fresh), Certified(name, pending.kind, above, certificates[0], pending.backend, settings)]

    def write(conn: Connection) -> None:
        if rows.pending_by_name(conn, name) is None:
            raise Problem("RW-CONFLICT", f"{name} does not wait any longer.")
        for one in made:
            certified.keep(conn, inst, one, caller)
        papers.answer(asked.id, ceremony=None, at=now).run(conn)
        if beginning is not None:
            wanted = founding.first_profiles(name, beginning.domains)
            title = f"{name} under somebody else's root"
            founding.begin(conn, inst, wanted, title=title, lab=False, token_hash=beginning.token_hash)

    await inst.db.write(write)
    failpoint("authority.installed")
    await certified.begin(inst)
    return [one.name for one in made]


def _taken(name: str) -> Problem:
    return Problem("RW-CONFLICT", f"There is an authority {name} already; a name is used once.", field="name")


def _event(kind: str, name: str, data: Mapping[str, object], caller: Caller, at: datetime) -> Rows:
    return events.record(
        kind, actor=caller.principal.id, authority=name, request_id=caller.request_id, data=data, at=at
    )
