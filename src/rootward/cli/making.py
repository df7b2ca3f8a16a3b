"""What a ceremony makes has another name until everything is done: a ceremony that is cut off leaves nothing that
counts.
"""

from __future__ import annotations

from pathlib import Path

from rootward.keys import disk

RESULT = "result.json"


def making(folder: Path) -> Path:
    """What a folder is called while it is made."""
    return folder.with_name(f"{folder.name}.making")


def give_name(folder: Path) -> None:
    """Call what was made in `making(folder)` as it is to be called, durably. OSError, and both are as they were."""
    making(folder).rename(folder)
    disk.flush_folder(folder.parent)
