"""docs/acme: every command of every page runs as it stands, on a machine of its own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.acme import Step, steps
from tests.docs.markdown import ROOT, links, read, rows
from tests.support.machine import apart
from tests.support.programs import environment, run, said

PAGES = ROOT / "docs" / "acme"
OURS = Path(sys.prefix) / "bin"  # where certbot 5 is
PLAY_SECONDS = 240

# What a page leads to: profile, names, status of each certificate.
Made = tuple[str, str, str]
CERTBOT: list[Made] = [
    ("server", "dns:www.internal", "active"),
    ("server", "dns:www.internal", "revoked"),
    ("server", "dns:*.apps.internal dns:apps.internal", "active"),
    ("peer", "dns:node.internal", "active"),
]
CERTBOT_5: list[Made] = [("server", "ip:127.0.0.1", "active"), ("short", "dns:job.internal", "active")]
LEGO: list[Made] = [
    ("server", "dns:www.internal", "active"),
    ("server", "dns:www.internal", "revoked"),
    ("server", "dns:tls.internal", "active"),
    ("server", "dns:*.apps.internal dns:apps.internal", "active"),
    ("peer", "dns:node.internal", "active"),
]
ONE: list[Made] = [("server", "dns:www.internal", "active")]
PLAYS: dict[str, tuple[str, str, list[Made]]] = {
    "certbot 5": ("certbot", f"{OURS}:/usr/bin:/bin:/usr/sbin:/sbin", CERTBOT + CERTBOT_5),
    "certbot 2": ("certbot", "/usr/bin:/bin:/usr/sbin:/sbin", CERTBOT),
    "lego": ("lego", "", LEGO),
    "acme-client": ("acme-client", "", [("server", "dns:www.internal", "revoked")]),
    "caddy": ("caddy", "", ONE),
    "apache": ("apache", "", ONE),
}
VERSIONS = {
    "certbot.md": (["/usr/bin/certbot", "--version"], [str(OURS / "certbot"), "--version"]),
    "lego.md": (["dpkg-query", "-W", "-f", "${Version}", "lego"],),  # `lego --version` says "dev"
    "acme-client.md": (["node", "-p", "require('./node_modules/acme-client/package.json').version"],),
    "caddy.md": (["caddy", "version"],),
    "apache.md": (["/usr/sbin/apache2", "-v"],),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", list(PLAYS))
def test_every_command(name: str, tmp_path: Path) -> None:
    page, path, wanted = PLAYS[name]
    newer = "newer" if name != "certbot 2" else "older"
    play = [sys.executable, "-m", "tests.docs.acme", str(PAGES / f"{page}.md"), str(tmp_path), newer]
    done = subprocess.run(
        [*apart(), *play],
        cwd=ROOT,
        env=environment({"PATH": path or f"{os.environ['PATH']}:/usr/sbin:/sbin"}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PLAY_SECONDS,
        check=False,
    )
    assert done.returncode == 0, said(done)
    made = [
        (one["profile"], " ".join(sorted(one["names"])), one["status"])
        for one in json.loads(done.stdout.splitlines()[-1])
    ]
    assert set(made) == set(wanted)


def test_every_page_is_played_and_in_the_index() -> None:
    pages = {path.name for path in PAGES.glob("*.md")} - {"index.md"}
    assert pages == {f"{page}.md" for page, _, _ in PLAYS.values()} == VERSIONS.keys()
    assert pages <= set(links(read(PAGES / "index.md")))


@pytest.mark.parametrize("page", list(VERSIONS))
def test_the_versions_are_the_ones_that_run_here(page: str) -> None:
    """A version is named as MAJOR.MINOR, in the index and on the page."""
    found = [
        re.search(r"[0-9]+\.[0-9]+", said(run(*command, cwd=ROOT / ".node")))[0]  # type: ignore[index]  # then it fails
        for command in VERSIONS[page]
    ]
    (listed,) = (cells[2] for cells in rows(read(PAGES / "index.md"), "client") if page in cells[1])
    assert listed == ", ".join(found)
    told = read(PAGES / page)
    assert all(version in told for version in found)


def test_the_steps_of_a_page() -> None:
    page = "```console\n$ w\n```\n\n`a` and\n`b/c`:\n\n```sh\nx\n```\n\n```console\n$ y\n```\n\n```text\nz\n```\n"
    assert list(steps(page)) == [Step(None, "$ w\n"), Step("b/c", "x\n"), Step(None, "$ y\n")]
