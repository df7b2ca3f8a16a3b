"""The parts that certificate requests are made of, right and wrong, as DER: what `csrs` builds its table from.

`good_csr` is a request as clients make it; `raw_csr` puts one together from any parts and signs it.
"""

from __future__ import annotations

import base64
import functools
from collections.abc import Callable, Iterable
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, padding, rsa

from rootward.core import der
from rootward.core.names import parse_name, to_general_name

EXTENSION_REQUEST = "1.2.840.113549.1.9.14"
MICROSOFT_EXTENSIONS = "1.3.6.1.4.1.311.2.1.14"
COMMON_NAME = "2.5.4.3"
SAN, KEY_USAGE, BASIC_CONSTRAINTS, EKU = "2.5.29.17", "2.5.29.15", "2.5.29.19", "2.5.29.37"
TLS_FEATURE = "1.3.6.1.5.5.7.1.24"

ECDSA_SHA256 = der.sequence(der.oid("1.2.840.10045.4.3.2"))
RSA_SHA256 = der.sequence(der.oid("1.2.840.113549.1.1.11"), der.null())

_MAKERS: dict[str, Callable[[], Any]] = {
    "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "p521": lambda: ec.generate_private_key(ec.SECP521R1()),
    "brainpool-p256r1": lambda: ec.generate_private_key(ec.BrainpoolP256R1()),
    "brainpool-p384r1": lambda: ec.generate_private_key(ec.BrainpoolP384R1()),
    "brainpool-p512r1": lambda: ec.generate_private_key(ec.BrainpoolP512R1()),
    "rsa-2048": lambda: rsa.generate_private_key(65537, 2048),
    "rsa-3072": lambda: rsa.generate_private_key(65537, 3072),
    "rsa-4096": lambda: rsa.generate_private_key(65537, 4096),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
    "ml-dsa-44": mldsa.MLDSA44PrivateKey.generate,
    "ml-dsa-65": mldsa.MLDSA65PrivateKey.generate,
    "ml-dsa-87": mldsa.MLDSA87PrivateKey.generate,
}


KEY_TYPES = tuple(_MAKERS)


@functools.cache
def private_key(key_type: str = "p256") -> Any:
    """One private key of each type for the whole test run."""
    return _MAKERS[key_type]()


def spki_of(key: Any) -> bytes:
    """The SubjectPublicKeyInfo of a private or public key."""
    public = key.public_key() if hasattr(key, "public_key") else key
    encoded: bytes = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return encoded


def pem(data: bytes, label: str = "CERTIFICATE REQUEST") -> bytes:
    """The PEM form of a DER request; what does not begin as DER is given back as it is."""
    if data[:1] != b"\x30":
        return data
    body = base64.encodebytes(data).replace(b"\n", b"")
    lines = b"\n".join(body[at : at + 64] for at in range(0, len(body), 64))
    return b"-----BEGIN %s-----\n%s\n-----END %s-----\n" % (label.encode(), lines, label.encode())


def good_csr(
    key_type: str = "p256", *, names: Iterable[str] = ("dns:a.internal",), cn: str | None = None, key: Any = None
) -> bytes:
    """The DER of a request as clients make it, by `cryptography`'s builder; names as `dns:…`, `ip:…`."""
    key = key or private_key(key_type)
    subject = x509.Name([] if cn is None else [x509.NameAttribute(x509.NameOID.COMMON_NAME, cn)])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    general = [to_general_name(parse_name(name)) for name in names]
    if general:
        builder = builder.add_extension(x509.SubjectAlternativeName(general), critical=False)
    algorithm = hashes.SHA256() if key_type.startswith(("rsa", "p", "brainpool")) else None
    return builder.sign(key, algorithm).public_bytes(serialization.Encoding.DER)


# The same from plain DER, so that anything can be wrong with it


def extension(oid: str, value: bytes, *, critical: bool = False) -> bytes:
    return der.sequence(der.oid(oid), *([der.boolean(True)] if critical else []), der.octet_string(value))


def attribute(oid: str, *values: bytes) -> bytes:
    return der.sequence(der.oid(oid), der.set_of(*values))


def dns(value: bytes) -> bytes:
    """A GeneralName of the type dNSName around any octets."""
    return der.implicit(2, value)


def san(*names: bytes) -> bytes:
    return extension(SAN, der.sequence(*names))


def rdn(oid: str, value: bytes, tag: int = der.UTF8_STRING) -> bytes:
    return der.set_of(der.sequence(der.oid(oid), der.tlv(tag, value)))


