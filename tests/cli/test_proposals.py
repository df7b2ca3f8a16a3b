"""Proposals on the command line: in one list with requests, shown and decided by the same verbs."""

from __future__ import annotations

import json

import pytest

from tests.cli.conftest import Rootward
from tests.cli.fake import Fake

MADE = {
    "id": "p1",
    "status": "waiting",
    "kind": "ca.compromise",
    "authority": "issuing",
    "body": {"successor": "issuing-2", "reason": "stolen\x1b[2J", "waves": None},
    "digest": "ab" * 32,
    "proposed_by": "ann",
    "proposed_at": "2027-01-01T00:00:00Z",
    "expires_at": "2027-01-08T00:00:00Z",
    "done_at": None,
    "reasons": [],
    "approval": None,
    "denial": None,
}


def test_one_list_for_people_and_two_for_programs(rootward: Rootward, fake: Fake) -> None:
    fake.lists |= {"requests": [], "proposals": [MADE]}
    out = rootward("request", "list").out
    assert "ca.compromise" in out
    assert "issuing" in out
    found = json.loads(rootward("request", "list", "--json").out)
    assert (found["items"], [one["id"] for one in found["proposals"]]) == ([], ["p1"])


@pytest.mark.parametrize(("status", "asked"), [("issued", "requests"), ("done", "proposals")])
def test_a_status_that_one_of_them_has(rootward: Rootward, fake: Fake, status: str, asked: str) -> None:
    fake.lists |= {"requests": [], "proposals": []}
    rootward("request", "list", "--status", status)
    assert {path.partition("?")[0] for _, path, _ in fake.seen} == {f"/api/v1/{asked}"}


def test_it_is_shown_whole_and_harmless(rootward: Rootward, fake: Fake) -> None:
    fake.bodies["proposals/p1"] = MADE
    out = rootward("request", "show", "p1").out
    assert "issuing-2" in out
    assert "ab" * 32 in out
    assert "\x1b" not in out


def test_a_yes_that_was_taken_back_is_shown_with_both(rootward: Rootward, fake: Fake) -> None:
    decided = {"approval": {"approved_by": "bob", "comment": None}, "denial": {"denied_by": "cyd", "comment": "no"}}
    fake.bodies["proposals/p1"] = MADE | decided
    out = rootward("request", "show", "p1").out
    assert all(
        any(word in line and who in line for line in out.splitlines())
        for word, who in (("approved by", "bob"), ("denied by", "cyd"), ("comment", "no"))
    )


@pytest.mark.parametrize("verb", ["approve", "deny"])
def test_it_is_decided_by_the_same_verbs(rootward: Rootward, fake: Fake, verb: str) -> None:
    fake.bodies[f"proposals/p1/{verb}"] = {**MADE, "status": "done"}
    assert rootward("request", verb, "p1", "--comment", "so be it").out == "The proposal p1 is done.\n"
    assert fake.seen[-1] == ("POST", f"/api/v1/proposals/p1/{verb}", {"comment": "so be it"})


def test_what_is_neither_is_not_there(rootward: Rootward) -> None:
    assert "RW-NOT-FOUND" in rootward("request", "approve", "p2").err


def test_who_proposes_is_told_who_goes_on(rootward: Rootward, fake: Fake) -> None:
    fake.bodies["authorities/issuing/compromise"] = MADE
    done = rootward("ca", "compromise", "issuing", "--successor", "issuing-2")
    assert done.code == 3
    assert "rootward request approve p1" in done.err
    assert fake.seen[-1][2] == {"successor": "issuing-2"}


@pytest.mark.parametrize(("remaining", "code"), [(0, 0), (1, 1)])
def test_a_report_ends_with_what_is_left(rootward: Rootward, fake: Fake, remaining: int, code: int) -> None:
    left = {"id": "c1", "owner": None, "requester": "acc", "names": ["dns:a.internal"], "last_seen": None}
    fake.bodies["authorities/issuing/replacement"] = {
        "authority": "issuing",
        "total": 2,
        "remaining": remaining,
        "over": not remaining,
        "items": [left] * remaining,
        "next_cursor": None,
    }
    done = rootward("ca", "report", "issuing")
    assert done.code == code
    assert ("a.internal" in done.out) is bool(remaining)
    assert ("Everything is replaced." in done.out) is not bool(remaining)
