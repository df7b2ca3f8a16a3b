"""The offline bundle for tests: made as `make offline-bundle` makes it, unpacked, and installed as the page says."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from rootward import __version__
from tests.docs.markdown import ROOT, blocks, read
from tests.support.programs import said

TOOL = ROOT / "tools" / "offline_bundle.py"
NAME = f"rootward-offline-{__version__}"
MINUTES = 280  # seconds, for a first run that fetches everything


@dataclass(frozen=True)
class Bundle:
    """`folder` is the unpacked archive, `signer` the public key as it came another way, `told` what the maker saw."""

    archive: Path
    folder: Path
    private: Path
    signer: Path
    told: str


def make(out: Path, *more: str | Path) -> str:
    """Make a bundle as `make offline-bundle` does. Proxies and pip's settings are the user's."""
    command = [sys.executable, str(TOOL), "--out", str(out), *map(str, more)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=MINUTES, cwd=ROOT, check=False)
    assert done.returncode == 0, said(done)
    return done.stdout


def signed_bundle(folder: Path) -> Bundle:
    """One that is signed by a key of the test's, in a folder that is there."""
    key = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    private, signer = folder / "key.pem", folder / "known-signer.pem"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    signer.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    told = make(folder, "--key", private)
    return Bundle(folder / f"{NAME}.tar", folder / NAME, private, signer, told)


def unpack(bundle: Bundle) -> None:
    """Into `bundle.folder`."""
    with tarfile.open(bundle.archive) as tar:
        tar.extractall(bundle.folder.parent, filter="data")


def install_as_told(bundle: Bundle, apart: list[str], folder: Path) -> tuple[Path, list[str]]:
    """Check and install it behind the command `apart`, in `folder`, by the very commands of the page that people read:
    the installed program, and the lines that they saw.
    """
    _, steps = (block.text for block in blocks(read(ROOT / "docs" / "ceremonies" / "offline-bundle.md"), "sh"))
    for told, ours in (
        ("VERSION", __version__),
        ("/media/other/signer.pem", str(bundle.signer)),
        ("/opt/rootward", str(folder / "opt" / "rootward")),
    ):
        assert told in steps
        steps = steps.replace(told, ours)
    (folder / bundle.archive.name).symlink_to(bundle.archive)
    done = subprocess.run(
        [*apart, "sh", "-eu", "-c", steps], capture_output=True, text=True, timeout=MINUTES, cwd=folder, check=False
    )
    assert done.returncode == 0, said(done)
    return folder / "opt" / "rootward" / "bin" / "rootward", done.stdout.splitlines()
