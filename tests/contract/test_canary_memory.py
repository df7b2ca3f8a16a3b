"""What is in the memory of a serving process, and that nobody gets it by a core (I-35).

With the authority's key in a signer the web process has neither the key nor what opens it: looked for in every readable
page, and in the image that gcore(1) makes. With a key in a token no more is claimed than that the security officer's
PIN is nowhere: the user's PIN is needed for each login, and a token in software has its keys in the process that loads
its module.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from rootward.ca.founding import first_profiles
from rootward.core import paperwork
from rootward.core.paperwork import Result
from rootward.keys import BACKENDS, KeySettings, kek_from_file
from rootward.signer import home as homes
from rootward.signer.settings import read_settings
from tests.support.canary import Needles, core_limit, files, in_image, in_memory, leaks, private_octets
from tests.support.programs import run
from tests.support.server import Server
from tests.support.signer import Process, signer_home
from tests.support.site import Site
from tests.support.softhsm import PIN, SO_PIN, make_token

THEIRS = {"the signer's kek", "the signer's key issuing"}
OURS = {"our own kek", "our own key ocsp-issuing", "our own key rootward-tls", "our own key log"}
NOT_CLAIMED = {"the token's PIN", "the admin's token"}  # they come and go: with each login, with each request

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root looks into a process that keeps to itself")


@dataclass
class Served:
    """A real installation whose issuing key is in a signer, with a second authority that waits with its key in a token;
    the pid of its web process.
    """

    site: Site
    signer: Process
    pid: int


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("memory")
    token = make_token("hsm", folder / "token")
    with signer_home(folder) as signer, pytest.MonkeyPatch.context() as patch:
        signer.start()
        patch.setenv("SOFTHSM2_CONF", token.environment["SOFTHSM2_CONF"])
        site = Site(folder / "site")
        site.folder.mkdir()
        site.init()
        (site.home / "hsm.pin").write_text(PIN)
        (site.home / "hsm.pin").chmod(0o600)
        with (site.home / "rootward.toml").open("a") as settings:
            settings.write(f'\n[keys.vault]\nbackend = "signer"\nuri = "{signer.uri}"\n')
            settings.write(f'\n[keys.hsm]\nbackend = "pkcs11"\nuri = "{token.uri}"\npin = "file:hsm.pin"\n')
        site("ca", "create", "issuing", "--parent", "root", "--key-store", "vault")
        script = site.plan("first", "--root", "root", "--org", "Example", "--request", "issuing-request.json", "--crl")
        result = site.hold(script)
        made = {one.authority: one.certificate for one in paperwork.read(result.read_bytes(), Result).certificates}
        homes.install(read_settings(signer.home), "issuing", (made["issuing"] + made["root"]).encode(), site.pki)
        for profile in first_profiles("issuing"):
            signer.accept(profile, 1)
        site("ceremony", "import", result)
        with site.serving() as server:
            assert server.process is not None
            site("cert", "issue", "--profile", "server", "--name", "a.internal", "--out", "a")
            site("ca", "create", "tokened", "--parent", "root", "--key-store", "hsm")
            yield Served(site, signer, server.process.pid)


@pytest.fixture(scope="module")
def needles(served: Served) -> Needles:
    """What a web process must not have, and what it has: `our own …`."""
    made = Needles()
    for whose, home in (("the signer's", served.signer.home), ("our own", served.site.home)):
        kek = kek_from_file(home / "kek")
        made.add(f"{whose} kek", bytes.fromhex((home / "kek").read_text()))
        backend = BACKENDS["file"](KeySettings(folder=home / "keys", kek=kek))
        for label, key_id in backend.list():
            made.add(f"{whose} key {label}", *private_octets(backend.load(label, key_id)._private))
    made.add("the security officer's PIN", SO_PIN)
    made.add("the token's PIN", PIN)
    made.add("the admin's token", (served.site.home / "admin.token").read_text().strip())
    return made


@root_only
@pytest.mark.invariant("I-35")
def test_the_web_process_has_neither_the_key_nor_what_opens_it(served: Served, needles: Needles) -> None:
    assert in_memory(served.pid, _claimed(needles)) == OURS
    assert served.signer.process is not None
    assert in_memory(served.signer.process.pid, _claimed(needles)) == THEIRS


@root_only
@pytest.mark.skipif(shutil.which("gcore") is None, reason="gcore is not here")
@pytest.mark.invariant("I-35")
def test_nor_has_an_image_of_it(served: Served, needles: Needles, tmp_path: Path) -> None:
    run("gcore", "-o", tmp_path / "image", str(served.pid))
    image = tmp_path / f"image.{served.pid}"
    found = in_image(image, _claimed(needles))
    image.unlink()  # it is large
    assert found == OURS


def _claimed(needles: Needles) -> Needles:
    """What is surely in one of the two processes, or surely not."""
    assert needles.keys() >= OURS | THEIRS | NOT_CLAIMED
    return Needles({name: forms for name, forms in needles.items() if name not in NOT_CLAIMED})


@pytest.mark.invariant("I-35")
def test_no_file_of_either_home_has_them(served: Served, needles: Needles) -> None:
    site, signer = served.site, served.signer
    artefacts = files(site.folder) | files(signer.home, prefix="signer/") | files(site.folder.parent / "token")
    artefacts["signer.log"] = signer.log.encode()
    places = {
        "the signer's kek": ["signer/kek"],
        "our own kek": ["home/kek"],
        "the token's PIN": ["home/hsm.pin"],
        "the admin's token": ["home/admin.token"],
    }
    assert leaks(needles, artefacts, places) == set()


# Cores

HARD = resource.getrlimit(resource.RLIMIT_CORE)[1]
CORES = ("prlimit", f"--core={HARD}:{HARD}" if HARD != resource.RLIM_INFINITY else "--core=unlimited:unlimited")


@pytest.fixture(scope="module")
def cores(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A process that is killed leaves a core on this machine; without that a test here could not fail."""
    folder = tmp_path_factory.mktemp("cores")
    waits = subprocess.Popen([*CORES, sys.executable, "-c", _WAITS], cwd=folder, stdout=subprocess.PIPE)
    assert waits.stdout is not None
    waits.stdout.readline()
    if not _dumps(waits, signal.SIGABRT):
        pytest.skip("no process of this machine leaves a core")


