"""A restored installation goes on serving the ACME clients of the old one: their accounts, and the bindings that were
handed out; with the KEK that is in the backup. No nonce of before is good there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from rootward.ca import bindings
from tests.support.acme import Client, Wire, bound, flattened, jwk_of
from tests.support.backup import Backed, Maker, put_back
from tests.support.postgres import Postgres
from tests.support.store import DIALECTS


@pytest.fixture(params=DIALECTS)
def home(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, postgres: Postgres
) -> Iterator[Backed]:
    """A whole home, once on each dialect."""
    with Maker(tmp_path_factory.mktemp("made"), postgres).home(request.param, tmp_path / "home") as made:
        yield made


@pytest.mark.invariant("I-47")
async def test_clients_go_on_after_a_restore(home: Backed, tmp_path: Path) -> None:
    async with home.serving() as made:
        ann = Client(Wire.of(made.inst))
        assert (await ann.register()).status == 201
        used = await ann.nonce()
        assert (await ann.post(ann.kid or "", header={"nonce": used})).status == 200
        late, waiting = await ann.nonce(), (await ann.get("new-nonce")).headers["replay-nonce"]
        binding, secret = await bindings.create(
            made.inst,
            profile="server",
            owner="shop",
            names=(),
            preauthorized=(),
            uses=1,
            lifetime=timedelta(days=1),
            caller=made.admin,
        )
        assert secret.hex() not in str(home.rows())
    home.backup(tmp_path / "x.backup")
    async with home.serving() as made:
        ann.wire = Wire.of(made.inst)
        order = await ann.header(ann.path("new-order"), {"nonce": late})
        raw = json.dumps(flattened(ann.key, order, {"identifiers": [{"type": "dns", "value": "a.internal"}]})).encode()
        assert (await ann.post("new-order", raw=raw)).status == 201
    there, _ = put_back(tmp_path / "x.backup", tmp_path / "restored", "sqlite")
    async with there.serving() as made:
        ann.wire = Wire.of(made.inst)
        assert (await ann.post(ann.kid or "", header={"nonce": used})).problem == "badNonce"
        assert (await ann.post("new-order", raw=raw)).problem == "badNonce"  # once, although the backup is older
        refused = await ann.post(ann.kid or "", header={"nonce": waiting})
        assert refused.problem == "badNonce"
        assert (await ann.post(ann.kid or "", header={"nonce": refused.headers["replay-nonce"]})).status == 200
        bob = Client(ann.wire)
        eab = bound(binding.id, secret, jwk_of(bob.key), bob.path("new-account"))
        assert (await bob.register(externalAccountBinding=eab)).status == 201
