"""From a path's octets to one operation or none."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootward.core.problems import Problem
from rootward.protocols.rest.resources import OPERATIONS
from rootward.protocols.rest.routing import Routes

ROUTES = Routes(OPERATIONS)
SAMPLES = {
    "{id}": "0e4b6f2a-1c3d-4e5f-8a9b-0c1d2e3f4a5b",
    "{certificate}": "00ab",
    "{name}": "server",
    "{version}": "1",
    "{number}": "1",
    "{kid}": "AAAAAAAAAAAAAAAAAAAAAA",
    "{account}": "AAAAAAAAAAAAAAAAAAAAAA",
    "{sha256}": "00" * 32,
}


def sample(path: str) -> str:
    for name, value in SAMPLES.items():
        path = path.replace(name, value)
    return path


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_every_operation_is_found(operation: object) -> None:
    match = ROUTES.find(operation.method, sample(operation.url).encode())  # type: ignore[attr-defined]  # an Operation
    assert match.operation is operation


def looked_up(path: bytes) -> dict[str, str] | str:
    """The path's parameters, or the code of what is wrong."""
    try:
        return ROUTES.find("GET", path).path
    except Problem as problem:
        return problem.code


@given(st.binary(max_size=40))
def test_any_other_path_is_nothing(tail: bytes) -> None:
    known = {sample(operation.url).encode() for operation in OPERATIONS}
    path = b"/api/v1/" + tail
    found = looked_up(path)
    assert found == "RW-NOT-FOUND" or path in known or isinstance(found, dict)


def test_the_same_method_of_the_same_path_stands_once() -> None:
    with pytest.raises(ValueError, match="twice"):
        Routes([*OPERATIONS, OPERATIONS[0]])


def test_a_parameter_is_one_that_is_known() -> None:
    with pytest.raises(ValueError, match="cannot stand here"):
        Routes([dataclasses.replace(OPERATIONS[0], path="/certificates/{anything}")])


def test_allow_names_every_method() -> None:
    assert ROUTES.find("PATCH", b"/api/v1/profiles/server").allow == "DELETE, GET, HEAD, PUT"
