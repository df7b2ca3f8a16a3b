"""A custodian's share as a file that a passphrase opens, and the same file on paper.

    {"format":"rootward-share","version":1,"set":…,"label":…,"threshold":3,"shares":5,"index":2,"custodian":…,…}
    base64 of AES-256-GCM(value, the checks of every share, the secret's check)

Two lines in one canonical form, as a key file has them (`envelope.py`): the first is the associated data as it stands.
The file's own key is HKDF-SHA256, with a random salt, of what Argon2id makes of the custodian's passphrase. Who holds
the file and the passphrase has the share; the first line is not secret.

On paper (`printed`) is what the file is, packed into a few hundred bytes, and typed back (`typed`) to the very same
file; it is as sealed as the file.
"""

from __future__ import annotations

import base64
import binascii
import os
import struct
from collections.abc import Iterable
from typing import Annotated, Literal

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from rootward.core import paper
from rootward.core.problems import Problem, shown
from rootward.core.shares import BYTES, CHECK, MOST, Share, is_name
from rootward.keys.backend import check_label
from rootward.keys.kek import Argon2, ByPassphrase, Hex32, kek_from_passphrase

LARGEST = 8 * 1024
_CODE = "RW-SHARE"
_INFO = b"rootward share 1"
_TAG = 16  # bytes, GCM's
_MOST_MEMORY = 256 * 1024  # KiB that a file from elsewhere may ask Argon2id to take
# version, threshold, shares, index; set, HKDF's salt, nonce; KEK's id, Argon2id's salt, memory, passes, lanes
_PACKED = struct.Struct(">BBBB16s16s12s8s16sIBB")

_Count = Annotated[int, msgspec.Meta(ge=1, le=MOST)]


class Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The first line. `set` is the set's id, `label` says what the secret opens, `salt` is HKDF's, `nonce` GCM's."""

    format: Literal["rootward-share"]
    version: Literal[1]
    set: Hex32
    label: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9-]{1,64}\Z")]
    threshold: _Count
    shares: _Count
    index: _Count
    custodian: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    cipher: Literal["aes-256-gcm"]
    salt: Hex32
    nonce: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{24}\Z")]
    kek: ByPassphrase


def seal(share: Share, passphrase: str, *, cost: Argon2 | None = None) -> bytes:
    """The file's bytes; two calls never give the same. Problem RW-SHARE for a passphrase below 12 characters."""
    check_label(share.label)
    kek = kek_from_passphrase(passphrase, cost, code=_CODE)
    salt, nonce = os.urandom(16), os.urandom(12)
    wrap, own = kek.wrap(salt, _INFO)
    if not isinstance(wrap, ByPassphrase):
        raise TypeError("a share is sealed with a passphrase")
    header = Header(
        "rootward-share",
        1,
        share.set,
        share.label,
        share.threshold,
        share.count,
        share.index,
        share.custodian,
        "aes-256-gcm",
        salt.hex(),
        nonce.hex(),
        wrap,
    )
    inside = share.value + b"".join(share.checks) + share.secret_check
    line = msgspec.json.encode(header)
    return _file(line, AESGCM(own).encrypt(nonce, inside, line))


def read_header(data: bytes) -> Header:
    """What the file says of itself, unproved until `unseal`; Problem RW-SHARE if it is no share's file, or damaged."""
    return _split(data)[0]


def unseal(data: bytes, passphrase: str) -> Share:
    """The share, which is what its first line says. Problem RW-SHARE, with the custodian's name: a wrong passphrase, a
    file that was changed, or no share's file.
    """
    header, line, sealed = _split(data)
    whose = f"The share of {shown(header.custodian)}"
    try:
        kek = kek_from_passphrase(passphrase, code=_CODE)
        own = kek.unwrap(header.kek, bytes.fromhex(header.salt), _INFO)
    except Problem as problem:
        raise Problem(
            _CODE,
            f"{whose} does not open with this passphrase. Either it is mistyped or another one, or the file's first "
            "line was changed.",
        ) from problem
    try:
        inside = AESGCM(own).decrypt(bytes.fromhex(header.nonce), sealed, line)
    except InvalidTag as error:
        raise Problem(
            _CODE, f"{whose} was changed or damaged after it was sealed; the passphrase is right. Take another copy."
        ) from error
    checks = [inside[at : at + CHECK] for at in range(BYTES, len(inside), CHECK)]
    share = Share(
        header.label,
        header.threshold,
        header.index,
        header.custodian,
        tuple(checks[:-1]),
        checks[-1],
        inside[:BYTES],
    )
    if share.set != header.set:
        raise Problem(_CODE, f"{whose} opens, and what is inside is not of the set {header.set}.")
    return share


