"""docs/ceremonies/custodians.md: its commands run as they stand, and its page is one that the program prints."""

from __future__ import annotations

from pathlib import Path

from rootward.core.pubkey import KeyAlgorithm
from rootward.keys import BACKENDS, Argon2, KeySettings
from rootward.keys.quorum import make_quorum
from rootward.keys.share_file import printed, read_header, typed
from tests.docs.console import Terminal, commands, expected
from tests.docs.markdown import ROOT, blocks, read

DOCUMENT = read(ROOT / "docs" / "ceremonies" / "custodians.md")
PEOPLE = {"Ada": "the passphrase of Ada", "Grace": "the passphrase of Grace"}


def test_the_page_is_a_page() -> None:
    (page,) = (block.text for block in blocks(DOCUMENT, "text"))
    data = typed(line for line in page.splitlines() if line.strip()[:1].isdigit())
    assert printed(data).rstrip("\n") == page.rstrip("\n")
    assert read_header(data).threshold == 3


def test_every_command(tmp_path: Path) -> None:
    made = make_quorum("root", PEOPLE, 2, cost=Argon2(memory_kib=8 * 1024, passes=1, lanes=1))
    key = BACKENDS["file"](KeySettings(folder=tmp_path / "keys", kek=made.kek)).generate("root", KeyAlgorithm.P256)
    (tmp_path / "keys" / f"root-{key.public.id[:16]}.key").rename(tmp_path / "root.key")
    for name, words in PEOPLE.items():
        (tmp_path / f"{name.lower()}.share").write_bytes(made.files[name])
        (tmp_path / f"{name.lower()}.pass").write_text(words + "\n")
        (tmp_path / f"{name.lower()}.pass").chmod(0o600)
    terminal = Terminal(tmp_path, {})
    terminal.run(f"export PATH={ROOT}/.venv/bin:$PATH")
    typed_ = [command for block in blocks(DOCUMENT, "console") for command in commands(block.text)]
    assert {command.split()[3] for command in typed_ if command.startswith("rootward")} == {
        "show",
        "print",
        "type",
        "check",
    }
    for command in typed_:
        done = terminal.run(command)
        assert done.code == expected(command), done
    assert "opens" in done.stdout
