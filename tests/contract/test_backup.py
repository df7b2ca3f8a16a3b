"""Backups: what is in one, that it goes back into either store whole, and what a restored installation goes on with."""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy.exc
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import text

from rootward import home as homes
from rootward.ca import authorities as asking
from rootward.ca import publish
from rootward.ca.revoke import release, revoke
from rootward.ca.sign import sign
from rootward.core.authority import AuthoritySpec
from rootward.core.ledger import Frontier, draft_head, finish_head, parse_head
from rootward.core.problems import Problem
from rootward.core.revocation import Good, RevocationReason, Revoked, Unknown
from rootward.fleet.auditor import Report
from rootward.keys import kek_from_passphrase
from rootward.store import blocked, certificates, dump, events, migrations
from rootward.store.db import open_database
from rootward.store.schema import metadata
from tests.support import world
from tests.support.backup import ANEW, Backed, Maker, cli, ended, make, passphrase_file, restored, tick, verified
from tests.support.faults import Open, books, listed, served, status
from tests.support.postgres import Postgres
from tests.support.store import DIALECTS, NOW, intent

SUPERSEDED = RevocationReason.SUPERSEDED
KILL = -signal.SIGKILL


@pytest.fixture(scope="module")
def maker(tmp_path_factory: pytest.TempPathFactory, postgres: Postgres) -> Maker:
    """Where homes come from."""
    return Maker(tmp_path_factory.mktemp("made"), postgres)


@pytest.fixture(params=DIALECTS)
def home(request: pytest.FixtureRequest, maker: Maker, tmp_path: Path) -> Iterator[Backed]:
    """A whole home, once on each dialect."""
    with maker.home(request.param, tmp_path / "home") as made:
        yield made


@pytest.fixture
def sqlite_home(maker: Maker, tmp_path: Path) -> Iterator[Backed]:
    """A whole home on SQLite."""
    with maker.home("sqlite", tmp_path / "home") as made:
        yield made


async def issue(made: Open, name: str = "a.internal") -> certificates.Certificate:
    """A certificate for that name."""
    return world.issued(await world.issue(made.inst, world.ask(name), made.admin))


async def life(home: Backed, *, whole: bool = False) -> dict[str, certificates.Certificate]:
    """A good certificate, a revoked one, a CRL, and unless it is to be `whole`, the intent of a process that is gone
    (with less in it than a real one has, which an audit would tell).
    """
    async with home.serving() as made:
        good, bad = await issue(made), await issue(made, "b.internal")
        await revoke(made.inst, bad.id, SUPERSEDED, made.admin)
        await publish.publish_due(made.inst)
        await tick(made.inst)
        if whole:
            return {"good": good, "bad": bad}
        issuer, serial = made.inst.authority("issuing").n, b"\x01" + secrets.token_bytes(15)
        values = intent("a process that is gone", issuer=issuer, serial=serial)
        started = events.record(
            "issue.intended",
            actor="p-1",
            request_id="r-1",
            at=NOW,
            authority="issuing",
            certificate=values["id"],
            data={"serial": values["serial"].hex()},
        )
        await made.inst.db.write(certificates.intend(values) + started)
        await tick(made.inst)
        return {"good": good, "bad": bad}


def plain(rows: dict[str, list[dict[str, Any]]]) -> dict[str, list[dict[str, Any]]]:
    """The rows without what a restore changes on purpose, and without its own event."""
    return {
        table: [
            {name: value for name, value in row.items() if (table, name) not in ANEW}
            for row in found
            if row.get("kind") not in {"installation.restored", "log.accepted"}
            if not str(row.get("name")).startswith("log.")  # which key the audit log has, and under which name
        ]
        for table, found in rows.items()
        if table != "heads"  # of the audit log, which goes on under another key
    }


def unchanged(files: dict[str, Any]) -> dict[str, Any]:
    """Without the settings, which may name another store, and the audit log's files."""
    return {name: file for name, file in files.items() if not name.startswith(("rootward.toml", "log/", "keys/log-"))}


# ── What is in it ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_table_of_the_schema_is_in_it(home: Backed, tmp_path: Path) -> None:
    made = home.backup(tmp_path / "x.backup")
    assert set(made.counts.tables) == set(metadata.tables)
    assert made.counts.tables == {name: len(rows) for name, rows in home.rows().items()}
    with dump.snapshot(home.url) as conn:
        assert {name: set(columns) for name, columns in dump.tables(conn)} == {
            table.name: {column.name for column in table.columns} for table in metadata.tables.values()
        }


