"""Keys in a signer process (`rootward signer`), asked through its unix socket: it is told on what grounds, and decides
anew. Nothing else can be had from it: its keys are made and certified on its own host.

An order that surely did not get there whole is `NotSigned`, and is tried once more on another connection; one whose
reply did not come is `SignatureUnknown`.
"""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from typing import Final

from rootward.core import grounds as words
from rootward.core.csr import parse_csr
from rootward.core.grounds import Grounds
from rootward.core.problems import Problem, shown
from rootward.core.pubkey import KeyAlgorithm, PublicKey, check_public_key
from rootward.keys.backend import SOFTWARE_ALGORITHMS, Backend, KeySettings, Listing, check_id, check_label, missing
from rootward.keys.key import Asker, Key, NotSigned, Refused, SignatureUnknown

CONNECT_SECONDS: Final = 2.0
REPLY_SECONDS: Final = 20.0  # within an intent's lease
CRL_SECONDS: Final = 120.0  # of a million entries
_KEPT: Final = 16  # connections that wait for the next order
_SCHEME: Final = "unix:"


class _Away(Exception):
    """The signer is not there: nothing reached it."""


class _Line:
    """Connections to one socket, as many as there are threads that ask at once."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._idle: list[socket.socket] = []
        self._lock = threading.Lock()

    def ask(self, *parts: bytes, seconds: float) -> bytes:
        """The content of the reply's frame. Raises _Away, and SignatureUnknown where the reply did not come."""
        while (kept := self._take()) is not None:
            try:
                _send(kept, parts, seconds)
            except OSError:
                kept.close()  # the signer has been started anew since
                continue
            return self._hear(kept)
        made = self._connect()
        try:
            _send(made, parts, seconds)
        except OSError as error:
            reply = _last_word(made)  # it may have said why before it hung up
            made.close()
            if reply is not None:
                return reply
            raise _Away(f"it hung up: {error.strerror or error}") from error
        return self._hear(made)

    def close(self) -> None:
        """Hang up what nobody uses; the next order connects anew."""
        while (kept := self._take()) is not None:
            kept.close()

    def _hear(self, line: socket.socket) -> bytes:
        try:
            body = _receive(line)
        except (OSError, EOFError) as error:
            line.close()
            raise SignatureUnknown(f"the signer did not answer: {error}") from error
        with self._lock:
            if len(self._idle) < _KEPT:
                self._idle.append(line)
                return body
        line.close()
        return body

    def _take(self) -> socket.socket | None:
        with self._lock:
            return self._idle.pop() if self._idle else None

    def _connect(self) -> socket.socket:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        made.settimeout(CONNECT_SECONDS)
        try:
            made.connect(self.path)
        except OSError as error:
            made.close()
            raise _Away(f"{self.path}: {error.strerror or error}") from error
        return made


def _send(line: socket.socket, parts: tuple[bytes, ...], seconds: float) -> None:
    line.settimeout(seconds)
    for part in parts:
        line.sendall(part)


def _receive(line: socket.socket) -> bytes:
    size = int.from_bytes(_exactly(line, words.HEAD), "big")
    if size > words.LARGEST_REPLY:
        raise EOFError("its reply is too long")
    return _exactly(line, size)


def _exactly(line: socket.socket, size: int) -> bytes:
    parts, left = [], size
    while left:
        part = line.recv(min(left, 1 << 16))
        if not part:
            raise EOFError("it hung up")
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def _last_word(line: socket.socket) -> bytes | None:
    try:
        line.settimeout(CONNECT_SECONDS)
        return _receive(line)
    except (OSError, EOFError):
        return None