_WAITS = "import signal; print(flush=True); signal.pause()"


def _dumps(process: subprocess.Popen[bytes] | subprocess.Popen[str], number: int) -> bool:
    """Whether it leaves a core when it gets the signal, in a file or for a program: the kernel's own word."""
    process.send_signal(number)
    ended = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert ended is not None
    assert ended.si_code in (os.CLD_KILLED, os.CLD_DUMPED)
    process.communicate()
    assert process.returncode == -number
    return ended.si_code == os.CLD_DUMPED


@pytest.mark.invariant("I-35")
@pytest.mark.usefixtures("cores")
@pytest.mark.parametrize("number", [signal.SIGABRT, signal.SIGSEGV])
def test_a_signer_leaves_no_core(tmp_path: Path, number: signal.Signals) -> None:
    with signer_home(tmp_path) as signer:
        signer.start(prefix=CORES)
        assert signer.process is not None
        assert not _dumps(signer.process, number)
        signer.process = None


@pytest.mark.invariant("I-35")
@pytest.mark.usefixtures("cores")
def test_a_server_leaves_no_core(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    server = Server(tmp_path / "home")
    server.program = (*CORES, *Server.program)
    server.start()
    assert server.process is not None
    assert core_limit(server.process.pid) == ["0", "0"]
    assert not _dumps(server.process, signal.SIGSEGV)
    assert not list(tmp_path.glob("*core*"))


@pytest.mark.invariant("I-35")
@pytest.mark.usefixtures("cores")
@pytest.mark.parametrize(
    ("words", "first"),
    [
        (("rootward", "ceremony", "run", "script.yaml", "--out", "out", "--answers", "answers"), "script.yaml"),
        (("rootward.lab", "."), "ceremony/script.yaml"),
    ],
    ids=["ceremony run", "lab"],
)
def test_what_else_has_secrets_leaves_no_core(tmp_path: Path, words: tuple[str, ...], first: str) -> None:
    """Killed at the first file that it opens, which never comes: before it has any secret."""
    (tmp_path / first).parent.mkdir(exist_ok=True)
    os.mkfifo(tmp_path / first, 0o600)
    process = subprocess.Popen([*CORES, sys.executable, "-m", *words], cwd=tmp_path, stdout=subprocess.DEVNULL)
    handle = os.open(tmp_path / first, os.O_WRONLY)  # waits until it reads
    try:
        assert core_limit(process.pid) == ["0", "0"]
        assert not _dumps(process, signal.SIGABRT)
        assert not list(tmp_path.glob("*core*"))
    finally:
        os.close(handle)
