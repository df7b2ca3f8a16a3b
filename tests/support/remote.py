"""The ACME door of a server process, for `tests.support.acme.Client`: over TLS, at a socket of 127.0.0.1."""

from __future__ import annotations

from collections.abc import Mapping

import httpx

from tests.support.acme import ADDRESS, Reply
from tests.support.replicas import SECONDS, Replica


class Remote:
    """`async with Remote(replica, external_url)`: what clients call the server, whichever replica answers."""

    def __init__(self, replica: Replica, external_url: str) -> None:
        self.replica = replica
        self._external_url = external_url
        self._http = httpx.AsyncClient(
            base_url=replica.url,
            verify=replica.context,
            trust_env=False,
            timeout=SECONDS,
            limits=httpx.Limits(max_keepalive_connections=None),
        )

    async def __aenter__(self) -> Remote:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    @property
    def external_url(self) -> str:
        """As in the settings of every replica."""
        return self._external_url

    async def send(
        self, method: str, url: str, body: bytes = b"", headers: Mapping[str, str] | None = None, address: str = ADDRESS
    ) -> Reply:
        """One request; httpx.TransportError where there is no whole answer."""
        path = url.removeprefix(self._external_url)
        reply = await self._http.request(method, path, content=body, headers=dict(headers or {}))
        return Reply(
            reply.status_code, [(name.lower(), value) for name, value in reply.headers.multi_items()], reply.content
        )
