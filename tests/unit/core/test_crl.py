"""CRLs: others read what is drafted, what is wrong is found before it is signed, what is bad is never published.

Over 400 lines, because a draft, its lints and its checks are tested with the same few entries.
"""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from rootward.core import der
from rootward.core.crl import (
    BadCrl,
    CrlDraft,
    check_crl,
    draft_crl,
    finish_crl,
    lint_crl,
    parse_crl,
)
from rootward.core.crl_entries import Entry, encode_entry
from rootward.core.pubkey import KeyAlgorithm
from rootward.core.revocation import RevocationReason, Revoked
from tests.support.revocation import NOW, SERIAL, Signer, issuer_of, make_ca, make_leaf

URL = "http://pki.test/crl/issuing.crl"
DAY = timedelta(days=1)
ENTRY = Entry(SERIAL, NOW - DAY, RevocationReason.KEY_COMPROMISE)
REASONS = [reason for reason in RevocationReason if reason is not RevocationReason.REMOVE_FROM_CRL]
ALGORITHMS = [
    KeyAlgorithm.P256,
    KeyAlgorithm.P384,
    KeyAlgorithm.RSA_2048,
    KeyAlgorithm.ED25519,
    KeyAlgorithm.ML_DSA_44,
]


def draft(ca: Signer, *entries: Entry | bytes, number: int = 7, url: str | None = None) -> CrlDraft:
    """A full CRL for one day from NOW on."""
    return draft_crl(
        issuer_of(ca), number=number, this_update=NOW, next_update=NOW + DAY, entries=entries, distribution_point=url
    )


def signed(ca: Signer, made: CrlDraft) -> bytes:
    """The draft with the CA's signature."""
    return finish_crl(made, ca.sign(made.tbs))


def changed(made: CrlDraft, **fields: object) -> CrlDraft:
    """A draft that no check stands for."""
    return CrlDraft._make(**{name: fields.get(name, getattr(made, name)) for name in CrlDraft._fields})


# --- What others read


@pytest.mark.parametrize("url", [None, URL])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_cryptography_reads_what_was_drafted(algorithm: KeyAlgorithm, url: str | None) -> None:
    ca = make_ca(algorithm=algorithm)
    entries = [Entry(bytes([1, number]), NOW - timedelta(hours=number), r) for number, r in enumerate(REASONS)]
    found = x509.load_der_x509_crl(signed(ca, draft(ca, *entries, url=url)))
    assert found.is_signature_valid(ca.certificate.public_key())
    assert found.issuer == ca.certificate.subject
    assert (found.last_update_utc, found.next_update_utc) == (NOW, NOW + DAY)
    assert found.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number == 7
    key = found.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    assert key.key_identifier == issuer_of(ca).subject_key_id
    assert (key.authority_cert_issuer, key.authority_cert_serial_number) == (None, None)
    points = [one for one in found.extensions if isinstance(one.value, x509.IssuingDistributionPoint)]
    assert [(one.critical, one.value.full_name) for one in points] == (
        [(True, [x509.UniformResourceIdentifier(URL)])] if url else []
    )
    assert len(found.extensions) == 3 if url else 2
    assert [(one.serial_number, one.revocation_date_utc) for one in found] == [
        (int.from_bytes(entry.serial, "big"), entry.revoked_at) for entry in entries
    ]
    read = [[extension.value.reason.value for extension in one.extensions] for one in found]
    assert read == [[] if reason is RevocationReason.UNSPECIFIED else [reason.value] for reason in REASONS]


def test_a_list_of_nothing_is_left_out() -> None:
    """RFC 5280 5.1.2.6."""
    ca = make_ca()
    made = draft(ca)
    assert made.entries == 0
    assert len(x509.load_der_x509_crl(signed(ca, made))) == 0
    assert lint_crl(made, issuer_of(ca)) == []
    assert len(der.children(made.tbs)) == 6


