"""Where names are proved on loopback: a DNS server by which every name is 127.0.0.1, and a web server that answers
http-01 for the names that it was told of.
"""

from __future__ import annotations

import http.server
import threading
from collections import Counter
from dataclasses import dataclass
from typing import Self

from rootward.egress import Egress, make_rules
from rootward.protocols.acme.challenges import Ways
from tests.support.dns import Dns

SECONDS = 60
WELL_KNOWN = "/.well-known/acme-challenge/"


@dataclass(frozen=True)
class Ports:
    """What a server has to know of them; may cross into another process."""

    dns: int
    http: int

    @property
    def settings(self) -> dict[str, object]:
        """A server's, so that it looks there."""
        return {
            "acme.http01_port": self.http,
            "acme.resolvers": (f"127.0.0.1:{self.dns}",),
            "acme.accounts_per_hour": 100_000,
            "egress.allow": ("127.0.0.0/8",),
        }

    @property
    def ways(self) -> Ways:
        """How a validator looks there."""
        egress = Egress(make_rules(("127.0.0.0/8",)), (("127.0.0.1", self.dns),))
        return Ways(egress, http01_port=self.http)


class Proofs:
    """`with Proofs() as proofs:` serves both. `owners` is, by name, the thumbprint of whose account a name is; for
    all others the answer is 404. `looks` counts them by name; while a name is in `slow` its answer waits.
    """

    def __init__(self) -> None:
        self.owners: dict[str, str] = {}
        self.looks: Counter[str] = Counter()
        self.slow: dict[str, threading.Event] = {}
        self.dns = Dns()
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Answer)
        self._server.daemon_threads = True
        self._server.proofs = self  # type: ignore[attr-defined]  # for the handlers

    @property
    def ports(self) -> Ports:
        """Where it is, once it serves."""
        return Ports(self.dns.port, int(self._server.server_address[1]))

    def own(self, name: str, thumbprint: str | None) -> None:
        """Whose a name is from now on; nobody's."""
        if thumbprint is None:
            self.owners.pop(name, None)
        else:
            self.owners[name] = thumbprint

    def __enter__(self) -> Self:
        self.dns.__enter__()
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self.dns.__exit__()


class _Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        proofs: Proofs = self.server.proofs  # type: ignore[attr-defined]  # see Proofs
        name = self.headers.get("Host", "").partition(":")[0]
        proofs.looks[name] += 1
        if name in proofs.slow:
            proofs.slow[name].wait(SECONDS)
        owner = proofs.owners.get(name)
        found = owner is not None and self.path.startswith(WELL_KNOWN)
        body = f"{self.path.removeprefix(WELL_KNOWN)}.{owner}".encode() if found else b""
        self.send_response(200 if found else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing: the tests' output is theirs."""
