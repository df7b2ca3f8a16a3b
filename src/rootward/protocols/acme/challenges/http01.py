"""http-01 (RFC 8555 8.3; RFC 8738 4 for addresses): the key authorization at a well-known path, by plain HTTP."""

from __future__ import annotations

import re
from typing import Final

from rootward.core.names import DnsName, IpName
from rootward.egress import Answer, Url
from rootward.protocols.acme.challenges.task import ChallengeType, Failed, Task, Ways, looking

# A key authorization of ours has 87 bytes. Whitespace at the end counts: it has to end somewhere.
_BODY_BYTES: Final = 127
_REFRESH: Final = re.compile(rb"http-equiv\s*=\s*[\"']?refresh", re.IGNORECASE)


class Http01(ChallengeType):
    """See the module."""

    def offered(self, name: DnsName | IpName) -> bool:
        return isinstance(name, IpName) or not name.wildcard

    async def validate(self, task: Task, ways: Ways) -> None:
        url = Url("http", task.name, ways.http01_port, f"/.well-known/acme-challenge/{task.token}")
        with looking():
            answer = await ways.egress.get(
                url, ports={"http": ways.http01_port, "https": ways.tls_alpn01_port}, body_bytes=_BODY_BYTES
            )
        check(answer, task.key_authorization)


def check(answer: Answer, expected: bytes) -> None:
    """Failed unless the answer is 200 with the key authorization, and nothing behind it but whitespace."""
    if 300 <= answer.status < 400 or answer.refresh or _REFRESH.search(answer.body):
        raise Failed("connection", "The answer is a redirect of a kind that is not followed.")
    if answer.status != 200:
        # a server that is overloaded or just starting may be better later
        raise Failed("incorrectResponse", "The answer is not 200 OK.", again=answer.status >= 500)
    if answer.more:
        raise Failed("incorrectResponse", f"The answer has more than {_BODY_BYTES} bytes.")
    if answer.body.rstrip(b" \t\r\n\v\f") != expected:
        raise Failed("incorrectResponse", "The answer is not the key authorization.")
