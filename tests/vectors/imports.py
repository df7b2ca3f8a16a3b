"""Uploads: certificates of others, good and odd, made octet by octet; bundles and files; and those that must be
refused, each with its one answer.

The numbers are those of the list of bad inputs.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
    pkcs7,
    pkcs12,
)

from rootward.core import der
from rootward.core.pbe import old_key  # the derivation alone: a file that is hostile elsewhere needs a right MAC
from tests.vectors.csr_parts import pem

KEY = ec.generate_private_key(ec.SECP256R1())
SPKI = KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
ECDSA = der.sequence(der.oid("1.2.840.10045.4.3.2"))
VALID = der.sequence(der.tlv(der.UTC_TIME, b"260101000000Z"), der.tlv(der.UTC_TIME, b"360101000000Z"))
PASSWORD = "correct horse"
REAL = "real.foreign.test"


def name(common_name: str = "foreign", tag: int = der.UTF8_STRING, raw: bytes | None = None) -> bytes:
    """A Name of one attribute; `raw` are its octets, whatever the tag says."""
    value = der.tlv(tag, common_name.encode() if raw is None else raw)
    return der.sequence(der.set_of(der.sequence(der.oid("2.5.4.3"), value)))


def extension(oid: str | bytes, value: bytes, *, critical: bool = False) -> bytes:
    """One extension; an OID as bytes are content octets, taken as they are."""
    kind = der.tlv(der.OID, oid) if isinstance(oid, bytes) else der.oid(oid)
    return der.sequence(kind, *([der.boolean(True)] if critical else []), der.octet_string(value))


def alt_names(*names: str) -> bytes:
    """A subjectAltName extension of DNS names."""
    return extension("2.5.29.17", der.sequence(*(der.tlv(0x82, one.encode("latin-1")) for one in names)))


CERT_SIGN = extension("2.5.29.15", b"\x03\x02\x02\x04", critical=True)
CA = extension("2.5.29.19", der.sequence(der.boolean(True)), critical=True)


def certificate(
    *,
    serial: bytes | None = None,
    version: bytes | None = der.explicit(0, der.integer(2)),
    inner: bytes = ECDSA,
    issuer: bytes | None = None,
    validity: bytes = VALID,
    subject: bytes | None = None,
    spki: bytes = SPKI,
    extensions: tuple[bytes, ...] | None = None,
) -> bytes:
    """A certificate with a signature of nobody. `serial` are content octets, random where there are none."""
    fields = [
        version or b"",
        der.tlv(der.INTEGER, b"\x40" + secrets.token_bytes(15) if serial is None else serial),
        inner,
        issuer or name("somebody else"),
        validity,
        subject or name(),
        spki,
    ]
    if extensions is None:
        extensions = (alt_names("a.foreign.test"),)
    if extensions:
        fields.append(der.explicit(3, der.sequence(*extensions)))
    signature = der.sequence(der.integer(1), der.integer(1))
    return der.sequence(der.sequence(*fields), ECDSA, der.bit_string(signature))


def dates(begin: bytes, end: bytes, tag: int = der.UTC_TIME) -> bytes:
    """A Validity of these octets."""
    return der.sequence(der.tlv(tag, begin), der.tlv(tag, end))


ODD: dict[str, tuple[str, Callable[[], bytes]]] = {
    "serial zero": ("serial", lambda: certificate(serial=b"\0")),
    "serial negative": ("serial", lambda: certificate(serial=b"\x80" + secrets.token_bytes(8))),
    "serial -5": ("serial", lambda: certificate(serial=b"\xfb")),
    "serial of 21 octets": ("serial", lambda: certificate(serial=b"\x40" + secrets.token_bytes(20))),
    "serial with a zero in front": ("serial", lambda: certificate(serial=b"\0\x11" + secrets.token_bytes(8))),
    "version 1": ("version", lambda: certificate(version=None, extensions=())),
    "version 2": ("version", lambda: certificate(version=der.explicit(0, der.integer(1)), extensions=())),
    "version 9": ("version", lambda: certificate(version=der.explicit(0, der.integer(8)))),
    "version 1 with extensions": ("extensions", lambda: certificate(version=None)),
    "certifies and is no CA": ("extensions", lambda: certificate(extensions=(CERT_SIGN,))),
    "extension twice": ("extensions", lambda: certificate(extensions=(alt_names("a.test"), alt_names("b.test")))),
    "big OID": ("extensions", lambda: certificate(extensions=(extension(b"\x2b" + b"\xff" * 200 + b"\x7f", b""),))),
    "OID cut short": ("extensions", lambda: certificate(extensions=(extension(b"\x2b\x81", b""),))),
    "basic constraints broken": ("extensions", lambda: certificate(extensions=(extension("2.5.29.19", b"x"),))),
    "key usage broken": ("extensions", lambda: certificate(extensions=(extension("2.5.29.15", b""),))),
    "names broken": ("names", lambda: certificate(extensions=(extension("2.5.29.17", b"\x30\x05\x82\x01a"),))),
    "name with NUL": ("names", lambda: certificate(extensions=(alt_names("a.test\0.evil.test"),))),
    "UTCTime without Z": ("validity", lambda: certificate(validity=dates(b"2601010000", b"3601010000"))),
    "UTCTime with an offset": ("validity", lambda: certificate(validity=dates(b"260101000000+0100", b"360101000000Z"))),
    "30 February": ("validity", lambda: certificate(validity=dates(b"260230000000Z", b"360101000000Z"))),
    "dates of letters": ("validity", lambda: certificate(validity=dates(b"yesterday", b"tomorrow"))),
    "year 0": ("validity", lambda: certificate(validity=dates(b"00000101000000Z", b"99991231235959Z", 0x18))),
    "ends before it begins": ("validity", lambda: certificate(validity=dates(b"360101000000Z", b"260101000000Z"))),
    "subject not UTF-8": ("subject", lambda: certificate(subject=name(raw=b"\xff\xfe\xc3"))),
    "subject of half a BMP character": ("subject", lambda: certificate(subject=name(tag=0x1E, raw=b"\xd8\0a"))),
    "subject of an unknown type": ("subject", lambda: certificate(subject=name(tag=0x04, raw=b"x"))),
    "issuer without a name": ("issuer", lambda: certificate(issuer=der.sequence())),
    "two algorithms": ("signature", lambda: certificate(inner=der.sequence(der.oid("1.2.840.10045.4.3.3")))),
    "unique identifier": ("extensions", lambda: unique_identifier()),
}


def unique_identifier() -> bytes:
    """A certificate with an issuerUniqueID (RFC 5280 4.1.2.8)."""
    plain = der.children(certificate(extensions=()))
    tbs = der.sequence(*(part.whole for part in der.children(plain[0].whole)), der.implicit(1, b"\0\x01"))
    return der.sequence(tbs, plain[1].whole, plain[2].whole)


@cache
def real(common_name: str) -> tuple[x509.Certificate, Any]:
    """A certificate by the library, and its key."""
    from datetime import UTC, datetime, timedelta

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=90))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(common_name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return made, key


def real_der(common_name: str = REAL) -> bytes:
    """The DER of `real`."""
    return real(common_name)[0].public_bytes(Encoding.DER)


def pkcs7_of(*names: str, encoding: Encoding = Encoding.DER) -> bytes:
    """A bundle by the library."""
    return pkcs7.serialize_certificates([real(one)[0] for one in names], encoding)


def pkcs12_of(password: str = PASSWORD, *, rounds: int = 2048, old: bool = False) -> bytes:
    """A file by the library, with a key and two certificates."""
    made, key = real(REAL)
    other, _ = real("ca.foreign.test")
    if not password:
        return pkcs12.serialize_key_and_certificates(b"x", key, made, [other], NoEncryption())
    builder = PrivateFormat.PKCS12.encryption_builder().kdf_rounds(rounds)
    if old:
        builder = builder.key_cert_algorithm(pkcs12.PBES.PBESv1SHA1And3KeyTripleDESCBC).hmac_hash(hashes.SHA1())  # noqa: S303  # as old files have it
    return pkcs12.serialize_key_and_certificates(b"x", key, made, [other], builder.build(password.encode()))


# ── PKCS#12 by hand ───────────────────────────────────────────────────────────────────────────────────────────────

DATA = "1.2.840.113549.1.7.1"
BAG = "1.2.840.113549.1.12.10.1."


def info(content: bytes, kind: str = DATA) -> bytes:
    """A ContentInfo."""
    return der.sequence(der.oid(kind), der.explicit(0, content))


def bag(kind: int, value: bytes) -> bytes:
    """A SafeBag."""
    return der.sequence(der.oid(f"{BAG}{kind}"), der.explicit(0, value))


def cert_bag(data: bytes) -> bytes:
    """A SafeBag with a certificate."""
    oid = der.oid("1.2.840.113549.1.9.22.1")
    return bag(3, der.sequence(oid, der.explicit(0, der.octet_string(data))))


def key_bag(key: Any) -> bytes:
    """A SafeBag with a key that nothing protects."""
    return bag(1, key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()))


def old_algorithm(last: int, rounds: int) -> bytes:
    """One of RFC 7292's own ways to encrypt: 3 is 3DES, 6 is RC2 of 40 bits."""
    parameters = der.sequence(der.octet_string(b"saltsalt"), der.integer(rounds))
    return der.sequence(der.oid(f"1.2.840.113549.1.12.1.{last}"), parameters)


