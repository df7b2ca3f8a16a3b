"""The lab's ceremony, in a process of its own that ends before any server starts: `python -m rootward.lab HOME`.

It alone ever opens `offline-root/`. It reads `ceremony/script.json`, makes the root's key there (sealed with a
passphrase in a file beside it), and leaves what is public in `ceremony/`. Everything is made under temporary names;
`ceremony/outcome.json` comes last, so that a ceremony that was cut off is simply held again.
"""

from __future__ import annotations

import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from rootward.ca import ceremony
from rootward.core.problems import Problem
from rootward.keys import BACKENDS, KeySettings, create_passphrase_file, kek_from_passphrase_file
from rootward.keys.disk import replace, write_new

FOLDER = "offline-root"
_NOTE = """This folder is the root of trust of this PKI. It is a lab's: the quickstart made it by itself, unwitnessed.

  keys/            the root's private key, sealed
  passphrase       what unseals it; keep it away from the key from now on
  transcript.json  what was done, signed by a key that was made for this one signature

The server never opens this folder and works without it. Take it away now: copy the folder to two media that you lock up
in two places, the passphrase to a third, and delete it here. You need both again to sign the root's next CRL within a
year, and to certify another issuing authority.
"""


def hold(home: Path) -> None:
    """Hold the ceremony for `home`. Problem where a step is refused; then nothing that counts was made."""
    public, final, making = home / "ceremony", home / FOLDER, home / f"{FOLDER}.making"
    if (public / "outcome.json").exists():
        raise Problem("RW-CEREMONY", "The ceremony of this home was held already.")
    for leftover in (making, final):
        # Without an outcome nothing was ever signed with the key in there that left this process.
        if leftover.exists():
            shutil.rmtree(leftover)
    began_at = datetime.now(UTC)
    script_bytes = (public / "script.json").read_bytes()
    script = ceremony.read_script(script_bytes)
    making.mkdir(mode=0o700)
    create_passphrase_file(making / "passphrase")
    kek = kek_from_passphrase_file(making / "passphrase")
    backend = BACKENDS["file"](KeySettings(folder=making / "keys", kek=kek))
    key = backend.generate(script.root.name, script.root.key_algorithm)
    outcome = ceremony.perform(script, key)
    record = ceremony.transcript(script_bytes, outcome, began_at=began_at, ended_at=datetime.now(UTC))
    signed = ceremony.signed_transcript(record, Ed25519PrivateKey.generate())
    write_new(making / "script.json", script_bytes, mode=0o400)
    write_new(making / "transcript.json", signed, mode=0o400)
    write_new(making / "README.txt", _NOTE.encode(), mode=0o400)
    making.rename(final)
    replace(public / "transcript.json", signed, mode=0o644)
    replace(public / "outcome.json", msgspec.json.encode(outcome), mode=0o644)


def main(arguments: list[str]) -> int:
    """The process's entry; says what was wrong on standard error."""
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
