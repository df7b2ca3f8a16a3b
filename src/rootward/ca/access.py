"""Who may do what: principals, their roles per authority, and the one question `require`. Deny by default.

A grant is (role, authority or every one, profile or every one). A role on one authority gives nothing on another
(I-43). A token acts with its person's grants cut down to its scopes, looked up anew at each use, so that what is
taken away is gone at once.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime

import msgspec
from sqlalchemy import Connection

from rootward.ca.installation import Installation
from rootward.core.problems import Problem
from rootward.core.roles import Grant, Role
from rootward.store import people
from rootward.store.watermark import people_count
from rootward.telemetry import TOKEN_PREFIX

SYSTEM = "system:rootward"
KEPT_BEARERS = 10_000
ALL_SCOPES = '"*"'


@dataclass(frozen=True)
class Credential:
    """What a principal proved itself with. `own`: nobody else ever made it for them, and so ever had it."""

    token: str
    expires_at: datetime
    own: bool


@dataclass(frozen=True)
class Principal:
    """Who acts. `kind` is person, account for an ACME account, or system for what the installation does for itself."""

    id: str
    kind: str
    name: str
    grants: tuple[Grant, ...]
    credential: Credential | None = None

    def holds(self, role: Role, *, authority: str | None = None, profile: str | None = None) -> bool:
        """Whether it has this role on this profile of this authority; None asks for it on every one."""
        return any(grant.covers(role, authority, profile) for grant in self.grants)

    def anywhere(self, role: Role) -> bool:
        """Whether it has this role on anything at all."""
        return any(grant.role is role for grant in self.grants)

    def authorities_seen(self) -> frozenset[str] | None:
        """The authorities on which it has any role; None: all of them."""
        roles = [grant for grant in self.grants if grant.role is not Role.SYSTEM_ADMIN]
        if any(grant.authority is None for grant in roles):
            return None
        return frozenset(grant.authority for grant in roles if grant.authority is not None)

    def identity(self) -> dict[str, str]:
        """The attributes that profiles may use as data."""
        return {"id": self.id, "kind": self.kind, "name": self.name}


@dataclass(frozen=True)
class Bearer:
    """A living token's principal, as it was when there had been `count` changes to people."""

    principal: Principal
    expires_at: datetime
    count: int


@dataclass(frozen=True)
class Caller:
    """A principal in one request; `request_id` goes into every event of it."""

    principal: Principal
    request_id: str


SYSTEM_PRINCIPAL = Principal(SYSTEM, "system", "rootward", (Grant(Role.REQUESTER), Grant(Role.OFFICER)))


def system_caller(why: str) -> Caller:
    """The installation acting for itself; `why` stands where a request's id would."""
    return Caller(SYSTEM_PRINCIPAL, f"system:{why}")


def require(principal: Principal, role: Role, *, authority: str | None = None, profile: str | None = None) -> None:
    """Problem RW-FORBIDDEN unless the principal holds the role there."""
    if not principal.holds(role, authority=authority, profile=profile):
        where = (
            "" if authority is None else f" on {authority}" + ("" if profile is None else f" for the profile {profile}")
        )
        raise Problem("RW-FORBIDDEN", f"This needs the role {role}{where}.")


def require_officer(principal: Principal, authority: str) -> None:
    """Problem RW-FORBIDDEN unless the principal is an officer or an admin there."""
    if not principal.holds(Role.ADMIN, authority=authority):
        require(principal, Role.OFFICER, authority=authority)


def new_token() -> tuple[str, bytes]:
    """A fresh token and what is stored of it: SHA-256 of a value of 256 random bits needs no slow hash."""
    token = TOKEN_PREFIX + secrets.token_urlsafe(32)
    return token, token_hash(token)


def token_hash(token: str) -> bytes:
    """What is stored of a token."""
    return hashlib.sha256(token.encode()).digest()


async def authenticate(inst: Installation, token: str) -> Principal:
    """The principal of a token. Unknown, expired, revoked and disabled all get the same RW-UNAUTHENTICATED.

    What it may do is kept under the count of changes to people, which is read each time: a change is seen at once.
    """
    if not token.startswith(TOKEN_PREFIX) or not token.isascii() or len(token) > 100:
        raise Problem("RW-UNAUTHENTICATED", "The token is not valid.")
    digest, now = token_hash(token), inst.clock()
    kept = inst.process.bearers.get(digest)
    count = await inst.db.look(people_count)
    if kept is None or kept.count != count:
        kept = await _read_bearer(inst, digest, count, now)
    if kept.expires_at <= now:
        raise Problem("RW-UNAUTHENTICATED", "The token is not valid.")
    return kept.principal


async def _read_bearer(inst: Installation, digest: bytes, count: int, now: datetime) -> Bearer:
    # The count was read before what it vouches for: a change in between makes it stale, never too fresh.
    found = await inst.db.look(lambda conn: people.bearer(conn, digest, now))
    if found is None:
        inst.process.bearers.pop(digest, None)
        raise Problem("RW-UNAUTHENTICATED", "The token is not valid.")
    grants = tuple(Grant(Role(role), authority, profile) for role, authority, profile in found.grants)
    credential = Credential(found.token, found.expires_at, own=found.made_by is None)
    principal = Principal(found.id, found.kind, found.name, cut(grants, read_scopes(found.scopes)), credential)
    while len(inst.process.bearers) >= KEPT_BEARERS:
        inst.process.bearers.pop(next(iter(inst.process.bearers)))
    kept = inst.process.bearers[digest] = Bearer(principal, found.expires_at, count)
    return kept


async def find_principal(inst: Installation, id: str) -> Principal | None:
    """A principal with all that is granted to it now; None where there is none or it is disabled."""

    def read(conn: Connection) -> Principal | None:
        row = people.by_id(conn, id)
        if row is None or row.disabled_at is not None:
            return None
        held = people.grants_of(conn, id)
        return Principal(
            row.id, row.kind, row.name, tuple(Grant(Role(row.role), row.authority, row.profile) for row in held)
        )

    return await inst.db.look(read)


def read_scopes(text: str) -> tuple[Grant, ...] | None:
    """A token's scopes as they are stored; None: all of its principal's grants."""
    return None if text == ALL_SCOPES else msgspec.json.decode(text, type=tuple[Grant, ...])


def cut(grants: tuple[Grant, ...], scopes: tuple[Grant, ...] | None) -> tuple[Grant, ...]:
    """What is both granted and in scope: of each overlapping pair the narrower. None: all that is granted."""
    if scopes is None:
        return grants
    both = [a for a in grants for b in scopes if a.within(b)] + [b for b in scopes for a in grants if b.within(a)]
    return tuple(dict.fromkeys(both))
