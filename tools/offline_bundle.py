"""One archive of everything that an air-gapped machine needs to install Rootward (docs/ceremonies/offline-bundle.md).

    rootward-offline-VERSION/
      MANIFEST          SHA-256 of every other file, as sha256sum writes it
      MANIFEST.sig      Ed25519 signature over MANIFEST, 64 bytes; the only file that MANIFEST does not name
      signer.pem        the public key of that signature, to be compared with one that came another way
      VERIFY.txt  CHECKLIST.md  install.sh  requirements.txt  wheels/

    python tools/offline_bundle.py --out dist [--key FILE] [--cache .bundle]

The wheels are those of requirements/offline.txt, for each interpreter and machine in `PYTHONS` and `MACHINES`, fetched
by pip from wherever it is configured to and held against the hashes there; and Rootward's own. They are kept in the
cache until the lock file changes. The same inputs give the same bytes: the archive has no times, owners or order of its
own, and Ed25519 signs without randomness. Without a key one is made for this bundle and forgotten.
"""

from __future__ import annotations

import argparse
import getpass
import hashlib
import io
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from rootward import __version__
from rootward.core.spoken import words_of

ROOT = Path(__file__).parents[1]
LOCK = ROOT / "requirements" / "offline.txt"
PYTHONS = ("3.11", "3.12", "3.13")
MACHINES = ("x86_64", "aarch64")
GLIBCS = ("2_28", "2_27", "2_26", "2_24", "2_17", "2_12", "2_5")  # manylinux tags that a system with glibc 2.28 takes
FILES = {  # in the bundle: from here
    "install.sh": ROOT / "tools" / "offline" / "install.sh",
    "VERIFY.txt": ROOT / "tools" / "offline" / "VERIFY.txt",
    "CHECKLIST.md": ROOT / "docs" / "ceremonies" / "checklist.md",
}
_EXECUTABLE = {"install.sh"}


def main(arguments: list[str]) -> int:
    """Make the bundle and say what to compare."""
    parser = argparse.ArgumentParser(prog="make offline-bundle")
    parser.add_argument("--out", type=Path, required=True, help="the folder that the archive comes into")
    parser.add_argument("--key", type=Path, help="an Ed25519 private key (PEM); one is made and forgotten if not given")
    parser.add_argument("--cache", type=Path, default=ROOT / ".bundle", help="where wheels are kept")
    options = parser.parse_args(arguments)
    key = _signer(options.key)
    files = {name: path.read_bytes() for name, path in FILES.items()}
    wheels = {path.name: path.read_bytes() for path in sorted(locked_wheels(options.cache).iterdir())}
    wheels |= _own_wheel()
    files |= {f"wheels/{name}": data for name, data in wheels.items()}
    files["requirements.txt"] = _requirements(wheels)
    files["signer.pem"] = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    manifest = "".join(f"{_sha256(files[name])}  {name}\n" for name in sorted(files)).encode()
    files |= {"MANIFEST": manifest, "MANIFEST.sig": key.sign(manifest)}
    name = f"rootward-offline-{__version__}"
    options.out.mkdir(parents=True, exist_ok=True)
    archive = options.out / f"{name}.tar"
    made = archive.with_name(f".{archive.name}.making")
    made.write_bytes(archived(name, files))
    made.replace(archive)
    _say(archive, manifest, key, lasting=options.key is not None)
    return 0


