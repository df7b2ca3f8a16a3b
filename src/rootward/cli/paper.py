"""Files that travel: read with a sentence for what is wrong, written once and never over another one."""

from __future__ import annotations

import hashlib
from pathlib import Path

from rootward.cli.failure import USAGE, Failure

_LARGEST = 64 * 1024 * 1024


def read_file(path: Path, what: str) -> str:
    """The text of a file that is to hold `what`."""
    try:
        if path.stat().st_size > _LARGEST:
            raise Failure(f"{path} is too large.", f"{what} has at most {_LARGEST} bytes.", exit=USAGE)
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise Failure(f"{path} cannot be read.", f"{error.strerror}.", exit=USAGE) from error
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
