"""`rootward ca sign`: what is sent, what is shown of the other system's wishes, and how it ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Rootward
from tests.cli.fake import Fake

PATH = "authorities/tier/subordinates"
CSR = "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"
SPEC = "name: mesh\nkind: issuing\ncommon_name: The Mesh CA\npermitted:\n  dns: [internal]\n"
VALUE = {"name": "mesh", "kind": "issuing", "common_name": "The Mesh CA", "permitted": {"dns": ["internal"]}}
PROPOSAL = {
    "id": "p-1",
    "status": "waiting",
    "expires_at": "2030-01-01T00:00:00Z",
    "body": {"compared": [{"what": "path length", "asked": "\x1b[31m9", "given": "0"}]},
}
WORDS = ("ca", "sign", "mesh.csr", "--under", "tier", "--spec", "mesh.yaml", "--out", "mesh.pem")


@pytest.fixture
def files(rootward: Rootward) -> None:
    Path("mesh.csr").write_text(CSR)
    Path("mesh.yaml").write_text(SPEC)


def test_it_waits_and_then_writes(rootward: Rootward, fake: Fake, files: None) -> None:
    fake.bodies[PATH], fake.statuses[PATH] = PROPOSAL, 202
    done = rootward(*WORDS)
    assert done.code == 3
    assert "rootward request approve p-1" in done.err
    assert "path length" in done.out
    assert "\x1b" not in done.out + done.err
    assert not Path("mesh.pem").exists()
    fake.bodies[PATH], fake.statuses[PATH] = {"serial": "4a", "certificate": "ONE\n", "chain": "TWO\n"}, 201
    done = rootward(*WORDS)
    assert (done.code, done.out) == (0, "mesh.pem has the certificate 4a and its chain.\n")
    assert Path("mesh.pem").read_text() == "ONE\nTWO\n"
    assert fake.seen[-1] == ("POST", f"/api/v1/{PATH}", {"spec": VALUE, "csr": CSR})
    again = len(fake.seen)
    done = rootward(*WORDS)
    assert (done.code, len(fake.seen)) == (2, again)  # nothing is overwritten, and nobody is asked


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("mesh.yaml", None),
        ("mesh.yaml", b"[1, 2]"),
        ("mesh.yaml", b"a: [b"),
        ("mesh.yaml", b"\xff\xfe"),
        ("mesh.csr", None),
        ("mesh.csr", b"\x30\x82\x01\x00\xff"),
    ],
)
def test_files_that_are_none(rootward: Rootward, fake: Fake, files: None, file: str, content: bytes | None) -> None:
    Path(file).unlink() if content is None else Path(file).write_bytes(content)
    done = rootward(*WORDS)
    assert done.code == 2
    assert file in done.err
    assert not fake.seen


def test_a_refusal_is_told(rootward: Rootward, fake: Fake, files: None) -> None:
    fake.problems[PATH] = (400, "RW-CEREMONY")
    done = rootward(*WORDS)
    assert (done.code, Path("mesh.pem").exists()) == (1, False)
    assert "RW-CEREMONY" in done.err
