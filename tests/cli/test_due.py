"""`rootward ceremony due`: what it says, and that it is loud once something is over."""

from __future__ import annotations

from tests.cli.conftest import Rootward
from tests.cli.fake import Fake

REQUEST = "01a20ff8-e510-76f8-906f-6fc4fee8c547"


def item(days: int | None, *, request: str | None = None) -> dict[str, object]:
    """One due date."""
    return {"authority": "root", "what": "crl", "due_at": "2027-11-24T00:00:00Z", "days": days, "request": request}


def test_what_is_due(rootward: Rootward, fake: Fake) -> None:
    fake.bodies["ceremonies/due"] = {"items": []}
    assert rootward("ceremony", "due").out == "Nothing here needs a ceremony.\n"
    fake.bodies["ceremonies/due"] = {"items": [item(90, request=REQUEST), item(1), item(None)]}
    found = rootward("ceremony", "due")
    assert found.code == 0
    lines = found.out.splitlines()
    assert lines[0].split() == ["AUTHORITY", "WHAT", "DUE", "LEFT"]
    assert "less than 90 days" in lines[1]
    assert "less than 1 day" in lines[2]
    assert " ".join(lines[4:]) == f"The request for the next CRL of root waits: rootward ceremony request {REQUEST}"


def test_what_is_overdue_is_an_error(rootward: Rootward, fake: Fake) -> None:
    fake.bodies["ceremonies/due"] = {"items": [item(0, request=REQUEST)]}
    found = rootward("ceremony", "due")
    assert found.code == 1
    assert "overdue" in found.out
    assert rootward("ceremony", "due", "--json").code == 1
