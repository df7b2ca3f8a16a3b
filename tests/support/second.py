"""A second issuing authority beside the one that an installation was founded with: with a root of its own, or under the
root of a lab.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from sqlalchemy import Connection

from rootward import home as homes
from rootward.ca import authorities as asking
from rootward.ca import certified, own
from rootward.ca.certified import Certified
from rootward.ca.founding import FOUNDER
from rootward.ca.installation import Installation
from rootward.ca.publish import publish
from rootward.ca.sign import sign
from rootward.core.authority import AuthoritySpec
from rootward.core.capture import assemble
from rootward.core.csr import parse_csr
from rootward.core.hierarchy import AuthorityPlan, plan_authority
from rootward.core.issuer import Issuer
from rootward.core.plan import make_serial
from rootward.core.pubkey import KeyAlgorithm
from rootward.keys import BACKENDS, Key, KeySettings, kek_from_passphrase_file
from rootward.store import authorities

ROOT = "other-root"
HOUR = timedelta(hours=1)


async def add_second(inst: Installation, name: str = "second", *, root: str = ROOT) -> None:
    """It is there, loaded, and has its CRL; its own certificate is not in the inventory."""
    at = inst.clock()
    key, root_key, root_der, der = _made(inst, name, root)
    rows = authorities.add(root, "root", parent=None, settings="{}", at=at)
    rows += authorities.add_issuer(root, key_id=root_key.public.id, certificate=root_der, backend=None, at=at)
    rows += authorities.add(name, "issuing", parent=root, settings="{}", at=at)
    rows += authorities.add_issuer(name, key_id=key.public.id, certificate=der, backend=inst.keys.name, at=at)
    await inst.db.write(rows)
    await _loaded(inst, name)


async def add_recorded(inst: Installation, name: str, *, root: str) -> None:
    """The same as a ceremony's result brings it, with both certificates in the inventory."""
    _, _, root_der, der = _made(inst, name, root)
    above, below = (x509.load_der_x509_certificate(data) for data in (root_der, der))

    def write(conn: Connection) -> None:
        certified.keep(conn, inst, Certified(root, "root", None, above), FOUNDER)
        certified.keep(conn, inst, Certified(name, "issuing", root, below, inst.keys.name), FOUNDER)

    await inst.db.write(write)
    await _loaded(inst, name)


def _made(inst: Installation, name: str, root: str) -> tuple[Key, Key, bytes, bytes]:
    at, key = inst.clock(), inst.keys.generate(name, KeyAlgorithm.P256)
    root_key = BACKENDS["memory"](KeySettings()).generate(root, KeyAlgorithm.P256)
    above = AuthoritySpec(name=root, kind="root", common_name=f"{root} CA", lifetime="10y", path_length=1)
    issuing = AuthoritySpec(name=name, kind="issuing", common_name=f"{name} CA", lifetime="5y")
    root_der = _certified(plan_authority(above, root_key.public, None), root_key, at - HOUR)
    certificate = x509.load_der_x509_certificate(root_der)
    issuer = Issuer(root, certificate, (certificate,), inst.pki_url, online=False)
    der = _certified(plan_authority(issuing, key.public, issuer), root_key, at - HOUR)
    return key, root_key, root_der, der


async def _loaded(inst: Installation, name: str) -> None:
    await inst.load_authorities()
    own.register(inst)
    await publish(inst, inst.authority(name))


def _certified(plan: AuthorityPlan, key: Key, at: datetime) -> bytes:
    draft = plan.draft(make_serial(secrets.token_bytes(20)), at)
    return assemble(draft.tbs, draft.algorithm, sign(key, plan.signer, draft))


async def _sibling(home: Path, name: str) -> None:
    config = homes.read_config(home, os.environ)
    db = homes.open_store(config)
    try:
        inst = homes.installation(config, db, os.environ)
        await inst.load_authorities()
        own.register(inst)
        spec = AuthoritySpec(name=name, kind="issuing", common_name=f"Lab {name}", lifetime="5y")
        waiting = await asking.create(inst, spec, "root", inst.keys.name, FOUNDER)
        root, folder = inst.authority("root"), home / "offline-root"
        kek = kek_from_passphrase_file(folder / "passphrase")
        keys = BACKENDS["file"](KeySettings(folder=folder / "keys", kek=kek))
        ((label, key_id),) = keys.list()
        public = parse_csr(waiting.csr).public_key
        der = _certified(plan_authority(spec, public, root.issuer), keys.load(label, key_id), inst.clock())
        made = Certified(name, "issuing", "root", x509.load_der_x509_certificate(der), inst.keys.name)
        await db.write(lambda conn: certified.keep(conn, inst, made, FOUNDER))
    finally:
        db.close()


def add_sibling(home: Path, name: str) -> None:
    """An issuing authority under the lab's own root, in the home of a server that is stopped. It is asked for as ever;
    the root's key signs it here.
    """
    asyncio.run(_sibling(home, name))
