"""What is kept of an episode, in files outside every home: each use of a key, written and flushed before the signature
is handed back, and each exchange on the wire, written and flushed before the client goes on.

One JSON object a line, bytes in base64. A line that a kill cut off is left out by the reader: of a signature that was
not handed back, so that nobody can have it. Times are of CLOCK_MONOTONIC in seconds, the same in every process.
"""

from __future__ import annotations

import base64
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class Journal:
    """An append-only file. `put` returns once the line is on the disk."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._lock = threading.Lock()

    def put(self, **values: Any) -> None:
        """Bytes among the values become base64."""
        ready = {name: packed(value) if isinstance(value, bytes) else value for name, value in values.items()}
        line = json.dumps(ready).encode() + b"\n"
        with self._lock:
            os.write(self._file, line)
            os.fdatasync(self._file)

    def close(self) -> None:
        """No more lines."""
        os.close(self._file)


def packed(data: bytes) -> str:
    """Bytes as text."""
    return base64.b64encode(data).decode()


def unpacked(text: str) -> bytes:
    """The inverse."""
    return base64.b64decode(text)


def lines(folder: Path, pattern: str) -> Iterator[dict[str, Any]]:
    """Every whole line of the files of this pattern, file by file."""
    for path in sorted(folder.glob(pattern)):
        for line in path.read_bytes().split(b"\n")[:-1]:
            try:
                yield json.loads(line)
            except ValueError:
                continue  # cut off by a kill, and gone on with by nobody
