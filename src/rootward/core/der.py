"""Strict DER (X.690): a bounded reader, and the writers that the codecs of this project share.

Reading: definite minimal lengths only, tags below 31 only, nothing left over; everything else is a `DerError`.
`header` is the primitive, `items` one level inside a buffer, `children` one level by value, `read` a whole tree. No
reader copies more than what it hands out, and `read` is bounded in depth and elements: a hostile input costs what its
size allows and no more. Writing: each function returns the whole element (tag, length, content) as bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from functools import lru_cache
from typing import NamedTuple

BOOLEAN = 0x01
INTEGER = 0x02
BIT_STRING = 0x03
OCTET_STRING = 0x04
NULL = 0x05
OID = 0x06
ENUMERATED = 0x0A
UTF8_STRING = 0x0C
PRINTABLE_STRING = 0x13
TELETEX_STRING = 0x14
IA5_STRING = 0x16
UTC_TIME = 0x17
GENERALIZED_TIME = 0x18
UNIVERSAL_STRING = 0x1C
BMP_STRING = 0x1E
SEQUENCE = 0x30
SET = 0x31

MAX_DEPTH = 32
MAX_ELEMENTS = 65536


class DerError(ValueError):
    """The bytes are not DER. The text is for people and holds none of the bytes."""


class Item(NamedTuple):
    """One element inside a buffer: its tag octet, and the offsets of its tag, its content and its end."""

    tag: int
    start: int
    body: int
    end: int


class Part(NamedTuple):
    """One element by value: its tag octet, its content octets, and itself with tag and length."""

    tag: int
    content: bytes
    whole: bytes


class Node(NamedTuple):
    """One element of a tree: a constructed one has children and no content, a primitive one the other way round."""

    tag: int
    content: bytes
    children: tuple[Node, ...]


_new = tuple.__new__  # NamedTuple's own constructor takes three times as long, and this is called for each element


def header(data: bytes, at: int, end: int) -> Item:
    """The element that begins at offset `at` and is over at or before `end`; DerError otherwise (X.690 8.1, 10.1)."""
    body = at + 2
    if body <= end:
        tag = data[at]
        size = data[at + 1]
        if size < 0x80 and tag & 0x1F != 0x1F and body + size <= end:
            return _new(Item, (tag, at, body, body + size))
    return _long_header(data, at, end)


def _long_header(data: bytes, at: int, end: int) -> Item:
    if at + 2 > end:
        raise DerError("an element is cut short")
    tag, size, body = data[at], data[at + 1], at + 2
    if tag & 0x1F == 0x1F:
        raise DerError("a tag number is above 30")
    if size >= 0x80:
        octets = size & 0x7F
        body += octets
        if octets == 0 or octets > 4 or body > end:
            raise DerError("a length is indefinite, too long or cut short")
        size = int.from_bytes(data[at + 2 : body], "big")
        if size < 0x80 or size >> (8 * (octets - 1)) == 0:
            raise DerError("a length is not in its shortest form")
    if body + size > end:
        raise DerError("an element is cut short")
    return Item(tag, at, body, body + size)


def only(data: bytes, tag: int, *, start: int = 0, end: int | None = None) -> Item:
    """The one element that fills `data[start:end]`, and has this tag octet."""
    stop = len(data) if end is None else end
    item = header(data, start, stop)
    if item.tag != tag:
        raise DerError("an element has another type than it must")
    if item.end != stop:
        raise DerError("there are bytes after the last element")
    return item


def items(data: bytes, parent: Item) -> Iterator[Item]:
    """The elements directly inside `parent`, in order."""
    at, stop = parent.body, parent.end
    while at < stop:
        end = at + 2 + data[at + 1] if at + 2 <= stop else stop + 1
        if end <= stop and data[at + 1] < 0x80 and data[at] & 0x1F != 0x1F:
            yield _new(
                Item, (data[at], at, at + 2, end)
            )  # what `header` would say of a short element, without the call
        else:
            item = header(data, at, stop)
            yield item
            end = item.end
        at = end


def children(data: bytes) -> tuple[Part, ...]:
    """The elements directly inside the one constructed element that `data` is."""
    outer = header(data, 0, len(data))
    if outer.end != len(data) or not outer.tag & 0x20:
        raise DerError("this is not one constructed element")
    return tuple([_new(Part, (tag, data[body:end], data[start:end])) for tag, start, body, end in items(data, outer)])


def few(data: bytes, parent: Item, most: int = 16) -> list[Item]:
    """The elements directly inside `parent`, at most `most`; DerError for more, before they are all looked at."""
    found: list[Item] = []
    for item in items(data, parent):
        if len(found) == most:
            raise DerError("there are too many elements")
        found.append(item)
    return found


def content(data: bytes, item: Item) -> bytes:
    """The element's content octets."""
    return data[item.body : item.end]


