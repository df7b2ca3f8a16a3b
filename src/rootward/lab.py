"""The lab's ceremony, in a process of its own that ends before any server starts: `python -m rootward.lab HOME`.

It alone ever opens `offline-root/`. It reads `ceremony/script.yaml` and the request that this names, makes the root's
key (sealed with a passphrase in a file beside it), and leaves what is public in `ceremony/`. Everything is made under
temporary names; `ceremony/result.json` comes last, so that a ceremony that was cut off is simply held again.
"""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from rootward import kernel
from rootward.ca import ceremony
from rootward.cli.software import software
from rootward.core import paperwork
from rootward.core.minutes import Attendance
from rootward.core.problems import Problem
from rootward.core.pubkey import KeyAlgorithm, PublicKey
from rootward.core.script import inputs_of, read_script, sha256_of
from rootward.core.transcript import verify_result
from rootward.keys import BACKENDS, Backend, Key, KeySettings, create_passphrase_file, kek_from_passphrase_file
from rootward.keys.disk import replace, write_new
from rootward.keys.participant import sign_transcript

FOLDER = "offline-root"
_NOTE = """This folder is the root of trust of this PKI. It is a lab's: the quickstart made it by itself, unwitnessed.

  keys/            the root's private key, sealed
  passphrase       what unseals it; keep it away from the key from now on
  script.yaml      what was decided
  transcript.json  what was done
  result.json      both, what came of it, and a signature under it by a key that was made for this one signature

The server never opens this folder and works without it. Take it away now: copy the folder to two media that you lock up
in two places, the passphrase to a third, and delete it here. You need both again to sign the root's next CRL within a
year, and to certify another issuing authority.
"""


@dataclass(frozen=True)
class _Files(ceremony.Keys):
    """The root's key in its folder."""

    backend: Backend

    def make(self, name: str, algorithm: KeyAlgorithm) -> Key:
        return self.backend.generate(name, algorithm)

    def open(self, name: str, public: PublicKey) -> Key:
        return self.backend.load(name, public.id)

    def care(self, step: ceremony.Care, public: PublicKey | None) -> tuple[str, ...]:
        raise Problem("RW-CEREMONY", f"A lab's own ceremony has no step {type(step).__name__}.")


def hold(home: Path) -> None:
    """Hold the ceremony for `home`. Problem where a step is refused; then nothing that counts was made."""
    public, final, making = home / "ceremony", home / FOLDER, home / f"{FOLDER}.making"
    if (public / "result.json").exists():
        raise Problem("RW-CEREMONY", "The ceremony of this home was held already.")
    for leftover in (making, final):
        # Without a result nothing was ever signed with the key in there that left this process.
        if leftover.exists():
            shutil.rmtree(leftover)
    began_at = datetime.now(UTC)
    script_bytes = (public / "script.yaml").read_bytes()
    script = read_script(script_bytes)
    files = {sha256_of(data): data for data in ((public / one.file).read_bytes() for one in inputs_of(script))}
    making.mkdir(mode=0o700)
    create_passphrase_file(making / "passphrase")
    kek = kek_from_passphrase_file(making / "passphrase")
    backend = BACKENDS["file"](KeySettings(folder=making / "keys", kek=kek))
    done = tuple(ceremony.perform(script, _Files(backend), files, clock=lambda: datetime.now(UTC)))
    itself = script.participants[0]
    present = Attendance(itself.name, itself.role, began_at, "nothing: nobody was asked")
    room = ceremony.Room(software(), ("a lab: network and clock were not looked at",), (present,), began_at)
    unsigned = ceremony.result(script_bytes, script, done, room, ended_at=datetime.now(UTC))
    signature = sign_transcript(Ed25519PrivateKey.generate(), unsigned.transcript, name=itself.name, role=itself.role)
    result = ceremony.signed(unsigned, signature)
    verify_result(result, script=script_bytes, requests=files)
    write_new(making / "script.yaml", script_bytes, mode=0o400)
    write_new(making / "transcript.json", result.transcript.encode(), mode=0o400)
    write_new(making / "result.json", paperwork.write(result), mode=0o400)
    write_new(making / "README.txt", _NOTE.encode(), mode=0o400)
    making.rename(final)
    replace(public / "result.json", paperwork.write(result), mode=0o644)


def main(arguments: list[str]) -> int:
    """The process's entry; says what was wrong on standard error."""
    kernel.keep_to_itself()
    if len(arguments) != 1:
        print("usage: python -m rootward.lab HOME", file=sys.stderr)  # noqa: T201  # a process that only its parent starts
        return 2
    try:
        hold(Path(arguments[0]))
    except Problem as problem:
        print(problem.detail, file=sys.stderr)  # noqa: T201  # as above
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
