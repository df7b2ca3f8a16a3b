"""Is it alive, is it ready, what does it count: `/healthz`, `/readyz` (no login), `/metrics` (role auditor, or a scrape
token).

`/healthz` says no more than that the process answers. `/readyz` is 503 while the store cannot be read, an online
authority has no valid CRL, or the server is about to stop, so that a load balancer looks elsewhere; it names the checks
that failed and no more. Issuing that is halted or frozen leaves it ready: CRL and OCSP go on.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from prometheus_client import generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from sqlalchemy import Connection, text
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from rootward import telemetry
from rootward.ca.access import require
from rootward.ca.installation import Authority, Installation
from rootward.core.problems import Problem
from rootward.core.roles import Role
from rootward.fleet.gauges import Gauges
from rootward.protocols.auth import Failures, principal_of
from rootward.protocols.pki import CurrentCrl

_ALIVE = text("SELECT 1")
_NO_STORE = {"cache-control": "no-store", "x-content-type-options": "nosniff"}


@dataclass
class State:
    """Set by the server: `stopping` from the moment on in which it was asked to stop."""

    stopping: bool = False


def routes(
    inst: Installation, *, crl: CurrentCrl, state: State, gauges: Gauges, scrape_token: str | None
) -> list[BaseRoute]:
    """The door's routes. `crl` gives an authority's current CRL; `gauges` are those of the process; `scrape_token`
    None: only the role opens metrics.
    """
    door = _Door(inst, crl, state, gauges, scrape_token)
    return [Route("/healthz", door.healthz), Route("/readyz", door.readyz), Route("/metrics", door.metrics)]


class _Door:
    def __init__(
        self, inst: Installation, crl: CurrentCrl, state: State, gauges: Gauges, scrape_token: str | None
    ) -> None:
        self._gauges = gauges
        self._inst = inst
        self._crl = crl
        self._state = state
        self._scrape = None if scrape_token is None else _digest(f"Bearer {scrape_token}".encode())
        self._failures = Failures()
        self._checks: dict[str, Callable[[], Awaitable[bool]]] = {
            "running": self._runs,
            "store": self._store,
            "crl": self._crls,
        }

    async def healthz(self, _request: Request) -> Response:
        return JSONResponse({"status": "ok"}, headers=_NO_STORE)

    async def readyz(self, _request: Request) -> Response:
        failed = []
        for name, check in self._checks.items():
            try:
                right = await check()
            except Problem:
                right = False
            if not right:
                failed.append(name)
        body = {"status": "not ready" if failed else "ready", "failed": failed}
        return JSONResponse(body, 503 if failed else 200, headers=_NO_STORE)

    async def metrics(self, request: Request) -> Response:
        if not self._is_scraper(request.headers.getlist("authorization")):
            require(await principal_of(self._inst, request.scope, self._failures), Role.AUDITOR)
        await self._gauges.refresh()
        return Response(generate_latest(telemetry.METRICS), media_type=CONTENT_TYPE_PLAIN_0_0_4, headers=_NO_STORE)

    def _is_scraper(self, credentials: list[str]) -> bool:
        if self._scrape is None or len(credentials) != 1:
            return False
        return hmac.compare_digest(_digest(credentials[0].encode("latin-1")), self._scrape)

    async def _runs(self) -> bool:
        return not self._state.stopping

    async def _store(self) -> bool:
        await self._inst.db.status(_read)  # not behind what waits: a busy server is ready
        return True

    async def _crls(self) -> bool:
        for authority in self._online():
            found = await self._crl(authority.name)
            if found is None or found.next_update <= self._inst.clock():
                return False
        return True

    def _online(self) -> list[Authority]:
        return [authority for authority in self._inst.authorities.values() if authority.key is not None]


def _read(conn: Connection) -> None:
    conn.execute(_ALIVE)


def _digest(value: bytes) -> bytes:
    return hashlib.sha256(value).digest()
