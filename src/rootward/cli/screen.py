"""What people and programs see. Text from the server or a certificate is escaped before it reaches a terminal, and is
never markup.

People get tables as wide as their terminal; a pipe gets plain, aligned lines that are never cut. NO_COLOR is
respected (no-color.org). Programs get the server's JSON.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from typing import TextIO

from rootward.cli.failure import Failure

_DASH = "\N{EN DASH}"
MARKS = {"ok": "✓", "failed": "✗", "skipped": _DASH, "warning": "!", "error": "✗"}
_PLAIN = {"✓": "+", "✗": "x", _DASH: "-", "•": "-", "←": "<-", "…": "..."}
_CODES = {"bold": 1, "dim": 2, "red": 31, "green": 32, "yellow": 33}
_FOLD = 12  # columns that a folding column has at least
# Where a word that is longer than its line is broken: after one of these, else one of those, else anywhere.
_JOINTS = re.compile(r"[.@/,]"), re.compile(r"[-=:]")
_COLOURS = {"✓": "green", "✗": "red", _DASH: "dim", "!": "yellow"}


def safe(value: object) -> str:
    """One line of text that does nothing to a terminal: control, bidi and other invisible characters are escaped."""
    text = "" if value is None else str(value)
    if text.isascii() and text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escape(char) for char in text)


def _escape(char: str) -> str:
    number = ord(char)
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def bare(names: Iterable[object]) -> list[str]:
    """Names as people write them: a host name goes without `dns:`."""
    return [str(name).removeprefix("dns:") for name in names]


def write_json(body: bytes) -> None:
    """A JSON body as it came; on a terminal with everything escaped that could move the cursor or the direction of
    text.
    """
    text = body.decode("utf-8", "backslashreplace")
    if sys.stdout.isatty():
        text = "\n".join("".join(c if c.isprintable() else _escape(c) for c in line) for line in text.split("\n"))
    sys.stdout.write(text if text.endswith("\n") else text + "\n")


def encode(value: object) -> bytes:
    """JSON as the server writes it: compact, UTF-8."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def say(text: str = "", *, stream: TextIO | None = None) -> None:
    """Lines of our own, with what came from outside already made `safe`, as they are; `tell` wraps."""
    target = stream or sys.stdout
    target.write(_spelled(text, target) + "\n")


def _spelled(text: str, stream: TextIO) -> str:
    """The same text where the stream cannot carry all of Unicode (LC_ALL=C)."""
    encoding = stream.encoding or "ascii"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        for mark, plain in _PLAIN.items():
            text = text.replace(mark, plain)
        return text.encode(encoding, "backslashreplace").decode(encoding)
    return text


def table(
    headings: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    empty: str,
    spare: Sequence[str] = (),
    folds: Sequence[str] = (),
) -> None:
    """A table: in a pipe one line for each row, with all of it; on a terminal as wide as that is.

    `empty` is said where there is no row. A terminal that is too narrow does without the columns `spare`, the first one
    first; the columns `folds` take what is left and may take several lines, the first one first. Nothing is cut.
    """
    cells = [[safe(cell) for cell in row] for row in rows]
    if not cells:
        say(empty)
        return
    widths = dict(zip(headings, (max(map(len, column)) for column in zip(headings, *cells, strict=True)), strict=True))
    if sys.stdout.isatty():
        unbroken = {
            heading: max(len(piece) for row in cells for piece in _pieces(row[headings.index(heading)]))
            for heading in folds
        }
        widths = _fitted(widths, unbroken, spare=spare, folds=folds)
    say(_coloured("  ".join(heading.upper().ljust(width) for heading, width in widths.items()).rstrip(), "bold"))
    for row in cells:
        found = dict(zip(headings, row, strict=True))
        columns = [wrap(found[heading], width) for heading, width in widths.items()]
        for line in zip_longest(*columns, fillvalue=""):
            padded = (cell.ljust(width) for cell, width in zip(line, widths.values(), strict=True))
            say("  ".join(padded).rstrip())


def wrap(text: str, width: int) -> list[str]:
    """The text in lines of at most `width`: between words, and where a word is longer, after a `.`, `@`, `/` or `,` in
    it if there is one.
    """
    lines = []
    rest = text.strip()
    while len(rest) > width:
        at = rest.rfind(" ", 1, width + 1)
        if at < 0:
            ends = (max((found.end() for found in joint.finditer(rest, 0, width)), default=0) for joint in _JOINTS)
            at = next((end for end in ends if end), width)
        lines.append(rest[:at].rstrip())
        rest = rest[at:].lstrip()
    return [*lines, rest]