def common_name(value: str | bytes, tag: int = der.UTF8_STRING) -> bytes:
    return rdn(COMMON_NAME, value.encode() if isinstance(value, str) else value, tag)


GOOD_SAN = san(dns(b"a.internal"))


def sign(key: Any, data: bytes) -> bytes:
    """A signature with SHA-256, as `ECDSA_SHA256` and `RSA_SHA256` say."""
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return key.sign(data, ec.ECDSA(hashes.SHA256()))
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(data, padding.PKCS1v15(), hashes.SHA256())
    signature: bytes = key.sign(data)
    return signature


def raw_csr(
    *,
    rdns: Iterable[bytes] = (),
    extensions: Iterable[bytes] = (GOOD_SAN,),
    attributes: Iterable[bytes] | None = None,
    key: Any = None,
    spki: bytes | None = None,
    version: int = 0,
    algorithm: bytes | None = None,
    signature: Callable[[bytes], bytes] | None = None,
) -> bytes:
    """A request of these parts, with a right signature unless `signature` makes another."""
    key = key or private_key()
    if attributes is None:
        attributes = [attribute(EXTENSION_REQUEST, der.sequence(*extensions))]
    info = der.sequence(
        der.integer(version),
        der.sequence(*rdns),
        spki or spki_of(key),
        der.explicit(0, *sorted(attributes)),
    )
    algorithm = algorithm or (RSA_SHA256 if isinstance(key, rsa.RSAPrivateKey) else ECDSA_SHA256)
    signed = sign(key, info) if signature is None else signature(info)
    return der.sequence(info, algorithm, der.bit_string(signed))


# Public keys


def ec_spki(curve: str, point: bytes) -> bytes:
    return der.sequence(der.sequence(der.oid("1.2.840.10045.2.1"), der.oid(curve)), der.bit_string(point))


P256 = "1.2.840.10045.3.1.7"


def p256_point() -> bytes:
    return spki_of(private_key())[-65:]


def rsa_spki(modulus: int, exponent: int = 65537, *, parameters: bytes = b"\x05\x00") -> bytes:
    key = der.sequence(der.integer(modulus), der.integer(exponent))
    return der.sequence(der.sequence(der.oid("1.2.840.113549.1.1.1"), parameters), der.bit_string(key))


def good_modulus() -> int:
    modulus: int = private_key("rsa-2048").public_key().public_numbers().n
    return modulus


def roca_modulus() -> int:
    """2048 bits of the form that Infineon's library gave its moduli (CVE-2017-15361): primes k*M + (65537^a mod M)."""
    primes = [n for n in range(2, 702) if all(n % d for d in range(2, int(n**0.5) + 1))]
    product = functools.reduce(lambda a, b: a * b, primes)
    k, a = 2**1023 // product + 12345, 424242
    first = k * product + pow(65537, a, product)
    while True:
        k += 1
        modulus = first * (k * product + pow(65537, a + k % 1000, product))
        if modulus.bit_length() == 2048 and all(modulus % n for n in range(702, 752)):
            return modulus
        if modulus.bit_length() < 2048:
            k += k // 2


def close_modulus() -> int:
    """2048 bits whose two factors differ by a few thousand (CVE-2022-26320)."""
    factor = (1 << 1024) - 1093337
    modulus = factor * (factor - 2 * 1117)
    while any(modulus % n == 0 for n in range(2, 752)):
        factor -= 2
        modulus = factor * (factor - 2 * 1117)
    return modulus


def explicit_p256_spki() -> bytes:
    """P-256 with its parameters spelled out (RFC 3279 2.3.5), which RFC 5480 2.1.1 forbids."""
    p = 2**256 - 2**224 + 2**192 + 2**96 - 1
    b = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
    n = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    g = ec.derive_private_key(1, ec.SECP256R1()).public_key()
    generator = g.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
    parameters = der.sequence(
        der.integer(1),
        der.sequence(der.oid("1.2.840.10045.1.1"), der.integer(p)),
        der.sequence(der.octet_string((p - 3).to_bytes(32, "big")), der.octet_string(b.to_bytes(32, "big"))),
        der.octet_string(generator),
        der.integer(n),
        der.integer(1),
    )
    return der.sequence(der.sequence(der.oid("1.2.840.10045.2.1"), parameters), der.bit_string(p256_point()))