def encrypted(algorithm: bytes, content: bytes = bytes(64)) -> bytes:
    """A ContentInfo with EncryptedData that nobody can decrypt."""
    inside = der.sequence(der.oid(DATA), algorithm, der.implicit(0, content))
    return info(der.sequence(der.integer(0), inside), "1.2.840.113549.1.7.6")


def pfx(*infos: bytes, password: bytes | None = None, rounds: int = 1, mac: bool = True) -> bytes:
    """A file of these ContentInfos with a right MAC: for `password` in the form of RFC 7292 B.1."""
    safe = der.sequence(*infos)
    parts = [der.integer(3), info(der.octet_string(safe))]
    if mac:
        secret = PASSWORD.encode("utf-16-be") + b"\0\0" if password is None else password
        key = old_key("sha256", 3, secret, b"saltsalt", rounds if rounds < 5000 else 1, 32)
        digest = der.sequence(
            der.sequence(der.oid("2.16.840.1.101.3.4.2.1"), der.null()),
            der.octet_string(hmac.digest(key, safe, hashlib.sha256)),
        )
        parts.append(der.sequence(digest, der.octet_string(b"saltsalt"), der.integer(rounds)))
    return der.sequence(*parts)


def contents(*bags: bytes) -> bytes:
    """A ContentInfo whose SafeContents nothing protects."""
    return info(der.octet_string(der.sequence(*bags)))


