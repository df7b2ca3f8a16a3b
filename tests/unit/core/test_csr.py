"""Reading certificate requests: the table of bad ones, what is kept and ignored of good ones, random damage."""

from __future__ import annotations

import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from rootward.core import der
from rootward.core.csr import MAX_SIZE, Csr, parse_csr
from rootward.core.names import parse_name
from rootward.core.problems import Kind, Problem
from tests.vectors import csr_parts as parts
from tests.vectors.csrs import BAD_CSRS, GOOD_CSRS, BadCsr, good_csr, pem

REFUSED = [bad for bad in BAD_CSRS if not bad.needs_profile]
LEFT_TO_THE_PROFILE = [bad for bad in BAD_CSRS if bad.needs_profile]


@pytest.mark.invariant("I-66")
@pytest.mark.parametrize("bad", REFUSED, ids=str)
def test_a_bad_request_gets_its_code(bad: BadCsr) -> None:
    data = bad.make()
    for form in {data, pem(data)}:
        started = time.perf_counter()
        with pytest.raises(Problem) as caught:
            parse_csr(form)
        assert time.perf_counter() - started < 0.25
        assert caught.value.code == bad.code, caught.value
        assert {reason.field for reason in caught.value.reasons} == {bad.field}
        assert caught.value.kind in (Kind.MALFORMED, Kind.POLICY, Kind.TOO_LARGE)


@pytest.mark.parametrize("bad", LEFT_TO_THE_PROFILE, ids=str)
def test_what_a_profile_decides_is_read(bad: BadCsr) -> None:
    assert isinstance(parse_csr(bad.make()), Csr)


def test_the_table_has_every_number_once_as_such() -> None:
    assert len({str(bad) for bad in BAD_CSRS}) == len(BAD_CSRS)


@pytest.mark.parametrize("title", list(GOOD_CSRS))
def test_a_good_request_is_read(title: str) -> None:
    data = GOOD_CSRS[title]()
    csr = parse_csr(data)
    assert parse_csr(pem(data)) == csr
    assert x509.load_der_x509_csr(csr.der).is_signature_valid


def test_deep_nesting_costs_nothing() -> None:
    data = parts.nested(10_000)
    started = time.perf_counter()
    with pytest.raises(Problem, match="RW-CSR-MALFORMED"):
        parse_csr(data)
    assert time.perf_counter() - started < 0.01


def test_what_is_asked_for_is_a_field_each() -> None:
    wanted = ["dns:A.internal", "dns:*.a.internal", "ip:10.0.0.1", "uri:spiffe://a.internal/x", "email:me@A.internal"]
    csr = parse_csr(
        parts.raw_csr(
            rdns=[parts.rdn("2.5.4.6", b"DE", der.PRINTABLE_STRING), parts.common_name("Zoë's printer")],
            extensions=[
                parts.san(
                    parts.dns(b"A.internal"),
                    parts.dns(b"*.a.internal"),
                    parts.ip(bytes([10, 0, 0, 1])),
                    parts.uri(b"spiffe://a.internal/x"),
                    parts.email(b"me@A.internal"),
                ),
                parts.key_usage(0xA0, unused=5),
                parts.eku("1.3.6.1.5.5.7.3.1", "1.3.6.1.5.5.7.3.2", "1.3.6.1.5.5.7.3.1"),
                parts.extension(parts.TLS_FEATURE, der.sequence(der.integer(5))),
            ],
        )
    )
    assert csr.names == tuple(parse_name(text) for text in wanted)
    assert csr.subject == (("2.5.4.6", "DE"), ("2.5.4.3", "Zoë's printer"))
    assert csr.common_name == "Zoë's printer"
    assert csr.key_usage == frozenset({"digital_signature", "key_encipherment"})
    assert csr.extended_key_usage == ("1.3.6.1.5.5.7.3.1", "1.3.6.1.5.5.7.3.2")
    assert csr.must_staple
    assert csr.ignored == ()
    assert csr.public_key.spki == parts.spki_of(parts.private_key())