@pytest.mark.parametrize("url", [None, URL])
@pytest.mark.parametrize("algorithm", ALGORITHMS[:-1])
def test_openssl_verifies_chains_with_it(tmp_path: Path, algorithm: KeyAlgorithm, url: str | None) -> None:
    """The revoked certificate is refused and the other one passes, both only because of this CRL."""
    ca = make_ca(algorithm=algorithm)
    points = x509.CRLDistributionPoints(
        [x509.DistributionPoint([x509.UniformResourceIdentifier(URL)], None, None, None)]
    )
    revoked, good = make_leaf(ca, extensions=(points,)), make_leaf(ca, serial=b"\x05", extensions=(points,))
    for name, signer in (("ca", ca), ("revoked", revoked), ("good", good)):
        (tmp_path / f"{name}.pem").write_text(issuer_of(signer).pem())
    (tmp_path / "crl.der").write_bytes(signed(ca, draft(ca, ENTRY, url=url)))

    def openssl(*arguments: str) -> str:
        done = subprocess.run(["openssl", *arguments], cwd=tmp_path, capture_output=True, text=True, check=False)
        return done.stdout + done.stderr

    read = openssl("crl", "-inform", "DER", "-in", "crl.der", "-CAfile", "ca.pem", "-text", "-out", "crl.pem")
    assert "verify OK" in read
    # with a distribution point it is not for the root itself, which names none: one more reason to leave it out
    scope = "-crl_check" if url else "-crl_check_all"
    verify = ("verify", "-x509_strict", scope, "-attime", str(int(NOW.timestamp())))
    verify += ("-CAfile", "ca.pem", "-CRLfile", "crl.pem")
    assert "good.pem: OK" in openssl(*verify, "good.pem")
    assert "certificate revoked" in openssl(*verify, "revoked.pem")


def test_pkilint_has_nothing_to_say(tmp_path: Path) -> None:
    ca = make_ca()
    for name, entries, url in (("empty", (), None), ("full", (ENTRY,), None), ("point", (ENTRY,), URL)):
        path = tmp_path / f"{name}.crl"
        path.write_bytes(signed(ca, draft(ca, *entries, url=url)))
        linter = Path(sys.executable).with_name("lint_crl")
        done = subprocess.run(
            [str(linter), "lint", "-t", "CRL", "-p", "PKIX", "-s", "NOTICE", str(path)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stdout.strip(), done.stderr.strip()) == (0, "", "")


# --- Entries


@pytest.mark.invariant("I-24")
def test_unspecified_is_not_encoded() -> None:
    entry = encode_entry(Entry(b"\x05", NOW, RevocationReason.UNSPECIFIED))
    assert entry == bytes.fromhex("3012020105170d") + b"261123120000Z"


@pytest.mark.parametrize(
    ("moment", "expected"),
    [
        (datetime(2049, 12, 31, 23, 59, 59, tzinfo=UTC), b"\x17\x0d491231235959Z"),
        (datetime(2050, 1, 1, tzinfo=UTC), b"\x18\x0f20500101000000Z"),
        (datetime(1999, 12, 31, tzinfo=UTC), b"\x17\x0d991231000000Z"),
        (datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC), b"\x17\x0d260102030405Z"),
        (datetime(2026, 1, 1, 0, 30, tzinfo=timezone(timedelta(hours=1))), b"\x17\x0d251231233000Z"),
    ],
)
def test_times_are_utc_time_to_2049(moment: datetime, expected: bytes) -> None:
    assert encode_entry(Entry(b"\x05", moment, RevocationReason.UNSPECIFIED))[5:] == expected


@pytest.mark.parametrize("serial", [b"", b"\0", b"\x80", b"\xff", b"\0\x7f", b"\x01" * 21])
def test_a_serial_that_no_ca_may_give_is_refused(serial: bytes) -> None:
    with pytest.raises(ValueError, match="20 octets"):
        encode_entry(Entry(serial, NOW, RevocationReason.UNSPECIFIED))


@pytest.mark.invariant("I-24")
def test_remove_from_crl_is_refused() -> None:
    with pytest.raises(ValueError, match="delta"):
        encode_entry(Entry(SERIAL, NOW, RevocationReason.REMOVE_FROM_CRL))