# testECCP256 and testRSA2048 of RFC 9500, whose private halves everybody knows.
RFC9500_P256 = 0xE6CB5BDD80AA45AE9C95E8C15476679FFEC953C16851E711E743939589C64FC1
RFC9500_RSA_2048 = base64.urlsafe_b64decode(
    "sPnoGUOnrpiSqt4XynxA-HRP7S-BSObI6qJ7fQAVSPtRkqsotWxQYLEYzNEx5ZSHTGypibVsJylvCfuToDTfMul8b_CZjP2Ob0LdpYrNH6l5hvFE"
    "89FU1nZQF15oVLOpUgA7wGiHuEVawrGfey92UE68mOyUVXGweJIVDdxqdMoPvNNUl86BU02vlBiESxOuox-dWmuVV7vfYZ79Toh_LUK43YvJh-rh"
    "v4nKuF7iHjVjBd9sB6iDjj70HFldzOQ9r8SRI-9NirupPTkF5AKNe6kUhKJ1luB7S27ZkvB3tSTT3P593VVJvnzOjaA1z6Cz-4-eRvcysqhrRgFl"
    "wI9TEw=="
)


def rfc9500_p256() -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(RFC9500_P256, ec.SECP256R1())


SMALL_ORDER_ED25519 = tuple(
    bytes.fromhex(text)
    for text in (
        "0100000000000000000000000000000000000000000000000000000000000000",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0000000000000000000000000000000000000000000000000000000000000080",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    )
)


def ed25519_spki(point: bytes) -> bytes:
    return der.sequence(der.sequence(der.oid("1.3.101.112")), der.bit_string(point))


# Signatures


def pss_csr(parameters: bytes, *, salt: int = 32, digest: hashes.HashAlgorithm | None = None) -> bytes:
    """A request signed with RSA-PSS, its AlgorithmIdentifier carrying these parameters."""
    hash_ = digest or hashes.SHA256()
    key = private_key("rsa-2048")
    return raw_csr(
        key=key,
        algorithm=der.sequence(der.oid("1.2.840.113549.1.1.10"), parameters),
        signature=lambda info: key.sign(info, padding.PSS(padding.MGF1(hash_), salt), hash_),
    )


def pss_parameters(digest: str, mgf_digest: str, salt: int) -> bytes:
    inner = der.sequence(der.oid(mgf_digest), der.null())
    return der.sequence(
        der.explicit(0, der.sequence(der.oid(digest), der.null())),
        der.explicit(1, der.sequence(der.oid("1.2.840.113549.1.1.8"), inner)),
        der.explicit(2, der.integer(salt)),
    )


SHA256, SHA384 = "2.16.840.1.101.3.4.2.1", "2.16.840.1.101.3.4.2.2"


def other_algorithm(oid: str, key_type: str = "p256", *, null: bool = False) -> bytes:
    """A request that names another signature algorithm than the one that signed it."""
    algorithm = der.sequence(der.oid(oid), *([der.null()] if null else []))
    return raw_csr(key=private_key(key_type), algorithm=algorithm)


def ecdsa(r: int, s: int) -> Callable[[bytes], bytes]:
    return lambda _info: der.sequence(der.integer(r), der.integer(s))


def ecdsa_ber(info: bytes) -> bytes:
    """A right signature whose SEQUENCE length is in long form."""
    signature = sign(private_key(), info)
    return signature[:1] + b"\x81" + signature[1:]


def other_key(info: bytes) -> bytes:
    return sign(ec.derive_private_key(7, ec.SECP256R1()), info)


def long_form(data: bytes) -> bytes:
    """The outermost length in four octets where fewer do."""
    outer = der.header(data, 0, len(data))
    return b"\x30\x84" + (outer.end - outer.body).to_bytes(4, "big") + data[outer.body :]


def nested(depth: int) -> bytes:
    """An empty SEQUENCE in a SEQUENCE in a … `depth` deep."""
    parts: list[bytes] = []
    size = 0
    for _ in range(depth):
        head = der.tlv(0x30, b"\0" * size)[: -size or None]
        parts.append(head)
        size += len(head)
    return b"".join(reversed(parts))


# Names


def uri(value: bytes) -> bytes:
    return der.implicit(6, value)


def email(value: bytes) -> bytes:
    return der.implicit(1, value)


def ip(value: bytes) -> bytes:
    return der.implicit(7, value)


def upn(value: str) -> bytes:
    return der.explicit(0, der.oid("1.3.6.1.4.1.311.20.2.3"), der.explicit(0, der.utf8_string(value)))


def directory_name() -> bytes:
    return der.explicit(4, der.sequence(common_name("somebody")))


def key_usage(*octets: int, unused: int = 0) -> bytes:
    return extension(KEY_USAGE, der.bit_string(bytes(octets), unused), critical=True)


def eku(*oids: str) -> bytes:
    return extension(EKU, der.sequence(*map(der.oid, oids)))
