"""docs/reference/events.md: every kind that is recorded, what it is about and what is in it, both ways."""

from __future__ import annotations

import ast
import asyncio
import dataclasses
import re
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import update

from rootward import home as homes
from rootward.ca import (
    acts,
    approve,
    audit,
    clock,
    compromise,
    cross,
    freeze,
    issue,
    people,
    profiles,
    proposals,
    revoke,
    succession,
    trouble,
)
from rootward.ca.access import SYSTEM
from rootward.ca.agree import agree
from rootward.ca.log import accept, open_log
from rootward.ca.publish import publish_due
from rootward.ca.reconcile import reconcile
from rootward.ca.sequence import settle
from rootward.config import load_config
from rootward.core.csr import parse_csr
from rootward.core.problems import Problem, Reason
from rootward.core.profile import Approval
from rootward.core.revocation import RevocationReason
from rootward.core.roles import Role
from rootward.fleet import blocklist, drill, imports
from rootward.fleet.calendar import remind
from rootward.keys import Key
from rootward.store import events
from rootward.store.db import open_database
from rootward.store.failpoint import Injected, armed
from rootward.store.schema import certificates as table
from tests.docs.accounts import everything_of_acme
from tests.docs.authorities import everything_of_authorities
from tests.docs.kinds import SOURCE, kinds_of, recorded
from tests.docs.markdown import REFERENCE, codes, read, rows
from tests.support.authority import PEM, Authority
from tests.support.backup import Backed, put_back
from tests.support.crossing import crossed
from tests.support.installation import Lab, lab
from tests.support.second import add_second
from tests.vectors import imports as vectors
from tests.vectors.csrs import good_csr

DOCUMENT = REFERENCE / "events.md"
_OPTIONAL = re.compile(r"\[[^]]*\]")


def documented() -> dict[str, list[str]]:
    """The rows of every table, by kind."""
    found = {codes(cells[0])[0]: cells for cells in rows(read(DOCUMENT), "kind")}
    assert all(len(cells) == 5 for cells in found.values())
    return found


def test_every_kind_both_ways() -> None:
    kinds = kinds_of(SOURCE)
    assert "issue.intended" in kinds
    assert kinds.keys() == documented().keys()


@pytest.mark.parametrize(
    ("source", "kinds"),
    [
        ("def f():\n    events.record('a.b', at=now)", {"a.b"}),
        ("def f(c):\n    events.record('a.b' if c else 'a.c')", {"a.b", "a.c"}),
        ("def f(c):\n    k = 'a.b' if c else 'a.c'\n    events.record(kind=k)", {"a.b", "a.c"}),
        ("def f(x, kind):\n    events.record(kind)\ndef g():\n    f(1, 'a.b')\n    f(1, kind='a.c')", {"a.b", "a.c"}),
        (
            "class C:\n    def f(self, kind):\n        events.record(kind)\n    def g(self):\n        self.f('a.b')",
            {"a.b"},
        ),
        ("def f(kind):\n    def g():\n        events.record(kind)\n    g()\nf('a.b')", {"a.b"}),
        ("log.record('a.b')\nrecord('a.c')", set()),
    ],
)
def test_kinds_are_read_from_the_sources(source: str, kinds: set[str]) -> None:
    tree = ast.parse("from rootward.store import events\n" + source)
    assert recorded({"rootward.ca.x": tree}).keys() == kinds


def test_kinds_are_read_across_modules() -> None:
    trees = {
        "rootward.ca.x": ast.parse(
            "from rootward.store import events\ndef say(kind, at):\n    return events.record(kind, at=at)"
        ),
        "rootward.ca.y": ast.parse("from rootward.ca import x\nx.say('a.b', 1)"),
        "rootward.ca.z": ast.parse("from rootward.ca.x import say as tell\ntell('a.c', 1)"),
    }
    assert recorded(trees) == {"a.b": {"rootward.ca.y"}, "a.c": {"rootward.ca.z"}}


