"""The house's arrows go one way (docs/architecture.md): walks the imports of src/rootward and fails on any other arrow.

There is no list of exceptions. A module that stands in no known room fails too: a new room gets its row in `MAY` here
and its arrows in docs/architecture.md. Imports count wherever they stand: in a function, under TYPE_CHECKING, as a
literal of `import_module`.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "rootward"

# A room is a folder or module right under src/rootward. Each may import itself and what stands here.
RIM = {"server", "worker", "cli", "begin", "quickstart", "home", "lab", "backup", "__main__"}
BELOW_CA = {"store", "keys", "core", "egress", "telemetry"}
BELOW_FLEET = {"ca", *BELOW_CA}
BELOW_DOORS = {"fleet", *BELOW_FLEET}
MAY: dict[str, set[str]] = {
    "core": set(),
    "keys": {"core"},
    "store": {"core"},
    "egress": {"core"},
    "telemetry": {"core"},
    "agent": {"core"},
    "kernel": set(),
    "config": {"core"},
    "ca": BELOW_CA,
    "fleet": BELOW_FLEET,
    "protocols": BELOW_DOORS,
    "console": BELOW_DOORS,
    "signer": {"config", "kernel", "ca.sign", "keys", "core"},
    **{name: {*RIM, "signer", "agent", "config", "kernel", "protocols", "console", *BELOW_DOORS} for name in RIM},
}

# The signer process takes ca/sign.py and nothing else of ca: so that one (and the folder's own file, which comes along)
# stays on the signer's side of the wall.
SIGNING = {"rootward.ca", "rootward.ca.sign"}
SIGNING_MAY = {"ca.sign", "keys", "core"}

# core is pure. What else the standard library has there is bytes to values.
CORE_PACKAGES = {"cryptography", "idna", "msgspec", "joserfc", "cel", "yaml"}
IMPURE = set(
    "asyncio concurrent ctypes ftplib getpass glob http importlib io logging mmap multiprocessing os pathlib platform "
    "random sched secrets select selectors shutil signal smtplib socket socketserver sqlite3 ssl subprocess sys syslog "
    "tempfile threading time urllib.request uuid".split()
)
PURE_PARTS = {"pathlib.PurePath", "pathlib.PurePosixPath", "uuid.UUID", "io.BytesIO", "io.StringIO"}
IMPURE_CALLS = {"open", "input", "print", "now", "utcnow", "today", "random_serial_number", "generate_private_key"}


class Arrow(NamedTuple):
    """One import: `target` is a dotted name, with the imported member where there is one (`rootward.keys.sign_tbs`)."""

    line: int
    target: str


def arrows(module: str, tree: ast.Module, *, package: bool) -> Iterator[Arrow]:
    """Every import of a module, relative ones resolved."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (Arrow(node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".")
                above = parts[: len(parts) - node.level + (1 if package else 0)]
                base = ".".join([*above, *([base] if base else [])])
            yield from (Arrow(node.lineno, f"{base}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and called(node) in {"import_module", "__import__"}:
            name = node.args[0] if node.args else None
            if isinstance(name, ast.Constant) and isinstance(name.value, str):
                yield Arrow(node.lineno, name.value)
            else:
                yield Arrow(node.lineno, "")


def called(node: ast.Call) -> str:
    """The last word of what is called: `now` of `datetime.now(UTC)`."""
    if isinstance(node.func, ast.Attribute):
        return node.func.attr
    return node.func.id if isinstance(node.func, ast.Name) else ""


def room(target: str) -> str:
    """`ca` of `rootward.ca.issue`; empty for the root package and its members, which hold nothing but the version."""
    parts = target.split(".")
    return parts[1] if len(parts) > 1 and parts[1] != "__version__" else ""


def under(target: str, allowed: set[str]) -> bool:
    """Whether a target is one of the allowed rooms or modules, or lies below one."""
    return any(target == f"rootward.{name}" or target.startswith(f"rootward.{name}.") for name in allowed)


def ours(module: str, arrow: Arrow) -> Iterator[str]:
    """What is wrong with an import of our own."""
    here, there = room(module), room(arrow.target)
    if not there:
        return
    if there not in MAY:
        yield f"{arrow.target} stands in no known room"
    elif not under(arrow.target, {here, *MAY[here]} if here else set()):
        yield f"{here or 'the root package'} must not import {arrow.target}"
    if module in SIGNING and not under(arrow.target, SIGNING_MAY):
        yield f"{module} runs in the signer process: it must not import {arrow.target}"
    if arrow.target.endswith(".sign_tbs") and not may_sign(module):
        yield "only ca/sign.py may import sign_tbs"


def foreign(module: str, arrow: Arrow) -> Iterator[str]:
    """What is wrong with an import of somebody else's; only core is bound here."""
    if room(module) != "core" or arrow.target in PURE_PARTS:
        return
    top = arrow.target.split(".")[0]
    if top in sys.stdlib_module_names:
        if under(f"rootward.{arrow.target}", IMPURE):
            yield f"core is pure: it must not import {arrow.target}"
    elif top not in CORE_PACKAGES:
        yield f"core must not import {arrow.target}"


def findings(sources: dict[str, str]) -> list[str]:
    """Every wrong arrow; `sources` maps dotted names to source text, a folder's own file as `rootward.ca.__init__`."""
    found = []
    for name, source in sources.items():
        package = name.endswith(".__init__")
        module = name.removesuffix(".__init__")
        tree = ast.parse(source)
        if module != "rootward" and room(module) not in MAY:
            found.append(f"{name}: stands in no known room")
            continue
        for arrow in arrows(module, tree, package=package):
            wrong: Iterator[str]
            if not arrow.target:
                wrong = iter(["imports a module whose name cannot be read here"])
            elif arrow.target.split(".")[0] == "rootward":
                wrong = ours(module, arrow)
            else:
                wrong = foreign(module, arrow)
            found += [f"{name}:{arrow.line}: {text}" for text in wrong]
        found += [f"{name}:{text}" for text in deeds(module, tree)]
    return found


def deeds(module: str, tree: ast.Module) -> Iterator[str]:
    """What a module must not do, though its imports are right."""
    for node in ast.walk(tree):
        if room(module) == "core" and isinstance(node, ast.Call) and called(node) in IMPURE_CALLS:
            yield f"{node.lineno}: core is pure: it must not call {called(node)}"
        if isinstance(node, ast.Attribute) and node.attr == "sign_tbs" and not may_sign(module):
            yield f"{node.lineno}: only ca/sign.py may use sign_tbs"


def may_sign(module: str) -> bool:
    """Keys make `sign_tbs`, and one module uses it."""
    return room(module) == "keys" or module == "rootward.ca.sign"


def house() -> dict[str, str]:
    """The sources of the house."""
    return {
        ".".join(("rootward", *path.relative_to(SOURCE).with_suffix("").parts)): path.read_text(encoding="utf-8")
        for path in sorted(SOURCE.rglob("*.py"))
    }


def test_every_arrow_of_the_house_goes_the_right_way() -> None:
    sources = house()
    assert "rootward.core.problems" in sources
    found = findings(sources)
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("rootward.core.x", "import os"),
        ("rootward.core.x", "from os import urandom"),
        ("rootward.core.x", "import urllib.request"),
        ("rootward.core.x", "from pathlib import Path"),
        ("rootward.core.x", "import sqlalchemy"),
        ("rootward.core.x", "def f():\n    import time"),
        ("rootward.core.x", "from datetime import UTC, datetime\nn = datetime.now(UTC)"),
        ("rootward.core.x", "text = open('a').read()"),
        ("rootward.core.x", "from cryptography import x509\ns = x509.random_serial_number()"),
        ("rootward.core.x", "from rootward.keys import file"),
        ("rootward.core.x", "from .. import keys"),
        ("rootward.core.__init__", "from ..store import db"),
        ("rootward.core.x", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from rootward.store import db"),
        ("rootward.core.x", "import rootward.config"),
        ("rootward.store.x", "from rootward.keys import file"),
        ("rootward.keys.x", "from rootward import store"),
        ("rootward.keys.x", "from rootward import egress"),
        ("rootward.keys.x", "from importlib import import_module\nimport_module('rootward.ca.issue')"),
        ("rootward.keys.x", "import importlib\nimportlib.import_module(name)"),
        ("rootward.egress", "from rootward.store import db"),
        ("rootward.agent.x", "from rootward.keys import file"),
        ("rootward.agent.x", "from rootward.egress import dial"),
        ("rootward.ca.x", "from rootward.fleet import inventory"),
        ("rootward.ca.x", "from rootward.config import Config"),
        ("rootward.ca.x", "from rootward.keys import sign_tbs"),
        ("rootward.ca.x", "from rootward.keys.key import sign_tbs as s"),
        ("rootward.ca.x", "from rootward import keys\nkeys.sign_tbs(k, b)"),
        ("rootward.ca.sign", "from rootward.store import db"),
        ("rootward.ca.__init__", "from rootward.store import db"),
        ("rootward.fleet.x", "from rootward.protocols import rest"),
        ("rootward.protocols.x", "from rootward.console import pages"),
        ("rootward.console.x", "from rootward.protocols import rest"),
        ("rootward.protocols.x", "from rootward import config"),
        ("rootward.protocols.x", "from rootward.server import app"),
        ("rootward.config", "from rootward.store import db"),
        ("rootward.signer", "from rootward.ca import issue"),
        ("rootward.signer", "from rootward.store import db"),
        ("rootward.signer", "from rootward import ca"),
        ("rootward.__init__", "from rootward.core import problems"),
        ("rootward.utils", "x = 1"),
        ("rootward.helpers.x", "x = 1"),
        ("rootward.cli.x", "from rootward import helpers"),
    ],
)
def test_a_wrong_arrow_is_found(name: str, source: str) -> None:
    assert len(findings({name: source})) >= 1
    assert all(text.startswith(name) for text in findings({name: source}))


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("rootward.core.x", "import re, cel, msgspec\nfrom datetime import UTC\nfrom cryptography import x509"),
        ("rootward.core.x", "from rootward.core.times import rfc3339\nfrom . import names"),
        ("rootward.core.x", "from pathlib import PurePosixPath"),
        ("rootward.keys.x", "import os\nfrom rootward.core import problems\nfrom rootward.keys.key import sign_tbs"),
        ("rootward.store.x", "import sqlalchemy\nfrom rootward.core.problems import Problem"),
        ("rootward.ca.sign", "from rootward.keys import sign_tbs\nfrom rootward import core\nsign_tbs(k, b)"),
        ("rootward.ca.issue", "from rootward.ca import sign\nfrom rootward.store import certificates"),
        ("rootward.fleet.x", "from rootward.ca.issue import issue\nfrom rootward import egress, store"),
        ("rootward.protocols.acme.x", "from rootward.protocols import problems\nimport rootward"),
        ("rootward.console.x", "from rootward.fleet import inventory"),
        ("rootward.signer", "from rootward.ca.sign import sign\nfrom rootward.ca import sign\nimport rootward.config"),
        ("rootward.agent.x", "from rootward.core import names\nfrom rootward import __version__"),
        ("rootward.cli.x", "from rootward import config, console, server\nfrom rootward.agent import run"),
    ],
)
def test_a_right_arrow_is_none(name: str, source: str) -> None:
    assert findings({name: source}) == []
