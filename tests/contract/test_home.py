"""A home directory: founding it in-process, its token's life, recovery, and what a home that is not right is told."""

from __future__ import annotations

import asyncio
import dataclasses
import socket
import stat
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from rootward import home as homes
from rootward import quickstart
from rootward.ca import clock
from rootward.ca.access import authenticate
from rootward.ca.installation import Installation
from rootward.config import Config, load_config
from rootward.core.problems import Problem
from rootward.store import authorities, events
from rootward.store.db import Database


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    for name in ("ROOTWARD_DATABASE", "ROOTWARD_HTTPS", "ROOTWARD_HTTP", "ROOTWARD_MTLS"):
        monkeypatch.delenv(name, raising=False)
    made = load_config(tmp_path / "home", {}, {"lab": True, "org": "Test"})
    homes.make_home(made)
    return made


@pytest.fixture
def founded(config: Config) -> Iterator[tuple[Config, Database]]:
    """A home with its PKI, made by the quickstart's own steps, the ceremony's process included."""
    db = homes.open_store(config)
    asyncio.run(quickstart._found(config, db, ["example.org"]))
    asyncio.run(quickstart._complete(config, db))
    yield config, db
    db.close()


def open_founded(config: Config, db: Database) -> Installation:
    return asyncio.run(homes.open_checked(config, db, {}))


def test_what_a_home_holds_and_who_may_read_it(founded: tuple[Config, Database]) -> None:
    home = founded[0].home
    assert {path.name for path in home.iterdir()} >= {
        "rootward.toml",
        "rootward.db",
        "kek",
        "keys",
        "root.pem",
        "admin.token",
        "ceremony",
        "offline-root",
    }
    modes = {
        name: stat.S_IMODE((home / name).stat().st_mode) for name in ("kek", "keys", "admin.token", "offline-root")
    }
    assert modes == {"kek": 0o400, "keys": 0o700, "admin.token": 0o600, "offline-root": 0o700}
    assert b"PRIVATE KEY" not in b"".join(path.read_bytes() for path in home.rglob("*") if path.is_file())


def test_a_ceremony_that_was_cut_off_is_held_again(config: Config) -> None:
    (config.home / "offline-root.making").mkdir()
    (config.home / "offline-root").mkdir(mode=0o700)
    db = homes.open_store(config)
    asyncio.run(quickstart._found(config, db, []))
    assert {row.name for row in db.read_sync(authorities.list)} == {"root", "issuing"}
    assert not (config.home / "offline-root.making").exists()
    db.close()


def test_a_founding_that_was_cut_off_after_the_ceremony_goes_on(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    db = homes.open_store(config)

    async def nothing(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(quickstart.founding, "found", nothing)
        with pytest.raises(KeyboardInterrupt):
            asyncio.run(quickstart._found(config, db, []))
    root = (config.home / "root.pem").read_bytes()
    asyncio.run(quickstart._found(config, db, []))
    assert (config.home / "root.pem").read_bytes() == root
    assert len(db.read_sync(authorities.list)) == 2
    assert db.read_sync(lambda conn: authorities.current_crl(conn, 1)) is None
    asyncio.run(quickstart._complete(config, db))  # what the next start does
    assert db.read_sync(lambda conn: authorities.current_crl(conn, 1)) is not None
    db.close()


def test_the_administrators_token_is_renewed_in_its_last_thirty_days(founded: tuple[Config, Database]) -> None:
    inst = open_founded(*founded)
    home = founded[0].home
    first = (home / "admin.token").read_text().strip()
    asyncio.run(homes.renew_admin_token(inst, home))
    assert (home / "admin.token").read_text().strip() == first

    real = inst.clock
    inst.clock = lambda: real() + timedelta(days=61)
    asyncio.run(homes.renew_admin_token(inst, home))
    second = (home / "admin.token").read_text().strip()
    assert second != first
    assert asyncio.run(authenticate(inst, second)).id == asyncio.run(authenticate(inst, first)).id
    inst.clock = lambda: real() + timedelta(days=62, minutes=1)
    assert asyncio.run(authenticate(inst, second)).name == "admin"
    with pytest.raises(Problem, match="RW-UNAUTHENTICATED"):
        asyncio.run(authenticate(inst, first))
    assert [e.kind for e in inst.db.read_sync(lambda conn: events.list(conn, events.Filters(kind="token.renewed")))]


def test_recovery_makes_a_new_token_and_ends_the_others(config: Config) -> None:
    db = homes.open_store(config)
    asyncio.run(quickstart._found(config, db, []))
    first = (config.home / "admin.token").read_text().strip()
    with pytest.raises(Problem, match="RW-HOME"):  # the store is held, as by a running server
        homes.recover(config.home, {})
    db.close()
    (config.home / "admin.token").unlink()
    homes.recover(config.home, {})
    db = homes.open_store(config)
    inst = open_founded(config, db)
    assert asyncio.run(authenticate(inst, (config.home / "admin.token").read_text().strip())).name == "admin"
    with pytest.raises(Problem, match="RW-UNAUTHENTICATED"):
        asyncio.run(authenticate(inst, first))
    assert db.read_sync(lambda conn: events.list(conn, events.Filters(kind="access.recovered")))
    db.close()


@pytest.mark.invariant("I-61")
def test_with_a_clock_that_ran_ahead_nothing_is_issued_until_it_is_accepted(founded: tuple[Config, Database]) -> None:
    config, db = founded
    inst = open_founded(config, db)
    real = inst.clock
    ahead = dataclasses.replace(inst, clock=lambda: real() + timedelta(days=400))
    asyncio.run(clock.note_clock(ahead))
    assert open_founded(config, db).process.halts()["clock"].code == "RW-CLOCK"
    asyncio.run(clock.accept_clock(inst))
    assert not open_founded(config, db).process.halts()
    assert db.read_sync(lambda conn: events.list(conn, events.Filters(kind="clock.accepted")))


@pytest.mark.invariant("I-61")
def test_a_key_that_is_not_its_certificates_is_fatal(founded: tuple[Config, Database]) -> None:
    config, db = founded
    (key,) = (config.home / "keys").glob("issuing-*.key")
    key.rename(key.with_name("issuing-" + "0" * 16 + ".key"))
    with pytest.raises(Problem, match="RW-KEY-MISSING"):
        open_founded(config, db)


@pytest.mark.invariant("I-36")
def test_a_root_with_an_online_key_is_never_loaded(founded: tuple[Config, Database]) -> None:
    config, db = founded
    db.write_sync(lambda conn: conn.exec_driver_sql("UPDATE issuers SET backend = 'file' WHERE authority = 'root'"))
    with pytest.raises(Problem, match="RW-CEREMONY"):
        open_founded(config, db)


def test_a_lost_kek_is_said_and_not_replaced(founded: tuple[Config, Database]) -> None:
    config, _ = founded
    (config.home / "kek").unlink()
    with pytest.raises(Problem, match="RW-KEK"):
        homes.make_home(config)
    assert not (config.home / "kek").exists()


def test_addresses_are_tried_before_anything_is_made(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        busy = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(Problem, match="RW-CONFIG"):
            quickstart.quickstart(
                home=tmp_path / "new", https=busy, mtls=None, http=None, hosts=[], org=None, domains=[]
            )
    assert not (tmp_path / "new").exists()


def test_a_folder_that_is_no_home_is_said(tmp_path: Path) -> None:
    with pytest.raises(Problem, match="RW-HOME"):
        homes.read_config(tmp_path, {})
