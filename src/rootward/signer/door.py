"""The signer's socket: who connects, frames that are bounded before they are read, and nothing else.

The peer's user id is the kernel's word (SO_PEERCRED, unix(7)), not the peer's. One order at a time on a connection. A
connection that says nothing may stay for ten minutes; one that stops in the middle of a frame or of a CRL, for ten
seconds.
"""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import structlog

from rootward.core import grounds as words
from rootward.core.problems import Problem
from rootward.signer.desk import Desk
from rootward.signer.settings import FILE, Settings

log = structlog.get_logger()
IDLE_SECONDS: Final = 600.0
FRAME_SECONDS: Final = 10.0
CRL_SECONDS: Final = 300.0  # of a million entries, on a busy machine
LOOK_SECONDS: Final = 2.0  # for whoever listens at the socket already
WAITING: Final = 128  # connections that the kernel keeps until they are taken
_PEER = struct.Struct("3i")  # struct ucred: process, user, group


@contextmanager
def listening(settings: Settings) -> Iterator[socket.socket]:
    """The listening socket, mode 0660, of the configured group; in the end its file is taken away, unless another is in
    its place. Problem RW-CONFIG where it cannot be had.
    """
    made = _bound(settings)
    mine = _inode(settings.socket)
    try:
        yield made
    finally:
        made.close()
        if mine is not None and _inode(settings.socket) == mine:
            settings.socket.unlink(missing_ok=True)


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _bound(settings: Settings) -> socket.socket:
    path = settings.socket
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _clear(path)
        before = os.umask(0o117)
        try:
            made.bind(str(path))
        finally:
            os.umask(before)
        if settings.group is not None:
            os.chown(path, -1, settings.group)
        made.listen(WAITING)
    except Problem:
        made.close()
        raise
    except OSError as error:
        made.close()
        raise Problem("RW-CONFIG", f"{path} cannot be listened at: {error.strerror or error}.") from error
    made.setblocking(False)
    return made


def _clear(path: Path) -> None:
    """Take away the socket of a signer that has ended. The journal's lock keeps no signer of another home away."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode) or found.st_uid != os.geteuid():
        raise Problem("RW-CONFIG", f"{path} is there, and it is no socket of this user's; it is left as it is.")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
        caller.settimeout(LOOK_SECONDS)
        try:
            caller.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
            return
        except OSError:
            pass  # somebody is there, and busy
    raise Problem("RW-CONFIG", f"Another program listens at {path}: end it, or set another socket in {FILE}.")


class Door:
    """Takes connections until it is closed."""

    def __init__(self, settings: Settings, desk: Desk) -> None:
        self._settings = settings
        self._desk = desk
        self._open: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    async def serve(self, listening: socket.socket) -> None:
        """Until it is cancelled; then every connection is cut, and nothing more is signed."""
        server = await asyncio.start_unix_server(self._connected, sock=listening, limit=words.LARGEST_ORDER)
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            # Not the server's own ways to end: from Python 3.12.1 on they wait until each peer has hung up.
            server.close()
            for task, writer in self._open.items():
                task.cancel()
                writer.transport.abort()
            await asyncio.gather(*self._open, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task: Any = asyncio.current_task()
        self._open[task] = writer
        try:
            if len(self._open) > self._settings.connections:
                await _say(writer, words.Failed(True, "the signer has as many connections as it may have"))
                return
            peer = peer_of(writer)
            if peer not in self._settings.peers:
                log.warning("signer.peer", peer=peer)
                detail = f"The user {peer} is not among the peers of the signer's settings."
                await _say(writer, words.refusal_of(Problem("RW-SIGNER-REFUSED", detail)))
                return
            while await self._one(reader, writer, peer):
                pass
        except (asyncio.IncompleteReadError, TimeoutError, ConnectionError):
            pass  # it has gone, or stopped in the middle of a frame: there is nobody to be told
        finally:
            del self._open[task]
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, peer: int) -> bool:
        """Whether the connection may go on."""
        async with asyncio.timeout(IDLE_SECONDS):
            head = await reader.read(1)
        if not head:
            return False
        async with asyncio.timeout(FRAME_SECONDS):
            head += await reader.readexactly(words.HEAD - 1)
            size = int.from_bytes(head, "big")
            if not 0 < size <= words.LARGEST_ORDER:
                await _say(writer, _malformed(f"An order has 1 to {words.LARGEST_ORDER} octets, not {size}."))
                return False
            body = await reader.readexactly(size)
        try:
            order = words.read_order(body)
        except Problem as problem:
            await _say(writer, words.refusal_of(problem))
            return False

        async def crl(octets: int) -> bytes:
            """Others' CRLs wait behind it, so it ends soon where nothing comes any more."""
            found = bytearray()
            async with asyncio.timeout(CRL_SECONDS):
                while len(found) < octets:
                    async with asyncio.timeout(FRAME_SECONDS):
                        part = await reader.read(octets - len(found))
                    if not part:
                        raise asyncio.IncompleteReadError(b"", octets)
                    found += part
            return bytes(found)

        await _say(writer, await self._desk.answer(order, peer, crl))
        return True


def peer_of(writer: asyncio.StreamWriter) -> int:
    """The user id of who connected."""
    found = writer.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
    _process, user, _group = _PEER.unpack(found)
    return int(user)


async def _say(writer: asyncio.StreamWriter, reply: words.Reply) -> None:
    async with asyncio.timeout(FRAME_SECONDS):
        writer.write(words.frame(reply))
        await writer.drain()


def _malformed(detail: str) -> words.Refused:
    return words.refusal_of(Problem("RW-MALFORMED", detail))
