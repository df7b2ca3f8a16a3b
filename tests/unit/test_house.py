"""The house's style, as far as ruff and mypy do not check it: size, docstrings, reasons, time.

Self-tests with made-up sources show that each rule can fail.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXPLAINED_OVER = 400
SPLIT_OVER = 600

# The codes, then at least two words: "noqa: S603  the program is ours", "type: ignore[arg-type]  # the stub is wrong".
SILENCED = re.compile(r"#\s*(?:ruff:\s*)?(?:noqa|type:\s*ignore)\b(?P<rest>.*)", re.IGNORECASE)
CODES = re.compile(r"^(?::\s*[A-Z]+[0-9]+(?:[,\s]+[A-Z]+[0-9]+)*|\[[^\]]*\])")

# A method of a class with another base fulfils what the base documents.
OWN_BASES = set("ABC Enum Exception Generic IntEnum NamedTuple Protocol Sealed StrEnum Struct object".split())

Function = ast.FunctionDef | ast.AsyncFunctionDef
Rule = Callable[[str], list[str]]


def size(source: str) -> list[str]:
    """Over 400 lines the module's docstring says why ("lines"); over 600 it is split."""
    count = len(source.splitlines())
    if count > SPLIT_OVER:
        return [f"1: {count} lines: split it"]
    if count > EXPLAINED_OVER and "lines" not in (ast.get_docstring(ast.parse(source)) or ""):
        return [f"1: {count} lines, and the docstring does not say why"]
    return []


def docstrings(source: str) -> list[str]:
    """Modules, public classes and functions say what they do; so do public methods of more than one statement."""
    tree = ast.parse(source)
    found = [] if ast.get_docstring(tree) or not tree.body else ["1: the module has no docstring"]
    for node in tree.body:
        if not isinstance(node, Function | ast.ClassDef) or node.name.startswith("_"):
            continue
        if ast.get_docstring(node) is None and "overload" not in words(node.decorator_list):
            found.append(f"{node.lineno}: {node.name} has no docstring")
        if isinstance(node, ast.ClassDef) and set(words(node.bases)) <= OWN_BASES:
            found += [
                f"{method.lineno}: {node.name}.{method.name} has no docstring"
                for method in node.body
                if isinstance(method, Function) and not method.name.startswith("_")
                if ast.get_docstring(method) is None and len(method.body) > 1
            ]
    return found


def words(nodes: list[ast.expr]) -> list[str]:
    """The last word of each expression: `Struct` of `msgspec.Struct`, `Protocol` of `Protocol[T]`."""
    bare = [node.value if isinstance(node, ast.Subscript) else node for node in nodes]
    return [node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "") for node in bare]


def reasons(source: str) -> list[str]:
    """Whoever silences a checker says why, behind the codes."""
    found = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        match = SILENCED.match(token.string) if token.type == tokenize.COMMENT else None
        if match and len(CODES.sub("", match["rest"]).strip(" #-:").split()) < 2:
            found.append(f"{token.start[0]}: a checker is silenced without a reason")
    return found


def clocks(source: str) -> list[str]:
    """No sleeping threads, and no time without a zone."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module == "time" and any(a.name == "sleep" for a in node.names):
            found.append(f"{node.lineno}: time.sleep")
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        owner, name = words([node.func.value])[0], node.func.attr
        if owner == "time" and name == "sleep":
            found.append(f"{node.lineno}: time.sleep")
        naive = name in {"utcnow", "utcfromtimestamp"} or (name == "now" and not node.args and not node.keywords)
        if owner == "datetime" and naive:
            found.append(f"{node.lineno}: a time without a zone")
    return found


def files(*folders: str) -> dict[str, str]:
    """Source texts by path."""
    return {
        str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
        for folder in folders
        for path in sorted((ROOT / folder).rglob("*.py"))
    }


@pytest.mark.parametrize("rule", [size, docstrings, reasons, clocks])
def test_the_house_keeps(rule: Rule) -> None:
    sources = files("src")
    assert "src/rootward/core/problems.py" in sources
    found = [f"{path}:{text}" for path, source in sources.items() for text in rule(source)]
    assert not found, "\n".join(found)


def test_the_tests_say_why_they_silence_a_checker() -> None:
    sources = files("tests", "bench")
    assert "tests/unit/test_house.py" in sources
    found = [f"{path}:{text}" for path, source in sources.items() for text in reasons(source)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("rule", "source"),
    [
        (size, '"""Short."""\n' + "x = 1\n" * 400),
        (size, '"""These lines belong together."""\n' + "x = 1\n" * 600),
        (docstrings, "x = 1"),
        (docstrings, '"""A."""\ndef f(): ...'),
        (docstrings, '"""A."""\nasync def f(): ...'),
        (docstrings, '"""A."""\nclass C: ...'),
        (docstrings, '"""A."""\nclass C(msgspec.Struct):\n  """C."""\n  def f(self):\n    a = 1\n    return a'),
        (reasons, "x = 1  # noqa"),
        (reasons, "x = 1  # noqa: S603"),
        (reasons, "x = 1  # noqa: S603, S607"),
        (reasons, "x = 1  # type: ignore[arg-type]"),
        (reasons, "x = 1  # type: ignore[arg-type, misc]  # mypy"),
        (reasons, "# ruff: noqa: S603"),
        (clocks, "import time\ntime.sleep(1)"),
        (clocks, "from time import sleep"),
        (clocks, "datetime.utcnow()"),
        (clocks, "datetime.now()"),
        (clocks, "import datetime\ndatetime.datetime.now()"),
    ],
)
def test_a_rule_finds_what_breaks_it(rule: Rule, source: str) -> None:
    assert len(rule(source)) == 1


@pytest.mark.parametrize(
    ("rule", "source"),
    [
        (size, '"""Long: these lines are one table."""\n' + "x = 1\n" * 500),
        (docstrings, ""),
        (docstrings, '"""A."""\ndef _f(): ...'),
        (docstrings, '"""A."""\nclass C(ec.PrivateKey):\n  """C."""\n  def f(self):\n    a = 1\n    return a'),
        (docstrings, '"""A."""\nclass C:\n    """C."""\n    @property\n    def f(self):\n        return 1'),
        (reasons, "x = 1  # noqa: S603  the program is ours\ny = '# noqa'"),
        (reasons, "x = 1  # noqa: S603, S607 - the program is ours"),
        (reasons, "x = 1  # type: ignore[arg-type]  # the stub is wrong"),
        (clocks, "datetime.now(UTC)\ndatetime.now(tz=UTC)\nasyncio.sleep(1)"),
    ],
)
def test_a_rule_lets_the_rest_pass(rule: Rule, source: str) -> None:
    assert rule(source) == []
