"""The tests' own PostgreSQL server does what the store and fault tests count on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.support.postgres import Postgres


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    """One of our own, since these tests stop it."""
    with Postgres() as own:
        yield own


def connect(url: str) -> psycopg.Connection[tuple[object, ...]]:
    return psycopg.connect(url.replace("+psycopg", ""))


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_each_url_is_an_empty_database_of_its_own(server: Postgres) -> None:
    first, second = server.url(), server.url()
    assert first.startswith("postgresql+psycopg://rootward:")
    with connect(first) as connection:
        connection.execute("CREATE TABLE t (n int)")
    with connect(second) as connection:
        assert connection.execute("SELECT to_regclass('t')").fetchone() == (None,)


def test_it_is_durable_and_local_and_its_user_is_no_superuser(server: Postgres) -> None:
    with connect(server.url()) as connection:
        for setting, expected in [
            ("fsync", "on"),
            ("full_page_writes", "on"),
            ("synchronous_commit", "on"),
            ("listen_addresses", "127.0.0.1"),
        ]:
            assert connection.execute(f"SHOW {setting}").fetchone() == (expected,)
        assert connection.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user").fetchone() == (False,)
        connection.execute("CREATE EXTENSION pg_trgm")


def test_a_prepared_database_is_made_once_and_copied(server: Postgres) -> None:
    calls = []

    def prepare(url: str) -> None:
        calls.append(url)
        with connect(url) as connection:
            connection.execute("CREATE TABLE t AS SELECT 7 AS n")

    urls = [server.url(prepare), server.url(prepare)]
    assert len(calls) == 1
    assert len({*urls, *calls}) == 3
    for url in urls:
        with connect(url) as connection:
            assert connection.execute("SELECT n FROM t").fetchone() == (7,)
            connection.execute("UPDATE t SET n = 8")


@pytest.mark.parametrize("immediate", [False, True])
def test_a_restart_breaks_connections_and_keeps_what_was_committed(server: Postgres, immediate: bool) -> None:
    url = server.url()
    with connect(url) as connection:
        connection.execute("CREATE TABLE t AS SELECT 1 AS n")
    held = connect(url)
    server.restart(immediate=immediate)
    with pytest.raises(psycopg.OperationalError):
        held.execute("SELECT 1")
    held.close()
    with connect(url) as connection:
        assert connection.execute("SELECT n FROM t").fetchone() == (1,)
    said = server.log().rsplit("starting PostgreSQL", 1)[1]
    assert ("automatic recovery in progress" in said) is immediate


def test_a_stopped_server_refuses_and_comes_back(server: Postgres) -> None:
    url = server.url()
    server.stop()
    with pytest.raises(psycopg.OperationalError):
        connect(url)
    with pytest.raises(RuntimeError, match="does not run"):
        server.stop()
    server.start()
    connect(url).close()


def test_a_dropped_database_is_gone_though_somebody_is_connected(server: Postgres) -> None:
    url = server.url()
    with connect(url) as held:
        server.drop(url)
        with pytest.raises(psycopg.OperationalError):
            held.execute("SELECT 1")
    with pytest.raises(psycopg.OperationalError):
        connect(url)


def test_nothing_is_left_when_the_tests_are_killed() -> None:
    program = """
        import time
        from tests.support.postgres import Postgres
        server = Postgres().__enter__()
        print(server.directory, (server.directory / "data/postmaster.pid").read_text().split()[0], flush=True)
        time.sleep(300)
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    root = Path(__file__).parents[2]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        directory, pid = child.stdout.readline().split()
        assert Path(directory).is_dir()
        assert alive(int(pid))
        child.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 30
    while (Path(directory).exists() or alive(int(pid))) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(directory).exists()
    assert not alive(int(pid))