def test_a_naive_time_is_refused() -> None:
    with pytest.raises(ValueError, match="aware"):
        encode_entry(Entry(SERIAL, datetime(2026, 1, 1), RevocationReason.SUPERSEDED))  # noqa: DTZ001 - it is the test


@settings(deadline=None)  # the first one compiles
@given(
    st.lists(
        st.builds(
            Entry,
            st.integers(1, 2**159 - 1).map(lambda number: der.integer(number)[2:]),
            st.datetimes(datetime(1950, 1, 1), NOW.replace(tzinfo=None)).map(lambda at: at.replace(tzinfo=UTC)),  # noqa: DTZ001 - the strategy takes naive ones
            st.sampled_from(REASONS),
        ),
        unique_by=lambda entry: entry.serial,
        max_size=8,
    )
)
def test_what_is_encoded_passes_and_is_read_back(entries: list[Entry]) -> None:
    ca = make_ca()
    made = draft(ca, *map(encode_entry, entries))
    assert lint_crl(made, issuer_of(ca)) == []
    whole = [Entry(one.serial, one.revoked_at.replace(microsecond=0), one.reason) for one in entries]
    assert list(parse_crl(finish_crl(made, b"\0"))) == whole


@pytest.mark.parametrize("number", [0, -1, 2**159])
def test_a_number_out_of_bounds_is_refused(number: int) -> None:
    with pytest.raises(ValueError, match="CRL number"):
        draft(make_ca(), number=number)


def test_the_largest_number_fits() -> None:
    ca = make_ca()
    made = draft(ca, number=2**159 - 1)
    assert lint_crl(made, issuer_of(ca)) == []
    assert parse_crl(signed(ca, made)).number == 2**159 - 1


# --- Lints

HOLD = encode_entry(Entry(SERIAL, NOW, RevocationReason.CERTIFICATE_HOLD))


@pytest.mark.invariant("I-09")
@pytest.mark.invariant("I-24")
@pytest.mark.parametrize(
    ("title", "entry"),
    [
        ("removeFromCRL", HOLD[:-1] + b"\x08"),
        ("7", HOLD[:-1] + b"\x07"),
        ("11", HOLD[:-1] + b"\x0b"),
        ("unspecified", HOLD[:-1] + b"\x00"),
        ("a date of tomorrow", encode_entry(Entry(SERIAL, NOW + DAY, RevocationReason.SUPERSEDED))),
        (
            "a date of the next second",
            encode_entry(Entry(SERIAL, NOW + timedelta(seconds=1), RevocationReason.SUPERSEDED)),
        ),
        ("a date of 2050", encode_entry(Entry(SERIAL, datetime(2050, 1, 1, tzinfo=UTC), RevocationReason.SUPERSEDED))),
        ("GeneralizedTime before 2050", der.sequence(der.integer(5), der.generalized_time(NOW - DAY))),
        ("a 13th month", der.sequence(der.integer(5), der.tlv(der.UTC_TIME, b"261301000000Z"))),
        ("a time without seconds", der.sequence(der.integer(5), der.tlv(der.UTC_TIME, b"2611010000Z"))),
        ("serial 0", der.sequence(der.integer(0), der.utc_time(NOW))),
        ("serial -5", der.sequence(der.integer(-5), der.utc_time(NOW))),
        ("a serial of 21 octets", der.sequence(der.integer(2**160), der.utc_time(NOW))),
        ("no time", der.sequence(der.integer(5))),
        ("another extension", der.sequence(der.integer(5), der.utc_time(NOW), der.sequence(der.null()))),
        ("no sequence", der.integer(5)),
        ("empty", b"\x30\x00"),
        ("cut short", HOLD[:-1]),
        ("junk", HOLD + b"\0"),
    ],
)
def test_a_bad_entry_is_found(title: str, entry: bytes) -> None:
    ca = make_ca()
    good = encode_entry(Entry(b"\x01", NOW, RevocationReason.SUPERSEDED))
    assert lint_crl(draft(ca, good), issuer_of(ca)) == []
    for entries in ((entry,), (good, entry), (entry, good)):
        found = lint_crl(draft(ca, *entries), issuer_of(ca))
        assert found, title
        assert {reason.code for reason in found} == {"RW-LINT"}