@pytest.mark.parametrize("source", ["events.record(kinds[0])", "events.record(kind)", "events.record()"])
def test_a_kind_that_cannot_be_read_is_an_error(source: str) -> None:
    with pytest.raises(ValueError, match="kind"):
        recorded({"rootward.ca.x": ast.parse("from rootward.store import events\n" + source)})


def test_what_is_in_them(tmp_path: Path) -> None:
    """Makes every kind happen, and compares what was written down with what the page says of it."""
    told = documented()
    seen: dict[str, list[events.Event]] = {}
    for event in asyncio.run(_everything(tmp_path / "home")):
        seen.setdefault(event.kind, []).append(event)
    assert seen.keys() == told.keys()
    for kind, found in seen.items():
        _, _, actor, about, data = told[kind]
        always, ever = frozenset(codes(_OPTIONAL.sub("", data))), frozenset(codes(data))
        assert all(always <= event.values().keys() for event in found), kind
        assert frozenset().union(*(event.values() for event in found)) == ever, kind
        assert {_about(event) for event in found} == {frozenset(codes(about))}, kind
        assert all(event.actor == SYSTEM for event in found) is (actor == "the system"), kind


def _about(event: events.Event) -> frozenset[str]:
    return frozenset(field for field in ("authority", "certificate") if getattr(event, field) is not None)


async def _everything(home: Path) -> list[events.Event]:
    config = load_config(home, {}, {"lab": True})
    homes.make_home(config)
    async with lab(f"sqlite:///{home}/rootward.db") as made:
        homes.write_token(home, made.token)
        await open_log(made.inst, home / "log")
        await publish_due(made.inst)
        await _people(made)
        await _certificates(made)
        await _requests(made)
        await everything_of_acme(made)
        await everything_of_authorities(made)
        await _ends(made)
        await audit.begin_export(made.inst, made.admin)
        await clock.accept_clock(made.inst)
        await _mistakes(made)
        await settle(made.inst)
        await accept(made.inst, home / "log", why="a test")
        await _failures(made)
        now = made.inst.clock()
        made.inst.clock = lambda: now + timedelta(days=61)
        await homes.renew_admin_token(made.inst, home)
        made.inst.clock = lambda: now + timedelta(days=300)
        await remind(made.inst)
    homes.recover(home, {})
    there = Backed(home, config.database.url)
    there.backup(home.with_name("x.backup"))
    there, _ = put_back(home.with_name("x.backup"), home.with_name("restored"))
    db = open_database(there.url)
    try:
        return list(db.read_sync(lambda conn: events.page(conn, after=0, limit=1000)))
    finally:
        db.close()


async def _people(made: Lab) -> None:
    inst, admin = made.inst, made.admin
    person = await people.create_person(inst, "somebody", admin)
    token, _ = await people.create_token(
        inst, principal_id=admin.principal.id, label="x", lifetime=timedelta(days=1), scopes=None, caller=admin
    )
    await people.revoke_token(inst, token.id, admin)
    grant = await people.create_grant(
        inst, principal_id=person.id, role=Role.AUDITOR, authority="issuing", profile=None, caller=admin
    )
    await people.remove_grant(inst, grant.id, admin)
    await people.disable_person(inst, person.id, admin)


async def _certificates(made: Lab) -> None:
    inst, admin = made.inst, made.admin
    issued = await _issue(made, "server")
    await revoke.revoke(inst, issued, RevocationReason.CERTIFICATE_HOLD, admin)
    await revoke.release(inst, issued, admin)
    await revoke.revoke(inst, issued, RevocationReason.SUPERSEDED, admin)
    await blocklist.add(inst, [("00" * 32, "a test")], admin)
    await imports.import_certificates(
        inst, lambda: vectors.real_der(), password=None, owner=None, labels={}, caller=admin
    )
    await freeze.freeze_by(inst, "issuing", "a test", admin)
    await freeze.unfreeze_by(inst, "issuing", "it is over", admin)
    by_others = crossed(inst, Authority("Their Root"))
    added = await cross.add(inst, "issuing", by_others.public_bytes(PEM), admin)
    await cross.remove(inst, "issuing", added.sha256, admin)


