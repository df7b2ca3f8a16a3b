"""The audit tree: leaves of events, RFC 6962 hashes, heads as signed notes.

A leaf is one event's fixed fields as canonical JSON: keys sorted, no spaces, UTF-8. An auditor makes the same bytes of
a line of the export with Python's standard library alone: `leaf` taken out, then `json.dumps(event, sort_keys=True,
separators=(",", ":"), ensure_ascii=False)`. The tree is RFC 6962 2.1 with SHA-256. No nodes are kept: a `Frontier`, the
hashes of the full subtrees, is all that the next leaves need.

A head is a C2SP tlog-checkpoint (origin, size, root) in a C2SP signed note, by one Ed25519 key whose name is the
origin. Under one origin no two inconsistent heads are ever signed: a log that has to go on from an older state gets
another origin.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterable
from functools import cached_property

import msgspec
from cryptography.hazmat.primitives.asymmetric import ed25519

from rootward.core.pubkey import PublicKey, public_key_of
from rootward.core.sealed import Sealed
from rootward.core.signature import verifies

HASH = 32
EMPTY = hashlib.sha256(b"").digest()
ED25519 = b"\x01"  # the signature type of the signed-note specification
MOST_NOTE = 4096  # octets of a note that is read
_SIGNATURE = re.compile("— ([^ +\n]+) ([A-Za-z0-9+/]+={0,2})")
_NUMBER = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)
_string = msgspec.json.Encoder().encode


class BadNote(ValueError):
    """A note or a verifier key that is not to be believed; the text says why."""


def leaf(
    *,
    n: int,
    at: str,
    kind: str,
    actor: str,
    authority: str | None,
    certificate: str | None,
    request_id: str,
    data: bytes,
) -> bytes:
    """The leaf of one event. `at` is RFC 3339, `data` the canonical JSON of its object, as it is stored."""
    text = _string
    return b"".join(
        (
            b'{"actor":',
            text(actor),
            b',"at":',
            text(at),
            b',"authority":',
            text(authority),
            b',"certificate_id":',
            text(certificate),
            b',"data":',
            data,
            b',"id":"%d","kind":' % n,
            text(kind),
            b',"request_id":',
            text(request_id),
            b"}",
        )
    )


def leaf_hash(data: bytes) -> bytes:
    """RFC 6962 2.1: SHA-256(0x00 || leaf)."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """RFC 6962 2.1: SHA-256(0x01 || left || right)."""
    return hashlib.sha256(b"\x01" + left + right).digest()


class Frontier(msgspec.Struct, frozen=True):
    """A tree of `size` leaves by its full subtrees, the largest first."""

    size: int = 0
    hashes: tuple[bytes, ...] = ()

    def extended(self, leaves: Iterable[bytes]) -> Frontier:
        """With further leaf hashes."""
        size, hashes = self.size, list(self.hashes)
        for item in leaves:
            below, node = size, item
            while below & 1:
                node = hashlib.sha256(b"\x01" + hashes.pop() + node).digest()
                below >>= 1
            hashes.append(node)
            size += 1
        return Frontier(size, tuple(hashes))

    @property
    def root(self) -> bytes:
        """The root of the tree (RFC 6962 2.1)."""
        if not self.hashes:
            return EMPTY
        node = self.hashes[-1]
        for left in reversed(self.hashes[:-1]):
            node = node_hash(left, node)
        return node

    def packed(self) -> bytes:
        """The hashes, one after the other."""
        return b"".join(self.hashes)


def unpacked(size: int, packed: bytes) -> Frontier:
    """The inverse of `Frontier.packed`; ValueError where it is no frontier of that size."""
    if size < 0 or len(packed) != HASH * size.bit_count():
        raise ValueError(f"no frontier of {size} leaves")
    return Frontier(size, tuple(packed[at : at + HASH] for at in range(0, len(packed), HASH)))


class Verifier(msgspec.Struct, frozen=True, dict=True):
    """A log's public key under the name of its origin: `key` has 32 octets (RFC 8032)."""

    name: str
    key: bytes

    @cached_property
    def id(self) -> bytes:
        """The key id of the signed-note specification, 4 octets."""
        return hashlib.sha256(self.name.encode() + b"\n" + ED25519 + self.key).digest()[:4]

    @property
    def text(self) -> str:
        """`name+id+key`, as other people's verifiers take it."""
        return f"{self.name}+{self.id.hex()}+{_base64(ED25519 + self.key)}"

    @cached_property
    def public(self) -> PublicKey:
        return public_key_of(ed25519.Ed25519PublicKey.from_public_bytes(self.key))

    def named(self, name: str) -> Verifier:
        """The same key under another name."""
        return Verifier(name, self.key)


