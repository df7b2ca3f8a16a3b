"""The quickstart's own ceremony goes through the same engine, and its root signs again in a later one."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from rootward import home as homes
from rootward import quickstart
from rootward.ca import ceremony, publish
from rootward.config import load_config
from rootward.core import paperwork
from rootward.core.paperwork import Result
from rootward.core.script import read_script
from rootward.core.transcript import verify_result
from tests.support.ceremonies import public_hex
from tests.support.ceremony_room import rootward


@pytest.mark.invariant("I-37")
def test_the_labs_root_signs_its_next_crl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ROOTWARD_DATABASE", "ROOTWARD_HTTPS", "ROOTWARD_HTTP", "ROOTWARD_MTLS"):
        monkeypatch.delenv(name, raising=False)
    config = load_config(tmp_path / "home", {}, {"lab": True, "org": "Test"})
    homes.make_home(config)
    db = homes.open_store(config)
    try:
        asyncio.run(quickstart._found(config, db, []))
        asyncio.run(quickstart._complete(config, db))
        first = paperwork.read((config.home / "ceremony" / "result.json").read_bytes(), Result)
        script, request = (config.home / "ceremony" / name for name in ("script.yaml", "issuing.request"))
        digest = read_script(script.read_bytes()).steps[2].request.sha256  # type: ignore[union-attr]  # it certifies
        found = verify_result(first, script=script.read_bytes(), requests={digest: request.read_bytes()})
        assert [one.name for one in found.signers] == [ceremony.LAB_SIGNER]
        assert found.script.lab

        room = tmp_path / "room"
        room.mkdir()
        (config.home / "offline-root").rename(room / "root")
        rootward(
            room,
            *("ceremony", "plan", "crl.yaml", "--lab", "--crl", "--folder", "root"),
            *("--under", f"root={config.home / 'root.pem'}", "--pki-url", config.pki_url),
            *("--master", f"Ada={public_hex('Ada')}"),
        )
        passphrase = (room / "root" / "passphrase").read_text().strip()
        (room / "answers").write_text(f"+\n+\nyes\n{passphrase}\n+\n\n")
        rootward(room, "ceremony", "run", "crl.yaml", "--out", "out", "--answers", "answers")
        (made,) = (room / "out").glob("*.crl")
        inst = asyncio.run(homes.open_checked(config, db, {}))
        before = asyncio.run(publish.current_crl(inst, "root"))
        assert before is not None
        result = paperwork.read((room / "out" / "result.json").read_bytes(), Result)
        (signed,) = verify_result(result, signatures=0).lists
        assert signed[1] == made.read_bytes()
        assert signed[0].number > before.number
    finally:
        db.close()
