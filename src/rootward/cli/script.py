"""A ceremony's script as it lies on the medium, with the files that it names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rootward.cli.paper import read_bytes
from rootward.core import paperwork
from rootward.core.problems import Problem
from rootward.core.script import LARGEST, Script, inputs_of, read_script, sha256_of


@dataclass(frozen=True)
class Paper:
    """`data` are the bytes at `path`, which everybody has reviewed; `files` what the script names, by SHA-256."""

    path: Path
    data: bytes
    script: Script
    files: Mapping[str, bytes]

    @property
    def sha256(self) -> str:
        return sha256_of(self.data)

    @property
    def base(self) -> Path:
        """What the script's folders are named from."""
        return self.path.parent


def read_paper(path: Path) -> Paper:
    """The script and everything that it names. Failure for what cannot be read, Problem for what is wrong."""
    data = read_bytes(path, LARGEST)
    script = read_script(data)
    files = {}
    for one in inputs_of(script):
        content = read_bytes(path.parent / one.file, paperwork.LARGEST)
        if sha256_of(content) != one.sha256:
            raise Problem(
                "RW-CEREMONY",
                f"{one.file} is another file than the script names: its SHA-256 is {sha256_of(content)}, "
                f"and the script has {one.sha256}.",
            )
        files[one.sha256] = content
    return Paper(path, data, script, files)
