"""The KEK of a home, also while it is being changed: files are sealed with the current one, and opened with whichever
of the current, the old and the next one their header names. What lies beside the file `kek`:

    kek.next  made, and not used yet (or only by another host, which is further along)
    kek.old   something may still be sealed with it: a change goes on while it is another key than `kek`, and until it
              is overwritten: while it is destroyed, it is `.gone-kek.old`

The files are read again whenever something is sealed, and whenever an id is unknown. So a server that runs takes part
in a change without a restart, and nothing is sealed with the old one once `kek` is the new one. A process that has seen
a KEK opens with it until it ends.

A change is four steps, each durable before the next: `kek.next` is made; `kek` is linked to `kek.old`; `kek.next` is
renamed to `kek`; and, when nothing is sealed with it any more, `kek.old` is destroyed. Cut off anywhere, it is gone on
with by the same calls, which find out what is done.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

from rootward.core.problems import Problem
from rootward.keys import disk
from rootward.keys.keepsake import gone, remove
from rootward.keys.kek import Kek, Wrap, create_kek_file, kek_from_bytes, kek_from_file

OLD: Final = ".old"
NEXT: Final = ".next"


@dataclass(frozen=True)
class Change:
    """A change that goes on: what was sealed with `old` is sealed with `new` instead."""

    old: Kek
    new: Kek


@final
class Ring(Kek):
    """`read` gives the current KEK, then all others that may open something; it raises Problem RW-KEK."""

    __slots__ = ("_current", "_read", "_seen")

    def __init__(self, read: Callable[[], Sequence[Kek]]) -> None:
        self._read = read
        self._seen: dict[str, Kek] = {}
        self._current = self._look()

    @property
    def id(self) -> str:
        return self._current.id

    def wrap(self, salt: bytes, info: bytes) -> tuple[Wrap, bytes]:
        return self._look().wrap(salt, info)

    def unwrap(self, wrap: Wrap, salt: bytes, info: bytes) -> bytes:
        if wrap.id not in self._seen:
            self._look()
        return self._seen.get(wrap.id, self._current).unwrap(wrap, salt, info)

    def _look(self) -> Kek:
        found = self._read()
        self._seen |= {kek.id: kek for kek in found}
        self._current = found[0]
        return found[0]


def beside(path: Path) -> list[Kek]:
    """The KEK in the file `path` first, then those of a change. Problem RW-KEK."""
    found = [kek_from_file(path)]
    for name in (OLD, NEXT):
        other = _named(path, name)
        if os.path.lexists(other):
            try:
                found.append(kek_from_file(other))
            except Problem:
                if os.path.lexists(other):  # else it took its place, or was destroyed, just now
                    raise
    return found


def change_of(path: Path) -> Change | None:
    """The change of the KEK in the file `path` that goes on; None where none does. Problem RW-KEK."""
    old = _old(path)
    if old is None:
        return None
    new = kek_from_file(path)
    return None if old.id == new.id else Change(old, new)


def prepare(path: Path) -> Kek:
    """The next KEK, made unless it is there; nothing is sealed with it yet. Problem RW-KEK while a change goes on."""
    following = _named(path, NEXT)
    if change_of(path) is not None:
        raise Problem("RW-KEK", f"A change of {disk.quoted(path)} goes on. Let it come to its end first.")
    if not os.path.lexists(following):
        create_kek_file(following)
    return kek_from_file(following)


def link(path: Path) -> None:
    """The second step: the current KEK is `kek.old` too, and still the current one."""
    old = _named(path, OLD)
    if not os.path.lexists(old):
        os.link(path, old)
        disk.flush_folder(path.parent)


def take_over(path: Path) -> Change:
    """The third step: the next KEK is the current one, and the change goes on. Problem RW-KEK."""
    _named(path, NEXT).rename(path)  # at every moment there is a `kek`
    disk.flush_folder(path.parent)
    return Change(kek_from_file(_named(path, OLD)), kek_from_file(path))


def finish(path: Path, change: Change) -> None:
    """Destroy the old KEK: nothing is sealed with it any more. What is no longer that change is left alone. Problem
    RW-KEY-FILE where it cannot be destroyed: then the change goes on.
    """
    going = change_of(path)
    if going is not None and (going.old.id, going.new.id) == (change.old.id, change.new.id):
        remove(_named(path, OLD))


def _old(path: Path) -> Kek | None:
    """The old KEK, until it is overwritten: also under the name that it has while it is destroyed."""
    old = _named(path, OLD)
    with suppress(FileNotFoundError):
        return kek_from_bytes(disk.read(old, code="RW-KEK", limit=1024), disk.quoted(old))
    with suppress(FileNotFoundError):
        data = disk.read(gone(old), code="RW-KEK", limit=1024)
        with suppress(Problem):  # random bytes by now, and no key any more
            return kek_from_bytes(data, disk.quoted(old))
    return None


def _named(path: Path, name: str) -> Path:
    return path.with_name(path.name + name)