def test_key_usage_bits_are_read_as_the_library_writes_them() -> None:
    names = (
        "digital_signature content_commitment key_encipherment data_encipherment key_agreement "
        "key_cert_sign crl_sign encipher_only decipher_only"
    ).split()
    for name in names:
        flags = {each: each in (name, "key_agreement") for each in names}
        csr = (
            x509.CertificateSigningRequestBuilder()
            .subject_name(x509.Name([]))
            .add_extension(x509.KeyUsage(**flags), critical=True)
            .sign(parts.private_key(), hashes.SHA256())
        )
        read = parse_csr(csr.public_bytes(serialization.Encoding.DER)).key_usage
        assert read == frozenset({name, "key_agreement"})


@pytest.mark.invariant("I-11")
@pytest.mark.parametrize("critical", [False, True])
@pytest.mark.parametrize(
    "oid",
    ["2.5.29.14", "2.5.29.35", "2.5.29.31", "2.5.29.32", "2.5.29.30", "1.3.6.1.5.5.7.1.1"],
)
def test_what_the_ca_computes_is_ignored(oid: str, critical: bool) -> None:
    wish = parts.extension(oid, der.sequence(), critical=critical)
    csr = parse_csr(parts.raw_csr(extensions=[parts.GOOD_SAN, wish]))
    assert csr.ignored == (oid,)


@pytest.mark.invariant("I-11")
def test_the_unknown_is_ignored_unless_critical() -> None:
    assert parse_csr(parts.raw_csr(extensions=[parts.extension("1.2.3.4", der.null())])).ignored == ("1.2.3.4",)


def test_names_that_differ_in_case_count_once() -> None:
    csr = parse_csr(parts.raw_csr(extensions=[parts.san(parts.dns(b"a.internal"), parts.dns(b"A.INTERNAL"))]))
    assert [str(name) for name in csr.names] == ["dns:a.internal"]


def test_other_attributes_are_kept_for_the_protocols() -> None:
    password = der.utf8_string("secret")
    csr = parse_csr(parts.raw_csr(attributes=[parts.attribute("1.2.840.113549.1.9.7", password)]))
    assert csr.attributes == (("1.2.840.113549.1.9.7", password),)
    assert csr.names == ()


def test_all_that_is_wrong_is_said_at_once() -> None:
    data = parts.raw_csr(
        rdns=[parts.common_name("a"), parts.common_name("b")],
        extensions=[
            parts.san(parts.dns(b"a_b"), parts.ip(bytes(4)), parts.upn("x@y"), parts.dns(b"good.internal")),
            parts.eku(),
            parts.extension(parts.BASIC_CONSTRAINTS, der.sequence(der.boolean(True))),
        ],
        spki=parts.ed25519_spki(parts.SMALL_ORDER_ED25519[0]),
    )
    with pytest.raises(Problem) as caught:
        parse_csr(data)
    assert [reason.code for reason in caught.value.reasons] == [
        "RW-KEY-WEAK",
        "RW-CSR-SUBJECT",
        "RW-NAME",
        "RW-NAME",
        "RW-NAME-TYPE",
        "RW-CSR-EXTENSION",
        "RW-CSR-CA",
    ]
    assert "user principal name" in caught.value.detail


@pytest.mark.invariant("I-12")
def test_possession_is_proved_before_anything_is_given() -> None:
    data = parts.raw_csr(signature=parts.other_key)
    with pytest.raises(Problem, match="RW-CSR-SIGNATURE"):
        parse_csr(data)


def test_the_algorithm_is_judged_before_the_signature() -> None:
    weak = der.sequence(der.oid("1.2.840.113549.1.1.5"), der.null())
    with pytest.raises(Problem, match="RW-CSR-ALGORITHM"):
        parse_csr(parts.raw_csr(algorithm=weak, signature=lambda _info: b"nothing"))


def test_the_answer_never_holds_the_senders_bytes() -> None:
    with pytest.raises(Problem) as caught:
        parse_csr(parts.raw_csr(extensions=[parts.san(parts.dns(b"<script>\x1b[31m\n"))]))
    assert not {"<", "\x1b", "\n"} & set(caught.value.detail)


