"""Pastes what `rootward acme snippet` prints: `python -m tests.clients.acme.snippet FOLDER`, on a machine of its own
(tests/support/machine.py). Each client must then have, or serve with, a certificate that the root vouches for.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.clients.acme.world import names_of
from tests.support.machine import outcomes, serving, settle, work
from tests.support.programs import SECONDS, run, until
from tests.support.server import Server

NAMES = ("www.internal", "web.internal")
LIVE = Path("/etc/letsencrypt/live") / NAMES[0]


def paste(text: str, home: Path) -> None:
    """In a root shell, as a person does."""
    run("bash", "-eu", stdin=text, cwd=home)


def visit(root: Path, text: str) -> None:
    """Both sites answer over TLS with the text, within a minute."""
    for name in NAMES:
        ask = partial(run, "curl", "-sS", "--cacert", root, f"https://{name}/", codes=None)
        until(lambda ask=ask: text in ask().stdout, seconds=SECONDS)  # type: ignore[misc]  # a default is no argument


def good(root: Path, chain: Path) -> None:
    """The file is a certificate for the names, with what leads to the root."""
    run("openssl", "verify", "-CAfile", root, "-untrusted", chain, chain)
    assert names_of(chain) == {f"DNS:{name}" for name in NAMES}


def certbot(text: str, home: Path, root: Path) -> None:
    paste(text, home)
    good(root, LIVE / "fullchain.pem")
    assert f"REQUESTS_CA_BUNDLE={root}" in Path("/etc/systemd/system/certbot.service.d/root.conf").read_text()


def lego(text: str, home: Path, root: Path) -> None:
    paste(text, home)
    good(root, Path("/etc/lego/certificates") / f"{NAMES[0]}.crt")
    run(f"/etc/cron.daily/lego-{NAMES[0].replace('.', '-')}")


def nginx(text: str, home: Path, root: Path) -> None:
    run("nginx")
    try:
        paste(text, home)
        good(root, LIVE / "fullchain.pem")
        visit(root, "hello")
    finally:
        run("nginx", "-s", "quit")


def caddy(text: str, home: Path, root: Path) -> None:
    (home / "Caddyfile").write_text(text)
    # it does not let go of what it was started with
    with (home / "caddy.log").open("w") as log:
        command = ["caddy", "start", "--config", home / "Caddyfile"]
        subprocess.run(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=True)
    try:
        visit(root, "hello")
    finally:
        run("caddy", "stop")


def apache(text: str, home: Path, root: Path) -> None:
    run("service", "apache2", "start")
    paste(text, home)
    log = Path("/var/log/apache2/error.log")
    until(lambda: f"{NAMES[0]} has been setup" in log.read_text(), seconds=SECONDS)
    run("/etc/cron.daily/apache2-certificates")
    visit(root, "hello")


CLIENTS: dict[str, Callable[[str, Path, Path], None]] = {
    "certbot": certbot,
    "lego": lego,
    "nginx": nginx,
    "caddy": caddy,
    "apache": apache,  # the last one: it keeps the ports
}


def act(server: Server, folder: Path, root: Path, client: str) -> None:
    """One client's."""
    words = [part for name in NAMES for part in ("--name", name)]
    asked = ("--client", client, "--profile", "server", "--root", str(root), *words)
    CLIENTS[client](server.cli("acme", "snippet", *asked).stdout, work(folder, client, server), root)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    settle(folder)
    page = Path("/var/www/html")
    page.mkdir(parents=True, exist_ok=True)
    (page / "index.html").write_text("hello")
    with serving(folder) as server:
        root = Path(shutil.copy(server.root, "/etc/ssl/rootward.pem"))  # where every user can read it
        sys.stdout.write(outcomes({client: partial(act, server, folder, root, client) for client in CLIENTS}) + "\n")
