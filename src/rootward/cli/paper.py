"""Files that travel: read with a sentence for what is wrong, written once and never over another one."""

from __future__ import annotations

import hashlib
from pathlib import Path

from rootward.cli.failure import USAGE, Failure

_LARGEST = 64 * 1024 * 1024


def read_bytes(path: Path, limit: int = _LARGEST) -> bytes:
    """A whole file of `limit` bytes at most; Failure where there is none, or a larger one."""
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise Failure(f"{path} cannot be read.", f"{error.strerror}.", exit=USAGE) from error
    if len(data) > limit:
        raise Failure(f"{path} is too large.", f"Such a file has at most {limit} bytes.", exit=USAGE)
    return data


def read_file(path: Path, what: str) -> str:
    """The text of a file that is to hold `what`."""
    try:
        return read_bytes(path).decode()
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
