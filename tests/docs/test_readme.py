"""README.md: every command runs as it stands, against a server that was started as `make start` starts it.

`make start` and `make test` themselves are not run here (one serves until it is stopped, the other is what runs this);
what they do is compared with the Makefile.
"""

from __future__ import annotations

import json

from cryptography import x509

from tests.docs.console import Terminal, commands
from tests.docs.markdown import ROOT, blocks, read

BY_HAND = {"make start", "make test"}


def typed() -> list[str]:
    """The commands that are run, in their order."""
    every = [command for block in blocks(read(ROOT / "README.md"), "console") for command in commands(block.text)]
    made = {command for command in every if command.startswith("make ")}
    assert {command.partition("#")[0].strip() for command in made} == BY_HAND
    return [command for command in every if command not in made]


def test_every_command(terminal: Terminal) -> None:
    revoked = False
    for command in typed():
        done = terminal.run(command)
        if command.startswith("rootward cert verify") and revoked:
            assert done.code == 1, done  # what it is for: a check that finds something ends with 1
            assert "revoked" in done.output
        else:
            assert done.code == 0, done
        if command.startswith("rootward cert revoke"):
            revoked = True
        if command.startswith("curl"):  # it ends with 0 whatever the server says
            issued = json.loads(done.stdout)
            certificate = x509.load_pem_x509_certificate(issued["certificate"].encode())
            assert issued["names"] == ["dns:b.internal"]
            assert (
                certificate.public_key()
                == x509.load_pem_x509_csr((terminal.folder / "var" / "b.csr").read_bytes()).public_key()
            )
    assert revoked
    made = {path.name for path in terminal.folder.iterdir()}
    assert made == {"var", ".venv"}  # nothing beside: a private key in the checkout is soon in a commit


def test_what_make_does() -> None:
    recipes = read(ROOT / "Makefile").split("\n")
    start = recipes[recipes.index("start: .venv/.run") + 1]
    test = recipes[recipes.index("test: .venv/.test") + 1 :][:4]
    assert start.strip() == "exec .venv/bin/rootward quickstart --home ./var $(ARGS)"
    assert test[0].strip() == "@tools/debian-packages.sh"  # before anything that needs their programs
    assert "-m pytest " in test[-1]
