"""An installation for tests: a lab ceremony in this process, memory keys, and a store of either kind."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509

from rootward.ca import ceremony, founding, own
from rootward.ca.access import Caller, authenticate, new_token
from rootward.ca.installation import Installation
from rootward.ca.log import open_log
from rootward.ca.responder import Responder
from rootward.core.pubkey import KeyAlgorithm
from rootward.core.times import whole_second
from rootward.keys import BACKENDS, Backend, KeySettings, Sealer, kek_from_bytes
from rootward.store.db import open_database
from rootward.store.migrations import migrate
from tests.support.ceremonies import hold_lab

PKI_URL = "http://127.0.0.1:8080"
STORE = "cloud"  # the name of the one key store besides the installation's own, where there is one
SEALER = Sealer(kek_from_bytes(b"0123456789abcdef" * 4, "the tests' key"))


@dataclass
class Lab:
    """An open installation, its administrator's token and caller, and its responder."""

    inst: Installation
    token: str
    admin: Caller
    responder: Responder
    root: x509.Certificate


def memory_keys() -> Backend:
    return BACKENDS["memory"](KeySettings())


@asynccontextmanager
async def lab(
    url: str, *, home: Path | None = None, keys: Backend | None = None, store: Backend | None = None
) -> AsyncIterator[Lab]:
    """A founded installation over the empty database at `url`. `store` is where its issuing key lives, `keys` where all
    its others do.
    """
    db = open_database(url, home=home)
    try:
        db.write_sync(migrate)
        inst = Installation(
            db=db,
            keys=keys or memory_keys(),
            stores={} if store is None else {STORE: store},
            sealer=SEALER,
            pki_url=PKI_URL,
            external_url="https://localhost:8443",
            lab=True,
        )
        outcome = await found(inst, token := new_token(), store=None if store is None else STORE)
        await open_log(inst)
        own.register(inst)
        responder = Responder(inst)
        await responder.renew()
        admin = Caller(await authenticate(inst, token[0]), "req_test")
        yield Lab(inst, token[0], admin, responder, x509.load_der_x509_certificate(outcome.root))
    finally:
        db.close()


async def found(
    inst: Installation, token: tuple[str, bytes], *, ago: timedelta = timedelta(), store: str | None = None
) -> ceremony.Outcome:
    """Hold a lab ceremony with keys of this process, as if so long ago, and write the installation down. `store` names
    the key store of the issuing key; None: the installation's own.
    """
    backend = store or inst.keys.name
    key = inst.key_store(backend).generate("issuing", KeyAlgorithm.P256)
    at = whole_second(datetime.now(UTC) - ago)
    script, outcome = hold_lab(key, pki_url=inst.pki_url, at=at)
    await founding.found(inst, script, outcome, backend=backend, domains=(), token_hash=token[1])
    await founding.complete(inst, outcome)
    return outcome
