"""A machine of a test's own, out of namespaces (network, mounts, processes): every port is free, the resolver is ours,
and what programs write below /etc, /run, /var/log and /var/www goes away.

`play` runs a module there; the rest is for that module, which is root: `settle`, then `serving`.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.support.dns import Dns
from tests.support.programs import SECONDS, environment, said, until
from tests.support.server import Server

T = TypeVar("T")
ROOT = Path(__file__).parents[2]
PLAY_SECONDS = 600  # a module's plays together; a test that waits for them has a longer timeout
HOST = "pki.internal"
PORTS = {"https": 8443, "mtls": 8444, "http": 8080}
COPIED = ("/etc", "/var/lib/apache2", "/var/www")
EMPTY = ("/run", "/var/log")
CERTBOT = tuple(f"/etc/letsencrypt/{name}" for name in ("accounts", "archive", "live", "renewal"))
MADE = ("/run/lock", "/var/log/apache2", "/var/log/nginx")


def apart() -> list[str]:
    """What a command is put behind to run there; all that it starts ends with it."""
    way = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if subprocess.run([*way, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("this machine lets nobody but root have namespaces of their own")
    # The shell stays, as the process that buries what servers leave behind: their scripts wait for the dead to go.
    return [*way, "sh", "-c", 'ip link set lo up && "$@"; exit $?', "sh"]


def settle(folder: Path) -> None:
    """Make the machine ours. `folder` keeps what is written."""
    for number, path in enumerate(COPIED):
        ours = folder / f"copy{number}"
        subprocess.run(["cp", "-a", path, str(ours)], check=True)
        if path == "/etc":
            (ours / "resolv.conf").unlink(missing_ok=True)
            (ours / "resolv.conf").write_text("nameserver 127.0.0.1\n")
            with (ours / "letsencrypt" / "cli.ini").open("a") as settings:
                settings.write(f"work-dir = {folder}/certbot\n")
        _mount("--bind", str(ours), path)
    for path in EMPTY:
        _mount("-t", "tmpfs", "none", path)
    for path in MADE:
        Path(path).mkdir()


def work(folder: Path, name: str, server: Server) -> Path:
    """A new home directory for somebody who works there, with root.pem in it. Nothing is left of who was there before:
    certbot knows of nothing, and the web's ports are free.
    """
    until(lambda: not any(map(_taken, (80, 443))), seconds=SECONDS)
    for path in CERTBOT:
        shutil.rmtree(path, ignore_errors=True)
    home = folder / name
    home.mkdir()
    shutil.copy(server.root, home / "root.pem")
    os.environ["HOME"] = str(home)
    return home


def _taken(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[Server]:
    """What `rootward quickstart --host pki.internal` serves; the machine's DNS knows all names below `.internal`."""
    server = Server(folder / "home", arguments=("--host", HOST))
    server.ports = PORTS
    with Dns(port=53), server:
        yield server


def outcomes(plays: Mapping[str, Callable[[], T]]) -> str:
    """Play one after the other; JSON of what each gave or which error it ended with: `{"gave"}` or `{"error"}`."""
    found: dict[str, dict[str, object]] = {}
    for name, play in plays.items():
        try:
            found[name] = {"gave": play()}
        except (AssertionError, OSError, subprocess.SubprocessError, ValueError):
            found[name] = {"error": traceback.format_exc()}
    return json.dumps(found)


def play(module: str, folder: Path, *arguments: str) -> dict[str, dict[str, Any]]:
    """Run a module of ours on such a machine: the last line that it prints, as JSON."""
    done = subprocess.run(
        [*apart(), sys.executable, "-m", module, str(folder), *arguments],
        cwd=ROOT,
        env=environment({"PATH": "/usr/bin:/bin:/usr/sbin:/sbin"}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PLAY_SECONDS,
        check=False,
    )
    assert done.returncode == 0, said(done)
    told: dict[str, dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return told
