"""Keys in a signer process (`rootward signer`), asked through its unix socket: it is told on what grounds, and decides
anew. Nothing else can be had from it: its keys are made and certified on its own host.

An order that surely did not get there whole is `NotSigned`, and is tried once more on another connection; one whose
reply did not come is `SignatureUnknown`.
"""

from __future__ import annotations

import socket
import struct
import threading
from pathlib import Path
from typing import Final, NamedTuple

from rootward.core import grounds as words
from rootward.core.csr import parse_csr
from rootward.core.grounds import Grounds
from rootward.core.problems import Problem, shown
from rootward.core.pubkey import KeyAlgorithm, PublicKey, check_public_key
from rootward.keys.backend import SOFTWARE_ALGORITHMS, Backend, KeySettings, Listing, check_id, check_label, missing
from rootward.keys.key import Asker, Key, NotSigned, Refused, SignatureUnknown

CONNECT_SECONDS: Final = 2.0
REPLY_SECONDS: Final = 20.0  # within an intent's lease
CRL_SECONDS: Final = 300.0  # of a million entries, on a busy machine
_KEPT: Final = 16  # connections that wait for the next order
_SCHEME: Final = "unix:"
_NOTHING_ELSE: Final = (
    "A signer signs certificates under the profiles that are accepted on its host, and CRLs, and nothing else. A CA "
    "below one of its authorities is certified in a ceremony."
)


class _Away(Exception):
    """The signer is not there: nothing reached it."""


class _Line:
    """Connections to one socket, as many as there are threads that ask at once; a reply comes within `seconds`."""

    def __init__(self, path: str, seconds: float) -> None:
        self.path = path
        # The kernel's own timeouts (socket(7)): a send and a receive are one system call each.
        self._timeout = struct.pack("ll", int(seconds), 0)
        self._idle: list[socket.socket] = []
        self._lock = threading.Lock()

    def ask(self, *parts: bytes) -> bytes:
        """The content of the reply's frame. Raises _Away, and SignatureUnknown where the reply did not come."""
        while (kept := self._take()) is not None:
            try:
                _send(kept, parts)
            except OSError:
                kept.close()  # the signer has been started anew since
                continue
            return self._hear(kept)
        made = self._connect()
        try:
            _send(made, parts)
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
        made.settimeout(None)
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            made.setsockopt(socket.SOL_SOCKET, option, self._timeout)
        return made


def _send(line: socket.socket, parts: tuple[bytes, ...]) -> None:
    for part in parts:
        line.sendall(part)


def _receive(line: socket.socket) -> bytes:
    """The content of the next frame; nothing comes after it, for nothing else was asked."""
    data = line.recv(1 << 16)
    while len(data) < words.HEAD or len(data) < words.HEAD + int.from_bytes(data[: words.HEAD], "big"):
        part = line.recv(1 << 16)
        if not part or len(data) > words.LARGEST_REPLY:
            raise EOFError("it hung up in the middle")
        data += part
    if int.from_bytes(data[: words.HEAD], "big") != len(data) - words.HEAD:
        raise EOFError("it said more than it was asked")
    return data[words.HEAD :]


def _last_word(line: socket.socket) -> bytes | None:
    try:
        return _receive(line)
    except (OSError, EOFError):
        return None


class _Lines(NamedTuple):
    orders: _Line
    crls: _Line


class _Distant(Asker):
    def __init__(self, lines: _Lines, public: PublicKey) -> None:
        self._lines = lines
        self.public = public

    def sign(self, tbs: bytes, grounds: Grounds | None) -> bytes:
        if grounds is not None:
            order = words.frame(words.SignCertificate(self.public.id, tbs, grounds))
            if len(order) > words.LARGEST_ORDER:
                raise NotSigned("the order is larger than a signer takes")
            return _asked(self._lines.orders, order)
        if not words.is_crl(tbs):
            raise Refused(Problem("RW-SIGNER-REFUSED", _NOTHING_ELSE))
        return _asked(self._lines.crls, words.frame(words.SignCrl(self.public.id, len(tbs))), tbs)


def _asked(line: _Line, *parts: bytes) -> bytes:
    """The signature that an order leads to."""
    try:
        body = line.ask(*parts)
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
        self._lines = _Lines(_Line(path, REPLY_SECONDS), _Line(path, CRL_SECONDS))

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
        raise missing(label, public_id, where=f"the signer at {self._lines.orders.path}")

    def expect(self, label: str, public: PublicKey) -> Key:
        """That key, unseen: the signer knows it by its id, and refuses one that it has not."""
        return Key(_Distant(self._lines, public), label=label, remote=True)

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
        raise Problem("RW-KEY-MISSING", f"The signer at {self._lines.orders.path} has no key {shown(label)}.")

    def close(self) -> None:
        """Hang up; whoever asks again connects again."""
        for line in self._lines:
            line.close()

    def held(self) -> tuple[words.HeldKey, ...]:
        """What the signer says that it has. Problem RW-KEY-UNAVAILABLE."""
        try:
            reply = words.read_reply(self._lines.orders.ask(words.frame(words.ListKeys())))
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
            f"keys.{settings.store}: uri must be the signer's socket, such as unix:/run/rootward-signer/signer.sock, "
            f"not {shown(settings.uri)}.",
        )
    return RemoteBackend(path)
