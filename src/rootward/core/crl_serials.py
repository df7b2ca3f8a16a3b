"""The serials of a CRL (RFC 5280 5.1), read one after the other without keeping any: a list of a million entries costs
no memory and can be read in slices.

The signature is not looked at: this is for lists of our own, which were checked when they were stored.
"""

from __future__ import annotations

from collections.abc import Iterator

from rootward.core import der

_TIMES = (0x17, 0x18)  # UTCTime, GeneralizedTime


def serials(crl: bytes) -> Iterator[bytes]:
    """The serials' DER content octets, in the list's order. der.DerError where it is no CRL."""
    outer = der.only(crl, der.SEQUENCE)
    tbs = next(der.items(crl, outer))
    listed = _listed(crl, tbs)
    if listed is None:
        return
    for entry in der.items(crl, listed):
        number = der.header(crl, entry.body, entry.end)
        yield crl[number.body : number.end]


def _listed(crl: bytes, tbs: der.Item) -> der.Item | None:
    """revokedCertificates: the SEQUENCE behind the times. None where nothing is revoked."""
    behind_times = False
    for item in der.items(crl, tbs):
        if item.tag in _TIMES:
            behind_times = True
        elif behind_times:
            return item if item.tag == der.SEQUENCE else None
    return None
