"""Shares: any m give the secret, fewer fit every secret, and whatever is wrong is named before anything is opened."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rootward.core import shares
from rootward.core.problems import Problem
from rootward.core.shares import BYTES, Share, combine, faults, random_bytes, split

NAMES = [f"Custodian {number}" for number in range(1, 17)]
SECRET = bytes(range(100, 132))
COIN = bytes((7 * at + 3) % 256 for at in range(15 * BYTES))

# The field a second time, by logarithms: 3 generates it (FIPS 197 4.2).
EXP = [1]
for _ in range(254):
    doubled = EXP[-1] << 1 ^ (0x11B if EXP[-1] & 0x80 else 0)
    EXP.append(doubled ^ EXP[-1])
LOG = {value: power for power, value in enumerate(EXP)}


def times(a: int, b: int) -> int:
    return EXP[(LOG[a] + LOG[b]) % 255] if a and b else 0


def made(count: int = 5, threshold: int = 3, *, secret: bytes = SECRET, label: str = "root") -> tuple[Share, ...]:
    return split(secret, NAMES[:count], threshold, label=label, random=COIN[: random_bytes(threshold)])


def refusal(given: list[Share]) -> list[str]:
    with pytest.raises(Problem) as caught:
        combine(given)
    assert {reason.code for reason in caught.value.reasons} == {"RW-SHARE"}
    return [reason.detail for reason in caught.value.reasons]


def test_the_field_is_the_one_of_aes() -> None:
    assert shares._times(0x57, 0x83) == 0xC1  # FIPS 197 4.2
    assert all(shares._times(a, b) == times(a, b) for a in range(256) for b in range(256))
    assert all(shares._times(a, shares._inverse(a)) == 1 for a in range(1, 256))


@st.composite
def sets(draw: st.DrawFn) -> tuple[bytes, tuple[Share, ...]]:
    """A secret and its shares."""
    count = draw(st.integers(2, 16))
    threshold = draw(st.integers(2, count))
    secret = draw(st.binary(min_size=BYTES, max_size=BYTES))
    size = random_bytes(threshold)
    random = draw(st.binary(min_size=size, max_size=size))
    return secret, split(secret, NAMES[:count], threshold, label="root", random=random)


@settings(max_examples=60, deadline=None)
@given(sets(), st.randoms(use_true_random=False))
@pytest.mark.invariant("I-39")
def test_any_m_give_the_secret_and_fewer_do_not(dealt, dice) -> None:
    secret, all_shares = dealt
    threshold = all_shares[0].threshold
    some = dice.sample(all_shares, dice.randint(threshold, len(all_shares)))
    assert combine(some) == secret
    few = dice.sample(all_shares, threshold - 1)
    assert refusal(few) in (
        [f"{threshold} shares are needed, and {threshold - 1} were given."],
        ["No share was given."],
    )


@pytest.mark.invariant("I-39")
def test_every_three_of_five_give_the_secret() -> None:
    assert {combine(some) for some in combinations(made(), 3)} == {SECRET}


@settings(max_examples=60, deadline=None)
@given(sets(), st.binary(min_size=BYTES, max_size=BYTES), st.randoms(use_true_random=False))
@pytest.mark.invariant("I-39")
def test_fewer_than_m_fit_every_secret(dealt, other, dice) -> None:
    """For m - 1 shares and any other secret there is a choice of random bytes that deals exactly these shares."""
    _, all_shares = dealt
    threshold = all_shares[0].threshold
    known = dice.sample(all_shares, threshold - 1)
    columns = [_coefficients(other[at], {share.index: share.value[at] for share in known}) for at in range(BYTES)]
    random = b"".join(bytes(column[power] for column in columns) for power in range(threshold - 1))
    again = split(other, NAMES[: all_shares[0].count], threshold, label="root", random=random)
    assert [again[share.index - 1].value for share in known] == [share.value for share in known]


def _coefficients(secret: int, points: dict[int, int]) -> list[int]:
    """The coefficients but the constant one of the polynomial with f(0) = secret through `points` (Gauss-Jordan)."""
    size = len(points)
    rows = []
    for x, value in points.items():
        powers, power = [], 1
        for _ in range(size):
            power = times(power, x)
            powers.append(power)
        rows.append([*powers, value ^ secret])
    for column in range(size):
        pivot = next(row for row in range(column, size) if rows[row][column])
        rows[column], rows[pivot] = rows[pivot], rows[column]
        inverse = EXP[-LOG[rows[column][column]] % 255]
        rows[column] = [times(value, inverse) for value in rows[column]]
        for row in range(size):
            if row != column and rows[row][column]:
                factor = rows[row][column]
                rows[row] = [a ^ times(factor, b) for a, b in zip(rows[row], rows[column], strict=True)]
    return [row[-1] for row in rows]


@pytest.mark.invariant("I-39")
def test_one_share_of_two_says_nothing() -> None:
    """Every byte of a secret, every random byte: each value of a share comes equally often whatever the secret is."""
    for first in range(0, 256, BYTES):
        secret = bytes(range(first, first + BYTES))
        dealt = [split(secret, NAMES[:3], 2, label="root", random=bytes([random]) * BYTES) for random in range(256)]
        for index in range(3):
            for at in range(BYTES):
                assert len(Counter(some[index].value[at] for some in dealt)) == 256


@pytest.mark.invariant("I-39")
def test_every_changed_bit_is_found_and_its_custodian_named() -> None:
    """In each part of a share: alone where its own check covers it, and beside the others everywhere."""
    dealt = made()
    own = dealt[1]
    changed = [
        *(replace(own, value=_flipped(own.value, bit)) for bit in range(BYTES * 8)),
        *(replace(own, checks=_flipped_in(own.checks, at, bit)) for at in range(5) for bit in range(128)),
        *(replace(own, secret_check=_flipped(own.secret_check, bit)) for bit in range(128)),
        *(replace(own, index=own.index ^ 1 << bit) for bit in range(8)),
        *(replace(own, threshold=own.threshold ^ 1 << bit) for bit in range(8)),
        replace(own, checks=own.checks[:-1]),
        replace(own, checks=(*own.checks, bytes(16))),
        replace(own, custodian="Custodian 9"),
        replace(own, label="toot"),
    ]
    for share in changed:
        sentences = refusal([dealt[0], share, dealt[2], dealt[3]])
        assert sentences
        assert all(f'"{share.custodian}"' in sentence for sentence in sentences), sentences
        assert (faults(share) == sentences) == bool(faults(share))
        assert faults(share) or share.set != own.set
    for share in changed[: BYTES * 8]:
        assert "was altered: its check does not fit." in faults(share)[0]


def _flipped(data: bytes, bit: int) -> bytes:
    return bytes(value ^ (1 << bit % 8 if at == bit // 8 else 0) for at, value in enumerate(data))


def _flipped_in(checks: tuple[bytes, ...], at: int, bit: int) -> tuple[bytes, ...]:
    return (*checks[:at], _flipped(checks[at], bit), *checks[at + 1 :])


@pytest.mark.invariant("I-39")
def test_a_doubled_share_is_named() -> None:
    one, two, *_ = made()
    for twin in (two, replace(two)):
        assert refusal([one, two, twin]) == ['The share 2, of "Custodian 2", is there twice.']


@pytest.mark.invariant("I-39")
def test_a_share_of_another_set_is_named() -> None:
    ours, theirs = made(), made(secret=bytes(32))
    assert refusal([ours[0], theirs[1], ours[2]]) == [
        f'The share of "Custodian 2" belongs to the set {theirs[1].set}, the others to {ours[0].set}.'
    ]
    assert len(refusal([ours[0], theirs[1]])) == 2  # nobody can say which one is foreign: both are named
    assert refusal([ours[0], made(label="other")[1], ours[2]])
    assert refusal([ours[0], made(threshold=4)[1], ours[2]])


def test_shares_beyond_m_are_checked_too() -> None:
    dealt = made()
    wrong = replace(dealt[4], value=bytes(32))
    assert refusal([*dealt[:4], wrong])[0].startswith('The share of "Custodian 5" (5 of 5, 3 of which are needed) was')


def test_a_set_that_was_dealt_wrong_is_found() -> None:
    """Each share fits its check, and they are no polynomial's: what a dishonest dealer could hand out."""
    values = [bytes([at]) * 32 for at in (1, 2, 9, 77)]
    checks = tuple(shares._check("root", 2, 4, at, NAMES[at - 1], value) for at, value in enumerate(values, start=1))
    dealt = [
        Share("root", 2, at, NAMES[at - 1], checks, shares._secret_check(SECRET), value)
        for at, value in enumerate(values, start=1)
    ]
    assert refusal(dealt[:2]) == ["The shares fit their checks and not each other: this set was never a sound one."]


