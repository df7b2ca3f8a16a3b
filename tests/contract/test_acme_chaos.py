"""The test mode of the ACME door: it refuses good nonces, and never the one that a client then tries again with."""

from __future__ import annotations

import secrets

from rootward.protocols.acme.app import Settings
from tests.support.acme import Client, Wire
from tests.support.world import World


async def test_a_good_nonce_is_refused_and_the_next_one_taken(lab: World) -> None:
    """RFC 8555 6.5: a refusal has a nonce "that the server will accept in a retry of the original query"."""
    lab.inst.random = lambda size: b"\0" + secrets.token_bytes(size - 1)  # what is handed out is to be refused
    client = Client(Wire.of(lab.inst, Settings(chaos=True)))
    made = await client.register()  # with one that it asked for
    assert made.status == 201
    for _ in range(3):
        assert (await client.post(client.kid or "")).problem == "badNonce"
        assert (await client.post(client.kid or "")).status == 200
    plain = Client(Wire.of(lab.inst), key=client.key, kid=client.kid, nonces=client.nonces)
    assert (await plain.post(plain.kid or "")).status == 200  # it was good


async def test_how_often(lab: World) -> None:
    client = Client(Wire.of(lab.inst, Settings(chaos=True)))
    await client.register()
    client.nonces.clear()  # the one that it was given by chance may be one that is refused
    lab.inst.random = lambda size: bytes([first]) + secrets.token_bytes(size - 1)
    refused = []
    for first in range(256):
        client.nonces = [(await client.post(client.kid or "")).headers["replay-nonce"]]
        reply = await client.post(client.kid or "")
        if reply.status != 200:
            assert reply.problem == "badNonce"
            refused.append(first)
        client.nonces.clear()
    assert refused == list(range(13))  # 5 % of 256
