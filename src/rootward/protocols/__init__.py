"""The doors: each parses what its protocol says to an ask and a principal, and renders what comes back. No policy here.

`PROTOCOLS` are those that need nothing but the installation; listeners, status services (`pki`) and operations (`ops`)
are handed more by the server.
"""

from __future__ import annotations

from collections.abc import Callable

from starlette.routing import BaseRoute

from rootward.ca.installation import Installation
from rootward.protocols.acme.app import routes as acme
from rootward.protocols.rest.app import routes as rest

PROTOCOLS: dict[str, Callable[[Installation], list[BaseRoute]]] = {"rest": rest, "acme": acme}
