"""What the tests read out of Markdown: code blocks, tables, headings, links. As much of it as our documents use."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"

_FENCE = re.compile(r"^( *)```([a-z]*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`+[^`\n]+`+")
_LINK = re.compile(r"!?\[[^\]]*\]\(<?([^)\s>]+)>?\)")
_BAR = re.compile(r"(?<!\\)\|")
_DROPPED = re.compile(r"[^\w\- ]")


@dataclass(frozen=True)
class Block:
    """A fenced code block. `line` is that of its first line of content, from 1."""

    language: str
    text: str
    line: int


def read(path: Path) -> str:
    """A document's text."""
    return path.read_text(encoding="utf-8")


def blocks(text: str, language: str) -> list[Block]:
    """The fenced blocks of a language."""
    found = []
    for match in _FENCE.finditer(text):
        if match[2] == language:
            indent = match[1]
            body = "\n".join(line.removeprefix(indent) for line in match[3].split("\n"))
            found.append(Block(language, body, text.count("\n", 0, match.start()) + 2))
    return found


def rows(text: str, first: str) -> list[list[str]]:
    """The rows of every table whose first heading is `first`, cell by cell."""
    found: list[list[str]] = []
    inside = False
    for line in _FENCE.sub("", text).split("\n"):
        if not line.startswith("|"):
            inside = False
            continue
        cells = [cell.strip() for cell in _BAR.split(line.strip()[1:-1])]
        if cells[0] == first:
            inside = True
        elif inside and not set(line) <= set("|-: "):
            found.append(cells)
    return found


def codes(cell: str) -> list[str]:
    """What stands in backticks, in order."""
    return [match.strip("`") for match in _CODE.findall(cell)]


def links(text: str) -> Iterator[str]:
    """The target of every link, code left out."""
    bare = _CODE.sub("", _FENCE.sub("", text))
    yield from (match[1] for match in _LINK.finditer(bare))


def anchors(text: str) -> set[str]:
    """The fragments of the headings, as GitHub makes them."""
    found: set[str] = set()
    for line in _FENCE.sub("", text).split("\n"):
        if line.startswith("#"):
            slug = _DROPPED.sub("", line.lstrip("#").strip().lower()).replace(" ", "-")
            number, base = 0, slug
            while slug in found:
                number += 1
                slug = f"{base}-{number}"
            found.add(slug)
    return found


def documents() -> list[Path]:
    """Every Markdown file of the project."""
    folders = ("docs", "src", "tests", "bench", "tools")
    below = [path for folder in folders for path in (ROOT / folder).rglob("*.md")]
    return sorted([*ROOT.glob("*.md"), *below])
