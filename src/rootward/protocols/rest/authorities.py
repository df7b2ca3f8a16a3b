"""`/authorities`: the CAs of this installation, as far as the caller has a role on them."""

from __future__ import annotations

import msgspec
from sqlalchemy import Connection

from rootward.ca import freeze as freezing
from rootward.ca.ending import parent_of
from rootward.ca.installation import Authority, Installation
from rootward.core.keystate import KeyState
from rootward.core.problems import Problem
from rootward.core.times import rfc3339
from rootward.fleet import keylife
from rootward.protocols.pem import chain_pem
from rootward.protocols.rest.certificate import may_see
from rootward.protocols.rest.operation import Answer, Call, Line, Moment, Operation, Page, moment
from rootward.store import authorities as rows


class CrlBody(msgspec.Struct, frozen=True):
    """The current CRL: its number, its times, how many certificates it lists, where it is served."""

    number: int
    this_update: Moment
    next_update: Moment
    entries: int
    url: str


class AuthorityBody(msgspec.Struct, frozen=True, kw_only=True, rename={"pem": "certificate"}):
    """`state` is active, frozen, retired, compromised or offline; `chain` is PEM from its own to the root's.

    `parent` is who signed it, null for a root; `key_store` where its key is, null where it is offline. `external`: it
    is somebody else's. `lab`: this is a single-tier lab, whose root is online. `successor` takes its place.
    `key_state` is one of NIST SP 800-57 part 1, section 7; at `destroyed_at` its key came to its end.
    """

    name: str
    kind: str
    state: str
    subject: str
    key_id: str
    key_algorithm: str
    serial: str
    not_before: Moment
    not_after: Moment
    sha256: str
    pem: str
    chain: str
    crl: CrlBody | None
    ocsp_url: str | None
    successor: str | None
    parent: str | None
    key_store: str | None
    external: bool
    lab: bool
    key_state: str
    destroyed_at: Moment | None


class FreezeBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`reason` is for people and goes into the event."""

    reason: Line | None = None


async def freeze(call: Call) -> Answer:
    """The authority, frozen; again: the same answer."""
    body: FreezeBody = call.body
    await shown(call)  # what the caller may not see is not there
    found = await freezing.freeze_by(call.inst, call.path["name"], body.reason, call.caller)
    return await told(call, found)


async def unfreeze(call: Call) -> Answer:
    """The authority, as it issues again; again: the same answer."""
    body: FreezeBody = call.body
    await shown(call)
    found = await freezing.unfreeze_by(call.inst, call.path["name"], body.reason, call.caller)
    return await told(call, found)


async def listed(call: Call) -> Answer:
    """A page of authorities by name."""
    await freezing.look_again(call.inst)
    seen = [found for found in call.inst.authorities.values() if may_see(call.principal, found.name)]
    page = call.cut(seen, lambda found: found.name)
    read = await _read(call, page.items)
    return Answer(Page([body(call.inst, found, *read[found.name]) for found in page.items], page.next_cursor))


async def shown(call: Call) -> Answer:
    """One authority; what is hidden is not there."""
    await freezing.look_again(call.inst)
    found = call.inst.authorities.get(call.path["name"])
    if found is None or not may_see(call.principal, found.name):
        raise Problem("RW-NOT-FOUND", "There is no such authority.")
    return await told(call, found)


async def told(call: Call, found: Authority) -> Answer:
    """The answer that shows it."""
    return Answer(body(call.inst, found, *(await _read(call, [found]))[found.name]))


async def _read(call: Call, found: list[Authority]) -> dict[str, tuple[rows.Crl | None, KeyState]]:
    """The current CRL and the key's state of each, by name."""
    now = call.inst.clock()

    def read(conn: Connection) -> dict[str, tuple[rows.Crl | None, KeyState]]:
        return {
            one.name: (rows.current_crl(conn, one.n), keylife.state(one, keylife.certifies_until(conn, one), now))
            for one in found
        }

    return await call.inst.db.read(read)


def body(inst: Installation, authority: Authority, crl: rows.Crl | None, key_state: KeyState) -> AuthorityBody:
    """An authority as the API says it."""
    issuer, certificate = authority.issuer, authority.issuer.certificate
    return AuthorityBody(
        name=authority.name,
        kind=authority.kind,
        state=authority.state,
        subject=certificate.subject.rfc4514_string(),
        key_id=issuer.key_id,
        key_algorithm=issuer.key.algorithm.value,
        serial=issuer.serial.hex(),
        not_before=rfc3339(certificate.not_valid_before_utc),
        not_after=rfc3339(certificate.not_valid_after_utc),
        sha256=issuer.fingerprint(),
        pem=issuer.pem(),
        chain=chain_pem(issuer.chain, root=True),
        crl=None
        if crl is None
        else CrlBody(crl.number, rfc3339(crl.this_update), rfc3339(crl.next_update), crl.entries, issuer.crl_url),
        ocsp_url=issuer.ocsp_url if issuer.online else None,
        successor=authority.successor,
        parent=None if (parent := parent_of(inst, authority)) is None else parent.name,
        key_store=authority.backend,
        external=authority.settings.external,
        lab=issuer.is_lab,
        key_state=key_state.value,
        destroyed_at=moment(authority.destroyed_at),
    )


OPERATIONS = (
    Operation(
        name="listAuthorities",
        method="GET",
        path="/authorities",
        handler=listed,
        summary="The authorities, by name.",
        result=Page[AuthorityBody],
        paged=True,
    ),
    Operation(
        name="getAuthority",
        method="GET",
        path="/authorities/{name}",
        handler=shown,
        summary="One authority.",
        result=AuthorityBody,
    ),
    Operation(
        name="freezeAuthority",
        method="POST",
        path="/authorities/{name}/freeze",
        handler=freeze,
        summary="Issue nothing more from it, at once and in every process; its CRL and OCSP go on.",
        body=FreezeBody,
        lenient=True,
        result=AuthorityBody,
        idempotent=True,
        urgent=True,
        repeatable=True,
        problems=("RW-FORBIDDEN",),
    ),
    Operation(
        name="unfreezeAuthority",
        method="POST",
        path="/authorities/{name}/unfreeze",
        handler=unfreeze,
        summary="Let it issue again.",
        body=FreezeBody,
        lenient=True,
        result=AuthorityBody,
        idempotent=True,
        urgent=True,
        repeatable=True,
        problems=("RW-FORBIDDEN",),
    ),
)
