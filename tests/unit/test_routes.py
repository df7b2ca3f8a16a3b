"""Which modules lead to a signature: whoever is not in these lists has no way to one (I-38, I-40)."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from rootward.ca import acts, subordinate

SOURCE = Path(__file__).parents[2] / "src" / "rootward"

# Certificates: admitted under a profile (`issue`), or a specification that two people agreed to (`subordinate`).
CERTIFY = {"ca/issue.py", "ca/subordinate.py"}
# And all that sign drafts of any kind; in the room `ca`, or at the rim with a key that no server holds.
SIGN = {
    "ca/attempt.py",  # certificates, after the intent
    "ca/ceremony.py",  # certificates and a CRL, by the script
    "ca/publish.py",  # CRLs
    "ca/responder.py",  # OCSP answers
    "ca/log.py",  # heads of the audit tree
    "ca/sequence.py",
    "ca/own.py",  # CSRs of our own keys
    "ca/foresee.py",
    "ca/authorities.py",
    "ca/single.py",  # the one authority of a single-tier lab
    "signer/desk.py",  # what a signer process was convinced of
    "signer/home.py",
    "fleet/drill.py",  # on a shadow, with keys of its own
    "quickstart.py",
}


def importers(module: str, *names: str) -> set[str]:
    found = set()
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module == module:
                if any(alias.name in names for alias in node.names):
                    found.add(path.relative_to(SOURCE).as_posix())
            elif isinstance(node, ast.Import) and any(alias.name == module for alias in node.names):
                found.add(path.relative_to(SOURCE).as_posix())
    return found


@pytest.mark.invariant("I-40")
def test_an_attempt_is_made_where_something_was_decided() -> None:
    assert importers("rootward.ca.attempt", "Attempt") == CERTIFY


@pytest.mark.invariant("I-38", "I-40")
def test_who_signs_at_all() -> None:
    assert importers("rootward.ca.sign", "sign", "sign_soon") == SIGN
    assert importers("rootward.ca", "sign", "attempt") == set()  # not by way of the package either


@pytest.mark.invariant("I-40", "I-42")
def test_a_ca_is_certified_by_a_proposal_alone() -> None:
    """`certify` has one caller, which is an act; nobody imports it."""
    assert acts.ACTS[subordinate.KIND] is subordinate.carry_out
    assert importers("rootward.ca.subordinate", "certify", "carry_out") == set()
