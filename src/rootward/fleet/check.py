"""One finding of `rootward doctor`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "warning", "error"]


@dataclass(frozen=True, slots=True)
class Check:
    """`mend` is what to do, None where the state is ok."""

    name: str
    state: State
    detail: str
    mend: str | None = None
