"""A second person with the role approver, and a token that nobody else ever had."""

from __future__ import annotations

from pathlib import Path

import httpx


def second_person(admin: httpx.Client, path: Path, name: str = "bob") -> None:
    """Their token is in the file at `path`, made by themselves with an invitation."""
    person = admin.post("/api/v1/principals", json={"name": name}).json()["id"]
    given = admin.post("/api/v1/grants", json={"principal": person, "role": "approver"})
    assert given.status_code == 201, given.text
    asked = {"label": name, "lifetime": "1d", "principal": person}
    invitation = admin.post("/api/v1/tokens", json=asked).json()["token"]
    mine = {"authorization": f"Bearer {invitation}"}
    own = admin.post("/api/v1/tokens", json={"label": "mine", "lifetime": "1d"}, headers=mine)
    assert own.status_code == 201, own.text
    path.write_text(own.json()["token"] + "\n")
    path.chmod(0o600)
