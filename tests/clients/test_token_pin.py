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
from rootward.core.problems import Problem
from rootward.keys import quorum, kek_from_bytes
from rootward.keys.participant_token import pin_works, set_pin

uri, path, pin = f"pkcs11:token=root?module-path={sys.argv[1]}", Path(sys.argv[2]), b"123456"
old, new = kek_from_bytes(b"1" * 64, "old"), kek_from_bytes(b"2" * 64, "new")
path.write_bytes(quorum.seal_pin(pin, old, name="root"))
path.chmod(0o600)

def change(pin=None):
    quorum.change_pin(
        path, name="root", old=old, new=new, pin=pin,
        set_pin=lambda was, to: set_pin(uri, was, to), works=lambda pin: pin_works(uri, pin)
    )

try:
    change(b"1")
except Problem as problem:
    print(problem.detail)
assert pin_works(uri, pin)
change()
fresh = quorum.read_pin(path, new, name="root")
assert pin_works(uri, fresh)
assert not pin_works(uri, pin)
print(sorted(each.name for each in path.parent.glob("root.pin*")))
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
    """A PIN that the token refuses changes nothing, and the next try goes on with the old shares."""
    done = run(sys.executable, "-c", _CHANGE, MODULE, tmp_path / "root.pin", env=settings)
    assert done.stdout.splitlines() == ["The token refused: PinLenRange.", "['root.pin']"]
