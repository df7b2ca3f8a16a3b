"""Values that only their own module makes: a check leaves a token that the type checker can follow.

`class DnsName(Sealed)` has no public constructor. The one function that checked the input makes it with
`DnsName._make(value=...)`; everything that needs the check takes the type. Fields are the class's annotations, set
once.
"""

from __future__ import annotations

import inspect
from typing import Any, Self, dataclass_transform


@dataclass_transform(frozen_default=True, kw_only_default=True)
class Sealed:
    """Immutable, compared and hashed by its fields, made by `_make` alone."""

    _fields: tuple[str, ...] = ()
    _field_set: frozenset[str] = frozenset()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        own = tuple(name for name in inspect.get_annotations(cls) if not name.startswith("_"))
        cls._fields = cls._fields + own
        cls._field_set = frozenset(cls._fields)

    def __init__(self, *args: object, **kwargs: object) -> None:
        raise TypeError(f"{type(self).__name__} is made by the check that it stands for, never by hand")

    @classmethod
    def _make(cls, **values: Any) -> Self:
        if values.keys() != cls._field_set:
            raise TypeError(f"{cls.__name__} has the fields {cls._fields}")
        made = object.__new__(cls)
        made.__dict__.update(values)
        return made

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} cannot be changed")

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self._fields)

    def __hash__(self) -> int:
        return hash((type(self), *(getattr(self, name) for name in self._fields)))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{n}={getattr(self, n)!r}' for n in self._fields)})"