class _Distant(Asker):
    def __init__(self, line: _Line, public: PublicKey) -> None:
        self._line = line
        self.public = public

    def sign(self, tbs: bytes, grounds: Grounds | None) -> bytes:
        if grounds is not None:
            order = words.frame(words.SignCertificate(self.public.id, tbs, grounds))
            if len(order) > words.LARGEST_ORDER:
                raise NotSigned("the order is larger than a signer takes")
            return self._ask(order, seconds=REPLY_SECONDS)
        if not words.is_crl(tbs):
            raise NotSigned("a signer signs certificates on their grounds, and CRLs; and nothing else")
        return self._ask(words.frame(words.SignCrl(self.public.id, len(tbs))), tbs, seconds=CRL_SECONDS)

    def _ask(self, *parts: bytes, seconds: float) -> bytes:
        try:
            body = self._line.ask(*parts, seconds=seconds)
        except _Away as error:
            raise NotSigned(f"the signer is not reachable: {error}") from error
        try:
            reply = words.read_reply(body)
        except Problem as problem:
            raise SignatureUnknown(problem.detail) from problem
        match reply:
            case words.Signed():
                return reply.signature
            case words.Refused():
                raise Refused(words.problem_of(reply))
            case words.Failed(unsigned=True):
                raise NotSigned(reply.why)
        raise SignatureUnknown("the signer does not know whether it signed")


class RemoteBackend(Backend):
    """`path` is the signer's socket. Problems, besides the usual: `RW-KEY-UNAVAILABLE` where it is not reachable."""

    name = "signer"
    algorithms = SOFTWARE_ALGORITHMS

    def __init__(self, path: str) -> None:
        self._line = _Line(path)

    def max_message_of(self, _algorithm: KeyAlgorithm) -> int | None:
        return None  # what its own store cannot sign, it says when the authority is installed there

    def generate(self, label: str, _algorithm: KeyAlgorithm) -> Key:
        check_label(label)
        raise Problem(
            "RW-CONFLICT",
            "A signer's keys are made on its own host, and its socket makes none. Run there: rootward signer generate "
            f"{label}",
        )

    def load(self, label: str, public_id: str) -> Key:
        check_label(label)
        check_id(public_id)
        for held in self.held():
            public = check_public_key(held.spki)
            if (held.label, public.id) == (label, public_id):
                return self.expect(label, public)
        raise missing(label, public_id, where=f"the signer at {self._line.path}")

    def expect(self, label: str, public: PublicKey) -> Key:
        """That key, unseen: the signer knows it by its id, and refuses one that it has not."""
        return Key(_Distant(self._line, public), label=label, remote=True)

    def delete(self, label: str, public_id: str) -> None:
        self.load(label, public_id)
        raise Problem("RW-CONFLICT", "A signer's keys are destroyed on its own host, and its socket destroys none.")

    def list(self) -> Listing:
        return sorted((held.label, check_public_key(held.spki).id) for held in self.held())

    def csr(self, label: str) -> bytes:
        """The CSR (DER) that the signer made for this key, to have it certified; `RW-KEY-MISSING`."""
        for held in self.held():
            if held.label == label:
                return parse_csr(held.csr).der
        raise Problem("RW-KEY-MISSING", f"The signer at {self._line.path} has no key {shown(label)}.")

    def close(self) -> None:
        """Hang up; whoever asks again connects again."""
        self._line.close()

    def held(self) -> tuple[words.HeldKey, ...]:
        """What the signer says that it has. Problem RW-KEY-UNAVAILABLE."""
        try:
            reply = words.read_reply(self._line.ask(words.frame(words.ListKeys()), seconds=REPLY_SECONDS))
        except (_Away, SignatureUnknown) as error:
            raise _unavailable(str(error)) from error
        match reply:
            case words.HeldKeys():
                return reply.keys
            case words.Refused():
                raise _unavailable(words.problem_of(reply).detail)
            case words.Failed():
                raise _unavailable(reply.why)
        raise _unavailable("it answered something else than what was asked")


def _unavailable(why: str) -> Problem:
    return Problem("RW-KEY-UNAVAILABLE", f"The signer is not reachable: {why.rstrip('.')}.", retry_after=5)


def open_signer(settings: KeySettings) -> RemoteBackend:
    """`uri` is `unix:/path`; Problem `RW-CONFIG` otherwise. The socket is looked for when it is needed."""
    path = settings.uri.removeprefix(_SCHEME)
    if not settings.uri.startswith(_SCHEME) or not Path(path).is_absolute():
        raise Problem(
            "RW-CONFIG",
            f"keys.{settings.store}: uri must be the signer's socket, such as unix:/run/rootward/signer.sock, "
            f"not {shown(settings.uri)}.",
        )
    return RemoteBackend(path)
