"""SoftHSM tokens for tests.

SoftHSM reads its configuration, from the environment, when its module is initialized, and sees tokens that come later
only after the next time. So a process has one folder of tokens, all made at once before the module is loaded; a test
takes one, and gives it back empty.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from rootward.keys import KeySettings
from rootward.keys.cryptoki import Token
from rootward.keys.token_uri import parse_token_uri
from tests.support.programs import run

MODULE = Path("/usr/lib/softhsm/libsofthsm2.so")
PIN = "canary-user-pin-7306"
SO_PIN = "canary-so-pin-2219"
_TOKENS = 6


@dataclass(frozen=True)
class SoftToken:
    """A token: its label, its folder on disk, and the environment in which other programs see it."""

    label: str
    folder: Path
    environment: dict[str, str] = field(repr=False)

    @property
    def uri(self) -> str:
        return f"pkcs11:token={self.label}?module-path={MODULE}"

    @property
    def settings(self) -> KeySettings:
        return KeySettings(store=self.label, uri=self.uri, pin=pin)

    def open(self) -> Token:
        """It as the backend sees it, for tests that look at or change its objects."""
        return Token(parse_token_uri(self.uri), pin)

    def empty(self) -> None:
        """Destroy all that is in it."""
        with self.open().session(write=True) as session:
            for one in list(session.open.get_objects()):
                one.destroy()


def pin() -> bytes:
    return PIN.encode()


def make_token(label: str, folder: Path) -> SoftToken:
    """A new token in `folder`, which has its configuration too, for a process that does not run yet."""
    tokens, configuration = folder / "tokens", folder / "softhsm2.conf"
    tokens.mkdir(parents=True, exist_ok=True)
    configuration.write_text(f"directories.tokendir = {tokens}\nobjectstore.backend = file\nlog.level = ERROR\n")
    environment = {"SOFTHSM2_CONF": str(configuration)}
    before = set(tokens.iterdir())
    words = ("--init-token", "--free", "--label", label, "--pin", PIN, "--so-pin", SO_PIN)
    run("softhsm2-util", *words, env=environment)
    (made,) = set(tokens.iterdir()) - before
    return SoftToken(label, made, environment)


@functools.cache
def _spare() -> list[SoftToken]:
    """The tokens of this process that nobody uses now."""
    folder = Path(tempfile.mkdtemp(prefix="softhsm-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    made = [make_token(f"token-{number}", folder) for number in range(_TOKENS)]
    os.environ |= made[0].environment
    return made


@contextlib.contextmanager
def soft_token() -> Iterator[SoftToken]:
    """An empty token of this process."""
    token = _spare().pop()
    try:
        yield token
        token.empty()
    finally:
        _spare().append(token)