async def _requests(made: Lab) -> None:
    """A yes, a no, and a yes that came too late; all by the single person."""
    inst, admin = made.inst, made.admin
    _, server = await profiles.current(inst, "server") or (0, None)
    assert server is not None
    careful = msgspec.structs.replace(server, name="careful", approval=Approval(required="always"))
    await profiles.create(inst, careful, admin)
    await profiles.update(inst, careful, admin)
    await approve.approve(inst, await _issue(made, "careful"), None, admin)
    await approve.deny(inst, await _issue(made, "careful"), "no", admin)
    csr = parse_csr(good_csr(names=["dns:a.internal"]))
    parked = await issue.issue(inst, issue.Ask("careful", csr), admin)
    assert isinstance(parked, issue.Pending)
    await blocklist.add(inst, [(csr.public_key.id, "since then")], admin)
    await approve.approve(inst, parked.request.id, None, admin)
    await profiles.retire(inst, "careful", admin)


async def _ends(made: Lab) -> None:
    """Proposals of every outcome; an authority that is compromised, and one that is retired and over."""
    inst, admin = made.inst, made.admin
    for name in ("second", "third", "fourth"):
        await add_second(inst, name, root=f"root-of-{name}")
    _, server = await profiles.current(inst, "server") or (0, None)
    assert server is not None
    await profiles.create(inst, msgspec.structs.replace(server, name="moving", authority="second"), admin)
    await people.create_grant(
        inst, principal_id=admin.principal.id, role=Role.OFFICER, authority="second", profile=None, caller=admin
    )
    await _issue(made, "moving")
    await drill.rehearse(inst, "second", None, None, admin)
    await proposals.deny(inst, (await succession.propose(inst, "second", "third", admin)).id, None, admin)
    proposed = await compromise.propose(inst, "second", "third", None, None, admin)
    await acts.approve(inst, proposed.id, None, admin)
    await acts.approve(inst, (await succession.propose_retirement(inst, "fourth", None, admin)).id, None, admin)
    await succession.settle(inst)
    void = await proposals.propose(inst, "ca.succeed", "third", {"successor": "nobody"}, admin)
    with pytest.raises(Problem, match="RW-NOT-FOUND"):
        await acts.approve(inst, void.id, None, admin)


async def _failures(made: Lab) -> None:
    """A key that surely does not sign, an attempt without an end, and a key that signs wrongly."""
    inst = made.inst
    right, other = inst.authorities["issuing"], ec.generate_private_key(ec.SECP256R1())
    inst.authorities["issuing"] = dataclasses.replace(right, key=Key(other, label="issuing", max_message=1))
    with pytest.raises(Problem, match="RW-KEY-UNAVAILABLE"):
        await _issue(made, "server")
    inst.authorities["issuing"] = right
    with armed("issue.intended:fail"), pytest.raises(Injected):
        await _issue(made, "server")
    assert await reconcile(inst) == 1
    inst.authorities["issuing"] = dataclasses.replace(right, key=Key(other, label="issuing"))
    with pytest.raises(Problem, match="RW-KEY-UNAVAILABLE"):
        await _issue(made, "server")


async def _mistakes(made: Lab) -> None:
    """A draft that no lint lets through, and a revoked certificate that the database calls good."""
    inst = made.inst
    await trouble.lint_failed(inst, "certificate", [Reason("RW-LINT", "for a test")], made.admin, authority="issuing")
    issued = await _issue(made, "server")
    await revoke.revoke(inst, issued, RevocationReason.SUPERSEDED, made.admin)
    await publish_due(inst)
    await inst.db.write(lambda conn: conn.execute(update(table).values(revoked_at=None).where(table.c.id == issued)))
    assert len(await agree(inst)) == 1


async def _issue(made: Lab, profile: str) -> str:
    """The id of a certificate or of a parked request, for a new key each time."""
    key = ec.generate_private_key(ec.SECP256R1())
    csr = parse_csr(good_csr(key=key, names=["dns:a.internal"]))
    done = await issue.issue(made.inst, issue.Ask(profile, csr), made.admin)
    return done.certificate.id if isinstance(done, issue.Issued) else done.request.id
