"""docs/reference/events.md: every kind that is recorded, what it is about and what is in it, both ways."""

from __future__ import annotations

import ast
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from rootward import home as homes
from rootward.ca import approve, audit, clock, freeze, issue, people, profiles, revoke
from rootward.ca.access import SYSTEM, Caller, Principal, find_principal
from rootward.ca.reconcile import reconcile
from rootward.config import load_config
from rootward.core.csr import parse_csr
from rootward.core.problems import Problem
from rootward.core.profile import Approval, Condition, DnsRules, NameRules, Profile
from rootward.core.revocation import RevocationReason
from rootward.core.roles import Role
from rootward.fleet import blocklist
from rootward.keys import Key
from rootward.store import events
from rootward.store.db import open_database
from rootward.store.failpoint import armed
from tests.docs.kinds import house, recorded
from tests.docs.markdown import REFERENCE, ROOT, codes, read, rows
from tests.support.installation import Lab, lab
from tests.vectors.csrs import good_csr

DOCUMENT = REFERENCE / "events.md"
SOURCE = ROOT / "src" / "rootward"


def documented() -> dict[str, list[str]]:
    """The rows of every table, by kind."""
    found = {codes(cells[0])[0]: cells for cells in rows(read(DOCUMENT), "kind")}
    assert all(len(cells) == 5 for cells in found.values())
    return found


def test_every_kind_both_ways() -> None:
    kinds = recorded(house(SOURCE))
    assert "issue.intended" in kinds
    assert kinds.keys() == documented().keys()


@pytest.mark.parametrize(
    ("source", "kinds"),
    [
        ("def f():\n    events.record('a.b', at=now)", {"a.b"}),
        ("def f(c):\n    events.record('a.b' if c else 'a.c')", {"a.b", "a.c"}),
        ("def f(c):\n    k = 'a.b' if c else 'a.c'\n    events.record(kind=k)", {"a.b", "a.c"}),
        ("def f(x, kind):\n    events.record(kind)\ndef g():\n    f(1, 'a.b')\n    f(1, kind='a.c')", {"a.b", "a.c"}),
        ("class C:\n    def f(self, kind):\n        events.record(kind)\n    def g(self):\n        self.f('a.b')", {"a.b"}),
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