@pytest.mark.invariant("I-09")
def test_a_serial_that_is_there_twice_is_found() -> None:
    ca = make_ca()
    later = Entry(SERIAL, NOW, RevocationReason.SUPERSEDED)
    assert [one.detail for one in lint_crl(draft(ca, ENTRY, later), issuer_of(ca))] == ["A serial is there twice."]


def test_a_date_of_the_last_century_is_in_the_past() -> None:
    ca = make_ca()
    old = Entry(SERIAL, datetime(1950, 1, 1, tzinfo=UTC), RevocationReason.SUPERSEDED)
    assert lint_crl(draft(ca, old), issuer_of(ca)) == []


@pytest.mark.invariant("I-09")
@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"tbs": b""}, "cannot be read"),
        ({"tbs": b"\x30\x00"}, "cannot be read"),
        ({"algorithm": bytes.fromhex("300a06082a8648ce3d040303")}, "algorithm"),
        ({"issuer_key_id": "00" * 32}, "issuer"),
        ({"this_update": NOW - DAY}, "times"),
        ({"this_update": NOW + 2 * DAY}, "not after thisUpdate"),
        ({"number": 8}, "extensions"),
        ({"distribution_point": URL}, "extensions"),
        ({"entries": 2}, "number of entries"),
    ],
)
def test_a_draft_that_is_not_its_tbs_is_found(fields: dict[str, object], words: str) -> None:
    ca = make_ca()
    found = lint_crl(changed(draft(ca, ENTRY), **fields), issuer_of(ca))
    assert any(words in reason.detail for reason in found)


def test_a_missing_or_empty_list_is_found() -> None:
    ca = make_ca()
    made = draft(ca, ENTRY)
    assert [one.detail for one in lint_crl(changed(made, tbs=draft(ca).tbs), issuer_of(ca))] == [
        "The list of revoked certificates is missing."
    ]
    parts = [der.tlv(part.tag, part.content) for part in der.children(made.tbs)]
    parts[5] = der.sequence()
    assert lint_crl(changed(made, tbs=der.sequence(*parts), entries=0), issuer_of(ca))


@pytest.mark.invariant("I-09")
def test_the_issuer_must_be_able_to_sign_it() -> None:
    ca = make_ca()
    made = draft(ca, ENTRY)
    other = lint_crl(made, issuer_of(make_ca("Test CA", KeyAlgorithm.P384)))
    assert {"algorithm" in one.detail or "issuer" in one.detail or "extensions" in one.detail for one in other} == {
        True
    }
    unable = make_ca("No CRLs", crl_sign=False)
    assert [one.detail for one in lint_crl(draft(unable), issuer_of(unable))] == [
        "The issuer's certificate does not allow signing CRLs."
    ]


@pytest.mark.invariant("I-09")
def test_it_ends_with_its_issuer() -> None:
    ca = make_ca("Short", days=1)
    issuer = issuer_of(ca)
    last = ca.certificate.not_valid_after_utc
    assert lint_crl(draft_crl(issuer, number=1, this_update=NOW, next_update=last, entries=()), issuer) == []
    late = draft_crl(issuer, number=1, this_update=NOW, next_update=last + timedelta(seconds=1), entries=())
    assert [one.detail for one in lint_crl(late, issuer)] == ["nextUpdate is after the issuer's notAfter."]
    early = draft_crl(issuer, number=1, this_update=NOW - 2 * DAY, next_update=last, entries=())
    assert [one.detail for one in lint_crl(early, issuer)] == ["thisUpdate is before the issuer's notBefore."]


@pytest.mark.invariant("I-38")
def test_a_draft_is_not_made_by_hand() -> None:
    with pytest.raises(TypeError):
        CrlDraft(tbs=b"")


# --- Checking before publication


@pytest.mark.invariant("I-18")
@pytest.mark.parametrize("url", [None, URL])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_good_one_may_be_published(algorithm: KeyAlgorithm, url: str | None) -> None:
    ca = make_ca(algorithm=algorithm)
    made = signed(ca, draft(ca, ENTRY, url=url))
    for last in (None, 6):
        check_crl(made, issuer_of(ca), now=NOW, last_number=last, distribution_point=url)


