"""A layer between the PKCS#11 backend and its library: calls fail as a test says, it knows what was signed, and whether
each call came from within `Module.calls`.
"""

from __future__ import annotations

import threading
from collections import abc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pkcs11.types
import pytest
from pkcs11.exceptions import PKCS11Error, SessionCount

from rootward.keys import cryptoki
from tests.support.softhsm import MODULE

_DEVICE_ERROR = 0x30
_WRAPPED = (pkcs11.types.Slot, pkcs11.types.Token, pkcs11.types.Session, pkcs11.types.Object)


@dataclass
class Faults:
    """`before` and `after` give the errors that the next calls of a name end with, before or after the token did its
    part; `signed` are the messages (digests, where the backend hashes) that the token made a signature of. It takes
    `most` sessions, and `full` is set once it refused one.
    """

    module: cryptoki.Module
    before: dict[str, list[Exception]] = field(default_factory=dict)
    after: dict[str, list[Exception]] = field(default_factory=dict)
    signing: Callable[[], None] = lambda: None
    signed: list[bytes] = field(default_factory=list)
    most: int = 1000
    full: threading.Event = field(default_factory=threading.Event)
    sessions: int = 0
    outside: list[str] = field(default_factory=list)
    _counting: threading.Lock = field(default_factory=threading.Lock)

    def call(self, name: str, arguments: tuple[Any, ...], real: Callable[[], Any]) -> Any:
        if not self.module._inside:
            self.outside.append(name)
        self.fail(name)
        if name in ("open", "close"):
            self._count(name)
        if name == "sign":
            self.signing()
        value = real()
        if name == "sign":
            self.signed.append(arguments[0])
        if self.after.get(name):
            raise self.after[name].pop(0)
        return value

    def fail(self, name: str) -> None:
        if self.before.get(name):
            raise self.before[name].pop(0)

    def _count(self, name: str) -> None:
        with self._counting:
            if name == "close":
                self.sessions -= 1
            elif self.sessions >= self.most:
                self.full.set()
                raise SessionCount
            else:
                self.sessions += 1

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


class Start:
    """What starts and ends a module; any error of `initialize` is a device that is not there."""

    def __init__(self, real: Any, faults: Faults) -> None:
        self._real, self._faults = real, faults

    def finalize(self, nothing: None) -> int:
        self._faults.sessions = 0
        return int(self._real.finalize(nothing))

    def initialize(self, arguments: Any) -> int:
        try:
            self._faults.fail("initialize")
        except PKCS11Error:
            return _DEVICE_ERROR
        return int(self._real.initialize(arguments))


@contextmanager
def shimmed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Faults]:
    """All calls of SoftHSM's module in this process go through the shim, which is started anew whenever asked for. None
    comes from outside of `Module.calls`: a restart would not wait for it.
    """
    real: Any = cryptoki._Library
    module = cryptoki.module(str(MODULE))
    faults = Faults(module)
    with monkeypatch.context() as patch:
        patch.setattr(cryptoki, "RESTART_SECONDS", 0.0)
        patch.setattr(cryptoki, "_Library", lambda path: Shim(real(path), faults))
        patch.setattr(module, "_functions", Start(module._functions, faults))
        assert module.restart(module.generation)
        yield faults
        assert faults.outside == []
        faults.clear()
        patch.setattr(cryptoki, "_Library", real)
        assert module.restart(module.generation)
