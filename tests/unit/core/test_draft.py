"""Drafts: lifetimes that are never cut, pointers, and serials (RFC 5280 4.1.2, 4.2)."""

from __future__ import annotations

import random
from collections import Counter
from datetime import datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import AuthorityInformationAccessOID, NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from rootward.core import der
from rootward.core.lint import lint_certificate
from rootward.core.plan import Plan, make_serial
from rootward.core.problems import Problem
from rootward.core.profile import Lifetime, Revocation
from rootward.core.pubkey import KeyAlgorithm
from rootward.core.signature import SIGNATURES
from tests.support.plans import (
    DAY,
    NOW,
    PKI,
    SECOND,
    SERIAL,
    WHO,
    ask,
    attempt,
    ca,
    draft,
    issuer_of,
    plan,
    policy,
    read,
    refusal,
)
from tests.vectors import csr_parts as parts

# ── Lifetimes (I-08) ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("lifetime", "seconds"),
    [(None, 30 * 86400), (timedelta(minutes=5), 300), (90 * DAY, 90 * 86400), (timedelta(hours=1), 3600)],
)
def test_a_lifetime_within_the_profiles(lifetime: timedelta | None, seconds: int) -> None:
    made = plan(lifetime=lifetime)
    drafted = draft(made)
    # Both ends count (RFC 5280 4.1.2.5); the backdate is taken from the front, never added.
    assert drafted.not_after - drafted.not_before + SECOND == timedelta(seconds=seconds)
    assert drafted.not_before == NOW - timedelta(minutes=1)
    assert made.facts["lifetime"] == seconds


@pytest.mark.invariant("I-08")
@pytest.mark.parametrize(
    "lifetime",
    [
        timedelta(minutes=5) - SECOND,
        90 * DAY + SECOND,
        timedelta(),
        -DAY,
        SECOND,
        timedelta.max,
        timedelta.min,
        timedelta(days=3650),
    ],
)
def test_a_lifetime_outside_is_refused_and_never_cut(lifetime: timedelta) -> None:
    assert refusal(lambda: plan(lifetime=lifetime)) == [("RW-VALIDITY", "lifetime")]


@pytest.mark.invariant("I-08")
def test_an_issuer_that_ends_sooner_refuses_and_never_cuts() -> None:
    issuer = issuer_of(ca("Old CA", days=30))
    made = plan(rules={"issuer": issuer})
    begin = issuer.not_after - made.lifetime + SECOND + timedelta(minutes=1)
    assert made.draft(SERIAL, begin).not_after == issuer.not_after
    for late in (
        begin + SECOND,
        begin + DAY,
        issuer.not_after,
        issuer.not_after + DAY,
        datetime.max.replace(tzinfo=NOW.tzinfo),
    ):
        assert refusal(lambda late=late: made.draft(SERIAL, late)) == [("RW-VALIDITY", "lifetime")]


@pytest.mark.invariant("I-08")
def test_nothing_begins_before_its_issuer() -> None:
    issuer = issuer_of(ca("Young CA"))
    begin = issuer.not_before
    made = plan(rules={"issuer": issuer})
    assert made.draft(SERIAL, begin).not_before == begin
    assert made.draft(SERIAL, begin + 30 * SECOND).not_before == begin
    assert made.draft(SERIAL, begin + 2 * timedelta(minutes=1)).not_before == begin + timedelta(minutes=1)
    assert refusal(lambda: made.draft(SERIAL, begin - SECOND)) == [("RW-VALIDITY", "lifetime")]


@pytest.mark.parametrize("backdate", ["0s", "1m", "1d"])
@pytest.mark.parametrize("young", [True, False])
def test_the_second_at_which_a_certificate_is_to_end(backdate: str, young: bool) -> None:
    """Both ends count, also where it begins with its issuer; the draft's last second is the one that was asked for."""
    rules = {"lifetime": Lifetime(minimum="2d", maximum="90d", backdate=backdate)}
    made, at = policy(**rules), NOW + timedelta(microseconds=999_999)
    if young:
        at = made.issuer.not_before
    end = NOW + 20 * DAY if not young else at + 20 * DAY
    lifetime = made.lifetime_until(end, at)
    drafted = made.admit(ask("dns:a.internal", lifetime=lifetime), WHO).draft(SERIAL, at)
    assert (drafted.not_after, drafted.not_before) == (end, made.begin(at))


@pytest.mark.invariant("I-08")
@pytest.mark.parametrize("lifetime", ["90y", "9999y", "999999y"])
def test_a_lifetime_beyond_the_calendar_is_refused(lifetime: str) -> None:
    """117."""
    made = plan(rules={"lifetime": Lifetime(lifetime, lifetime)})
    assert refusal(lambda: draft(made)) == [("RW-VALIDITY", "lifetime")]


def test_a_certificate_that_would_be_over_at_once_is_refused() -> None:
    made = plan(rules={"lifetime": Lifetime("2m", "2m", "2m", "1m")})
    assert draft(made).not_after == NOW + timedelta(minutes=1) - SECOND
    issuer = issuer_of(ca("Tiny CA"))
    tiny = plan(rules={"lifetime": Lifetime("1s", "1s", "1s", "0s"), "issuer": issuer})
    assert refusal(lambda: draft(tiny)) == [("RW-VALIDITY", "lifetime")]


