"""The offline bundle: made, checked with openssl and sha256sum alone, installed where there is no interface at all.

The first run fetches some 140 MB of wheels by pip; they stay in .bundle/.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from packaging.tags import cpython_tags
from packaging.utils import parse_wheel_filename

from rootward import __version__
from rootward.core.spoken import words_of
from rootward.keys import Argon2
from rootward.keys.quorum import make_quorum, write_shares
from tests.docs.markdown import ROOT
from tests.support.bundle import MINUTES, TOOL, Bundle, install_as_told, make, signed_bundle, unpack
from tests.support.programs import environment, said

pytestmark = pytest.mark.timeout(900)  # the first test waits for what is fetched


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bundle]:
    folder = tmp_path_factory.mktemp("bundle")
    made = signed_bundle(folder)
    unpack(made)
    yield made
    shutil.rmtree(folder)  # half a gigabyte with what the tests made of it


@pytest.fixture
def scratch(tmp_path: Path) -> Iterator[Path]:
    """A folder for more of these."""
    yield tmp_path
    shutil.rmtree(tmp_path)


def install(folder: Path, target: Path, signer: Path, **env: str) -> subprocess.CompletedProcess[str]:
    clean = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", **env}
    command = [str(folder / "install.sh"), str(target), str(signer)]
    return subprocess.run(command, capture_output=True, text=True, timeout=MINUTES, env=clean, check=False)


@pytest.mark.slow
def test_it_is_installed_where_there_is_no_network(bundle: Bundle, alone: list[str], scratch: Path) -> None:
    """By the very commands of the page that people read."""
    program, shown = install_as_told(bundle, alone, scratch)
    assert shown == [
        "Signature Verified Successfully",
        f"rootward: installed rootward {__version__}: {program}",
        f"rootward {__version__}",
    ]

    def rootward(*words: str | Path) -> str:
        command = [*alone, str(program), *map(str, words)]
        ran = subprocess.run(
            command, capture_output=True, text=True, timeout=60, cwd=scratch, env=environment(), check=False
        )
        assert ran.returncode == 0, said(ran)
        return ran.stdout

    assert rootward("--version") == f"rootward {__version__}\n"
    people = {"Ada": "the passphrase of Ada", "Grace": "the passphrase of Grace"}
    made = make_quorum("root", people, 2, cost=Argon2(memory_kib=8 * 1024, passes=1, lanes=1))
    words: list[str | Path] = []
    for path, name in zip(write_shares(scratch, made), people, strict=True):
        (scratch / name).write_text(people[name])
        (scratch / name).chmod(0o600)
        words += [path, "--passphrase-file", scratch / name]
    found = json.loads(rootward("ceremony", "share", "check", *words, "--json"))
    assert found == {"set": made.set, "sound": ["Ada", "Grace"], "findings": [], "opened": True}
    people_here = ("--master", "Ada", "--witness", "Grace", "--lab", "--pki-url", "http://pki.example")
    rootward("ceremony", "plan", "root.yaml", "--root", "example-root", *people_here)
    assert "Rehearsed: 3 steps, none refused." in rootward("ceremony", "rehearse", "root.yaml", "--out", "report.json")
    # PKCS#11 came along, and what was installed is what the tests ran with.
    check = "import pkcs11, rootward, cryptography; print(rootward.__file__)"
    inside = subprocess.run(
        [str(program.with_name("python")), "-I", "-c", check], capture_output=True, text=True, check=True
    )
    assert inside.stdout.startswith(str(scratch))


def test_every_wheel_for_every_interpreter_and_machine(bundle: Bundle) -> None:
    names = [path.name for path in (bundle.folder / "wheels").iterdir()]
    wheels = [(name, *parse_wheel_filename(name)[:2], parse_wheel_filename(name)[3]) for name in names]
    projects = {line.split()[0] for line in (bundle.folder / "requirements.txt").read_text().splitlines()}
    assert {"rootward", "python-pkcs11", "cryptography"} <= {project.split("==")[0] for project in projects}
    for minor in (11, 12, 13):
        for machine in ("x86_64", "aarch64"):
            platforms = [f"manylinux_2_{glibc}_{machine}" for glibc in range(28, 4, -1)]
            platforms += [f"manylinux2014_{machine}", "any"]
            tags = set(cpython_tags((3, minor), platforms=platforms))
            tags |= {tag for wheel in wheels for tag in wheel[3] if str(tag).endswith("-none-any")}
            there = {f"{project}=={version}" for _, project, version, has in wheels if tags & has}
            assert {project.lower() for project in projects} <= there, (minor, machine)


def test_the_same_inputs_give_the_same_bytes(bundle: Bundle, scratch: Path) -> None:
    make(scratch, "--key", bundle.private)
    assert (scratch / bundle.archive.name).read_bytes() == bundle.archive.read_bytes()


def test_it_is_verified_with_what_every_machine_has(bundle: Bundle) -> None:
    """The commands of VERIFY.txt, but for the last, which installs."""
    commands = re.findall(r"^ {7}(\S.*)$", (bundle.folder / "VERIFY.txt").read_text(), re.MULTILINE)
    assert len(commands) == 5
    said_ = [
        subprocess.run(["sh", "-c", command], cwd=bundle.folder, capture_output=True, text=True, check=True).stdout
        for command in commands[:4]
    ]
    public = said_[0].split()[0]
    assert public in bundle.told
    assert " ".join(words_of(bytes.fromhex(public))[:8]) in bundle.told
    assert said_[1].split()[0] in bundle.told
    assert said_[2] == "Signature Verified Successfully\n"
    assert said_[3] == ""
    assert commands[4].startswith("./install.sh ")


def test_a_key_that_was_made_for_one_bundle_is_said_loudly(bundle: Bundle, scratch: Path) -> None:
    told = make(scratch)
    assert "*** This bundle is signed with a key that was made for it and is forgotten." in told
    assert "***" not in bundle.told


@pytest.mark.parametrize("key", ["none", "no key", "x25519"])
def test_what_is_no_signing_key_makes_no_bundle(key: str, scratch: Path) -> None:
    path = scratch / "key.pem"
    if key == "no key":
        path.write_text("no key")
    if key == "x25519":
        subprocess.run(["openssl", "genpkey", "-algorithm", "X25519", "-out", str(path)], check=True)
    command = [sys.executable, str(TOOL), "--out", str(scratch / "out"), "--key", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("offline-bundle: ")
    assert not (scratch / "out").exists()


def _flip(path: Path) -> None:
    """Another file in its place: the copies share their inodes with the bundle."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.unlink()
    path.write_bytes(data)


