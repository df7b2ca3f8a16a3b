"""What `rootward acme snippet` prints works as pasted; what it calls tested is what is pasted here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rootward.cli.snippets import SNIPPETS
from tests.clients.acme.snippet import CLIENTS
from tests.docs.markdown import ROOT
from tests.support.machine import apart
from tests.support.programs import environment, said

PLAY_SECONDS = 240


def test_what_is_called_tested() -> None:
    assert {name for name, snippet in SNIPPETS.items() if snippet.tested} == CLIENTS.keys()


@pytest.mark.slow
@pytest.mark.parametrize("client", list(CLIENTS))
def test_it_works_as_pasted(client: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [*apart(), sys.executable, "-m", "tests.clients.acme.snippet", client, str(tmp_path)],
        cwd=ROOT,
        env=environment({"PATH": "/usr/bin:/bin:/usr/sbin:/sbin"}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PLAY_SECONDS,
        check=False,
    )
    assert done.returncode == 0, said(done)
