"""PKCS#12 (RFC 7292), as far as an inventory needs it: the certificates of one file, byte for byte. Its keys are looked
at to see that they belong, and are gone with the call.

Every step that costs is counted before it is made: the iterations of all key derivations of a file have one budget, and
the algorithms are a short list (PBES2 with PBKDF2 and AES, SHA-1 with 3DES; RFC 8018, RFC 7292 B). Files without a MAC,
with RC2 or RC4, with public-key protection, with bags inside bags or in BER are refused. A password that was not given
opens what was made with none and what was made with an empty one.

What cannot be opened is a Problem RW-IMPORT or RW-IMPORT-PASSWORD.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator
from typing import NamedTuple

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_private_key

from rootward.core import der
from rootward.core.pbe import (
    MAX_PASSWORD,
    MAX_SALT,
    PRFS,
    Budget,
    Cipher,
    Password,
    Stretch,
    algorithm_of,
    exactly,
    inside,
    old_key,
    refusal,
    small,
    variants,
)
from rootward.core.problems import Problem

MAX_BAGS = 10_000
MAX_BOXES = 100  # ContentInfos

_DATA, _ENCRYPTED = "1.2.840.113549.1.7.1", "1.2.840.113549.1.7.6"
_BAGS = "1.2.840.113549.1.12.10.1."
_KEY_BAG, _SHROUDED, _CERT_BAG, _NESTED = (_BAGS + n for n in ("1", "2", "3", "6"))
_X509 = "1.2.840.113549.1.9.22.1"
_PBMAC1 = "1.2.840.113549.1.5.14"
_HASHES = {
    "1.3.14.3.2.26": "sha1",
    "2.16.840.1.101.3.4.2.4": "sha224",
    "2.16.840.1.101.3.4.2.1": "sha256",
    "2.16.840.1.101.3.4.2.2": "sha384",
    "2.16.840.1.101.3.4.2.3": "sha512",
}


class Opened(NamedTuple):
    """The certificates of a file (DER, in its order), how many private keys it holds, and how many certificates of
    other kinds.
    """

    certificates: tuple[bytes, ...]
    keys: int
    others: int


def is_pkcs12(data: bytes) -> bool:
    """Whether `data` begins as a PFX does: a SEQUENCE with version 3 and a ContentInfo."""
    try:
        parts = der.few(data, der.only(data, der.SEQUENCE))
    except der.DerError:
        return False
    return len(parts) in (2, 3) and parts[0].tag == der.INTEGER and parts[1].tag == der.SEQUENCE


def open_pkcs12(data: bytes, password: str | None) -> Opened:
    """What is in the file; Problem RW-IMPORT, or RW-IMPORT-PASSWORD where the MAC is another one."""
    if password is not None and len(password) > MAX_PASSWORD:
        raise Problem("RW-IMPORT-PASSWORD", f"A password has at most {MAX_PASSWORD} characters.", field="password")
    try:
        return _File(data).unlock(password)
    except der.DerError as error:
        raise refusal(f"the PKCS#12 file cannot be read: {error}") from None


class _File:
    """One PFX, walked with offsets into its bytes."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._budget = Budget()
        self._bags = self._keys = self._others = 0
        self._certificates: list[bytes] = []
        self._publics: set[bytes] = set()

    def unlock(self, password: str | None) -> Opened:
        data = self._data
        parts = der.few(data, der.only(data, der.SEQUENCE))
        if len(parts) == 2:
            raise refusal("the PKCS#12 file has no MAC, so nobody can tell who made it")
        safe = _content_info(data, parts[1], _DATA)
        authenticated = der.content(data, der.only(data, der.OCTET_STRING, start=safe.start, end=safe.end))
        boxes = der.few(authenticated, der.only(authenticated, der.SEQUENCE), MAX_BOXES)
        for box in boxes:  # all that stands open is counted before the first derivation
            self._count(authenticated, box)
        secret = self._mac(data, parts[2], authenticated, password)
        for box in boxes:
            self._contents(self._plain(authenticated, box, secret), secret)
        if self._publics and not self._publics <= {_spki(one) for one in self._certificates}:
            raise refusal("the PKCS#12 file holds a key that none of its certificates is for")
        return Opened(tuple(self._certificates), self._keys, self._others)

    def _count(self, data: bytes, box: der.Item) -> None:
        kind, value = _typed(data, box)
        if kind == _ENCRYPTED:
            Cipher.read(data, _encrypted(data, value)[0]).charge(self._budget)
        elif kind != _DATA:
            raise refusal("the PKCS#12 file is protected in a way that we do not read")

    def _mac(self, data: bytes, item: der.Item, over: bytes, password: str | None) -> Password:
        secrets = variants(password)
        parts = der.few(data, item)
        tags = [part.tag for part in parts]
        if tags not in ([der.SEQUENCE, der.OCTET_STRING], [der.SEQUENCE, der.OCTET_STRING, der.INTEGER]):
            raise der.DerError("its MAC is none")
        algorithm, expected = exactly(data, parts[0], der.SEQUENCE, der.OCTET_STRING)
        oid, parameters = algorithm_of(data, algorithm)
        salt = der.content(data, parts[1])
        iterations = small(der.content(data, parts[2])) if len(parts) == 3 else 1
        if oid == _PBMAC1:
            derive, scheme = exactly(data, inside(parameters), der.SEQUENCE, der.SEQUENCE)
            stretch = Stretch.read(data, derive)
            digest = PRFS.get(algorithm_of(data, scheme)[0])
            self._budget.take(stretch.iterations, old=False, times=len(secrets))
        else:
            stretch, digest = None, _HASHES.get(oid)
            self._budget.take(iterations, old=True, times=len(secrets))
        if digest is None:
            raise refusal("the PKCS#12 file's MAC is of a kind that we do not read")
        if len(salt) > MAX_SALT:
            raise refusal("the PKCS#12 file's salt is too long")
        for secret in secrets:
            if stretch is None:
                size = hashlib.new(digest, usedforsecurity=False).digest_size
                key = old_key(digest, 3, secret.bmp, salt, iterations, size)
            else:
                key = stretch.key(secret, stretch.size or hashlib.new(digest).digest_size)
            if hmac.compare_digest(hmac.digest(key, over, digest), der.content(data, expected)):
                return secret
        detail = "The password is wrong, or the file was changed."
        if password is None:
            detail = "No password was given, and the file has one (or it was changed)."
        raise Problem("RW-IMPORT-PASSWORD", detail, field="password")

    def _plain(self, data: bytes, box: der.Item, secret: Password) -> bytes:
        kind, value = _typed(data, box)
        if kind == _DATA:
            return der.content(data, der.only(data, der.OCTET_STRING, start=value.start, end=value.end))
        algorithm, sealed = _encrypted(data, value)
        return Cipher.read(data, algorithm).unseal(secret, sealed)

    def _contents(self, data: bytes, secret: Password) -> None:
        """SafeContents: counted whole, then opened."""
        bags = list(_bags(data))
        self._bags += len(bags)
        if self._bags > MAX_BAGS:
            raise refusal(f"the PKCS#12 file has more than {MAX_BAGS} bags")
        shrouded = []
        for kind, value in bags:
            if kind == _NESTED:
                raise refusal("the PKCS#12 file has bags inside bags")
            if kind == _CERT_BAG:
                self._certificate(data, value)
            elif kind in (_KEY_BAG, _SHROUDED):
                self._keys += 1
                if kind == _KEY_BAG:
                    self._belongs(der.whole(data, value))
                else:
                    algorithm, sealed = exactly(data, value, der.SEQUENCE, der.OCTET_STRING)
                    cipher = Cipher.read(data, algorithm)
                    cipher.charge(self._budget)
                    shrouded.append((cipher, der.content(data, sealed)))
        for cipher, octets in shrouded:
            self._belongs(cipher.unseal(secret, octets))

    def _certificate(self, data: bytes, value: der.Item) -> None:
        kind, holder = _typed(data, value)
        if kind != _X509:
            self._others += 1
            return
        octets = der.only(data, der.OCTET_STRING, start=holder.start, end=holder.end)
        self._certificates.append(der.content(data, octets))

    def _belongs(self, pkcs8: bytes) -> None:
        """Keep the public half, to be found in a certificate. Of a kind that we cannot read, nobody can tell."""
        try:
            key = load_der_private_key(pkcs8, None, unsafe_skip_rsa_key_validation=True)
        except UnsupportedAlgorithm:
            return
        except (ValueError, TypeError):
            raise refusal("a key of the PKCS#12 file cannot be read") from None
        self._publics.add(key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def _content_info(data: bytes, item: der.Item, wanted: str) -> der.Item:
    kind, value = _typed(data, item)
    if kind != wanted:
        raise refusal("the PKCS#12 file is protected in a way that we do not read")
    return value


def _typed(data: bytes, item: der.Item) -> tuple[str, der.Item]:
    """SEQUENCE { type OID, [0] EXPLICIT value }: the type, and the value itself."""
    oid, holder = exactly(data, item, der.OID, 0xA0)
    return der.read_oid(der.content(data, oid)), der.header(data, holder.body, holder.end)


def _encrypted(data: bytes, value: der.Item) -> tuple[der.Item, bytes]:
    """EncryptedData: its algorithm, and what is encrypted."""
    parts = der.few(data, value) if value.tag == der.SEQUENCE else []
    if len(parts) < 2 or parts[0].tag != der.INTEGER:
        raise der.DerError("its encrypted data is none")
    _, algorithm, sealed = exactly(data, parts[1], der.OID, der.SEQUENCE, 0x80)
    return algorithm, der.content(data, sealed)


def _bags(data: bytes) -> Iterator[tuple[str, der.Item]]:
    """The type and value of each bag of a SafeContents."""
    for count, bag in enumerate(der.items(data, der.only(data, der.SEQUENCE))):
        if count > MAX_BAGS:
            raise refusal(f"the PKCS#12 file has more than {MAX_BAGS} bags")
        parts = der.few(data, bag) if bag.tag == der.SEQUENCE else []
        if [part.tag for part in parts] not in ([der.OID, 0xA0], [der.OID, 0xA0, der.SET]):
            raise der.DerError("a bag is none")
        yield der.read_oid(der.content(data, parts[0])), der.header(data, parts[1].body, parts[1].end)


def _spki(certificate: bytes) -> bytes:
    """The SubjectPublicKeyInfo of a certificate, b"" where it has none."""
    try:
        tbs = next(der.items(certificate, der.only(certificate, der.SEQUENCE)))
        fields = [item for item in der.few(certificate, tbs) if item.tag != 0xA0]
        return der.whole(certificate, fields[5])
    except (der.DerError, IndexError, StopIteration):
        return b""