@pytest.mark.invariant("I-18")
@pytest.mark.invariant("I-17")
@pytest.mark.parametrize(
    ("now", "last", "url", "words"),
    [
        (NOW, 7, None, "number"),
        (NOW, 8, None, "number"),
        (NOW - timedelta(seconds=1), 6, None, "thisUpdate"),
        (NOW + DAY, 6, None, "nextUpdate"),
        (NOW, 6, URL, "extensions"),
    ],
)
def test_a_bad_time_number_or_address_keeps_it_back(now: datetime, last: int, url: str | None, words: str) -> None:
    ca = make_ca()
    with pytest.raises(BadCrl) as bad:
        check_crl(signed(ca, draft(ca, ENTRY)), issuer_of(ca), now=now, last_number=last, distribution_point=url)
    assert len(bad.value.reasons) == 1
    assert words in bad.value.reasons[0]


@pytest.mark.invariant("I-18")
@pytest.mark.invariant("I-23")
def test_one_of_another_key_with_the_same_name_is_kept_back() -> None:
    ca = make_ca()
    same_name = Signer(ec.generate_private_key(ec.SECP256R1()), ca.certificate)
    with pytest.raises(BadCrl, match="signature"):
        check_crl(signed(same_name, draft(ca, ENTRY)), issuer_of(ca), now=NOW, last_number=None)
    made = draft(ca, ENTRY)
    for other in (make_ca("Other CA"), make_ca("Test CA", KeyAlgorithm.P384)):
        with pytest.raises(BadCrl) as bad:
            check_crl(signed(ca, made), issuer_of(other), now=NOW, last_number=None)
        assert len(bad.value.reasons) >= 2


@pytest.mark.invariant("I-18")
def test_all_reasons_come_at_once() -> None:
    ca = make_ca()
    made = draft(ca, ENTRY)
    with pytest.raises(BadCrl) as bad:
        check_crl(finish_crl(made, b"\0" * 64), issuer_of(ca), now=NOW + DAY, last_number=9)
    assert len(bad.value.reasons) == 3


@pytest.mark.invariant("I-18")
@given(st.data())
def test_no_changed_octet_gets_out(data: st.DataObject) -> None:
    ca = make_ca(algorithm=KeyAlgorithm.ED25519)
    good = signed(ca, draft(ca, ENTRY))
    at = data.draw(st.integers(0, len(good) - 1))
    bad = bytearray(good)
    bad[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(BadCrl):
        check_crl(bytes(bad), issuer_of(ca), now=NOW, last_number=None)


@given(st.binary(max_size=200))
def test_only_its_own_error_comes_out(data: bytes) -> None:
    with pytest.raises(BadCrl):
        parse_crl(data)


# --- Reading


def test_a_read_crl_says_who_is_revoked() -> None:
    ca = make_ca()
    crl = parse_crl(signed(ca, draft(ca, ENTRY, Entry(b"\x05", NOW, RevocationReason.UNSPECIFIED))))
    assert (crl.number, crl.this_update, crl.next_update, len(crl)) == (7, NOW, NOW + DAY, 2)
    assert crl.revoked(SERIAL) == Revoked(NOW - DAY, RevocationReason.KEY_COMPROMISE)
    assert crl.revoked(b"\x05") == Revoked(NOW, RevocationReason.UNSPECIFIED)
    assert crl.revoked(b"\x06") is None
    assert list(crl) == [ENTRY, Entry(b"\x05", NOW, RevocationReason.UNSPECIFIED)]


def test_one_of_others_without_a_number_is_read() -> None:
    ca = make_ca()
    builder = x509.CertificateRevocationListBuilder(ca.certificate.subject, NOW, NOW + DAY)
    crl = parse_crl(builder.sign(ca.private, ca.certificate.signature_hash_algorithm).public_bytes(Encoding.DER))
    assert (crl.number, len(crl), list(crl)) == (None, 0, [])