def nested(levels: int) -> bytes:
    """Bags in bags in bags."""
    inside = cert_bag(real_der())
    for _ in range(levels):
        inside = bag(6, der.sequence(inside))
    return pfx(contents(inside))


def shrouded(rounds: int) -> bytes:
    """A key whose own encryption asks for that many iterations, within what is well."""
    value = der.sequence(old_algorithm(3, rounds), der.octet_string(bytes(64)))
    return pfx(contents(cert_bag(real_der()), bag(2, value)))


def pbes2(rounds: int) -> bytes:
    """PBES2 with PBKDF2 of that many iterations."""
    stretch = der.sequence(
        der.oid("1.2.840.113549.1.5.12"), der.sequence(der.octet_string(b"saltsalt"), der.integer(rounds))
    )
    scheme = der.sequence(der.oid("2.16.840.1.101.3.4.1.42"), der.octet_string(bytes(16)))
    return der.sequence(der.oid("1.2.840.113549.1.5.13"), der.sequence(stretch, scheme))


def private_key(password: bytes | None = None, form: PrivateFormat = PrivateFormat.PKCS8) -> bytes:
    """A key in PEM."""
    how = NoEncryption() if password is None else BestAvailableEncryption(password)
    return KEY.private_bytes(Encoding.PEM, form, how)


