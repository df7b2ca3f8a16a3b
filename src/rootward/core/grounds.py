"""On what grounds a signature is asked of somebody who trusts nobody: the signer process decides anew, so it is told
what a draft was made of. And the words of its protocol (docs/reference/signer.md).

A frame is four octets, the length of what follows (big endian), and one MessagePack value: an `Order` to the signer, a
`Reply` from it. A CRL's TBS comes after its order's frame, `size` octets as they are: it may have a million entries.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final

import msgspec

from rootward.core import der
from rootward.core.plan import Ask, Draft, Plan
from rootward.core.problems import CODES, Problem, Reason, shown

LARGEST_ORDER: Final = 256 * 1024  # octets: a CSR has 64 KiB at most, and so has a TBS of a hundred names
LARGEST_REPLY: Final = 1024 * 1024
LARGEST_CRL: Final = 256 * 1024 * 1024  # octets: five million entries
HEAD: Final = 4  # octets of a frame's length

_Id = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
_Text = Annotated[str, msgspec.Meta(max_length=1024)]


class Grounds(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a certificate's draft was made of: everything that `Policy.admit` and `Plan.draft` were given.

    `names` are those of `str(name)`, None where the CSR's were taken; `lifetime` in seconds; `serial` its content
    octets; `now` in Unix seconds.
    """

    profile: _Text
    version: int
    csr: bytes
    names: tuple[_Text, ...] | None
    identity: dict[str, _Text]
    lifetime: int
    owner: _Text | None
    labels: dict[str, _Text]
    serial: bytes
    now: int


def grounds_of(ask: Ask, plan: Plan, draft: Draft, identity: dict[str, str], now: datetime) -> Grounds:
    """The grounds of a draft that was made of this ask and plan, now."""
    return Grounds(
        profile=plan.policy.profile.name,
        version=plan.policy.version,
        csr=ask.csr.der,
        names=None if ask.names is None else tuple(map(str, ask.names)),
        identity=identity,
        lifetime=int(plan.lifetime.total_seconds()),
        owner=ask.owner,
        labels=dict(ask.labels),
        serial=draft.serial,
        now=int(now.timestamp()),
    )


class ListKeys(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="keys"):
    """Which keys are there."""


class SignCertificate(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="certificate"):
    """Sign this TBS with the key of this id (SHA-256 of its SPKI), on these grounds."""

    key: _Id
    tbs: bytes
    grounds: Grounds


class SignCrl(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="crl"):
    """Sign the TBSCertList of `size` octets that follows this frame."""

    key: _Id
    size: Annotated[int, msgspec.Meta(ge=1, le=LARGEST_CRL)]


Order = ListKeys | SignCertificate | SignCrl


class HeldKey(msgspec.Struct, frozen=True):
    """A key of the signer's: its label, its SubjectPublicKeyInfo and its CSR, both DER."""

    label: str
    spki: bytes
    csr: bytes


class HeldKeys(msgspec.Struct, frozen=True, tag="keys"):
    """Every key, by label."""

    keys: tuple[HeldKey, ...]


class Signed(msgspec.Struct, frozen=True, tag="signed"):
    """The signature (ECDSA's as DER)."""

    signature: bytes


class Said(msgspec.Struct, frozen=True):
    """One reason of a refusal."""

    code: str
    detail: str
    field: str | None = None


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """Nothing was signed, and nothing will be for this order: why, and when to ask again where that helps."""

    reasons: tuple[Said, ...]
    retry_after: int | None = None


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """The key or the journal did not do it. `unsigned`: it is certain that nothing was signed."""

    unsigned: bool
    why: str


Reply = HeldKeys | Signed | Refused | Failed

_encode = msgspec.msgpack.Encoder().encode
_orders: msgspec.msgpack.Decoder[Order] = msgspec.msgpack.Decoder(Order)
_replies: msgspec.msgpack.Decoder[Reply] = msgspec.msgpack.Decoder(Reply)


def frame(message: Order | Reply) -> bytes:
    """The whole frame of a message."""
    body = _encode(message)
    return len(body).to_bytes(HEAD, "big") + body


def read_order(body: bytes) -> Order:
    """A frame's content; Problem RW-MALFORMED where it is no order."""
    try:
        return _orders.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise Problem("RW-MALFORMED", f"The order cannot be read: {shown(str(error), 200)}.") from None


def read_reply(body: bytes) -> Reply:
    """A frame's content; Problem RW-MALFORMED where it is no reply."""
    try:
        return _replies.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise Problem("RW-MALFORMED", f"The signer's reply cannot be read: {shown(str(error), 200)}.") from None


def is_crl(tbs: bytes) -> bool:
    """Whether this begins as the TBSCertList of a version 2 CRL (RFC 5280 5.1), which no certificate's TBS does."""
    try:
        parts = der.items(tbs, der.only(tbs, der.SEQUENCE))
        return der.whole(tbs, next(parts)) == der.integer(1)
    except (der.DerError, StopIteration):
        return False


def refusal_of(problem: Problem) -> Refused:
    """A problem as it travels."""
    return Refused(
        tuple(Said(reason.code, reason.detail, reason.field) for reason in problem.reasons), problem.retry_after
    )


def problem_of(refused: Refused) -> Problem:
    """The refusal as what is raised here: its code is RW-SIGNER-REFUSED, its reasons say what is behind it."""
    reasons = [
        Reason(said.code if said.code in CODES else "RW-SIGNER-REFUSED", shown_whole(said.detail), said.field)
        for said in refused.reasons
    ]
    return Problem(
        "RW-SIGNER-REFUSED",
        " ".join(reason.detail for reason in reasons) or "The signer refused.",
        reasons=tuple(reasons),
        retry_after=refused.retry_after,
    )


def shown_whole(text: str) -> str:
    """A sentence of the signer's as it may stand in ours: printable, and not longer than it must be."""
    return "".join(char for char in text[:1000] if char.isprintable())
