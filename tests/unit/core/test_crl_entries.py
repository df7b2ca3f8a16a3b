"""Many entries: what is written fast is what is written plainly, what is wrong in a long list is found where it is, and
memory stays a small multiple of the list.
"""

from __future__ import annotations

import random
import subprocess
import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from rootward.core import crl_entries, der
from rootward.core.crl import check_crl, draft_crl, finish_crl, lint_crl
from rootward.core.crl_entries import Entries, Entry, encode_entry, lint_entries
from rootward.core.revocation import RevocationReason
from tests.support.revocation import NOW, Signer, issuer_of, make_ca

DAY = timedelta(days=1)
NOW_SECONDS = int(NOW.timestamp())
REASONS = [reason.value for reason in RevocationReason if reason is not RevocationReason.REMOVE_FROM_CRL]
MANY = 100_000

serials = st.integers(1, 2**159 - 1).map(lambda number: der.integer(number)[2:])


@cache
def rows(count: int) -> tuple[tuple[bytes, int, str], ...]:
    """Serials of 20 octets, times of a year, every reason."""
    return tuple(_rows(count))


def _rows(count: int) -> Iterator[tuple[bytes, int, str]]:
    chance = random.Random(1)
    for number in range(count):
        serial = bytes((0x40 | chance.getrandbits(6),)) + chance.randbytes(19)
        yield serial, NOW_SECONDS - chance.randrange(366 * 86400), REASONS[number % len(REASONS)]


def written(*many: tuple[bytes, int, str], latest: int = NOW_SECONDS) -> Entries:
    """Entries of these rows."""
    made = Entries()
    made.add(many, latest=latest)
    return made


def findings(content: bytes, count: int) -> list[str]:
    """What the lint says of a list with this content, behind something else."""
    data = b"\0" * 7 + der.tlv(der.SEQUENCE, content)
    return list(lint_entries(data, der.header(data, 7, len(data)), count=count, this_update=NOW))


@settings(deadline=None)
@given(st.lists(st.tuples(serials, st.integers(-600_000_000, 3_000_000_000), st.sampled_from(REASONS)), max_size=6))
def test_many_are_written_as_one_by_one(many: list[tuple[bytes, int, str]]) -> None:
    """From 1950 to beyond 2050."""
    plain = [Entry(serial, datetime.fromtimestamp(at, UTC), RevocationReason(why)) for serial, at, why in many]
    made = written(*many, latest=4_000_000_000)
    assert bytes(made.content) == b"".join(map(encode_entry, plain)) == bytes(Entries(plain).content)
    assert made.count == len(many) == Entries(plain).count


@settings(deadline=None)
@given(st.lists(st.tuples(serials, st.integers(0, NOW_SECONDS), st.sampled_from(REASONS)), min_size=1, max_size=5))
def test_the_list_is_what_cryptography_makes_of_it(many: list[tuple[bytes, int, str]]) -> None:
    ca = make_ca()
    built = x509.CertificateRevocationListBuilder(ca.certificate.subject, NOW, NOW + DAY)
    for serial, at, why in many:
        one = x509.RevokedCertificateBuilder().serial_number(int.from_bytes(serial, "big"))
        one = one.revocation_date(datetime.fromtimestamp(at, UTC))
        if why != "unspecified":
            one = one.add_extension(x509.CRLReason(x509.ReasonFlags(why)), critical=False)
        built = built.add_revoked_certificate(one.build())
    theirs = built.sign(ca.private, hashes.SHA256()).tbs_certlist_bytes
    assert bytes(der.tlv(der.SEQUENCE, bytes(written(*many).content))) in theirs


def test_a_date_after_the_latest_is_that_one() -> None:
    """Another process's clock may be a little ahead; no list dates a revocation in its own future (I-24)."""
    assert (
        written((b"\x05", NOW_SECONDS + 30, "superseded")).content
        == written((b"\x05", NOW_SECONDS, "superseded")).content
    )


@pytest.mark.parametrize(
    "bad",
    [
        (b"", NOW_SECONDS, "superseded"),
        (b"\0", NOW_SECONDS, "superseded"),
        (b"\x80", NOW_SECONDS, "superseded"),
        (b"\0\x7f", NOW_SECONDS, "superseded"),
        (b"\x01" * 21, NOW_SECONDS, "superseded"),
        (b"\x05", NOW_SECONDS, "removeFromCRL"),
        (b"\x05", NOW_SECONDS, "boredom"),
    ],
)
def test_what_no_full_crl_may_have_is_refused(bad: tuple[bytes, int, str]) -> None:
    with pytest.raises(ValueError, match=r"."):
        written((b"\x05", NOW_SECONDS, "superseded"), bad)


