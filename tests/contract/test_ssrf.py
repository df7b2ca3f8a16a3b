"""Targets that mean no good: each is refused in the right way, and nobody but the one host that may be called is called
(bad inputs 166 to 188; issue 5, "done when" 3).

Two counters of the namespace say so: the listeners behind every address, and the kernel's of connections begun and
datagrams sent.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.support.outside import namespaces, played
from tests.vectors.targets import BAD_INPUTS, DIRECT, GOOD, GOOD6, TARGETS, Target

Results = dict[str, dict[str, Any]]
HURRIED = 60  # seconds: with fewer it is the time that ends a target
REFUSED = "The target is not one that this server may call."


@pytest.fixture(scope="module")
def command() -> list[str]:
    found = namespaces()
    if found is None:
        pytest.skip("this user may not make a network namespace")
    return found


@pytest.fixture(scope="module")
def results(command: list[str], tmp_path_factory: pytest.TempPathFactory) -> Results:
    return played(command, tmp_path_factory.mktemp("outside"))


def test_there_are_enough_of_them() -> None:
    hostile = [target for target in TARGETS if target.kinds]
    assert len({target.id for target in hostile}) == len(hostile) >= 60
    assert len(TARGETS) - len(hostile) >= 10


def test_every_bad_input_has_its_targets() -> None:
    hostile = {target.id for target in TARGETS if target.kinds}
    good = {target.id for target in TARGETS} - hostile
    assert {name for names in BAD_INPUTS.values() for name in names} - hostile <= good
    assert all(hostile & set(names) for names in BAD_INPUTS.values())


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.id)
def test_a_target(results: Results, target: Target) -> None:
    result = results[target.id]
    failed = result["failed"]
    if target.kinds:
        assert failed
        assert failed["kind"] in target.kinds
    else:
        assert not failed
    assert {call.split()[0] for call in result["calls"]} <= {GOOD, GOOD6}
    if target.seconds >= HURRIED:
        assert (len(result["calls"]), result["opens"]) == (target.hits, target.hits)
    else:  # on a busy machine the time may be over before the call
        assert len(result["calls"]) <= result["opens"] <= target.hits
    assert result["datagrams"] == 2 * len(result["asked"])  # each question and its answer, and nothing else
    assert all(name.endswith(".") and not by_tcp for name, _, by_tcp in result["asked"])


@pytest.mark.parametrize("target", [target for target in TARGETS if target.kinds], ids=lambda target: target.id)
def test_what_is_said_of_it(results: Results, target: Target) -> None:
    """No address, no port, no name of a redirect, nothing that was fetched."""
    detail = results[target.id]["failed"]["detail"]
    assert re.search(r"[0-9]\.[0-9]|::|:[0-9]|internal|example|localhost\.|http|SSH|token|thumbprint", detail) is None
    assert detail.endswith(".")
    if isinstance(target.page, bytes):
        assert not any(word.decode("latin-1") in detail for word in re.findall(rb"[^\s]{9,}", target.page))


def test_a_refusal_is_final_and_the_log_says_what_was_refused(results: Results) -> None:
    refused = {name: result for name, result in results.items() if result["failed"].get("detail") == REFUSED}
    assert len(refused) > 150
    for result in refused.values():
        assert result["failed"]["again"] is False
        (line,) = map(json.loads, result["log"].splitlines())
        assert (line["event"], line["level"]) == ("egress.refused", "warning")
        assert line["why"]
        assert "address" in line or line["why"] == "domain not allowed"


@pytest.mark.invariant("I-53")
def test_nothing_is_looked_up_twice_for_one_connection(results: Results) -> None:
    for target in TARGETS:
        asked = [tuple(one) for one in results[target.id]["asked"]]
        assert len(asked) <= 2 * (target.hits + 1)


def test_the_listeners_would_see_it(command: list[str], tmp_path: Path) -> None:
    """Where no address is refused, nearly all of the direct ones are called: so a bug would be counted."""
    called = [name for name, result in played(command, tmp_path, "naive").items() if result["calls"]]
    assert len(called) > 0.8 * len(DIRECT)
