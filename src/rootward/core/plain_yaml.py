"""YAML that two readers cannot read in two ways, for files that people review and sign: maps, lists and text, and
nothing more (YAML 1.2.2).

Refused: tags, anchors and aliases, a field twice, several documents, fields that are not plain text, and characters
that show nothing or turn the direction of text, also where they are written as escapes. A value is never guessed from
its looks: `NO` stays the country, and the typed decoder that gets the text says whether it is a number.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import Any

import yaml

DEPTH = 12
Value = str | list[Any] | dict[str, Any]


class NotPlain(ValueError):
    """Not such YAML; the text says why, with the line where that is known."""


def read(text: str) -> Value:
    """The value; NotPlain for everything else. The caller bounds the size."""
    for number, line in enumerate(text.split("\n"), start=1):
        _check_seen(line, f"Line {number}")
    events = _events(text)
    found = _node(next(events), events, DEPTH)
    if not isinstance(next(events), yaml.DocumentEndEvent):
        raise NotPlain("There is something after the first value.")
    if not isinstance(next(events), yaml.StreamEndEvent):
        raise NotPlain("There are several documents in one file.")
    return found


_TURNS = frozenset({"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"})
# What Unicode counts as letters, marks or symbols and shows as nothing: fillers, joiners, selectors of a variant (of
# its Default_Ignorable_Code_Point those that are printable), and the blank of Braille.
_BLANK = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]")


def _check_seen(text: str, where: str) -> None:
    if text.isascii() and text.isprintable():
        return
    for char in text:
        if not char.isprintable() or unicodedata.bidirectional(char) in _TURNS or _BLANK.match(char):
            raise NotPlain(f"{where} has a character that cannot be seen (U+{ord(char):04X}).")


def _events(text: str) -> Iterator[yaml.Event]:
    """The parser's events from the first value on."""
    try:
        for event in yaml.parse(text, Loader=yaml.CSafeLoader):
            if isinstance(event, yaml.DocumentStartEvent) and (event.version or event.tags):
                raise NotPlain(f"{_where(event)} has a directive; such a file has none.")
            if not isinstance(event, yaml.StreamStartEvent | yaml.DocumentStartEvent):
                yield event
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = "" if mark is None else f"Line {mark.line + 1}: "
        raise NotPlain(f"{where}{getattr(error, 'problem', None) or 'this is no YAML'}.") from None


def _where(event: yaml.Event) -> str:
    return "A line" if event.start_mark is None else f"Line {event.start_mark.line + 1}"


def _node(event: yaml.Event, events: Iterator[yaml.Event], depth: int) -> Value:
    if isinstance(event, yaml.StreamEndEvent):
        raise NotPlain("The file is empty.")
    if isinstance(event, yaml.AliasEvent):
        raise NotPlain(f"{_where(event)} has an alias; write the value out.")
    if getattr(event, "anchor", None) is not None:
        raise NotPlain(f"{_where(event)} has an anchor; write each value out where it is meant.")
    if getattr(event, "tag", None) is not None:
        raise NotPlain(f"{_where(event)} has a tag; values are plain text, lists and maps.")
    if isinstance(event, yaml.ScalarEvent):
        _check_seen(str(event.value).replace("\n", ""), _where(event))
        return str(event.value)
    if depth == 0:
        raise NotPlain(f"{_where(event)} is nested more than {DEPTH} levels deep.")
    if isinstance(event, yaml.SequenceStartEvent):
        items: list[Value] = []
        while not isinstance(following := next(events), yaml.SequenceEndEvent):
            items.append(_node(following, events, depth - 1))
        return items
    fields: dict[str, Value] = {}
    while not isinstance(following := next(events), yaml.MappingEndEvent):
        name = _node(following, events, depth - 1)
        if not isinstance(name, str):
            raise NotPlain(f"{_where(following)} has a field whose name is no text.")
        if name in fields:
            raise NotPlain(f"{_where(following)} has a field a second time: {name[:80]}.")
        fields[name] = _node(next(events), events, depth - 1)
    return fields


def respelled(found: Value, meant: object, field: str = "") -> Iterator[tuple[str, str, str]]:
    """Where what a typed decoder took for a number or truth value (`meant`, of maps and tuples) is spelled otherwise,
    as (field, found, the spelling): `1e3` is text to others, and what goes by way of a fraction is rounded.
    """
    if isinstance(found, dict) and isinstance(meant, dict):
        for name in found.keys() & meant.keys():
            yield from respelled(found[name], meant[name], f"{field}.{name}".lstrip("."))
    elif isinstance(found, list) and isinstance(meant, tuple):
        for at, (one, other) in enumerate(zip(found, meant, strict=True), start=1):
            yield from respelled(one, other, f"{field}[{at}]")
    elif isinstance(found, str) and isinstance(meant, int) and found != str(meant).lower():
        yield field, found, str(meant).lower()


class _Dumper(yaml.SafeDumper):
    """Writes text of several lines as it stands, lists indented below their name."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # pyyaml's signature
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: object) -> bool:  # pyyaml's signature
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def write(value: Value) -> str:
    """Text that `read` gives back as it was; numbers and truth values are written as text is."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)
