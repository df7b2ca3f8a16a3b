"""Request bodies: strict JSON into a msgspec Struct, refused with every reason that can be told at once.

RFC 8259 leaves duplicate member names open and msgspec takes the last one; two readers of one body must not read two
different things, so they are refused by a second look (`core/strict.py`, 9 µs for an issuance's body). Not JSON, not
UTF-8, a lone surrogate, NaN, a member twice or nesting too deep is RW-MALFORMED; an unknown, missing or wrong field is
RW-FIELD.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator
from functools import cache
from typing import Any, cast

import msgspec
import msgspec.inspect

from rootward.core import strict
from rootward.core.problems import Problem, Reason, shown

MAX_BODY = 256 * 1024  # bytes
_LONG = 16 * 1024  # bytes of a string

_AT = re.compile(r"(?P<what>.*) - at `(?:key in )?\$\.?(?P<where>.*)`", re.DOTALL)
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<name>.*)`", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(?P<name>.*)`")
_STEP = re.compile(r"\[[^]]*\]|[^.\[]+")
_FIELD = re.compile(r"[A-Za-z0-9_.\[\]-]{1,64}", re.ASCII)
_ECHOES = "Invalid enum value"  # msgspec's one sentence that repeats what was sent


def decode(body: bytes | bytearray, kind: type[Any]) -> Any:
    """`body` as a `kind` (a Struct with `forbid_unknown_fields`); Problem RW-MALFORMED or RW-FIELD."""
    seen = _scan(body if len(body) <= MAX_BODY else _short(body))
    try:
        return _decoder(cast(Hashable, kind)).decode(body)
    except msgspec.ValidationError as error:
        raise _refusal(str(error), seen, kind) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise _malformed("The body is not JSON in UTF-8.") from None


@cache
def _decoder(kind: Hashable) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind)


def _short(body: bytes | bytearray) -> bytes:
    """A large body with nothing in place of its long strings, which are what may be large of it. As Python values, a
    body of empty objects would take 20 times its length, and one character beyond Latin-1 makes a string 4 times as
    long.
    """
    kept, extra, done, at = list[bytes](), 0, 0, 0
    while (begin := body.find(b'"', at)) >= 0:
        end = body.find(b'"', begin + 1)
        while end >= 0 and _is_escaped(body, end):
            extra += 1
            end = body.find(b'"', end + 1) if extra <= MAX_BODY else -1
        if end < 0:
            break
        at = end + 1
        if at - begin > _LONG:
            if body.find(b"\\u", begin, at) >= 0 or not body[begin:at].isascii():
                raise _malformed("A text this long may have ASCII characters only, and no \\u. Base64 has no others.")
            kept += [bytes(body[done:begin]), b'""']
            done = at
        if begin - done > MAX_BODY:
            break
    kept.append(bytes(body[done : done + MAX_BODY + 1]))
    if sum(map(len, kept)) + extra > MAX_BODY:
        raise _malformed(f"Without its long texts a body has at most {MAX_BODY} bytes.")
    return b"".join(kept)


def _is_escaped(body: bytes | bytearray, at: int) -> bool:
    """Whether an odd number of backslashes stands before it."""
    count = 0
    while True:
        piece = bytes(body[max(0, at - count - 1024) : at - count])
        run = len(piece) - len(piece.rstrip(b"\\"))
        count += run
        if run < 1024:
            return count % 2 == 1


def _scan(body: bytes | bytearray) -> dict[str, None] | None:
    """The names of the body's members, None where it is no object, once nothing about its form is in doubt. Not what
    they hold: of a large body that would be there twice.
    """
    try:
        found = strict.read(body)
    except strict.NotStrict as error:
        raise _malformed(str(error)) from None
    return dict.fromkeys(found) if isinstance(found, dict) else None


def _malformed(detail: str) -> Problem:
    return Problem("RW-MALFORMED", detail)


def _refusal(message: str, seen: dict[str, None] | None, kind: type[Any]) -> Problem:
    """RW-FIELD from msgspec's message: all unknown and missing fields of the outermost object, or the one thing it
    found.
    """
    reasons = _strange(seen, kind)
    found = _AT.fullmatch(message)
    what, where = (found["what"], found["where"]) if found else (message, "")
    unknown, missing = _UNKNOWN.fullmatch(what), _MISSING.fullmatch(what)
    if unknown or missing:
        if where or not reasons:
            name = (unknown or missing)["name"]  # type: ignore[index]  # one of the two matched
            path = f"{where}.{name}" if where else name
            reasons.append(_unknown(path) if unknown else _absent(path))
    else:
        if what.startswith(_ECHOES):
            known = ", ".join(dict.fromkeys(_choices(msgspec.inspect.type_info(kind), _STEP.findall(where))))
            says = f"It is not one of {known}." if known else "It is none of the values that it may have."
        else:
            says = f"{what.replace('`', '')}{f': {where}' if where else ''}."
        reasons.append(Reason("RW-FIELD", says, _field(where)))
    return Problem.of(reasons)


def _choices(kind: msgspec.inspect.Type, steps: list[str]) -> Iterator[str]:
    """What may stand at this place of a body, where only certain values may: they come from the type alone."""
    match kind:
        case msgspec.inspect.Metadata(type=inner):
            yield from _choices(inner, steps)
        case msgspec.inspect.UnionType(types=several):
            for one in several:
                yield from _choices(one, steps)
        case msgspec.inspect.StructType(fields=fields) if steps:
            for field in fields:
                if field.encode_name == steps[0]:
                    yield from _choices(field.type, steps[1:])
        case msgspec.inspect.DictType(value_type=inner) if steps:
            yield from _choices(inner, steps[1:])
        case msgspec.inspect.CollectionType(item_type=inner) if steps:
            yield from _choices(inner, steps[1:])
        case msgspec.inspect.EnumType(cls=cls) if not steps:
            yield from (str(member.value) for member in cls)
        case msgspec.inspect.LiteralType(values=values) if not steps:
            yield from map(str, values)
        case _:
            return


def _strange(seen: dict[str, None] | None, kind: type[Any]) -> list[Reason]:
    if seen is None or not issubclass(kind, msgspec.Struct):
        return []
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    unknown = [_unknown(name) for name in seen if name not in fields]
    return unknown + [_absent(name) for name, field in fields.items() if field.required and name not in seen]


def _unknown(name: str) -> Reason:
    return Reason("RW-FIELD", f"There is no field {shown(name)} here.", _field(name))


def _absent(name: str) -> Reason:
    return Reason("RW-FIELD", f"The field {name} is missing.", name)


def _field(name: str) -> str | None:
    """The field's name as it goes into `reasons`; what cannot be the name of a field is not repeated."""
    return name if _FIELD.fullmatch(name) else None
