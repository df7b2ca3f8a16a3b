"""A process dies in the middle of what is done about an authority; the home is opened again and the same is done again.
Nothing is lost, and nothing is there twice.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from rootward.ca import authorities, compromise, ending, people, proposals, publish, records, succession
from rootward.core.problems import Problem
from rootward.core.revocation import RevocationReason
from rootward.core.roles import Role
from rootward.fleet import calendar
from rootward.store import events
from rootward.store import paperwork as papers
from rootward.store.failpoint import NAMES
from tests.contract.test_adopt import list_of
from tests.faults import authorities as do
from tests.faults.authorities import NEXT
from tests.support.faults import AUTHORITY, Founder, Home, Open, books, killed, opened
from tests.support.room import Room, root_spec
from tests.support.second import ROOT, add_recorded
from tests.support.tiers import issuing, root
from tests.support.world import new_key

NOW, LATER = timedelta(), timedelta(days=4000)
PREFIXES = "authority ceremony compromise succeed succession retire propose agree disagree record ended drill".split()


def silent(_said: object) -> None:
    """Nobody hears."""


@dataclass
class Stage:
    """A home where `second` could follow `issuing`, and bob may agree."""

    home: Home
    bob: str

    def prepare(self, work: Callable[[Open], Awaitable[Any]]) -> Any:
        async def main() -> Any:
            async with opened(self.home) as made:
                return await work(made)

        return asyncio.run(main())

    def twice(self, place: str, act: Any, *given: object, refused: str | None = None) -> None:
        """Killed at `place`, then done again: as before, or refused with this code."""
        assert killed(self.home, act, *given, traps=f"{place}:kill") == []

        async def again(made: Open) -> None:
            if refused is None:
                await act(made, silent, *given)
                return
            with pytest.raises(Problem) as caught:
                await act(made, silent, *given)
            assert caught.value.code == refused

        self.prepare(again)

    def agreed(self, ask: Callable[[Open], Awaitable[Any]]) -> None:
        """What that proposes is agreed to and done."""
        id = self.proposed(ask)
        self.prepare(lambda made: do.approve(made, silent, id, self.bob))

    def proposed(self, ask: Callable[[Open], Awaitable[Any]]) -> str:
        return str(self.prepare(ask).id)

    def told(self, kind: str, times: int = 1) -> None:
        """There are so many events of that kind, and the books agree."""

        async def count(made: Open) -> int:
            await books(made.inst)
            return len(await made.inst.db.read(lambda conn: events.list(conn, events.Filters(kind=kind))))

        assert self.prepare(count) == times


@pytest.fixture(scope="module")
def ready(founder: Founder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Made once; each test has a copy."""
    with founder.home("sqlite", tmp_path_factory.mktemp("ready")) as home:

        async def fill() -> str:
            async with opened(home) as made:
                await add_recorded(made.inst, NEXT, root=ROOT)
                bob = await people.create_person(made.inst, "bob", made.admin)
                await people.create_grant(
                    made.inst,
                    principal_id=bob.id,
                    role=Role.APPROVER,
                    authority=None,
                    profile=None,
                    caller=made.admin,
                )
                return bob.id

        yield Stage(home, asyncio.run(fill()))


@pytest.fixture
def stage(ready: Stage, tmp_path: Path) -> Stage:
    shutil.copytree(ready.home.folder, tmp_path / "home")
    home = Home(f"sqlite:///{tmp_path}/home/rootward.db", tmp_path / "home", ready.home.token)
    return Stage(home, ready.bob)


def compromising(made: Open) -> Awaitable[Any]:
    return compromise.propose(made.inst, AUTHORITY, NEXT, "stolen", None, made.admin)


def succeeding(made: Open) -> Awaitable[Any]:
    return succession.propose(made.inst, AUTHORITY, NEXT, made.admin)


def retiring(made: Open) -> Awaitable[Any]:
    return succession.propose_retirement(made.inst, AUTHORITY, None, made.admin)


def key_made(stage: Stage, place: str) -> None:
    stage.twice(place, do.create, "third", "root")
    stage.told("authority.requested")
    waiting = stage.prepare(lambda made: authorities.waiting(made.inst))
    keys = [id for label, id in stage.home.keys().list() if label == "third"]
    assert [one.name for one in waiting] == ["third"]
    assert (waiting[0].key_id in keys, len(keys)) == (True, 2)


def withdrawn(stage: Stage, place: str) -> None:
    stage.prepare(lambda made: do.create(made, silent, "third", "root"))
    stage.twice(place, do.withdraw, "third", refused="RW-NOT-FOUND")
    stage.told("authority.withdrawn")
    stage.prepare(lambda made: do.create(made, silent, "third", "root"))
    assert len([one for one in stage.home.keys().list() if one[0] == "third"]) == 2


def installing(stage: Stage) -> tuple[str, bytes, str]:
    """`third` waits; what somebody else's CA made for it."""
    stage.prepare(lambda made: do.create(made, silent, "third", None))
    _, asked = stage.prepare(lambda made: authorities.request(made.inst, "third"))
    room = Room()
    room.make(root_spec("corp"))
    chain = room.certify(asked.body, by="corp").certificate + room.issuers["corp"].pem()
    return "third", chain.encode(), "corp"


def installed(stage: Stage, place: str) -> None:
    stage.twice(place, do.install, *installing(stage), refused="RW-NOT-FOUND")
    stage.told("authority.certified", 6)  # two each: the lab's, the second, and this one

    async def works(made: Open) -> None:
        assert made.inst.authority("third").state == "active"
        assert await publish.current_crl(made.inst, "third") is not None

    stage.prepare(works)


