"""A machine of a test's own, out of namespaces (network, mounts, processes): every port is free, the resolver is ours,
and what programs write below /etc, /run, /var/log and /var/www goes away.

`apart()` is the command that makes it; in it, `settle` and `serving` have to be called by root.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.dns import Dns
from tests.support.server import Server

HOST = "pki.internal"
PORTS = {"https": 8443, "mtls": 8444, "http": 8080}
COPIED = ("/etc", "/var/lib/apache2", "/var/www")
EMPTY = ("/run", "/var/log")
MADE = ("/run/lock", "/var/log/apache2", "/var/log/nginx")


def apart() -> list[str]:
    """What a command is put behind to run there; all that it starts ends with it."""
    way = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    if subprocess.run([*way, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("this machine lets nobody but root have namespaces of their own")
    # The shell stays, as the process that buries what servers leave behind: their scripts wait for the dead to go.
    return [*way, "sh", "-c", 'ip link set lo up && "$@"; exit $?', "sh"]


def settle(folder: Path) -> Path:
    """Make the machine ours. `folder` keeps what is written; gives the home of who works there."""
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
    home = folder / "work"
    home.mkdir()
    os.environ["HOME"] = str(home)
    return home


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


@contextlib.contextmanager
def serving(folder: Path, home: Path) -> Iterator[Server]:
    """What `rootward quickstart --host pki.internal` serves on a machine whose DNS knows all names below `.internal`;
    `root.pem` is in the home.
    """
    server = Server(folder / "home", arguments=("--host", HOST))
    server.ports = PORTS
    with Dns(port=53), server:
        shutil.copy(server.root, home / "root.pem")
        yield server
