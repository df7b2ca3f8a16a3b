"""A private PostgreSQL server for the tests.

It lives in a temporary directory, listens on 127.0.0.1 and on a unix socket there, keeps its data as a real one does
(fsync on), and goes away with the process that started it, even when that one is killed. PostgreSQL refuses to run as
root: it then runs as `postgres` or `nobody`. Nothing is skipped when PostgreSQL is missing: the tests fail and
say what to install.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

import psycopg

from tests.support.ports import free_port

START_SECONDS = 60
STOP_SECONDS = 60

# Reads until this process is gone or closes the pipe, then ends whatever server runs in the directory, and removes it.
GUARD = """
cat >/dev/null
pid=$(head -n 1 "$1/data/postmaster.pid" 2>/dev/null)
if [ -n "$pid" ]; then
    kill -QUIT "$pid"
    for try in $(seq 100); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
fi
rm -rf "$1"
"""


class Postgres:
    """One server. `with Postgres() as server:` starts it and takes it away."""

    def __init__(self) -> None:
        self._bin = find_programs()
        self._account = unprivileged_account()
        self._password = secrets.token_hex(16)
        self._databases = 0
        self._prepared: dict[Callable[[str], object], str] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0
        self.directory = Path(tempfile.mkdtemp(prefix="rootward-pg-"))
        self._guard = subprocess.Popen(
            ["sh", "-c", GUARD, "guard", str(self.directory)], stdin=subprocess.PIPE, start_new_session=True
        )

    def __enter__(self) -> Self:
        try:
            self._create()
            self.port = free_port()
            self.start()
            with self._admin() as admin:
                admin.execute(f"CREATE ROLE rootward LOGIN PASSWORD '{self._password}'")
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def url(self, prepare: Callable[[str], object] | None = None) -> str:
        """The SQLAlchemy URL of a fresh database, owned by a role that is no superuser.

        With `prepare` (such as a migration) the database is a copy of one that `prepare(url)` was called on once.
        """
        template = "template1"
        if prepare is not None:
            if prepare not in self._prepared:
                made = self.url()
                prepare(made)
                self._prepared[prepare] = urlsplit(made).path[1:]
            template = self._prepared[prepare]
        self._databases += 1
        name = f"rootward_{self._databases}"
        with self._admin() as admin:
            admin.execute(f"CREATE DATABASE {name} TEMPLATE {template} OWNER rootward")
        return f"postgresql+psycopg://rootward:{self._password}@127.0.0.1:{self.port}/{name}"

    def drop(self, url: str) -> None:
        """Drop the database of a URL that `url()` gave, and end its connections."""
        with self._admin() as admin:
            admin.execute(f"DROP DATABASE IF EXISTS {urlsplit(url).path[1:]} WITH (FORCE)")

    def start(self) -> None:
        """Start the server again, on the same port; returns when it answers."""
        if self._process is not None and self._process.poll() is None:
            raise RuntimeError("PostgreSQL runs already")
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(self._bin / "postgres", "-D", self.directory / "data"),
                    *("-c", "listen_addresses=127.0.0.1", "-c", f"port={self.port}"),
                    *("-c", f"unix_socket_directories={self.directory}", "-c", "max_connections=200"),
                    *("-c", "max_wal_size=256MB"),  # it may be in memory
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **self._as_account(),
            )
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self._admin().close()
            except psycopg.OperationalError as problem:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"PostgreSQL did not start: {self.log()[-4000:]}") from problem
                time.sleep(0.02)
            else:
                return

    def stop(self, *, immediate: bool = False) -> None:
        """Stop the server; connections break. `immediate`: without a checkpoint, so that the next start recovers."""
        process = self._process
        if process is None or process.poll() is not None:
            raise RuntimeError("PostgreSQL does not run")
        process.send_signal(signal.SIGQUIT if immediate else signal.SIGINT)
        process.wait(STOP_SECONDS)

    def restart(self, *, immediate: bool = False) -> None:
        """Stop and start."""
        self.stop(immediate=immediate)
        self.start()

    def pause(self) -> None:
        """Stop the server and every backend in the middle of what they do (SIGSTOP); connections stay open."""
        for pid in self._family():
            os.kill(pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """Wake them up (SIGCONT)."""
        for pid in reversed(self._family()):
            os.kill(pid, signal.SIGCONT)

    def _family(self) -> list[int]:
        """The server's process, then its children."""
        if self._process is None:
            raise RuntimeError("PostgreSQL does not run")
        mine = self._process.pid
        children = Path(f"/proc/{mine}/task/{mine}/children").read_text().split()
        return [mine, *map(int, children)]

    def log(self) -> str:
        """What the server said since it was made."""
        path = self.directory / "log"
        return path.read_text(errors="replace") if path.exists() else ""

    def close(self) -> None:
        """Stop the server and remove everything. Further calls do nothing."""
        if self._process is not None and self._process.poll() is None:
            self.stop(immediate=True)
        if self._guard.stdin is not None:
            self._guard.stdin.close()
        self._guard.wait(STOP_SECONDS)

    def _create(self) -> None:
        password = self.directory / "password"
        password.touch(mode=0o600)
        password.write_text(self._password)
        if os.geteuid() == 0:
            for path in (self.directory, password):
                os.chown(path, self._account.pw_uid, self._account.pw_gid)
        made = subprocess.run(
            [
                *(self._bin / "initdb", "-D", self.directory / "data", "-U", "postgres", "--no-sync"),
                *("--encoding=UTF8", "--locale=C.UTF-8", "--auth=scram-sha-256", f"--pwfile={password}"),
            ],
            check=False,
            capture_output=True,
            text=True,
            **self._as_account(),
        )
        if made.returncode != 0:
            raise RuntimeError(f"initdb failed: {made.stderr}")

    def _admin(self) -> psycopg.Connection[Any]:
        return psycopg.connect(
            host="127.0.0.1",
            port=self.port,
            user="postgres",
            password=self._password,
            dbname="postgres",
            autocommit=True,
            connect_timeout=10,
        )

    def _as_account(self) -> dict[str, Any]:
        """Arguments for subprocess: another account where this one is root, a directory that it may enter."""
        account: dict[str, Any] = {"cwd": self.directory, "env": {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}}
        if os.geteuid() == 0:
            account |= {"user": self._account.pw_uid, "group": self._account.pw_gid, "extra_groups": []}
        return account


def find_programs() -> Path:
    """The directory of `initdb` and `postgres`: Debian keeps them off PATH; the newest version is taken."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name), reverse=True)
    for directory in debian:
        if (directory / "initdb").exists() and (directory / "postgres").exists():
            return directory
    found = shutil.which("initdb")
    if found is None:
        raise RuntimeError("PostgreSQL is missing: install the Debian package postgresql (`make test` does)")
    return Path(found).resolve().parent


def unprivileged_account() -> pwd.struct_passwd:
    """Who runs the server: this user, or where that is root, `postgres` or `nobody`."""
    if os.geteuid() != 0:
        return pwd.getpwuid(os.geteuid())
    names = {entry.pw_name for entry in pwd.getpwall()}
    return pwd.getpwnam("postgres" if "postgres" in names else "nobody")
