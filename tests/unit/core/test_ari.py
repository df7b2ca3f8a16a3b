"""Renewal information (RFC 9773): the identifier of 4.1 in its one form, and windows that do not bunch."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootward.core.ari import past, read_id, window, write_id
from rootward.core.problems import Problem

BEGIN = datetime(2026, 11, 24, 12, tzinfo=UTC)
# RFC 9773 4.1: the example certificate's key identifier and serial.
KEY = bytes.fromhex("69885b6b87464041e1b37b847bd0ae2cde01c8d4")
SERIAL = bytes.fromhex("0087654321")
EXAMPLE = "aYhba4dGQEHhs3uEe9CuLN4ByNQ.AIdlQyE"


def test_the_example_of_the_rfc() -> None:
    assert write_id(KEY, SERIAL) == EXAMPLE
    assert read_id(EXAMPLE) == (KEY, SERIAL)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "aYhba4dGQEHhs3uEe9CuLN4ByNQ",
        "aYhba4dGQEHhs3uEe9CuLN4ByNQ.",
        ".AIdlQyE",
        "aYhba4dGQEHhs3uEe9CuLN4ByNQ=.AIdlQyE=",
        "aYhba4dGQEHhs3uEe9CuLN4ByNR.AIdlQyE",  # bits beyond the last octet
        "aYhba4dGQEHhs3uEe9CuLN4ByNQ.h2VDIQ",  # the zero octet is missing: a negative number
        "aYhba4dGQEHhs3uEe9CuLN4ByNQ.AAB2VDIQ",  # one too many
        "aYhba4dGQEHhs3uEe9CuLN4ByNQ.AA",  # zero
        "aYhba4dGQEHhs3uEe9CuLN4ByNQ.AIdlQyE.AIdlQyE",
        "aYhba4dGQEHhs3uEe9CuLN4ByNQ AIdlQyE",
        "aYhba4dGQEHhs3uEe9CuLN4By+Q.AIdlQyE",
        EXAMPLE + "\n",
        "A" * 200 + ".AIdlQyE",
        "aYhba4dGQEHhs3uEe9CuLN4ByNQ." + "AI" + "d" * 120,
        "ａYhba4dGQEHhs3uEe9CuLN4ByNQ.AIdlQyE",
    ],
)
def test_what_is_no_identifier(text: str) -> None:
    with pytest.raises(Problem) as refused:
        read_id(text)
    assert refused.value.code == "RW-MALFORMED"


@given(st.text(max_size=80))
def test_there_is_one_form(text: str) -> None:
    try:
        key, serial = read_id(text)
    except Problem:
        return
    assert write_id(key, serial) == text


@given(
    st.timedeltas(min_value=timedelta(minutes=5), max_value=timedelta(days=366)),
    st.integers(0, 10**6),
    st.binary(min_size=8, max_size=32),
)
def test_a_window_is_late_in_the_lifetime_and_well_before_its_end(span: timedelta, load: int, seed: bytes) -> None:
    end = BEGIN + span
    found = window(BEGIN, end, load=load, seed=seed)
    assert BEGIN + span / 2 < found.start < found.end
    assert found.end <= BEGIN + span * 5 / 6 + timedelta(minutes=1)
    assert found == window(BEGIN, end, load=load, seed=seed)


def test_windows_of_what_was_made_together_are_spread() -> None:
    seeds = [hashlib.sha256(bytes([n])).digest() for n in range(200)]
    starts = sorted(window(BEGIN, BEGIN + timedelta(days=30), load=200, seed=seed).start for seed in seeds)
    assert starts[-1] - starts[0] > timedelta(days=3)
    assert len(set(starts)) > 190


def test_the_window_grows_with_those_that_end_together() -> None:
    def width(load: int) -> timedelta:
        found = window(BEGIN, BEGIN + timedelta(days=30), load=load, seed=bytes(8))
        return found.end - found.start

    assert width(0) < width(100_000) < width(10_000_000) <= timedelta(days=5)


def test_a_window_in_the_past_is_over() -> None:
    assert past(BEGIN).start < past(BEGIN).end < BEGIN