def whole(data: bytes, item: Item) -> bytes:
    """The element itself: tag, length and content."""
    return data[item.start : item.end]


def check(data: bytes, *, depth: int = MAX_DEPTH, elements: int = MAX_ELEMENTS) -> None:
    """Nothing if `data` is one well-formed element all the way down, within the bounds; DerError otherwise."""
    open_ends = [len(data)]
    at = seen = 0
    while open_ends:
        if at == open_ends[-1]:
            open_ends.pop()
            continue
        item = header(data, at, open_ends[-1])
        seen += 1
        if seen > elements:
            raise DerError("there are too many elements")
        if len(open_ends) == 1 and item.end != len(data):
            raise DerError("there are bytes after the last element")
        if item.tag & 0x20:
            if len(open_ends) > depth:
                raise DerError("the elements are nested too deeply")
            open_ends.append(item.end)
            at = item.body
        else:
            at = item.end
    if seen == 0:
        raise DerError("there is nothing")


def read(data: bytes, *, depth: int = MAX_DEPTH, elements: int = MAX_ELEMENTS) -> Node:
    """The tree of the one element that `data` is; DerError if it is not DER, or larger than the bounds."""
    check(data, depth=depth, elements=elements)
    return _node(data, header(data, 0, len(data)))


def _node(data: bytes, item: Item) -> Node:
    if item.tag & 0x20:
        return Node(item.tag, b"", tuple(_node(data, child) for child in items(data, item)))
    return Node(item.tag, content(data, item), ())


@lru_cache(maxsize=256)
def read_oid(body: bytes) -> str:
    """The dotted form of an OBJECT IDENTIFIER's content octets (X.690 8.19); DerError unless minimal and complete."""
    if not body or body[-1] & 0x80 or len(body) > 64:
        raise DerError("an object identifier is empty, cut short or too long")
    arcs: list[int] = []
    arc, fresh = 0, True
    for octet in body:
        if fresh and octet == 0x80:
            raise DerError("an object identifier is not in its shortest form")
        arc = arc << 7 | octet & 0x7F
        fresh = not octet & 0x80
        if fresh:
            arcs.append(arc)
            arc = 0
    first = min(arcs[0] // 40, 2)
    return ".".join(map(str, (first, arcs[0] - 40 * first, *arcs[1:])))


def read_integer(body: bytes) -> int:
    """The value of an INTEGER's or ENUMERATED's content octets (X.690 8.3); DerError unless minimal."""
    if not body or (len(body) > 1 and (body[0], body[1] >> 7) in ((0, 0), (0xFF, 1))):
        raise DerError("an integer is empty or not in its shortest form")
    return int.from_bytes(body, "big", signed=True)


def tlv(tag: int, body: bytes) -> bytes:
    """An element of any tag octet around content octets."""
    size = len(body)
    return (bytes((tag, size)) if size < 0x80 else head(tag, size)) + body


def head(tag: int, size: int) -> bytes:
    """The tag octet and the length of an element whose content has `size` octets (X.690 8.1.3)."""
    if size < 0x80:
        return bytes((tag, size))
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(octets))) + octets


def sequence(*parts: bytes) -> bytes:
    """A SEQUENCE of whole elements."""
    return tlv(SEQUENCE, b"".join(parts))


def set_of(*parts: bytes) -> bytes:
    """A SET OF in DER's order (X.690 11.6)."""
    return tlv(SET, b"".join(sorted(parts)))


