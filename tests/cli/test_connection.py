"""Where the server, the token and the root come from: flag before environment before home."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from rootward.cli.connection import Flags, checked_url, resolve
from rootward.cli.failure import Failure
from tests.cli.conftest import Rootward
from tests.cli.fake import TOKEN, Fake
from tests.support.authority import Authority


def home(folder: Path, url: str, token: str) -> Path:
    folder.mkdir()
    (folder / "rootward.toml").write_text(f'hosts = ["var.test"]\nexternal_url = "{url}"\n')
    (folder / "admin.token").write_text(f"{token}\n")
    (folder / "root.pem").write_text(f"root of {folder.name}")
    return folder


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    home(tmp_path / "var", "https://var.test:1", "token-var")
    home(tmp_path / "other", "https://other.test:2", "token-other")
    (tmp_path / "t").write_text("token-t")
    (tmp_path / "ca").write_text("another root")
    return tmp_path


def found(flags: Flags, environ: dict[str, str]) -> tuple[str, str, str | None]:
    connection = resolve(flags, environ)
    return connection.url, connection.token, None if connection.ca_file is None else connection.ca_file.parent.name


def test_the_homes_own_order(places: Path) -> None:
    assert found(Flags(), {}) == ("https://var.test:1", "token-var", "var")
    assert found(Flags(), {"ROOTWARD_HOME": "other"}) == ("https://other.test:2", "token-other", "other")
    assert found(Flags(home=Path("var")), {"ROOTWARD_HOME": "other"})[1] == "token-var"


def test_each_value_has_its_own_order(places: Path) -> None:
    environ = {"ROOTWARD_URL": "https://env.test", "ROOTWARD_TOKEN_FILE": "t"}
    assert found(Flags(), environ)[:2] == ("https://env.test", "token-t")
    assert found(Flags(url="https://flag.test/"), environ)[:2] == ("https://flag.test", "token-t")
    assert found(Flags(token_file=places / "other" / "admin.token"), environ)[:2] == ("https://env.test", "token-other")
    assert resolve(Flags(ca_file=Path("ca")), environ | {"ROOTWARD_CA_FILE": "t"}).ca_file == Path("ca")
    assert resolve(Flags(), environ | {"ROOTWARD_CA_FILE": "ca"}).ca_file == Path("ca")


def test_on_its_own_machine_a_server_is_localhost(places: Path) -> None:
    (places / "var" / "rootward.toml").write_text(
        'external_url = "https://var.test:1"\n[listen]\nhttps = "127.0.0.1:7"'
    )
    assert found(Flags(), {})[0] == "https://localhost:7"


def test_without_a_home_the_system_decides_whom_to_trust(places: Path) -> None:
    connection = resolve(Flags(home=Path("nowhere"), url="https://a.test", token_file=Path("t")), {})
    assert connection.ca_file is None


def test_the_token_that_lies_about_is_not_sent_to_another_installation(places: Path) -> None:
    flags = Flags(url="https://elsewhere.test", ca_file=Path("ca"))
    with pytest.raises(Failure) as caught:
        resolve(flags, {})
    assert caught.value.exit == 2
    assert resolve(Flags(flags.url, None, flags.ca_file, Path("var")), {}).token == "token-var"
    (places / "ca").write_bytes((places / "var" / "root.pem").read_bytes())
    assert resolve(flags, {}).token == "token-var"


@pytest.mark.parametrize(
    "url",
    [
        "http://a.test",
        "a.test:8443",
        "https://",
        "https://u:p@a.test",
        "https://a.test/?x=1",
        "https://a.test:99999",
        "ftp://a",
    ],
)
def test_a_token_goes_over_https_only(url: str) -> None:
    with pytest.raises(Failure) as caught:
        checked_url(url)
    assert caught.value.exit == 2


@pytest.mark.parametrize("missing", ["rootward.toml", "admin.token"])
def test_what_is_missing_is_said(rootward: Rootward, missing: str) -> None:
    (Path("var") / missing).unlink()
    result = rootward("cert", "list")
    assert result.code == 2
    assert "Next: " in result.err


def test_options_may_stand_before_the_noun(rootward: Rootward, fake: Fake) -> None:
    fake.lists["certificates"] = []
    Path("var").rename("elsewhere")
    assert rootward("--home", "elsewhere", "--json", "cert", "list").out == '{"items":[],"next_cursor":null}\n'
    assert rootward("--home", "nowhere", "cert", "list", "--home", "elsewhere").code == 0


def test_a_server_that_is_not_there_is_exit_four(rootward: Rootward) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        result = rootward("cert", "list", "--url", f"https://127.0.0.1:{taken.getsockname()[1]}", "--home", "var")
    assert result.code == 4
    assert "is not reachable" in result.err
    assert "Next: " in result.err


def test_a_server_that_does_not_prove_itself_is_exit_four_and_gets_no_token(rootward: Rootward, fake: Fake) -> None:
    Path("strange.pem").write_text(Authority("Strange Root").pem)
    result = rootward("cert", "list", "--ca-file", "strange.pem", "--home", "var")
    assert result.code == 4
    assert "does not prove who it is" in result.err
    assert "strange.pem, SHA-256" in result.err
    assert fake.seen == []


def test_a_wrong_token_is_said_to_be_one(rootward: Rootward, fake: Fake) -> None:
    Path("var/admin.token").write_text("rw_wrong")
    result = rootward("cert", "list")
    assert result.code == 1
    assert "RW-UNAUTHENTICATED" in result.err
    assert "--token-file" in result.err
    assert TOKEN not in result.err + result.out


def test_the_command_line_starts_without_what_it_does_not_need() -> None:
    code = "import sys; import rootward.cli.app as a; a.run(['cert', 'list', '--help']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "rootward.cli.cert" in loaded
    assert not {"httpx", "cryptography", "sqlalchemy", "starlette", "rootward.cli.profile"} & loaded


def test_version() -> None:
    code = (
        "import sys; sys.argv[1:] = ['--version']; from rootward.cli import main; main(); print('typer' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["rootward", "0.1.0", "False"]
