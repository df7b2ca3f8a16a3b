"""Secrets that lie in the store: only the right KEK opens them, for the right purpose, unchanged."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootward.core.problems import Problem
from rootward.keys import Argon2, Sealer, kek_from_bytes, kek_from_passphrase

ONE = Sealer(kek_from_bytes(b"0" * 64, "one"))
OTHER = Sealer(kek_from_bytes(b"1" * 64, "other"))


@given(st.binary(max_size=100))
def test_there_and_back(secret: bytes) -> None:
    sealed = ONE.seal(secret, purpose="a test")
    assert ONE.unseal(sealed, purpose="a test") == secret
    assert len(secret) < 8 or secret not in sealed.partition(b"\n")[2]
    assert ONE.seal(secret, purpose="a test") != sealed


def test_by_a_passphrase() -> None:
    sealer = Sealer(kek_from_passphrase("correct horse battery", Argon2(memory_kib=8 * 1024, passes=1, lanes=1)))
    assert sealer.unseal(sealer.seal(b"secret", purpose="p"), purpose="p") == b"secret"
    with pytest.raises(Problem, match="RW-KEK"):
        ONE.unseal(sealer.seal(b"secret", purpose="p"), purpose="p")


@pytest.mark.parametrize(("sealer", "purpose"), [(OTHER, "a test"), (ONE, "another"), (ONE, ""), (Sealer(), "a test")])
def test_what_does_not_open_it(sealer: Sealer, purpose: str) -> None:
    with pytest.raises(Problem, match="RW-KEK"):
        sealer.unseal(ONE.seal(b"secret", purpose="a test"), purpose=purpose)


def test_without_a_kek_nothing_is_sealed() -> None:
    with pytest.raises(Problem, match="RW-KEK"):
        Sealer().seal(b"secret", purpose="a test")


def test_no_octet_can_be_changed() -> None:
    sealed = ONE.seal(b"secret", purpose="a test")
    for at in range(len(sealed)):
        with pytest.raises(Problem, match="RW-KEK"):
            ONE.unseal(sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :], purpose="a test")
    for cut in (b"", sealed[:-1], sealed + b"\0", sealed.partition(b"\n")[0], b"\n" + sealed):
        with pytest.raises(Problem, match="RW-KEK"):
            ONE.unseal(cut, purpose="a test")


@given(st.binary(max_size=200))
def test_whatever_bytes_there_are(data: bytes) -> None:
    with pytest.raises(Problem, match="RW-KEK"):
        ONE.unseal(data, purpose="a test")