def test_which_files_are_in_it(home: Backed, tmp_path: Path) -> None:
    (home.folder / "log").mkdir(exist_ok=True)
    (home.folder / "log" / "note").write_text("kept")
    (home.folder / "of mine").write_text("not kept")
    (home.folder / "keys" / ".new-1").write_text("not kept")
    assert (home.folder / "offline-root").is_dir()
    kept = set(home.backup(tmp_path / "x.backup").counts.files)
    assert kept >= {"rootward.toml", "kek", "root.pem", "ceremony/result.json", "log/note"}
    assert {name for name in kept if name.startswith("keys/")} == {
        f"keys/{path.name}" for path in (home.folder / "keys").glob("*.key")
    }
    assert not {
        name for name in kept if "offline" in name or name.startswith("admin") or ".new" in name or "mine" in name
    }


@pytest.mark.invariant("I-35")
def test_no_secret_is_in_the_clear(home: Backed, tmp_path: Path) -> None:
    sealed = home.backup(tmp_path / "x.backup").path.read_bytes()
    hidden = [(home.folder / "kek").read_bytes().strip(), home.token.encode(), b"correct horse"]
    hidden += [path.read_bytes().splitlines()[1] for path in (home.folder / "keys").glob("*.key")]
    hidden += [b"BEGIN CERTIFICATE", b"sqlite", b"issuing", b"instance.id"]
    assert not [secret for secret in hidden if secret in sealed]
    assert (tmp_path / "x.backup").stat().st_mode & 0o777 == 0o600


# ── Back into either store ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("to", DIALECTS)
async def test_everything_comes_back(home: Backed, to: str, maker: Maker, tmp_path: Path) -> None:
    await life(home)
    made = home.backup(tmp_path / "x.backup")
    there = restored(tmp_path / "x.backup", tmp_path / "other", maker.empty(to))
    assert there.url.startswith(to)
    before, after = home.rows(), there.rows()
    assert plain(after) == plain(before)
    restored_by = ["log.accepted", "installation.restored"]
    assert [row["kind"] for row in after["events"][len(before["events"]) :]] == restored_by
    assert all(row["indexed_at"] is row["lease_until"] is None for row in after["certificates"])
    files = home.files()
    kept = {name: files[name] for name in made.counts.files}
    found = there.files()
    assert unchanged(found) == unchanged(kept)
    assert {name for name in found if name.startswith("keys/log-")}.isdisjoint(kept)
    original = found.get("rootward.toml.before", found["rootward.toml"])
    assert original[1] == files["rootward.toml"][1]
    assert there.folder.stat().st_mode & 0o777 == 0o700
    again = there.backup(tmp_path / "y.backup")
    same = set(metadata.tables) - {"certificates", "events", "jobs", "crl_numbers", "facts", "heads"}
    assert {name: again.counts.sha256[name] for name in same} == {name: made.counts.sha256[name] for name in same}
    assert nothing_but(tmp_path, "home", "other", "x.backup", "y.backup")


@pytest.mark.invariant("I-03")
@pytest.mark.parametrize("to", DIALECTS)
async def test_the_restored_installation_goes_on(home: Backed, to: str, maker: Maker, tmp_path: Path) -> None:
    known = await life(home)
    home.backup(tmp_path / "x.backup")
    async with home.serving() as original:
        after = await issue(original, "after.internal")
    there = restored(tmp_path / "x.backup", tmp_path / "other", maker.empty(to))
    async with there.serving() as made:
        rows = await books(made.inst)
        assert known["good"].id in rows
        orphans = [row for row in rows.values() if row.orphaned_at is not None]
        assert [row.lease for row in orphans] == ["a process that is gone"]
        assert await status(made, known["good"].serial) == Good()
        assert isinstance(await status(made, known["bad"].serial), Revoked)
        assert await status(made, after.serial) == Unknown()  # this one knows nothing of it
        assert known["bad"].serial in await listed(made)
        fresh = await issue(made, "fresh.internal")
        assert fresh.serial not in {row.serial for row in rows.values()} | {after.serial}
        assert max(row.n for row in rows.values()) < (await books(made.inst))[fresh.id].n
        await revoke(made.inst, fresh.id, SUPERSEDED, made.admin)
        await publish.publish_due(made.inst)
        assert fresh.serial in await listed(made)
    async with home.serving() as original:  # which does not notice
        assert after.id in await books(original.inst, open_intents=0)


@pytest.mark.invariant("I-17")
@pytest.mark.parametrize("to", DIALECTS)
async def test_crl_numbers_go_on_above_those_that_came_after_the_backup(
    home: Backed, to: str, maker: Maker, tmp_path: Path
) -> None:
    await life(home)
    home.backup(tmp_path / "x.backup")
    async with home.serving() as original:
        for _ in range(3):
            late = await publish.publish(original.inst, original.inst.authority("issuing"))
    there = restored(tmp_path / "x.backup", tmp_path / "other", maker.empty(to))
    async with there.serving() as made:
        new = await publish.publish(made.inst, made.inst.authority("issuing"))
        assert new.number > late.number
        root = await made.inst.db.read(
            lambda conn: publish.authorities.current_crl(conn, made.inst.authority("root").n)
        )
        assert root is not None


