"""The OpenAPI document: whole, valid in itself, and of the same rows as the routes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from jsonschema_rs import Draft202012Validator, meta

from rootward.core.problems import CODES
from rootward.protocols.rest import openapi
from rootward.protocols.rest.operation import Operation
from rootward.protocols.rest.resources import OPERATIONS

DOCUMENT = json.loads(msgspec.json.encode(openapi.document(OPERATIONS)))
REFERENCE = Path(__file__).parents[3] / "docs" / "reference" / "rest.md"


def entry(operation: Operation) -> dict[str, Any]:
    found: dict[str, Any] = DOCUMENT["paths"][operation.url][operation.method.lower()]
    return found


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for inside in value.values():
            yield from references(inside)
    elif isinstance(value, list):
        for inside in value:
            yield from references(inside)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_every_route_is_in_it(operation: Operation) -> None:
    found = entry(operation)
    assert found["operationId"] == operation.name
    assert str(operation.status) in found["responses"]
    assert {"401", "405", "500", "503"} <= set(found["responses"])
    assert ("requestBody" in found) == (operation.body is not None)
    named = {(parameter["in"], parameter["name"]) for parameter in found["parameters"]}
    assert {("path", name) for name in re.findall(r"{(\w+)}", operation.path)} <= named
    assert {("query", name) for name in operation.parameters} <= named
    for status, answer in found["responses"].items():
        if int(status) >= 400:
            assert list(answer["content"]) == ["application/problem+json"]
            assert all(code in CODES for code in answer["description"].split(", "))


def test_it_holds_nothing_but_the_routes() -> None:
    found = {(method.upper(), path) for path, methods in DOCUMENT["paths"].items() for method in methods}
    assert found == {(operation.method, operation.url) for operation in OPERATIONS}
    ids = [operation.name for operation in OPERATIONS]
    assert len(set(ids)) == len(ids)


def test_every_reference_leads_somewhere() -> None:
    known = {f"#/components/schemas/{name}" for name in DOCUMENT["components"]["schemas"]}
    found = set(references(DOCUMENT))
    assert found == known


def test_every_schema_is_json_schema() -> None:
    for schema in DOCUMENT["components"]["schemas"].values():
        assert meta.is_valid({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema})
    names = DOCUMENT["components"]["schemas"]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+", name) for name in names)


def test_problems_named_by_operations_exist() -> None:
    for operation in OPERATIONS:
        assert set(operation.problems) <= set(CODES), operation.name


def validator(name: str) -> Draft202012Validator:
    """A validator for one of the document's schemas."""
    return Draft202012Validator({"$ref": f"#/components/schemas/{name}", "components": DOCUMENT["components"]})


def test_the_schemas_say_what_the_bodies_take() -> None:
    issue = validator("IssueBody")
    good = {"profile": "server", "csr": "-----BEGIN CERTIFICATE REQUEST-----", "labels": {"a": "b"}}
    assert issue.is_valid(good)
    for wrong in (
        {"profile": "server"},
        {**good, "status": "active"},
        {**good, "profile": "a\n"},
    ):
        assert not issue.is_valid(wrong)


def test_the_reference_names_every_call() -> None:
    text = REFERENCE.read_text()
    rows = set(re.findall(r"^\| `(GET|POST|PUT|DELETE) (/\S*)` \|", text, re.MULTILINE))
    assert rows == {(operation.method, operation.path) for operation in OPERATIONS}
    for operation in OPERATIONS:
        for parameter in operation.query:
            assert f"`{parameter.name}`" in text, f"{operation.name}: {parameter.name}"
