"""Share files: the passphrase opens them, every change is noticed, and paper gives the very same file back."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rootward.core.problems import Problem
from rootward.core.shares import Share, split
from rootward.keys import Argon2, share_file

CHEAP = Argon2(memory_kib=8 * 1024, passes=1, lanes=1)
WORDS = "correct horse battery"
NAMES = ["Ada Lovelace", "Zoë Ångström", "Grace Hopper", "Alan Turing", "李明"]
SHARES = split(bytes(range(32)), NAMES, 3, label="root-2027", random=bytes(range(64)))
SEALED = share_file.seal(SHARES[1], WORDS, cost=CHEAP)


def refusal(data: bytes, passphrase: str = WORDS) -> str:
    with pytest.raises(Problem) as caught:
        share_file.unseal(data, passphrase)
    assert caught.value.code == "RW-SHARE"
    return caught.value.detail


def numbered(page: str) -> list[str]:
    return [line for line in page.splitlines() if re.match(r" ?\d", line)]


@pytest.mark.parametrize("share", SHARES, ids=lambda share: share.custodian)
def test_the_passphrase_opens_what_it_sealed(share: Share) -> None:
    sealed = share_file.seal(share, WORDS, cost=CHEAP)
    assert share_file.unseal(sealed, WORDS) == share
    assert share_file.seal(share, WORDS, cost=CHEAP) != sealed
    header = share_file.read_header(sealed)
    assert (header.set, header.custodian, header.index) == (share.set, share.custodian, share.index)


@pytest.mark.parametrize("wrong", ["correct horse batterx", "Correct horse battery", "short"])
def test_another_passphrase_opens_nothing_and_the_custodian_is_named(wrong: str) -> None:
    assert '"Zoë Ångström" does not open with this passphrase' in refusal(SEALED, wrong)


@pytest.mark.invariant("I-39")
@settings(max_examples=120, deadline=None)
@given(st.integers(0, len(SEALED) * 8 - 1))
def test_every_changed_bit_is_found(bit: int) -> None:
    changed = bytearray(SEALED)
    changed[bit // 8] ^= 1 << bit % 8
    assert refusal(bytes(changed))


@pytest.mark.parametrize(
    "field",
    [
        {"custodian": "Mallory"},
        {"index": 3},
        {"threshold": 2},
        {"label": "root-2028"},
        {"set": "0" * 32},
        {"salt": "0" * 32},
        {"nonce": "0" * 24},
    ],
    ids=lambda field: next(iter(field)),
)
def test_every_changed_field_is_found(field: dict[str, object]) -> None:
    line, body, _ = SEALED.split(b"\n")
    header = json.dumps(json.loads(line) | field, separators=(",", ":"), ensure_ascii=False).encode()
    assert "was changed or damaged after it was sealed" in refusal(header + b"\n" + body + b"\n")


@pytest.mark.parametrize(
    "field",
    [
        {"custodian": "two\nlines"},
        {"custodian": "𝔸" * 64},
        {"threshold": 1},
        {"threshold": 6},
        {"index": 6},
        {"shares": 6},
        {"shares": 4},
    ],
    ids=str,
)
def test_what_no_share_is_needs_no_passphrase_to_be_found(field: dict[str, object]) -> None:
    line, body, _ = SEALED.split(b"\n")
    data = (
        json.dumps(json.loads(line) | field, separators=(",", ":"), ensure_ascii=False).encode() + b"\n" + body + b"\n"
    )
    for read in (share_file.read_header, share_file.printed):
        with pytest.raises(Problem, match="says what no share is"):
            read(data)


def test_what_is_no_share_is_refused() -> None:
    assert "no share's file" in refusal(b"")
    assert "no share's file" in refusal(SEALED[: len(SEALED) // 2])
    assert '"Zoë Ångström" is damaged: its second line is no base64' in refusal(SEALED + b"\n")
    assert "canonical" in refusal(SEALED.replace(b'":', b'": ', 1))
    assert "bytes at most" in refusal(bytes(share_file.LARGEST + 1))
    dear = SEALED.replace(b'"memory_kib":8192', b'"memory_kib":1048576')
    assert "canonical" in refusal(dear)  # a file from elsewhere does not take a gibibyte


def test_a_short_passphrase_seals_nothing() -> None:
    with pytest.raises(Problem, match="12 characters"):
        share_file.seal(SHARES[0], "elevenchars", cost=CHEAP)


@pytest.mark.parametrize("share", SHARES, ids=lambda share: share.custodian)
def test_paper_gives_the_same_file_back(share: Share) -> None:
    sealed = share_file.seal(share, WORDS, cost=CHEAP)
    page = share_file.printed(sealed)
    assert share_file.typed(numbered(page)) == sealed
    assert max(map(len, page.splitlines())) <= 80
    assert share.custodian in page
    assert share.set[:8] in page


def test_the_largest_set_fits_on_a_page() -> None:
    names = [f"{number:02} {'x' * 61}" for number in range(16)]
    largest = split(bytes(32), names, 16, label="l" * 64, random=bytes(15 * 32))[15]
    page = share_file.printed(share_file.seal(largest, WORDS, cost=CHEAP))
    assert len(page.splitlines()) <= 40
    assert share_file.unseal(share_file.typed(numbered(page)), WORDS) == largest


def test_lines_of_something_else_are_no_share() -> None:
    from rootward.core import paper

    for data in (b"", b"\x01\x03\x05\x02", bytes(120), bytes([1, 3, 5, 2]) + bytes(300)):
        with pytest.raises(Problem, match="not those of a share"):
            share_file.typed(paper.lines_of(data))


@pytest.mark.invariant("I-35")
def test_neither_file_nor_page_shows_the_value() -> None:
    value = SHARES[1].value
    page = share_file.printed(SEALED)
    for shown in (SEALED, page.encode()):
        assert value not in shown
        assert value.hex().encode() not in shown


def test_a_known_page_opens() -> None:
    """What lies in a safe must open with every later version."""
    assert share_file.unseal(share_file.typed(numbered(KNOWN)), WORDS) == SHARES[1]


KNOWN = """
 1  03W0 20R5 09V6 4136 GSYR 7K63 BR07 NPE8 W77C TKST  DB4D
 2  XKSE E9V2 J2YG QKNR NQ7P AE5Y 4Y13 26NQ RY1A B636  5AWZ
 3  MKB7 ZP20 FE46 CCSJ QD66 2AMP 4W6D M3TM DDA4 WNR0  GFN8
 4  00G0 0081 15S6 YVVM 5MS3 0CHQ 1XD6 ZGXB 431R AVK7  MX4P
 5  EDT7 5GXP DQ9T M6QM SR78 RGFZ AR27 CVMJ A2NN SP96  2B7X
 6  9QD4 9E2H VSQP PZST 7GQT M27V 2NY2 ZX8C 5NNY DYR6  NPG5
 7  0750 7XVW WET7 MB7M J5JR 03KJ ZQM3 YG8S G341 QX26  SC2Z
 8  2FKA 3Y5H Y4CW W8K6 GMAB RF1F 8GWJ ZNWQ 05DM QZ8B  FSRE
 9  F67F BSKB XR5G 78ZF K58E W638 QYSE BRXT AA2Q 7AN0  82TZ
10  J1PB F9RQ GV9E RXC6 6QN3 365S 45KC S0CE VVMZ Z6VC  MEJ8
11  82N5 JNE4  RK8N
"""
