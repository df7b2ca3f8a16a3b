"""PKCS#11 modules and sessions of one token, safe for threads (PKCS#11 v3.1, sections 5.4 to 5.6).

The library that makes the calls (python-pkcs11) initializes a module with NULL, which says that no two threads will
call it at the same time; SoftHSM then leaves out its locks and corrupts its memory when they do. So a module is
initialized here, with CKF_OS_LOCKING_OK; one that cannot lock is called by one thread at a time.

A login belongs to the process and not to a session: one session logs in and stays, the others share it. Everything a
session or an object handle stood for may be gone after any call; `Away` says that the token cannot be asked now, and
that nothing was asked of it.

This module is imported only where a pkcs11 key store is configured: the library is an extra. It has over 400 lines,
because what a module's lock and a token's sessions promise holds only together.
"""

from __future__ import annotations

import _ssl
import ctypes
import hashlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final, final

import pkcs11
import structlog
from pkcs11 import _pkcs11
from pkcs11.exceptions import (
    PinIncorrect,
    PinInvalid,
    PinLenRange,
    PinLocked,
    PKCS11Error,
    SessionCount,
    UserAlreadyLoggedIn,
)

from rootward.core.problems import Problem
from rootward.keys.token_uri import TokenUri

log = structlog.get_logger()

MOST_SESSIONS: Final = 32  # the threads that sign (ca/sign.py) and some for generating, listing and CRLs
RESTART_SECONDS: Final = 5.0  # a module is started again at most so often
BUSY_SECONDS: Final = 10.0  # how long a call waits for a session, or a restart for the calls under way

# What a token says of a PIN that it does not take. Each one may be counted by it; an expired one is right, and no try.
_REFUSED: Final = (PinIncorrect, PinInvalid, PinLenRange, PinLocked)

_OS_LOCKING_OK: Final = 0x2
_CANT_LOCK: Final = 0xA
_ALREADY_INITIALIZED: Final = 0x191


class Away(Exception):
    """The token cannot be asked now, and nothing was asked of it; the text says why."""


class Gone(Away):
    """The same, where a new start of the module may find it again."""


class _InitializeArgs(ctypes.Structure):
    """CK_C_INITIALIZE_ARGS."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("create", "destroy", "lock", "unlock")),
        ("flags", ctypes.c_ulong),
        ("reserved", ctypes.c_void_p),
    ]


class _Functions(ctypes.Structure):
    """The beginning of CK_FUNCTION_LIST."""

    _fields_ = [
        ("version", ctypes.c_ubyte * 2),
        ("initialize", ctypes.CFUNCTYPE(ctypes.c_ulong, ctypes.c_void_p)),
        ("finalize", ctypes.CFUNCTYPE(ctypes.c_ulong, ctypes.c_void_p)),
    ]


class _Library(_pkcs11.lib):
    """The library's view of a module that is initialized already."""

    def initialize(self) -> None:
        return None


def _forgetting() -> Callable[[], object]:
    """What empties this thread's queue of OpenSSL's errors. A module that is built on the same OpenSSL as Python's ssl
    leaves its own there, and the next TLS call of the thread, which has nothing to do with it, would fail with them
    (SSL_get_error(3): the queue must be empty before).
    """
    where = getattr(_ssl, "__file__", None)  # none where it is part of the interpreter, which then has its own OpenSSL
    return (lambda: None) if where is None else ctypes.CDLL(where).ERR_clear_error


_forget_errors: Final = _forgetting()


