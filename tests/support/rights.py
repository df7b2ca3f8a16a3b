"""A process that may not read and write every file, whoever runs the tests."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tests.support.programs import run

_MEANS = """
import os, sys
try:
    os.close(os.open(sys.argv[1], os.O_WRONLY))
except PermissionError:
    pass
else:
    sys.exit("This process writes what it may not write.")
"""


def without(*rights: str) -> tuple[str, ...]:
    """The words before a command that take these capabilities of root's from it; none where nobody is root."""
    if os.geteuid() != 0:
        return ()
    taken = ",".join(f"-{right}" for right in rights)
    return ("setpriv", f"--bounding-set={taken}", f"--inh-caps={taken}")


def as_owner(script: str, read_only: Path, *arguments: str | Path) -> str:
    """What a Python script prints that runs as a user has it: the owner of the file `read_only`, its first argument,
    who cannot write it. From root the right to do so (CAP_DAC_OVERRIDE) is taken.
    """
    command = (*without("dac_override"), sys.executable, "-c", _MEANS + script, str(read_only))
    return run(*command, *map(str, arguments)).stdout
