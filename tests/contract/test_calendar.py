"""The countdown to what only people can renew, in moved time: an event once for each stage, on both stores."""

from __future__ import annotations

from datetime import timedelta

import pytest

from rootward.core.times import rfc3339
from rootward.fleet import calendar
from rootward.store import authorities
from tests.support.world import ISSUING, World

DAY = timedelta(days=1)


async def told(lab: World) -> list[tuple[str, str, int]]:
    """(authority, what, days) of every event."""
    return [
        (event.authority or "", event.values()["what"], event.values()["days"])
        for event in await lab.events("ceremony.due")
    ]


@pytest.mark.invariant("I-19")
async def test_a_root_crl_counts_down_in_events(lab: World) -> None:
    head = await lab.inst.db.read(lambda conn: authorities.crl_head(conn, lab.inst.authority("root").n))
    assert head is not None
    await calendar.remind(lab.inst)
    assert await told(lab) == []
    expected = []
    for days, left in ((90, 90 * DAY), (30, 30 * DAY), (7, 7 * DAY), (1, DAY), (0, timedelta())):
        lab.clock.now = head.next_update - left
        expected.append(("root", "crl", days))
        for _ in range(2):  # told once, however often it is looked at
            await calendar.remind(lab.inst)
        assert await told(lab) == expected
    last = (await lab.events("ceremony.due"))[-1].values()
    assert last == {"what": "crl", "at": rfc3339(head.next_update), "days": 0}


async def test_an_authority_says_when_its_key_is_to_have_a_successor(lab: World) -> None:
    """Its longest profile lives for a year: that much sooner than its certificate its key stops signing."""
    due = {(one.authority, one.what): one.at for one in await calendar.dates(lab.inst)}
    end = lab.inst.authority(ISSUING).issuer.not_after
    assert due[ISSUING, "certificate"] == end
    assert due[ISSUING, "key"] == end - 365 * DAY
    below = lab.inst.authority(ISSUING).issuer
    root = lab.inst.authority("root").issuer
    assert due["root", "key"] == root.not_after - (below.not_after - below.not_before)
    assert (ISSUING, "crl") not in due  # it comes by itself
    nearest = await calendar.dates(lab.inst)
    assert nearest == sorted(nearest)
