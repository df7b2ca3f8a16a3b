"""Secrets that every replica of an installation has and nobody else: random, made once, sealed in the store.

Whoever changes the KEK seals them anew with it (`reseal`), as the key files.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from datetime import datetime
from typing import Final

from sqlalchemy import Connection

from rootward.ca.bindings import purpose_of
from rootward.ca.installation import Installation
from rootward.core.problems import Problem
from rootward.keys import Sealer
from rootward.store import bindings, facts, seals

SHARED: Final = ("acme.nonce-key",)  # names of facts; what such a secret is for
_BYTES: Final = 32


async def shared(inst: Installation, name: str) -> bytes:
    """The secret of one of the names in `SHARED`, made where there is none. Problem RW-KEK where it does not open."""
    if name not in SHARED:
        raise ValueError(f"{name} is not in SHARED")
    found = await inst.db.look(lambda conn: facts.get(conn, name))
    if found is None:

        def make(conn: Connection) -> None:
            seals.sealing(conn)
            sealed = inst.sealer.seal(inst.random(_BYTES), purpose=name)
            facts.put_once(name, at=inst.clock(), data=b64encode(sealed).decode()).run(conn)

        await inst.db.write(make)
        found = await inst.db.look(lambda conn: facts.get(conn, name))  # another replica may have been first
    if found is None:
        raise Problem("RW-STORE", "The store does not have what was written to it.")
    return inst.sealer.unseal(b64decode(found.data), purpose=name)


def reseal(conn: Connection, *, old: Sealer, new: Sealer, at: datetime) -> int:
    """Seal every secret in the store with `new` instead of `old`, in the caller's transaction; how many there are now.
    What `new` opens already is left alone.

    Problem RW-KEK for one that neither opens; then nothing is changed.
    """
    seals.alone(conn)
    count = 0
    for name in SHARED:
        fact = facts.get(conn, name)
        if fact is not None:
            count += 1
            if not new.opens(b64decode(fact.data)):
                sealed = new.seal(old.unseal(b64decode(fact.data), purpose=name), purpose=name)
                facts.put(name, at=at, data=b64encode(sealed).decode()).run(conn)
    for id, secret in bindings.secrets(conn):
        count += 1
        if not new.opens(secret):
            purpose = purpose_of(id)
            bindings.set_secret(id, new.seal(old.unseal(secret, purpose=purpose), purpose=purpose)).run(conn)
    return count


def left(conn: Connection, *, new: Sealer) -> int:
    """How many secrets in the store `new` does not open."""
    held = [b64decode(fact.data) for name in SHARED if (fact := facts.get(conn, name)) is not None]
    return sum(not new.opens(data) for data in (*held, *(secret for _, secret in bindings.secrets(conn))))
