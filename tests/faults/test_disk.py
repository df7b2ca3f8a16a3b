"""A disk that is full (F4): a real filesystem of 192 MiB, mounted where only the process sees it, without rights."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.faults import Home

MOUNT = 'mount -t tmpfs -o size=192m,mode=700 none "$1" && cp -a "$2/." "$1" && shift 2 && exec "$@"'


def namespace() -> list[str]:
    """How a process gets mounts of its own here: as root, else as a user who is root in there alone."""
    for way in (["unshare", "--mount"], ["unshare", "--user", "--map-root-user", "--mount"]):
        probe = [*way, "sh", "-c", "mount -t tmpfs none /mnt"]
        if subprocess.run(probe, capture_output=True, check=False).returncode == 0:
            return way
    pytest.skip("this machine lets nobody but root mount anything, not even in a namespace of their own")


@pytest.mark.invariant("I-25")
@pytest.mark.invariant("I-58")
def test_a_full_disk_stops_issuing_and_nothing_else(sqlite_home: Home, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    scene = [sys.executable, "-m", "tests.faults.disk", str(small), sqlite_home.token]
    command = [*namespace(), "sh", "-c", MOUNT, "sh", str(small), str(sqlite_home.folder), *scene]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
    assert done.stdout.splitlines()[-1] == "done"
