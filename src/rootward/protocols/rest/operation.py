"""What one call of the API is: an `Operation` is a row of the route table, and the OpenAPI document is made of the
same rows.

Resources are files with a tuple of operations. `app` does for every one of them, in this order: path and method, query,
who asks, body; so a handler gets values that are decoded already and only says what the resource is.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Generic, TypeVar

import msgspec

from rootward.ca.access import Caller, Principal
from rootward.ca.installation import Installation
from rootward.core.revocation import RevocationReason
from rootward.core.times import rfc3339
from rootward.protocols.problems import Header
from rootward.protocols.rest import queries
from rootward.protocols.rest.bodies import MAX_BODY

API = "/api/v1"

_SCHEMA = {"type": "string", "format": "date-time", "examples": ["2026-11-23T17:46:41Z"]}
Moment = Annotated[str, msgspec.Meta(description="RFC 3339 in UTC, whole seconds", extra_json_schema=_SCHEMA)]
# One line of text without control characters; `$` alone would let a last line feed through.
_LINE = r"^[^\u0000-\u001f\u007f-\u009f\u2028\u2029]*$(?!\n)"
Line = Annotated[str, msgspec.Meta(min_length=1, max_length=200, pattern=_LINE)]
Text = Annotated[str, msgspec.Meta(max_length=2_000, pattern=r"^[^\u0000-\u0008\u000b-\u001f\u007f-\u009f]*$")]
# What is checked by its own reader, with its own code: the schema only tells.
Duration = Annotated[str, msgspec.Meta(extra_json_schema={"pattern": "^[1-9][0-9]{0,5}[smhdy]$", "examples": ["90d"]})]
Reason = Annotated[
    str,
    msgspec.Meta(
        description="A name of RFC 5280 5.3.1.",
        extra_json_schema={
            "enum": [name.value for name in RevocationReason if name != RevocationReason.REMOVE_FROM_CRL]
        },
    ),
]
Pem = Annotated[str, msgspec.Meta(description="PEM", extra_json_schema={"pattern": "^-----BEGIN "})]
WHEN = {"type": "string", "pattern": "^([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}Z|[1-9][0-9]{0,5}[smhdy])$"}
Id = Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=r"^[0-9a-z:-]*$(?!\n)")]

T = TypeVar("T")


class Page(msgspec.Struct, Generic[T], frozen=True):
    """One page of a list; `next_cursor` is null on the last one."""

    items: list[T]
    next_cursor: str | None


class Empty(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A body without fields."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """A query parameter and what it means."""

    name: str
    description: str
    schema: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """One request, decoded. `path` and `query` are by name, `body` is of the operation's type, `raw` its bytes.

    `key` is the Idempotency-Key. Of a body above `MAX_BODY`, `raw` is "sha256:" and the hash of its bytes.
    """

    inst: Installation
    caller: Caller
    method: str
    url: str
    path: Mapping[str, str]
    query: Mapping[str, str]
    body: Any
    raw: bytes
    key: str | None

    @property
    def principal(self) -> Principal:
        return self.caller.principal

    @property
    def limit(self) -> int:
        return queries.limit_of(self.query)

    def numbers(self, length: int) -> tuple[int, ...] | None:
        """Where the page before ended: `length` numbers, or None on the first page."""
        found = queries.decode_cursor(self.url, self.query, (int,) * length)
        return None if found is None else tuple(int(part) for part in found)

    def text(self) -> str | None:
        """Where the page before ended, by the key of its last item; None on the first page."""
        found = queries.decode_cursor(self.url, self.query, (str,))
        return None if found is None else str(found[0])

    def page(self, items: list[T], after: queries.Position | None) -> Page[T]:
        """A page of the list that was asked for; `after` is the position of its last item where there is more."""
        return Page(items, None if after is None else queries.encode_cursor(self.url, self.query, after))

    def ended(self, items: Sequence[T], key: Callable[[T], str]) -> Page[T]:
        """A page of a list in the order of `key`, which is unique: `items` begin after `text()`, one too many if
        there is more.
        """
        kept = list(items[: self.limit])
        return self.page(kept, (key(kept[-1]),) if len(items) > len(kept) else None)

    def cut(self, items: Iterable[T], key: Callable[[T], str]) -> Page[T]:
        """A page of a list that is small enough to be at hand whole, in the order of `key`, which is unique."""
        after = self.text()
        return self.ended(sorted((item for item in items if after is None or key(item) > after), key=key), key)


@dataclass(frozen=True, slots=True)
class Answer:
    """What goes back. `content` is a Struct, or parts of bytes for a stream."""

    content: msgspec.Struct | AsyncIterator[bytes]
    status: int = 200
    headers: tuple[Header, ...] = ()


Handler = Callable[[Call], Awaitable[Answer]]


@dataclass(frozen=True, kw_only=True)
class Operation:
    """A method of a path. `path` is below `/api/v1`; `{id}` and the like take what `routing.PARAMETERS` says.

    `also` are further good answers by status. `problems` are the codes of this operation beyond those that every one
    may give. `media_type` is that of the good answer. `lenient` bodies may be absent: all of their fields can be left
    out. `admits` raises RW-FORBIDDEN for who may not use it at all, whatever the body says, so that none is read.
    """

    name: str
    method: str
    path: str
    handler: Handler
    summary: str
    result: Any
    status: int = 200
    also: Mapping[int, Any] | None = None
    body: type[Any] | None = None
    lenient: bool = False
    query: tuple[Parameter, ...] = ()
    paged: bool = False
    idempotent: bool = False
    largest: int = MAX_BODY  # bytes of the body; the listener may take fewer
    admits: Callable[[Principal], None] | None = None
    urgent: bool = False  # waits for no turn: revoking, say, goes on while issuance is saturated (I-25)
    repeatable: bool = False  # done twice it is the same as once
    ties_key: bool = False  # it keeps the Idempotency-Key with what it makes, by itself
    problems: tuple[str, ...] = ()
    media_type: str = "application/json"

    def __post_init__(self) -> None:
        if self.largest > MAX_BODY and self.admits is None:
            raise ValueError(f"{self.name} takes a large body and does not say from whom")

    @property
    def url(self) -> str:
        return API + self.path

    @cached_property
    def parameters(self) -> frozenset[str]:
        """The names of the query parameters that it takes."""
        own = frozenset(parameter.name for parameter in self.query)
        return own | {"limit", "cursor"} if self.paged else own


def moment(value: Any) -> str | None:
    """A stored time as the API says it, None for a fact that has not happened."""
    return None if value is None else rfc3339(value)