def imported(stage: Stage, place: str) -> None:
    room = Room()
    result = room.result(room.make(root_spec("root-2")), room.crl("root-2"))
    stage.twice(place, do.bring, result, room.vouched(result), refused="RW-CONFLICT")
    stage.told("ceremony.imported")
    assert stage.prepare(lambda made: publish.current_crl(made.inst, "root-2")) is not None


def requested(stage: Stage) -> None:
    """The parent's next ceremony is asked for its CRL, once, by the calendar at the latest."""

    async def ask(made: Open) -> Any:
        for _ in range(2):
            await calendar.remind(made.inst)
        return await made.inst.db.read(lambda conn: [papers.latest(conn, "crl", name) for name in (ROOT, "root")])

    assert any(stage.prepare(ask))
    stage.told("crl.requested")


def revoked(stage: Stage, place: str) -> None:
    reason = RevocationReason.CESSATION_OF_OPERATION
    id = stage.proposed(lambda made: ending.propose(made.inst, NEXT, reason, made.admin))
    stage.twice(place, do.approve, id, stage.bob)
    stage.told("authority.revoked")
    requested(stage)


def adopted(stage: Stage, place: str) -> None:
    tier = issuing(root("old-root"), "old")
    private: Any = tier.key._private
    at = datetime.now(UTC) - timedelta(hours=1)
    builder = x509.CertificateBuilder().issuer_name(tier.certificate.subject).subject_name(x509.Name([]))
    builder = builder.serial_number(77).not_valid_before(at).not_valid_after(at + timedelta(days=30))
    leaf = builder.public_key(new_key().public_key()).sign(private, hashes.SHA256())
    chain = tuple(one.public_bytes(Encoding.DER) for one in tier.issuer.chain)
    key = private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    stage.twice(place, do.come, chain, key, list_of(tier), (leaf.public_bytes(Encoding.DER),))
    stage.told("certificate.adopted", 2)  # one that the CRL alone knows, and the leaf
    stage.told("authority.adopted")
    assert stage.prepare(lambda made: publish.current_crl(made.inst, "old")) is not None


def compromised(stage: Stage, place: str) -> None:
    stage.twice(place, do.approve, stage.proposed(compromising), stage.bob)
    stage.told("authority.compromised")
    stage.told("proposal.carried-out")
    requested(stage)


def succeeded(stage: Stage, place: str) -> None:
    stage.twice(place, do.approve, stage.proposed(succeeding), stage.bob)
    stage.told("authority.succeeded")
    stage.told("proposal.carried-out")


def retired(stage: Stage, place: str) -> None:
    stage.agreed(succeeding)
    stage.twice(place, do.approve, stage.proposed(retiring), stage.bob)
    stage.told("authority.retired")


def taken_over(stage: Stage, place: str) -> None:
    given = installing(stage)
    stage.agreed(lambda made: compromise.propose(made.inst, AUTHORITY, "third", "stolen", None, made.admin))
    stage.told("authority.succeeded", 0)
    stage.prepare(lambda made: do.install(made, silent, *given))
    stage.twice(place, do.settle, NOW)
    stage.told("authority.succeeded")


def ended(stage: Stage, place: str) -> None:
    stage.agreed(succeeding)
    stage.agreed(retiring)
    stage.twice(place, do.settle, LATER)
    stage.told("authority.ended")


def drilled(stage: Stage, place: str) -> None:
    stage.twice(place, do.rehearse)
    stage.told("drill.held", 2)
    stage.told("authority.compromised", 0)


def proposed(stage: Stage, place: str) -> None:
    stage.twice(place, do.propose)
    stage.told("proposal.made")


def agreed(stage: Stage, place: str) -> None:
    stage.twice(place, do.approve, stage.proposed(compromising), stage.bob)
    for kind in ("proposal.approved", "proposal.carried-out", "authority.compromised"):
        stage.told(kind)


def failed(stage: Stage, place: str) -> None:
    body = {"successor": "nobody"}
    id = stage.proposed(lambda made: proposals.propose(made.inst, succession.SUCCEED, AUTHORITY, body, made.admin))
    stage.twice(place, do.approve, id, stage.bob, refused="RW-APPROVAL")
    stage.told("proposal.failed")


def denied(stage: Stage, place: str) -> None:
    stage.twice(place, do.deny, stage.proposed(compromising), stage.bob, refused="RW-APPROVAL")
    stage.told("proposal.denied")


def recorded(stage: Stage, place: str) -> None:
    folder = stage.home.folder

    async def keep(made: Open) -> None:
        records.keep(folder, "key.backed-up", AUTHORITY, key="ce" * 32, file="out", user="ada", at=made.inst.clock())

    stage.prepare(keep)
    stage.twice(place, do.take_records, folder)
    stage.told("key.backed-up")
    assert list((folder / records.FOLDER).iterdir()) == []


SCENES = {
    "authority.key-made": key_made,
    "authority.withdrawn": withdrawn,
    "authority.installed": installed,
    "authority.certified": installed,
    "authority.revoked": revoked,
    "authority.adopted": adopted,
    "ceremony.imported": imported,
    "compromise.checked": compromised,
    "compromise.stored": compromised,
    "succeed.stored": succeeded,
    "succession.stored": taken_over,
    "retire.stored": retired,
    "ended.stored": ended,
    "drill.stored": drilled,
    "propose.stored": proposed,
    "agree.stored": agreed,
    "agree.failed-stored": failed,
    "disagree.stored": denied,
    "record.stored": recorded,
}


@pytest.mark.invariant("I-56")
@pytest.mark.parametrize("place", SCENES)
def test_what_was_cut_off_is_done_again_and_is_there_once(stage: Stage, place: str) -> None:
    SCENES[place](stage, place)


def test_every_such_place_has_its_scene() -> None:
    assert {name for name in NAMES if name.split(".")[0] in PREFIXES} == set(SCENES)
