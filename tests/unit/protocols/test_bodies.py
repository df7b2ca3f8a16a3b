"""Strict JSON: what is refused, with which words, and that what is sent is never repeated."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootward.core import strict
from rootward.core.problems import Problem
from rootward.core.pubkey import KeyAlgorithm
from rootward.protocols.rest import bodies
from rootward.protocols.rest.operation import Id, Line, Text
from rootward.protocols.rest.resources import OPERATIONS


class Inner(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A part."""

    a: int = 0


class Outer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A body."""

    name: str
    parts: list[Inner] = []
    more: dict[str, Any] = {}


def refusal(body: bytes, kind: type[Any] = Outer) -> Problem:
    with pytest.raises(Problem) as caught:
        bodies.decode(body, kind)
    return caught.value


def outcome(body: bytes) -> str | None:
    """The code of what is wrong with a body, None for a good one."""
    try:
        bodies.decode(body, Outer)
    except Problem as problem:
        return problem.code
    return None


def told(body: bytes, kind: type[Any]) -> str:
    """Everything that is said about what is wrong with a body."""
    try:
        bodies.decode(body, kind)
    except Problem as problem:
        return str([problem.detail, problem.reasons])
    return ""


def test_a_good_body_is_what_it_says() -> None:
    assert bodies.decode(b' {"name": "x", "parts": [{"a": 1}]} ', Outer) == Outer("x", [Inner(1)])


@given(st.dictionaries(st.text(), st.recursive(st.none() | st.text() | st.integers(), st.lists, max_leaves=5)))
def test_what_json_writes_is_read_back(more: dict[str, Any]) -> None:
    body = json.dumps({"name": "x", "more": more}).encode()
    assert bodies.decode(body, Outer).more == json.loads(body)["more"]


@given(st.binary(max_size=64))
def test_no_octets_are_anything_but_a_body_or_a_problem(body: bytes) -> None:
    assert outcome(body) in (None, "RW-MALFORMED", "RW-FIELD")


@given(st.text(alphabet="ab\\u0061", min_size=1), st.text(alphabet="ab", min_size=1))
def test_no_name_stands_twice(first: str, second: str) -> None:
    body = f'{{"name":"x","more":{{{json.dumps(first)}:1,{json.dumps(second)}:2}}}}'.encode()
    if first == second:
        assert refusal(body).code == "RW-MALFORMED"
    else:
        assert bodies.decode(body, Outer).more == {first: 1, second: 2}


@pytest.mark.parametrize("depth", [30, 31])
def test_depth_is_counted_exactly(depth: int) -> None:
    body = b'{"name":"x","more":{"a":' + b"[" * depth + b"]" * depth + b"}}"
    if depth + 2 <= strict.DEPTH:
        assert bodies.decode(body, Outer).name == "x"
    else:
        assert refusal(body).code == "RW-MALFORMED"


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        (b'{"name":"x","b":1,"c":2}', ["b", "c"]),
        (b"{}", ["name"]),
        (b'{"nam":"x"}', ["nam", "name"]),
        (b'{"name":"x","parts":[{"a":1},{"z":1}]}', ["parts[1].z"]),
        (b'{"name":"x","parts":[{"a":"1"}]}', ["parts[0].a"]),
        (b'{"name":7}', ["name"]),
        (b'{"name":"x","<b>":1}', [None]),
    ],
)
def test_each_wrong_field_is_named(body: bytes, fields: list[str | None]) -> None:
    problem = refusal(body)
    assert problem.code == "RW-FIELD"
    assert [reason.field for reason in problem.reasons] == fields


def test_values_are_never_repeated() -> None:
    canary = "canary-4711"
    for operation in OPERATIONS:
        if operation.body is None or operation.body.__struct_fields__ == ():
            continue
        for field in operation.body.__struct_fields__:
            for value in (canary, [canary], {"a": canary}):
                assert canary not in told(json.dumps({field: value}).encode(), operation.body)


class Choosing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A body with choices in every kind of place."""

    one: Literal["a", "b"] | None = None
    many: tuple[KeyAlgorithm, ...] = ()
    named: dict[str, Literal["c"]] = {}
    deep: list[dict[str, Annotated[Literal["d", "e"], msgspec.Meta(description="x")]]] = []


@pytest.mark.parametrize(
    ("body", "field", "said"),
    [
        ({"one": "no"}, "one", "a, b"),
        ({"many": ["p256", "no"]}, "many[1]", ", ".join(KeyAlgorithm)),
        ({"named": {"x.y": "no"}}, None, "c"),
        ({"deep": [{}, {"x": "no"}]}, None, "d, e"),
    ],
)
def test_what_would_do_is_said(body: object, field: str | None, said: str) -> None:
    (reason,) = refusal(json.dumps(body).encode(), Choosing).reasons
    assert reason.detail == f"It is not one of {said}."
    if field is not None:
        assert reason.field == field


@pytest.mark.parametrize("kind", [pytest.param(Line, id="line"), pytest.param(Id, id="id")])
@pytest.mark.parametrize("odd", ["a\n", "a\r", "\x00", "a\x1b", "a\x7f", "a\x85", "a\u2028"])
def test_one_line_is_one_line(kind: Any, odd: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(odd, kind)


def test_text_may_have_lines() -> None:
    assert msgspec.convert("a\nb\tc", Text) == "a\nb\tc"
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert("a\x1b[31m", Text)


def test_every_body_refuses_unknown_fields() -> None:
    for operation in OPERATIONS:
        if operation.body is not None:
            assert refusal(b'{"unknown_field_4711":1}', operation.body).code == "RW-FIELD", operation.name


class Long(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    content: str
    label: str = ""


MANY = "a" * bodies.MAX_BODY
OBJECTS, NO_STRINGS, QUOTES = ("{}," * bodies.MAX_BODY, '"",' * bodies.MAX_BODY, '\\"' * bodies.MAX_BODY * 2)


@pytest.mark.parametrize(
    "content", [MANY, MANY + "\n\r\t\\", '\\"' + MANY + '"', MANY + "\\" * 7_000], ids=["plain", "n", "q", "b"]
)
def test_a_large_body_is_large_by_its_long_text(content: str) -> None:
    found = bodies.decode(bytearray(json.dumps({"content": content, "label": "łódź"}).encode()), Long)
    assert found == Long(content, "łódź")


@pytest.mark.parametrize(
    "body",
    [
        f'{{"content":"{MANY}","label":"","label":""}}',
        f'{{"content":"{MANY}😀"}}',
        f'{{"content":"{MANY}\\ud83d\\ude00"}}',
        f'{{"content":"","x":[{OBJECTS}{{}}]}}',
        f'{{"content":"","x":[{NO_STRINGS}""]}}',
        f'{{"content":"{QUOTES}"}}',
        f'{{"content":"{MANY}',
        f'"{MANY}" "',
    ],
    ids=["twice", "wide", "wide by escapes", "objects", "strings", "quotes", "no end", "no json"],
)
def test_a_large_body_that_would_be_larger_still(body: str) -> None:
    """I-66."""
    with pytest.raises(Problem) as refused:
        bodies.decode(bytearray(body.encode()), Long)
    assert {reason.code for reason in refused.value.reasons} == {"RW-MALFORMED"}
