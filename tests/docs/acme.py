"""Plays one page of docs/acme as it stands, on a machine of its own: `python -m tests.docs.acme PAGE FOLDER`.

It runs as root in namespaces that tests/docs/test_acme.py made (network, mounts, processes). There the ports 53, 80,
443 and 8443 are free, the resolver is ours, and what the page writes below /etc and /var goes away. A server as
`rootward quickstart --host pki.internal` sets it up is what the page's addresses lead to. The last line that it prints
says what was issued (JSON: a list of {"profile", "names", "status"}).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.docs.console import Terminal, commands, expected
from tests.docs.markdown import ROOT, read
from tests.support.dns import Dns
from tests.support.server import Server

PORTS = {"https": 8443, "mtls": 8444, "http": 8080}
COPIED = ("/etc/apache2", "/etc/letsencrypt", "/var/lib/apache2")
EMPTY = ("/run", "/var/log")
MADE = ("/run/lock", "/var/log/apache2")
OWN = ("rootward-tls", "ocsp-responder")  # the server's own certificates, which nobody asked for
NEWER = "## What only newer versions do"  # a heading: what follows is left out where the program is an older one
_STEP = re.compile(
    r"^(?:.*`(?P<file>[^`\n]+)`:\n\n)?```(?P<language>[a-z]+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True)
class Step:
    """A file to be written, or commands to be run where it has no name."""

    file: str | None
    text: str


def steps(page: str) -> Iterator[Step]:
    """What the page says to do, in its order. A block that is neither a file nor `console` is only to be read."""
    for found in _STEP.finditer(page):
        if found["language"] == "console":
            yield Step(None, found["text"])
        elif found["file"] is not None:
            yield Step(found["file"], found["text"])


def settle(folder: Path) -> None:
    """Make the machine ours: the resolver, and folders that the programs write to."""
    (folder / "resolv.conf").write_text("nameserver 127.0.0.1\n")
    mount("--bind", str(folder / "resolv.conf"), os.path.realpath("/etc/resolv.conf"))
    for number, path in enumerate(COPIED):
        ours = folder / f"copy{number}"
        shutil.copytree(path, ours, symlinks=True)
        mount("--bind", str(ours), path)
    for path in EMPTY:
        mount("-t", "tmpfs", "none", path)
    for path in MADE:
        Path(path).mkdir()
    with Path("/etc/letsencrypt/cli.ini").open("a") as settings:
        settings.write(f"work-dir = {folder}/certbot\n")


def mount(*arguments: str) -> None:
    """mount(8)."""
    subprocess.run(["mount", *arguments], check=True)


def play(page: Path, folder: Path, *, newer: bool) -> list[dict[str, object]]:
    """Do what the page says; AssertionError where a command ends otherwise than it should."""
    text = read(page)
    if not newer:
        text = text.partition(NEWER)[0]
    settle(folder)
    work = folder / "work"
    work.mkdir()
    os.environ["HOME"] = str(work)
    server = Server(folder / "home", arguments=("--host", "pki.internal"))
    server.ports = PORTS
    with Dns(port=53), server:
        shutil.copy(server.root, work / "root.pem")
        (work / "node_modules").symlink_to(ROOT / ".node" / "node_modules")
        key = json.loads(server.cli("acme", "eab", "create", "--profile", "peer", "--owner", "me", "--json").stdout)
        terminal = Terminal(work, {})
        terminal.run(f"export KID={key['kid']} HMAC_KEY={key['hmac_key']}")
        for step in steps(text):
            if step.file is not None:
                (work / step.file).write_text(step.text)
                continue
            for command in commands(step.text):
                done = terminal.run(command)
                assert done.code == expected(command), done
        with server.client() as client:
            items = client.get("/api/v1/certificates?limit=500").json()["items"]
    return [
        {"profile": item["profile"], "names": item["names"], "status": item["status"]}
        for item in items
        if item["profile"] not in OWN
    ]


if __name__ == "__main__":
    page, folder, newer = sys.argv[1:]
    sys.stdout.write(json.dumps(play(Path(page), Path(folder), newer=newer == "newer")) + "\n")
