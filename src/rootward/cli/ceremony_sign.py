"""Participants' own keys, and signatures under transcripts: from a key file, or a token by its PKCS#11 URI."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rootward.core.minutes import Signature
from rootward.core.participants import Role
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
