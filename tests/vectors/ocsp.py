"""OCSP requests that must not be answered, and the status that each gets. Numbers are those of the list of bad inputs.

The CertIDs name nobody's issuer, so a status of `malformedRequest` shows that the request was refused for its form.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from rootward.core import der
from rootward.core.ocsp import OcspStatus

SHA1 = der.sequence(der.oid("1.3.14.3.2.26"), der.null())
SHA256 = der.sequence(der.oid("2.16.840.1.101.3.4.2.1"), der.null())
SHA512 = der.sequence(der.oid("2.16.840.1.101.3.4.2.3"), der.null())
MD5 = der.sequence(der.oid("1.2.840.113549.2.5"), der.null())
NONCE = der.oid("1.3.6.1.5.5.7.48.1.2")
OTHER = der.oid("1.3.6.1.4.1.32473.1")  # a number for documentation (RFC 5612)
CRITICAL = der.boolean(True)


class BadOcsp(NamedTuple):
    """One row: its number, what is wrong, the bytes, and the OCSPResponseStatus that they must get."""

    number: int
    title: str
    make: Callable[[], bytes]
    status: OcspStatus


def cert_id(
    algorithm: bytes = SHA1, *, name: bytes = b"n" * 20, key: bytes = b"k" * 20, serial: bytes = b"\x42" * 16
) -> bytes:
    """A CertID, DER; `serial` is content octets."""
    return der.sequence(algorithm, der.octet_string(name), der.octet_string(key), der.tlv(der.INTEGER, serial))


def extension(name: bytes, value: bytes, flag: bytes = b"") -> bytes:
    """An Extension; `flag` is the whole BOOLEAN, if there is one."""
    return der.sequence(name, flag, der.octet_string(value))


def single(identifier: bytes | None = None, *extensions: bytes) -> bytes:
    """A Request; its extensions are left out where there are none."""
    tail = der.explicit(0, der.sequence(*extensions)) if extensions else b""
    return der.sequence(identifier or cert_id(), tail)


def request(
    *singles: bytes, version: bytes = b"", name: bytes = b"", extensions: tuple[bytes, ...] = (), signature: bytes = b""
) -> bytes:
    """An OCSPRequest for one certificate, or for these; `version`, `name` and `signature` are whole elements."""
    tail = der.explicit(2, der.sequence(*extensions)) if extensions else b""
    return der.sequence(der.sequence(version, name, der.sequence(*(singles or (single(),))), tail), signature)


def nonce(octets: int) -> bytes:
    """The nonce extension with so many octets."""
    return extension(NONCE, der.octet_string(b"\x5a" * octets))


def nested(depth: int) -> bytes:
    """A requestorName that is nothing but `depth` sequences inside each other."""
    inner = b""
    for _ in range(depth):
        inner = der.sequence(inner)
    return der.explicit(1, der.explicit(4, inner))


def _signature(*parts: bytes) -> bytes:
    return der.explicit(0, der.sequence(*parts))


def _long_form() -> bytes:
    """The outer length in one octet more than it needs."""
    good = request()
    return good[:1] + b"\x81" + good[1:]


_PAIR = (nonce(16), nonce(16))
_M = OcspStatus.MALFORMED

BAD_OCSP: list[BadOcsp] = [
    BadOcsp(256, "empty", lambda: b"", _M),
    BadOcsp(256, "one octet", lambda: b"\x30", _M),
    BadOcsp(256, "an empty sequence", lambda: b"\x30\x00", _M),
    BadOcsp(256, "an empty body", lambda: der.sequence(der.sequence()), _M),
    BadOcsp(256, "text", lambda: b"<html></html>", _M),
    BadOcsp(256, "an OCSP answer", lambda: bytes.fromhex("30030a0106"), _M),
    BadOcsp(256, "cut short", lambda: request()[:-1], _M),
    BadOcsp(256, "an indefinite length", lambda: b"\x30\x80" + request()[2:] + b"\0\0", _M),
    BadOcsp(256, "a length that is too long", _long_form, _M),
    BadOcsp(256, "a SET", lambda: b"\x31" + request()[1:], _M),
    BadOcsp(256, "zeros", lambda: b"\0" * 64, _M),
    BadOcsp(256, "over 16 KiB", lambda: request(name=nested(1), extensions=(extension(OTHER, b"\0" * 17000),)), _M),
    BadOcsp(256, "1,000 levels deep", lambda: request(name=nested(1000)), _M),
    BadOcsp(256, "a requestorName of a universal type", lambda: request(name=der.explicit(1, der.null())), _M),
    BadOcsp(256, "a requestorName that is cut short", lambda: request(name=der.explicit(1, b"\xa4\x05\x30")), _M),
    BadOcsp(256, "two requestorNames", lambda: request(name=nested(1) + nested(1)), _M),
    BadOcsp(256, "fields in another order", lambda: der.sequence(der.sequence(der.sequence(single()), nested(1))), _M),
    BadOcsp(256, "a signature that is none", lambda: request(signature=_signature(SHA1)), _M),
    BadOcsp(256, "two signatures", lambda: request(signature=2 * _signature(SHA1, der.bit_string(b"s"))), _M),
    BadOcsp(260, "an empty list", lambda: der.sequence(der.sequence(der.sequence())), _M),
    BadOcsp(260, "a request without a CertID", lambda: request(der.sequence()), _M),
    BadOcsp(261, "17 CertIDs", lambda: request(*[single()] * 17), _M),
    BadOcsp(261, "1,000 CertIDs", lambda: request(*[single()] * 1000), _M),
    BadOcsp(
        264,
        "a CertID by MD5",
        lambda: request(single(cert_id(MD5, name=b"n" * 16, key=b"k" * 16))),
        OcspStatus.UNAUTHORIZED,
    ),
    BadOcsp(
        264,
        "a CertID by SHA-512",
        lambda: request(single(cert_id(SHA512, name=b"n" * 64, key=b"k" * 64))),
        OcspStatus.UNAUTHORIZED,
    ),
    BadOcsp(
        264,
        "a CertID by an unknown hash",
        lambda: request(single(cert_id(der.sequence(OTHER)))),
        OcspStatus.UNAUTHORIZED,
    ),
    BadOcsp(264, "a CertID by no hash", lambda: request(single(cert_id(der.sequence(der.null())))), _M),
    BadOcsp(264, "a hash of 19 octets", lambda: request(single(cert_id(name=b"n" * 19))), _M),
    BadOcsp(264, "a key hash of SHA-256's length", lambda: request(single(cert_id(key=b"k" * 32))), _M),
    BadOcsp(264, "SHA-256 with SHA-1's length", lambda: request(single(cert_id(SHA256))), _M),
    BadOcsp(264, "empty hashes", lambda: request(single(cert_id(name=b"", key=b""))), _M),
    BadOcsp(265, "serial 0", lambda: request(single(cert_id(serial=b"\0"))), _M),
    BadOcsp(265, "serial -1", lambda: request(single(cert_id(serial=b"\xff"))), _M),
    BadOcsp(265, "serial -128", lambda: request(single(cert_id(serial=b"\x80"))), _M),
    BadOcsp(265, "an empty serial", lambda: request(single(cert_id(serial=b""))), _M),
    BadOcsp(265, "a serial with a leading zero", lambda: request(single(cert_id(serial=b"\0\x42"))), _M),
    BadOcsp(265, "a serial of 21 octets", lambda: request(single(cert_id(serial=b"\x42" * 21))), _M),
    BadOcsp(265, "a serial of 4 KiB", lambda: request(single(cert_id(serial=b"\x42" * 4096))), _M),
    BadOcsp(265, "a second CertID that is wrong", lambda: request(single(), single(cert_id(serial=b"\0"))), _M),
    BadOcsp(268, "a nonce of 0 octets", lambda: request(extensions=(nonce(0),)), _M),
    BadOcsp(268, "a nonce of 129 octets", lambda: request(extensions=(nonce(129),)), _M),
    BadOcsp(268, "a nonce of 4,096 octets", lambda: request(extensions=(nonce(4096),)), _M),
    BadOcsp(268, "two nonces", lambda: request(extensions=_PAIR), _M),
    BadOcsp(
        269, "a nonce that is an INTEGER", lambda: request(extensions=(extension(NONCE, der.integer(1 << 130)),)), _M
    ),
    BadOcsp(269, "a nonce without a type", lambda: request(extensions=(extension(NONCE, b"\x5a" * 16),)), _M),
    BadOcsp(
        269,
        "a nonce with junk behind",
        lambda: request(extensions=(extension(NONCE, der.octet_string(b"\x5a" * 16) + b"\0"),)),
        _M,
    ),
    BadOcsp(270, "an unknown critical extension", lambda: request(extensions=(extension(OTHER, b"", CRITICAL),)), _M),
    BadOcsp(
        270,
        "an unknown critical extension beside a nonce",
        lambda: request(extensions=(nonce(32), extension(OTHER, b"", CRITICAL))),
        _M,
    ),
    BadOcsp(
        270,
        "an unknown critical extension of one request",
        lambda: request(single(None, extension(OTHER, b"", CRITICAL))),
        _M,
    ),
    BadOcsp(
        270,
        "a critical nonce of one request",
        lambda: request(single(None, extension(NONCE, der.octet_string(b"\x5a" * 16), CRITICAL))),
        _M,
    ),
    BadOcsp(
        270,
        "critical is encoded though false",
        lambda: request(extensions=(extension(OTHER, b"", der.boolean(False)),)),
        _M,
    ),
    BadOcsp(
        270,
        "critical is 1",
        lambda: request(extensions=(extension(NONCE, der.octet_string(b"\x5a" * 16), b"\1\1\1"),)),
        _M,
    ),
    BadOcsp(270, "an extension twice", lambda: request(extensions=(extension(OTHER, b""), extension(OTHER, b""))), _M),
    BadOcsp(270, "an extension without a value", lambda: request(extensions=(der.sequence(OTHER),)), _M),
    BadOcsp(270, "an extension that is a SET", lambda: request(extensions=(b"\x31" + nonce(16)[1:],)), _M),
    BadOcsp(
        270,
        "empty extensions",
        lambda: der.sequence(der.sequence(der.sequence(single()), der.explicit(2, der.sequence()))),
        _M,
    ),
    BadOcsp(272, "version 2", lambda: request(version=der.explicit(0, der.integer(1))), _M),
    BadOcsp(272, "version -1", lambda: request(version=der.explicit(0, der.integer(-1))), _M),
    BadOcsp(272, "a version that is a BOOLEAN", lambda: request(version=der.explicit(0, der.boolean(True))), _M),
    BadOcsp(273, "junk behind", lambda: request() + b"\0", _M),
    BadOcsp(273, "two requests", lambda: request() + request(), _M),
    BadOcsp(273, "junk inside", lambda: der.sequence(request()[2:], der.null()), _M),
    BadOcsp(273, "junk behind the CertID", lambda: request(der.sequence(cert_id(), der.null())), _M),
    BadOcsp(273, "junk inside the CertID", lambda: request(single(der.sequence(cert_id()[2:], der.null()))), _M),
]