def _pieces(text: str) -> list[str]:
    """What of a text should stay in one line."""
    return re.findall(r"[^ .@/,]*[ .@/,]?", text)


def _fitted(
    widths: dict[str, int], unbroken: Mapping[str, int], *, spare: Sequence[str], folds: Sequence[str]
) -> dict[str, int]:
    """The columns that the terminal has room for, and their widths. A spare column that folds goes where its longest
    piece (`unbroken`) finds no room; only the first of those that fold does so to keep a spare one.
    """

    def least(heading: str) -> int:
        return min(kept[heading], max(_FOLD, unbroken[heading]) if heading in spare else _FOLD)

    def excess(folding: Sequence[str]) -> int:
        taken = sum(least(heading) if heading in folding else width for heading, width in kept.items())
        return taken + 2 * (len(kept) - 1) - columns

    kept = dict(widths)
    columns = _columns()
    for heading in spare:
        if excess(folds[:1]) > 0:
            del kept[heading]
    for heading in folds:
        over = excess(())
        if heading in kept and over > 0:
            kept[heading] = max(kept[heading] - over, least(heading))
    return kept


def _columns() -> int:
    return max(shutil.get_terminal_size().columns, 40)


def details(pairs: Iterable[tuple[str, object]]) -> None:
    """One thing, a line for each field that it has; lists take a line for each value."""
    shown = [(name, value) for name, value in pairs if value not in (None, "", [], {})]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        lines = _lines(value)
        for index, line in enumerate(lines):
            _wrapped(f"{name if index == 0 else '':<{width}}  ", line)


def _lines(value: object) -> list[str]:
    if isinstance(value, Mapping):
        return [f"{safe(key)}={', '.join(_lines(item))}" for key, item in value.items() if item not in (None, [], {})]
    if isinstance(value, list | tuple):
        return [safe(item) for item in value] or [""]
    if isinstance(value, bool):
        return ["yes" if value else "no"]
    return [safe(value)]


def _wrapped(front: str, text: str, *, stream: TextIO | None = None, colour: str | None = None) -> None:
    """`front` and then the text, its further lines indented below it."""
    target = stream or sys.stdout
    if not target.isatty():
        say(front + text, stream=target)
        return
    for index, line in enumerate(wrap(text, max(_columns() - len(front), _FOLD))):
        lead = front if index == 0 else " " * len(front)
        say(_coloured(lead, colour, target) + line, stream=target)


def _coloured(text: str, colour: str | None, stream: TextIO | None = None) -> str:
    target = stream or sys.stdout
    if colour is None or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not target.isatty():
        return text
    return f"\x1b[{_CODES[colour]}m{text}\x1b[0m"


def steps(found: Iterable[tuple[str, str, str]]) -> None:
    """Checks as (state, name, detail), each with its mark: ok, failed, skipped, warning or error."""
    listed = [(MARKS.get(state, "?"), safe(name), safe(detail)) for state, name, detail in found]
    width = max((len(name) for _, name, _ in listed), default=0)
    for mark, name, detail in listed:
        _wrapped(f"{mark} {name:<{width}}  ", detail, colour=_COLOURS.get(mark))


def failure(failed: Failure) -> None:
    """What happened, why, and what to do next, to standard error; the request's id last."""
    stream = sys.stderr
    what = safe(failed.what)
    for line in wrap(what, _columns()) if stream.isatty() else (what,):
        say(_coloured(line, "red", stream), stream=stream)
    for reason in failed.why:
        _wrapped("  • ", safe(reason), stream=stream)
    if failed.next is not None:
        _wrapped("Next: ", safe(failed.next), stream=stream)
    if failed.request_id is not None:
        say(f"Request: {safe(failed.request_id)}", stream=stream)


def tell(text: str) -> None:
    """A sentence that is a result: wrapped to a terminal, one line in a pipe."""
    _wrapped("", safe(text))


def note(text: str) -> None:
    """A sentence for people that is no result: to standard error, so that a pipe stays clean."""
    _wrapped("", safe(text), stream=sys.stderr)
