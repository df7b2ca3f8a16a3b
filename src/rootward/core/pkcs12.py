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
from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher, CipherAlgorithm, algorithms, modes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_private_key

from rootward.core import der
from rootward.core.problems import Problem

MAX_ITERATIONS = 2_000_000  # of PBKDF2, in one file: half a second
MAX_OLD_ITERATIONS = 200_000  # of RFC 7292 B.2, which is made here: a tenth of a second
MAX_PASSWORD = 1_000  # characters
MAX_BAGS = 10_000
MAX_BOXES = 100  # ContentInfos
MAX_SALT = 1_024

_DATA, _ENCRYPTED = "1.2.840.113549.1.7.1", "1.2.840.113549.1.7.6"
_BAGS = "1.2.840.113549.1.12.10.1."
_KEY_BAG, _SHROUDED, _CERT_BAG, _NESTED = (_BAGS + n for n in ("1", "2", "3", "6"))
_X509 = "1.2.840.113549.1.9.22.1"
_PBES2, _PBKDF2, _PBMAC1 = (f"1.2.840.113549.1.5.{n}" for n in (13, 12, 14))
_OLD_3DES = {"1.2.840.113549.1.12.1.3": 24, "1.2.840.113549.1.12.1.4": 16}
_AES = {"2.16.840.1.101.3.4.1.2": 16, "2.16.840.1.101.3.4.1.22": 24, "2.16.840.1.101.3.4.1.42": 32}
_PRFS = {
    "1.2.840.113549.2.7": "sha1",
    "1.2.840.113549.2.8": "sha224",
    "1.2.840.113549.2.9": "sha256",
    "1.2.840.113549.2.10": "sha384",
    "1.2.840.113549.2.11": "sha512",
}
_HASHES = {
    "1.3.14.3.2.26": "sha1",
    "2.16.840.1.101.3.4.2.4": "sha224",
    "2.16.840.1.101.3.4.2.1": "sha256",
    "2.16.840.1.101.3.4.2.2": "sha384",
    "2.16.840.1.101.3.4.2.3": "sha512",
}
_BLOCKS = {"sha1": 64, "sha224": 64, "sha256": 64, "sha384": 128, "sha512": 128}


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
        parts = list(der.items(data, der.only(data, der.SEQUENCE)))
    except der.DerError:
        return False
    return len(parts) in (2, 3) and parts[0].tag == der.INTEGER and parts[1].tag == der.SEQUENCE


def open_pkcs12(data: bytes, password: str | None) -> Opened:
    """What is in the file; Problem RW-IMPORT, or RW-IMPORT-PASSWORD where the MAC is another one."""
    if password is not None and len(password) > MAX_PASSWORD:
        raise Problem("RW-IMPORT-PASSWORD", f"A password has at most {MAX_PASSWORD} characters.", field="password")
    try:
        return _File(data).open(password)
    except der.DerError as error:
        raise _refusal(f"the PKCS#12 file cannot be read: {error}") from None


def _refusal(detail: str) -> Problem:
    return Problem("RW-IMPORT", f"{detail[0].upper()}{detail[1:]}.", field="content")


class _Password(NamedTuple):
    """A password as PBKDF2 takes it, and as RFC 7292 B.1 does."""

    utf8: bytes
    bmp: bytes


def _variants(password: str | None) -> tuple[_Password, ...]:
    none, empty = _Password(b"", b""), _Password(b"", b"\0\0")
    if not password:
        return empty, none
    return (_Password(password.encode("utf-8", "replace"), password.encode("utf-16-be", "replace") + b"\0\0"),)


class _Budget:
    """Counts iterations before they are made."""

    def __init__(self) -> None:
        self._new = self._old = 0

    def take(self, iterations: int, *, old: bool, times: int = 1) -> None:
        if old:
            self._old += iterations * times
        else:
            self._new += iterations * times
        if self._new > MAX_ITERATIONS or self._old > MAX_OLD_ITERATIONS:
            raise _refusal("the PKCS#12 file asks for more iterations than we make")


