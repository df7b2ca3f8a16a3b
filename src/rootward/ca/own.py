"""Certificates that the installation needs for itself: OCSP responders and its own TLS. They come by the one road
like all others.

Their profiles (`core/own.py`) are not in the store, and are registered under names that no door can spell (a colon is
in none); so nobody can enrol for OCSP signing (I-32). A key is kept by the backend under its label and belongs to the
newest living certificate that names it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

import structlog
from cryptography import x509
from sqlalchemy import Connection

from rootward.ca.access import system_caller
from rootward.ca.installation import Authority, Installation
from rootward.ca.issue import Ask, Issued, issue
from rootward.ca.sign import sign_soon
from rootward.core.csr import parse_csr
from rootward.core.csr_draft import draft_csr, finish_csr
from rootward.core.own import responder_profile, tls_profile
from rootward.core.problems import Problem
from rootward.core.pubkey import KeyAlgorithm
from rootward.keys import TLS_LABEL, Key
from rootward.store import certificates
from rootward.store.certificates import Certificate
from rootward.store.failpoint import failpoint

log = structlog.get_logger()
TLS = TLS_LABEL


@dataclass(frozen=True)
class Own:
    """A key of ours and the certificate that makes it usable. `renew_at` is half of its life."""

    key: Key
    certificate: x509.Certificate
    row: Certificate

    @property
    def begins(self) -> datetime:
        """From when on it is valid; later than now where a clock that ran ahead was put right."""
        return self.row.not_before

    @property
    def renew_at(self) -> datetime:
        """From when on a new one takes its place."""
        return _half(self.row)


def register(inst: Installation) -> None:
    """Make the profiles of this module known to the road."""
    for authority in inst.authorities.values():
        if authority.key is not None:
            inst.own_profiles[f"ocsp:{authority.name}"] = responder_profile(
                authority.name, authority.settings.responder, authority.issuer.rsa_signature
            )
    tls = tls_authority(inst)
    inst.own_profiles[f"tls:{TLS}"] = tls_profile(tls.name, inst.hosts, tls.issuer.rsa_signature)


def tls_authority(inst: Installation) -> Authority:
    """The authority that certifies the server itself: the first online one, `issuing` if there is one of that name, and
    what follows where that one never issues again.
    """
    online = sorted(name for name, authority in inst.authorities.items() if authority.key is not None)
    online = [name for name in online if inst.authority(name).retired_at is None] or online
    if not online:
        raise Problem(
            "RW-CONFLICT",
            "This installation has no online authority yet, so there is nothing to serve: rootward ca create asks for "
            "one, and rootward ceremony import takes the ceremony's result in. rootward quickstart makes a lab's home.",
        )
    first = inst.authorities.get("issuing")
    follower = None if first is None else first.successor
    return inst.authority(next((name for name in ("issuing", follower) if name in online), online[0]))


async def obtain(inst: Installation, profile: str, label: str) -> Own:
    """The key and certificate for `label`, as kept, or made anew where there is none that lives for half of its life
    yet.

    `profile` is a name in `inst.own_profiles`. Keys under the label that nobody would keep so are deleted.
    """
    kept = await _kept(inst, profile, label)
    if kept is not None:
        inst.process.own_ends[label] = kept.row.not_after
    if kept is not None and kept.begins <= inst.clock() < kept.renew_at and _fits(inst, profile, kept.row):
        return kept
    made = await _make(inst, profile, label)
    inst.process.own_ends[label] = made.row.not_after
    # Replicas that share their keys renew at the same time. If each deleted what the other one made, neither key would
    # be there for the next start, which might find no authority to certify another.
    needed = {made.key.public.id} | {
        row.key_id
        for row in await _living(inst, profile, label)
        if row.not_before <= inst.clock() < _half(row) and _fits(inst, profile, row)
    }
    for key_label, key_id in inst.keys.list():
        if key_label == label and key_id not in needed:
            with _if_there():
                inst.keys.delete(label, key_id)
            failpoint("own.key-deleted")
    return made


async def standing(inst: Installation, profile: str, label: str) -> Own | None:
    """The kept one, where it is valid now, also in the second half of its life: for a start at which no new one can be
    had, because the authority's key is away.
    """
    kept = await _kept(inst, profile, label)
    if kept is None or not kept.begins <= inst.clock() < kept.row.not_after or not _fits(inst, profile, kept.row):
        return None
    return kept


@contextmanager
def _if_there() -> Iterator[None]:
    """Replicas may share their keys: one that another of them deleted a moment ago is gone, and that is all."""
    try:
        yield
    except Problem as problem:
        if problem.code != "RW-KEY-MISSING":
            raise


async def _kept(inst: Installation, profile: str, label: str) -> Own | None:
    found = await _living(inst, profile, label)
    if not found:
        return None
    row = max(found, key=lambda row: row.not_after)
    with _if_there():
        return Own(inst.keys.load(label, row.key_id), _certificate(row), row)
    return None


async def _living(inst: Installation, profile: str, label: str) -> list[Certificate]:
    """The certificates that are valid, of the keys under the label."""
    name = inst.own_profiles[profile].name
    now = inst.clock()
    ids = [key_id for key_label, key_id in inst.keys.list() if key_label == label]

    def living(conn: Connection) -> list[Certificate]:
        ours = [row for key_id in ids for row in certificates.by_key(conn, key_id) if row.profile == name]
        return [row for row in ours if row.issued_at is not None and row.status(now) == "active"]

    return await inst.db.read(living) if ids else []


def _half(row: Certificate) -> datetime:
    return row.not_before + (row.not_after - row.not_before) / 2


def _fits(inst: Installation, profile: str, row: Certificate) -> bool:
    """Whether a certificate still says what its profile says now: same issuer, same names."""
    current = inst.own_profiles[profile]
    same_issuer = row.issuer == inst.authority(current.authority).n
    return same_issuer and (current.names.source != "fixed" or set(row.names) == set(current.names.fixed))


async def _make(inst: Installation, profile: str, label: str) -> Own:
    key = inst.keys.generate(label, KeyAlgorithm.P256)
    failpoint("own.key-made")
    draft = draft_csr(key.public)
    csr = parse_csr(finish_csr(draft, await sign_soon(key, key.public, draft)))
    failpoint("own.csr-made")
    issued = await issue(inst, Ask(profile, csr), system_caller(label))
    failpoint("own.certified")
    if not isinstance(issued, Issued):
        raise Problem("RW-INTERNAL", "A certificate of our own waits for a person.")
    log.info("own.issued", label=label, certificate=issued.certificate.id)
    return Own(key, _certificate(issued.certificate), issued.certificate)


def _certificate(row: Certificate) -> x509.Certificate:
    if row.der is None:
        raise Problem("RW-INTERNAL", "A certificate of our own has no signature.")
    return x509.load_der_x509_certificate(row.der)
