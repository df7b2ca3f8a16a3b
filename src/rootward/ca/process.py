"""What one process alone knows and does: a second process has its own, and nothing here is a truth.

Whatever must be known after a restart, or by another process, is in the store.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from rootward.core.problems import Problem
from rootward.store.authorities import Crl

if TYPE_CHECKING:
    from rootward.ca.access import Bearer


@dataclass(frozen=True)
class KekChange:
    """A change of the key-encryption key that goes on, by ids. `over`: nothing needs the old one any more."""

    old: str
    new: str
    since: datetime
    over: bool = False


@dataclass
class Process:
    """Part of an `Installation`; empty when it is opened."""

    # Certificates whose intent this process holds and is still working on; the reconciler leaves them alone.
    in_flight: set[str] = field(default_factory=set)
    # How many exports are being made.
    exports: int = 0
    # Why nothing is issued at all, by what found it ("log", "clock"); revocation, CRLs and OCSP go on (I-61).
    halted: dict[str, Problem] = field(default_factory=dict)
    # Asked before each issuance: what stops all issuing at this very moment (the clock leapt, the disk is nearly full).
    stops: dict[str, Callable[[], Problem | None]] = field(default_factory=dict)
    # Authorities that issue nothing more from here, whether or not the store could be told (ca/freeze.py).
    stopped: set[str] = field(default_factory=set)
    # How many revocations, holds and releases this process told somebody of: it never says less than that (reading.py).
    told: int = 0
    # Principals of tokens by the token's hash, each under the count of changes to people (ca/access.py).
    bearers: dict[bytes, Bearer] = field(default_factory=dict)
    # The newest CRL of each issuer that this process has seen; served only while the store names the same number.
    crls: dict[int, Crl] = field(default_factory=dict)
    # How this process answers an OCSP request of an authority (DER in, DER out), once it has a responder.
    ocsp: Callable[[str, bytes], Awaitable[bytes]] | None = None
    # Has a living responder certificate for each online authority made, once this process has responders.
    renew_responders: Callable[[], Awaitable[None]] | None = None
    # When the certificates end that this process shows of itself: its responders' and its TLS one, by label.
    own_ends: dict[str, datetime] = field(default_factory=dict)
    # Local jobs of this process that fail now, and why.
    failing: dict[str, str] = field(default_factory=dict)
    # The change of the KEK that goes on, as this process saw it last.
    kek: KekChange | None = None
    # What this process could not do lately, with the time of the last one, and why; what matters longer is a fact.
    troubles: dict[str, tuple[datetime, str]] = field(default_factory=dict)

    def halts(self) -> dict[str, Problem]:
        """Everything that stops all issuing now, by what found it."""
        now = {name: problem for name, stop in self.stops.items() if (problem := stop()) is not None}
        return now | self.halted

    def check_halted(self) -> None:
        """The first Problem of those that stop all issuing, raised anew; nothing where there is none."""
        for problem in self.halts().values():
            raise Problem(problem.code, problem.detail, retry_after=problem.retry_after)
