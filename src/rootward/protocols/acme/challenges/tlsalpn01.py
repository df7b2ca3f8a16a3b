"""tls-alpn-01 (RFC 8737; RFC 8738 6 for addresses): a certificate that says the digest, shown to acme-tls/1 only.

Who signed it does not matter: the handshake proves that the server has its key. Nothing is said after the handshake.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Final

from rootward.core import der
from rootward.core.names import DnsName, IpName
from rootward.egress import Peer
from rootward.protocols.acme.challenges.task import ChallengeType, Failed, Task, Ways, looking

_ALPN: Final = "acme-tls/1"
_ALT_NAME: Final = "2.5.29.17"
_ACME_IDENTIFIER: Final = "1.3.6.1.5.5.7.1.31"
_EXTENSIONS: Final = 0xA3
_DNS, _IP = 0x82, 0x87  # GeneralName's tags (RFC 5280 4.2.1.6)
_ONE_ALT_NAME = "The certificate must have one subjectAltName with one name: the one that is asked about."


class TlsAlpn01(ChallengeType):
    """See the module."""

    def offered(self, name: DnsName | IpName) -> bool:
        return isinstance(name, IpName) or not name.wildcard

    async def validate(self, task: Task, ways: Ways) -> None:
        with looking():
            peer = await ways.egress.tls(
                task.name, ways.tls_alpn01_port, server_name=server_name(task.name), alpn=_ALPN
            )
        check(peer, task)


def server_name(name: DnsName | IpName) -> str:
    """What is asked for by SNI: the name, or the address's name in the reverse tree (RFC 8738 6)."""
    return name.base if isinstance(name, DnsName) else name.address.reverse_pointer.lower()


def check(peer: Peer, task: Task) -> None:
    """Failed unless protocol and certificate are as RFC 8737 3 wants them."""
    if peer.alpn != _ALPN:
        raise Failed("tls", f"The server does not take the protocol {_ALPN}.")
    try:
        extensions = list(_extensions(peer.leaf))
        names = [_names(value) for oid, _, value in extensions if oid == _ALT_NAME]
    except der.DerError:
        raise Failed("incorrectResponse", "The certificate cannot be read.") from None
    digests = [(critical, value) for oid, critical, value in extensions if oid == _ACME_IDENTIFIER]
    if len(names) != 1 or len(names[0]) != 1 or not _is_it(names[0][0], task.name):
        raise Failed("incorrectResponse", _ONE_ALT_NAME)
    if len(digests) != 1 or not digests[0][0]:
        raise Failed("incorrectResponse", "The certificate must have one acmeIdentifier extension, a critical one.")
    if digests[0][1] != der.octet_string(hashlib.sha256(task.key_authorization).digest()):
        raise Failed("incorrectResponse", "The certificate does not say the digest of the key authorization.")


def _names(value: bytes) -> tuple[der.Part, ...]:
    der.only(value, der.SEQUENCE)
    return der.children(value)


def _is_it(part: der.Part, name: DnsName | IpName) -> bool:
    """Whether a GeneralName is this name; DNS names are compared without case (RFC 4343)."""
    if isinstance(name, DnsName):
        return part.tag == _DNS and part.content.lower() == name.base.encode("ascii")
    return part.tag == _IP and part.content == name.address.packed


def _extensions(leaf: bytes) -> Iterator[tuple[str, bool, bytes]]:
    """(OID, critical, value) of each extension of a certificate in DER (RFC 5280 4.1, 4.2); DerError."""
    der.check(leaf)
    outer = der.only(leaf, der.SEQUENCE)
    tbs = der.few(leaf, outer, most=3)[:1]
    for field in (field for one in tbs for field in der.items(leaf, one) if field.tag == _EXTENSIONS):
        for extensions in der.items(leaf, field):
            for extension in der.items(leaf, extensions):
                parts = der.few(leaf, extension, most=3)
                if len(parts) < 2 or parts[0].tag != der.OID or parts[-1].tag != der.OCTET_STRING:
                    raise der.DerError("an extension is not an identifier and a value")
                critical = der.whole(leaf, parts[1]) == der.boolean(True)
                yield der.read_oid(der.content(leaf, parts[0])), critical, der.content(leaf, parts[-1])
