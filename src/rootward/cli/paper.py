"""Files that travel: read with a sentence for what is wrong, written once and never over another one."""

from __future__ import annotations

import hashlib
from pathlib import Path

from rootward.cli.failure import USAGE, Failure
from rootward.core.problems import Problem

_LARGEST = 64 * 1024 * 1024


def read_bytes(path: Path, limit: int) -> bytes:
    """The bytes of a file, `limit` at most; Problem RW-TOO-LARGE for more."""
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise Failure(f"{path} cannot be read.", f"{error.strerror}.", exit=USAGE) from error
    if len(data) > limit:
        raise Problem("RW-TOO-LARGE", f"{path} is larger than the {limit} bytes that such a file can have.")
    return data


def read_file(path: Path, what: str) -> str:
    """The text of a file that is to hold `what`; Problem RW-TOO-LARGE above 64 MiB."""
    try:
        return read_bytes(path, _LARGEST).decode()
    except UnicodeDecodeError:
        raise Failure(f"{path} is not {what}.", "It is not text.", exit=USAGE) from None


def write_file(path: Path, text: str) -> str:
    """Write a new file; the SHA-256 of its bytes, hex."""
    data = text.encode()
    try:
        with path.open("xb") as file:
            file.write(data)
    except FileExistsError:
        raise Failure(
            f"{path} is there already.", "It is left as it is; the same can be written elsewhere with --out."
        ) from None
    except OSError as error:
        raise Failure(f"{path} cannot be written.", f"{error.strerror}.") from error
    return hashlib.sha256(data).hexdigest()
