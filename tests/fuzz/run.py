"""`python -m tests.fuzz.run TARGET SECONDS` (`make fuzz`): atheris over one target, from its kept corpus.

What reaches new code is gathered in .fuzz/TARGET, a crasher is .fuzz/TARGET-crash-… and ends the run with another
status than 0. `SECONDS` 0 only writes the seeds of the target to .fuzz/TARGET; `merge` leaves in .fuzz/TARGET.kept
the fewest and smallest inputs that reach everything which was reached.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import shutil
import sys
from pathlib import Path

import atheris

HERE = Path(__file__).parent
GATHERED = HERE.parents[1] / ".fuzz"
ONE_SECONDS = 5  # for one input, instrumented, on a busy machine: a parser that is slower than that is a crasher
MIB = 600


def main(name: str, what: str) -> None:
    """Run, seed or merge."""
    kept, gathered = HERE / "corpus" / name, GATHERED / name
    gathered.mkdir(parents=True, exist_ok=True)
    if what == "0":
        for seed in importlib.import_module(f"tests.fuzz.{name}").seeds():
            (gathered / hashlib.sha1(seed, usedforsecurity=False).hexdigest()).write_bytes(seed)
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
    if what == "merge":
        fresh = GATHERED / f"{name}.kept"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir()
        flags += ["-merge=1", str(fresh), str(gathered)]
    else:
        flags += [f"-max_total_time={what}", str(gathered), str(kept)]
    os.chdir(GATHERED)
    atheris.Setup([sys.argv[0], *flags], target.one)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