async def test_the_search_index_is_filled_anew(home: Backed, maker: Maker, tmp_path: Path) -> None:
    from rootward.store import search

    await life(home)
    home.backup(tmp_path / "x.backup")
    there = restored(
        tmp_path / "x.backup", tmp_path / "other", maker.empty(home.url.partition(":")[0].partition("+")[0])
    )
    async with there.serving() as made:
        taken = await made.inst.db.write(lambda conn: search.index(conn, 1000, at=made.inst.clock()))
        assert taken >= 3


def test_settings_that_name_the_other_store_are_changed_and_kept(maker: Maker, tmp_path: Path) -> None:
    with maker.home("postgresql", tmp_path / "home") as home:
        home.backup(tmp_path / "x.backup")
        there = restored(tmp_path / "x.backup", tmp_path / "other", "sqlite")
    assert there.config.database.url == f"sqlite:///{there.folder}/rootward.db"
    assert there.config.pki_url == home.config.pki_url
    assert home.url in (there.folder / "rootward.toml.before").read_text()
    assert home.url not in (there.folder / "rootward.toml").read_text()


async def test_rows_of_an_older_schema_are_migrated(maker: Maker, sqlite_home: Backed, tmp_path: Path) -> None:
    """Made by hand as a program of then would have: the tables of version 0001, and this home's rows in them."""
    await life(sqlite_home)
    old = tmp_path / "old.db"
    with dump.loading(f"sqlite:///{old}") as conn, dump.snapshot(sqlite_home.url) as now:
        migrations.migrate(conn, "0001")
        for name, columns in dump.tables(conn):
            rows = [dict(zip(columns, row, strict=True)) for row in dump.rows(now, name, columns)]
            # The audit log began later: no leaves, no key of it.
            known = [row | ({"leaf": None} if name == "events" else {}) for row in rows]
            kept = [tuple(row.values()) for row in known if not str(row.get("name")).startswith("log.")]
            dump.load(conn, name, columns, [kept])
    (sqlite_home.folder / "rootward.db").unlink()
    old.rename(sqlite_home.folder / "rootward.db")
    made = sqlite_home.backup(tmp_path / "x.backup")
    assert made.head.schema == "0001"
    assert "heads" not in made.counts.tables
    assert verified(tmp_path / "x.backup").findings == []
    for to in DIALECTS:
        there = restored(tmp_path / "x.backup", tmp_path / to, maker.empty(to))
        with dump.snapshot(there.url) as conn:
            assert migrations.version_of(conn) == migrations.NEWEST
        async with there.serving() as again:
            await issue(again)


# ── What the backup does not know ─────────────────────────────────────────────────────────────────────────────────


def checkpoint(home: Backed) -> str:
    """The newest head that its host has seen."""
    return (home.folder / "log" / "checkpoint").read_text()


async def said(made: Open, kind: str) -> dict[str, Any]:
    """The data of the newest event of that kind."""
    found = await made.inst.db.read(lambda conn: events.list(conn, events.Filters(kind=kind)))
    return max(found, key=lambda event: event.n).values()


async def accept_log(home: Backed) -> None:
    """`rootward doctor --accept-log`."""
    db = homes.open_store(home.config)
    try:
        await homes.accept_log(home.config, db, {})
    finally:
        db.close()


def audited(home: Backed) -> list[str]:
    """What an audit of the home finds, without a server."""
    return [finding.detail for finding in homes.verify(home.folder, None, Report())]


@pytest.mark.invariant("I-57", "I-63")
async def test_two_restores_of_one_backup_never_sign_under_one_origin(sqlite_home: Backed, tmp_path: Path) -> None:
    await life(sqlite_home, whole=True)
    sqlite_home.backup(tmp_path / "x.backup")
    async with sqlite_home.serving() as original:
        await issue(original, "late.internal")
        await tick(original.inst)
    note, origins = checkpoint(sqlite_home), {parse_head(checkpoint(sqlite_home)).origin}
    for name, given in (("one", note), ("two", note), ("three", None), ("four", None)):
        there = restored(tmp_path / "x.backup", tmp_path / name, "sqlite", note=given)
        if given is not None:
            await accept_log(there)
        async with there.serving() as again:
            await issue(again)
            await tick(again.inst)
        origins.add(parse_head(checkpoint(there)).origin)
    assert len(origins) == 5


