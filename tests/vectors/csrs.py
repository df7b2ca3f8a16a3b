"""Certificate requests, good and bad, as bytes: the table that every door's tests go through.

`BAD_CSRS` holds the bad inputs that a request alone can be, under their numbers of the list of bad inputs. `make()`
gives the raw bytes, `pem` wraps them for doors that take text (what is no DER stays as it is). With `needs_profile` the
request itself is fine, and a profile (or the store) must refuse it with `code`. Three numbers need more than a request
and are not here: 36 (the issuer's own key), 68 (the issuer's own subject) and 108 (an issuer with name constraints).
`GOOD_CSRS` must be read. It has so many lines because it is one table, which is easier to check against the list whole.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, mlkem, x448, x25519

from rootward.core import der
from tests.vectors import csr_parts as parts
from tests.vectors.csr_parts import good_csr, pem

__all__ = ["BAD_CSRS", "GOOD_CSRS", "BadCsr", "good_csr", "pem"]


@dataclass(frozen=True)
class BadCsr:
    """One bad request: its number in the list, what it is, the bytes, and the code and field of the answer."""

    number: int
    title: str
    make: Callable[[], bytes]
    code: str
    field: str | None = "csr"
    needs_profile: bool = False

    def __str__(self) -> str:
        return f"{self.number}-{self.title}"


def _syntax() -> list[BadCsr]:
    malformed = "RW-CSR-MALFORMED"
    good = good_csr
    armour = (b"-----BEGIN CERTIFICATE REQUEST-----\n", b"-----END CERTIFICATE REQUEST-----\n")
    deep = parts.nested(10_000)
    return [
        BadCsr(1, "empty", lambda: b"", malformed),
        BadCsr(1, "white space", lambda: b" \r\n\t", malformed),
        BadCsr(2, "not base64", lambda: b"hello, this is a request", malformed),
        BadCsr(2, "not base64 in armour", lambda: armour[0] + b"MII!BAzC\n" + armour[1], malformed),
        BadCsr(2, "half a base64 group", lambda: armour[0] + b"MIIBA\n" + armour[1], malformed),
        BadCsr(2, "nothing in armour", lambda: armour[0] + armour[1], malformed),
        BadCsr(2, "no end line", lambda: pem(good()).partition(b"-----END")[0], malformed),
        BadCsr(4, "label CERTIFICATE", lambda: pem(good(), "CERTIFICATE"), malformed),
        BadCsr(4, "label PRIVATE KEY", lambda: pem(good(), "PRIVATE KEY"), malformed),
        BadCsr(4, "two requests", lambda: pem(good()) + pem(good()), malformed),
        BadCsr(4, "text before", lambda: b"Certificate Request:\n" + pem(good()), malformed),
        BadCsr(4, "text after", lambda: pem(good()) + b"thanks", malformed),
        BadCsr(4, "headers", lambda: pem(good()).replace(b"-----\n", b"-----\nProc-Type: 4\n\n", 1), malformed),
        BadCsr(5, "trailing byte", lambda: good() + b"\0", malformed),
        BadCsr(5, "two requests in DER", lambda: good() + good(), malformed),
        BadCsr(6, "truncated", lambda: good()[:-1], malformed),
        BadCsr(6, "only a header", lambda: good()[:4], malformed),
        BadCsr(6, "only a tag", lambda: b"\x30", malformed),
        BadCsr(8, "non-minimal length outside", lambda: parts.long_form(good()), malformed),
        BadCsr(8, "non-minimal length inside", lambda: _long_subject(), malformed),
        BadCsr(8, "indefinite length", lambda: b"\x30\x80" + good()[4:] + b"\0\0", malformed),
        BadCsr(9, "over 64 KiB", lambda: good() + bytes(64 * 1024), "RW-CSR-SIZE"),
        BadCsr(9, "over 64 KiB of armour", lambda: pem(good()) + b"\n" * 64 * 1024, "RW-CSR-SIZE"),
        BadCsr(10, "nested 10,000 deep", lambda: deep, malformed),
        BadCsr(10, "attribute nested 10,000 deep", lambda: _attribute(deep), malformed),
        BadCsr(10, "extension nested 10,000 deep", lambda: _extensions(parts.extension("1.2.3.4", deep)), malformed),
        BadCsr(12, "version 1", lambda: parts.raw_csr(version=1), "RW-CSR-VERSION"),
        BadCsr(12, "version 2", lambda: parts.raw_csr(version=2), "RW-CSR-VERSION"),
        BadCsr(12, "version -1", lambda: parts.raw_csr(version=-1), "RW-CSR-VERSION"),
        BadCsr(
            40, "extension twice", lambda: _extensions(parts.GOOD_SAN, parts.san(parts.dns(b"b.internal"))), malformed
        ),
        BadCsr(
            40, "unknown extension twice", lambda: _extensions(*[parts.extension("1.2.3.4", b"\5\0")] * 2), malformed
        ),
        BadCsr(40, "attribute twice", lambda: _two_requests(parts.EXTENSION_REQUEST), malformed),
        BadCsr(40, "attribute without a value", lambda: _no_value(), malformed),
        BadCsr(40, "attribute of two values", lambda: _two_values(), malformed),
        BadCsr(41, "two attributes that differ", lambda: _two_requests(parts.MICROSOFT_EXTENSIONS), malformed),
        BadCsr(
            44, "junk after subjectAltName", lambda: _junk(parts.SAN, der.sequence(parts.dns(b"a.internal"))), malformed
        ),
        BadCsr(44, "junk after keyUsage", lambda: _junk(parts.KEY_USAGE, b"\x03\x02\x07\x80"), malformed),
        BadCsr(
            44,
            "junk after extKeyUsage",
            lambda: _junk(parts.EKU, der.sequence(der.oid("1.3.6.1.5.5.7.3.1"))),
            malformed,
        ),
        BadCsr(44, "junk after basicConstraints", lambda: _junk(parts.BASIC_CONSTRAINTS, der.sequence()), malformed),
        BadCsr(44, "junk after TLS feature", lambda: _junk(parts.TLS_FEATURE, der.sequence(der.integer(5))), malformed),
        BadCsr(44, "junk after an ignored one", lambda: _junk("2.5.29.14", der.octet_string(b"id")), malformed),
        BadCsr(44, "an extension without a value", lambda: _extensions(parts.extension("1.2.3.4", b"")), malformed),
        BadCsr(44, "criticality FALSE written", lambda: _written_default(), malformed),
    ]


def _extensions(*extensions: bytes) -> bytes:
    return parts.raw_csr(extensions=extensions)


def _subject(*rdns: bytes) -> bytes:
    return parts.raw_csr(rdns=rdns)


def _names(*names: bytes) -> bytes:
    return _extensions(parts.san(*names))


def _attribute(value: bytes) -> bytes:
    return parts.raw_csr(attributes=[parts.attribute("1.2.3.4", value)])


def _junk(oid: str, value: bytes) -> bytes:
    return _extensions(parts.extension(oid, value + b"\0"))


def _long_subject() -> bytes:
    name = b"\x31\x81\x0a" + der.sequence(der.oid(parts.COMMON_NAME), der.utf8_string("a"))
    return parts.raw_csr(rdns=[name])


def _two_requests(second: str) -> bytes:
    first = parts.attribute(parts.EXTENSION_REQUEST, der.sequence(parts.GOOD_SAN))
    other = parts.attribute(second, der.sequence(parts.san(parts.dns(b"b.internal"))))
    return parts.raw_csr(attributes=[first, other])


def _no_value() -> bytes:
    return parts.raw_csr(attributes=[parts.attribute(parts.EXTENSION_REQUEST)])


def _two_values() -> bytes:
    values = (der.sequence(parts.GOOD_SAN), der.sequence(parts.san(parts.dns(b"b.internal"))))
    return parts.raw_csr(attributes=[parts.attribute(parts.EXTENSION_REQUEST, *values)])


def _written_default() -> bytes:
    return _extensions(der.sequence(der.oid("1.2.3.4"), der.boolean(False), der.octet_string(der.null())))


def _signatures() -> list[BadCsr]:
    signature, algorithm = "RW-CSR-SIGNATURE", "RW-CSR-ALGORITHM"
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    return [
        BadCsr(
            13, "signature wrong", lambda: _raw(lambda info: parts.sign(parts.private_key(), info + b"x")), signature
        ),
        BadCsr(13, "signature empty", lambda: _raw(lambda _info: b""), signature),
        BadCsr(14, "another key's signature", lambda: _raw(parts.other_key), signature),
        BadCsr(14, "algorithm of another key type", lambda: parts.raw_csr(algorithm=parts.RSA_SHA256), signature),
        BadCsr(16, "MD5", lambda: parts.other_algorithm("1.2.840.113549.1.1.4", "rsa-2048", null=True), algorithm),
        BadCsr(
            16,
            "SHA-1 with RSA",
            lambda: parts.other_algorithm("1.2.840.113549.1.1.5", "rsa-2048", null=True),
            algorithm,
        ),
        BadCsr(16, "SHA-1 with ECDSA", lambda: parts.other_algorithm("1.2.840.10045.4.1"), algorithm),
        BadCsr(16, "SHA-224 with ECDSA", lambda: parts.other_algorithm("1.2.840.10045.4.3.1"), algorithm),
        BadCsr(16, "unknown algorithm", lambda: parts.other_algorithm("1.2.3.4"), algorithm),
        BadCsr(
            16,
            "parameters that ECDSA has not",
            lambda: parts.other_algorithm("1.2.840.10045.4.3.2", null=True),
            algorithm,
        ),
        BadCsr(17, "PSS without parameters", lambda: parts.pss_csr(b""), algorithm),
        BadCsr(17, "PSS with SHA-1 by default", lambda: parts.pss_csr(der.sequence()), algorithm),
        BadCsr(17, "PSS with a short salt", lambda: _pss(parts.SHA256, parts.SHA256, 20), algorithm),
        BadCsr(17, "PSS with a huge salt", lambda: _pss(parts.SHA256, parts.SHA256, 222), algorithm),
        BadCsr(17, "PSS with two digests", lambda: _pss(parts.SHA256, parts.SHA384, 32), algorithm),
        BadCsr(17, "PSS with another trailer", lambda: _pss_trailer(), algorithm),
        BadCsr(18, "r = 0", lambda: _raw(parts.ecdsa(0, 1)), signature),
        BadCsr(18, "s = 0", lambda: _raw(parts.ecdsa(1, 0)), signature),
        BadCsr(18, "r = s = 0", lambda: _raw(parts.ecdsa(0, 0)), signature),
        BadCsr(18, "r = n", lambda: _raw(parts.ecdsa(order, 1)), signature),
        BadCsr(18, "r above n", lambda: _raw(parts.ecdsa(order + 1, 1)), signature),
        BadCsr(18, "r negative", lambda: _raw(parts.ecdsa(-1, 1)), signature),
        BadCsr(18, "signature in BER", lambda: _raw(parts.ecdsa_ber), signature),
        BadCsr(
            18,
            "signature with junk",
            lambda: _raw(lambda info: parts.sign(parts.private_key(), info) + b"\0"),
            signature,
        ),
    ]


def _raw(signature: Callable[[bytes], bytes]) -> bytes:
    return parts.raw_csr(signature=signature)


def _pss(digest: str, mgf_digest: str, salt: int) -> bytes:
    return parts.pss_csr(parts.pss_parameters(digest, mgf_digest, salt), salt=salt)


def _pss_trailer() -> bytes:
    right = der.children(parts.pss_parameters(parts.SHA256, parts.SHA256, 32))
    return parts.pss_csr(der.sequence(*(part.whole for part in right), der.explicit(3, der.integer(1))))


def _keys() -> list[BadCsr]:
    kind, weak, encoding, blocked = "RW-KEY-TYPE", "RW-KEY-WEAK", "RW-KEY-ENCODING", "RW-KEY-BLOCKED"
    modulus, point = parts.good_modulus, parts.p256_point
    sha256_rsa = parts.RSA_SHA256

    def key(number: int, title: str, spki: Callable[[], bytes], code: str, algorithm: bytes | None = None) -> BadCsr:
        return BadCsr(number, title, lambda: parts.raw_csr(spki=spki(), algorithm=algorithm), code)

    def rsa_key(number: int, title: str, code: str, number_: Callable[[], int], exponent: int = 65537) -> BadCsr:
        return key(number, title, lambda: parts.rsa_spki(number_(), exponent), code, sha256_rsa)

    rows = [
        rsa_key(20, f"e = {name}", weak, modulus, exponent)
        for name, exponent in (("1", 1), ("2", 2), ("3", 3), ("65536", 65536), ("2^256 + 1", 2**256 + 1))
    ]
    rows += [
        rsa_key(20, "e negative", encoding, modulus, -3),
        rsa_key(20, "512 bits", kind, lambda: modulus() >> 1536 | 1),
        rsa_key(20, "2047 bits", kind, lambda: modulus() >> 1 | 1),
        rsa_key(20, "8192 bits", kind, lambda: modulus() ** 4),
        rsa_key(20, "modulus negative", encoding, lambda: -modulus()),
        rsa_key(21, "modulus even", weak, lambda: modulus() & ~1),
        rsa_key(21, "factor 3", weak, lambda: _with_factor(3)),
        rsa_key(21, "factor 751", weak, lambda: _with_factor(751)),
        rsa_key(22, "ROCA", weak, parts.roca_modulus),
        rsa_key(22, "close primes", weak, parts.close_modulus),
        BadCsr(26, "RFC 9500's P-256 key", lambda: parts.raw_csr(key=parts.rfc9500_p256()), blocked),
        rsa_key(26, "RFC 9500's RSA key", blocked, lambda: int.from_bytes(parts.RFC9500_RSA_2048, "big")),
        key(28, "P-192", lambda: parts.ec_spki("1.2.840.10045.3.1.1", b"\4" + bytes(48)), kind),
        key(28, "P-224", lambda: parts.spki_of(ec.generate_private_key(ec.SECP224R1())), kind),
        key(28, "secp256k1", lambda: parts.spki_of(ec.generate_private_key(ec.SECP256K1())), kind),
        key(28, "brainpoolP256t1", lambda: parts.ec_spki("1.3.36.3.3.2.8.1.1.8", b"\4" + bytes(64)), kind),
        *(
            BadCsr(28, name, partial(good_csr, name), kind, needs_profile=True)
            for name in ("brainpool-p256r1", "brainpool-p384r1", "brainpool-p512r1")
        ),
        key(29, "point at infinity", lambda: parts.ec_spki(parts.P256, b"\0"), encoding),
        key(
            29,
            "point off the curve",
            lambda: parts.ec_spki(parts.P256, point()[:-1] + bytes([point()[-1] ^ 1])),
            encoding,
        ),
        key(29, "point (0, 0)", lambda: parts.ec_spki(parts.P256, b"\4" + bytes(64)), encoding),
        key(
            29, "hybrid point", lambda: parts.ec_spki(parts.P256, bytes([6 + point()[-1] % 2]) + point()[1:]), encoding
        ),
        key(29, "short point", lambda: parts.ec_spki(parts.P256, point()[:-1]), encoding),
        key(29, "another curve's point", lambda: parts.ec_spki("1.3.132.0.34", point()), encoding),
        key(29, "explicit parameters", parts.explicit_p256_spki, encoding),
        key(
            30,
            "compressed point",
            lambda: parts.ec_spki(parts.P256, bytes([2 + point()[-1] % 2]) + point()[1:33]),
            encoding,
        ),
        key(32, "X25519", lambda: parts.spki_of(x25519.X25519PrivateKey.generate()), kind),
        key(32, "X448", lambda: parts.spki_of(x448.X448PrivateKey.generate()), kind),
        key(32, "Ed448", lambda: parts.spki_of(ed448.Ed448PrivateKey.generate()), kind),
        key(32, "DSA", lambda: parts.spki_of(dsa.generate_private_key(2048)), kind),
        key(33, "ML-KEM", lambda: parts.spki_of(mlkem.MLKEM768PrivateKey.generate()), kind),
        key(34, "RSA without NULL", lambda: parts.rsa_spki(modulus(), parameters=b""), encoding, sha256_rsa),
        key(
            34,
            "RSA with other parameters",
            lambda: parts.rsa_spki(modulus(), parameters=der.integer(1)),
            encoding,
            sha256_rsa,
        ),
        key(34, "curve and NULL", lambda: _ec_and_null(), encoding),
        key(34, "no curve", lambda: _no_curve(), encoding),
        key(34, "Ed25519 with NULL", lambda: _ed25519_and_null(), encoding),
        key(34, "Ed25519 of 31 octets", lambda: parts.ed25519_spki(bytes(31)), encoding),
        key(34, "Ed25519 not in its one form", lambda: parts.ed25519_spki(b"\xee" + b"\xff" * 30 + b"\x7f"), encoding),
        key(34, "junk after the RSA key", lambda: _rsa_and_junk(), encoding, sha256_rsa),
    ]
    rows += [
        key(29, f"Ed25519 of small order {number}", partial(parts.ed25519_spki, small), weak)
        for number, small in enumerate(parts.SMALL_ORDER_ED25519)
    ]
    return rows


def _with_factor(factor: int) -> int:
    near = parts.good_modulus() // factor
    return factor * (near | 1)


def _ec_and_null() -> bytes:
    identifier = der.sequence(der.oid("1.2.840.10045.2.1"), der.oid(parts.P256), der.null())
    return der.sequence(identifier, der.bit_string(parts.p256_point()))


def _no_curve() -> bytes:
    return der.sequence(der.sequence(der.oid("1.2.840.10045.2.1")), der.bit_string(parts.p256_point()))


def _ed25519_and_null() -> bytes:
    bits = parts.spki_of(parts.private_key("ed25519"))[-32:]
    return der.sequence(der.sequence(der.oid("1.3.101.112"), der.null()), der.bit_string(bits))


def _rsa_and_junk() -> bytes:
    key = der.sequence(der.integer(parts.good_modulus()), der.integer(65537)) + b"\0"
    return der.sequence(der.sequence(der.oid("1.2.840.113549.1.1.1"), der.null()), der.bit_string(key))


def _wishes() -> list[BadCsr]:
    extension, usage = "RW-CSR-EXTENSION", "RW-CSR-USAGE"
    constraints = partial(parts.extension, parts.BASIC_CONSTRAINTS, critical=True)
    true = der.boolean(True)
    other_eku = {
        "anyExtendedKeyUsage": "2.5.29.37.0",
        "OCSPSigning": "1.3.6.1.5.5.7.3.9",
        "timeStamping": "1.3.6.1.5.5.7.3.8",
        "codeSigning": "1.3.6.1.5.5.7.3.3",
        "smartcard logon": "1.3.6.1.4.1.311.20.2.2",
    }
    rows = [
        BadCsr(38, "names nobody", lambda: parts.raw_csr(attributes=[]), "RW-CSR-EMPTY", None, needs_profile=True),
        BadCsr(42, "unknown critical", lambda: _with(parts.extension("1.2.3.4", der.null(), critical=True)), extension),
        BadCsr(42, "CT poison", lambda: _with(parts.extension(_POISON, der.null(), critical=True)), extension),
        BadCsr(45, "CA:true", lambda: _with(constraints(der.sequence(true))), "RW-CSR-CA"),
        BadCsr(
            45, "CA:true, not critical", lambda: _with(parts.extension("2.5.29.19", der.sequence(true))), "RW-CSR-CA"
        ),
        BadCsr(46, "pathLen -1", lambda: _with(constraints(der.sequence(true, der.integer(-1)))), "RW-CSR-CA"),
        BadCsr(46, "pathLen 2^64", lambda: _with(constraints(der.sequence(true, der.integer(2**64)))), "RW-CSR-CA"),
        BadCsr(46, "pathLen without CA", lambda: _with(constraints(der.sequence(der.integer(0)))), "RW-CSR-CA"),
        BadCsr(48, "keyCertSign", lambda: _with(parts.key_usage(0x06, unused=1)), usage, needs_profile=True),
        BadCsr(49, "empty extKeyUsage", lambda: _with(parts.eku()), extension),
        BadCsr(
            50, "Application-Policies", lambda: _with(parts.extension(_APPLICATION_POLICIES, der.sequence())), extension
        ),
        BadCsr(
            54,
            "must-staple",
            lambda: _with(parts.extension(parts.TLS_FEATURE, b"\x30\3\2\1\5")),
            extension,
            needs_profile=True,
        ),
        BadCsr(
            54, "unknown TLS feature", lambda: _with(parts.extension(parts.TLS_FEATURE, b"\x30\3\2\1\x10")), extension
        ),
        BadCsr(116, "empty subjectAltName", lambda: _names(), extension, "names"),
    ]
    rows += [
        BadCsr(48, name, lambda oid=oid: _with(parts.eku(oid)), usage, needs_profile=True)  # type: ignore[misc]  # mypy cannot infer a lambda's default
        for name, oid in other_eku.items()
    ]
    return rows


_APPLICATION_POLICIES = "1.3.6.1.4.1.311.21.10"
_POISON = "1.3.6.1.4.1.11129.2.4.3"


def _with(*extensions: bytes) -> bytes:
    return _extensions(parts.GOOD_SAN, *extensions)


def _subjects() -> list[BadCsr]:
    subject, malformed = "RW-CSR-SUBJECT", "RW-CSR-MALFORMED"
    cn, rdn = parts.common_name, parts.rdn

    def row(number: int, title: str, code: str, *rdns: bytes) -> BadCsr:
        return BadCsr(number, title, partial(_subject, *rdns), code)

    values = {
        "empty": "",
        "a space": " ",
        "a space in front": " a.internal",
        "a control character": "a\x07.internal",
        "NUL": "a.internal\0.evil",
        "bidi override": "a\u202elanretni",
        "bidi isolate": "a\u2066.internal",
        "newline": "a.internal\nb",
        "zero width": "a\u200b.internal",
        "private use": "a\ue000",
        "65 characters": "a" * 65,
    }
    rows = [row(62, f"CN {title}", subject, cn(value)) for title, value in values.items()]
    rows += [
        BadCsr(58, "CN not in subjectAltName", partial(_subject, cn("b.internal")), subject, None, needs_profile=True),
        row(60, "two CNs", subject, cn("a.internal"), cn("b.internal")),
        row(60, "two CNs in one name", subject, der.set_of(cn("a")[2:], cn("b")[2:])),
        row(61, "CN an IPv4 address", subject, cn("10.0.0.1")),
        row(61, "CN an IPv6 address", subject, cn("fd00::1")),
        row(61, "CN an address in brackets", subject, cn("[fd00::1]")),
        row(62, "CN a BMPString", subject, cn("ab".encode("utf-16-be"), der.BMP_STRING)),
        row(62, "CN a TeletexString", subject, cn(b"ab", der.TELETEX_STRING)),
        row(62, "CN an IA5String", subject, cn(b"ab", der.IA5_STRING)),
        row(64, "invalid UTF-8", malformed, cn(b"a\xff.internal")),
        row(64, "overlong UTF-8", malformed, cn(b"a\xc0\xae.internal")),
        row(64, "a surrogate in UTF-8", malformed, cn(b"\xed\xa0\x80")),
        row(65, "PrintableString with @", malformed, cn(b"a@b", der.PRINTABLE_STRING)),
        row(65, "PrintableString with *", malformed, cn(b"*.internal", der.PRINTABLE_STRING)),
        row(66, "country of three letters", subject, rdn("2.5.4.6", b"DEU", der.PRINTABLE_STRING)),
        row(66, "country of digits", subject, rdn("2.5.4.6", b"49", der.PRINTABLE_STRING)),
        row(66, "an empty relative name", malformed, der.set_of()),
        row(66, "an attribute that is a number", malformed, der.set_of(der.integer(5))),
        row(66, "21 attributes", subject, *[rdn("2.5.4.11", b"unit %d" % number) for number in range(21)]),
    ]
    return rows


def _bad_names() -> list[BadCsr]:
    """The names of 52, 56, 69 to 105, 109 to 114; each alone in a subjectAltName."""
    wrong, kind, permitted = "RW-NAME", "RW-NAME-TYPE", "RW-NAME-PERMITTED"
    hosts: list[tuple[int, str, bytes]] = [
        (69, "empty", b""),
        (70, "a dot", b"."),
        (72, "trailing dot", b"a.internal."),
        (73, "empty label", b"a..internal"),
        (73, "dot in front", b".internal"),
        (74, "label of 64", b"a" * 64 + b".internal"),
        (74, "254 characters", b".".join([b"a" * 60] * 4) + b".internalxy"),
        (76, "11 labels", b"a." * 10 + b"internal"),
        (77, "underscore", b"a_b.internal"),
        (78, "hyphen in front", b"-a.internal"),
        (78, "hyphen at the end", b"a-.internal"),
        (80, "NUL", b"a.internal\0.evil"),
        (81, "newline", b"a.internal\n"),
        (81, "carriage return", b"a.internal\rb"),
        (81, "a space", b"a .internal"),
        (82, "URL", b"http://a.internal"),
        (82, "markup", b"<script>.internal"),
        (84, "path", b"a.internal/b"),
        (85, "address", b"a@b.internal"),
        (86, "UTF-8", "b\u00fccher.internal".encode()),
        (86, "Latin-1", b"b\xfccher.internal"),
        (88, "IPv4", b"10.0.0.1"),
        (89, "hexadecimal IPv4", b"0x7f.1"),
        (89, "hexadecimal number", b"0x7f000001"),
        (89, "decimal IPv4", b"2130706433"),
        (89, "short IPv4", b"127.1"),
        (90, "IPv6 in brackets", b"[::1]"),
        (90, "IPv6", b"::1"),
        (94, "a star", b"*"),
        (94, "a star and a dot", b"*."),
        (96, "two stars", b"*.*.internal"),
        (97, "a star inside", b"a.*.internal"),
        (98, "a star in a label", b"f*o.internal"),
        (98, "a star at a label's end", b"a*.internal"),
        (100, "a star above an address", b"*.127.0.0.1"),
        (101, "bad punycode", b"xn--99999999.internal"),
        (101, "empty A-label", b"xn--.internal"),
        (101, "reserved label", b"ab--c.internal"),
        (102, "A-label of ASCII", b"xn--abc-.internal"),
        (102, "A-label not normalised", b"xn--" + "bu\u0308cher".encode("punycode") + b".internal"),
        (102, "A-label of an upper-case letter", b"xn--" + "b\u00dccher".encode("punycode") + b".internal"),
        (102, "A-label of an emoji", b"xn--ls8h.internal"),
        (105, "a star above an A-label", b"*.xn--bcher-kva.internal"),
    ]
    rows = [BadCsr(number, title, partial(_names, parts.dns(value)), wrong, "names") for number, title, value in hosts]
    mixed = "p\u0430ypal".encode("idna") + b".internal"  # a Cyrillic letter among Latin ones
    others: list[tuple[int, str, bytes, str]] = [
        (52, "UPN", parts.upn("admin@a.internal"), kind),
        (104, "mixed scripts", parts.dns(mixed), "RW-NAME-SCRIPT"),
        *((109, f"{size} octets", parts.ip(bytes([10] * size)), wrong) for size in (0, 3, 5, 8, 15, 17, 32)),
        (110, "unspecified", parts.ip(bytes(4)), wrong),
        (110, "multicast", parts.ip(bytes([224, 0, 0, 1])), wrong),
        (110, "broadcast", parts.ip(b"\xff" * 4), wrong),
        (110, "link-local", parts.ip(bytes([169, 254, 169, 254])), wrong),
        (110, "::", parts.ip(bytes(16)), wrong),
        (110, "link-local v6", parts.ip(b"\xfe\x80" + bytes(13) + b"\1"), wrong),
        (110, "multicast v6", parts.ip(b"\xff\x02" + bytes(13) + b"\1"), wrong),
        (110, "IPv4-mapped", parts.ip(bytes(10) + b"\xff\xff\x7f\0\0\1"), wrong),
        (110, "NAT64", parts.ip(b"\0\x64\xff\x9b" + bytes(8) + b"\x0a\0\0\1"), wrong),
        (110, "6to4", parts.ip(b"\x20\x02\x0a" + bytes(13)), wrong),
        (112, "e-mail without @", parts.email(b"admin.internal"), wrong),
        (112, "e-mail with NUL", parts.email(b"admin@a.internal\0.evil"), wrong),
        (112, "e-mail, quoted", parts.email(b'"a b"@a.internal'), wrong),
        (112, "e-mail without a local part", parts.email(b"@a.internal"), wrong),
        (112, "e-mail at a non-ASCII host", parts.email("a@b\u00fccher.internal".encode()), wrong),
        (112, "e-mail at an address", parts.email(b"a@[10.0.0.1]"), wrong),
        (112, "e-mail at a wildcard", parts.email(b"a@*.internal"), wrong),
        (112, "two addresses", parts.email(b"a@b@a.internal"), wrong),
        (113, "URI without a scheme", parts.uri(b"//a.internal/x"), wrong),
        (113, "URI of nothing", parts.uri(b"https:"), wrong),
        (113, "javascript", parts.uri(b"javascript:alert(1)"), wrong),
        (113, "JavaScript", parts.uri(b"JavaScript:alert(1)"), wrong),
        (113, "data", parts.uri(b"data:text/html,x"), wrong),
        (113, "URI of over 2 KiB", parts.uri(b"https://a.internal/" + b"x" * 2048), wrong),
        (113, "URI with a password", parts.uri(b"https://a:b@a.internal/"), wrong),
        (113, "URI with a fragment", parts.uri(b"https://a.internal/#x"), wrong),
        (113, "URI with a dot segment", parts.uri(b"https://a.internal/x/../y"), wrong),
        (113, "URI with a hidden slash", parts.uri(b"https://a.internal/x%2f..%2fy"), wrong),
        (113, "URI with a space", parts.uri(b"https://a.internal/x y"), wrong),
        (113, "URI with NUL", parts.uri(b"https://a.internal/\0"), wrong),
        (113, "URI outside ASCII", parts.uri("https://a.internal/\u00fc".encode()), wrong),
        (113, "SPIFFE with a query", parts.uri(b"spiffe://a.internal/x?y"), wrong),
        (113, "SPIFFE with a user", parts.uri(b"spiffe://u@a.internal/x"), wrong),
        (113, "SPIFFE with a port", parts.uri(b"spiffe://a.internal:443/x"), wrong),
        (113, "SPIFFE in upper case", parts.uri(b"spiffe://A.internal/x"), wrong),
        (113, "SPIFFE with a slash at its end", parts.uri(b"spiffe://a.internal/x/"), wrong),
        (113, "SPIFFE with an empty segment", parts.uri(b"spiffe://a.internal//x"), wrong),
        (113, "SPIFFE with dots", parts.uri(b"spiffe://a.internal/../x"), wrong),
        (113, "SPIFFE with per cent", parts.uri(b"spiffe://a.internal/%61"), wrong),
        (113, "SPIFFE without a trust domain", parts.uri(b"spiffe:///x"), wrong),
        (114, "directoryName", parts.directory_name(), kind),
        (114, "x400Address", der.explicit(3), kind),
        (114, "ediPartyName", der.explicit(5, der.explicit(1, der.utf8_string("x"))), kind),
        (114, "registeredID", der.implicit(8, b"\x2a\x03"), kind),
        (114, "otherName", der.explicit(0, der.oid("1.2.3.4"), der.explicit(0, der.null())), kind),
    ]
    rows += [BadCsr(number, title, partial(_names, name), code, "names") for number, title, name, code in others]
    many = [parts.dns(b"a%d.internal" % number) for number in range(101)]
    rows += [BadCsr(56, "101 names", partial(_names, *many), "RW-TOO-MANY", "names")]
    rows += [
        BadCsr(number, title, partial(_names, name), permitted, "names", needs_profile=True)
        for number, title, name in (
            (92, "a top-level domain", parts.dns(b"com")),
            (106, "another suffix", parts.dns(b"a.example.com")),
            (106, "the suffix itself", parts.dns(b"internal")),
            (106, "the suffix inside", parts.dns(b"a.internal.example.com")),
            (106, "the suffix glued on", parts.dns(b"evilinternal")),
            (113, "another SPIFFE trust domain", parts.uri(b"spiffe://example.com/x")),
        )
    ]
    return rows


BAD_CSRS: list[BadCsr] = [
    *_syntax(),
    *_signatures(),
    *_keys(),
    *_wishes(),
    *_subjects(),
    *_bad_names(),
    BadCsr(37, "a key of somebody else's", good_csr, "RW-KEY-IN-USE", None, needs_profile=True),
]

_WISHED = der.sequence(parts.GOOD_SAN)

# What must be read although it is unusual, by title.
GOOD_CSRS: dict[str, Callable[[], bytes]] = {
    **{key_type: partial(good_csr, key_type) for key_type in parts.KEY_TYPES},
    "no attributes": lambda: parts.raw_csr(attributes=[]),
    "CN and name": lambda: good_csr(cn="a.internal"),
    "Microsoft's attribute alone": lambda: _microsoft(parts.attribute(parts.MICROSOFT_EXTENSIONS, _WISHED)),
    "two attributes that agree": lambda: _microsoft(
        parts.attribute(parts.MICROSOFT_EXTENSIONS, _WISHED), parts.attribute(parts.EXTENSION_REQUEST, _WISHED)
    ),
    "CA:false": lambda: _with(parts.extension(parts.BASIC_CONSTRAINTS, der.sequence(), critical=True)),
    "NEW CERTIFICATE REQUEST": lambda: pem(good_csr(), "NEW CERTIFICATE REQUEST"),
    "PEM with CRLF": lambda: pem(good_csr()).replace(b"\n", b"\r\n"),
    "PEM with space around": lambda: b"\n\n " + pem(good_csr()) + b"\n\n",
    "PSS": lambda: _pss(parts.SHA256, parts.SHA256, 32),
    "every kind of name": lambda: good_csr(
        names=["dns:*.a.internal", "ip:10.0.0.1", "ip:fd00::1", "uri:spiffe://a.internal/x", "email:x@a.internal"]
    ),
    "100 names": lambda: good_csr(names=[f"dns:a{number}.internal" for number in range(100)]),
}


def _microsoft(*attributes: bytes) -> bytes:
    return parts.raw_csr(attributes=attributes)
