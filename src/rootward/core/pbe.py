"""Encryption by password, as PKCS#12 files use it: PBES2 with PBKDF2 and AES (RFC 8018), and SHA-1 with 3DES under the
derivation of RFC 7292 B. Everything else is refused.

What costs is counted before it is made: a `Budget` has the iterations that one file may ask for. DerError for what
cannot be read, Problem RW-IMPORT for what is not done.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher as _Ciphers
from cryptography.hazmat.primitives.ciphers import CipherAlgorithm, algorithms, modes

from rootward.core import der
from rootward.core.problems import Problem

MAX_ITERATIONS = 2_000_000  # of PBKDF2, in one file: half a second
MAX_OLD_ITERATIONS = 200_000  # of RFC 7292 B.2, which is made here: a tenth of a second
MAX_PASSWORD = 1_000  # characters
MAX_SALT = 1_024

_PBES2, _PBKDF2 = (f"1.2.840.113549.1.5.{n}" for n in (13, 12))
_OLD_3DES = {"1.2.840.113549.1.12.1.3": 24, "1.2.840.113549.1.12.1.4": 16}
_AES = {"2.16.840.1.101.3.4.1.2": 16, "2.16.840.1.101.3.4.1.22": 24, "2.16.840.1.101.3.4.1.42": 32}
PRFS = {
    "1.2.840.113549.2.7": "sha1",
    "1.2.840.113549.2.8": "sha224",
    "1.2.840.113549.2.9": "sha256",
    "1.2.840.113549.2.10": "sha384",
    "1.2.840.113549.2.11": "sha512",
}
_BLOCKS = {"sha1": 64, "sha224": 64, "sha256": 64, "sha384": 128, "sha512": 128}


def refusal(detail: str) -> Problem:
    """RW-IMPORT with this sentence, which begins in lower case and has no full stop."""
    return Problem("RW-IMPORT", f"{detail[0].upper()}{detail[1:]}.", field="content")


class Password(NamedTuple):
    """A password as PBKDF2 takes it, and as RFC 7292 B.1 does."""

    utf8: bytes
    bmp: bytes


def variants(password: str | None) -> tuple[Password, ...]:
    """What may have been meant: no password and an empty one are different things to RFC 7292, and not to people."""
    none, empty = Password(b"", b""), Password(b"", b"\0\0")
    if not password:
        return empty, none
    return (Password(password.encode("utf-8", "replace"), password.encode("utf-16-be", "replace") + b"\0\0"),)


class Budget:
    """Counts iterations before they are made."""

    def __init__(self) -> None:
        self._new = self._old = 0

    def take(self, iterations: int, *, old: bool, times: int = 1) -> None:
        """Problem RW-IMPORT where that is more than is left; `old` is the derivation of RFC 7292."""
        if old:
            self._old += iterations * times
        else:
            self._new += iterations * times
        if self._new > MAX_ITERATIONS or self._old > MAX_OLD_ITERATIONS:
            raise refusal("the PKCS#12 file asks for more iterations than we make")


def exactly(data: bytes, item: der.Item, *tags: int) -> list[der.Item]:
    """The elements inside `item`, which have just these tags; DerError otherwise."""
    parts = der.few(data, item) if item.tag & 0x20 else []
    if tuple(part.tag for part in parts) != tags:
        raise der.DerError("a part has another form than it must")
    return parts


def algorithm_of(data: bytes, item: der.Item) -> tuple[str, der.Item | None]:
    """The OID and the parameters of an AlgorithmIdentifier."""
    parts = der.few(data, item)
    if not 1 <= len(parts) <= 2 or parts[0].tag != der.OID:
        raise der.DerError("an algorithm is none")
    return der.read_oid(der.content(data, parts[0])), parts[1] if len(parts) == 2 else None


def inside(parameters: der.Item | None) -> der.Item:
    """Parameters that must be a SEQUENCE."""
    if parameters is None or parameters.tag != der.SEQUENCE:
        raise der.DerError("an algorithm has no parameters")
    return parameters


def small(octets: bytes) -> int:
    """An iteration count. Larger than any budget is as good as any."""
    if len(octets) > 8:
        return MAX_ITERATIONS + 1
    value = der.read_integer(octets)
    if value < 1:
        raise der.DerError("an iteration count is not positive")
    return value


class Stretch(NamedTuple):
    """PBKDF2 (RFC 8018 A.2)."""

    salt: bytes
    iterations: int
    size: int | None
    prf: str

    @classmethod
    def read(cls, data: bytes, item: der.Item) -> Stretch:
        """From an AlgorithmIdentifier; DerError, or RW-IMPORT for another derivation."""
        oid, parameters = algorithm_of(data, item)
        if oid != _PBKDF2:
            raise refusal("the PKCS#12 file derives its keys in a way that we do not read")
        parts = der.few(data, inside(parameters))
        if len(parts) < 2 or parts[0].tag != der.OCTET_STRING or parts[1].tag != der.INTEGER:
            raise der.DerError("the parameters of PBKDF2 are none")
        size, prf = None, "sha1"
        for part in parts[2:]:
            if part.tag == der.INTEGER:
                size = small(der.content(data, part))
            elif part.tag == der.SEQUENCE:
                prf = PRFS.get(algorithm_of(data, part)[0], "")
        salt = der.content(data, parts[0])
        if prf not in _BLOCKS or len(salt) > MAX_SALT or (size is not None and size > 64):
            raise refusal("the PKCS#12 file derives its keys in a way that we do not read")
        return cls(salt, small(der.content(data, parts[1])), size, prf)

    def key(self, secret: Password, size: int) -> bytes:
        return hashlib.pbkdf2_hmac(self.prf, secret.utf8, self.salt, self.iterations, size)


class Cipher(NamedTuple):
    """How something is encrypted: PBES2 with `stretch`, or RFC 7292's own with `salt` and `iterations`."""

    size: int
    vector: bytes
    stretch: Stretch | None
    salt: bytes
    iterations: int

    @classmethod
    def read(cls, data: bytes, item: der.Item) -> Cipher:
        """From an AlgorithmIdentifier; DerError, or RW-IMPORT for a cipher that is too weak or not known."""
        oid, parameters = algorithm_of(data, item)
        if oid in _OLD_3DES:
            salt, iterations = exactly(data, inside(parameters), der.OCTET_STRING, der.INTEGER)
            if salt.end - salt.body > MAX_SALT:
                raise refusal("the PKCS#12 file's salt is too long")
            count = small(der.content(data, iterations))
            return cls(_OLD_3DES[oid], b"", None, der.content(data, salt), count)
        if oid != _PBES2:
            raise refusal("the PKCS#12 file is encrypted in a way that is too weak, or that we do not read")
        derive, scheme = exactly(data, inside(parameters), der.SEQUENCE, der.SEQUENCE)
        name, vector = algorithm_of(data, scheme)
        if name not in _AES or vector is None or vector.tag != der.OCTET_STRING or vector.end - vector.body != 16:
            raise refusal("the PKCS#12 file is encrypted in a way that we do not read")
        return cls(_AES[name], der.content(data, vector), Stretch.read(data, derive), b"", 0)

    def charge(self, budget: Budget) -> None:
        """Take what `unseal` will cost out of the budget."""
        if self.stretch is not None:
            budget.take(self.stretch.iterations, old=False)
        else:
            budget.take(self.iterations, old=True, times=3)  # two blocks for a key of 24 octets, one for the vector

    def unseal(self, secret: Password, sealed: bytes) -> bytes:
        """What was encrypted; RW-IMPORT where that is not what comes out."""
        if self.stretch is not None:
            cipher: CipherAlgorithm = algorithms.AES(self.stretch.key(secret, self.size))
            vector = self.vector
        else:
            key = old_key("sha1", 1, secret.bmp, self.salt, self.iterations, self.size)
            vector = old_key("sha1", 2, secret.bmp, self.salt, self.iterations, 8)
            cipher = TripleDES(key)
        size = len(vector)
        if not sealed or len(sealed) % size:
            raise refusal("what is encrypted in the PKCS#12 file is cut short")
        mode = modes.CBC(vector)
        decryptor = _Ciphers(cipher, mode).decryptor()
        plain = decryptor.update(sealed) + decryptor.finalize()
        pad = plain[-1]
        if not 1 <= pad <= size or plain[-pad:] != bytes([pad]) * pad:
            raise refusal("what is encrypted in the PKCS#12 file cannot be decrypted")
        return plain[:-pad]


def old_key(digest: str, purpose: int, password: bytes, salt: bytes, iterations: int, size: int) -> bytes:
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
