"""One installation, open: its store, its authorities with their keys, its clock. What every verb of this layer takes
first.

Nothing in here is a truth of its own: authorities and policies are read from the store and kept by version, so that a
second process that does the same sees the same.
"""

from __future__ import annotations

import dataclasses
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import msgspec
import structlog
from cryptography import x509
from sqlalchemy import Connection

from rootward.ca.process import Process
from rootward.core.authority import read_spec
from rootward.core.issuer import MAX_CHAIN, Issuer, is_lab
from rootward.core.plan import Policy, Serial, make_serial
from rootward.core.problems import Problem, shown
from rootward.core.profile import Profile
from rootward.core.times import parse_duration
from rootward.keys import Backend, Key, Sealer
from rootward.store import authorities as rows
from rootward.store import facts
from rootward.store.db import Database
from rootward.store.facts import Fact

if TYPE_CHECKING:
    from rootward.ca.log import Log

log = structlog.get_logger()

# How long a revocation may take to be seen by those who ask us (T_rev of the invariants).
PROMISE = timedelta(seconds=60)
_CHANGING = ("frozen_at", "retired_at", "compromised_at", "successor", "destroyed_at")  # of an authority, while we run
# The fact that this installation was made as a lab whose root is online; stated when it is founded, or never.
SINGLE_TIER = "installation.single-tier"
# With an authority's name: the fact that its key is being destroyed, so that it may be there or not.
DESTROYING = "key.destroying:"


class AuthoritySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Durations as `24h`: how long a CRL, an OCSP answer and a responder's certificate are valid.

    `external`: it is somebody else's, who publishes its CRL. `key_label`: under what its key is filed where that is not
    the authority's name, as with a key that was there before. `adopted`: it ran elsewhere before, so that there are
    certificates of it that this installation has not issued.
    """

    crl: str = "24h"
    ocsp: str = "1h"
    responder: str = "48h"
    external: bool = False
    key_label: str = ""
    adopted: bool = False


@dataclass(frozen=True)
class Authority:
    """An authority and, where it is online, its key. `n` is what its certificates are filed under (issuers.n)."""

    name: str
    kind: str
    issuer: Issuer
    n: int
    key: Key | None
    settings: AuthoritySettings
    created_at: datetime
    frozen_at: datetime | None
    retired_at: datetime | None
    backend: str | None = None  # the name of its key's store; None: its key is offline
    compromised_at: datetime | None = None
    successor: str | None = None  # what takes its place
    destroyed_at: datetime | None = None  # its key is no more

    @property
    def state(self) -> str:
        """active, frozen (issues nothing now), retired (never again), compromised (nor ever trusted again), or offline
        (its key is nowhere near).
        """
        if self.compromised_at is not None:
            return "compromised"
        if self.retired_at is not None:
            return "retired"
        if self.frozen_at is not None:
            return "frozen"
        return "active" if self.key is not None else "offline"

    @property
    def key_label(self) -> str:
        """Under what its key is filed in its store."""
        return self.settings.key_label or self.name

    @property
    def crl_lifetime(self) -> timedelta:
        return parse_duration(self.settings.crl)

    @property
    def ocsp_lifetime(self) -> timedelta:
        return parse_duration(self.settings.ocsp)


@dataclass
class Installation:
    """`pki_url` goes into certificates, `external_url` is what clients of the doors call; neither ends in a slash."""

    db: Database
    keys: Backend
    pki_url: str
    external_url: str
    stores: Mapping[str, Backend] = field(default_factory=dict)  # where else authorities' keys live, by name
    sealer: Sealer = field(default_factory=Sealer)  # for small secrets that lie in the store
    hosts: tuple[str, ...] = ("localhost", "127.0.0.1")
    lab: bool = False
    clock: Callable[[], datetime] = field(default=lambda: datetime.fromtimestamp(int(time.time()), UTC))
    random: Callable[[int], bytes] = secrets.token_bytes
    authorities: dict[str, Authority] = field(default_factory=dict)
    # Profiles that no door can name: the responders' and the server's own (ca/own.py).
    own_profiles: dict[str, Profile] = field(default_factory=dict)
    # The audit log's key and what was last seen of its tree; None until it was opened (ca/log.py).
    log: Log | None = None
    # What this process alone knows and does.
    process: Process = field(default_factory=Process)
    _policies: dict[tuple[str, int, int], Policy] = field(default_factory=dict)

    def new_serial(self) -> Serial:
        return make_serial(self.random(20))

    def key_store(self, name: str) -> Backend:
        """Where the keys of the authorities that name it live; Problem RW-CONFIG where there is no such store."""
        if name == self.keys.name:
            return self.keys
        if name not in self.stores:
            raise Problem(
                "RW-CONFIG", f"There is no key store {shown(name)}: rootward.toml has no [keys.{shown(name)}]."
            )
        return self.stores[name]

    def authority(self, name: str) -> Authority:
        """The authority of this name, or Problem RW-NOT-FOUND."""
        found = self.authorities.get(name)
        if found is None:
            raise Problem("RW-NOT-FOUND", "There is no such authority.")
        return found

    def roots(self) -> list[Issuer]:
        """Whom everybody who relies on this installation trusts: a root whose key is in other hands is none of them."""
        known = self.authorities.values()
        return [one.issuer for one in known if one.kind == "root" and one.compromised_at is None]

    def learn(self, found: Iterable[rows.Authority]) -> None:
        """Take what may change of authorities while we run from their rows: whether they issue, and what follows."""
        for row in found:
            known = self.authorities.get(row.name)
            facts = {name: getattr(row, name) for name in _CHANGING}
            if known is not None and any(getattr(known, name) != value for name, value in facts.items()):
                key = known.key if row.destroyed_at is None else None
                self.authorities[row.name] = dataclasses.replace(known, key=key, **facts)

    def by_issuer(self, n: int) -> Authority | None:
        """The authority that certificates with this issuer number belong to."""
        return next((authority for authority in self.authorities.values() if authority.n == n), None)

    def policy(self, profile: Profile, version: int) -> Policy:
        """The profile's version compiled for its authority's current issuer; kept, because versions never change."""
        authority = self.authority(profile.authority)
        kept = self._policies.get((profile.name, version, authority.n))
        if kept is None:
            kept = Policy(profile, version, authority.issuer)
            self._policies[profile.name, version, authority.n] = kept
        return kept

    def kept_policy(self, name: str, version: int, authority: str) -> Policy | None:
        """A policy that was compiled before, without asking the store for the profile's text."""
        found = self.authorities.get(authority)
        return None if found is None else self._policies.get((name, version, found.n))

    async def load_authorities(self) -> None:
        """Read every authority and load the keys of those that are online. A key that is not its certificate's is
        fatal (I-61). One that cannot be asked for now (a token that is away) is expected: nothing is signed until it is
        there and is the one, and all that needs no signature is served.
        """
        found, issuers, lab, gone = await self.db.read(_all_rows)
        self.authorities = load(found, issuers, self.key_store, self.pki_url, single_tier=lab, gone=gone)

    async def load_new(self) -> list[str]:
        """Load the authorities that this process does not know yet; their names. Those that it knows stay as they
        are.
        """
        found, issuers, lab, gone = await self.db.read(_all_rows)
        known = frozenset(self.authorities)
        fresh = load(found, issuers, self.key_store, self.pki_url, single_tier=lab, but=known, gone=gone)
        self.authorities |= fresh
        return list(fresh)


