"""Lists of which everybody sees another part: read in batches, until a page of what may be seen is full."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

_BATCH = 500


class Numbered(Protocol):
    """A row that has a number."""

    @property
    def n(self) -> int: ...


Row = TypeVar("Row", bound=Numbered)


def visible(
    read: Callable[[int | None, int], Sequence[Row]], may_see: Callable[[Row], bool], *, after: int | None, limit: int
) -> list[Row]:
    """What may be seen, at least one more than `limit` where there is so much. `read` gives rows after the one of a
    number, at most so many.
    """
    found: list[Row] = []
    while len(found) <= limit:
        batch = read(after, _BATCH)
        found += [row for row in batch if may_see(row)]
        if len(batch) < _BATCH:
            break
        after = batch[-1].n
    return found