def odd_cipher() -> bytes:
    """326: an encrypted key under a cipher that nobody knows."""
    sealed = der.sequence(der.sequence(der.oid("1.2.3.4.5")), der.octet_string(bytes(64)))
    return pem(sealed, "ENCRYPTED PRIVATE KEY")


def der_key() -> bytes:
    """A key in DER."""
    return load_der_private_key(
        KEY.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()), None
    ).private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


@dataclass(frozen=True)
class BadImport:
    """One upload that must be refused whole."""

    number: int
    title: str
    make: Callable[[], bytes]
    status: int
    code: str
    password: str | None = PASSWORD

    def __str__(self) -> str:
        return f"{self.number} {self.title}"


FAR = 1 << 31
BAD_IMPORTS = [
    BadImport(318, "wrong password", pkcs12_of, 422, "RW-IMPORT-PASSWORD", "wrong"),
    BadImport(318, "empty password", pkcs12_of, 422, "RW-IMPORT-PASSWORD", ""),
    BadImport(318, "no password", pkcs12_of, 422, "RW-IMPORT-PASSWORD", None),
    BadImport(318, "2^31 iterations of the MAC", lambda: pfx(contents(), rounds=FAR), 422, "RW-IMPORT"),
    BadImport(318, "2^31 iterations of 3DES", lambda: pfx(encrypted(old_algorithm(3, FAR))), 422, "RW-IMPORT"),
    BadImport(318, "2^31 iterations of PBES2", lambda: pfx(encrypted(pbes2(FAR))), 422, "RW-IMPORT"),
    BadImport(318, "2^31 iterations of a key inside", lambda: shrouded(FAR), 422, "RW-IMPORT"),
    BadImport(318, "2^300 iterations", lambda: pfx(encrypted(pbes2(1 << 300))), 422, "RW-IMPORT"),
    BadImport(318, "no iterations", lambda: pfx(encrypted(pbes2(0))), 422, "RW-IMPORT"),
    BadImport(
        318,
        "many parts, each within bounds",
        lambda: pfx(*[encrypted(pbes2(100_000))] * 50),
        422,
        "RW-IMPORT",
    ),
    BadImport(318, "1,000 bags in each other", lambda: nested(1_000), 422, "RW-IMPORT"),
    BadImport(318, "a bag in a bag", lambda: nested(1), 422, "RW-IMPORT"),
    BadImport(318, "10,001 bags", lambda: pfx(contents(*[cert_bag(b"")] * 10_001)), 422, "RW-IMPORT"),
    BadImport(
        318, "a key of no certificate", lambda: pfx(contents(cert_bag(real_der()), key_bag(KEY))), 422, "RW-IMPORT"
    ),
    BadImport(318, "no MAC", lambda: pfx(contents(cert_bag(real_der())), mac=False), 422, "RW-IMPORT"),
    BadImport(318, "RC2 of 40 bits", lambda: pfx(encrypted(old_algorithm(6, 2048))), 422, "RW-IMPORT"),
    BadImport(318, "undecryptable", lambda: pfx(encrypted(old_algorithm(3, 1))), 422, "RW-IMPORT"),
    BadImport(318, "cut short", lambda: pkcs12_of()[:-40], 422, "RW-IMPORT"),
    BadImport(320, "JKS", lambda: b"\xfe\xed\xfe\xed\0\0\0\x02" + bytes(100), 415, "RW-MEDIA-TYPE"),
    BadImport(320, "JCEKS", lambda: b"\xce\xce\xce\xce\0\0\0\x02" + bytes(100), 415, "RW-MEDIA-TYPE"),
    BadImport(320, "something else", lambda: b"PK\x03\x04 a zip file", 415, "RW-MEDIA-TYPE"),
    BadImport(320, "white space", lambda: b" \r\n\t", 422, "RW-IMPORT"),
    BadImport(321, "a key", private_key, 422, "RW-IMPORT-KEY"),
    BadImport(321, "an EC key", lambda: private_key(form=PrivateFormat.TraditionalOpenSSL), 422, "RW-IMPORT-KEY"),
    BadImport(321, "a key in DER", der_key, 422, "RW-IMPORT-KEY"),
    BadImport(321, "a key under another label", lambda: pem(der_key(), "CERTIFICATE"), 422, "RW-IMPORT-KEY"),
    BadImport(321, "half a key", lambda: private_key()[:100], 422, "RW-IMPORT-KEY"),
    BadImport(326, "an encrypted key", lambda: private_key(b"secret"), 422, "RW-IMPORT-KEY"),
    BadImport(326, "an encrypted key by OpenSSL's old form", lambda: OLD_KEY, 422, "RW-IMPORT-KEY"),
    BadImport(326, "an encrypted key, cipher unknown", odd_cipher, 422, "RW-IMPORT-KEY"),
    BadImport(322, "no certificate", lambda: der.sequence(der.integer(7)), 422, "RW-IMPORT-ITEM"),
    BadImport(322, "DER cut short", lambda: real_der()[:-1], 422, "RW-IMPORT"),
    BadImport(322, "DER and more", lambda: real_der() + b"\0", 422, "RW-IMPORT"),
    BadImport(322, "empty serial", lambda: certificate(serial=b""), 422, "RW-IMPORT-ITEM"),
    BadImport(322, "serial of 300 octets", lambda: certificate(serial=b"\1" * 300), 422, "RW-IMPORT-ITEM"),
    BadImport(
        322, "300 KB", lambda: certificate(extensions=(extension("1.2.3", bytes(300_000)),)), 422, "RW-IMPORT-ITEM"
    ),
    BadImport(322, "nested too deeply", lambda: certificate(subject=deep(100)), 422, "RW-IMPORT-ITEM"),
    BadImport(322, "a CSR", lambda: pem(b"\x30\0", "CERTIFICATE REQUEST"), 422, "RW-IMPORT-ITEM"),
    BadImport(
        322,
        "PEM that is not base64",
        lambda: pem(real_der(), "CERTIFICATE").replace(b"\nM", b"\n!!M", 1),
        422,
        "RW-IMPORT-ITEM",
    ),
    BadImport(322, "PEM without an end", lambda: b"-----BEGIN CERTIFICATE-----\nMAA=\n", 422, "RW-IMPORT-ITEM"),
    BadImport(322, "a PEM boundary alone", lambda: b"-----BEGIN ", 422, "RW-IMPORT"),
    BadImport(322, "PKCS#7 of nobody", lambda: info(der.sequence(), "1.2.840.113549.1.7.2"), 422, "RW-IMPORT"),
    BadImport(322, "PKCS#7 of data", lambda: info(der.octet_string(b"x")), 422, "RW-IMPORT"),
    BadImport(322, "10,001 items", lambda: pem(b"\x30\0", "CERTIFICATE") * 10_001, 413, "RW-TOO-LARGE"),
]

OLD_KEY = (
    b"-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: RC9-CBC,0011\n\nAAAA\n"
    b"-----END EC PRIVATE KEY-----\n"
)


def deep(levels: int) -> bytes:
    """Sequences in each other."""
    made = der.null()
    for _ in range(levels):
        made = der.sequence(made)
    return made
