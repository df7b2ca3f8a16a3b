"""The countdown to what only people can renew, in moved time: an event once for each stage, on both stores."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from rootward.ca import ending
from rootward.core import paperwork
from rootward.core.revocation import RevocationReason
from rootward.core.times import rfc3339
from rootward.fleet import calendar, health
from rootward.fleet.vitals import measure
from rootward.home import lay_out_requests
from rootward.store import authorities
from rootward.store import paperwork as papers
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
        found = {check.name: check for check in health.judge(lab.inst, await measure(lab.inst))}["crl.root"]
        assert found.state == ("error" if days <= 1 else "warning")
        assert (f"less than {days} day" in found.detail) is (days > 0), found
        assert ("ended" in found.detail) is (days == 0)
        assert "rootward ceremony due" in (found.mend or "")
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


async def test_the_request_for_the_next_crl_is_there_by_itself(lab: World, tmp_path: Path) -> None:
    """From the first stage on, with all that is revoked by then; a file of the home until it is answered."""
    folder = tmp_path / "ceremony" / "requests"
    head = await lab.inst.db.read(lambda conn: authorities.crl_head(conn, lab.inst.authority("root").n))
    assert head is not None
    lab.clock.now = head.next_update - 91 * DAY
    await calendar.remind(lab.inst)
    await lay_out_requests(lab.inst, tmp_path)
    assert not folder.exists()
    lab.clock.now = head.next_update - 90 * DAY
    for _ in range(2):
        await calendar.remind(lab.inst)
        await lay_out_requests(lab.inst, tmp_path)
    (path,) = folder.iterdir()
    request = paperwork.read(path.read_bytes(), paperwork.Request)
    assert isinstance(request.wanted, paperwork.SignCrl)
    assert (request.wanted.by, request.wanted.entries) == ("root", ())
    assert request.wanted.number > head.number
    # A revocation under the root makes another one, and the first is not to be carried any more.
    await ending.revoke(lab.inst, ISSUING, RevocationReason.SUPERSEDED, lab.admin)
    await lay_out_requests(lab.inst, tmp_path)
    (second,) = folder.iterdir()
    assert second != path
    newer = paperwork.read(second.read_bytes(), paperwork.Request).wanted
    assert isinstance(newer, paperwork.SignCrl)
    assert [one.reason for one in newer.entries] == ["superseded"]
    open_now = await lab.inst.db.read(papers.open_requests)
    await lab.inst.db.write(papers.answer(open_now[0].id, ceremony=None, at=lab.clock.now))
    await lay_out_requests(lab.inst, tmp_path)
    assert list(folder.iterdir()) == []