def _all_rows(
    conn: Connection,
) -> tuple[tuple[rows.Authority, ...], tuple[rows.IssuerRow, ...], Fact | None, frozenset[str]]:
    found = rows.list(conn)
    going = {row.name for row in found if facts.get(conn, DESTROYING + row.name) is not None}
    return found, rows.list_issuers(conn), facts.get(conn, SINGLE_TIER), frozenset(going)


def load(
    found: Iterable[rows.Authority],
    issuers: Iterable[rows.IssuerRow],
    key_store: Callable[[str], Backend],
    pki_url: str,
    *,
    single_tier: Fact | None = None,
    but: frozenset[str] = frozenset(),
    gone: frozenset[str] = frozenset(),
) -> dict[str, Authority]:
    """Authorities with their chains and keys, without those of the names in `but`. `single_tier` is the fact of that
    name; `gone` are the names of those whose keys are being destroyed: they are not asked for. An authority's newest
    issuer is its current one.

    Problem RW-CEREMONY for a root whose key is online, and for a chain of more than `MAX_CHAIN`.
    """
    current = {row.authority: row for row in sorted(issuers, key=lambda row: row.n)}
    certificates = {name: x509.load_der_x509_certificate(row.certificate) for name, row in current.items()}
    parents = {row.name: row.parent for row in found}
    loaded: dict[str, Authority] = {}
    for row in found:
        if row.name not in current or row.name in but:
            continue  # known, or not certified yet
        issuer = current[row.name]
        settings = settings_of(row)
        lab = single_tier is not None and is_lab(certificates[row.name])
        is_root = certificates[row.name].subject == certificates[row.name].issuer or row.kind == "root"
        if is_root and issuer.backend is not None and not lab:
            # Whatever wrote that row, and whatever kind it says: a root's key is never loaded by what serves (I-36). A
            # single-tier lab's root says in its own certificate that it is one, which no row can add to another root.
            raise Problem("RW-CEREMONY", f"The root {row.name} has an online key, which no installation may have.")
        chain, at = [certificates[row.name]], parents[row.name]
        while at is not None and len(chain) < MAX_CHAIN:
            chain.append(certificates[at])
            at = parents[at]
        if at is not None:
            # Whatever wrote these rows: a chain that is cut would lack what the CAs above forbid (I-46).
            raise Problem("RW-CEREMONY", f"There are more than {MAX_CHAIN} certificates from {row.name} to its root.")
        certified = Issuer(
            row.name,
            chain[0],
            tuple(chain),
            pki_url,
            online=issuer.backend is not None,
            # How its key signs is nowhere in its own certificate, which its parent signed.
            rsa_signature="pkcs1" if row.spec is None else read_spec(msgspec.json.decode(row.spec)).rsa_signature,
        )
        loaded[row.name] = Authority(
            name=row.name,
            kind=row.kind,
            issuer=certified,
            n=issuer.n,
            key=None
            if issuer.backend is None or row.destroyed_at is not None or row.name in gone
            else _key(key_store(issuer.backend), settings.key_label or row.name, certified),
            settings=settings,
            created_at=row.created_at,
            frozen_at=row.frozen_at,
            retired_at=row.retired_at,
            backend=issuer.backend,
            compromised_at=row.compromised_at,
            successor=row.successor,
            destroyed_at=row.destroyed_at,
        )
    return loaded


def settings_of(row: rows.Authority) -> AuthoritySettings:
    """What its row says."""
    return msgspec.json.decode(row.settings, type=AuthoritySettings)


def _key(store: Backend, label: str, issuer: Issuer) -> Key:
    try:
        return store.load(label, issuer.key_id)
    except Problem as problem:
        if problem.code != "RW-KEY-UNAVAILABLE":
            raise
        log.error("key.away", authority=issuer.authority, why=problem.detail)
        return store.expect(label, issuer.key)
