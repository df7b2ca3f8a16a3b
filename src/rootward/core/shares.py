"""A secret of 256 random bits split among n custodians, any m of whom have it again, by shares that are checked.

Shamir's scheme (1979): each byte of the secret is the value at 0 of a random polynomial of degree m - 1 over GF(2^8)
(the field of AES, FIPS 197 4.2); share i holds the values at i. Fewer than m values fit every secret equally well.

Shamir's scheme alone gives a wrong secret, and says nothing, where one share is wrong. So each share carries one check
for every share of its set and one for the secret, SHA-256 cut to 128 bits; and the set's id is a hash of all that the
shares of a set have in common. A share that was altered, belongs to another set or is there twice is named before the
secret is made. What the checks give away: who holds fewer than m shares could try secrets against them, 2^256 of them,
since share values and secret are uniformly random. For that reason only a random key is ever split: a PIN, a passphrase
or a private key would be found by trying.

The arithmetic uses no table and no branch on secret bits. More is not claimed: Python's integers promise no constant
time. It runs on an offline machine, for a few hundred multiplications.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field

from rootward.core.problems import Problem, Reason, shown

BYTES = 32  # of a secret and of a share's value
CHECK = 16  # bytes of a check and of a set's id
MOST = 16  # custodians
_CODE = "RW-SHARE"
_LONGEST_NAME = 64  # bytes in UTF-8


@dataclass(frozen=True)
class Share:
    """One custodian's share. `label` says what the secret opens; `index` counts from 1; `checks` has one for each share
    of the set, `secret_check` is the secret's; `value` is secret, the rest is not.
    """

    label: str
    threshold: int
    index: int
    custodian: str
    checks: tuple[bytes, ...]
    secret_check: bytes
    value: bytes = field(repr=False)

    @property
    def set(self) -> str:
        """The set's id, 32 hex digits: equal where label, threshold and all checks are."""
        return set_id(self.label, self.threshold, self.checks, self.secret_check).hex()

    @property
    def count(self) -> int:
        """n, the shares of the set."""
        return len(self.checks)


def split(secret: bytes, custodians: Sequence[str], threshold: int, *, label: str, random: bytes) -> tuple[Share, ...]:
    """One share for each custodian, any `threshold` of which give `secret` (32 uniformly random bytes).

    `random` is (threshold - 1) * 32 uniformly random bytes (`random_bytes`), for this one call. Problem RW-SHARE, with
    every reason: not 2 <= m <= n <= 16, or names that are empty, long, odd or there twice.
    """
    if len(secret) != BYTES or len(random) != random_bytes(threshold):
        raise ValueError("the secret has 32 bytes, and the random bytes 32 for each share that is needed but one")
    check_custodians(custodians, threshold)
    degrees = [random[at : at + BYTES] for at in range(0, len(random), BYTES)]
    values = [_evaluate((secret, *degrees), index) for index in range(1, len(custodians) + 1)]
    checks = tuple(
        _check(label, threshold, len(values), index, name, value)
        for index, (name, value) in enumerate(zip(custodians, values, strict=True), start=1)
    )
    known = _secret_check(secret)
    return tuple(
        Share(label, threshold, index, name, checks, known, value)
        for index, (name, value) in enumerate(zip(custodians, values, strict=True), start=1)
    )


def random_bytes(threshold: int) -> int:
    """How many random bytes `split` takes."""
    return (threshold - 1) * BYTES


def check_custodians(custodians: Sequence[str], threshold: int) -> None:
    """Problem RW-SHARE, with every reason, unless these can hold shares: 2 <= m <= n <= 16, and names that differ."""
    reasons = []
    if not 2 <= threshold <= len(custodians) <= MOST:
        detail = f"{threshold} of {len(custodians)}: at least 2 shares are needed, and there are at most {MOST}."
        reasons.append(Reason(_CODE, detail, "threshold"))
    for name in custodians:
        if not is_name(name):
            detail = f"{shown(name)} is no custodian's name: 1 to {_LONGEST_NAME} bytes of printable text."
            reasons.append(Reason(_CODE, detail, "custodians"))
    for name in sorted({name for name in custodians if custodians.count(name) > 1}):
        reasons.append(Reason(_CODE, f"{shown(name)} is to hold two shares: each has a person.", "custodians"))
    if reasons:
        raise Problem.of(reasons)


def is_name(name: str) -> bool:
    """Whether it can name a custodian: printable, in NFC, without space around it, 1 to 64 bytes of UTF-8."""
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        return False
    plain = name == unicodedata.normalize("NFC", name).strip() and name.isprintable()
    return plain and 1 <= size <= _LONGEST_NAME


