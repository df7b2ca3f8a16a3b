"""Whether an authority may issue, as a part of other statements (ADR 0020): of the intent, which must not follow a
freeze that has returned.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Boolean
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement


class MayIssue(FunctionElement[bool]):
    """Whether the authority of the name that is its one argument may issue now."""

    name = "may_issue"
    type = Boolean()
    inherit_cache = True


@compiles(MayIssue, "sqlite")
def _may_issue_sqlite(element: MayIssue, compiler: Any, **more: Any) -> str:
    name = compiler.process(element.clauses, **more)
    return f"EXISTS (SELECT 1 FROM authorities WHERE name = {name} AND frozen_at IS NULL AND retired_at IS NULL)"  # noqa: S608  # a place for a value


@compiles(MayIssue, "postgresql")
def _may_issue_postgresql(element: MayIssue, compiler: Any, **more: Any) -> str:
    # A plain subquery would look at the moment when the statement began, and miss a freeze since (migration 0005).
    return f"rootward_may_issue({compiler.process(element.clauses, **more)})"
