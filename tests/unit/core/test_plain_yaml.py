"""Plain YAML: what is read, in one way, and everything else that YAML has and is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootward.core.plain_yaml import DEPTH, NotPlain, Value, read, write


def test_values_are_text_whatever_they_look_like() -> None:
    assert read("a: NO\nb: [1, on, ~, 1e5]\nc: 2026-01-01\nd: |\n  x\n  y\n") == {
        "a": "NO",
        "b": ["1", "on", "~", "1e5"],
        "c": "2026-01-01",
        "d": "x\ny\n",
    }


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a: &x 1\nb: *x\n", "an anchor"),
        ("b: *x\n", "alias"),
        ("a: !!python/object:os.system x", "a tag"),
        ("a: !x 1", "a tag"),
        ("a: 1\nb: 3\na: 2", "Line 3 has a field a second time: a"),
        ("--- a\n--- b\n", "several documents"),
        ("", "empty"),
        ("# nothing\n", "empty"),
        ("%YAML 1.1\n---\na: b", "a directive"),
        ("a: {b: [}", "did not find expected"),
        ("? [a]\n: b", "whose name is no text"),
        ("a: \u202e b", "U+202E"),
        ("a: \u200b b", "U+200B"),
        ("a: \x07b", "U+0007"),
        ("a: b\ufe00", "U+FE00"),
        ("a: \u3164b", "U+3164"),
        ('a: "\\u202eb"', "U+202E"),
        ('"a\\x1b[2J": b', "U+001B"),
        ('a: "b\\0"', "U+0000"),
        ("a: b\n...\nfoo", "expected"),
        ("[" * (DEPTH + 2) + "]" * (DEPTH + 2), "nested more"),
    ],
)
def test_everything_else_is_refused(text: str, why: str) -> None:
    with pytest.raises(NotPlain, match=why.replace("+", r"\+")):
        read(text)


_BLANK = "\u115f\u1160\u2800\u3164\uffa0"  # letters and symbols, and nothing is seen of them
_TEXT = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S"), exclude_characters=_BLANK), max_size=20)
_VALUES = st.recursive(
    _TEXT | st.just("a\nb\n") | st.just(" padded "),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=10,
)


@given(_VALUES)
def test_what_is_written_reads_as_it_was(value: Value) -> None:
    assert read(write(value)) == value
