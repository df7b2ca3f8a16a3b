"""The table of the ACME door's resources: a new one is a row here.

`signer` says which keys may sign a POST: `kid` an account, `jwk` the key itself, `either` both; None is what everybody
may ask without a signature. `reads`: a POST of it is a POST-as-GET only. `everywhere`: each directory has its own.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

from rootward.core.profile import NAME
from rootward.protocols.acme import (
    account,
    ari,
    authz,
    directory,
    download,
    finalize,
    key_change,
    orders,
    revocation,
)
from rootward.protocols.acme.call import Handler
from rootward.protocols.acme.gate import ID, Signer
from rootward.protocols.acme.problems import AcmeError, nothing_here

PARAMETERS = {
    "id": ID,
    "type": "[a-z0-9-]{1,40}",
    "n": "[1-9][0-9]{0,2}",
    "certificate": "[A-Za-z0-9._=-]{1,300}",
    "why": "[a-z]{1,20}",
}
MAX_PATH = 512


@dataclass(frozen=True)
class Route:
    """A method of a path below `/acme/`."""

    method: str
    path: str
    handler: Handler
    signer: Signer | None = None
    reads: bool = False
    everywhere: bool = False
    cursor: bool = False

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """What of a path is this resource; `profile` is the directory's."""
        own = re.sub(r"\{(\w+)\}", lambda match: f"(?P<{match[1]}>{PARAMETERS[match[1]]})", self.path)
        return re.compile((f"(?:(?P<profile>{NAME.pattern})/)?" if self.everywhere else "") + own, re.ASCII)


ROUTES: tuple[Route, ...] = (
    Route("GET", "directory", directory.directory, everywhere=True),
    Route("HEAD", "directory", directory.directory, everywhere=True),
    Route("POST", "directory", directory.directory, "kid", reads=True, everywhere=True),
    Route("HEAD", "new-nonce", directory.new_nonce, everywhere=True),
    Route("GET", "new-nonce", directory.new_nonce, everywhere=True),
    Route("POST", "new-nonce", directory.new_nonce, "kid", reads=True, everywhere=True),
    Route("POST", "new-account", account.new_account, "jwk", everywhere=True),
    Route("POST", "new-order", orders.new_order, "kid", everywhere=True),
    Route("POST", "order/{id}", orders.show, "kid", reads=True),
    Route("POST", "order/{id}/finalize", finalize.finalize, "kid"),
    Route("POST", "authz/{id}", authz.show_or_deactivate, "kid"),
    Route("POST", "challenge/{id}/{type}", authz.challenge, "kid"),
    Route("POST", "certificate/{id}", download.certificate, "kid", reads=True),
    Route("POST", "certificate/{id}/{n}", download.certificate, "kid", reads=True),
    Route("POST", "revoke-cert", revocation.revoke_cert, "either", everywhere=True),
    Route("GET", "renewal-info/{certificate}", ari.renewal_info, everywhere=True),
    Route("GET", "why/{why}", ari.explain),
    Route("POST", "key-change", key_change.key_change, "kid", everywhere=True),
    Route("POST", "account/{id}", account.account, "kid"),
    Route("POST", "account/{id}/orders", account.account_orders, "kid", reads=True, cursor=True),
)


def find(method: str, raw_path: bytes) -> tuple[Route, str | None, dict[str, str]]:
    """The resource at a path as it came, the profile in it and its parameters. AcmeError 404 where there is none, 405
    where it has not this method.
    """
    path = raw_path.decode("latin-1").removeprefix("/acme/")
    others = []
    for route in ROUTES if len(raw_path) <= MAX_PATH else ():
        match = route.pattern.fullmatch(path)
        if match is not None and route.method == method:
            found = match.groupdict()
            return route, found.pop("profile", None), found
        if match is not None:
            others.append(route.method)
    if not others:
        raise nothing_here()
    allow = ", ".join(sorted(others))
    raise AcmeError("malformed", f"This address takes {allow}.", 405, headers=((b"allow", allow.encode()),))