def printed(data: bytes) -> str:
    """The page to print: plain text of at most 80 columns. Problem RW-SHARE if it is no share's file."""
    header, _, sealed = _split(data)
    kek = header.kek
    packed = _PACKED.pack(
        header.version,
        header.threshold,
        header.shares,
        header.index,
        *(bytes.fromhex(text) for text in (header.set, header.salt, header.nonce, kek.id, kek.salt)),
        kek.memory_kib,
        kek.passes,
        kek.lanes,
    )
    texts = (header.label.encode(), header.custodian.encode())
    body = packed + b"".join(bytes([len(text)]) + text for text in texts) + sealed
    lines = paper.lines_of(body)
    return "\n".join(
        [
            f"ROOTWARD SHARE {header.index} of {header.shares}",
            "",
            f"opens      {header.label}, together with {header.threshold - 1} more of the same set",
            f"custodian  {header.custodian}",
            f"set        {' '.join(header.set[at : at + 8] for at in range(0, 32, 8))}",
            "",
            *lines,
            "",
            "Each line ends with a check of its own. No I, L, O, U: what looks like one is",
            "a 1 or a 0. To type it back: rootward ceremony share type NEW-FILE",
            "A passphrase that is not on this page opens the share.",
            "",
        ]
    )


def typed(lines: Iterable[str]) -> bytes:
    """The file whose page has these numbered lines, byte for byte. Problem RW-SHARE names each line that is wrong."""
    body = paper.bytes_of(lines)
    odd = Problem(_CODE, "The lines are right, and they are not those of a share that can be read here.")
    try:
        version, threshold, shares, index, set_, salt, nonce, id, own, memory, passes, lanes = _PACKED.unpack_from(body)
        label, rest = _text(body[_PACKED.size :])
        custodian, sealed = _text(rest)
        header = msgspec.convert(
            {
                "format": "rootward-share",
                "version": version,
                "set": set_.hex(),
                "label": label,
                "threshold": threshold,
                "shares": shares,
                "index": index,
                "custodian": custodian,
                "cipher": "aes-256-gcm",
                "salt": salt.hex(),
                "nonce": nonce.hex(),
                "kek": {
                    "source": "argon2id",
                    "id": id.hex(),
                    "salt": own.hex(),
                    "memory_kib": memory,
                    "passes": passes,
                    "lanes": lanes,
                },
            },
            Header,
        )
    except (struct.error, IndexError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise odd from error
    data = _file(msgspec.json.encode(header), sealed)
    _split(data)
    return data


def _text(data: bytes) -> tuple[str, bytes]:
    end = 1 + data[0]
    return data[1:end].decode(), data[end:]


def _file(line: bytes, sealed: bytes) -> bytes:
    return line + b"\n" + base64.b64encode(sealed) + b"\n"


def _split(data: bytes) -> tuple[Header, bytes, bytes]:
    if len(data) > LARGEST:
        raise Problem(_CODE, f"A share's file has {LARGEST} bytes at most.")
    line, _, rest = data.partition(b"\n")
    try:
        header = msgspec.json.decode(line, type=Header)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Problem(_CODE, "This is no share's file of a version that can be read here, or it is damaged.") from error
    whose = f"The file of the share of {shown(header.custodian)}"
    try:
        sealed = base64.b64decode(rest.removesuffix(b"\n"), validate=True)
    except binascii.Error as error:
        raise Problem(_CODE, f"{whose} is damaged: its second line is no base64.") from error
    # One form only, so that no byte of a file can be changed without being noticed.
    if _file(line, sealed) != data or msgspec.json.encode(header) != line or header.kek.memory_kib > _MOST_MEMORY:
        raise Problem(_CODE, f"{whose} is not in its canonical form: it was changed or damaged.")
    possible = 2 <= header.threshold <= header.shares and header.index <= header.shares and is_name(header.custodian)
    if not possible or len(sealed) != BYTES + CHECK * (header.shares + 1) + _TAG:
        raise Problem(_CODE, f"{whose} says what no share is: it was changed or damaged.")
    return header, line, sealed
