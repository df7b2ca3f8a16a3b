"""JSON that two readers cannot read in two ways: UTF-8, no half of a surrogate pair, no member twice, no NaN, no deeper
than `DEPTH` (RFC 8259).

RFC 8259 section 4 leaves duplicate names open, and most readers take the last one; so they are refused, by the standard
library's parser, before a typed decoder sees the text.
"""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

DEPTH = 32
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


class NotStrict(ValueError):
    """Not such JSON; the text says why, without anything of what was sent."""


class _Twice(ValueError):
    """A member name that stands twice in one object."""


def read(data: bytes | bytearray, *, depth: int = DEPTH) -> Any:
    """The value, containers nested at most `depth` deep. NotStrict otherwise. The caller bounds the size."""
    try:
        found = _DECODER.decode(data.decode("utf-8"))
        if _SURROGATE.search(data):
            # Half a pair is no character: no store and no answer could hold it (RFC 8259 8.2). The encoder finds it.
            json.dumps(found, ensure_ascii=False).encode("utf-8")
    except _Twice:
        raise NotStrict("A field stands twice in one JSON object.") from None
    except RecursionError:
        raise NotStrict(f"The JSON is nested more than {depth} levels deep.") from None
    except ValueError:
        raise NotStrict("The body is not JSON in UTF-8.") from None
    if data.count(b"{") + data.count(b"[") > depth and _is_deeper(found, depth):
        raise NotStrict(f"The JSON is nested more than {depth} levels deep.")
    return found


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise _Twice
    return made


def _constant(name: str) -> NoReturn:
    raise ValueError(name)  # NaN and the infinities are not JSON (RFC 8259 section 6)


_DECODER = json.JSONDecoder(object_pairs_hook=_pairs, parse_constant=_constant)


def _is_deeper(value: Any, levels: int) -> bool:
    """Whether containers are nested more than `levels` deep."""
    if not isinstance(value, dict | list):
        return False
    inside = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_is_deeper(item, levels - 1) for item in inside if isinstance(item, dict | list))
