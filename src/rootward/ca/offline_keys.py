"""The end of an offline authority's key, as ceremonies tell of it: which keys a script destroyed, when that counts as
the end of the key, and what shows that it was not. The key of an online authority ends by `destruction.py`.
"""

from __future__ import annotations

from datetime import datetime

from cryptography import x509
from sqlalchemy import Connection

from rootward.ca import paper
from rootward.ca.access import Caller
from rootward.ca.paper import CRL
from rootward.core.pubkey import certificate_key
from rootward.core.script import BackUpKey, ChangeCustodians, DestroyKey, MakeKey, Script
from rootward.core.times import rfc3339
from rootward.store import authorities as rows
from rootward.store import events, succession
from rootward.store import paperwork as papers


def destroyed(script: Script) -> frozenset[str]:
    """The public keys that a step destroyed, but for those with another place in the script, or a copy or new shares
    made in it: of these one copy went, and the key is there.
    """
    public = {
        one.key: certificate_key(x509.load_pem_x509_certificates(one.certificate.encode())[0]).id
        for one in script.authorities.values()
    }
    public |= {one.key: one.public for one in script.steps if isinstance(one, DestroyKey)}
    gone = {one.key for one in script.steps if isinstance(one, DestroyKey)}
    made = {one.key for one in script.steps if isinstance(one, MakeKey)}
    kept = {one.key for one in script.steps if isinstance(one, BackUpKey | ChangeCustodians)}
    left = (script.keys.keys() - gone - made) | kept
    found = {public[name] for name in gone}
    return frozenset(key for key in found if all(public.get(name, key) != key for name in left))


def note_found(conn: Connection, name: str, id: str, held_at: datetime, caller: Caller, now: datetime) -> None:
    """A key that was counted as destroyed has signed in no earlier ceremony: a copy is there, and so is its CRL."""
    row = rows.by_name(conn, name)
    if row is None or row.destroyed_at is None:
        return
    before = events.list(conn, events.Filters(kind="key.destroyed", authority=name), limit=1)
    held = papers.ceremony(conn, str(before[0].values()["ceremony"])) if before else None
    if held is None or held_at < held.held_at:
        return
    succession.found(name).run(conn)
    events.record(
        "key.found",
        actor=caller.principal.id,
        authority=name,
        request_id=caller.request_id,
        data={"ceremony": id, "destroyed_at": rfc3339(row.destroyed_at)},
        at=now,
    ).run(conn)


def note_destroyed(conn: Connection, key: str, id: str, by: list[str], caller: Caller, now: datetime) -> None:
    """The key of an offline authority is no more, where nothing can need another CRL of it: its last one lasts as long
    as its certificate and all under it, or it is compromised. Else one copy of several was destroyed, or it was too
    early: either way there must be a next CRL, and people must hear of it.
    """
    issuer = rows.issuer_by_key(conn, key)
    row = None if issuer is None else rows.by_name(conn, issuer.authority)
    if issuer is None or row is None or issuer.backend is not None or row.destroyed_at is not None:
        return
    last, head = succession.last_child(conn, row.name, now, but=key), rows.crl_head(conn, issuer.n)
    own = x509.load_der_x509_certificate(issuer.certificate).not_valid_after_utc
    end = max(own, own if last is None else last)
    covered = end < now or (head is not None and head.next_update >= end)
    if not covered and row.compromised_at is None:
        return
    rows.wait_for_intents(conn, row.name)
    rows.destroy(row.name, at=now).run(conn)
    papers.withdraw(CRL, row.name, row.name, at=now).run(conn)
    paper.give_up_crosses(conn, row.name, caller, now)
    data: dict[str, object] = {
        "key": key,
        "label": None,
        "key_store": None,
        "backend": None,
        "by": by,
        "proposal": None,
        "ceremony": id,
        "how": "in a ceremony, as its transcript says",
    }
    events.record(
        "key.destroyed",
        actor=caller.principal.id,
        authority=row.name,
        request_id=caller.request_id,
        data=data,
        at=now,
    ).run(conn)