def test_the_size_is_judged_before_the_content() -> None:
    huge = pem(b"\x30" + bytes(40 * 1024 * 1024))
    started = time.perf_counter()
    with pytest.raises(Problem, match="RW-CSR-SIZE"):
        parse_csr(huge)
    assert time.perf_counter() - started < 0.01
    with pytest.raises(Problem, match="RW-CSR-MALFORMED"):
        parse_csr(b"-" * MAX_SIZE)


# Random damage: whatever comes, a Problem comes out of it or a request whose signature holds.

SEEDS = [make() for make in GOOD_CSRS.values()][:8] + [bad.make() for bad in REFUSED if len(bad.make()) < 2000]


def _survives(data: bytes) -> None:
    try:
        csr = parse_csr(data)
    except Problem:
        return
    assert x509.load_der_x509_csr(csr.der).is_signature_valid


@settings(max_examples=1500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.sampled_from(SEEDS),
    changes=st.lists(st.tuples(st.integers(0, 5000), st.sampled_from("sdi"), st.integers(0, 255)), max_size=6),
)
def test_a_damaged_request_is_only_ever_refused(seed: bytes, changes: list[tuple[int, str, int]]) -> None:
    data = bytearray(seed)
    for at, how, octet in changes:
        at %= len(data) or 1
        if how == "i" or not data:
            data.insert(at, octet)
        elif how == "d":
            del data[at]
        else:
            data[at] = octet
    _survives(bytes(data))


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
@example(b"\x30\x80\x00\x00")
@example(b"-----BEGIN CERTIFICATE REQUEST----------END CERTIFICATE REQUEST-----")
def test_random_bytes_are_only_ever_refused(data: bytes) -> None:
    _survives(data)
    _survives(b"\x30" + data)


# The same damage, but signed again: so it gets past the signature to everything behind it.


@settings(max_examples=1500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.sampled_from(SEEDS),
    changes=st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 255)), min_size=1, max_size=4),
)
def test_a_damaged_request_that_is_signed_again_is_read_or_refused(seed: bytes, changes: list[tuple[int, int]]) -> None:
    try:
        info = bytearray(der.children(seed)[0].whole)
    except (der.DerError, IndexError):
        return
    for at, octet in changes:
        info[at % len(info)] = octet
    signed = parts.sign(parts.private_key(), bytes(info))
    _survives(der.sequence(bytes(info), parts.ECDSA_SHA256, der.bit_string(signed)))


@settings(max_examples=300, deadline=None)
@given(
    names=st.lists(st.tuples(st.integers(0x80, 0x88) | st.integers(0xA0, 0xA8), st.binary(max_size=40)), max_size=8),
    cn=st.none() | st.tuples(st.sampled_from([0x0C, 0x13, 0x14, 0x16, 0x1E, 0x1C, 0x02]), st.binary(max_size=20)),
    wish=st.tuples(
        st.sampled_from(["2.5.29.15", "2.5.29.19", "2.5.29.37", "1.3.6.1.5.5.7.1.24"]), st.binary(max_size=9)
    ),
)
def test_any_octets_in_names_subject_and_extensions(
    names: list[tuple[int, bytes]], cn: tuple[int, bytes] | None, wish: tuple[str, bytes]
) -> None:
    rdns = [] if cn is None else [parts.common_name(cn[1], cn[0])]
    san = parts.san(*(der.tlv(tag, body) for tag, body in names))
    _survives(parts.raw_csr(rdns=rdns, extensions=[san]))
    _survives(parts.raw_csr(rdns=rdns, extensions=[parts.extension(*wish)]))


def test_good_csr_has_the_names_that_it_is_given() -> None:
    csr = parse_csr(good_csr("p384", names=["dns:b.internal"], cn="b.internal"))
    assert (csr.public_key.algorithm, csr.common_name) == ("p384", "b.internal")
    assert [str(name) for name in csr.names] == ["dns:b.internal"]
