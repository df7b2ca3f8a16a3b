"""From a path to an operation. Exact bytes only: a path with an escape, an empty segment or a character that is not
one of the parameter's is nothing that exists (404), so no two spellings name one thing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from rootward.core.problems import Problem
from rootward.protocols.rest.operation import Operation

UUID = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
SERIAL = "(?:[0-9a-f]{2}){1,20}"  # DER content octets in hex
PARAMETERS: dict[str, re.Pattern[str]] = {
    "id": re.compile(f"{UUID}|[0-9a-f]{{32}}"),
    "certificate": re.compile(f"{UUID}|{SERIAL}"),
    "name": re.compile("[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?"),
    "sha256": re.compile("[0-9a-f]{64}"),
    "version": re.compile("[1-9][0-9]{0,8}"),
    "number": re.compile("[1-9][0-9]{0,17}"),
    "kid": re.compile("[A-Za-z0-9_-]{22}"),
    "account": re.compile("[A-Za-z0-9_-]{22}"),
}
MAX_PATH = 512


@dataclass(slots=True)
class _Node:
    """One place in the tree of paths."""

    fixed: dict[str, _Node] = field(default_factory=dict)
    parameter: str | None = None
    below: _Node | None = None
    methods: dict[str, Operation] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Match:
    """`operation` is None where the path exists and the method does not; `allow` are the methods that do."""

    operation: Operation | None
    path: dict[str, str]
    allow: str


class Routes:
    """The tree of all operations, built once. ValueError where two of them are the same method of the same path."""

    def __init__(self, operations: Iterable[Operation]) -> None:
        self._root = _Node()
        for operation in operations:
            self._add(operation)

    def _add(self, operation: Operation) -> None:
        node = self._root
        for segment in operation.url.split("/")[1:]:
            if not segment.startswith("{"):
                node = node.fixed.setdefault(segment, _Node())
                continue
            name = segment[1:-1]
            if name not in PARAMETERS or node.parameter not in (None, name):
                raise ValueError(f"{operation.url}: {segment} cannot stand here")
            node.parameter = name
            node.below = node.below or _Node()
            node = node.below
        if operation.method in node.methods:
            raise ValueError(f"{operation.method} {operation.url} is there twice")
        node.methods[operation.method] = operation
        if operation.method == "GET":
            node.methods["HEAD"] = operation  # RFC 9110 9.3.2

    def find(self, method: str, raw_path: bytes) -> Match:
        """The operation at a path as it came, undecoded. Problem RW-NOT-FOUND where there is no such path."""
        found: dict[str, str] = {}
        node = self._root
        if len(raw_path) > MAX_PATH or not raw_path.isascii():
            raise nothing_here()
        for segment in raw_path.decode("ascii").split("/")[1:]:
            fixed = node.fixed.get(segment)
            if fixed is not None:
                node = fixed
            elif node.parameter is not None and PARAMETERS[node.parameter].fullmatch(segment):
                found[node.parameter] = segment
                node = node.below or _Node()
            else:
                raise nothing_here()
        if not node.methods:
            raise nothing_here()
        return Match(node.methods.get(method), found, ", ".join(sorted(node.methods)))


def nothing_here() -> Problem:
    """The answer for every path that names nothing."""
    return Problem("RW-NOT-FOUND", "There is nothing at this address.")
