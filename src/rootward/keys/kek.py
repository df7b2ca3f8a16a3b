"""The key-encryption key (KEK): what every key file is sealed with, and where it comes from.

Four sources: a file of mode 0400, a systemd credential, a passphrase through Argon2id (RFC 9106), and custodians who
have it together (`quorum.py`). There is none that keeps the key in an environment variable, and no way to have key
files without a KEK. A wrong one is found by its id before anything is decrypted: the id is derived from the key (HKDF,
RFC 5869) and stands in the clear in each key file.
"""

from __future__ import annotations

import abc
import base64
import os
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NoReturn, SupportsIndex, final

import argon2
import msgspec
from argon2.low_level import Type, hash_secret_raw
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from rootward.core.problems import Problem
from rootward.keys import disk

_FILE = re.compile(rb"[0-9a-f]{64}\n?")
_CREDENTIAL = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}", re.ASCII)
SHORTEST = 12  # characters of a passphrase

Hex16 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{16}\Z")]
Hex32 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{32}\Z")]


class ByKey(msgspec.Struct, frozen=True, tag_field="source", tag="key", forbid_unknown_fields=True):
    """In a key file's header: sealed with the 32-byte key of this id."""

    id: Hex16


class ByPassphrase(msgspec.Struct, frozen=True, tag_field="source", tag="argon2id", forbid_unknown_fields=True):
    """In a key file's header: sealed with what Argon2id (version 0x13) makes of a passphrase; `id` is that key's.

    The bounds are those of the most that a header from elsewhere may cost: 1 GiB and 16 passes.
    """

    id: Hex16
    salt: Hex32
    memory_kib: Annotated[int, msgspec.Meta(ge=8 * 1024, le=1024 * 1024)]
    passes: Annotated[int, msgspec.Meta(ge=1, le=16)]
    lanes: Annotated[int, msgspec.Meta(ge=1, le=16)]


Wrap = ByKey | ByPassphrase


@dataclass(frozen=True)
class Argon2:
    """What a new passphrase envelope costs to open. The default is RFC 9106 section 4, second recommended option."""

    memory_kib: int = 64 * 1024
    passes: int = 3
    lanes: int = 4


