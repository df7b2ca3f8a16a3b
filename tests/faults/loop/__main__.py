"""`make test-kill N=2000`: the kill loop for as long as it takes, on SQLite and PostgreSQL in turn.

An episode is one home with some hundred kills and a judgement; number k has a seed of its own, so that a run that was
cut off goes on with `FROM=k`, and an episode with a finding is played again by `SEED=… FROM=k N=1`. The record of an
episode with findings is kept, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.faults.loop.drive import PLACES, Outcome, Tally, episode, plan
from tests.support.faults import Founder
from tests.support.postgres import Postgres
from tests.support.store import DIALECTS


def main() -> int:
    """Play episodes until there were so many kills."""
    parser = argparse.ArgumentParser(prog="make test-kill", description=__doc__)
    parser.add_argument("--kills", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--from", dest="first", type=int, default=0)
    told = parser.parse_args()
    tally: dict[str, Tally] = {}
    counts: Counter[str] = Counter()
    kills = findings = 0
    began = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="rootward-kill-"))
    with Postgres() as postgres:
        (folder / "founded").mkdir()
        founder = Founder(folder / "founded", postgres)
        number = told.first
        while kills < told.kills:
            outcome = play(founder, folder / str(number), told.seed * 10_000 + number, DIALECTS[number % len(DIALECTS)])
            kills += outcome.kills
            findings += len(outcome.findings)
            counts += outcome.counts
            for place, one in outcome.tally.items():
                whole = tally.setdefault(place, Tally())
                whole.kills += one.kills
                whole.orphans += one.orphans
                whole.missed += one.missed
            say(f"episode {number}: {outcome.kills} kills, {len(outcome.findings)} findings; {kills} of {told.kills}")
            for finding in outcome.findings:
                say(f"FINDING in episode {number} (SEED={told.seed} FROM={number} N=1): {finding}")
            if not outcome.findings:
                shutil.rmtree(folder / str(number))
            number += 1
    say(f"{'place':28} kills orphans missed")
    for name, one in sorted(tally.items()):
        say(f"{name:28} {one.kills:5} {one.orphans:7} {one.missed:6}")
    say(", ".join(f"{name} {count}" for name, count in sorted(counts.items())))
    orphans, took = sum(one.orphans for one in tally.values()), time.monotonic() - began
    say(f"seed {told.seed}: {kills} kills, {orphans} orphans, {findings} findings, {took:.0f} s")
    if findings:
        say(f"the records are in {folder}")
        return 1
    shutil.rmtree(folder)
    return 0


def play(founder: Founder, folder: Path, seed: int, dialect: str) -> Outcome:
    """One episode."""
    folder.mkdir()
    say(f"{dialect}, seed {seed}")
    with founder.home(dialect, folder) as home, episode(home, folder, seed) as going:
        going.say = say
        return going.run(plan(seed, len(PLACES)), calm_bytes=100_000)


def say(text: str) -> None:
    """Now, also into a pipe."""
    print(text, flush=True)  # noqa: T201  # this is what the command says


if __name__ == "__main__":
    sys.exit(main())
