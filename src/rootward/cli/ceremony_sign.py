"""Participants' own keys, and signatures under transcripts: from a key file, or a token by its PKCS#11 URI. Who signs
after the ceremony first shows that the transcript is the one of their paper.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from secrets import randbelow

from rootward.cli import screen
from rootward.cli.talk import Talk, line, read_back, show_hash
from rootward.core.minutes import Signature
from rootward.core.participants import Role
from rootward.core.transcript import Verified
from rootward.keys import kek_from_passphrase
from rootward.keys.participant import open_key_file, sign_transcript

Signer = Callable[[str, str, Role], Signature]


def open_signer(where: str, secret: Callable[[str], str]) -> Signer:
    """What signs a transcript (its text) for a name and role with the key at `where`: a file, or a pkcs11: URI.

    `secret` asks for the passphrase or PIN. Problem for a key that is not there, does not open, or cannot sign.
    """
    if where.lower().startswith("pkcs11:"):
        from rootward.keys.participant_token import sign_in_token

        pin = secret("The token's PIN:")
        return lambda transcript, name, role: sign_in_token(where, pin, transcript, name=name, role=role)
    private = open_key_file(Path(where), kek_from_passphrase(secret("The key's passphrase:")))
    return lambda transcript, name, role: sign_transcript(private, transcript, name=name, role=role)


def compare(talk: Talk, name: str, found: Verified) -> None:
    """Show what would be signed, beside the participant's own paper; Failure where that has another hash.

    The group of the transcript's hash that is asked for is a random one, and asked before the screen shows it: a result
    of another ceremony, with the same people in it, is told by that alone.
    """
    line(talk, f" {screen.safe(found.script.title)}")
    if found.script.lab:
        talk.say("It is of a LAB: nobody watched, nothing in it should be trusted.")
    held = found.transcript
    talk.say(f"Held {held.began_at:%Y-%m-%d %H:%M} to {held.ended_at:%H:%M} UTC. It made:")
    for one in held.outputs:
        talk.say(f"  {screen.safe(one.name)}")
    talk.say("The script's SHA-256. Compare all of it with your paper:")
    show_hash(talk, held.script)
    talk.say()
    talk.say("You sign the transcript, whose SHA-256 you wrote down at the end of the ceremony.")
    read_back(talk, f"{screen.safe(name)}, from your paper", found.sha256, randbelow(16))
    talk.say("All of it. Ctrl-C ends this without a signature:")
    show_hash(talk, found.sha256)
