"""Bytes as lines to print and to type back, each with a check of its own.

     1  04B6 1G50 …  8W2K

A line has its number, up to ten groups of four letters and digits (25 bytes; the alphabet of Crockford's Base32, which
has no I, L, O and U), and a last group that is its check: 20 bits of SHA-256 over the number and the bytes. So whoever
types is told which lines are wrong, also where two changed places. The bytes carry their length and 40 bits of a hash
over all of them, so a missing line is noticed too. Small letters, O for 0 and I or L for 1 are read as they were meant.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence

from rootward.core.problems import Problem, Reason, shown

LARGEST = 1000  # bytes
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_VALUES = {letter: value for value, letter in enumerate(_ALPHABET)} | {"O": 0, "I": 1, "L": 1}
_LINE = 25  # bytes
_GROUP = 4  # letters
_END = 5  # bytes of the hash over everything
_CODE = "RW-SHARE"
_NUMBERED = re.compile(r"\s*([0-9]{1,3})[\s:.)]+(.*)", re.ASCII | re.DOTALL)


def lines_of(data: bytes) -> tuple[str, ...]:
    """The lines for `data`, of at most 60 columns. ValueError for more than `LARGEST` bytes."""
    if len(data) > LARGEST:
        raise ValueError(f"{len(data)} bytes are too many to type")
    whole = len(data).to_bytes(2, "big") + data
    whole += _hash(whole)[:_END]
    whole += bytes(-len(whole) % 5)  # a group's letters are never a part of a byte alone
    parts = [whole[at : at + _LINE] for at in range(0, len(whole), _LINE)]
    return tuple(_line(number, part) for number, part in enumerate(parts, start=1))


def read_line(line: str, number: int) -> bytes:
    """The bytes of the line that should have `number`. Problem RW-SHARE, which says what was typed wrong."""
    match = _NUMBERED.fullmatch(line)
    if match is None:
        raise Problem(_CODE, f"Line {number} does not begin with its number.")
    if int(match[1]) != number:
        raise Problem(_CODE, f"Line {number} is expected, and {match[1]} was typed.")
    letters = re.sub(r"[\s-]", "", match[2]).upper()
    odd = sorted({letter for letter in letters if letter not in _VALUES})
    if odd:
        raise Problem(_CODE, f"Line {number} has {shown(''.join(odd))}, which no line has.")
    body, check = letters[:-_GROUP], letters[-_GROUP:]
    if len(body) % 8 or not 8 <= len(body) <= _LINE * 8 // 5:
        raise Problem(_CODE, f"Line {number} has {len(letters)} letters and digits: some are missing, or too many.")
    part = _bytes(body)
    if _values(check) != _values(_line_check(number, part)):
        raise Problem(_CODE, f"Line {number} was typed wrong: its last group does not fit the others.")
    return part


def bytes_of(lines: Iterable[str]) -> bytes:
    """The inverse of `lines_of`; empty lines are passed over. Problem RW-SHARE names every line that is wrong."""
    parts: list[bytes] = []
    reasons: list[Reason] = []
    typed = [line for line in lines if line.strip()]
    if len(typed) > LARGEST // _LINE + 2:
        raise Problem(_CODE, f"{len(typed)} lines are more than there can be.")
    for number, line in enumerate(typed, start=1):
        try:
            parts.append(read_line(line, number))
        except Problem as problem:
            reasons += problem.reasons
    if reasons:
        raise Problem.of(reasons)
    missing = lines_missing(parts)
    if missing:
        raise Problem(_CODE, f"The last lines are missing: {len(typed)} were typed, and there are {missing} more.")
    whole = b"".join(parts)
    size = int.from_bytes(whole[:2], "big") + 2 if parts else 0
    if not size or whole[size : size + _END] != _hash(whole[:size])[:_END] or any(whole[size + _END :]):
        raise Problem(_CODE, "Each line fits its own check, and together they do not: are they all from one page?")
    return whole[2:size]


def lines_missing(parts: Sequence[bytes]) -> int:
    """How many lines are to come behind those that were read, as the first one says; 1 where there is none yet."""
    whole = b"".join(parts)
    if len(whole) < 2:
        return 1
    left = 2 + int.from_bytes(whole[:2], "big") + _END - len(whole)
    return max(0, -(-left // _LINE))


def _line(number: int, part: bytes) -> str:
    letters = _letters(part)
    groups = [letters[at : at + _GROUP] for at in range(0, len(letters), _GROUP)]
    return f"{number:2}  {' '.join(groups)}  {_line_check(number, part)}"


def _line_check(number: int, part: bytes) -> str:
    return _letters(_hash(bytes([number]) + part)[:5])[:_GROUP]


def _hash(data: bytes) -> bytes:
    return hashlib.sha256(b"rootward paper 1\n" + data).digest()


def _letters(data: bytes) -> str:
    """Five bits a letter; `data` has a multiple of 5 bytes."""
    number, count = int.from_bytes(data, "big"), len(data) * 8 // 5
    return "".join(_ALPHABET[number >> 5 * at & 31] for at in reversed(range(count)))


def _bytes(letters: str) -> bytes:
    number = 0
    for value in _values(letters):
        number = number << 5 | value
    return number.to_bytes(len(letters) * 5 // 8, "big")


def _values(letters: str) -> list[int]:
    return [_VALUES[letter] for letter in letters]
