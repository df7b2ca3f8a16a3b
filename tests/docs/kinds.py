"""The event kinds that the sources record, read from their syntax trees.

A kind is the first argument of `events.record`. Where that is a parameter of the function around the call, the
function's own callers say it, and so on. What cannot be read this way is an error: then a kind could be missing.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

Function = ast.FunctionDef | ast.AsyncFunctionDef
Names = dict[str, tuple[str, str]]
SOURCE = Path(__file__).parents[2] / "src" / "rootward"
SINK = ("rootward.store.events", "record")


@dataclass(frozen=True)
class Call:
    """A call, the module it stands in, and the functions around it, the innermost last."""

    module: str
    node: ast.Call
    around: tuple[Function, ...]


@dataclass(frozen=True)
class Recorder:
    """A function whose parameter number `at` (without `self`), called `name`, is a kind."""

    module: str
    function: str
    at: int
    name: str


@cache
def kinds_of(source: Path) -> dict[str, set[str]]:
    """`recorded` of everything below `source`; read once."""
    return recorded(house(source))


@cache
def nodes(source: Path) -> tuple[ast.AST, ...]:
    """Every node of every tree."""
    return tuple(node for tree in house(source).values() for node in ast.walk(tree))


@cache
def house(source: Path) -> dict[str, ast.Module]:
    """The syntax trees below `source`, the folder of the package `rootward`, by dotted name; read once."""
    return {
        ".".join(("rootward", *path.relative_to(source).with_suffix("").parts)): ast.parse(
            path.read_text(encoding="utf-8")
        )
        for path in sorted(source.rglob("*.py"))
    }


def recorded(trees: dict[str, ast.Module]) -> dict[str, set[str]]:
    """Each kind with the modules that say it. ValueError where a kind cannot be read."""
    found: dict[str, set[str]] = {}
    by_target: dict[tuple[str, str], list[Call]] = {}
    for module, tree in trees.items():
        names = imports(tree)
        for call in calls(module, tree):
            target = called(call, names)
            if target is not None:
                by_target.setdefault(target, []).append(call)
    waiting, known = [Recorder(*SINK, 0, "kind")], set[Recorder]()
    while waiting:
        recorder = waiting.pop()
        if recorder in known:
            continue
        known.add(recorder)
        for call in by_target.get((recorder.module, recorder.function), ()):
            for said in values(argument(call, recorder), call):
                if isinstance(said, Recorder):
                    waiting.append(said)
                else:
                    found.setdefault(said, set()).add(call.module)
    return found


def calls(module: str, tree: ast.AST, around: tuple[Function, ...] = ()) -> Iterator[Call]:
    """Every call below `tree`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Call):
            yield Call(module, node, around)
        yield from calls(module, node, (*around, node) if isinstance(node, Function) else around)


def called(call: Call, names: Names) -> tuple[str, str] | None:
    """Module and name of the function that is called, where it is one of a module or of `self`."""
    func = call.node.func
    if isinstance(func, ast.Name):
        return names.get(func.id, (call.module, func.id))
    if isinstance(func, ast.Attribute) and isinstance(func.value, ast.Name):
        if func.value.id == "self":
            return call.module, func.attr
        owner = names.get(func.value.id)
        return None if owner is None else (".".join(filter(None, owner)), func.attr)
    return None


def imports(tree: ast.Module) -> Names:
    """What each imported name stands for: (module, name in it)."""
    return {
        alias.asname or alias.name: (node.module or "", alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def argument(call: Call, recorder: Recorder) -> ast.expr:
    """What is given for the kind."""
    for keyword in call.node.keywords:
        if keyword.arg == recorder.name:
            return keyword.value
    if len(call.node.args) > recorder.at:
        return call.node.args[recorder.at]
    raise ValueError(f"{call.module}:{call.node.lineno}: a call without a kind")


def values(given: ast.expr, call: Call) -> Iterator[str | Recorder]:
    """The kinds that an expression can be, or the function whose callers say it."""
    if isinstance(given, ast.Constant) and isinstance(given.value, str):
        yield given.value
    elif isinstance(given, ast.IfExp):
        yield from values(given.body, call)
        yield from values(given.orelse, call)
    elif isinstance(given, ast.Name):
        yield from named(given.id, call)
    else:
        raise ValueError(f"{call.module}:{given.lineno}: a kind that cannot be read")


def named(name: str, call: Call) -> Iterator[str | Recorder]:
    """What a name stands for: a parameter of a function around, or what is assigned to it there."""
    for function in reversed(call.around):
        parameters = [one.arg for one in (*function.args.posonlyargs, *function.args.args) if one.arg != "self"]
        if name in parameters:
            yield Recorder(call.module, function.name, parameters.index(name), name)
            return
        assigned = [
            node.value
            for node in ast.walk(function)
            if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == name for t in node.targets)
        ]
        if assigned:
            for value in assigned:
                yield from values(value, call)
            return
    raise ValueError(f"{call.module}:{call.node.lineno}: nobody says what {name} is")
