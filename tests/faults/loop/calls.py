"""Every call of `Database.write` in the sources, by file and function, and those of them that the loop's clients and
servers get to; the others have scenes of their own in `tests/faults/test_calls.py` and `test_acme_calls.py`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import rootward

SOURCE = Path(rootward.__file__).parent
# What no client of the loop asks for.
ELSEWHERE = frozenset(
    {
        "acme/validator.py:Validator.close",
        "ca/accounts.py:disable",
        "ca/agree.py:_tell",
        "ca/adopt.py:adopt",
        "ca/approve.py:_issue",
        "ca/audit.py:begin_export",
        "ca/authorities.py:_ask",
        "ca/authorities.py:install",
        "ca/authorities.py:settle",
        "ca/authorities.py:withdraw",
        "ca/bindings.py:create",
        "ca/bindings.py:revoke",
        "ca/clock.py:accept_clock",
        "ca/cross.py:add",
        "ca/cross.py:ask",
        "ca/cross.py:remove",
        "ca/cross.py:withdraw",
        "ca/destruction.py:carry_out",
        "ca/ending.py:crl_request",
        "ca/ending.py:revoke",
        "ca/founding.py:found",
        "ca/freeze.py:freeze",
        "ca/freeze.py:unfreeze_by",
        "ca/attempt.py:Attempt._sign",
        "ca/log.py:_begin",
        "ca/log.py:accept",
        "ca/people.py:_changed",
        "ca/profiles.py:_put",
        "ca/profiles.py:retire",
        "ca/proposals.py:_decide",
        "ca/proposals.py:give_up",
        "ca/proposals.py:propose",
        "ca/publish.py:accept",
        "ca/results.py:forget",
        "ca/records.py:_take_in",
        "ca/records.py:take_in",
        "ca/results.py:take_in",
        "ca/rewrap.py:rewrap",
        "ca/secret.py:shared",
        "ca/single.py:found",
        "ca/succession.py:_end",
        "ca/succession.py:_take_over",
        "ca/succession.py:written",
        "ca/trouble.py:lint_failed",
        "fleet/blocklist.py:add",
        "fleet/calendar.py:remind",
        "fleet/drill.py:_make_successor",
        "fleet/drill.py:_second_person",
        "fleet/drill.py:rehearse",
        "fleet/imports.py:_Import.take_in",
        "fleet/imports.py:import_certificates",
        "fleet/replacement.py:recount",
        "rootward/home.py:renew_admin_token",
        "rootward/worker.py:Worker.begin",
        "rootward/worker.py:Worker._holds",
        "rootward/worker.py:Worker._keep",
    }
)


def calls(source: Path) -> set[str]:
    """`folder/file.py:Class.function` of each `….db.write(…)`."""
    found: set[str] = set()
    for path in source.rglob("*.py"):
        for around, node in _walk(ast.parse(path.read_text()), ()):
            func = node.func
            if isinstance(func, ast.Attribute) and func.attr == "write" and ast.unparse(func.value).endswith("db"):
                found.add(f"{path.parent.name}/{path.name}:{'.'.join(around)}")
    return found


def _walk(node: ast.AST, around: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], ast.Call]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Call):
            yield around, child
        named = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        yield from _walk(child, (*around, child.name) if named else around)


CALLS = calls(SOURCE) - ELSEWHERE