@pytest.mark.invariant("I-63")
@pytest.mark.parametrize("to", DIALECTS)
async def test_a_head_ahead_of_the_backup_halts_issuing_until_it_is_accepted(
    home: Backed, to: str, maker: Maker, tmp_path: Path
) -> None:
    known = await life(home, whole=True)
    made = home.backup(tmp_path / "x.backup")
    async with home.serving() as original:
        late = await issue(original, "late.internal")
        await tick(original.inst)
    there = restored(tmp_path / "x.backup", tmp_path / "other", maker.empty(to), note=checkpoint(home))
    size = parse_head(checkpoint(home)).size
    async with there.serving() as again:
        with pytest.raises(Problem, match=f"RW-LOG-BEHIND.*this host saw {size}.*--accept-log"):
            await issue(again)
        event = await said(again, "installation.restored")
        assert (event["missing"], event["head"]["size"]) == (size - made.head.events, size)
        assert event["missing"] >= 2  # the late certificate's
        assert event["tree_size"] == made.head.leaves
        await revoke(again.inst, known["good"].id, SUPERSEDED, again.admin)  # status goes on
        await publish.publish_due(again.inst)
        assert known["good"].serial in await listed(again)
        assert isinstance(await status(again, known["good"].serial), Revoked)
    async with there.serving() as again:  # a restart changes nothing
        with pytest.raises(Problem, match="RW-LOG-BEHIND"):
            await issue(again)
    await accept_log(there)
    async with there.serving() as again:
        fresh = await issue(again)
        assert fresh.serial != late.serial
        assert (await said(again, "log.accepted"))["was"]["size"] == size
        await tick(again.inst)
    assert audited(there) == []
    assert audited(home) == []
    own, other = (parse_head(checkpoint(one)).origin for one in (home, there))
    assert own != other


@pytest.mark.invariant("I-63")
@pytest.mark.parametrize("given", [True, False])
async def test_nothing_is_missing(home: Backed, given: bool, maker: Maker, tmp_path: Path) -> None:
    await life(home, whole=True)
    home.backup(tmp_path / "x.backup")
    note = checkpoint(home) if given else None
    there = restored(tmp_path / "x.backup", tmp_path / "other", maker.empty("sqlite"), note=note)
    async with there.serving() as again:
        await issue(again)
        event = await said(again, "installation.restored")
        assert event["missing"] == (0 if given else None)
        await tick(again.inst)
    assert audited(there) == []


@pytest.mark.invariant("I-57")
async def test_restored_twice_no_key_signs_two_logs(home: Backed, maker: Maker, tmp_path: Path) -> None:
    """Two installations from one history, and the original: each signs its own heads under its own key and name."""
    await life(home, whole=True)
    home.backup(tmp_path / "x.backup")
    homes_of_it = [home, *(restored(tmp_path / "x.backup", tmp_path / name, maker.empty("sqlite")) for name in "ab")]
    for one in homes_of_it:
        async with one.serving() as made:
            await issue(made)
            await tick(made.inst)
    heads = [parse_head(checkpoint(one)) for one in homes_of_it]
    assert len({head.origin for head in heads}) == len({head.signed[0] for head in heads}) == 3
    keys = [{path.name for path in (one.folder / "keys").glob("log-*.key")} for one in homes_of_it]
    assert [len(one) for one in keys] == [1, 1, 1]
    assert len(set.union(*keys)) == 3
    assert [audited(one) for one in homes_of_it] == [[], [], []]


async def test_a_head_of_another_history(home: Backed, maker: Maker, tmp_path: Path) -> None:
    """The right key, a size that the backup has, and another root: as dangerous as one that is ahead."""
    await life(home, whole=True)
    home.backup(tmp_path / "x.backup")
    async with home.serving() as made:
        opened = made.inst.log
        assert opened is not None
        draft = draft_head(opened.verifier, Frontier().extended([bytes(32)] * 3))
        note = finish_head(draft, sign(opened.key, opened.verifier.public, draft))
    there = restored(tmp_path / "x.backup", tmp_path / "other", maker.empty("sqlite"), note=note)
    async with there.serving() as again:
        with pytest.raises(Problem, match="RW-LOG-BEHIND"):
            await issue(again)


@pytest.mark.invariant("I-16")
@pytest.mark.parametrize("form", ["PEM", "DER"])
async def test_what_was_revoked_after_the_backup_stays_so_with_the_last_crl(
    home: Backed, form: str, maker: Maker, tmp_path: Path
) -> None:
    known = await life(home, whole=True)
    home.backup(tmp_path / "x.backup")
    async with home.serving() as original:
        late = await issue(original, "late.internal")
        for one in (known["good"], late):
            await revoke(original.inst, one.id, RevocationReason.KEY_COMPROMISE, original.admin)
        await publish.publish_due(original.inst)
        last = await served(original)
    crl = last.der
    if form == "PEM":
        crl = x509.load_der_x509_crl(crl).public_bytes(Encoding.PEM)
    without = restored(tmp_path / "x.backup", tmp_path / "without", maker.empty("sqlite"))
    async with without.serving() as made:
        assert await status(made, late.serial) == Unknown()
        assert await status(made, known["good"].serial) == Good()  # the danger, which the reference tells of
    there = restored(tmp_path / "x.backup", tmp_path / "other", maker.empty("sqlite"), crls=(crl,))
    async with there.serving() as made:
        assert (await said(made, "installation.restored"))["recalled"] == 2
        for one in (known["good"], late):  # of the late one there is its serial alone
            found = await status(made, one.serial)
            assert isinstance(found, Revoked)
            assert found.reason is RevocationReason.KEY_COMPROMISE
        assert {known["good"].serial, known["bad"].serial, late.serial} <= await listed(made)
        assert (await served(made)).number > last.number
        await tick(made.inst)
    assert audited(there) == []


