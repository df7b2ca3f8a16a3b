"""One installation, open: its store, its authorities with their keys, its clock. What every verb of this layer takes
first.

Nothing in here is a truth of its own: authorities and policies are read from the store and kept by version, so that a
second process that does the same sees the same.
"""

from __future__ import annotations

import dataclasses
import secrets
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import msgspec
from cryptography import x509

from rootward.core.issuer import Issuer
from rootward.core.plan import Policy, Serial, make_serial
from rootward.core.problems import Problem
from rootward.core.profile import Profile
from rootward.core.times import parse_duration, whole_second
from rootward.keys import Backend, Key
from rootward.store import authorities as rows
from rootward.store.db import Database

if TYPE_CHECKING:
    from rootward.ca.access import Bearer
    from rootward.ca.log import Log

# How long a revocation may take to be seen by those who ask us (T_rev of the invariants).
PROMISE = timedelta(seconds=60)


class AuthoritySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Durations as `24h`: how long a CRL, an OCSP answer and a responder's certificate are valid."""

    crl: str = "24h"
    ocsp: str = "1h"
    responder: str = "48h"


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

    @property
    def state(self) -> str:
        """active, frozen (issues nothing now), retired (never again), or offline (its key is nowhere near)."""
        if self.retired_at is not None:
            return "retired"
        if self.frozen_at is not None:
            return "frozen"
        return "active" if self.key is not None else "offline"

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
    hosts: tuple[str, ...] = ("localhost", "127.0.0.1")
    lab: bool = False
    clock: Callable[[], datetime] = field(default=lambda: whole_second(datetime.now(UTC)))
    random: Callable[[int], bytes] = secrets.token_bytes
    authorities: dict[str, Authority] = field(default_factory=dict)
    # Profiles that no door can name: the responders' and the server's own (ca/own.py).
    own_profiles: dict[str, Profile] = field(default_factory=dict)
    # Certificates whose intent this process holds and is still working on; the reconciler leaves them alone.
    in_flight: set[str] = field(default_factory=set)
    # The audit log's key and what was last seen of its tree; None until it was opened (ca/log.py).
    log: Log | None = None
    # How many exports are being made.
    exports: int = 0
    # Why nothing is issued at all, by what found it ("log", "clock"); revocation, CRLs and OCSP go on (I-61).
    halted: dict[str, Problem] = field(default_factory=dict)
    # How many revocations, holds and releases this process told somebody of: it never says less than that (reading.py).
    told: int = 0
    # Authorities that issue nothing more from here, whether or not the store could be told (ca/freeze.py).
    stopped: set[str] = field(default_factory=set)
    # Asked before each issuance: what stops all issuing at this very moment (the clock leapt, the disk is nearly full).
    stops: dict[str, Callable[[], Problem | None]] = field(default_factory=dict)
    # Principals of tokens by the token's hash, each under the count of changes to people (ca/access.py).
    bearers: dict[bytes, Bearer] = field(default_factory=dict)
    # The newest CRL of each issuer that this process has seen; served only while the store names the same number.
    crls: dict[int, rows.Crl] = field(default_factory=dict)
    # How this process answers an OCSP request of an authority (DER in, DER out), once it has a responder.
    ocsp: Callable[[str, bytes], Awaitable[bytes]] | None = None
    # When the certificates end that this process shows of itself: its responders' and its TLS one, by label.
    own_ends: dict[str, datetime] = field(default_factory=dict)
    # Local jobs of this process that fail now, and why.
    failing: dict[str, str] = field(default_factory=dict)
    # What this process could not do lately, with the time of the last one, and why; what matters longer is a fact.
    troubles: dict[str, tuple[datetime, str]] = field(default_factory=dict)
    _policies: dict[tuple[str, int, int], Policy] = field(default_factory=dict)

    def new_serial(self) -> Serial:
        return make_serial(self.random(20))

    def halts(self) -> dict[str, Problem]:
        """Everything that stops all issuing now, by what found it."""
        now = {name: problem for name, stop in self.stops.items() if (problem := stop()) is not None}
        return now | self.halted

    def check_halted(self) -> None:
        """The first Problem of those that stop all issuing, raised anew; nothing where there is none."""
        for problem in self.halts().values():
            raise Problem(problem.code, problem.detail, retry_after=problem.retry_after)

    def authority(self, name: str) -> Authority:
        """The authority of this name, or Problem RW-NOT-FOUND."""
        found = self.authorities.get(name)
        if found is None:
            raise Problem("RW-NOT-FOUND", "There is no such authority.")
        return found

    def learn(self, found: Iterable[rows.Authority]) -> None:
        """Take what may change of authorities while we run from their rows: whether they issue."""
        for row in found:
            known = self.authorities.get(row.name)
            if known is not None and (known.frozen_at, known.retired_at) != (row.frozen_at, row.retired_at):
                self.authorities[row.name] = dataclasses.replace(
                    known, frozen_at=row.frozen_at, retired_at=row.retired_at
                )

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
        fatal (I-61).
        """
        found, issuers = await self.db.read(lambda conn: (rows.list(conn), rows.list_issuers(conn)))
        self.authorities = load(found, issuers, self.keys, self.pki_url)


def load(
    found: Iterable[rows.Authority], issuers: Iterable[rows.IssuerRow], keys: Backend, pki_url: str
) -> dict[str, Authority]:
    """Authorities with their chains and keys. An authority's newest issuer is its current one."""
    current = {row.authority: row for row in sorted(issuers, key=lambda row: row.n)}
    certificates = {name: x509.load_der_x509_certificate(row.certificate) for name, row in current.items()}
    parents = {row.name: row.parent for row in found}
    loaded: dict[str, Authority] = {}
    for row in found:
        if row.name not in current:
            continue  # planned, and not certified yet
        issuer = current[row.name]
        if row.kind == "root" and issuer.backend is not None:
            # Whatever wrote that row: a root's key is never loaded by what serves (I-36).
            raise Problem("RW-CEREMONY", f"The root {row.name} has an online key, which no installation may have.")
        chain, at = [certificates[row.name]], parents[row.name]
        while at is not None and len(chain) < 8:
            chain.append(certificates[at])
            at = parents[at]
        loaded[row.name] = Authority(
            name=row.name,
            kind=row.kind,
            issuer=Issuer(row.name, chain[0], tuple(chain), pki_url, online=issuer.backend is not None),
            n=issuer.n,
            key=None if issuer.backend is None else keys.load(row.name, issuer.key_id),
            settings=msgspec.json.decode(row.settings, type=AuthoritySettings),
            created_at=row.created_at,
            frozen_at=row.frozen_at,
            retired_at=row.retired_at,
        )
    return loaded