def faults(share: Share) -> list[str]:
    """What is wrong with one share by itself, as sentences that name its custodian; empty if nothing is."""
    if not 2 <= share.threshold <= share.count <= MOST or not 1 <= share.index <= share.count:
        return [f"The share of {shown(share.custodian)} says that it is {_place(share)}, which cannot be."]
    if (
        _check(share.label, share.threshold, share.count, share.index, share.custodian, share.value)
        != (share.checks[share.index - 1])
    ):
        return [f"The share of {shown(share.custodian)} ({_place(share)}) was altered: its check does not fit."]
    return []


def combine(shares: Sequence[Share]) -> bytes:
    """The secret, from at least m shares of one set, in any order.

    Problem RW-SHARE, with every reason, before anything is made of them: a share that was altered, that is of another
    set than most, that is there twice, or too few. Shares beyond m are checked as well.
    """
    if not shares:
        raise Problem(_CODE, "No share was given.")
    sentences = [sentence for share in shares for sentence in faults(share)]
    sound = [share for share in shares if not faults(share)]
    ours = _usual_set(sound)
    sentences += [
        f"The share of {shown(share.custodian)} belongs to the set {share.set}"
        + (f", the others to {ours}." if ours else "; the shares are of several sets.")
        for share in sound
        if share.set != ours
    ]
    seen: set[tuple[str, int]] = set()
    for share in sound:
        if (share.set, share.index) in seen:
            sentences.append(f"The share {share.index}, of {shown(share.custodian)}, is there twice.")
        seen.add((share.set, share.index))
    needed = shares[0].threshold
    if not sentences and len(shares) < needed:
        sentences.append(f"{needed} shares are needed, and {len(shares)} were given.")
    if sentences:
        raise Problem.of([Reason(_CODE, sentence) for sentence in sentences])
    points = {share.index: share.value for share in shares[:needed]}
    secret = _interpolate(points, 0)
    if _secret_check(secret) != shares[0].secret_check or any(
        _interpolate(points, share.index) != share.value for share in shares[needed:]
    ):
        # Each share is as it was dealt, so they were dealt wrong: nothing that this module makes.
        raise Problem(_CODE, "The shares fit their checks and not each other: this set was never a sound one.")
    return secret


def set_id(label: str, threshold: int, checks: Sequence[bytes], secret_check: bytes) -> bytes:
    """The id of the set with these checks, 16 bytes."""
    return _hash("set", label.encode(), bytes([threshold, len(checks)]), *checks, secret_check)


def _usual_set(shares: Sequence[Share]) -> str:
    """The set that more shares belong to than to any other; empty where there is no such set."""
    counts: dict[str, int] = {}
    for share in shares:
        counts[share.set] = counts.get(share.set, 0) + 1
    most = max(counts.values(), default=0)
    usual = [id for id, count in counts.items() if count == most]
    return usual[0] if len(usual) == 1 else ""


def _place(share: Share) -> str:
    return f"{share.index} of {share.count}, {share.threshold} of which are needed"


def _check(label: str, threshold: int, count: int, index: int, custodian: str, value: bytes) -> bytes:
    return _hash("share", label.encode(), bytes([threshold, count, index]), custodian.encode(), value)


def _secret_check(secret: bytes) -> bytes:
    return _hash("secret", secret)


def _hash(what: str, *parts: bytes) -> bytes:
    """SHA-256 over what is hashed and its parts, each behind its length, cut to `CHECK` bytes."""
    digest = hashlib.sha256(f"rootward shamir {what} 1\n".encode())
    for part in parts:
        digest.update(len(part).to_bytes(4, "big") + part)
    return digest.digest()[:CHECK]


def _evaluate(coefficients: Sequence[bytes], at: int) -> bytes:
    """The values at `at` of the polynomials whose coefficients are columns, constant first (Horner)."""
    found = bytes(BYTES)
    for row in reversed(coefficients):
        found = bytes(_times(value, at) ^ own for value, own in zip(found, row, strict=True))
    return found


def _interpolate(points: dict[int, bytes], at: int) -> bytes:
    """The values at `at` of the polynomials of least degree through `points` (Lagrange)."""
    found = bytes(BYTES)
    for x, values in points.items():
        weight = 1
        for other in points.keys() - {x}:
            weight = _times(weight, _times(at ^ other, _inverse(x ^ other)))
        found = bytes(own ^ _times(value, weight) for own, value in zip(found, values, strict=True))
    return found


def _times(a: int, b: int) -> int:
    """The product in GF(2^8) modulo x^8 + x^4 + x^3 + x + 1."""
    product = 0
    for _ in range(8):
        product ^= a & -(b & 1)
        a = (a << 1) ^ (0x11B & -(a >> 7))
        b >>= 1
    return product


def _inverse(a: int) -> int:
    """a^254 = a^2 a^4 … a^128; 0 for 0."""
    result = 1
    for _ in range(7):
        a = _times(a, a)
        result = _times(result, a)
    return result
