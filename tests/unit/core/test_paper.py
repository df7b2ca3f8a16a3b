"""Lines that are typed from paper: they come back as the bytes, and what was typed wrong is named by its line."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rootward.core import paper
from rootward.core.problems import Problem

DATA = bytes(range(200))
LINES = paper.lines_of(DATA)


def refusal(lines: list[str]) -> list[str]:
    with pytest.raises(Problem) as caught:
        paper.bytes_of(lines)
    assert {reason.code for reason in caught.value.reasons} == {"RW-SHARE"}
    return [reason.detail for reason in caught.value.reasons]


@given(st.binary(max_size=paper.LARGEST))
def test_there_and_back(data: bytes) -> None:
    lines = paper.lines_of(data)
    assert paper.bytes_of(lines) == data
    assert max(map(len, lines)) <= 60


def test_people_type_as_they_like() -> None:
    plain = [line.replace("0", "o").replace("1", "l").lower() for line in LINES]
    # The numbers are numbers: only what stands behind them may be typed so.
    typed = [f"  {at}: {line[4:]}\n" for at, line in enumerate(plain, start=1)]
    assert paper.bytes_of(["", *typed, " \n"]) == DATA
    assert paper.bytes_of(f"{at} {line[4:].replace(' ', '')}" for at, line in enumerate(LINES, start=1)) == DATA


@given(st.integers(0, len(LINES) - 1), st.integers(4, 59), st.sampled_from("0123456789ABCDEFGHJKMNPQRSTVWXYZ"))
def test_a_wrong_letter_names_its_line(line: int, at: int, letter: str) -> None:
    typed = list(LINES)
    at = min(at, len(typed[line]) - 1)
    if typed[line][at] in (" ", letter):
        return
    typed[line] = typed[line][:at] + letter + typed[line][at + 1 :]
    assert refusal(typed) == [f"Line {line + 1} was typed wrong: its last group does not fit the others."]


def test_every_wrong_line_is_named_at_once() -> None:
    typed = list(LINES)
    typed[1] = f"{typed[1][:4]}U{typed[1][5:]}"
    typed[3] = typed[3][:-3]
    typed[4] = typed[4][4:]
    typed[6] = f"9{typed[6][2:]}"
    assert refusal(typed) == [
        'Line 2 has "U", which no line has.',
        "Line 4 has 41 letters and digits: some are missing, or too many.",
        "Line 5 does not begin with its number.",
        "Line 7 is expected, and 9 was typed.",
    ]


def test_lines_that_changed_places_are_found() -> None:
    assert len(refusal([LINES[1], LINES[0], *LINES[2:]])) == 2
    swapped = [f" 1  {LINES[1][4:]}", f" 2  {LINES[0][4:]}", *LINES[2:]]
    assert refusal(swapped) == [
        "Line 1 was typed wrong: its last group does not fit the others.",
        "Line 2 was typed wrong: its last group does not fit the others.",
    ]


def test_what_is_missing_or_too_much_is_found() -> None:
    assert refusal(list(LINES[:-2])) == [
        f"The last lines are missing: {len(LINES) - 2} were typed, and there are 2 more."
    ]
    assert refusal([]) == ["The last lines are missing: 0 were typed, and there are 1 more."]
    other = paper.lines_of(bytes(reversed(DATA)))
    assert "together they do not" in refusal([*LINES[:4], *other[4:]])[0]
    assert "more than there can be" in refusal(["1 AAAA"] * 100)[0]
    following = paper._line(len(LINES) + 1, b"12345")
    assert "together they do not" in refusal([*LINES, following])[0]


def test_too_much_for_paper_is_refused() -> None:
    with pytest.raises(ValueError, match="too many to type"):
        paper.lines_of(bytes(paper.LARGEST + 1))


@settings(max_examples=50)
@given(st.lists(st.text(max_size=70), max_size=20))
def test_anything_typed_is_refused_in_words(lines: list[str]) -> None:
    with pytest.raises(Problem):
        paper.bytes_of(lines)