def verifier_of(name: str, public: PublicKey) -> Verifier:
    """The verifier of an Ed25519 key; ValueError for another kind or a name that no note can carry."""
    if not isinstance(public.key, ed25519.Ed25519PublicKey):
        raise ValueError("heads are signed with Ed25519")
    _check_name(name)
    return Verifier(name, public.key.public_bytes_raw())


def parse_verifier(text: str) -> Verifier:
    """The inverse of `Verifier.text`; BadNote for anything else."""
    parts = text.strip().split("+", 2)
    if len(parts) != 3:
        raise BadNote("a log's key is name+id+key")
    try:
        raw = base64.b64decode(parts[2], validate=True)
        _check_name(parts[0])
        found = Verifier(parts[0], raw[1:])
        if raw[:1] != ED25519 or len(raw) != 33 or found.id.hex() != parts[1]:
            raise BadNote("a log's key is name+id+key, with an Ed25519 key and its own id")
        _ = found.public
    except (ValueError, binascii.Error) as error:
        raise BadNote(f"a log's key cannot be read: {error}") from error
    return found


class HeadDraft(Sealed):
    """A head without its signature, from `draft_head` alone. `tbs` is the note's text."""

    issuer_key_id: str
    verifier: Verifier
    size: int
    root: bytes
    tbs: bytes


def draft_head(verifier: Verifier, tree: Frontier) -> HeadDraft:
    """The head of a tree, to be signed by that key under its origin."""
    text = f"{verifier.name}\n{tree.size}\n{_base64(tree.root)}\n"
    return HeadDraft._make(
        issuer_key_id=verifier.public.id, verifier=verifier, size=tree.size, root=tree.root, tbs=text.encode()
    )


def finish_head(draft: HeadDraft, signature: bytes) -> str:
    """The signed note."""
    return f"{draft.tbs.decode()}\n— {draft.verifier.name} {_base64(draft.verifier.id + signature)}\n"


class Head(msgspec.Struct, frozen=True):
    """What a note says: the tree of `origin` has `size` leaves and this root. `signed` are (name, key id and
    signature).
    """

    origin: str
    size: int
    root: bytes
    text: bytes
    signed: tuple[tuple[str, bytes], ...]

    def check(self, verifier: Verifier) -> None:
        """BadNote unless that key signed it under this origin. Signatures of others are passed over, as the
        specification wants.
        """
        mine = [raw[4:] for name, raw in self.signed if (name, raw[:4]) == (verifier.name, verifier.id)]
        if self.origin != verifier.name:
            raise BadNote(f"the head is of {self.origin}, not of {verifier.name}")
        if not mine:
            raise BadNote("the head is not signed by the log's key")
        if not all(verifies(verifier.public, signature, self.text) for signature in mine):
            raise BadNote("the head's signature is wrong")


def parse_head(note: str) -> Head:
    """Read a note; BadNote where it is none or no checkpoint. Nothing is verified yet."""
    if len(note) > MOST_NOTE:
        raise BadNote("a note has 4096 characters at most")
    text, blank, signatures = note.rpartition("\n\n")
    lines = text.split("\n")
    if not blank or any(ord(char) < 32 for char in note.replace("\n", "")):
        raise BadNote("this is no signed note")
    if len(lines) != 3 or not lines[0] or not _NUMBER.fullmatch(lines[1]) or not signatures.endswith("\n"):
        raise BadNote("this is no head: origin, size and root are wanted, each on its line")
    matches = [_SIGNATURE.fullmatch(line) for line in signatures[:-1].split("\n")]
    try:
        root = base64.b64decode(lines[2], validate=True)
        signed = tuple((found[1], base64.b64decode(found[2], validate=True)) for found in matches if found)
    except (ValueError, binascii.Error) as error:
        raise BadNote("a note's base64 cannot be read") from error
    if len(signed) != len(matches) or len(root) != HASH or any(len(raw) < 5 for _, raw in signed):
        raise BadNote("a root has 32 octets, and each signature a name and a key id")
    return Head(lines[0], int(lines[1]), root, f"{text}\n".encode(), signed)


def _check_name(name: str) -> None:
    if not name or "+" in name or any(char.isspace() or ord(char) < 32 for char in name):
        raise BadNote("a log's name has no space and no plus")


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
