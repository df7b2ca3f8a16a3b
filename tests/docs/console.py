"""Runs the commands of `console` blocks as a reader would: one after the other, in one folder, in bash.

A line that begins with `$ ` is a command, one that ends in a backslash goes on in the next. `export` lines hold for
what follows. A comment `# exit code 3` says how a command ends; without one it ends with 0.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

SECONDS = 120
_EXIT = re.compile(r"# .*?exit code ([0-9])")


@dataclass(frozen=True)
class Done:
    """How a command ended; `output` is standard output and error together."""

    command: str
    code: int
    stdout: str
    output: str


@dataclass
class Terminal:
    """A folder, and what stands there for an address that the document names."""

    folder: Path
    replaced: Mapping[str, str]
    exports: list[str] = field(default_factory=list)

    def script(self, command: str) -> str:
        """What bash runs for it, with what was exported before."""
        for address, ours in self.replaced.items():
            command = command.replace(address, ours)
        return "\n".join([*self.exports, command])

    def run(self, command: str) -> Done:
        """Run one command to its end."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ROOTWARD_")}
        done = subprocess.run(
            ["bash", "-eu", "-o", "pipefail", "-c", self.script(command)],
            cwd=self.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        if command.startswith("export ") and done.returncode == 0:
            self.exports.append(command)
        return Done(command, done.returncode, done.stdout, done.stdout + done.stderr)


def commands(block: str) -> list[str]:
    """The commands of a block, each with its further lines. ValueError for a line that is none."""
    found: list[str] = []
    goes_on = False
    for line in block.rstrip("\n").split("\n"):
        if goes_on:
            found[-1] += "\n" + line
        elif line.startswith("$ "):
            found.append(line.removeprefix("$ "))
        else:
            raise ValueError(f"{line!r} is no command")
        goes_on = line.endswith("\\")
    return found


def expected(command: str) -> int:
    """The exit code that a command's comment promises."""
    match = _EXIT.search(command)
    return int(match[1]) if match else 0
