"""dns-01 (RFC 8555 8.4): the digest of the key authorization in a TXT record. The only one for wildcards; not for
addresses (RFC 8738 7).
"""

from __future__ import annotations

import base64
import hashlib

from rootward.core.names import DnsName, IpName
from rootward.protocols.acme.challenges.task import ChallengeType, Failed, Task, Ways, looking


class Dns01(ChallengeType):
    """See the module."""

    def offered(self, name: DnsName | IpName) -> bool:
        return isinstance(name, DnsName)

    async def validate(self, task: Task, ways: Ways) -> None:
        if not isinstance(task.name, DnsName):
            raise Failed("dns", "An address has no TXT records.")
        with looking():
            values = await ways.egress.texts(f"_acme-challenge.{task.name.base}")
        check(values, task.key_authorization)


def check(values: list[bytes], key_authorization: bytes) -> None:
    """Failed unless one of the values is the digest. None at all may only mean that the record is not there yet."""
    digest = hashlib.sha256(key_authorization).digest()
    if not values:
        raise Failed("dns", "There is no TXT record.", again=True)
    if base64.urlsafe_b64encode(digest).rstrip(b"=") not in values:
        raise Failed("incorrectResponse", "No TXT record holds the digest of the key authorization.")
