"""Where a token's PIN comes from: a file, read anew for each login, or somebody at the terminal, asked once. It is
never kept anywhere else.
"""

from __future__ import annotations

import functools
import getpass
from collections.abc import Callable
from pathlib import Path

from rootward.core.problems import Problem
from rootward.keys.disk import quoted, read

_LONGEST = 1024


def pin_file(path: Path) -> Callable[[], bytes]:
    """What the file has now. Calling it is a Problem `RW-CONFIG` where it has no PIN, or others may read it."""

    def pin() -> bytes:
        try:
            found = read(path, code="RW-CONFIG", limit=_LONGEST).rstrip(b"\n")
        except FileNotFoundError:
            raise Problem("RW-CONFIG", f"There is no {quoted(path)}, which has the PIN.") from None
        if not found:
            raise Problem("RW-CONFIG", f"{quoted(path)} is empty, and a PIN is not.")
        return found

    return pin


def pin_prompt() -> Callable[[], bytes]:
    """What is typed at the terminal, asked once for a process: a token that was away is logged in to again. Calling it
    is a Problem `RW-CONFIG` where there is no terminal, or nothing was typed.
    """

    @functools.cache
    def pin() -> bytes:
        try:
            typed = getpass.getpass("PIN of the key store: ").encode()
        except (EOFError, OSError) as error:
            raise Problem("RW-CONFIG", "A PIN was to be asked for, and there is no terminal to ask at.") from error
        if not typed:
            raise Problem("RW-CONFIG", "No PIN was typed.")
        return typed

    return pin