def _signer(path: Path | None) -> Ed25519PrivateKey:
    if path is None:
        return Ed25519PrivateKey.generate()
    try:
        data = path.read_bytes()
        try:
            key = load_pem_private_key(data, None)
        except TypeError:  # it is encrypted
            key = load_pem_private_key(data, getpass.getpass(f"Passphrase of {path}: ").encode())
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        raise SystemExit(f"offline-bundle: {path} is no private key that can be used: {error}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise SystemExit(f"offline-bundle: {path} is no Ed25519 key. openssl genpkey -algorithm ed25519 makes one.")
    return key


def locked_wheels(cache: Path) -> Path:
    """The folder with every wheel of the lock file for every interpreter and machine, fetched where it is not there."""
    lock = LOCK.read_bytes()
    id = hashlib.sha256(lock + repr((PYTHONS, MACHINES, GLIBCS)).encode()).hexdigest()[:16]
    folder = cache / id
    if not folder.exists():
        cache.mkdir(parents=True, exist_ok=True)
        making = Path(tempfile.mkdtemp(prefix="making-", dir=cache))
        for python in PYTHONS:
            for machine in MACHINES:
                _download(making, python, machine)
        try:
            making.rename(folder)
        except OSError:  # another one was quicker
            shutil.rmtree(making)
    allowed = set(re.findall(rb"--hash=sha256:([0-9a-f]{64})", lock))
    for path in folder.iterdir():
        if _sha256(path.read_bytes()).encode() not in allowed:
            raise SystemExit(f"offline-bundle: {path} is none of the files that {LOCK} names. Delete {folder}.")
    return folder


def _download(folder: Path, python: str, machine: str) -> None:
    print(f"offline-bundle: wheels for Python {python} on {machine}", file=sys.stderr)
    plain = python.replace(".", "")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"]
    command += ["--dest", str(folder), "--only-binary", ":all:", "--no-deps", "--require-hashes"]
    command += ["--implementation", "cp", "--python-version", python]
    command += [word for abi in (f"cp{plain}", "abi3", "none") for word in ("--abi", abi)]
    command += [word for glibc in GLIBCS for word in ("--platform", f"manylinux_{glibc}_{machine}")]
    command += ["--platform", f"manylinux2014_{machine}", "--requirement", str(LOCK)]
    subprocess.run(command, check=True)  # noqa: S603  this interpreter and its own pip


def _own_wheel() -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-input"]
        command += ["--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", folder, str(ROOT)]
        subprocess.run(command, check=True)  # noqa: S603  this interpreter and its own pip
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def _requirements(wheels: dict[str, bytes]) -> bytes:
    """A line for each project, with the hashes of its wheels here. pip itself is run from its wheel."""
    hashes: dict[str, list[str]] = {}
    for name, data in sorted(wheels.items()):
        project, version, *_ = name.split("-")
        if project != "pip":
            hashes.setdefault(f"{project.replace('_', '-')}=={version}", []).append(_sha256(data))
    return "".join(
        f"{project} {' '.join(f'--hash=sha256:{sha256}' for sha256 in found)}\n" for project, found in hashes.items()
    ).encode()


def archived(name: str, files: dict[str, bytes]) -> bytes:
    """An uncompressed archive (wheels are compressed already) that depends on names and bytes alone."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for path in sorted(files):
            entry = tarfile.TarInfo(f"{name}/{path}")
            entry.size = len(files[path])
            entry.mode = 0o755 if path in _EXECUTABLE else 0o644
            archive.addfile(entry, io.BytesIO(files[path]))
    return out.getvalue()


def _say(archive: Path, manifest: bytes, key: Ed25519PrivateKey, *, lasting: bool) -> None:
    public = hashlib.sha256(key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
    print(f"{archive}\n\nSHA-256 of MANIFEST\n  {_sha256(manifest)}")
    print(f"SHA-256 of the signer's public key (DER)\n  {public.hexdigest()}")
    words = words_of(public.digest())
    print("\n".join(f"  {' '.join(words[at : at + 8])}" for at in range(0, len(words), 8)))
    if not lasting:
        print(
            "\n*** This bundle is signed with a key that was made for it and is forgotten. The signature is worth as\n"
            "*** much as the hash above: write the hash down now, and compare it on the air-gapped machine.\n"
            "*** BUNDLE_KEY=FILE signs with a key of yours (openssl genpkey -algorithm ed25519 -out FILE)."
        )


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