@pytest.mark.invariant("I-16")
@pytest.mark.parametrize("to", DIALECTS)
async def test_a_hold_that_became_final_after_the_backup_is_final(
    home: Backed, to: str, maker: Maker, tmp_path: Path
) -> None:
    async with home.serving() as original:
        ids = [(await issue(original, f"{name}.internal")).id for name in ("compromised", "superseded", "held")]
        for id in ids:
            await revoke(original.inst, id, RevocationReason.CERTIFICATE_HOLD, original.admin)
        await tick(original.inst)
    home.backup(tmp_path / "x.backup")
    async with home.serving() as original:
        await revoke(original.inst, ids[0], RevocationReason.KEY_COMPROMISE, original.admin)
        await revoke(original.inst, ids[1], SUPERSEDED, original.admin)
        await publish.publish_due(original.inst)
        last = await served(original)
    there = restored(tmp_path / "x.backup", tmp_path / "other", maker.empty(to), crls=(last.der,))
    async with there.serving() as made:
        assert (await said(made, "installation.restored"))["recalled"] == 2
        rows = await books(made.inst)
        for id, reason in ((ids[0], RevocationReason.KEY_COMPROMISE), (ids[1], SUPERSEDED)):
            with pytest.raises(Problem):
                await release(made.inst, id, made.admin)
            found = await status(made, rows[id].serial)
            assert isinstance(found, Revoked)
            assert found.reason is reason
        keys = [rows[id].key_id for id in ids]
        assert await made.inst.db.read(lambda conn: [blocked.why(conn, key) for key in keys]) == [
            "keyCompromise",
            None,
            None,
        ]
        await release(made.inst, ids[2], made.admin)  # which is on hold in the list, too
        await tick(made.inst)
    assert audited(there) == []


async def test_a_crl_that_is_not_ours(sqlite_home: Backed, tmp_path: Path) -> None:
    await life(sqlite_home)
    sqlite_home.backup(tmp_path / "x.backup")
    async with sqlite_home.serving() as made:
        good = (await served(made)).der
    for bad in (b"", good[:-1] + bytes([good[-1] ^ 1]), b"-----BEGIN X509 CRL-----\n"):
        call = partial(restored, tmp_path / "x.backup", tmp_path / "other", crls=(bad,))
        assert refusal(call) == "RW-FIELD"
    assert nothing_but(tmp_path, "home", "x.backup")


@pytest.mark.parametrize("was", ["\n", "=\n", "/log/"])
async def test_what_is_no_head_of_this_log(sqlite_home: Backed, was: str, tmp_path: Path) -> None:
    await life(sqlite_home)
    sqlite_home.backup(tmp_path / "x.backup")
    note = checkpoint(sqlite_home).replace(was, "x")
    assert refusal(lambda: restored(tmp_path / "x.backup", tmp_path / "other", note=note)) == "RW-FIELD"
    assert nothing_but(tmp_path, "home", "x.backup")


# ── Refused ───────────────────────────────────────────────────────────────────────────────────────────────────────


def refusal(call: Any) -> str:
    """The code of the Problem."""
    with pytest.raises(Problem) as caught:
        call()
    return caught.value.code


def nothing_but(folder: Path, *names: str) -> bool:
    return {path.name for path in folder.iterdir()} == set(names)


def test_a_home_that_is_not_empty(sqlite_home: Backed, tmp_path: Path) -> None:
    sqlite_home.backup(tmp_path / "x.backup")
    before = sqlite_home.files()
    assert refusal(lambda: restored(tmp_path / "x.backup", sqlite_home.folder)) == "RW-HOME"
    assert sqlite_home.files() == before
    (tmp_path / "empty").mkdir()
    restored(tmp_path / "x.backup", tmp_path / "empty")


def test_a_database_that_is_not_empty(maker: Maker, tmp_path: Path) -> None:
    with maker.home("postgresql", tmp_path / "home") as home:
        home.backup(tmp_path / "x.backup")
        before = home.rows()
        assert refusal(lambda: restored(tmp_path / "x.backup", tmp_path / "other")) == "RW-CONFLICT"  # its own
        assert home.rows() == before
    assert nothing_but(tmp_path, "home", "x.backup")


