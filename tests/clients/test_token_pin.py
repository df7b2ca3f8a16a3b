"""A token's PIN, changed as a change of custodians does it; SoftHSM in processes of its own, as it is read once."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.support.programs import run

MODULE = "/usr/lib/softhsm/libsofthsm2.so"
_CHANGE = """
import sys
from pathlib import Path
from rootward.keys import quorum, kek_from_bytes
from rootward.keys.token_pin import set_token_pin, token_pin_works

module, token, path, pin = sys.argv[1], "root", Path(sys.argv[2]), b"123456"
old, new = kek_from_bytes(b"1" * 64, "old"), kek_from_bytes(b"2" * 64, "new")
path.write_bytes(quorum.seal_pin(pin, old, name="root"))
path.chmod(0o600)
change = lambda old, new: set_token_pin(module, token, old, new)
quorum.change_pin(path, name="root", old=old, new=new, set_pin=change)
fresh = quorum.unseal_pin(path.read_bytes(), new, name="root")
assert token_pin_works(module, token, fresh)
assert not token_pin_works(module, token, pin)
for was, to in ((pin, b"654321"), (fresh, b"1")):
    try:
        set_token_pin(module, token, was, to)
    except Exception as error:
        print(error)
assert token_pin_works(module, token, fresh)
try:
    token_pin_works(module, "none", fresh)
except Exception as error:
    print(error)
"""


@pytest.fixture
def settings(tmp_path: Path) -> dict[str, str]:
    """A token `root` with the PIN 123456, by the environment of those who use it."""
    (tmp_path / "tokens").mkdir()
    (tmp_path / "softhsm2.conf").write_text(f"directories.tokendir = {tmp_path}/tokens\nlog.level = ERROR\n")
    env = {"SOFTHSM2_CONF": str(tmp_path / "softhsm2.conf")}
    run(
        "softhsm2-util", "--init-token", "--free", "--label", "root", "--so-pin", "87654321", "--pin", "123456", env=env
    )
    return env


def test_the_old_pin_opens_nothing_any_more(tmp_path: Path, settings: dict[str, str]) -> None:
    done = run(sys.executable, "-c", _CHANGE, MODULE, tmp_path / "root.pin", env=settings)
    assert done.stdout.splitlines() == [
        'RW-KEK: The token "root" refuses its old PIN (PinIncorrect).',
        'RW-KEK: The token "root" refuses the new PIN (PinLenRange).',
        'RW-KEY-UNAVAILABLE: There is no token "none".',
    ]


def test_a_library_that_does_not_load_is_named(tmp_path: Path) -> None:
    script = "import sys; from rootward.keys.token_pin import token_pin_works as w; w(sys.argv[1], 'root', b'1234')"
    done = run(sys.executable, "-c", script, tmp_path / "none.so", codes=(1,))
    assert "RW-CONFIG" in done.stderr
    assert "cannot be loaded" in done.stderr