@final
class Module:
    """One shared library, loaded and initialized once for the process. OSError where it cannot be loaded.

    `generation` counts its starts: what came from an earlier one is void.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        functions = ctypes.POINTER(_Functions)()
        try:
            got = ctypes.CDLL(path).C_GetFunctionList(ctypes.byref(functions))
        except AttributeError:
            raise OSError("it is no PKCS#11 module: it has no C_GetFunctionList") from None
        if got != 0 or not functions:
            raise OSError(f"it gives no list of functions (CKR 0x{got:x})")
        self._functions = functions.contents
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._free = threading.Condition()
        self._inside = 0
        self._wanted = 0  # how many want to be alone: nobody else goes in before them
        self._most = MOST_SESSIONS
        self._library: Any = None
        self._tried = -RESTART_SECONDS
        self.generation = 0

    @contextmanager
    def calls(self, *, alone: bool = False) -> Iterator[Any]:
        """The initialized library, for calls that a restart then waits for; `alone` for what changes objects: SoftHSM
        shows half of an object to another thread that looks while it is made. Away where it cannot be had.
        """
        if self._pid != os.getpid():
            # A forked child: the parent's sessions and locks are not ours, and most modules want a new start.
            self._reset()
        with self._free:
            if not (self._wait_alone() if alone else self._free.wait_for(self._has_room, BUSY_SECONDS)):
                raise Away("it is busy")
            if self._library is None:
                if self.generation and time.monotonic() - self._tried < RESTART_SECONDS:
                    raise Away(f"its module {self.path} did not start a moment ago")
                self._start()
            self._inside += self._most if alone else 1
            library = self._library
        try:
            yield library
        finally:
            _forget_errors()
            with self._free:
                self._inside = 0 if alone else self._inside - 1
                self._free.notify_all()

    def _has_room(self) -> bool:
        return not self._wanted and self._inside < self._most

    def _wait_alone(self) -> bool:
        self._wanted += 1
        try:
            return self._free.wait_for(lambda: self._inside == 0, BUSY_SECONDS)
        finally:
            self._wanted -= 1
            self._free.notify_all()

    def restart(self, generation: int) -> bool:
        """Finalize and initialize again, unless somebody did so since `generation`, or tried a moment ago: some modules
        see a token that came back only then. Whether there is a newer start than `generation` now; one that does not
        start is said by the next call.
        """
        with self._free:
            if self.generation != generation:
                return True
            if time.monotonic() - self._tried < RESTART_SECONDS:
                return False
            if not self._wait_alone():
                return False
            if self.generation != generation:
                return True
            try:
                self._start()
            except Away:
                return False
            return True

    def _start(self) -> None:
        try:
            self._initialize()
        finally:
            _forget_errors()

    def _initialize(self) -> None:
        self._library = None
        self._tried = time.monotonic() if self.generation else self._tried
        self._functions.finalize(None)  # whatever it says: it may never have been initialized
        self.generation += 1
        arguments = _InitializeArgs(flags=_OS_LOCKING_OK)
        said = self._functions.initialize(ctypes.byref(arguments))
        if said == _CANT_LOCK:
            self._most = 1
            said = self._functions.initialize(None)
        if said not in (0, _ALREADY_INITIALIZED):
            raise Away(f"its module {self.path} does not start (CKR 0x{said:x})")
        try:
            self._library = _Library(self.path)
        except PKCS11Error as error:
            raise Away(f"its module {self.path} does not start ({said_by(error)})") from None


_modules: dict[str, Module] = {}
_loading = threading.Lock()


def module(path: str) -> Module:
    """The module at that path; the same one for the same file."""
    with _loading:
        real = os.path.realpath(path)
        if real not in _modules:
            _modules[real] = Module(path)
        return _modules[real]


def said_by(error: PKCS11Error) -> str:
    """The error's name as the library has it, and what it adds: never anything of ours."""
    return f"{type(error).__name__} {error}".strip()


@dataclass
class Session:
    """A session that is one caller's for now. `keys` are private keys found with it before, by what was asked for."""

    open: Any
    generation: int
    keys: dict[tuple[str, str], Any] = field(default_factory=dict)


