"""Plays one page of docs/acme as it stands: `python -m tests.docs.acme PAGE FOLDER newer|older`, on a machine of its
own (tests/support/machine.py), where the page's addresses lead to a fresh installation.

The last line that it prints says what was issued (JSON: a list of {"profile", "names", "status"}).
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.docs.console import Terminal, commands, expected
from tests.docs.markdown import ROOT, read
from tests.support.machine import serving, settle

OWN = (None, "rootward-tls", "ocsp-responder")  # the authorities' and the server's own certificates
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


def play(page: Path, folder: Path, *, newer: bool) -> list[dict[str, object]]:
    """Do what the page says; AssertionError where a command ends otherwise than it should."""
    text = read(page)
    if not newer:
        text = text.partition(NEWER)[0]
    home = settle(folder)
    with serving(folder, home) as server:
        (home / "node_modules").symlink_to(ROOT / ".node" / "node_modules")
        made = server.cli("acme", "eab", "create", "--profile", "peer", "--owner", "me", "--json")
        key = json.loads(made.stdout)
        terminal = Terminal(home, {})
        terminal.run(f"export KID={key['kid']} HMAC_KEY={key['hmac_key']}")
        for step in steps(text):
            if step.file is not None:
                (home / step.file).write_text(step.text)
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
