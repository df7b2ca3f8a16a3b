"""No secret in what a ceremony leaves (I-35): its result, transcript and screen, the media with shares and sealed keys,
the token's own files, and what the kernel was told of each process.

Secrets: the root's private key, the wrapping key of its custodians, each share's value, all passphrases, the key of a
participant, and the PINs of a token: the one that was typed, and the one that only the custodians can unseal.
"""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from rootward.core.script import FileKey, Participant, Script, TokenKey
from rootward.keys import BACKENDS, Kek, KeySettings, kek_from_passphrase
from rootward.keys.participant import open_key_file
from rootward.keys.quorum import open_quorum, open_share, read_pin
from tests.support.canary import Needles, files, leaks, private_octets, started, traced
from tests.support.ceremony_room import ROOTWARD, change, room
from tests.support.softhsm import PIN, SO_PIN, make_token

HOLDERS = {name: f"the passphrase of {name}" for name in ("Cyd", "Dan", "Eli")}
ADA = "the key of Ada"


@dataclass
class Left:
    """A folder in which a ceremony was held, and what else it left."""

    folder: Path
    script: Script
    screens: dict[str, bytes]

    @property
    def artefacts(self) -> dict[str, bytes]:
        """All of it but the answers, which are what people typed."""
        found = files(self.folder) | self.screens | {"started": started(self.folder.parent / "started")}
        return {name: data for name, data in found.items() if name != "answers"}

    def custodians(self, needles: Needles) -> Kek:
        """The wrapping key, by the shares that were made last; the ceremony that failed before had a set too."""
        paths = sorted((self.folder / "shares").iterdir(), key=lambda path: path.stat().st_mtime_ns)
        shares = []
        for path, (name, passphrase) in zip(paths[-len(HOLDERS) :], HOLDERS.items(), strict=True):
            shares.append(open_share(path.read_bytes(), passphrase))
            needles.add(f"the share of {name}", shares[-1].value)
            needles.add(f"the passphrase of {name}", passphrase)
        kek = open_quorum(shares[1:])
        needles.add("the wrapping key", kek._secret)  # type: ignore[attr-defined]  # its own kind
        return kek


def hold(folder: Path, place: FileKey | TokenKey, *typed: str, environ: dict[str, str]) -> Left:
    """A lab's ceremony with this place of the root's key: once with a mistake in the last of the secrets that are
    `typed` in its first step, and once whole.
    """
    folder.mkdir()

    def edit(script: Script) -> Script:
        people = (*script.participants, *(Participant(name, "custodian") for name in HOLDERS))
        return change(script, participants=people, keys={"root": place})

    script = room(folder, lab=True, edit=edit)
    here = ["+", "+"] * len(script.participants)
    signs = ["Ada.key", ADA, *[""] * (len(script.participants) - 1)]
    screens = {}
    command = [*traced(folder.parent / "started"), *ROOTWARD, "ceremony", "run", "script.yaml", "--out", "out"]
    for name, secrets, last, code in (
        ("wrong", [*typed[:-1], f"not {typed[-1]}"], [], 1),
        ("right", typed, signs, 0),
    ):
        (folder / "answers").write_text("\n".join([*here, "yes", *secrets, "+", *["yes", "+"] * 3, *last]) + "\n")
        done = subprocess.run(
            [*command, "--answers", "answers"],
            cwd=folder,
            env=os.environ | environ | {"ROOTWARD_DEBUG": "1"},
            capture_output=True,
            check=False,
        )
        assert done.returncode == code, (done.stdout + done.stderr).decode()
        screens[f"screen {name}"] = done.stdout + done.stderr
    return Left(folder, script, screens)


def add_ada(left: Left, needles: Needles) -> None:
    needles.add("Ada's passphrase", ADA)
    private = open_key_file((left.folder / "Ada.key"), kek_from_passphrase(ADA))
    assert isinstance(private, Ed25519PrivateKey)
    needles.add("Ada's key", *private_octets(private))


@pytest.mark.invariant("I-35", "I-39")
def test_a_ceremony_with_custodians_leaves_no_secret(tmp_path: Path) -> None:
    chosen = [text for secret in HOLDERS.values() for text in (secret, secret)]
    left = hold(tmp_path / "room", FileKey("root-key", tuple(HOLDERS), 2), *chosen, environ={})
    needles = Needles()
    kek = left.custodians(needles)
    backend = BACKENDS["file"](KeySettings(folder=left.folder / "root-key" / "keys", kek=kek))
    ((label, key_id),) = backend.list()
    needles.add("the root's key", *private_octets(backend.load(label, key_id)._private))
    add_ada(left, needles)
    assert {"out/result.json", "screen right", "screen wrong", "started"} <= left.artefacts.keys()
    assert leaks(needles, left.artefacts) == set()
    answers = needles.within((left.folder / "answers").read_bytes())
    assert answers == {"Ada's passphrase", *(f"the passphrase of {name}" for name in HOLDERS)}


@pytest.mark.invariant("I-35", "I-39")
def test_a_ceremony_with_a_token_leaves_no_pin(tmp_path: Path) -> None:
    """The PIN that was typed, and the new one that the token has now: nobody has ever seen it."""
    token = make_token("root", tmp_path / "hsm")
    chosen = [text for secret in HOLDERS.values() for text in (secret, secret)]
    place = TokenKey(token.uri, "root-pin", tuple(HOLDERS), 2)
    left = hold(tmp_path / "room", place, PIN, *chosen, environ=token.environment)
    needles = Needles()
    kek = left.custodians(needles)
    needles.add("the new PIN", read_pin(left.folder / "root-pin" / "pin", kek, name="root"))
    needles.add("the PIN", PIN)
    needles.add("the security officer's PIN", SO_PIN)
    add_ada(left, needles)
    artefacts = left.artefacts | files(tmp_path / "hsm", prefix="hsm/")
    assert {"root-pin/pin", "out/result.json", "hsm/softhsm2.conf"} <= artefacts.keys()
    assert leaks(needles, artefacts) == set()
    assert {"the PIN", "Ada's passphrase"} <= needles.within((left.folder / "answers").read_bytes())
