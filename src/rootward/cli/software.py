"""What runs: version and hash of the installed package, and of what it signs with. A transcript says so, and a
participant can compute the same with `sha256sum`.
"""

from __future__ import annotations

import hashlib
import platform
from pathlib import Path

import cryptography
from cryptography.hazmat.backends.openssl import backend

import rootward
from rootward.core.minutes import Software

_SKIPPED = ("__pycache__",)


def software() -> Software:
    """Of this process."""
    folder = Path(rootward.__file__).parent
    return Software(
        rootward=rootward.__version__,
        files=tree_sha256(folder),
        python=platform.python_version(),
        cryptography=cryptography.__version__,
        openssl=backend.openssl_version_text(),
    )


def tree_sha256(folder: Path) -> str:
    """SHA-256 over lines `<sha256>  <path>` of all files, sorted by path (bytes), without what Python compiles. In the
    folder, this says the same:

    find . -name __pycache__ -prune -o -type f -printf '%P\\n' | LC_ALL=C sort | xargs sha256sum | sha256sum
    """
    files = [
        path
        for path in folder.rglob("*")
        if path.is_file() and not any(part in _SKIPPED for part in path.relative_to(folder).parts)
    ]
    lines = sorted((path.relative_to(folder).as_posix().encode(), path) for path in files)
    whole = b"".join(
        hashlib.sha256(path.read_bytes()).hexdigest().encode() + b"  " + name + b"\n" for name, path in lines
    )
    return hashlib.sha256(whole).hexdigest()
