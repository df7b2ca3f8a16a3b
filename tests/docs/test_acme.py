"""docs/acme: every command of every page runs as it stands, on a machine of their own."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.docs.acme import PAGES, PLAYS, Step, steps
from tests.docs.markdown import ROOT, links, read, rows
from tests.support.machine import play
from tests.support.programs import run, said

OURS = Path(sys.prefix) / "bin"  # where certbot 5 is

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
WANTED: dict[str, list[Made]] = {
    "certbot 5": CERTBOT + CERTBOT_5,
    "certbot 2": CERTBOT,
    "lego": LEGO,
    "acme-client": [("server", "dns:www.internal", "revoked")],
    "caddy": ONE,
    "apache": ONE,
}
VERSIONS = {
    "certbot.md": (["/usr/bin/certbot", "--version"], [str(OURS / "certbot"), "--version"]),
    "lego.md": (["dpkg-query", "-W", "-f", "${Version}", "lego"],),  # `lego --version` says "dev"
    "acme-client.md": (["node", "-p", "require('./node_modules/acme-client/package.json').version"],),
    "caddy.md": (["caddy", "version"],),
    "apache.md": (["/usr/sbin/apache2", "-v"],),
}


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """All pages, one after the other."""
    return play("tests.docs.acme", tmp_path_factory.mktemp("pages"))


@pytest.mark.slow
@pytest.mark.timeout(660)  # the first one waits for all plays
@pytest.mark.parametrize("name", list(PLAYS))
def test_every_command(played: dict[str, dict[str, Any]], name: str) -> None:
    assert "error" not in played[name], played[name]["error"]
    assert {tuple(made) for made in played[name]["gave"]} == set(WANTED[name])


def test_every_page_is_played_and_in_the_index() -> None:
    pages = {path.name for path in PAGES.glob("*.md")} - {"index.md"}
    assert pages == {page for page, _, _ in PLAYS.values()} == VERSIONS.keys()
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