def boolean(value: bool) -> bytes:
    """A BOOLEAN."""
    return b"\x01\x01\xff" if value else b"\x01\x01\x00"


def integer(value: int) -> bytes:
    """An INTEGER in its shortest form (X.690 8.3)."""
    return tlv(INTEGER, _signed(value))


def enumerated(value: int) -> bytes:
    """An ENUMERATED in its shortest form."""
    return tlv(ENUMERATED, _signed(value))


def _signed(value: int) -> bytes:
    bits = value.bit_length() if value >= 0 else (value + 1).bit_length()
    return value.to_bytes(bits // 8 + 1, "big", signed=True)


def null() -> bytes:
    """A NULL."""
    return b"\x05\x00"


def octet_string(value: bytes) -> bytes:
    """An OCTET STRING of these octets."""
    return tlv(OCTET_STRING, value)


def bit_string(value: bytes, unused: int = 0) -> bytes:
    """A BIT STRING whose last octet has `unused` bits (0 to 7) that do not count and must be zero."""
    return tlv(BIT_STRING, bytes((unused,)) + value)


@lru_cache(maxsize=256)
def oid(dotted: str) -> bytes:
    """An OBJECT IDENTIFIER from its dotted form, which must be right: ValueError otherwise."""
    arcs = [int(part) for part in dotted.split(".")]
    if len(arcs) < 2 or min(arcs) < 0 or arcs[0] > 2 or (arcs[0] < 2 and arcs[1] > 39):
        raise ValueError("not an object identifier")
    body = bytearray()
    for arc in (40 * arcs[0] + arcs[1], *arcs[2:]):
        octets = [arc & 0x7F]
        while arc := arc >> 7:
            octets.append(0x80 | arc & 0x7F)
        body += bytes(reversed(octets))
    return tlv(OID, bytes(body))


def utf8_string(value: str) -> bytes:
    """A UTF8String."""
    return tlv(UTF8_STRING, value.encode("utf-8"))


def printable_string(value: str) -> bytes:
    """A PrintableString; the caller knows that the value has only its characters."""
    return tlv(PRINTABLE_STRING, value.encode("ascii"))


def ia5_string(value: str) -> bytes:
    """An IA5String; UnicodeEncodeError outside ASCII."""
    return tlv(IA5_STRING, value.encode("ascii"))


def explicit(number: int, *parts: bytes) -> bytes:
    """`[number] EXPLICIT` (0 to 30) around one element; also `[number] IMPLICIT` around the elements of a SEQUENCE."""
    return tlv(0xA0 | number, b"".join(parts))


def implicit(number: int, body: bytes) -> bytes:
    """`[number] IMPLICIT` (0 to 30) of a primitive type, around its content octets."""
    return tlv(0x80 | number, body)


def generalized_time(moment: datetime) -> bytes:
    """GeneralizedTime of an aware datetime in UTC, whole seconds (RFC 5280 4.1.2.5.2)."""
    return tlv(GENERALIZED_TIME, _stamp(moment))


def utc_time(moment: datetime) -> bytes:
    """UTCTime of an aware datetime of 1950 to 2049, whole seconds (RFC 5280 4.1.2.5.1); ValueError outside."""
    if not 1950 <= moment.astimezone(UTC).year <= 2049:
        raise ValueError("UTCTime holds 1950 to 2049")
    return tlv(UTC_TIME, _stamp(moment)[2:])


def time(moment: datetime) -> bytes:
    """RFC 5280's Time: UTCTime through 2049, GeneralizedTime from 2050 on."""
    return generalized_time(moment) if moment.astimezone(UTC).year >= 2050 else utc_time(moment)


def _stamp(moment: datetime) -> bytes:
    if moment.tzinfo is None:
        raise ValueError("a time must be aware")
    at = moment.astimezone(UTC)
    # not strftime: it is five times slower, and does not pad years below 1000 on every platform
    return b"%04d%02d%02d%02d%02d%02dZ" % (at.year, at.month, at.day, at.hour, at.minute, at.second)
