"""What one version of a profile allows that another did not: for whoever has to agree to it.

A change counts as widening unless it is surely none: what this module does not know is said to widen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from rootward.core.problems import Problem
from rootward.core.profile import Profile
from rootward.core.times import parse_duration


@dataclass(frozen=True)
class Difference:
    """A field (dotted), what it was and what it is, as plain values; `wider` where it may allow more."""

    field: str
    before: Any
    after: Any
    wider: bool


def differences(before: Profile, after: Profile) -> list[Difference]:
    """Every field in which they differ, in the profile's order."""
    old, new = dict(_fields(before)), dict(_fields(after))
    return [
        Difference(field, old[field], value, _RULES.get(field, _always)(old[field], value))
        for field, value in new.items()
        if old[field] != value
    ]


def values(profile: Profile) -> list[tuple[str, Any]]:
    """Every field (dotted) and its value, defaults too."""
    return list(_fields(profile))


def _fields(value: msgspec.Struct, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for field in msgspec.structs.fields(value):
        inner = getattr(value, field.name)
        name = f"{prefix}{field.encode_name}"
        if isinstance(inner, msgspec.Struct):
            yield from _fields(inner, f"{name}.")
        else:
            yield name, msgspec.to_builtins(inner)


def _always(_old: Any, _new: Any) -> bool:
    return True


def _never(_old: Any, _new: Any) -> bool:
    return False


def _more(old: Any, new: Any) -> bool:
    return any(one not in old for one in new)


def _fewer(old: Any, new: Any) -> bool:
    return any(one not in new for one in old)


def _greater(old: Any, new: Any) -> bool:
    return bool(new > old)


def _smaller(old: Any, new: Any) -> bool:
    return bool(new < old)


def _longer(old: Any, new: Any) -> bool:
    return _seconds(new) > _seconds(old)


def _shorter(old: Any, new: Any) -> bool:
    return _seconds(new) < _seconds(old)


def _seconds(text: str) -> float:
    try:
        return parse_duration(text).total_seconds()
    except Problem:
        return 0  # `0s`, which only a backdate may be


_RULES: dict[str, Callable[[Any, Any], bool]] = {
    "description": _never,
    "names.dns.allow": _more,
    "names.dns.wildcards": _greater,
    "names.ip": _more,
    "names.uri": _more,
    "names.email": _more,
    "names.minimum": _smaller,
    "names.maximum": _greater,
    "keys": _more,
    "key_usage": _more,
    "extended_key_usage": _more,
    "lifetime.default": _longer,
    "lifetime.maximum": _longer,
    "lifetime.minimum": _shorter,
    "lifetime.backdate": _longer,
    "policies": _more,
    "approval.sensitive": _fewer,
    "conditions": _fewer,
    "lint_ignores": _more,
}
