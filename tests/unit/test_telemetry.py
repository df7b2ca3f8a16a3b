"""Log lines: one list, no secrets, one line each whatever is in them."""

from __future__ import annotations

import ast
import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from rootward import telemetry

SOURCE = Path(__file__).parents[2] / "src" / "rootward"
LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    made = io.StringIO()
    root = logging.getLogger()
    before = list(root.handlers)
    yield made
    structlog.reset_defaults()
    root.handlers[:] = before


def said() -> set[str]:
    """Every literal first argument of `log.info(...)` and its like in our sources."""
    found = set()
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in LEVELS:
                owner, first = node.func.value, node.args[0] if node.args else None
                if isinstance(owner, ast.Name) and owner.id == "log" and isinstance(first, ast.Constant):
                    found.add(str(first.value))
    return found


def test_every_line_is_in_the_list() -> None:
    assert "http.request" in said()
    assert said() - telemetry.LINES.keys() == set()


@pytest.mark.parametrize("form", ["console", "json"])
def test_secrets_and_bytes_never_get_in(stream: io.StringIO, form: str) -> None:
    telemetry.configure_logging(form, "info", stream=stream)
    log = structlog.get_logger()
    log.info(
        "http.request", token="abc-secret", Authorization="Bearer x-secret", body=b"key-secret", passphrase="p-secret"
    )
    assert "secret" not in stream.getvalue().replace("[redacted]", "")
    assert "[10 bytes]" in stream.getvalue()


@pytest.mark.parametrize("form", ["console", "json"])
def test_a_value_cannot_forge_a_line_or_a_terminal_sequence(stream: io.StringIO, form: str) -> None:
    telemetry.configure_logging(form, "info", stream=stream)
    structlog.get_logger().info("http.request", path="/a\nfake.line x=1\x1b[31m\u202e", other="two words")
    assert stream.getvalue().count("\n") == 1
    assert stream.getvalue().isascii()
    assert "\x1b" not in stream.getvalue()


def test_the_request_id_is_bound(stream: io.StringIO) -> None:
    telemetry.configure_logging("json", "info", stream=stream)
    token = telemetry.request_id.set("req-1")
    structlog.get_logger().info("http.request")
    telemetry.request_id.reset(token)
    structlog.get_logger().info("http.request")
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert first["request_id"] == "req-1"
    assert "request_id" not in second


def test_levels(stream: io.StringIO) -> None:
    telemetry.configure_logging("console", "warning", stream=stream)
    structlog.get_logger().info("http.request")
    assert stream.getvalue() == ""
    structlog.get_logger().warning("http.request", n=1)
    assert stream.getvalue().endswith("warning http.request n=1\n")


def test_a_library_speaks_through_our_lines(stream: io.StringIO) -> None:
    telemetry.configure_logging("json", "info", stream=stream)
    logging.getLogger("some.library").warning("look %s", "here")
    logging.getLogger("some.library").info("not this")
    (line,) = map(json.loads, stream.getvalue().splitlines())
    assert (line["event"], line["logger"], line["message"]) == ("python.log", "some.library", "look here")


def test_request_ids_are_new_each_time() -> None:
    made = {telemetry.new_request_id() for _ in range(1000)}
    assert len(made) == 1000
    assert all(len(one) == 20 and one.startswith("req-") for one in made)