@pytest.mark.parametrize("place", [0, 1, 6_000, 7_084, 7_085, 19_999])
@pytest.mark.parametrize("octet", [0, 1, 24, 30])
def test_a_wrong_octet_is_found_where_it_is(place: int, octet: int) -> None:
    """Lists are read in windows; entries here have 37 and 51 octets, so that a window ends inside of one."""
    many = rows(20_000)
    content = written(*many).content
    at = len(written(*many[:place]).content)
    content[at + octet] = 0xFF
    found = findings(bytes(content), len(many))
    assert found[0].startswith(f"Entry {place + 1} is not")


@pytest.mark.parametrize("junk", [b"\0", b"\x30\x00", b"\x30\x0c\x30\x0a", b"\x30" * 70])
def test_junk_between_entries_is_found(junk: bytes) -> None:
    many = rows(20_000)
    for place in (1, 7_000, 19_999, 20_000):
        content = bytes(written(*many[:place]).content) + junk + bytes(written(*many[place:]).content)
        assert findings(content, len(many))[0].startswith("Entry ")


@pytest.mark.invariant("I-09")
@pytest.mark.parametrize("size", [1, 8, 9, 10, 20])
def test_a_serial_that_is_there_twice_is_found_anywhere(size: int) -> None:
    """Short ones and long ones; those that share their last nine octets and no more are no finding."""
    many = list(rows(20_000)[:9_000])
    twin = many[17][0][-size:] if size < 20 else many[17][0]
    twin = bytes((twin[0] & 0x3F | 0x40,)) + twin[1:]
    assert findings(bytes(written(*many).content), len(many)) == []
    alike = (b"\x01" * 11 + many[17][0][-9:], NOW_SECONDS, "superseded")
    assert findings(bytes(written(*many, alike).content), len(many) + 1) == []
    double = [(twin, NOW_SECONDS, "superseded"), *many[18:], (twin, NOW_SECONDS - 5, "keyCompromise")]
    assert findings(bytes(written(*double).content), len(double)) == ["A serial is there twice."]


def test_the_windows_are_smaller_than_the_lists_here() -> None:
    assert 7_000 * 37 < crl_entries._WINDOW < 20_000 * 37


@pytest.fixture(scope="module")
def long_list() -> tuple[Signer, tuple[tuple[bytes, int, str], ...]]:
    return make_ca(), rows(MANY)


@pytest.mark.invariant("I-09", "I-18", "I-66")
def test_a_long_list_costs_little_more_than_itself(
    long_list: tuple[Signer, tuple[tuple[bytes, int, str], ...]],
) -> None:
    """Twice the list while it is put together, and eight octets for each entry while it is linted."""
    ca, many = long_list
    issuer = issuer_of(ca)
    peaks = []
    tracemalloc.start()
    try:
        for part in (many[:20_000], many[:40_000]):
            tracemalloc.reset_peak()
            base = tracemalloc.get_traced_memory()[0]
            draft = draft_crl(issuer, number=7, this_update=NOW, next_update=NOW + DAY, entries=written(*part))
            assert lint_crl(draft, issuer) == []
            data = finish_crl(draft, ca.sign(draft.tbs))
            del draft
            check_crl(data, issuer, now=NOW, last_number=6)
            peaks.append(tracemalloc.get_traced_memory()[1] - base)
            del data
    finally:
        tracemalloc.stop()
    per_entry = (peaks[1] - peaks[0]) / 20_000
    assert per_entry < 51 * 2 + 20, per_entry


def test_openssl_takes_a_long_list(
    tmp_path: Path, long_list: tuple[Signer, tuple[tuple[bytes, int, str], ...]]
) -> None:
    ca, many = long_list
    draft = draft_crl(issuer_of(ca), number=7, this_update=NOW, next_update=NOW + DAY, entries=written(*many))
    (tmp_path / "long.crl").write_bytes(finish_crl(draft, ca.sign(draft.tbs)))
    (tmp_path / "ca.pem").write_bytes(ca.certificate.public_bytes(Encoding.PEM))
    done = subprocess.run(
        ["openssl", "crl", "-inform", "DER", "-in", "long.crl", "-CAfile", "ca.pem", "-noout", "-text"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "verify OK" in done.stderr
    assert done.stdout.count("Serial Number:") == MANY
