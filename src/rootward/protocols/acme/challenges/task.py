"""What a challenge type is given and what it may say (RFC 8555 8)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, Protocol

from rootward.core.names import DnsName, IpName
from rootward.egress import Egress, EgressError

Kind = Literal["connection", "dns", "tls", "incorrectResponse", "unauthorized"]


@dataclass(frozen=True)
class Task:
    """What is to be proven. Of a wildcard the name below it is asked about. `token` and `thumbprint` (RFC 7638, of the
    account's key) are base64url without padding.
    """

    name: DnsName | IpName
    token: str
    thumbprint: str

    @property
    def key_authorization(self) -> bytes:
        """RFC 8555 8.1."""
        return f"{self.token}.{self.thumbprint}".encode("ascii")


@dataclass(frozen=True)
class Ways:
    """One perspective: from where, and to which ports, a validation looks."""

    egress: Egress
    http01_port: int = 80
    tls_alpn01_port: int = 443


class Failed(Exception):
    """Nothing was proven. `kind` is a word of RFC 8555 6.7, `again` whether another try can end otherwise."""

    def __init__(self, kind: Kind, detail: str, *, again: bool = False) -> None:
        self.kind: Kind = kind
        self.detail = detail
        self.again = again
        super().__init__(f"{kind}: {detail}")


class ChallengeType(Protocol):
    """One type of challenge."""

    def offered(self, name: DnsName | IpName) -> bool:
        """Whether it can prove such a name; a wildcard is one (RFC 8555 7.1.4)."""

    async def validate(self, task: Task, ways: Ways) -> None:
        """One look; Failed unless it proves the task."""


@contextmanager
def looking() -> Iterator[None]:
    """What the network says is what the challenge says."""
    try:
        yield
    except EgressError as error:
        raise Failed(error.kind, error.sentence, again=error.again) from error
