"""Internationalised labels: an A-label (`xn--…`) must be what IDNA 2008 makes of one U-label, in one script.

RFC 5890, 5891 (the round trip) and UTS 39 5.2 "highly restrictive" (the scripts). Python's standard library has no
script property, but every letter's Unicode name begins with its script, which is what `_script` reads.
"""

from __future__ import annotations

import unicodedata
from functools import lru_cache

import idna

# Scripts that are written together (UTS 39 5.2), each with Latin.
_TOGETHER = (
    frozenset({"LATIN", "HAN", "HIRAGANA", "KATAKANA"}),
    frozenset({"LATIN", "HAN", "BOPOMOFO"}),
    frozenset({"LATIN", "HAN", "HANGUL"}),
)
# First words of Unicode names that belong to no script of their own: these characters go with every script.
_COMMON = frozenset({"DIGIT", "HYPHEN-MINUS", "COMBINING", "MODIFIER", "MIDDLE", "ZERO", "KATAKANA-HIRAGANA"})
# First words that several scripts share: the second one tells them apart ("OLD TURKIC", "TAI VIET").
_SHARED = frozenset({"OLD", "NEW", "TAI", "LINEAR", "INSCRIPTIONAL", "MEROITIC"})
# First words that are not the script's name.
_OTHERWISE = {
    "CJK": "HAN",
    "IDEOGRAPHIC": "HAN",
    "HENTAIGANA": "HIRAGANA",
    "ARABIC-INDIC": "ARABIC",
    "EXTENDED": "ARABIC",
}
_UNKNOWN = "UNKNOWN"


@lru_cache(maxsize=1024)
def label_problem(label: str) -> tuple[str, str] | None:
    """Problem code and reason where a lower-case LDH label with `--` in third place is not acceptable, else None."""
    if not label.startswith("xn--"):
        return "RW-NAME", "a label has hyphens in third and fourth place and is no A-label"
    try:
        text = idna.ulabel(label)
        back = idna.alabel(text).decode("ascii")
    except (idna.IDNAError, UnicodeError):
        return "RW-NAME", "an A-label is not valid under IDNA 2008"
    if back != label:
        return "RW-NAME", "an A-label is not the one that IDNA 2008 gives"
    if not one_script(text):
        return "RW-NAME-SCRIPT", "a label mixes scripts that are not written together"
    return None


def one_script(text: str) -> bool:
    """Whether the letters are of one script, or of scripts that are written together; never with an unknown one."""
    scripts = {script for script in map(_script, text) if script is not None}
    if _UNKNOWN in scripts:
        return False
    return len(scripts) <= 1 or any(scripts <= allowed for allowed in _TOGETHER)


def _script(char: str) -> str | None:
    """The script of a character that IDNA 2008 allows, None where it goes with every script."""
    words = unicodedata.name(char, _UNKNOWN).split()
    first = words[0]
    if first in _COMMON:
        return None
    if first in _SHARED:
        return " ".join(words[:2])
    return _OTHERWISE.get(first, first)