def test_a_sqlite_database_elsewhere(sqlite_home: Backed, tmp_path: Path) -> None:
    sqlite_home.backup(tmp_path / "x.backup")
    url = f"sqlite:///{tmp_path}/elsewhere.db"
    assert refusal(lambda: restored(tmp_path / "x.backup", tmp_path / "other", url)) == "RW-CONFIG"
    assert nothing_but(tmp_path, "home", "x.backup")


@pytest.mark.parametrize("to", DIALECTS)
def test_a_newer_schema(sqlite_home: Backed, to: str, maker: Maker, tmp_path: Path, monkeypatch: Any) -> None:
    sqlite_home.backup(tmp_path / "x.backup")
    monkeypatch.setattr(migrations, "NEWEST", "0001")
    assert refusal(lambda: restored(tmp_path / "x.backup", tmp_path / "other", maker.empty(to))) == "RW-SCHEMA"
    assert any("version" in finding for finding in verified(tmp_path / "x.backup").findings)
    assert refusal(lambda: sqlite_home.backup(tmp_path / "y.backup")) == "RW-SCHEMA"
    assert nothing_but(tmp_path, "home", "x.backup")


def test_a_file_that_is_there(sqlite_home: Backed, tmp_path: Path) -> None:
    (tmp_path / "x.backup").write_text("mine")
    assert refusal(lambda: sqlite_home.backup(tmp_path / "x.backup")) == "RW-CONFLICT"
    assert (tmp_path / "x.backup").read_text() == "mine"


