"""docs/getting-serious.md: its commands run as they stand, on a server with SoftHSM and on a machine without a network.
What is typed at a terminal is answered at one. The bundle is installed as docs/ceremonies/offline-bundle.md says, whose
own test does so.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.docs.console import Terminal, commands, expected
from tests.docs.markdown import ROOT, blocks, read
from tests.support.outside import namespaces
from tests.support.ports import free_port
from tests.support.programs import until
from tests.support.softhsm import PIN, make_token
from tests.support.story import People, key_in
from tests.support.terminal import Person, Rule

PAGE = read(ROOT / "docs" / "getting-serious.md")
BIN = Path(sys.prefix) / "bin"
SIGNERS = ("Ada Lovelace", "Grace Hopper", "Alan Turing")
CUSTODIANS = ("Emmy", "Hedy", "Mary", "Karl", "Otto")
FINGERPRINTS = [line[2:] for line in PAGE.split("\n") if "-fingerprint" in line]
_ID = re.compile(r"The request is ([0-9a-f-]{36})")


def test_the_bundle_is_installed_as_its_own_page_says() -> None:
    told, here = (
        [line for block in blocks(page, "sh") for line in block.text.rstrip("\n").split("\n")]
        for page in (read(ROOT / "docs" / "ceremonies" / "offline-bundle.md"), PAGE)
    )
    assert len(here) == 5
    assert set(here) <= set(told)


class Reader:
    """Who follows the page in `folder`: at the server, and, for what is typed at a terminal, without a network."""

    def __init__(self, folder: Path, apart: Sequence[str]) -> None:
        self.apart, self.people, self.id, self.held = apart, People(folder), "ID", ""
        ports = {door: free_port() for door in ("http", "https", "mtls")}
        replaced = {
            "http://pki.example.com": f"http://localhost:{ports['http']}",
            "https://pki.example.com": f"https://localhost:{ports['https']}",
            "--host pki.example.com": "--host localhost",
            "/media/": f"{folder}/media/",
            "& echo $!": "> served.log 2>&1 & echo $!",
        }
        self.terminal = Terminal(folder, replaced)
        for medium in ("usb", "safe"):
            (folder / "media" / medium).mkdir(parents=True)
        self.hsm = make_token("issuing", folder / "hsm").environment
        exports = {"PATH": f"{BIN}:$PATH", **self.hsm}
        exports |= {f"ROOTWARD_{door.upper()}": f"127.0.0.1:{port}" for door, port in ports.items()}
        for name, value in exports.items():
            self.terminal.run(f"export {name}={value}")

    def types(self, command: str) -> None:
        """One command of the page, which ends as it says."""
        words = shlex.split(command)
        if words[:3] == ["rootward", "ceremony", "participant"]:
            self._participant(command, words[3], self.terminal.folder / words[-1])
        elif words[:3] == ["rootward", "ceremony", "run"]:
            self._run(command, self.terminal.folder / words[3])
        elif words[:3] == ["rootward", "ceremony", "sign"]:
            self._talk(command, self.people.signing(self.held))
        else:
            done = self.terminal.run(command.replace(" ID ", f" {self.id} "))
            if words[:2] == ["rootward", "doctor"]:  # its addresses are this machine's here, which it does not like
                assert re.findall(r"✗ (\w+)", done.output) == ["pki_url", "external_url"], done.output
            else:
                assert done.code == expected(command), done.output
            found = _ID.search(done.output)
            self.id = found[1] if found else self.id

    def _talk(self, command: str, rules: Sequence[Rule]) -> str:
        person = Person([*self.apart, "bash", "-eu", "-c", self.terminal.script(command)], self.terminal.folder)
        screen = person.converse(rules)
        assert person.code == 0, screen
        return screen

    def _participant(self, command: str, name: str, key: Path) -> None:
        screen = self._talk(command, self.people.keys())
        self.people.of(name).mkdir()
        (self.people.of(name) / "my.key").symlink_to(key)
        self.terminal.run(f"export {name.partition(' ')[0].upper()}={key_in(screen)}")

    def _run(self, command: str, script: Path) -> None:
        shares = script.parent / "shares"
        here = CUSTODIANS if script.stem == "first" else CUSTODIANS[1:4]
        self.held = self._talk(command, self.people.answers(script.read_bytes(), (*SIGNERS, *here)))
        if shares.exists():
            self.people.take_shares(shares)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_command(tmp_path: Path) -> None:
    apart = namespaces()
    if apart is None:
        pytest.skip("no network namespaces here")
    reader = Reader(tmp_path, apart)
    home = tmp_path / "home"
    (settings,) = blocks(PAGE, "toml")
    try:
        for command in [command for block in blocks(PAGE, "console") for command in commands(block.text)]:
            reader.types(command)
            if command.startswith("rootward init"):
                with (home / "rootward.toml").open("a") as file:
                    file.write(f"\n{settings.text}")
                (home / "hsm.pin").touch(mode=0o600)
                (home / "hsm.pin").write_text(PIN)
            if command.startswith("rootward serve"):
                until(lambda: "ready" in (tmp_path / "served.log").read_text(), seconds=60)
    finally:
        reader.terminal.run("test ! -e served.pid || kill $(cat served.pid) 2>/dev/null || true")
    first, again = (re.findall("(?i)fingerprint=.*", reader.terminal.run(command).output) for command in FINGERPRINTS)
    assert first == again != []
