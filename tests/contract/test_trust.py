"""`root.pem` in the home of a running server has what `/roots.pem` serves, and the commands of that machine trust what
it has. A new root is in it before the server's own chain goes over to it, and a compromised one leaves after that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog
from cryptography import x509

from rootward.ca import acts, compromise
from rootward.ca.access import Caller
from rootward.home import keep_roots
from rootward.protocols.tls import TlsIdentity
from rootward.server import Tls
from tests.support.second import ROOT, add_second
from tests.support.world import APPROVER, ISSUING, World

OLD = "root"
NEW = "second"
QUARTER = timedelta(hours=6)


def trusted(home: Path) -> list[x509.Certificate]:
    """What the commands of this machine trust."""
    return x509.load_pem_x509_certificates((home / "root.pem").read_bytes())


@pytest.fixture
def goes_over(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[], list[list[x509.Certificate]]]:
    """What was trusted each time that a new chain was about to be shown; the list of it."""
    seen: list[list[x509.Certificate]] = []
    original = TlsIdentity.replace

    def looked(self: TlsIdentity, chain: str, key: Any) -> None:
        seen.append(trusted(tmp_path))
        original(self, chain, key)

    monkeypatch.setattr(TlsIdentity, "replace", looked)
    return lambda: seen


def root(lab: World, name: str) -> x509.Certificate:
    return lab.inst.authority(name).issuer.certificate


async def say(lab: World, bob: Caller, name: str, successor: str | None) -> None:
    made = await compromise.propose(lab.inst, name, successor, "the safe was opened", None, lab.admin)
    assert (await acts.approve(lab.inst, made.id, None, bob)).status(lab.clock()) == "done"


async def test_a_new_root_is_trusted_before_the_chain_goes_over_and_the_old_one_until_then(
    lab: World, tmp_path: Path, goes_over: Callable[[], list[list[x509.Certificate]]]
) -> None:
    tls = await Tls.begin(lab.inst, tmp_path)
    bob = await lab.person("bob", APPROVER)
    assert trusted(tmp_path) == [root(lab, OLD)]
    await add_second(lab.inst, NEW)  # as a ceremony's result brings it
    lab.clock.move(QUARTER)
    await tls.renew(lab.inst)
    both = {root(lab, OLD), root(lab, ROOT)}
    assert set(trusted(tmp_path)) == both
    assert goes_over() == []
    await say(lab, bob, ISSUING, NEW)
    await say(lab, bob, OLD, None)
    assert [one.certificate for one in lab.inst.roots()] == [root(lab, ROOT)]
    lab.clock.move(QUARTER)
    await tls.renew(lab.inst)
    assert [set(seen) for seen in goes_over()] == [both, both]  # the two listeners
    assert set(trusted(tmp_path)) == both
    await tls.renew(lab.inst)
    assert trusted(tmp_path) == [root(lab, ROOT)]
    assert len(goes_over()) == 2


async def test_a_new_root_is_trusted_first_also_where_both_come_at_once(
    lab: World, tmp_path: Path, goes_over: Callable[[], list[list[x509.Certificate]]]
) -> None:
    tls = await Tls.begin(lab.inst, tmp_path)
    bob = await lab.person("bob", APPROVER)
    await add_second(lab.inst, NEW)
    await say(lab, bob, ISSUING, NEW)
    await tls.renew(lab.inst)
    assert [set(seen) for seen in goes_over()] == [{root(lab, OLD), root(lab, ROOT)}] * 2


async def test_what_fits_is_not_written_again(lab: World, tmp_path: Path) -> None:
    tls = await Tls.begin(lab.inst, tmp_path)
    assert (tmp_path / "root.pem").stat().st_mode & 0o777 == 0o644
    before = (tmp_path / "root.pem").stat().st_ino
    lab.clock.move(timedelta(days=20))  # over half of the server's certificate
    await tls.renew(lab.inst)
    assert (tmp_path / "root.pem").stat().st_ino == before
    (tmp_path / "root.pem").unlink()  # as if a founding had been cut off right after it counted
    await tls.renew(lab.inst)
    assert trusted(tmp_path) == [root(lab, OLD)]


async def test_the_last_root_stays(lab: World, tmp_path: Path) -> None:
    keep_roots(lab.inst, tmp_path)
    old = lab.inst.authority(OLD)
    lab.inst.authorities[OLD] = replace(old, compromised_at=lab.clock())
    assert lab.inst.roots() == []
    assert not keep_roots(lab.inst, tmp_path)
    assert trusted(tmp_path) == [root(lab, OLD)]
    await Tls.begin(lab.inst, tmp_path)  # what is shown is under it
    assert trusted(tmp_path) == [root(lab, OLD)]


async def test_a_home_that_cannot_be_written_is_said_once_and_the_chain_goes_over(lab: World, tmp_path: Path) -> None:
    with structlog.testing.capture_logs() as lines:
        tls = await Tls.begin(lab.inst, tmp_path / "nowhere")
        bob = await lab.person("bob", APPROVER)
        await add_second(lab.inst, NEW)
        await say(lab, bob, ISSUING, NEW)
        await tls.renew(lab.inst)
    assert [one["event"] for one in lines if one["event"].startswith(("roots.", "tls."))] == [
        "roots.not-written",
        "tls.replaced",
    ]
    assert str(tmp_path / "nowhere" / "root.pem") in [one.get("path") for one in lines]
