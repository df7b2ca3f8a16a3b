"""What `doctor` says: each check in each of its states, over a whole installation."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Connection

from rootward.ca import publish
from rootward.ca.sequence import settle
from rootward.core.pubkey import KeyAlgorithm
from rootward.fleet import health
from rootward.fleet.check import Check
from rootward.store import authorities, certificates, jobs
from rootward.store.db import clock
from tests.support.postgres import Postgres
from tests.support.rest import Api, rest
from tests.support.store import DIALECTS, intent

DAY = timedelta(days=1)
NOW = datetime(2026, 11, 23, tzinfo=UTC)


@pytest.fixture(scope="module", params=DIALECTS)
def well(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, postgres: Postgres) -> Iterator[Api]:
    """An installation that is well and that no test changes, once on each dialect."""
    folder = tmp_path_factory.mktemp("doctor")
    with rest(f"sqlite:///{folder}/rootward.db" if request.param == "sqlite" else postgres.url()) as made:
        made.run(publish.publish_due(made.inst))
        made.run(settle(made.inst))
        yield made


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    """An installation that is well, for one test."""
    with rest(f"sqlite:///{tmp_path}/rootward.db") as made:
        made.run(publish.publish_due(made.inst))
        made.run(settle(made.inst))
        yield made


def checks(api: Api) -> dict[str, Check]:
    """Every check by name, as the door shows them."""
    reply = api.call("GET", "/api/v1/doctor")
    assert reply.status == 200, reply.body
    found = [Check(**check) for check in reply.json["checks"]]
    assert len({check.name for check in found}) == len(found)
    assert all((check.state == "ok") == (check.mend is None) for check in found)
    return {check.name: check for check in found}


def test_a_lab_that_is_well(well: Api) -> None:
    found = checks(well)
    wrong = {name for name, check in found.items() if check.state != "ok"}
    assert wrong == {"single-person", "tls"}  # nothing serves here, so there is no certificate for TLS
    wanted = {"clock", "store", "schema", "crl.root", "crl.issuing", "responder.issuing", "key.issuing", "intents"}
    assert wanted | {"orphans", "authority.root", "pki_url", "external_url"} <= set(found)
    assert ("disk" in found) == (well.inst.db.dialect == "sqlite")


@pytest.mark.invariant("I-67")
@pytest.mark.parametrize(
    ("span", "name", "state"),
    [
        (timedelta(hours=1), "clock", "error"),
        (timedelta(hours=-1), "clock", "error"),
        (timedelta(hours=17), "crl.issuing", "ok"),
        (timedelta(hours=19), "crl.issuing", "warning"),
        (timedelta(hours=25), "crl.issuing", "error"),
        (274 * DAY, "crl.root", "ok"),
        (276 * DAY, "crl.root", "warning"),
        (364.5 * DAY, "crl.root", "error"),
        (366 * DAY, "crl.root", "error"),
        (3 * DAY, "responder.issuing", "error"),
        (4 * 365 * DAY, "authority.issuing", "warning"),
        (5 * 365 * DAY, "authority.issuing", "error"),
    ],
)
def test_what_ends_is_told_in_time(
    well: Api, monkeypatch: pytest.MonkeyPatch, span: timedelta, name: str, state: str
) -> None:
    began = well.inst.clock
    monkeypatch.setattr(well.inst, "clock", lambda: began() + span)  # this machine's clock, not the database's
    found = {check.name: check for check in well.run(health.checks(well.inst))}
    assert found[name].state == state


def test_a_second_approver_ends_the_warning(api: Api) -> None:
    id, _ = api.person("second", {"role": "approver"})
    assert checks(api)["single-person"].state == "ok"
    grant = api.call("GET", f"/api/v1/principals/{id}").json["grants"][0]
    assert api.call("DELETE", f"/api/v1/grants/{grant['id']}").status == 200
    assert checks(api)["single-person"].state == "warning"


def test_half_done_issuances_and_orphans(api: Api) -> None:
    now = api.inst.clock()
    old = intent("dead", intended_at=now - timedelta(minutes=5), issuer=1)
    lost = intent("dead", intended_at=now - timedelta(minutes=5), issuer=1)
    api.inst.db.write_sync(certificates.intend(old) + certificates.intend(lost))
    assert checks(api)["intents"].state == "warning"
    api.inst.process.in_flight |= {old["id"], lost["id"]}
    assert checks(api)["intents"].state == "ok"
    api.inst.process.in_flight.clear()
    api.inst.db.write_sync(certificates.orphan(lost["id"], at=now, lease="dead"))
    found = checks(api)
    assert (found["intents"].state, found["orphans"].state) == ("warning", "warning")


def test_jobs_that_fail_or_are_late(api: Api) -> None:
    def put(conn: Connection) -> None:
        now = clock(conn)
        for name in ("good", "bad", "late"):
            jobs.ensure(name, due_at=now - timedelta(hours=1)).run(conn)
        for name, failure in (("good", None), ("bad", "RuntimeError")):
            fence = jobs.claim(conn, name, lease="x", now=now, until=now + timedelta(seconds=30))
            assert fence is not None
            if failure is None:
                jobs.done(name, fence=fence, at=now, again=now + timedelta(hours=1)).run(conn)
            else:
                jobs.failed(name, fence=fence, failure=failure, again=now + timedelta(hours=1)).run(conn)

    api.inst.db.write_sync(put)
    found = checks(api)
    assert {name: found[f"job.{name}"].state for name in ("good", "bad", "late")} == {
        "good": "ok",
        "bad": "error",
        "late": "error",
    }


def test_a_key_that_is_gone(api: Api) -> None:
    issuing = api.inst.authorities["issuing"]
    api.inst.keys.delete("issuing", issuing.issuer.key_id)
    assert checks(api)["key.issuing"].state == "error"


def test_a_frozen_authority(api: Api) -> None:
    api.inst.db.write_sync(authorities.freeze("issuing", at=api.inst.clock()))  # by another process
    found = checks(api)["frozen.issuing"]
    assert found.state == "error"
    assert "rootward audit list --kind authority.frozen" in str(found.mend)
    api.inst.db.write_sync(authorities.thaw("issuing"))
    assert "frozen.issuing" not in checks(api)
    api.inst.process.stopped.add("issuing")  # its key signed wrongly while the store was away
    assert checks(api)["frozen.issuing"].state == "error"
    api.inst.process.stopped.clear()


def test_loopback_addresses_are_for_labs_only(api: Api) -> None:
    api.inst.lab = False
    found = checks(api)
    assert (found["pki_url"].state, found["external_url"].state) == ("error", "error")
    api.inst.pki_url = "http://pki.internal"
    assert checks(api)["pki_url"].state == "ok"


@pytest.mark.parametrize(
    ("url", "own"),
    [
        ("http://127.0.0.1:8080", True),
        ("http://127.9.9.9", True),
        ("https://[::1]:8443", True),
        ("https://localhost", True),
        ("https://a.localhost.", True),
        ("https://pki.internal", False),
        ("https://192.168.0.1", False),
        ("https://notlocalhost", False),
    ],
)
def test_what_is_this_machine(url: str, own: bool) -> None:
    assert health.is_loopback(url) is own


@pytest.mark.parametrize(
    ("left", "state", "says"),
    [
        (91 * DAY, "ok", "lasts until"),
        (90 * DAY, "warning", "90 days"),
        (30 * DAY, "warning", "30 days"),
        (7 * DAY, "warning", "7 days"),
        (DAY, "error", "1 day."),
        (timedelta(), "error", "ended"),
        (-DAY, "error", "ended"),
    ],
)
def test_the_count_down(left: timedelta, state: str, says: str) -> None:
    found = health.ending("x", "The CRL", NOW + left, NOW, days=health.COUNT_DOWN, mend="do")
    assert found.state == state
    assert says in found.detail


def test_the_key_of_another_is_found(api: Api) -> None:
    other = api.inst.keys.generate("issuing", KeyAlgorithm.P256)
    keys = api.inst.keys

    class Swapped:
        """A backend that gives out another key than it was asked for."""

        def __getattr__(self, name: str) -> object:
            return getattr(keys, name)

        def load(self, label: str, public_id: str) -> object:
            return other

    api.inst.keys = Swapped()  # type: ignore[assignment]  # a backend that was tampered with
    assert checks(api)["key.issuing"].state == "error"
