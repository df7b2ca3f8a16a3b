"""Where each key backend finds its keys in a test: `KEYSTORES` has a row for each row of `keys.BACKENDS`.

A row is a context manager: it is given an empty folder of its own, and everything that it made or started is gone when
it ends. What is costly (a service's process, a token's module) it may share between its calls, but never keys: each
call is an empty keystore.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from rootward import keys
from tests.support.fake_aws import SECRET, fake_aws
from tests.support.fake_azure import TOKEN, fake_azure
from tests.support.fake_gcp import fake_gcp
from tests.support.signer import signer_home
from tests.support.softhsm import PIN, SO_PIN, soft_token


@dataclass(frozen=True)
class Keystore:
    """`settings` open it, as often as a test likes, always with the same keys in it where keys outlive a process.
    `secrets` are what must never be seen besides the keys themselves: PINs, tokens, passwords.
    """

    settings: keys.KeySettings
    secrets: tuple[bytes, ...] = field(default=(), repr=False)


Opening = Callable[[Path], contextlib.AbstractContextManager[Keystore]]


@contextlib.contextmanager
def files(folder: Path) -> Iterator[Keystore]:
    keys.create_kek_file(folder / "kek")
    kek = keys.kek_from_file(folder / "kek")
    yield Keystore(keys.KeySettings(folder=folder / "keys", kek=kek), secrets=((folder / "kek").read_bytes().strip(),))


@contextlib.contextmanager
def memory(_folder: Path) -> Iterator[Keystore]:
    yield Keystore(keys.KeySettings())


@contextlib.contextmanager
def token(_folder: Path) -> Iterator[Keystore]:
    with soft_token() as made:
        yield Keystore(made.settings, secrets=(PIN.encode(), SO_PIN.encode()))


@contextlib.contextmanager
def aws(_folder: Path) -> Iterator[Keystore]:
    with fake_aws() as (_, settings):
        yield Keystore(settings, secrets=(SECRET.encode(),))


@contextlib.contextmanager
def gcp(_folder: Path) -> Iterator[Keystore]:
    with fake_gcp() as (_, settings):
        yield Keystore(settings)


@contextlib.contextmanager
def azure(folder: Path) -> Iterator[Keystore]:
    with fake_azure(folder) as (_, settings):
        yield Keystore(settings, secrets=(TOKEN.encode(),))


@contextlib.contextmanager
def signer(folder: Path) -> Iterator[Keystore]:
    """A running signer with one key, `issuing`, that was made on its host."""
    with signer_home(folder) as made:
        made.start()
        secret = (made.home / "kek").read_bytes().strip()
        yield Keystore(keys.KeySettings(store="vault", uri=made.uri), secrets=(secret,))


# Backends that make no keys and sign no bytes: they are asked on what grounds, and decide (`signer`). What else a
# backend promises they promise too.
ASKED = frozenset({"signer"})

KEYSTORES: dict[str, Opening] = {
    "file": files,
    "memory": memory,
    "pkcs11": token,
    "aws-kms": aws,
    "gcp-kms": gcp,
    "azure-kv": azure,
    "signer": signer,
}
