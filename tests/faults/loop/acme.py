"""An ACME client of the kill loop: its orders are proved by http-01 on loopback; where the connection is cut or the
server says that it cannot now, it goes on from what it knows, at the next replica.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar

from cryptography.hazmat.primitives.serialization import Encoding

from rootward.core.problems import Problem
from tests.faults.loop.wire import Town, Wire
from tests.support.acme import ADDRESS, Reply, b64
from tests.support.customer import Customer, Kept, new_disk

T = TypeVar("T")
PAUSE = 0.02
POLLS = 3000
PROFILE = "server"
NAMED = "named"  # its orders wait for a person


class Cut(Exception):
    """No whole answer: nobody knows what was done."""


class _Door:
    """The loop's connections, as `tests.support.acme.Client` wants them."""

    def __init__(self, wire: Wire, external_url: str) -> None:
        self._wire, self._external_url = wire, external_url

    @property
    def external_url(self) -> str:
        return self._external_url

    async def send(
        self, method: str, url: str, body: bytes = b"", headers: Mapping[str, str] | None = None, address: str = ADDRESS
    ) -> Reply:
        kind = (headers or {}).get("content-type", "")
        reply = self._wire.ask(method, url.removeprefix(self._external_url), body, kind=kind)
        if reply is None:
            raise Cut
        return Reply(reply.status, list(reply.headers), reply.body)


async def _pause() -> None:
    time.sleep(PAUSE)  # noqa: ASYNC251  # nothing else runs on this loop


class Orders:
    """One account and its orders. `until` asks again and again, as the loop's other clients do, and ends the episode's
    client where that leads nowhere.
    """

    def __init__(self, town: Town, wire: Wire, until: Callable[[Callable[[], T | None]], T]) -> None:
        self._town, self._until = town, until
        self._door = _Door(wire, town.external_url)
        self._account = new_disk("account")
        self._nonces: list[str] = []

    def _persist(self, one: Customer, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Do it until there is an answer that is one."""

        def once() -> T | None:
            try:
                return asyncio.run(work())
            except (Cut, Problem):
                return None
            finally:
                self._nonces = one.client.nonces[-4:]

        return self._until(once)

    def customer(self, name: str, profile: str = PROFILE) -> Customer:
        """The account, about to order a name."""
        fresh = new_disk(name, profile)
        disk = Kept(name, self._account.key, fresh.csr, profile, self._account.kid)
        one = Customer(self._door, disk, turn=_pause, polls=POLLS)
        one.client.nonces = self._nonces
        if self._account.kid is None:
            self._persist(one, one.registered)
            self._account = one.disk
        self._town.proofs.own(name, disk.thumbprint)
        return one

    def obtain(self, one: Customer) -> int:
        """The serial of its certificate."""
        return self._persist(one, one.chain)[0].serial_number

    def wait(self, one: Customer, state: str) -> str:
        """The state of its order, once it is this one or valid."""
        return str(self._persist(one, lambda: one.pursue(state)).json["status"])

    def revoke(self, one: Customer, reason: int) -> None:
        """Until it says that it is."""
        leaf = self._persist(one, one.chain)[0].public_bytes(Encoding.DER)

        async def ask() -> bool:
            reply = await one.post("revoke-cert", {"certificate": b64(leaf), "reason": reason})
            assert reply.status == 200 or reply.problem == "alreadyRevoked", reply.body
            return True

        self._persist(one, ask)

    def account(self, one: Customer) -> str:
        """Its id."""
        return (one.disk.kid or "").rpartition("/")[2]
