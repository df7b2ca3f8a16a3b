"""The folder that `cert issue` and `cert renew` fill: what is in it at each moment, so that a lost answer loses
nothing.

1. `key.pem` (0600) and `request.json` are there before anything is asked. The latter holds the CSR and the
idempotency key. 2. A lost answer or a wait leaves both; the same command reads them and goes on, under the same
idempotency key. 3. `cert.pem`, `chain.pem` and `fullchain.pem` appear whole, and last of all `request.json` goes.

Nothing that is there is ever overwritten, except by the command that began it.
"""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from rootward.cli.failure import Failure

KEY: Final = "key.pem"
STATE: Final = "request.json"
CERTIFICATES: Final = ("cert.pem", "chain.pem", "fullchain.pem")


@dataclass(frozen=True, slots=True)
class Pending:
    """What `request.json` holds. `asked` is the command, `body` what is sent, `request` the id once somebody must
    agree. `made` counts the folders that were made for it, from the innermost on.
    """

    asked: dict[str, Any]
    body: dict[str, Any]
    idempotency_key: str
    own_key: bool
    request: str | None = None
    made: int = 0


def read(folder: Path, asked: dict[str, Any]) -> Pending | None:
    """The unfinished request in the folder, None if there is none. Failure if it is another command's, or cannot be
    read.
    """
    path = folder / STATE
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    try:
        found = Pending(**json.loads(text))
    except (ValueError, TypeError) as error:
        raise Failure(f"{path} cannot be read.", next="Take it and key.pem away to begin anew.") from error
    if found.asked != asked:
        was = ", ".join(f"{name} {value}" for name, value in found.asked.items() if value)
        raise Failure(
            f"{folder} holds an unfinished request that asks for something else.",
            f"It asks for: {was}.",
            next="Finish it with the same command, choose another --out, or take request.json and key.pem away.",
        )
    if found.own_key and not (folder / KEY).is_file():
        raise Failure(f"{path} is there, but the key that it is about is not.", next="Take it away to begin anew.")
    return found


def begin(folder: Path, pending: Pending, key: bytes | None) -> Pending:
    """Write the key (PEM, None where it is the caller's own) and the request, and return that as it was written.
    Failure where files would be overwritten.
    """
    wanted = (*CERTIFICATES, *((KEY,) if key is not None else ()))
    there = [name for name in wanted if os.path.lexists(folder / name)]
    if there:
        raise Failure(
            f"Nothing is overwritten, and {folder} already has {', '.join(there)}.", next="Choose another --out."
        )
    pending = replace(pending, made=sum(not os.path.lexists(path) for path in (folder, *folder.parents)))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if key is not None:
            _write_new(folder / KEY, key, mode=0o600)
        _write_new(folder / STATE, _encoded(pending), mode=0o600)
    except FileExistsError as error:
        raise Failure(f"Somebody else has begun to fill {folder}: {error.filename} appeared.") from error
    except OSError as error:
        raise Failure(f"{error.filename} cannot be written.", f"{error.strerror}.") from error
    return pending


def waits(folder: Path, pending: Pending) -> None:
    """Remember the request's id."""
    _replace(folder / STATE, _encoded(pending), mode=0o600)


def finish(folder: Path, certificate: str, chain: str) -> None:
    """Write the certificates (PEM) and forget the request."""
    try:
        for name, text in zip(CERTIFICATES, (certificate, chain, certificate + chain), strict=True):
            _replace(folder / name, text.encode("ascii"), mode=0o644)
        (folder / STATE).unlink()
        _sync(folder)
    except OSError as error:
        raise Failure(
            f"{error.filename} cannot be written.",
            f"{error.strerror}.",
            next="Run the same command again: it goes on from here.",
        ) from error


def give_up(folder: Path, pending: Pending) -> None:
    """Take away the request that came to nothing, and the key that was made for it: nothing was certified under it.
    Folders that were made for it go too, as long as nothing else is in them.
    """
    (folder / STATE).unlink(missing_ok=True)
    if pending.own_key:
        (folder / KEY).unlink(missing_ok=True)
    for path in (folder, *folder.parents)[: pending.made]:
        try:
            path.rmdir()
        except OSError:
            return  # somebody put something in it; what is above is not empty then either


def _encoded(pending: Pending) -> bytes:
    from dataclasses import asdict

    return json.dumps(asdict(pending), indent=2).encode() + b"\n"


def _write_new(path: Path, data: bytes, *, mode: int) -> None:
    """A whole new file or none: FileExistsError if the name is taken, even by a link."""
    temporary = _temporary(path, data, mode=mode)
    try:
        os.link(temporary, path)  # unlike a rename, it does not replace
    except FileExistsError as error:
        raise FileExistsError(error.errno, error.strerror, str(path)) from None
    finally:
        temporary.unlink()
    _sync(path.parent)


def _replace(path: Path, data: bytes, *, mode: int) -> None:
    os.replace(_temporary(path, data, mode=mode), path)
    _sync(path.parent)


def _temporary(path: Path, data: bytes, *, mode: int) -> Path:
    made = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    number = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    with os.fdopen(number, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return made


def _sync(folder: Path) -> None:
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