class _File:
    """One PFX, walked with offsets into its bytes."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._budget = _Budget()
        self._bags = self._keys = self._others = 0
        self._certificates: list[bytes] = []
        self._publics: set[bytes] = set()

    def open(self, password: str | None) -> Opened:
        data = self._data
        parts = list(der.items(data, der.only(data, der.SEQUENCE)))
        if len(parts) == 2:
            raise _refusal("the PKCS#12 file has no MAC, so nobody can tell who made it")
        safe = _content_info(data, parts[1], _DATA)
        authenticated = der.content(data, der.only(data, der.OCTET_STRING, start=safe.start, end=safe.end))
        boxes = list(der.items(authenticated, der.only(authenticated, der.SEQUENCE)))
        if len(boxes) > MAX_BOXES:
            raise _refusal("the PKCS#12 file has too many parts")
        for box in boxes:  # all that stands open is counted before the first derivation
            self._count(authenticated, box)
        secret = self._mac(data, parts[2], authenticated, _variants(password))
        for box in boxes:
            self._contents(self._plain(authenticated, box, secret), secret)
        if self._publics and not self._publics <= {_spki(one) for one in self._certificates}:
            raise _refusal("the PKCS#12 file holds a key that none of its certificates is for")
        return Opened(tuple(self._certificates), self._keys, self._others)

    def _count(self, data: bytes, box: der.Item) -> None:
        kind, value = _typed(data, box)
        if kind == _ENCRYPTED:
            _Cipher.read(data, _encrypted(data, value)[0]).charge(self._budget)
        elif kind != _DATA:
            raise _refusal("the PKCS#12 file is protected in a way that we do not read")

    def _mac(self, data: bytes, item: der.Item, over: bytes, variants: tuple[_Password, ...]) -> _Password:
        parts = list(der.items(data, item))
        tags = [part.tag for part in parts]
        if tags not in ([der.SEQUENCE, der.OCTET_STRING], [der.SEQUENCE, der.OCTET_STRING, der.INTEGER]):
            raise der.DerError("its MAC is none")
        algorithm, expected = _exactly(data, parts[0], der.SEQUENCE, der.OCTET_STRING)
        oid, parameters = _algorithm(data, algorithm)
        salt = der.content(data, parts[1])
        iterations = _small(der.content(data, parts[2])) if len(parts) == 3 else 1
        if oid == _PBMAC1:
            derive, scheme = _exactly(data, _inside(parameters), der.SEQUENCE, der.SEQUENCE)
            stretch = _Stretch.read(data, derive)
            digest = _PRFS.get(_algorithm(data, scheme)[0])
            self._budget.take(stretch.iterations, old=False, times=len(variants))
        else:
            stretch, digest = None, _HASHES.get(oid)
            self._budget.take(iterations, old=True, times=len(variants))
        if digest is None:
            raise _refusal("the PKCS#12 file's MAC is of a kind that we do not read")
        if len(salt) > MAX_SALT:
            raise _refusal("the PKCS#12 file's salt is too long")
        for secret in variants:
            if stretch is None:
                size = hashlib.new(digest, usedforsecurity=False).digest_size
                key = _old_key(digest, 3, secret.bmp, salt, iterations, size)
            else:
                key = stretch.key(secret, stretch.size or hashlib.new(digest).digest_size)
            if hmac.compare_digest(hmac.digest(key, over, digest), der.content(data, expected)):
                return secret
        raise Problem("RW-IMPORT-PASSWORD", "The password is wrong, or the file was changed.", field="password")

    def _plain(self, data: bytes, box: der.Item, secret: _Password) -> bytes:
        kind, value = _typed(data, box)
        if kind == _DATA:
            return der.content(data, der.only(data, der.OCTET_STRING, start=value.start, end=value.end))
        algorithm, sealed = _encrypted(data, value)
        return _Cipher.read(data, algorithm).open(secret, sealed)

    def _contents(self, data: bytes, secret: _Password) -> None:
        """SafeContents: counted whole, then opened."""
        bags = list(_bags(data))
        self._bags += len(bags)
        if self._bags > MAX_BAGS:
            raise _refusal(f"the PKCS#12 file has more than {MAX_BAGS} bags")
        shrouded = []
        for kind, value in bags:
            if kind == _NESTED:
                raise _refusal("the PKCS#12 file has bags inside bags")
            if kind == _CERT_BAG:
                self._certificate(data, value)
            elif kind in (_KEY_BAG, _SHROUDED):
                self._keys += 1
                if kind == _KEY_BAG:
                    self._belongs(der.whole(data, value))
                else:
                    algorithm, sealed = _exactly(data, value, der.SEQUENCE, der.OCTET_STRING)
                    cipher = _Cipher.read(data, algorithm)
                    cipher.charge(self._budget)
                    shrouded.append((cipher, der.content(data, sealed)))
        for cipher, octets in shrouded:
            self._belongs(cipher.open(secret, octets))

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
            raise _refusal("a key of the PKCS#12 file cannot be read") from None
        self._publics.add(key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def _content_info(data: bytes, item: der.Item, wanted: str) -> der.Item:
    kind, value = _typed(data, item)
    if kind != wanted:
        raise _refusal("the PKCS#12 file is protected in a way that we do not read")
    return value


def _typed(data: bytes, item: der.Item) -> tuple[str, der.Item]:
    """SEQUENCE { type OID, [0] EXPLICIT value }: the type, and the value itself."""
    oid, holder = _exactly(data, item, der.OID, 0xA0)
    return der.read_oid(der.content(data, oid)), der.header(data, holder.body, holder.end)


def _exactly(data: bytes, item: der.Item, *tags: int) -> list[der.Item]:
    parts = list(der.items(data, item)) if item.tag & 0x20 else []
    if tuple(part.tag for part in parts) != tags:
        raise der.DerError("a part has another form than it must")
    return parts


def _algorithm(data: bytes, item: der.Item) -> tuple[str, der.Item | None]:
    parts = list(der.items(data, item))
    if not 1 <= len(parts) <= 2 or parts[0].tag != der.OID:
        raise der.DerError("an algorithm is none")
    return der.read_oid(der.content(data, parts[0])), parts[1] if len(parts) == 2 else None


def _inside(parameters: der.Item | None) -> der.Item:
    if parameters is None or parameters.tag != der.SEQUENCE:
        raise der.DerError("an algorithm has no parameters")
    return parameters


def _small(octets: bytes) -> int:
    """An iteration count. Larger than any budget is as good as any."""
    if len(octets) > 8:
        return MAX_ITERATIONS + 1
    value = der.read_integer(octets)
    if value < 1:
        raise der.DerError("an iteration count is not positive")
    return value


def _encrypted(data: bytes, value: der.Item) -> tuple[der.Item, bytes]:
    """EncryptedData: its algorithm, and what is encrypted."""
    parts = list(der.items(data, value)) if value.tag == der.SEQUENCE else []
    if len(parts) < 2 or parts[0].tag != der.INTEGER:
        raise der.DerError("its encrypted data is none")
    _, algorithm, sealed = _exactly(data, parts[1], der.OID, der.SEQUENCE, 0x80)
    return algorithm, der.content(data, sealed)


def _bags(data: bytes) -> Iterator[tuple[str, der.Item]]:
    """The type and value of each bag of a SafeContents."""
    for count, bag in enumerate(der.items(data, der.only(data, der.SEQUENCE))):
        if count > MAX_BAGS:
            raise _refusal(f"the PKCS#12 file has more than {MAX_BAGS} bags")
        parts = list(der.items(data, bag)) if bag.tag == der.SEQUENCE else []
        if [part.tag for part in parts] not in ([der.OID, 0xA0], [der.OID, 0xA0, der.SET]):
            raise der.DerError("a bag is none")
        yield der.read_oid(der.content(data, parts[0])), der.header(data, parts[1].body, parts[1].end)


def _spki(certificate: bytes) -> bytes:
    """The SubjectPublicKeyInfo of a certificate, b"" where it has none."""
    try:
        tbs = next(der.items(certificate, der.only(certificate, der.SEQUENCE)))
        fields = [item for item in der.items(certificate, tbs) if item.tag != 0xA0]
        return der.whole(certificate, fields[5])
    except (der.DerError, IndexError, StopIteration):
        return b""


class _Stretch(NamedTuple):
    """PBKDF2 (RFC 8018 A.2)."""

    salt: bytes
    iterations: int
    size: int | None
    prf: str

    @classmethod
    def read(cls, data: bytes, item: der.Item) -> _Stretch:
        oid, parameters = _algorithm(data, item)
        if oid != _PBKDF2:
            raise _refusal("the PKCS#12 file derives its keys in a way that we do not read")
        parts = list(der.items(data, _inside(parameters)))
        if len(parts) < 2 or parts[0].tag != der.OCTET_STRING or parts[1].tag != der.INTEGER:
            raise der.DerError("the parameters of PBKDF2 are none")
        size, prf = None, "sha1"
        for part in parts[2:]:
            if part.tag == der.INTEGER:
                size = _small(der.content(data, part))
            elif part.tag == der.SEQUENCE:
                prf = _PRFS.get(_algorithm(data, part)[0], "")
        salt = der.content(data, parts[0])
        if prf not in _BLOCKS or len(salt) > MAX_SALT or (size is not None and size > 64):
            raise _refusal("the PKCS#12 file derives its keys in a way that we do not read")
        return cls(salt, _small(der.content(data, parts[1])), size, prf)

    def key(self, secret: _Password, size: int) -> bytes:
        return hashlib.pbkdf2_hmac(self.prf, secret.utf8, self.salt, self.iterations, size)


class _Cipher(NamedTuple):
    """How something is encrypted: PBES2 with `stretch`, or RFC 7292's own with `salt` and `iterations`."""

    size: int
    vector: bytes
    stretch: _Stretch | None
    salt: bytes
    iterations: int

    @classmethod
    def read(cls, data: bytes, item: der.Item) -> _Cipher:
        oid, parameters = _algorithm(data, item)
        if oid in _OLD_3DES:
            salt, iterations = _exactly(data, _inside(parameters), der.OCTET_STRING, der.INTEGER)
            if salt.end - salt.body > MAX_SALT:
                raise _refusal("the PKCS#12 file's salt is too long")
            count = _small(der.content(data, iterations))
            return cls(_OLD_3DES[oid], b"", None, der.content(data, salt), count)
        if oid != _PBES2:
            raise _refusal("the PKCS#12 file is encrypted in a way that is too weak, or that we do not read")
        derive, scheme = _exactly(data, _inside(parameters), der.SEQUENCE, der.SEQUENCE)
        name, vector = _algorithm(data, scheme)
        if name not in _AES or vector is None or vector.tag != der.OCTET_STRING or vector.end - vector.body != 16:
            raise _refusal("the PKCS#12 file is encrypted in a way that we do not read")
        return cls(_AES[name], der.content(data, vector), _Stretch.read(data, derive), b"", 0)

    def charge(self, budget: _Budget) -> None:
        """Take what `open` will cost out of the budget."""
        if self.stretch is not None:
            budget.take(self.stretch.iterations, old=False)
        else:
            budget.take(self.iterations, old=True, times=3)  # two blocks for a key of 24 octets, one for the vector

    def open(self, secret: _Password, sealed: bytes) -> bytes:
        """What was encrypted; RW-IMPORT where that is not what comes out."""
        if self.stretch is not None:
            cipher: CipherAlgorithm = algorithms.AES(self.stretch.key(secret, self.size))
            vector = self.vector
        else:
            key = _old_key("sha1", 1, secret.bmp, self.salt, self.iterations, self.size)
            vector = _old_key("sha1", 2, secret.bmp, self.salt, self.iterations, 8)
            cipher = TripleDES(key)
        size = len(vector)
        if not sealed or len(sealed) % size:
            raise _refusal("what is encrypted in the PKCS#12 file is cut short")
        mode = modes.CBC(vector)
        decryptor = Cipher(cipher, mode).decryptor()
        plain = decryptor.update(sealed) + decryptor.finalize()
        pad = plain[-1]
        if not 1 <= pad <= size or plain[-pad:] != bytes([pad]) * pad:
            raise _refusal("what is encrypted in the PKCS#12 file cannot be decrypted")
        return plain[:-pad]


def _old_key(digest: str, purpose: int, password: bytes, salt: bytes, iterations: int, size: int) -> bytes:
    """RFC 7292 B.2. `purpose` is 1 for a key, 2 for a vector, 3 for a MAC."""
    block = _BLOCKS[digest]
    new = getattr(hashlib, digest)

    def filled(text: bytes) -> bytes:
        whole = -(-len(text) // block) * block
        return (text * (whole // len(text) + 1))[:whole] if text else b""

    mixed = filled(salt) + filled(password)
    out = b""
    while True:
        made: bytes = new(bytes([purpose]) * block + mixed).digest()
        for _ in range(iterations - 1):
            made = new(made).digest()
        out += made
        if len(out) >= size:
            return out[:size]
        add = int.from_bytes(filled(made)[:block], "big") + 1
        top = 1 << 8 * block
        mixed = b"".join(
            ((int.from_bytes(mixed[at : at + block], "big") + add) % top).to_bytes(block, "big")
            for at in range(0, len(mixed), block)
        )
