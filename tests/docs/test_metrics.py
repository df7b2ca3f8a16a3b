"""docs/reference/metrics.md: every metric with its type, its labels and whether anything counts it."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re

from prometheus_client import REGISTRY, Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase

import rootward
from rootward import telemetry
from tests.docs.kinds import SOURCE, nodes
from tests.docs.markdown import REFERENCE, codes, read, rows

DOCUMENT = REFERENCE / "metrics.md"
TYPES: dict[type[MetricWrapperBase], tuple[str, str]] = {
    Counter: ("counter", "_total"),
    Gauge: ("gauge", ""),
    Histogram: ("histogram", ""),
}
IDLE = "Not counted yet."


def metrics() -> dict[str, MetricWrapperBase]:
    """Those of `telemetry`, by the name that it has for them."""
    return {name: value for name, value in vars(telemetry).items() if isinstance(value, MetricWrapperBase)}


def served() -> list[MetricWrapperBase]:
    """Every one in the registry that /metrics shows, whichever module made it."""
    for found in pkgutil.walk_packages(rootward.__path__, "rootward."):
        if not re.search(r"__main__|\.migrations\.", found.name):  # which run where they are imported
            importlib.import_module(found.name)
    every = dict.fromkeys(REGISTRY._collector_to_names)
    return [one for one in every if isinstance(one, MetricWrapperBase)]


def used() -> set[str]:
    """The names in `telemetry` that another module takes."""
    return {
        node.attr
        for node in nodes(SOURCE)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "telemetry"
    }


def test_every_metric_both_ways() -> None:
    wanted = {}
    for metric in served():
        if not metric._name.startswith("rootward_"):
            continue  # a test's own
        kind, ending = TYPES[type(metric)]
        wanted[metric._name + ending] = [kind, list(metric._labelnames)]
    told = {codes(name)[0]: [kind, codes(labels)] for name, kind, labels, _ in rows(read(DOCUMENT), "metric")}
    assert "rootward_http_requests_total" in wanted
    assert told == wanted
    assert len(wanted) > len(metrics())  # not all of them are made in one module


def test_what_is_not_counted_yet_is_said() -> None:
    taken = used()
    idle = {metric._name + TYPES[type(metric)][1] for name, metric in metrics().items() if name not in taken}
    assert {codes(cells[0])[0] for cells in rows(read(DOCUMENT), "metric") if IDLE in cells[3]} == idle


def test_the_example_rules_name_metrics_that_there_are() -> None:
    text = (REFERENCE / "alerts.yaml").read_text(encoding="utf-8")
    told = {codes(cells[0])[0] for cells in rows(read(DOCUMENT), "metric")}
    named = set(re.findall(r"\brootward_[a-z_]+", "\n".join(line for line in text.splitlines() if "expr:" in line)))
    assert len(named) > 8
    assert named <= told
    assert text.count("- alert:") == text.count("expr:")


def test_a_metric_that_the_text_names_is_in_the_table() -> None:
    text = read(DOCUMENT)
    named = {word.partition("{")[0] for word in codes(text) if word.startswith("rootward_")}
    assert named == {codes(cells[0])[0] for cells in rows(text, "metric")}
