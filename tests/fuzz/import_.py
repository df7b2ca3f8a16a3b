"""An upload of certificates in any of its forms: items or one Problem; and of each item a certificate or a DerError.

The first octet says which password is given. Iterations are capped lower than in the product, which costs nothing but
time.
"""

from __future__ import annotations

from unittest import mock

from rootward.core import der, pbe, pkcs12
from rootward.core.foreign import MAX_NAMES, MAX_ODD, read_foreign
from rootward.core.problems import Kind, Problem
from rootward.core.upload import MAX_ITEMS, read_upload

LARGEST = 64 * 1024
REFUSALS = (Kind.UNPROCESSABLE, Kind.MEDIA_TYPE, Kind.TOO_LARGE)
_FEWER = {"MAX_ITERATIONS": 20_000, "MAX_OLD_ITERATIONS": 20_000}


def one(data: bytes) -> None:
    """Anything that is raised from here is a crasher."""
    password = {0: None, 1: "", 2: "correct horse"}.get(data[0] % 4 if data else 0, "wrong")
    try:
        with mock.patch.multiple(pbe, **_FEWER):
            items = read_upload(data[1:], password)
    except Problem as problem:
        if problem.kind not in REFUSALS:
            raise AssertionError(problem.code) from problem
        return
    if not 0 < len(items) <= MAX_ITEMS and not pkcs12.is_pkcs12(data[1:]):
        raise AssertionError("too many items, or none")
    for item in items[:100]:
        if (item.refused is None) != bool(item.der) and item.key:
            raise AssertionError("a key went on")
        if item.refused is None:
            certificate(item.der)


def certificate(data: bytes) -> None:
    """One certificate of others: kept as it is, and its texts can be stored and shown."""
    try:
        found = read_foreign(data)
    except der.DerError:
        return
    if found.der != data or len(found.names) > MAX_NAMES or len(found.odd) > MAX_ODD:
        raise AssertionError("it is not kept as it is")
    for text in (found.subject, found.issuer, *found.names):
        if not text.isprintable() or len(text.encode("utf-8")) > 20_000:
            raise AssertionError("a text that nobody should store")


def seeds() -> list[bytes]:
    """Good ones in every form, every odd certificate, and every bad upload of the table that is not large."""
    from cryptography.hazmat.primitives.serialization import Encoding

    from tests.vectors import imports as made
    from tests.vectors.csr_parts import pem

    plain = [
        made.real_der(),
        pem(made.real_der(), "CERTIFICATE"),
        b"text\n" + pem(made.real_der(), "CERTIFICATE") + b"more\n" + pem(made.certificate(), "X509 CERTIFICATE"),
        made.pkcs7_of("a.test", "b.test"),
        made.pkcs7_of("a.test", encoding=Encoding.PEM),
        made.pfx(made.contents(made.cert_bag(made.real_der()), made.key_bag(made.real(made.REAL)[1])), password=b""),
        *(make() for _, make in made.ODD.values()),
        *(bad.make() for bad in made.BAD_IMPORTS),
    ]
    locked = [made.pkcs12_of(), made.pkcs12_of(old=True)]
    found = [b"\0" + one for one in plain] + [b"\2" + one for one in locked]
    return [one for one in found if len(one) < LARGEST]
