"""The root's folder is opened by the ceremony's process alone, and nothing misses it later; strace looks on."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.clients.pki import PROMISE, Pki, ocsp
from tests.support.programs import run, until
from tests.support.server import Server

FOLDER = "offline-root"
CEREMONY = '"rootward.lab"'
# All system calls that take a file's name, and those that make processes; -y shows the path of every descriptor too.
TRACED = "%file,clone,clone3,fork,vfork"
BORN = re.compile(r"(?:clone3?|v?fork)(?:\(.*\)| resumed>.*\)) = (\d+)(?:<[^>]*>)?$")
LINE = re.compile(r"(\d+) +(.*)")


@contextmanager
def traced(server: Server, log: Path) -> Iterator[None]:
    """Starts the server under strace, and stops it; then every call of it and its children is in `log`."""
    wrapper = log.with_suffix(".sh")
    # -D: the tracer is a grandchild, so that the server itself is the process that was started, and gets the signals
    options = f"-D -f --seccomp-bpf -y -s 300 -e trace={TRACED} -o '{log}'"
    wrapper.write_text(f'#!/bin/sh\nexec strace {options} {sys.executable} "$@"\n')
    wrapper.chmod(0o755)
    real, server.program = server.program, (str(wrapper), *server.program[1:])
    try:
        server.start()
    finally:
        server.program = real
    try:
        yield
    finally:
        server.stop()
    assert server.process is not None
    ended = f"{server.process.pid} +++ exited with 0 +++"
    until(lambda: any(line.split() == ended.split() for line in log.read_text().splitlines()), seconds=60)


def lines_of(log: Path) -> list[tuple[str, str]]:
    """Process (or thread) id and what it did, in order."""
    found = [(match[1], match[2]) for line in log.read_text().splitlines() if (match := LINE.fullmatch(line))]
    assert found
    return found


def ceremonies(log: Path) -> set[str]:
    """The processes that became a ceremony's."""
    return {pid for pid, text in lines_of(log) if text.startswith("execve(") and CEREMONY in text}


def touches(log: Path) -> dict[str, list[str]]:
    """The lines about the folder, by who did it: "ceremony" (that process, its threads and children) or "server"."""
    lines, became = lines_of(log), ceremonies(log)
    parents = {born[1]: pid for pid, text in lines if (born := BORN.search(text))}

    def owner(pid: str | None) -> str:
        while pid is not None:
            if pid in became:
                return "ceremony"
            pid = parents.get(pid)
        return "server"

    found: dict[str, list[str]] = {"ceremony": [], "server": []}
    for pid, text in lines:
        if FOLDER in text:
            found[owner(pid)].append(f"{pid} {text}")
    return found


@pytest.mark.invariant("I-36")
@pytest.mark.slow
def test_only_the_ceremony_opens_the_folder_and_nothing_needs_it(tmp_path: Path) -> None:
    server, made = Server(tmp_path / "home"), tmp_path / "made"
    made.mkdir()
    first, second = tmp_path / "first.log", tmp_path / "second.log"
    with traced(server, first):
        pki = Pki(server, made)
        kept = pki.issue()
        root = pki.root.read_bytes()
    found = touches(first)
    assert len(ceremonies(first)) == 1
    assert any("passphrase" in line and "openat(" in line for line in found["ceremony"])  # so strace does see it
    assert found["server"] == []
    # The folder goes; whatever there is of it anywhere else goes with it.
    assert (server.home / FOLDER).is_dir()
    shutil.move(server.home / FOLDER, tmp_path / "in the safe")
    with traced(server, second):
        assert pki.root.read_bytes() == root
        assert pki.verify(kept).returncode == 0
        lives(pki, kept.serial)
    assert ceremonies(second) == set()
    assert touches(second) == {"ceremony": [], "server": []}
    assert not (server.home / FOLDER).exists()
    # and a process that is killed comes back the same
    server.start()
    server.kill()
    with server:
        assert pki.issue().serial != kept.serial
        assert pki.get(f"/api/v1/certificates/{kept.serial}")["status"] == "active"
    assert not (server.home / FOLDER).exists()


def lives(pki: Pki, older: str) -> None:
    """Issuing, revoking, OCSP, both CRLs and the inventory work."""
    issued = pki.issue()
    assert pki.verify(issued).returncode == 0
    assert ocsp(pki, "-cert", issued.cert, "-url", pki.ocsp_url).status == "good"
    pki.revoke(issued, "keyCompromise")
    answer = ocsp(pki, "-cert", issued.cert, "-url", pki.ocsp_url)
    assert (answer.status, answer.verified) == ("revoked", True)
    until(lambda: issued.serial in pki.revocations(), seconds=PROMISE)
    assert run("openssl", "crl", "-in", pki.crl("root"), "-noout", "-CAfile", pki.root).stderr == "verify OK\n"
    assert {older, issued.serial} <= {item["serial"] for item in pki.get("/api/v1/certificates")["items"]}


def test_the_folder_holds_the_roots_key_sealed_and_nothing_else_does(pki: Pki) -> None:
    """What is taken away is what matters."""
    home = pki.server.home
    (key,) = home.rglob("root-*.key")
    assert key.parent.parent == home / FOLDER
    files = [path for path in home.rglob("*") if path.is_file()]
    assert len(files) > 10
    assert not [path for path in files if b"PRIVATE KEY" in path.read_bytes()]
    for path in (home / FOLDER, *(home / FOLDER).rglob("*")):
        assert path.stat().st_mode & 0o077 == 0, path
    passphrase = (home / FOLDER / "passphrase").read_bytes().strip()
    assert [path for path in files if passphrase in path.read_bytes()] == [home / FOLDER / "passphrase"]


@pytest.mark.slow
def test_a_second_start_serves_the_same(tmp_path: Path) -> None:
    made = tmp_path / "made"
    made.mkdir()
    with Server(tmp_path / "home") as server:
        pki = Pki(server, made)
        issued, revoked = pki.issue(), pki.issue()
        pki.revoke(revoked, "superseded")
        root, listed = fingerprint(server), inventory(pki)
        first = (pki.root.read_bytes(), server.token, pki.issuing.read_bytes())
    assert server.output.count("Making a two-tier PKI") == 1
    with server:
        assert "Making a two-tier PKI" not in server.output
        again = Pki(server, made / "again")
        again.folder.mkdir()
        assert fingerprint(server) == root
        assert (again.root.read_bytes(), server.token, again.issuing.read_bytes()) == first
        assert listed.items() <= inventory(again).items()
        assert ocsp(again, "-cert", issued.cert, "-url", again.ocsp_url).status == "good"
        assert ocsp(again, "-cert", revoked.cert, "-url", again.ocsp_url).reason == "superseded"
        assert again.verify(issued).returncode == 0


def inventory(pki: Pki) -> dict[str, tuple[str, str]]:
    """Serial to SHA-256 and status."""
    items = pki.get("/api/v1/certificates?limit=500")["items"]
    return {item["serial"]: (item["sha256"], item["status"]) for item in items}


def fingerprint(server: Server) -> str:
    """The root's, as the server prints it; it must be what OpenSSL computes."""
    (printed,) = re.findall(r"^ +SHA-256 ([0-9a-f:]+)$", server.output, re.MULTILINE)
    computed = run("openssl", "x509", "-in", server.root, "-noout", "-fingerprint", "-sha256").stdout
    assert computed.strip().partition("=")[2].lower() == printed
    return str(printed)
