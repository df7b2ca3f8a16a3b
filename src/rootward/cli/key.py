"""`rootward key`: the life of private keys, and public keys that must never be certified again (those that leaked)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from rootward.cli import keykeep, request, screen
from rootward.cli.failure import USAGE, Failure
from rootward.cli.options import Limit, Session, noun, remote
from rootward.cli.rewrap import rewrap

app = noun("The life of the authorities' keys; block public keys.")
app.command("rewrap")(rewrap)

app.command("backup")(keykeep.backup)
app.command("restore")(keykeep.restore)
_PATH = "/api/v1/blocked-keys"
_BATCH = 1000
_PEM = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)
_HASH = re.compile(r"(?P<sha256>[0-9a-fA-F]{64})(?:\s+(?P<why>\S.*))?")


@app.command("list")
@remote
def list_(session: Session, limit: Limit = None) -> None:
    """List the blocked keys."""
    page = session.client.pages(_PATH, {}, limit=limit)
    if session.json:
        screen.write_json(screen.encode(page))
        return
    rows = [(item.get("sha256"), item.get("why"), item.get("at") or item.get("created_at")) for item in page["items"]]
    screen.table(("sha256", "why", "since"), rows, empty="No key is blocked.", spare=("since",), folds=("why",))


@app.command("states")
@remote
def states(session: Session, limit: Limit = None) -> None:
    """List the authorities' keys and their states, those that wait for their certificates included."""
    page = session.client.pages("/api/v1/keys", {}, limit=limit)
    if session.json:
        screen.write_json(screen.encode(page))
        return
    fields = ("authority", "state", "key_algorithm", "key_store", "signs_until", "not_after")
    rows = [tuple(item.get(field) for field in fields) for item in page["items"]]
    titles = ("authority", "state", "key", "store", "certifies until", "expires")
    screen.table(titles, rows, empty="There is no key yet.", spare=("store",))


@app.command("destroy")
@remote
def destroy(
    session: Session,
    authority: Annotated[str, typer.Argument(metavar="AUTHORITY", help="The authority's name.")],
    compromised: Annotated[
        bool,
        typer.Option(
            "--compromised", help="It is compromised: what it certified may lose its CRL and OCSP before its end."
        ),
    ] = False,
) -> None:
    """Destroy the key of an authority that is over, once a second person agrees. It cannot be taken back; its backups
    are yours to destroy.
    """
    from rootward.cli.client import segment

    body = {"compromised": True} if compromised else {}
    answer = session.client.post(f"/api/v1/authorities/{segment(authority)}/destroy-key", body)
    request.wait(answer, f"The end of the key of {screen.safe(authority)}")


@app.command("block")
@remote
def block(
    session: Session,
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="PEM keys, certificates or CSRs, or lines with the SHA-256 of a SubjectPublicKeyInfo."
        ),
    ],
    why: Annotated[str, typer.Option("--why", help="Where no line says why.")] = "blocked by hand",
) -> None:
    """Block every key in a file. Private keys are read for their public half only, and never sent."""
    try:
        data = file.read_bytes()
    except OSError as error:
        raise Failure(f"{file} cannot be read.", f"{error.strerror}.", exit=USAGE) from error
    keys = {
        sha256: reason or why for sha256, reason in (_from_pem(data) if b"-----BEGIN" in data else _from_lines(data))
    }
    if not keys:
        raise Failure(f"There is no key in {file}.", exit=USAGE)
    listed = [{"sha256": sha256, "why": reason} for sha256, reason in keys.items()]
    added = 0
    for at in range(0, len(listed), _BATCH):
        answer = session.client.post(_PATH, {"keys": listed[at : at + _BATCH]})
        added += int(answer.value.get("added", 0))
    if session.json:
        screen.write_json(screen.encode({"added": added}))
        return
    screen.say(f"{added} of {len(listed)} keys are newly blocked.")


def _from_lines(data: bytes) -> Iterator[tuple[str, str | None]]:
    for number, line in enumerate(data.decode("utf-8", "replace").splitlines(), start=1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        match = _HASH.fullmatch(text)
        if match is None:
            raise Failure(f"Line {number} is not the SHA-256 of a key.", "It must have 64 hex digits.", exit=USAGE)
        yield match["sha256"].lower(), match["why"]


def _from_pem(data: bytes) -> Iterator[tuple[str, None]]:
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization

    form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    for block in _PEM.finditer(data):
        label, text = block[1].decode(), block[0] + b"\n"
        try:
            if label == "CERTIFICATE":
                key = x509.load_pem_x509_certificate(text).public_key()
            elif label.endswith("CERTIFICATE REQUEST"):
                key = x509.load_pem_x509_csr(text).public_key()
            elif label == "PUBLIC KEY":
                key = serialization.load_pem_public_key(text)  # type: ignore[assignment]  # more kinds, all with public_bytes
            elif label.endswith("PRIVATE KEY"):
                key = serialization.load_pem_private_key(text, None).public_key()  # type: ignore[assignment]  # as above
            else:
                continue
        except (ValueError, TypeError) as error:
            raise Failure(f"A {label.lower()} in the file cannot be read.", f"{error}.", exit=USAGE) from error
        yield hashlib.sha256(key.public_bytes(*form)).hexdigest(), None