@pytest.mark.invariant("I-08")
@settings(max_examples=100, deadline=None)
@given(
    offset=st.integers(-40 * 86400, 1900 * 86400),
    seconds=st.integers(300, 90 * 86400),
    backdate=st.sampled_from(["0s", "1s", "1m", "4m"]),
    fraction=st.integers(0, 999_999),
)
def test_every_draft_is_inside_its_issuer_and_valid_now(
    offset: int, seconds: int, backdate: str, fraction: int
) -> None:
    made = plan(rules={"lifetime": Lifetime(backdate=backdate)}, lifetime=timedelta(seconds=seconds))
    now = NOW + timedelta(seconds=offset, microseconds=fraction)
    drafted = attempt(lambda: made.draft(SERIAL, now))
    issuer = made.policy.issuer
    if isinstance(drafted, Problem):
        assert drafted.code == "RW-VALIDITY"
        assert now < issuer.not_before or now + made.lifetime > issuer.not_after
        return
    assert issuer.not_before <= drafted.not_before <= now < drafted.not_after <= issuer.not_after
    assert drafted.not_after - drafted.not_before + SECOND == made.lifetime
    assert drafted.not_before.microsecond == drafted.not_after.microsecond == 0
    assert lint_certificate(drafted, made) == []


# ── Pointers, must-staple, no-rev-avail ───────────────────────────────────────────────────────────────────────────

_STAPLE = x509.TLSFeature([x509.TLSFeatureType.status_request])


@pytest.mark.parametrize(
    ("rule", "asked", "outcome"),
    [
        ("never", False, False),
        ("never", True, None),
        ("optional", False, False),
        ("optional", True, True),
        ("always", False, True),
        ("always", True, True),
    ],
)
def test_must_staple(rule: Any, asked: bool, outcome: bool | None) -> None:
    """54; RFC 7633."""
    rules = {"revocation": Revocation(must_staple=rule)}
    made = attempt(lambda: plan(rules=rules, extensions=[_STAPLE] if asked else []))
    if outcome is None:
        assert isinstance(made, Problem)
        assert [reason.code for reason in made.reasons] == ["RW-CSR-EXTENSION"]
        return
    assert isinstance(made, Plan)
    assert made.must_staple is outcome
    features = [one.value for one in read(draft(made)).extensions if isinstance(one.value, x509.TLSFeature)]
    assert features == ([_STAPLE] if outcome else [])


def test_pointers_are_the_issuers_and_the_profiles_choice() -> None:
    for crl, ocsp, issuer in [(True, True, True), (False, True, False), (True, False, True), (False, False, False)]:
        seen = read(draft(plan(rules={"revocation": Revocation(crl, ocsp, issuer)}))).extensions
        found = {type(one.value): one.value for one in seen}
        points: Any = found.get(x509.CRLDistributionPoints)
        assert (points is not None) is crl
        if crl:
            assert [name.value for point in points for name in point.full_name] == [f"{PKI}/crl/issuing.crl"]
        access: Any = found.get(x509.AuthorityInformationAccess, [])
        wanted = [f"{PKI}/ocsp/issuing"] * ocsp + [f"{PKI}/ca/issuing.cer"] * issuer
        assert [one.access_location.value for one in access] == wanted


def test_no_rev_avail_stands_alone() -> None:
    """RFC 9608 3 and 4."""
    made = plan(rules={"revocation": Revocation(crl=False, ocsp=False, no_rev_avail=True)})
    seen = {one.oid.dotted_string: one for one in read(draft(made)).extensions}
    assert seen["2.5.29.56"].value.public_bytes() == b"\x05\x00"
    assert not seen["2.5.29.56"].critical
    assert "2.5.29.31" not in seen
    access: Any = seen["1.3.6.1.5.5.7.1.1"].value
    assert [one.access_method for one in access] == [AuthorityInformationAccessOID.CA_ISSUERS]


# ── Serials (I-04) ────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.invariant("I-04")
@settings(max_examples=100, deadline=None)
@given(st.binary(min_size=20, max_size=20))
def test_a_serial_is_positive_and_keeps_its_random_bits(drawn: bytes) -> None:
    serial = make_serial(drawn)
    assert len(serial) == 20
    assert 0x40 <= serial[0] <= 0x7F
    assert (serial[0] & 0x3F, serial[1:]) == (drawn[0] & 0x3F, drawn[1:])
    assert der.integer(int.from_bytes(serial, "big")) == der.tlv(der.INTEGER, serial)


@pytest.mark.invariant("I-04")
def test_a_hundred_thousand_serials() -> None:
    source = random.Random(7)
    serials = {make_serial(source.randbytes(20)) for _ in range(100_000)}
    assert len(serials) == 100_000
    columns = [Counter(column) for column in zip(*serials, strict=True)]
    ones = [
        sum(count for octet, count in columns[bit // 8].items() if octet >> (7 - bit % 8) & 1) for bit in range(160)
    ]
    assert ones[:2] == [0, 100_000]
    assert all(49_000 < count < 51_000 for count in ones[2:])  # six standard deviations


@pytest.mark.parametrize("size", [0, 1, 8, 19, 21, 32])
def test_a_serial_is_made_of_twenty_octets(size: int) -> None:
    with pytest.raises(ValueError, match="20 random octets"):
        make_serial(bytes(size))


def test_the_signature_algorithm_is_the_issuers() -> None:
    drafted = draft(plan(key=parts.private_key("p384")))
    assert drafted.algorithm == SIGNATURES[KeyAlgorithm.P256].identifier
    assert read(drafted).issuer.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value == "Test Issuing CA"
