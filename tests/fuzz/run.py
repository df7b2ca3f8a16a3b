"""`python -m tests.fuzz.run TARGET SECONDS` (`make fuzz`): atheris over one target, from its kept corpus.

What reaches new code is gathered in .fuzz/TARGET, a crasher is .fuzz/TARGET-crash-… and ends the run with another
status than 0. `SECONDS` 0 only writes the seeds of the target to .fuzz/TARGET; `keep` puts into
tests/fuzz/corpus/TARGET the smallest inputs that together take every step from line to line that any of them takes.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import atheris

HERE = Path(__file__).parent
GATHERED = HERE.parents[1] / ".fuzz"
ONE_SECONDS = 5  # for one input, instrumented, on a busy machine: a parser that is slower than that is a crasher
MIB = 600
LARGEST_KEPT = 8 * 1024  # bytes


def main(name: str, what: str) -> None:
    """Run, seed or merge."""
    kept, gathered = HERE / "corpus" / name, GATHERED / name
    gathered.mkdir(parents=True, exist_ok=True)
    if what == "0":
        for seed in importlib.import_module(f"tests.fuzz.{name}").seeds():
            (gathered / hashlib.sha1(seed, usedforsecurity=False).hexdigest()).write_bytes(seed)
        return
    if what == "keep":
        keep(importlib.import_module(f"tests.fuzz.{name}").one, gathered, kept)
        return
    with atheris.instrument_imports(include=["rootward"]):
        target = importlib.import_module(f"tests.fuzz.{name}")
    flags = [
        f"-max_len={target.LARGEST}",
        f"-timeout={ONE_SECONDS}",
        f"-rss_limit_mb={MIB}",
        f"-artifact_prefix={GATHERED}/{name}-",
        "-print_final_stats=1",
    ]
    flags += [f"-max_total_time={what}", str(gathered), str(kept)]
    os.chdir(GATHERED)
    atheris.Setup([sys.argv[0], *flags], target.one)
    atheris.Fuzz()


def keep(one: Callable[[bytes], None], gathered: Path, kept: Path) -> None:
    """The smallest first; one that takes no new step is left out."""
    kept.mkdir(parents=True, exist_ok=True)
    seen: set[tuple[str, int, int]] = set()
    for path in sorted([*kept.iterdir(), *gathered.iterdir()], key=lambda path: (path.stat().st_size, path.name)):
        data = path.read_bytes()
        found = steps(one, data) - seen
        seen |= found
        place = kept / hashlib.sha1(data, usedforsecurity=False).hexdigest()
        if found and len(data) <= LARGEST_KEPT:
            place.write_bytes(data)
        elif path.parent == kept:
            path.unlink()


def steps(one: Callable[[bytes], None], data: bytes) -> set[tuple[str, int, int]]:
    """The pairs of lines of ours that `one` goes through."""
    found: set[tuple[str, int, int]] = set()

    def trace(frame: FrameType, _event: str, _argument: object) -> Any:
        name = frame.f_code.co_filename
        if "/rootward/" not in name:
            return None
        last = frame.f_lineno

        def line(inner: FrameType, _event: str, _argument: object) -> Any:
            nonlocal last
            found.add((name, last, inner.f_lineno))
            last = inner.f_lineno
            return line

        return line

    sys.settrace(trace)
    try:
        one(data)
    finally:
        sys.settrace(None)
    return found


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
