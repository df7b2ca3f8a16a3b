"""Words for a hash: they come back as the bytes, and a slip is a word that is none."""

from __future__ import annotations

import re
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootward.core import spoken
from rootward.core.problems import Problem


def distance(one: str, two: str) -> int:
    """Levenshtein's."""
    row = list(range(len(two) + 1))
    for i, a in enumerate(one, 1):
        following = [i]
        for j, b in enumerate(two, 1):
            following.append(min(row[j] + 1, following[-1] + 1, row[j - 1] + (a != b)))
        row = following
    return row[-1]


def sound(word: str) -> str:
    """Consonants by how they are made, vowels only in front: words that sound alike have the same."""
    plain = re.sub("^(kn|gn|wr)", lambda match: match[0][1], word).replace("ph", "f").replace("ck", "k")
    kinds = {letter: str(at) for at, kind in enumerate("bp fv ckqgx sz dt mn l r j".split()) for letter in kind}
    code = [kinds.get(letter, "" if at else "v") for at, letter in enumerate(plain)]
    return "".join(now for at, now in enumerate(code) if at == 0 or now != code[at - 1])


def test_the_words_cannot_be_taken_for_each_other() -> None:
    assert len(spoken.WORDS) == len({word[:4] for word in spoken.WORDS}) == 256
    assert list(spoken.WORDS) == sorted(spoken.WORDS)
    assert all(re.fullmatch("[a-z]{4,8}", word) for word in spoken.WORDS)
    assert min(distance(one, two) for one, two in combinations(spoken.WORDS, 2)) == 3
    assert len({sound(word) for word in spoken.WORDS}) == 256


@given(st.binary(max_size=64))
def test_there_and_back(data: bytes) -> None:
    words = spoken.words_of(data)
    assert len(words) == len(data)
    assert spoken.bytes_of(words) == data
    assert spoken.bytes_of(word.upper() for word in words) == data


def test_known_words() -> None:
    """What somebody wrote down must mean the same in every version."""
    assert spoken.words_of(bytes([0, 1, 127, 128, 255])) == ("abbey", "acorn", "lemon", "lilac", "zodiac")


@given(st.integers(0, 255), st.integers(0, 7), st.sampled_from("abcdefghijklmnopqrstuvwxyz"))
def test_a_slip_of_one_letter_is_found_and_mended(value: int, at: int, letter: str) -> None:
    word = spoken.WORDS[value]
    at %= len(word)
    wrong = word[:at] + letter + word[at + 1 :]
    if wrong != word:
        with pytest.raises(Problem) as caught:
            spoken.bytes_of(["zero", wrong])
        assert f'Word 2, "{wrong}", is none of the words.' in caught.value.detail


def test_every_wrong_word_is_named_with_the_nearest_one() -> None:
    with pytest.raises(Problem) as caught:
        spoken.bytes_of(["akorn", "zero", "qqqqqqq", "possums"])
    assert [reason.detail for reason in caught.value.reasons] == [
        'Word 1, "akorn", is none of the words. Is it acorn?',
        'Word 3, "qqqqqqq", is none of the words.',
        'Word 4, "possums", is none of the words. Is it possum?',
    ]
    with pytest.raises(Problem, match="more than the 128"):
        spoken.bytes_of(["zero"] * 129)