def _wheel(folder: Path, project: str) -> Path:
    return next((folder / "wheels").glob(f"{project}-*.whl"))


def _signed_anew(folder: Path) -> None:
    """Who changes a wheel, the list and the signature, and puts another signer.pem there."""
    key = Ed25519PrivateKey.generate()
    wheel = _wheel(folder, "idna")
    _flip(wheel)
    (folder / "signer.pem").unlink()
    (folder / "signer.pem").write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    lines = []
    for line in (folder / "MANIFEST").read_text().splitlines():
        name = line.split("  ")[1]
        lines.append(f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n")
    for name, data in (("MANIFEST", "".join(lines).encode()), ("MANIFEST.sig", key.sign("".join(lines).encode()))):
        (folder / name).unlink()
        (folder / name).write_bytes(data)


def _more(folder: Path) -> None:
    shutil.copy(_wheel(folder, "idna"), folder / "wheels" / "idna-99-py3-none-any.whl")


def _link(folder: Path) -> None:
    (folder / "wheels" / "extra").symlink_to("/etc/passwd")


TAMPERING = {
    "a wheel": (lambda folder: _flip(_wheel(folder, "cryptography")), "not those that were signed"),
    "rootward's own wheel": (lambda folder: _flip(_wheel(folder, "rootward")), "not those that were signed"),
    "a missing wheel": (lambda folder: _wheel(folder, "idna").unlink(), "missing"),
    "the requirements": (lambda folder: _flip(folder / "requirements.txt"), "not those that were signed"),
    "the list": (lambda folder: _flip(folder / "MANIFEST"), "is not signed by"),
    "the signature": (lambda folder: _flip(folder / "MANIFEST.sig"), "is not signed by"),
    "no signature": (lambda folder: (folder / "MANIFEST.sig").unlink(), "is not signed by"),
    "everything, signed anew": (_signed_anew, "is not signed by"),
    "one wheel more": (_more, "does not name"),
    "a link": (_link, "does not name"),
}


@pytest.mark.parametrize("what", TAMPERING)
def test_tampering_is_found_and_nothing_is_installed(what: str, bundle: Bundle, scratch: Path) -> None:
    tamper, sentence = TAMPERING[what]
    copy = scratch / "copy"
    shutil.copytree(bundle.folder, copy, copy_function=os.link)
    tamper(copy)
    done = install(copy, scratch / "target", bundle.signer)
    assert done.returncode == 1
    assert sentence in done.stderr
    assert not (scratch / "target").exists()


def test_what_cannot_be_done_is_said(bundle: Bundle, scratch: Path) -> None:
    there = scratch / "there"
    there.mkdir()
    assert "is there already" in install(bundle.folder, there, bundle.signer).stderr
    assert "no public key" in install(bundle.folder, scratch / "new", scratch / "none.pem").stderr
    wrong = install(bundle.folder, scratch / "new", bundle.signer, PYTHON="/bin/false")
    assert "needs Python 3.11, 3.12 or 3.13" in wrong.stderr
    assert not (scratch / "new").exists()
