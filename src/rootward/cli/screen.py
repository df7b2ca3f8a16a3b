"""What people and programs see. Text from the server or a certificate is escaped before it reaches a terminal, and is
never markup.

People get tables as wide as their terminal; a pipe gets plain, aligned lines that are never cut. NO_COLOR is
respected (no-color.org). Programs get the server's JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TextIO

from rootward.cli.failure import Failure

_DASH = "\N{EN DASH}"
MARKS = {"ok": "✓", "failed": "✗", "skipped": _DASH, "warning": "!", "error": "✗"}
_PLAIN = {"✓": "+", "✗": "x", _DASH: "-", "•": "-", "←": "<-", "…": "..."}
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
    """Lines of our own, with what came from outside already made `safe`; wrapped to the terminal, never inside a
    pipe.
    """
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


def table(headings: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str) -> None:
    """A table with one line for each row in a pipe, wrapped columns on a terminal; `empty` is said where there is no
    row.
    """
    cells = [[safe(cell) for cell in row] for row in rows]
    if not cells:
        say(empty)
    elif sys.stdout.isatty():
        _rich_table(headings, cells)
    else:
        widths = [max(map(len, column)) for column in zip(headings, *cells, strict=True)]
        for line in ([heading.upper() for heading in headings], *cells):
            say("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _rich_table(headings: Sequence[str], cells: list[list[str]]) -> None:
    from rich.table import Table
    from rich.text import Text

    made = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for heading in headings:
        made.add_column(heading.upper(), overflow="fold")
    for row in cells:
        made.add_row(*(Text(cell) for cell in row))
    _console().print(made)


def _console() -> Any:
    from rich.console import Console

    return Console(markup=False, highlight=False, emoji=False)


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
        return [f"{safe(key)}={safe(item)}" for key, item in value.items()]
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
    import shutil
    import textwrap

    width = max(shutil.get_terminal_size().columns, 40)
    lines = textwrap.wrap(text, width - len(front), break_on_hyphens=False) or [""]
    for index, line in enumerate(lines):
        lead = front if index == 0 else " " * len(front)
        say(_coloured(lead, colour, target) + line, stream=target)


def _coloured(text: str, colour: str | None, stream: TextIO) -> str:
    import os

    if colour is None or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not stream.isatty():
        return text
    return f"\x1b[{ {'green': 32, 'red': 31, 'yellow': 33, 'dim': 2, 'bold': 1}[colour] }m{text}\x1b[0m"


def step(state: str, name: str, detail: str) -> None:
    """One check with its mark: ok, failed, skipped, warning or error."""
    mark = MARKS.get(state, "?")
    _wrapped(f"{mark} {name:<11} ", safe(detail), colour=_COLOURS.get(mark))


def failure(failed: Failure) -> None:
    """What happened, why, and what to do next, to standard error; the request's id last."""
    stream = sys.stderr
    say(_coloured(safe(failed.what), "red", stream), stream=stream)
    for reason in failed.why:
        _wrapped("  • ", safe(reason), stream=stream)
    if failed.next is not None:
        _wrapped("Next: ", safe(failed.next), stream=stream)
    if failed.request_id is not None:
        say(f"Request: {safe(failed.request_id)}", stream=stream)


def note(text: str) -> None:
    """A sentence for people that is no result: to standard error, so that a pipe stays clean."""
    _wrapped("", safe(text), stream=sys.stderr)