def damages(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Files that are not the one that was written, and the code that each must get."""
    line = data.index(b"\n") + 1
    yield "RW-BACKUP-FORMAT", b""
    yield "RW-BACKUP-FORMAT", data[: line - 1]
    yield "RW-BACKUP-FORMAT", data.replace(b'"version":1', b'"version":9', 1)
    yield "RW-BACKUP-DAMAGED", data[:line]
    yield "RW-BACKUP-DAMAGED", data[:-1]
    yield "RW-BACKUP-DAMAGED", data + b"\0"
    for at in range(line, len(data), max(1, len(data) // 16)):
        yield "RW-BACKUP-DAMAGED", data[:at]
        yield "RW-BACKUP-DAMAGED", data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


@pytest.mark.parametrize("to", DIALECTS)
def test_a_damaged_file_leaves_nothing(sqlite_home: Backed, to: str, maker: Maker, tmp_path: Path) -> None:
    whole = sqlite_home.backup(tmp_path / "x.backup").path.read_bytes()
    bad, database = tmp_path / "bad.backup", maker.empty(to)
    for code, data in damages(whole):
        bad.write_bytes(data)
        assert refusal(lambda: verified(bad)) == code
        assert refusal(lambda: restored(bad, tmp_path / "other", database)) == code
        assert nothing_but(tmp_path, "home", "x.backup", "bad.backup")
    other = kek_from_passphrase("another passphrase")
    assert (
        refusal(lambda: restored(tmp_path / "x.backup", tmp_path / "other", database, other)) == "RW-BACKUP-PASSPHRASE"
    )
    assert refusal(lambda: verified(tmp_path / "x.backup", other)) == "RW-BACKUP-PASSPHRASE"
    restored(tmp_path / "x.backup", tmp_path / "other", database)  # and the database is as empty as before


# ── What does not fit together is found ───────────────────────────────────────────────────────────────────────────


def findings(home: Backed, out: Path) -> str:
    """What checking a backup of it finds, in one line."""
    home.backup(out)
    return " ".join(verified(out).findings)


def test_a_whole_home_has_no_finding(home: Backed, tmp_path: Path) -> None:
    assert findings(home, tmp_path / "x.backup") == ""


def test_the_authoritys_key_is_gone(sqlite_home: Backed, tmp_path: Path) -> None:
    next((sqlite_home.folder / "keys").glob("issuing-*.key")).unlink()
    assert 'The key of "issuing" is not in the backup' in findings(sqlite_home, tmp_path / "x.backup")


async def test_an_authority_that_waits_for_its_certificate(home: Backed, tmp_path: Path) -> None:
    spec = AuthoritySpec(name="issuing-2", kind="issuing", common_name="Issuing 2")
    async with home.serving() as made:
        await asking.create(made.inst, spec, "root", "file", made.admin)
    assert findings(home, tmp_path / "x.backup") == ""
    next((home.folder / "keys").glob("issuing-2-*.key")).unlink()
    assert 'The key of "issuing-2", which waits for its certificate,' in findings(home, tmp_path / "y.backup")


def test_a_key_that_was_changed(sqlite_home: Backed, tmp_path: Path) -> None:
    path = next((sqlite_home.folder / "keys").glob("issuing-*.key"))
    line, sealed = path.read_bytes().splitlines()
    path.write_bytes(line + b"\n" + sealed[::-1] + b"\n")
    assert "issuing" in findings(sqlite_home, tmp_path / "x.backup")


def test_another_kek(sqlite_home: Backed, tmp_path: Path) -> None:
    (sqlite_home.folder / "kek").chmod(0o600)
    (sqlite_home.folder / "kek").write_text("0" * 64 + "\n")
    (sqlite_home.folder / "kek").chmod(0o400)
    assert "another key-encryption key" in findings(sqlite_home, tmp_path / "x.backup")


def test_a_kek_that_is_gone_or_open_to_others(sqlite_home: Backed, tmp_path: Path) -> None:
    (sqlite_home.folder / "kek").chmod(0o644)
    assert refusal(lambda: sqlite_home.backup(tmp_path / "x.backup")) == "RW-KEK"
    (sqlite_home.folder / "kek").unlink()
    assert refusal(lambda: sqlite_home.backup(tmp_path / "x.backup")) == "RW-KEK"
    assert nothing_but(tmp_path, "home")


def test_the_root_is_another(sqlite_home: Backed, tmp_path: Path) -> None:
    (sqlite_home.folder / "root.pem").write_text("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n")
    assert "root.pem" in findings(sqlite_home, tmp_path / "x.backup")


async def test_a_crl_above_the_last_number_claimed(home: Backed, tmp_path: Path) -> None:
    await life(home)
    db = open_database(home.url)
    db.write_sync(lambda conn: conn.execute(text("UPDATE crl_numbers SET number = 1")).rowcount)
    db.close()
    assert "above the last one claimed" in findings(home, tmp_path / "x.backup")


def test_keys_under_a_credential_are_not_opened_here(sqlite_home: Backed, tmp_path: Path) -> None:
    settings = sqlite_home.folder / "rootward.toml"
    settings.write_text(settings.read_text().replace('# source = "file:kek"', 'source = "credential:kek"'))
    made = sqlite_home.backup(tmp_path / "x.backup")
    assert "kek" not in made.counts.files
    found = verified(tmp_path / "x.backup")
    assert found.findings == []
    assert any("credential:kek" in note for note in found.notes)


# ── Beside the server ─────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_snapshot_does_not_see_what_comes_later(home: Backed) -> None:
    async with home.serving() as made:
        with dump.snapshot(home.url) as conn:
            before = dump.count(conn, "certificates")
            later = await issue(made)
            assert dump.count(conn, "certificates") == before
            columns = dict(dump.tables(conn))["certificates"]
            assert later.id not in {
                dict(zip(columns, row, strict=True))["id"] for row in dump.rows(conn, "certificates", columns)
            }
        with dump.snapshot(home.url) as conn:
            assert dump.count(conn, "certificates") == before + 1


def test_a_snapshot_writes_nothing(sqlite_home: Backed) -> None:
    """Not even as the last one to close: the WAL stays for the next server to take in."""

    def digests() -> dict[str, str]:
        return {
            name: hashlib.sha256((sqlite_home.folder / name).read_bytes()).hexdigest()
            for name in ("rootward.db", "rootward.db-wal")
        }

    writer = (
        "import os, sys; from rootward.store.db import open_database; from sqlalchemy import text\n"
        "db = open_database(sys.argv[1])\n"
        'db.write_sync(lambda conn: conn.execute(text("UPDATE facts SET at = at + 1")).rowcount)\n'
        "os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", writer, sqlite_home.url], check=False).returncode == KILL
    before = digests()
    with dump.snapshot(sqlite_home.url) as conn:
        assert dump.count(conn, "facts") >= 1
        with pytest.raises(sqlalchemy.exc.OperationalError, match="readonly"):
            conn.exec_driver_sql("DELETE FROM idempotency")
    assert digests() == before


@pytest.mark.parametrize("where", ["backup.begun", "backup.written"])
def test_a_backup_that_is_killed(home: Backed, where: str, tmp_path: Path) -> None:
    out = tmp_path / "x.backup"
    assert ended(f"{where}:kill", make, home, out) == KILL
    assert not out.exists()
    home.backup(out)
    assert nothing_but(tmp_path, "home", "x.backup")
    assert verified(out).findings == []


@pytest.mark.parametrize("where", ["restore.loaded", "restore.committed"])
@pytest.mark.parametrize("to", DIALECTS)
def test_a_restore_that_is_killed(sqlite_home: Backed, to: str, where: str, maker: Maker, tmp_path: Path) -> None:
    out, there = tmp_path / "x.backup", tmp_path / "other"
    sqlite_home.backup(out)
    database = maker.empty(to)
    assert ended(f"{where}:kill", restored, out, there, database) == KILL
    assert not there.exists()
    if (to, where) == ("postgresql", "restore.committed"):
        assert refusal(lambda: restored(out, there, database)) == "RW-CONFLICT"  # says what to do
        assert not there.exists()
        return
    restored(out, there, database)
    assert nothing_but(tmp_path, "home", "x.backup", "other")


def test_two_at_once(sqlite_home: Backed, tmp_path: Path) -> None:
    """The second one is refused, and leaves the first one's work alone."""
    sqlite_home.backup(tmp_path / "x.backup")
    work, part = tmp_path / ".other.restoring", tmp_path / ".y.backup.part"
    work.mkdir(mode=0o700)
    part.write_text("of the first one")
    (work / "of the first one").touch()
    with part.open() as writing:
        reading = os.open(work, os.O_RDONLY)
        fcntl.flock(writing, fcntl.LOCK_EX)
        fcntl.flock(reading, fcntl.LOCK_EX)
        assert refusal(lambda: sqlite_home.backup(tmp_path / "y.backup")) == "RW-CONFLICT"
        assert refusal(lambda: restored(tmp_path / "x.backup", tmp_path / "other")) == "RW-HOME"
        os.close(reading)
    assert part.read_text() == "of the first one"
    assert (work / "of the first one").exists()
    sqlite_home.backup(tmp_path / "y.backup")
    restored(tmp_path / "y.backup", tmp_path / "other")
    assert nothing_but(tmp_path, "home", "other", "x.backup", "y.backup")


@pytest.mark.parametrize("what", ["open to all", "of somebody else", "a link", "a file"])
def test_a_working_folder_that_is_not_ours(
    what: str, sqlite_home: Backed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would become the home, with the keys in it and with the rights that somebody else gave it."""
    sqlite_home.backup(tmp_path / "x.backup")
    work, there = tmp_path / ".other.restoring", tmp_path / "other"
    if what == "a link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        work.symlink_to(tmp_path / "elsewhere")
    elif what == "a file":
        work.touch()
    else:
        work.mkdir(mode=0o700)
        if what == "open to all":
            work.chmod(0o777)
        else:
            monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert refusal(lambda: restored(tmp_path / "x.backup", there)) == "RW-HOME"
    assert not there.exists()
    monkeypatch.undo()
    if what == "a link":
        assert list((tmp_path / "elsewhere").iterdir()) == []
    if work.is_dir() and not work.is_symlink():
        work.rmdir()
    else:
        work.unlink()
    restored(tmp_path / "x.backup", there)
    assert there.stat().st_mode & 0o777 == 0o700


# ── The command ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_command_line(sqlite_home: Backed, tmp_path: Path) -> None:
    import json

    secret, out = passphrase_file(tmp_path), tmp_path / "x.backup"
    made = cli("create", "--home", sqlite_home.folder, "--out", out, "--passphrase-file", secret, "--json")
    assert made.returncode == 0, made.stderr
    said = json.loads(made.stdout)
    assert said["size"] == out.stat().st_size
    assert said["store"] == "sqlite"
    checked = cli("verify", out, "--passphrase-file", secret, "--json")
    assert json.loads(checked.stdout)["tables"] == said["tables"]
    assert json.loads(checked.stdout)["findings"] == []
    next((sqlite_home.folder / "keys").glob("issuing-*.key")).unlink()
    cli("create", "--home", sqlite_home.folder, "--out", tmp_path / "y.backup", "--passphrase-file", secret)
    bad = cli("verify", tmp_path / "y.backup", "--passphrase-file", secret)
    assert bad.returncode == 1
    assert "issuing" in bad.stderr
    there = cli("restore", out, "--home", tmp_path / "o", "--passphrase-file", secret, "--database", "sqlite", "--json")
    assert there.returncode == 0, there.stderr
    assert json.loads(there.stdout)["tables"] == said["tables"]


def test_passphrases_that_are_refused(sqlite_home: Backed, tmp_path: Path) -> None:
    secret, out = passphrase_file(tmp_path), tmp_path / "x.backup"
    secret.chmod(0o644)
    done = cli("create", "--home", sqlite_home.folder, "--out", out, "--passphrase-file", secret)
    assert done.returncode == 1
    assert "The passphrase cannot be used for the backup (RW-BACKUP-PASSPHRASE)." in done.stderr
    assert "chmod 600" in done.stderr
    assert "--passphrase-file" in done.stderr
    assert cli("create", "--home", sqlite_home.folder, "--out", out).returncode == 2
    assert not out.exists()


def test_no_home(tmp_path: Path) -> None:
    secret = passphrase_file(tmp_path)
    done = cli("create", "--home", tmp_path / "none", "--out", tmp_path / "x", "--passphrase-file", secret)
    assert done.returncode == 1
    assert "RW-HOME" in done.stderr
