"""A made-up server and a home that points at it; commands run inside the test's own process."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from rootward.cli.app import run
from tests.cli.fake import TOKEN, Fake, serve, tls_context
from tests.support.authority import Authority


@dataclass
class Result:
    code: int
    out: str
    err: str


class Rootward:
    """Runs command lines in an empty folder with a home of their own."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: object) -> Result:
        self._capsys.readouterr()
        code = run([str(argument) for argument in arguments])
        captured = self._capsys.readouterr()
        return Result(code, captured.out, captured.err)


@pytest.fixture(scope="session")
def authorities() -> tuple[Authority, Authority]:
    root = Authority("Fake Root")
    return root, Authority("Fake Issuing CA", root, path_length=0)


@pytest.fixture
def fake(authorities: tuple[Authority, Authority], tmp_path: Path) -> Iterator[Fake]:
    made = Fake(*authorities)
    folder = tmp_path / "tls"
    folder.mkdir()
    with serve(made.answer, tls_context(made.issuing, folder)) as port:
        made.port = port
        yield made


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Rootward:
    """A command line without any server in sight."""
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    for name in ("URL", "TOKEN_FILE", "CA_FILE", "HOME"):
        monkeypatch.delenv(f"ROOTWARD_{name}", raising=False)
    return Rootward(capsys)


@pytest.fixture
def rootward(bare: Rootward, fake: Fake) -> Rootward:
    """A command line whose `./var` is the home of the made-up server."""
    home = Path("var")
    home.mkdir()
    (home / "rootward.toml").write_text(f'hosts = ["127.0.0.1"]\nexternal_url = "{fake.url}"\n')
    (home / "admin.token").write_text(TOKEN + "\n")
    (home / "root.pem").write_text(fake.root.pem)
    return bare
