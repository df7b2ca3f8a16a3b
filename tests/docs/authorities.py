"""Everything that happens to authorities by paper and by import, so that each of its events happens once at least."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from rootward.ca import adopt, authorities, cross, ending, results
from rootward.core import paperwork
from rootward.core.paperwork import Certified, SignedCrl
from rootward.core.revocation import RevocationReason
from rootward.fleet.imports import import_certificates
from rootward.keys.incoming import Incoming
from tests.support.authority import DER, Authority
from tests.support.installation import Lab
from tests.support.room import ANNA, BEN, Room, root_spec, spec

CARL = ("carl", "c" * 64)


async def everything_of_authorities(made: Lab) -> None:
    """All of it, under roots of its own."""
    inst, admin, room = made.inst, made.admin, Room(lab=True)

    async def bring(*parts: Certified | SignedCrl, **changes: Any) -> None:
        result = room.result(*parts)
        vouched = room.vouched(result, ANNA, BEN, CARL, **changes)
        await results.take_in(inst, result, paperwork.write(result), vouched, admin)

    await bring(room.make(root_spec("paper-root")), room.crl("paper-root"))
    await authorities.create(inst, spec("paper"), "paper-root", inst.keys.name, admin)
    _, asked = await authorities.request(inst, "paper")
    await bring(room.certify(asked.body))
    await bring(room.make(root_spec("next-root")), room.crl("next-root"))
    await cross.ask(inst, "next-root", "paper-root", admin)
    await cross.withdraw(inst, "next-root", "paper-root", admin)
    await bring(room.cross((await cross.ask(inst, "next-root", "paper-root", admin)).body))
    await authorities.create(inst, spec("mistake"), "paper-root", inst.keys.name, admin)
    await authorities.withdraw(inst, "mistake", admin)
    await bring(room.make(root_spec("gone-root")), room.crl("gone-root", 1, lifetime=timedelta(days=4000)))
    await bring(destroyed=frozenset({room.issuers["gone-root"].key_id}))
    await bring(room.crl("gone-root", 2))
    await results.forget(inst, CARL[0], admin)
    await ending.revoke(inst, "paper", RevocationReason.CESSATION_OF_OPERATION, admin)
    root = Authority("Old root")
    old = Authority("Old issuing", root, path_length=0)
    leaf = old.leaf("a.internal")
    arriving = adopt.Arriving(
        "old",
        (old.certificate, root.certificate),
        key=Incoming(old.key, ()),
        parents=("old-root",),
        crl=old.crl(4711),
        inventory=(leaf.public_bytes(DER),),
    )
    done = await adopt.adopt(inst, arriving, admin)
    assert (done.authorities, done.certificates, done.unknown) == (("old-root", "old"), 1, 1)
    late = old.leaf("b.internal", serial=4711).public_bytes(DER)
    await import_certificates(inst, lambda: late, password=None, owner=None, labels={}, caller=admin)
