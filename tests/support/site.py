"""A real installation for tests, from its empty home on: its command line, its server, and a ceremony room whose keys
are in this process. Scripts come from `rootward ceremony plan`; two witnesses sign each transcript.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from rootward.ca import ceremony
from rootward.cli.software import software
from rootward.core import paperwork
from rootward.core.minutes import Attendance
from rootward.core.script import inputs_of, read_script, sha256_of
from rootward.core.times import rfc3339
from rootward.core.transcript import verify_result
from rootward.keys.participant import sign_transcript
from tests.support.ceremonies import MemoryKeys
from tests.support.programs import Done, environment, run
from tests.support.server import Server

COMMAND = (sys.executable, "-m", "rootward")


class Serving(Server):
    """`rootward serve` in a home that was made before, with the addresses that are in its settings."""

    def start(self, **environ: str) -> None:
        self._arguments = ()
        self.program = (sys.executable, "-c", _SERVE, *COMMAND[1:])
        super().start(**environ)


# The support class asks for a quickstart with its addresses; what is left of that here is `serve`.
_SERVE = "import sys; from rootward.cli import main; sys.argv[1:] = ['serve', '--home', sys.argv[5]]; main()"


@dataclass
class Site:
    """`folder` has the home (`home`) and whatever travels."""

    folder: Path
    keys: MemoryKeys = field(default_factory=MemoryKeys)
    people: dict[str, Ed25519PrivateKey] = field(
        default_factory=lambda: {name: Ed25519PrivateKey.generate() for name in ("Anna", "Ben")}
    )
    server: Server | None = None

    @property
    def home(self) -> Path:
        return self.folder / "home"

    def __call__(self, *words: str | Path, code: int = 0) -> Done:
        """The command line about this home."""
        url = [] if self.server is None else ["--url", self.server.url]
        return run(*COMMAND, "--home", self.home, *url, *words, codes=(code,), cwd=self.folder)

    def init(self, *words: str) -> None:
        """An empty home whose server will listen on free ports of its own."""
        server = Serving(self.home)
        ports = {f"ROOTWARD_{door.upper()}": f"127.0.0.1:{port}" for door, port in server.ports.items()}
        pki = f"http://localhost:{server.ports['http']}"
        command = [*COMMAND, "init", "--home", str(self.home), "--org", "Example", "--pki-url", pki, *words]
        subprocess.run(command, check=True, capture_output=True, env=environment(ports))
        self._next = server

    @contextlib.contextmanager
    def serving(self) -> Iterator[Server]:
        """Its server, until the end of the block."""
        with self._next as server:
            self.server = server
            try:
                yield server
            finally:
                self.server = None

    @property
    def pki(self) -> str:
        """Its `pki_url`."""
        return self._next.pki

    def plan(self, name: str, *words: str | Path) -> Path:
        """A script in which the two witnesses take part."""
        master, *others = hexes(self.people)
        who = [f"--master={master}", *(f"--witness={one}" for one in others)]
        at = rfc3339(datetime.now(UTC))
        run(*COMMAND, "ceremony", "plan", f"{name}.yaml", "--at", at, *who, *words, cwd=self.folder)
        return self.folder / f"{name}.yaml"

    def hold(self, script_file: Path, *, signers: tuple[str, ...] = ("Anna", "Ben")) -> Path:
        """Carry it out; the result file."""
        data, clock = script_file.read_bytes(), lambda: datetime.now(UTC)
        script = read_script(data)
        files = {sha256_of(one): one for one in ((self.folder / of.file).read_bytes() for of in inputs_of(script))}
        began = clock()
        done = tuple(ceremony.perform(script, self.keys, files, clock=clock))
        present = tuple(Attendance(one.name, one.role, began, "nothing: a test") for one in script.participants)
        room = ceremony.Room(software(), ("a test",), present, began)
        result = ceremony.result(data, script, done, room, ended_at=clock())
        roles = {one.name: one.role for one in script.participants}
        for name in signers:
            signature = sign_transcript(self.people[name], result.transcript, name=name, role=roles[name])
            result = ceremony.signed(result, signature)
        if len(signers) > 1:
            verify_result(result, script=data, requests=files)
        out = script_file.with_suffix(".result.json")
        out.write_bytes(paperwork.write(result))
        return out


def hexes(people: dict[str, Ed25519PrivateKey]) -> list[str]:
    """Each as `NAME=KEY`, as scripts are planned with."""
    return [f"{name}={_hex(key)}" for name, key in people.items()]


def _hex(key: Ed25519PrivateKey) -> str:
    return key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex()