@final
class Token:
    """One token: its sessions, its login. `pin` is asked each time it is needed, and never kept."""

    def __init__(self, uri: TokenUri, pin: Callable[[], bytes] | None) -> None:
        self.uri = uri
        self._module = module(uri.module)
        self._pin = pin
        self._salt = os.urandom(16)
        self._refused: bytes | None = None  # what the token did not take as its PIN, as a keyed hash
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._free = threading.Condition()
        self._used = 0  # sessions that callers have, or are about to open
        self._given = 0  # how many were given back
        self._idle: list[Session] = []
        self._leaving: list[Session] = []  # to be closed by the next one who is in the module
        self._login: Session | None = None

    @contextmanager
    def session(self, *, write: bool = False, key: tuple[str, str] | None = None) -> Iterator[Session]:
        """A logged-in session; `write` one that may change objects, alone in the module; with `key` one that knows it
        from before, if there is one. Away where none can be had.

        One that an error went through is closed and not used again.
        """
        with self._module.calls(alone=write) as library:
            session, kept = self._taken(library, write=write, key=key), False
            try:
                yield session
                # One that knows no key is of no use later: to search with a session that the token has closed
                # meanwhile makes the library complain on standard error.
                kept = bool(session.keys)
            finally:
                if not kept:
                    _close(session)
                with self._free:
                    if kept:
                        self._idle.append(session)
                        self._leaving += self._idle[:-MOST_SESSIONS]
                        del self._idle[:-MOST_SESSIONS]
                    self._used -= 1
                    self._gave()

    @contextmanager
    def slot(self) -> Iterator[Any]:
        """The slot of the token, for what can be asked of it without a login. Away where there is none."""
        with self._module.calls() as library:
            yield self._found(library).slot

    def forget(self) -> None:
        """Use nothing that is idle any more and log in anew: for when the token says that a session or login is gone.
        Whoever is in the module next closes it.
        """
        with self._free:
            self._leaving += self._idle
            # Not the login, should it be there yet: the library logs out before it closes it, also those who sign.
            self._idle, self._login = [], None
            self._gave()

    def _gave(self) -> None:
        self._given += 1
        self._free.notify_all()

    @property
    def generation(self) -> int:
        """Which start of the module there is now; `restart` is told the one that was there when something was amiss."""
        return self._module.generation

    def restart(self, generation: int) -> bool:
        """Start the module again, outside of any session; whether asking again may find more."""
        return self._module.restart(generation)

    def _taken(self, library: Any, *, write: bool, key: tuple[str, str] | None) -> Session:
        """Where the token has no session left, one that somebody gives back: a new start would end all of them."""
        if self._pid != os.getpid():
            self._reset()
        until = time.monotonic() + BUSY_SECONDS
        while True:
            with self._free:
                seen = self._given
                self._used += 1
            try:
                return self._opened(library, write=write, key=key)
            except BaseException as error:
                with self._free:
                    self._used -= 1
                    self._free.notify_all()
                    if not isinstance(error, SessionCount):
                        raise
                    self._make_room(seen, until)

    def _make_room(self, seen: int, until: float) -> None:
        """Wait for what is given back since `seen`, unless something is idle: that can go. Away where nothing comes."""
        if self._given == seen and self._idle:
            self._leaving, self._idle = self._leaving + self._idle, []
        elif not self._free.wait_for(lambda: self._given != seen or not self._used, until - time.monotonic()):
            raise Away("it has no session left")
        elif self._given == seen:  # nobody here has one; a new start ends what was lost by errors
            raise Gone("it has no session left")
        if time.monotonic() > until:
            raise Away("it has no session left")

    def _opened(self, library: Any, *, write: bool, key: tuple[str, str] | None) -> Session:
        """One that is idle and knows the key, or a new one. Away, and SessionCount."""
        generation = self._module.generation
        with self._free:
            # Those of an earlier start are void, and their numbers may be those of new ones.
            self._idle, leaving = (
                [one for one in of if one.generation == generation] for of in (self._idle, self._leaving)
            )
            self._leaving = []
            for one in leaving:
                _close(one)
            if self._login is None or self._login.generation != generation:
                try:
                    self._login = Session(self._logged_in(self._found(library)), generation)
                except Problem as problem:  # the PIN's place: its file is missing, or open to others
                    raise Away(f"its PIN cannot be had: {problem.detail}") from problem
            for number, one in enumerate(self._idle):
                if key in one.keys:
                    return self._idle.pop(number)
            token = self._login.open.token
        try:
            return Session(_session(token, rw=write), generation)
        except Gone:
            self.forget()
            raise

    def _found(self, library: Any) -> Any:
        """The one token that the URI means."""
        uri, found = self.uri, []
        try:
            for slot in library.get_slots(token_present=True):
                with suppress(pkcs11.TokenNotPresent, pkcs11.TokenNotRecognised):
                    token = slot.get_token()
                    if pkcs11.TokenFlag.TOKEN_INITIALIZED in token.flags and all(
                        not wanted or wanted == has
                        for wanted, has in (
                            (uri.token, token.label),
                            (uri.manufacturer, token.manufacturer_id),
                            (uri.model, token.model),
                            (uri.serial, token.serial.decode(errors="replace")),
                        )
                    ):
                        found += [token] if uri.slot in (None, slot.slot_id) else []
        except PKCS11Error as error:
            raise Gone(f"its module does not answer ({said_by(error)})") from None
        if len(found) != 1:
            raise Gone(f"{len(found)} tokens are {uri}" if found else f"no token is {uri}")
        return found[0]

    def _logged_in(self, token: Any) -> Any:
        """The session that the login hangs on. A PIN that was refused is never tried again: a few wrong ones lock a
        token for good.
        """
        if self._pin is None:
            if pkcs11.TokenFlag.LOGIN_REQUIRED in token.flags:
                raise Away("it wants a PIN, and the setting pin names none")
            return _session(token)
        if pkcs11.TokenFlag.USER_PIN_LOCKED in token.flags:
            raise Away("its PIN is locked: the security officer has to set a new one")
        pin = self._pin()  # read once: what is remembered as refused is what was tried
        try:
            if self._refused is not None and self._refused == self._fingerprint(pin):
                raise Away("it refused this PIN before, so it is not tried again until another one is there")
            if pkcs11.TokenFlag.USER_PIN_FINAL_TRY in token.flags:
                raise Away("one more wrong PIN locks it, so none is tried: log in by hand with the right one first")
            return token.open(user_pin=pin.decode())
        except UserAlreadyLoggedIn:
            return _session(token)
        except _REFUSED as error:
            self._refused = self._fingerprint(pin)
            log.error("token.pin-refused", uri=str(self.uri), why=type(error).__name__)
            raise Away(f"it refused its PIN ({type(error).__name__})") from None
        except SessionCount:
            raise
        except PKCS11Error as error:
            raise Away(f"it does not take the login ({said_by(error)})") from None
        except UnicodeDecodeError:
            raise Away("its PIN is not UTF-8") from None
        finally:
            del pin  # no traceback shows it

    def _fingerprint(self, pin: bytes) -> bytes:
        return hashlib.blake2b(pin, key=self._salt).digest()


def _session(token: Any, *, rw: bool = False) -> Any:
    """A new session, as the library has it; SessionCount where there are as many as the token takes."""
    try:
        return token.open(rw=rw)
    except SessionCount:
        raise
    except PKCS11Error as error:
        raise Gone(f"it opens no session ({said_by(error)})") from None


def _close(session: Session) -> None:
    with suppress(PKCS11Error):  # it is not used again either way
        session.open.close()