class Kek(abc.ABC):
    """A key-encryption key. It gives the key of one file (`wrap`, `unwrap`) and never itself.

    `id` is 16 hex digits that name the key, or `passphrase` where each file's salt gives another one.
    """

    __slots__ = ()

    @property
    @abc.abstractmethod
    def id(self) -> str: ...

    @abc.abstractmethod
    def wrap(self, salt: bytes, info: bytes) -> tuple[Wrap, bytes]:
        """For a new file: what its header says of this KEK, and the file's own 32-byte key."""

    @abc.abstractmethod
    def unwrap(self, wrap: Wrap, salt: bytes, info: bytes) -> bytes:
        """The own key of the file whose header says `wrap`; Problem `RW-KEK` if that was sealed with another KEK."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(id={self.id})"

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError("a key-encryption key cannot be copied or pickled")


@final
class _KeyKek(Kek):
    __slots__ = ("_id", "_secret")

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._id = _id_of(secret)

    @property
    def id(self) -> str:
        return self._id

    def wrap(self, salt: bytes, info: bytes) -> tuple[Wrap, bytes]:
        return ByKey(id=self._id), _derive(self._secret, salt=salt, info=info)

    def unwrap(self, wrap: Wrap, salt: bytes, info: bytes) -> bytes:
        if isinstance(wrap, ByPassphrase):
            raise Problem("RW-KEK", "The key file was sealed with a passphrase, and a key-encryption key was given.")
        if wrap.id != self._id:
            raise Problem(
                "RW-KEK",
                f"The key file was sealed with another key-encryption key: that one's id is {wrap.id}, "
                f"the one given is {self._id}.",
            )
        return _derive(self._secret, salt=salt, info=info)


@final
class _PassphraseKek(Kek):
    __slots__ = ("_cost", "_passphrase")

    def __init__(self, passphrase: bytes, cost: Argon2) -> None:
        self._passphrase = passphrase
        self._cost = cost

    @property
    def id(self) -> str:
        return "passphrase"

    def wrap(self, salt: bytes, info: bytes) -> tuple[Wrap, bytes]:
        own = os.urandom(16)
        secret = self._stretch(own, self._cost.memory_kib, self._cost.passes, self._cost.lanes)
        wrap = ByPassphrase(
            id=_id_of(secret),
            salt=own.hex(),
            memory_kib=self._cost.memory_kib,
            passes=self._cost.passes,
            lanes=self._cost.lanes,
        )
        return wrap, _derive(secret, salt=salt, info=info)

    def unwrap(self, wrap: Wrap, salt: bytes, info: bytes) -> bytes:
        if isinstance(wrap, ByKey):
            raise Problem(
                "RW-KEK", f"The key file was sealed with the key-encryption key {wrap.id}, and a passphrase was given."
            )
        secret = self._stretch(bytes.fromhex(wrap.salt), wrap.memory_kib, wrap.passes, wrap.lanes)
        if _id_of(secret) != wrap.id:
            raise Problem("RW-KEK", "The passphrase is not the one that the key file was sealed with.")
        return _derive(secret, salt=salt, info=info)

    def _stretch(self, salt: bytes, memory_kib: int, passes: int, lanes: int) -> bytes:
        try:
            return hash_secret_raw(
                self._passphrase,
                salt,
                time_cost=passes,
                memory_cost=memory_kib,
                parallelism=lanes,
                hash_len=32,
                type=Type.ID,
                version=0x13,
            )
        except argon2.exceptions.HashingError as error:
            raise Problem("RW-KEK", f"Argon2id failed with {memory_kib} KiB of memory: {error}.") from error


def kek_from_file(path: Path) -> Kek:
    """The KEK in a file of ours of mode 0400 or 0600: 64 lower-case hex digits and a newline; else Problem `RW-KEK`."""
    try:
        data = disk.read(path, code="RW-KEK", limit=1024)
    except FileNotFoundError as error:
        raise Problem(
            "RW-KEK",
            f"There is no key-encryption key at {disk.quoted(path)}. Put back the one that the key "
            "files were sealed with; nothing else opens them.",
        ) from error
    return kek_from_bytes(data, disk.quoted(path))


def kek_from_bytes(data: bytes, name: str) -> Kek:
    """The KEK that such a file holds; `name` is how a Problem `RW-KEK` calls it."""
    if not _FILE.fullmatch(data):
        raise Problem("RW-KEK", f"{name} does not hold 64 lower-case hex digits and a newline.")
    return _KeyKek(bytes.fromhex(data[:64].decode()))


def kek_from_credential(name: str, environ: Mapping[str, str]) -> Kek:
    """The KEK in the systemd credential `name`, of the same form as the file; Problem `RW-KEK` otherwise.

    systemd (`LoadCredential=`, `LoadCredentialEncrypted=`) says where credentials are in CREDENTIALS_DIRECTORY. It may
    leave them root's, with an ACL for the service's user, which shows as a readable group.
    """
    folder = environ.get("CREDENTIALS_DIRECTORY", "")
    if not _CREDENTIAL.fullmatch(name):
        raise Problem("RW-KEK", "A credential's name is made of letters, digits, dot, dash and underscore.")
    if not folder.startswith("/"):
        raise Problem(
            "RW-KEK",
            f"systemd gave this process no credentials. Add LoadCredential={name}:FILE to the unit's [Service].",
        )
    path = Path(folder, name)
    try:
        data = disk.read(path, code="RW-KEK", limit=1024, forbidden=0o137, owners=(0,))
    except FileNotFoundError as error:
        raise Problem(
            "RW-KEK",
            f"systemd gave no credential {name}. Add LoadCredential={name}:FILE to the unit's [Service].",
        ) from error
    return kek_from_bytes(data, disk.quoted(path))


def kek_from_passphrase(passphrase: str, cost: Argon2 | None = None, *, code: str = "RW-KEK") -> Kek:
    """A KEK that Argon2id makes of a passphrase: 12 characters at least, in Unicode's NFC (RFC 8265 4.2).

    Salt and cost stand in each file's header, so that a folder of key files needs nothing but the passphrase. Making
    the KEK is quick; each file that is sealed or opened costs `cost` (a tenth of a second and 64 MiB by default).
    """
    cost = cost or Argon2()
    if len(passphrase) < SHORTEST:
        raise Problem(code, f"A passphrase has {SHORTEST} characters or more.")
    try:
        msgspec.convert({"source": "argon2id", "id": "0" * 16, "salt": "0" * 32, **vars(cost)}, ByPassphrase)
        encoded = unicodedata.normalize("NFC", passphrase).encode()
    except msgspec.ValidationError as error:
        raise Problem("RW-KEK", f"Argon2id is not to be run so: {error}.") from error
    except UnicodeEncodeError as error:
        raise Problem(code, "The passphrase is not valid Unicode.") from error
    return _PassphraseKek(encoded, cost)


def kek_from_passphrase_file(path: Path, *, code: str = "RW-KEK") -> Kek:
    """`kek_from_passphrase` of the one line in a file of ours of mode 0400 or 0600; Problem `code` where it is not."""
    try:
        data = disk.read(path, code=code, limit=4096)
    except FileNotFoundError as error:
        raise Problem(code, f"There is no passphrase at {disk.quoted(path)}.") from error
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise Problem(code, f"{disk.quoted(path)} is not UTF-8.") from error
    return kek_from_passphrase(text.removesuffix("\n").removesuffix("\r"), code=code)


def create_kek_file(path: Path) -> None:
    """Write a new random KEK to `path`, mode 0400, durably; Problem `RW-KEK` where there is a file already."""
    _create(path, os.urandom(32).hex())


def create_passphrase_file(path: Path) -> None:
    """Write a new random passphrase (160 bits, in groups that can be copied by hand) to `path`, mode 0400, durably."""
    letters = base64.b32encode(os.urandom(20)).decode().lower()
    _create(path, "-".join(letters[at : at + 4] for at in range(0, 32, 4)))


def _create(path: Path, line: str) -> None:
    try:
        disk.write_new(path, line.encode() + b"\n", mode=0o400)
    except FileExistsError as error:
        raise Problem("RW-KEK", f"There is a file at {disk.quoted(path)} already; it is left as it is.") from error
    except OSError as error:
        raise Problem("RW-KEK", f"{disk.quoted(path)} cannot be written: {error.strerror}.") from error


def _derive(secret: bytes, *, salt: bytes, info: bytes) -> bytes:
    return HKDF(hashes.SHA256(), 32, salt, info).derive(secret)


def _id_of(secret: bytes) -> str:
    return _derive(secret, salt=b"", info=b"rootward kek id")[:8].hex()
