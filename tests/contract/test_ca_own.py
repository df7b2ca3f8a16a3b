"""The installation's own certificates on both stores: by the one road, renewed in time, and nobody else's."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from rootward.ca import freeze, own
from rootward.ca.access import SYSTEM
from rootward.ca.installation import Installation
from rootward.ca.own import TLS, obtain
from rootward.ca.revoke import revoke
from rootward.core.revocation import Good, RevocationReason
from rootward.keys.backend import Listing
from tests.support.world import ISSUING, World, refused

PROFILE = f"tls:{TLS}"


@pytest.mark.invariant("I-40", "I-56")
async def test_our_own_tls_certificate_comes_by_the_same_road(lab: World) -> None:
    made = await obtain(lab.inst, PROFILE, TLS)
    row = await lab.row(made.row.id)
    assert (row.profile, row.profile_version, row.requester, row.authority) == (TLS, 0, SYSTEM, ISSUING)
    assert [event.kind for event in await lab.events(certificate=row.id)] == ["issue.intended", "issue.done"]
    assert set(row.names) == {"dns:localhost", "ip:127.0.0.1"}
    usage = made.certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert made.key.public.id == row.key_id
    assert await lab.status(row.serial) == Good()


async def test_it_is_kept_until_half_of_its_life(lab: World) -> None:
    first = await obtain(lab.inst, PROFILE, TLS)
    assert (await obtain(lab.inst, PROFILE, TLS)).row.id == first.row.id
    lab.clock.now = first.renew_at - timedelta(seconds=1)
    assert (await obtain(lab.inst, PROFILE, TLS)).row.id == first.row.id
    lab.clock.now = first.renew_at
    second = await obtain(lab.inst, PROFILE, TLS)
    assert second.row.id != first.row.id
    assert second.key.public.id != first.key.public.id
    labels = [key_id for label, key_id in lab.inst.keys.list() if label == TLS]
    assert labels == [second.key.public.id]
    await lab.responder.renew()
    assert await lab.status(first.row.serial) == Good()  # the old one is not revoked by that


async def test_other_names_or_a_revocation_ask_for_a_new_one(lab: World) -> None:
    first = await obtain(lab.inst, PROFILE, TLS)
    await revoke(lab.inst, first.row.id, RevocationReason.SUPERSEDED, lab.admin)
    second = await obtain(lab.inst, PROFILE, TLS)
    assert second.row.id != first.row.id
    lab.inst.hosts = ("pki.internal", "10.0.0.1")
    own.register(lab.inst)
    lab.inst._policies.clear()  # as after a restart: hosts are read at start
    third = await obtain(lab.inst, PROFILE, TLS)
    assert set(third.row.names) == {"dns:pki.internal", "ip:10.0.0.1"}


async def test_a_key_that_is_gone_is_made_anew(lab: World) -> None:
    first = await obtain(lab.inst, PROFILE, TLS)
    lab.inst.keys.delete(TLS, first.key.public.id)
    assert (await obtain(lab.inst, PROFILE, TLS)).row.id != first.row.id


async def test_a_frozen_authority_certifies_its_responder_and_no_server(lab: World) -> None:
    await freeze.freeze(lab.inst, ISSUING, "test", lab.admin)
    assert await refused(obtain(lab.inst, PROFILE, TLS)) == "RW-FROZEN"
    lab.clock.move(timedelta(hours=30))
    assert (await obtain(lab.inst, f"ocsp:{ISSUING}", f"ocsp-{ISSUING}")).row.profile == "ocsp-responder"


@pytest.mark.invariant("I-36")
async def test_the_root_has_no_key_and_no_responder_here(lab: World) -> None:
    assert lab.inst.authority("root").key is None
    assert not any("root" in name for name in lab.inst.own_profiles if name != PROFILE)
    assert not any(label == "root" for label, _ in lab.inst.keys.list())
    assert own.tls_authority(lab.inst).name == ISSUING


async def test_a_key_that_another_replica_deleted_is_simply_gone(lab: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replicas that share their keys' folder renew at the same time: each finds keys that the other one deletes."""
    first = await obtain(lab.inst, PROFILE, TLS)
    real = lab.inst.keys.list

    def and_deleted() -> Listing:
        found = real()
        for label, key_id in found:
            if label == TLS:
                lab.inst.keys.delete(label, key_id)
        return found

    monkeypatch.setattr(lab.inst.keys, "list", and_deleted)
    second = await obtain(lab.inst, PROFILE, TLS)
    assert second.key.public.id != first.key.public.id
    assert second.row.key_id == second.key.public.id


async def test_replicas_that_renew_at_one_time_leave_keys(lab: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is certified before either of them deletes what it does not need."""
    first = await obtain(lab.inst, PROFILE, TLS)
    lab.clock.now = first.renew_at
    real, both = own._make, asyncio.Barrier(2)

    async def make(inst: Installation, profile: str, label: str) -> own.Own:
        made = await real(inst, profile, label)
        await both.wait()
        return made

    monkeypatch.setattr(own, "_make", make)
    made = await asyncio.gather(obtain(lab.inst, PROFILE, TLS), obtain(lab.inst, PROFILE, TLS))
    ids = {one.key.public.id for one in made}
    assert len(ids) == 2
    assert {key_id for label, key_id in lab.inst.keys.list() if label == TLS} == ids
    assert (await obtain(lab.inst, PROFILE, TLS)).key.public.id in ids
