"""A process that may not read and write every file, whoever runs the tests."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest

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


def as_owner(script: str, read_only: Path, *arguments: str | Path) -> str:
    """What a Python script prints that runs as a user has it: the owner of the file `read_only`, its first argument,
    who cannot write it. From root the right to do so (CAP_DAC_OVERRIDE) is taken.
    """
    prefix: tuple[str, ...] = ()
    if os.geteuid() == 0:
        setpriv = shutil.which("setpriv")
        if setpriv is None:
            pytest.skip("setpriv gives root's rights away, and is not here")
        prefix = (setpriv, "--bounding-set=-dac_override", "--inh-caps=-dac_override")
    return run(*prefix, sys.executable, "-c", _MEANS + script, str(read_only), *map(str, arguments)).stdout