@pytest.mark.parametrize(
    ("custodians", "threshold", "word"),
    [
        (NAMES[:1], 1, "at least 2"),
        (NAMES[:3], 1, "at least 2"),
        (NAMES[:3], 4, "4 of 3"),
        ([*NAMES, "One more"], 3, "at most 16"),
        (["Ada", "Ada", "Grace"], 2, "two shares"),
        (["Ada", "", "Grace"], 2, "no custodian's name"),
        (["Ada", " Bob", "Grace"], 2, "no custodian's name"),
        (["Ada", "Bob\n", "Grace"], 2, "no custodian's name"),
        (["Ada", "\ud800", "Grace"], 2, "no custodian's name"),
        (["Ada", "Zoe\u0308", "Grace"], 2, "no custodian's name"),
        (["Ada", "x" * 65, "Grace"], 2, "no custodian's name"),
    ],
)
def test_custodians_who_cannot_hold_shares(custodians: list[str], threshold: int, word: str) -> None:
    with pytest.raises(Problem, match=word):
        shares.check_custodians(custodians, threshold)


def test_every_reason_at_once() -> None:
    with pytest.raises(Problem) as caught:
        shares.check_custodians(["", "Ada", "Ada"], 9)
    assert len(caught.value.reasons) == 3


def test_wrong_sizes_are_the_callers_mistake() -> None:
    for secret, random in ((SECRET[:31], COIN[:64]), (SECRET, COIN[:63]), (SECRET, COIN[:96])):
        with pytest.raises(ValueError, match="32 bytes"):
            split(secret, NAMES[:5], 3, label="root", random=random)


@pytest.mark.invariant("I-35")
def test_a_share_does_not_show_its_value() -> None:
    share = made()[0]
    assert share.value.hex() not in repr(share)
    assert repr(share.value) not in repr(share)


def test_known_shares() -> None:
    """What lies in a safe must open with every later version."""
    dealt = made()
    assert dealt[0].set == "17110951b66b68022be8f4bd55265f21"
    assert dealt[4].value.hex() == "3a8f4bfe9db12ec00b0897790abfe154c471ee5b38d64965ae40dfdc4ffa3e8b"
