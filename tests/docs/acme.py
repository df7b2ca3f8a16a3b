"""Plays the pages of docs/acme as they stand: `python -m tests.docs.acme FOLDER`, on a machine of its own
(tests/support/machine.py), where the pages' addresses lead to a fresh installation.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tests.docs.console import Terminal, commands, expected
from tests.docs.markdown import ROOT, read
from tests.support.machine import outcomes, serving, settle, work
from tests.support.server import Server

PAGES = ROOT / "docs" / "acme"
# Name: page, where the program is if not where Debian has it, and whether it is new enough for all of the page.
PLAYS = {
    "certbot 5": ("certbot.md", f"{sys.prefix}/bin", True),
    "certbot 2": ("certbot.md", "", False),
    "lego": ("lego.md", "", True),
    "acme-client": ("acme-client.md", "", True),
    "caddy": ("caddy.md", "", True),
    "apache": ("apache.md", "", True),  # the last one: it keeps the ports
}
NEWER = "## What only newer versions do"  # a heading: what follows is left out where the program is an older one
_STEP = re.compile(
    r"^(?:[^\n]*`(?P<file>[^`\n]+)`:\n\n)?```(?P<language>[a-z]+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
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


def play(server: Server, page: Path, home: Path, *, newer: bool) -> list[tuple[str, str, str]]:
    """Do what the page says; profile, names and status of each certificate that it led to. AssertionError where a
    command ends otherwise than it should.
    """
    before = {item["id"] for item in issued(server)}
    (home / "node_modules").symlink_to(ROOT / ".node" / "node_modules")
    made = server.cli("acme", "eab", "create", "--profile", "peer", "--owner", "me", "--json")
    key = json.loads(made.stdout)
    terminal = Terminal(home, {})
    terminal.run(f"export KID={key['kid']} HMAC_KEY={key['hmac_key']}")
    text = read(page)
    for step in steps(text if newer else text.partition(NEWER)[0]):
        if step.file is not None:
            (home / step.file).write_text(step.text)
            continue
        for command in commands(step.text):
            done = terminal.run(command)
            assert done.code == expected(command), done
    return [
        (item["profile"], " ".join(sorted(item["names"])), item["status"])
        for item in issued(server)
        if item["id"] not in before
    ]


def issued(server: Server) -> list[dict[str, Any]]:
    """Every certificate of the inventory."""
    with server.client() as client:
        items: list[dict[str, Any]] = client.get("/api/v1/certificates?limit=500").json()["items"]
        return items


def act(server: Server, folder: Path, name: str) -> list[tuple[str, str, str]]:
    """One of the plays."""
    page, path, newer = PLAYS[name]
    os.environ["PATH"] = f"{path}:/usr/bin:/bin:/usr/sbin:/sbin" if path else "/usr/bin:/bin:/usr/sbin:/sbin"
    return play(server, PAGES / page, work(folder, name.replace(" ", "-"), server), newer=newer)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    settle(folder)
    with serving(folder) as server:
        sys.stdout.write(outcomes({name: partial(act, server, folder, name) for name in PLAYS}) + "\n")
