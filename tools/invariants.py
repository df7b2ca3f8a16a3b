"""`make invariants`: every invariant of docs/reference/invariants.md with the tests that are marked to prove it.

Ends with 1 where a line that is not open has no test, or where the store takes part and one of the two has none.
"""

from __future__ import annotations

import contextlib
import io
import re
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
LINE = re.compile(r"^\| (I-\d\d) \| (.+?) \| (both|one|none) \| ?(.*?) ?\|$", re.MULTILINE)
DIALECTS = ("sqlite", "postgresql")


@dataclass(frozen=True)
class Promise:
    """One line of the document."""

    name: str
    text: str
    stores: str
    open: str


@dataclass
class Proofs:
    """Tests of one invariant: how many on each store, how many without one, and the functions they are."""

    counts: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    functions: set[str] = field(default_factory=set)


def promises(text: str) -> list[Promise]:
    """The lines of the document; ValueError unless they are I-01 to I-68, in order."""
    found = [Promise(*match.groups()) for match in LINE.finditer(text)]
    if [one.name for one in found] != [f"I-{number:02}" for number in range(1, 69)]:
        raise ValueError("the document does not have I-01 to I-68, each once, in order")
    return found


def missing(promise: Promise, proofs: Proofs) -> str:
    """What keeps a line from being proven; empty where nothing does."""
    if promise.open:
        return f"open: {promise.open}"
    if not proofs.functions:
        return "no test"
    lacking = [dialect for dialect in DIALECTS if promise.stores == "both" and not proofs.counts[dialect]]
    return f"no test on {' and '.join(lacking)}" if lacking else ""


class Collector:
    """A pytest plugin that reads the marks of whatever is collected."""

    def __init__(self) -> None:
        self.proofs: dict[str, Proofs] = defaultdict(Proofs)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Note each item under each invariant that it names."""
        for item in session.items:
            store = _store(item)
            for mark in item.iter_markers("invariant"):
                for name in mark.args:
                    self.proofs[name].counts[store] += 1
                    self.proofs[name].functions.add(item.nodeid.partition("[")[0])


def _store(item: pytest.Item) -> str:
    """The dialect that a test runs on, by its parameters, its name or its file's, or the fixtures that it asks for."""
    spec: Any = getattr(item, "callspec", None)
    words = {str(value) for value in spec.params.values()} if spec is not None else set()
    fixtures = " ".join(getattr(item, "fixturenames", ()))
    if "postgresql" in words or "sqlite" in words:
        return "postgresql" if "postgresql" in words else "sqlite"
    named = re.search(r"_(sqlite|postgres)", item.nodeid.partition("[")[0])
    if named is not None:
        return "sqlite" if named[1] == "sqlite" else "postgresql"
    if re.search(r"\bpostgres_(?:home|lab|url|world)\b", fixtures):
        return "postgresql"
    return "sqlite" if re.search(r"\bsqlite_|\bserver\b", fixtures) else "other"


def main(arguments: list[str]) -> int:
    """Collect, print, judge."""
    collector = Collector()
    quiet = ["--collect-only", "-qqq", "--no-header", "--no-summary", "-p", "no:cacheprovider"]
    with contextlib.redirect_stdout(io.StringIO()) as said:
        code = pytest.main([*quiet, *(arguments or [str(ROOT / "tests")])], plugins=[collector])
    if code != pytest.ExitCode.OK:
        print(f"{said.getvalue()}\nThe tests could not be collected ({code!r}).")
        return 2
    failed, lacking = 0, list[str]()
    print(f"{'name':5} {'sqlite':>6} {'postgr':>6} {'other':>6}  state")
    for promise in promises((ROOT / "docs/reference/invariants.md").read_text()):
        proofs = collector.proofs.pop(promise.name, Proofs())
        why = missing(promise, proofs)
        if why and not promise.open:
            failed += 1
            lacking.append(promise.name)
        counts = [proofs.counts[store] for store in (*DIALECTS, "other")]
        print(f"{promise.name:5} {counts[0]:6} {counts[1]:6} {counts[2]:6}  {why or 'proven'}  {promise.text}")
        for name in sorted(proofs.functions):
            print(f"{'':28}{name.removeprefix(str(ROOT) + '/')}")
    for name in sorted(collector.proofs):
        failed += 1
        print(f"{name}: a test names it, the document does not")
    print(f"{failed} lines are not proven{': ' + ', '.join(lacking) if lacking else ''}.")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
