"""A layer between the PKCS#11 backend and its library: calls fail as a test says, and it knows what was signed."""

from __future__ import annotations

from collections import abc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pkcs11.types
import pytest

from rootward.keys import cryptoki
from tests.support.softhsm import MODULE

_WRAPPED = (pkcs11.types.Slot, pkcs11.types.Token, pkcs11.types.Session, pkcs11.types.Object)


@dataclass
class Faults:
    """`before` and `after` give the errors that the next calls of a name end with, before or after the token did its
    part; `signed` are the messages (digests, where the backend hashes) that the token made a signature of.
    """

    before: dict[str, list[Exception]] = field(default_factory=dict)
    after: dict[str, list[Exception]] = field(default_factory=dict)
    signing: Callable[[], None] = lambda: None
    signed: list[bytes] = field(default_factory=list)

    def call(self, name: str, arguments: tuple[Any, ...], real: Callable[[], Any]) -> Any:
        if self.before.get(name):
            raise self.before[name].pop(0)
        if name == "sign":
            self.signing()
        value = real()
        if name == "sign":
            self.signed.append(arguments[0])
        if self.after.get(name):
            raise self.after[name].pop(0)
        return value

    def clear(self) -> None:
        self.before, self.after = {}, {}


class Shim:
    """One of the library's objects, and all that comes from it."""

    def __init__(self, real: Any, faults: Faults) -> None:
        self._real, self._faults = real, faults

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._real, name)
        if not callable(value):
            return self._shimmed(value)
        return lambda *a, **k: self._faults.call(name, a, lambda: self._shimmed(value(*a, **k)))

    def __getitem__(self, key: Any) -> Any:
        return self._real[key]

    def __setitem__(self, key: Any, value: Any) -> None:
        self._real[key] = value

    def _shimmed(self, value: Any) -> Any:
        if isinstance(value, list | tuple | abc.Iterator):
            return [self._shimmed(one) for one in value]
        return Shim(value, self._faults) if isinstance(value, _WRAPPED) else value


@contextmanager
def shimmed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Faults]:
    """All calls of SoftHSM's module in this process go through the shim, which is started anew whenever asked for."""
    faults = Faults()
    real: Any = cryptoki._Library
    module = cryptoki.module(str(MODULE))
    with monkeypatch.context() as patch:
        patch.setattr(cryptoki, "RESTART_SECONDS", 0.0)
        patch.setattr(cryptoki, "_Library", lambda path: Shim(real(path), faults))
        assert module.restart(module.generation)
        yield faults
        patch.setattr(cryptoki, "_Library", real)
        assert module.restart(module.generation)
