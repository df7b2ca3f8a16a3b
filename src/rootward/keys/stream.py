"""A sealed stream: what a passphrase protects and is too large for memory, as a backup is.

    {"format":"rootward-backup","version":1,"cipher":"aes-256-gcm","salt":…,"kek":{"source":"argon2id",…}}
    chunk, chunk, …, last chunk

The first line is JSON in one canonical form, ended by a newline, and is the associated data of every chunk. A chunk is
AES-256-GCM of 1 MiB (the last one of 0 to 1 MiB) with its tag. The stream's own key is HKDF-SHA256, with a random
salt, of what Argon2id makes of the passphrase (`kek.py`); so it seals one stream only, and the nonce is the chunk's
number (11 octets) and whether it is the last one (1 octet): the STREAM construction (Hoang, Reyhanitabar, Rogaway and
Vizár, 2015). A chunk that was changed, moved, repeated or left out, a stream that was cut off anywhere or that has
something behind its end, does not open. Reading and writing take memory for two chunks, whatever the stream says.
"""

from __future__ import annotations

import os
from typing import Annotated, BinaryIO, Final, Literal

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from rootward.core.problems import Problem, shown
from rootward.keys.kek import ByPassphrase, Hex32, Kek

FORMAT: Final = "rootward-backup"
VERSION: Final = 1
CHUNK: Final = 1024 * 1024
_TAG: Final = 16
_LONGEST_HEADER: Final = 4096
_MOST_MEMORY: Final = 256 * 1024  # KiB that a header from elsewhere may ask Argon2id to take
_INFO: Final = b"rootward backup 1"


class Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The first line. `salt` is HKDF's."""

    format: Literal["rootward-backup"]
    version: Literal[1]
    cipher: Literal["aes-256-gcm"]
    salt: Hex32
    kek: ByPassphrase


class _Named(msgspec.Struct):
    """What the first line of any version has."""

    format: Literal["rootward-backup"]
    version: Annotated[int, msgspec.Meta(ge=1)]


class SealedWriter:
    """Seals what is written into `file`, which is the caller's to flush and to close. Without `finish` it never opens.

    `kek` is one of a passphrase.
    """

    def __init__(self, file: BinaryIO, kek: Kek) -> None:
        salt = os.urandom(16)
        wrap, key = kek.wrap(salt, _INFO)
        if not isinstance(wrap, ByPassphrase):
            raise TypeError("a stream is sealed with a passphrase")
        header = Header(format="rootward-backup", version=1, cipher="aes-256-gcm", salt=salt.hex(), kek=wrap)
        self._line = msgspec.json.encode(header)
        self._cipher = AESGCM(key)
        self._file = file
        self._waiting = bytearray()
        self._number = 0
        file.write(self._line + b"\n")

    def write(self, data: bytes) -> None:
        """Add bytes to the stream."""
        self._waiting += data
        while len(self._waiting) > CHUNK:  # one chunk at least is kept: the last one is sealed as such
            self._seal(bytes(self._waiting[:CHUNK]), last=False)
            del self._waiting[:CHUNK]

    def finish(self) -> None:
        """Seal the last chunk. Nothing can be written any more."""
        self._seal(bytes(self._waiting), last=True)

    def _seal(self, chunk: bytes, *, last: bool) -> None:
        self._file.write(self._cipher.encrypt(_nonce(self._number, last=last), chunk, self._line))
        self._number += 1


class SealedReader:
    """Opens the stream in `file`. Problems: `RW-BACKUP-FORMAT` it is none, or of another version;
    `RW-BACKUP-PASSPHRASE` another passphrase's; `RW-BACKUP-DAMAGED` not as it was written.
    """

    def __init__(self, file: BinaryIO, kek: Kek) -> None:
        self._line, header = _header(file)
        try:
            key = kek.unwrap(header.kek, bytes.fromhex(header.salt), _INFO)
        except Problem as problem:
            raise Problem(
                "RW-BACKUP-PASSPHRASE",
                "The passphrase does not open this backup. Either it was made with another one, or the file's "
                "first line was damaged.",
            ) from problem
        self._cipher = AESGCM(key)
        self._file = file
        self._number = 0
        self._ahead = file.read(CHUNK + _TAG)
        self._chunk = memoryview(b"")
        self._ended = False

    def read(self, size: int) -> bytes:
        """Exactly `size` bytes; Problem `RW-BACKUP-DAMAGED` where the stream ends before."""
        if size <= len(self._chunk):
            found = bytes(self._chunk[:size])
            self._chunk = self._chunk[size:]
            return found
        parts, left = [], size
        while left:
            if not self._chunk and not self._open():
                raise Problem("RW-BACKUP-DAMAGED", "The backup ends in the middle of what it says.")
            parts.append(self._chunk[:left])
            self._chunk = self._chunk[left:]
            left -= len(parts[-1])
        return b"".join(parts)

    def at_end(self) -> bool:
        """Whether everything was read, the last chunk proved."""
        while not self._chunk:
            if not self._open():
                return True
        return False

    def _open(self) -> bool:
        """The next chunk; False behind the last one."""
        if self._ended:
            return False
        sealed, self._ahead = self._ahead, self._file.read(CHUNK + _TAG)
        last = not self._ahead
        found = self._opened(sealed, last=last)
        if found is None:
            raise Problem("RW-BACKUP-DAMAGED", self._why(sealed, last=last))
        self._chunk, self._ended = memoryview(found), last
        self._number += 1
        return True

    def _opened(self, sealed: bytes, *, last: bool) -> bytes | None:
        if len(sealed) < _TAG:
            return None
        try:
            return self._cipher.decrypt(_nonce(self._number, last=last), sealed, self._line)
        except InvalidTag:
            return None

    def _why(self, sealed: bytes, *, last: bool) -> str:
        if not sealed:
            return "The backup is cut off: it ends before its first part."
        if self._opened(sealed, last=not last) is not None:
            return "The backup is cut off: its end is missing." if last else "The backup has something behind its end."
        return (
            f"Part {self._number + 1} of the backup (of {CHUNK} bytes each) was changed or damaged, or the file is "
            "cut off there."
        )


def _header(file: BinaryIO) -> tuple[bytes, Header]:
    line = file.readline(_LONGEST_HEADER)
    if not line:
        raise Problem("RW-BACKUP-FORMAT", "The file is empty.")
    if not line.endswith(b"\n"):
        raise Problem("RW-BACKUP-FORMAT", "This is no backup of Rootward.")
    line = line[:-1]
    try:
        named = msgspec.json.decode(line, type=_Named)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Problem("RW-BACKUP-FORMAT", "This is no backup of Rootward.") from error
    if named.version != VERSION:
        raise Problem(
            "RW-BACKUP-FORMAT",
            f"The backup's format is of version {shown(str(named.version))}; this program reads {VERSION}. "
            "Use the program that made it.",
        )
    try:
        header = msgspec.json.decode(line, type=Header)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Problem("RW-BACKUP-DAMAGED", "The backup's first line was changed or damaged.") from error
    if msgspec.json.encode(header) != line or header.kek.memory_kib > _MOST_MEMORY:
        raise Problem("RW-BACKUP-DAMAGED", "The backup's first line was changed or damaged.")
    return line, header


def _nonce(number: int, *, last: bool) -> bytes:
    return number.to_bytes(11, "big") + (b"\x01" if last else b"\x00")
