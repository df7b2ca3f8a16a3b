"""Queries and cursors."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootward.core.problems import Problem
from rootward.protocols.rest import queries

NUMBERS = st.integers(min_value=-(1 << 63), max_value=(1 << 63) - 1)


@given(st.lists(NUMBERS, min_size=1, max_size=2).map(tuple))
def test_a_cursor_is_read_back(position: tuple[int, ...]) -> None:
    filters = {"owner": "a", "limit": "5"}
    cursor = queries.encode_cursor("/x", filters, position)
    query = {**filters, "limit": "7", "cursor": cursor}
    assert queries.decode_cursor("/x", query, (int,) * len(position)) == position


@given(st.text(alphabet="ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_", min_size=1, max_size=80))
def test_a_forged_cursor_is_refused(text: str) -> None:
    with pytest.raises(Problem) as caught:
        queries.decode_cursor("/x", {"cursor": text}, (int,))
    assert caught.value.code == "RW-QUERY"


@pytest.mark.parametrize(
    ("path", "query", "kinds"),
    [
        ("/y", {"owner": "a"}, (int,)),
        ("/x", {"owner": "b"}, (int,)),
        ("/x", {}, (int,)),
        ("/x", {"owner": "a", "status": "active"}, (int,)),
        ("/x", {"owner": "a"}, (int, int)),
        ("/x", {"owner": "a"}, (str,)),
        ("/x", {"owner": "a"}, ()),
    ],
)
def test_a_cursor_of_another_list_is_refused(path: str, query: dict[str, str], kinds: tuple[type, ...]) -> None:
    cursor = queries.encode_cursor("/x", {"owner": "a"}, (5,))
    assert queries.decode_cursor("/x", {"owner": "a", "cursor": cursor}, (int,)) == (5,)
    with pytest.raises(Problem):
        queries.decode_cursor(path, {**query, "cursor": cursor}, kinds)


@pytest.mark.parametrize("part", [True, 1.5, "a\x00", b"a", None, [1]])
def test_a_cursor_holds_numbers_and_lines_only(part: object) -> None:
    cursor = queries.encode_cursor("/x", {}, (part,))  # type: ignore[arg-type]  # what nobody may smuggle in
    for kind in (int, str):
        with pytest.raises(Problem):
            queries.decode_cursor("/x", {"cursor": cursor}, (kind,))


def parsed(query: bytes) -> dict[str, str] | str:
    """The parameters, or the code of what is wrong."""
    try:
        return queries.parse_query(query, frozenset({"a", "b"}))
    except Problem as problem:
        return problem.code


@given(st.binary(max_size=200))
def test_any_query_is_read_or_refused(query: bytes) -> None:
    found = parsed(query)
    if isinstance(found, dict):
        assert set(found) <= {"a", "b"}
        assert all(value.isprintable() for value in found.values())
    else:
        assert found == "RW-QUERY"


def test_good_parameters_are_decoded() -> None:
    assert queries.parse_query(b"a=%C3%A9+x&b=%25", frozenset({"a", "b"})) == {"a": "é x", "b": "%"}


@pytest.mark.parametrize("query", [b"token=x", b"a=1&PassWord=x", b"access_token", b"a=1&api_key=&b=2"])
def test_secrets_are_refused_by_name(query: bytes) -> None:
    with pytest.raises(Problem) as caught:
        queries.refuse_secrets(query)
    assert caught.value.code == "RW-SECRET-IN-URL"
    queries.refuse_secrets(b"a=token&tokens=1")


@pytest.mark.parametrize(("text", "size"), [("1", 1), ("50", 50), ("500", 500)])
def test_good_limits(text: str, size: int) -> None:
    assert queries.limit_of({"limit": text}) == size
    assert queries.limit_of({}) == 50
