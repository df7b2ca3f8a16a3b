"""A signer whose key is in a token: the token signs, and neither host has a key's file."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509

from rootward import keys
from rootward.ca import publish, revoke
from rootward.ca.issue import issue
from rootward.core.problems import Problem
from rootward.core.revocation import RevocationReason
from tests.support.signer import signer_home, signer_lab
from tests.support.softhsm import PIN, SoftToken, soft_token
from tests.support.world import ask, issued


@pytest.fixture
def token() -> Iterator[SoftToken]:
    with soft_token() as made:
        yield made


async def test_it_issues_and_revokes_and_goes_on_after_its_death(token: SoftToken, tmp_path: Path) -> None:
    with signer_lab(tmp_path, token=token) as lab:
        found = issued(await issue(lab.inst, ask("a.internal"), lab.admin))
        await revoke.revoke(lab.inst, found.id, RevocationReason.SUPERSEDED, lab.admin)
        listed = x509.load_der_x509_crl((await publish.publish(lab.inst, lab.inst.authority("issuing"))).der)
        assert [one.serial_number for one in listed] == [int.from_bytes(found.serial)]
        lab.signer.stop(signal.SIGKILL)
        with pytest.raises(Problem) as caught:
            await issue(lab.inst, ask("b.internal"), lab.admin)
        assert caught.value.code == "RW-KEY-UNAVAILABLE"
        lab.signer.start()
        issued(await issue(lab.inst, ask("c.internal"), lab.admin))
        assert not (lab.signer.home / "keys").exists()
        inside = keys.BACKENDS["pkcs11"](token.settings).list()
        assert inside == [("issuing", lab.inst.authority("issuing").issuer.key_id)]
        assert PIN not in lab.signer.log


def test_with_a_wrong_pin_it_does_not_start_and_says_which_token(token: SoftToken, tmp_path: Path) -> None:
    with signer_home(tmp_path, token=token) as made:
        (made.home / "pin").write_text("not-the-pin")
        with pytest.raises(AssertionError, match="refused its PIN"):
            made.start()
        assert made.ended() == 1
        assert f"token={token.label}" in made.log
        assert "not-the-pin" not in made.log
