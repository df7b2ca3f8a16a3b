"""Words that go with a number."""

from __future__ import annotations


def count(number: int, noun: str) -> str:
    """`1 finding`, `2 findings`: for nouns that take an s."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
