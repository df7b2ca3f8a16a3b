"""Who takes part in a ceremony: their names, which must look different, and the public keys that they sign with."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from typing import Annotated, Literal

import msgspec
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from rootward.core.lint import UNREADABLE
from rootward.core.problems import Problem, shown
from rootward.core.pubkey import PublicKey, public_key_of
from rootward.core.shares import is_name

WITNESSES = 2  # participants who sign a transcript, so that no one of them has to be believed
Person = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
Role = Literal["master", "witness", "custodian", "operator"]


class Participant(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Somebody in the room. `key` is the public key that they sign the transcript with: Ed25519 in hex (32 bytes), or a
    PEM public key; empty for who does not sign.
    """

    name: Person
    role: Role
    key: str = ""


def participant_key(text: str) -> PublicKey:
    """The public key that a script gives a participant: 32 bytes in hex (Ed25519), or PEM. Problem RW-CEREMONY."""
    try:
        if text.lstrip().startswith("-----BEGIN"):
            key: object = serialization.load_pem_public_key(text.strip().encode())
        else:
            key = ed25519.Ed25519PublicKey.from_public_bytes(bytes.fromhex(text))
        return public_key_of(key, field="participants")
    except UNREADABLE:
        raise Problem(
            "RW-CEREMONY", f"{shown(text)} is no public key: 64 hex digits (Ed25519), or PEM.", field="participants"
        ) from None


def participant_faults(people: Sequence[Participant], *, lab: bool) -> Iterator[tuple[str, str]]:
    """What is wrong with those who take part, as (field, sentence)."""
    names = [person.name for person in people]
    if len({_seen(name) for name in names}) != len(names):
        yield "participants", "Two participants have the same name, or names that look the same."
    for name in names:
        if not is_name(name) or "  " in name:
            yield "participants", f"{shown(name)} is no name: 1 to 64 bytes of printable text, in its usual form (NFC)."
    keys = []
    for person in people:
        try:
            keys += [participant_key(person.key).id] if person.key else []
        except Problem as problem:
            yield "participants", f"The key of {shown(person.name)}: {problem.detail}"
    if len(set(keys)) != len(keys):
        yield "participants", "Two participants have the same key."
    roles = [person.role for person in people]
    if roles.count("master") != 1:
        yield "participants", "A ceremony has one master."
    if lab:
        return
    if "witness" not in roles:
        yield "participants", "A ceremony that is no lab has a witness or more."
    if len(keys) < WITNESSES:
        yield "participants", "Two participants or more need a key, because two sign the transcript."


def _seen(name: str) -> str:
    """What people see of a name: without capitals, spaces, and other forms of the same letters."""
    return "".join(unicodedata.normalize("NFKC", name).casefold().split())
