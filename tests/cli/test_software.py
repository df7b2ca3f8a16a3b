"""What a transcript says of the software can be computed by others."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import rootward
from rootward.cli import software


def test_the_hash_of_the_package_is_what_a_shell_computes(tmp_path: Path) -> None:
    command = re.search(r"^ +(find .*)$", software.tree_sha256.__doc__ or "", re.MULTILINE)
    assert command is not None
    folder = Path(rootward.__file__).parent
    done = subprocess.run(["bash", "-c", command[1]], cwd=folder, capture_output=True, text=True, check=True)
    assert software.software().files == done.stdout.split()[0]
    (tmp_path / "a.py").write_text("1")
    before = software.tree_sha256(tmp_path)
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "a.pyc").write_text("2")
    assert software.tree_sha256(tmp_path) == before
    (tmp_path / "b").write_text("")
    assert software.tree_sha256(tmp_path) != before
