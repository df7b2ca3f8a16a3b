"""DER: written as the library writes it, read back exactly, and nothing else read."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st
from pyasn1.codec.der import encoder
from pyasn1.type import char, univ, useful

from rootward.core import der
from tests.vectors.csr_parts import nested
from tests.vectors.csrs import good_csr


@given(st.integers(-(2**200), 2**200))
def test_integers(value: int) -> None:
    if value >= 0:  # pyasn1 writes some negative ones, such as -128, with an octet too many
        assert der.integer(value) == encoder.encode(univ.Integer(value))
    assert der.read_integer(der.read(der.integer(value)).content) == value


def test_negative_integers() -> None:
    wanted = {-1: "ff", -127: "81", -128: "80", -129: "ff7f", -32768: "8000"}
    assert {value: der.integer(value)[2:].hex() for value in wanted} == wanted


@pytest.mark.parametrize("body", ["", "0000", "007f", "ff80", "ffff"])
def test_integers_that_are_not_minimal(body: str) -> None:
    with pytest.raises(der.DerError):
        der.read_integer(bytes.fromhex(body))


@pytest.mark.parametrize(
    "dotted", ["0.0", "1.2.840.113549.1.1.11", "2.5.29.17", "2.999.3", "2.16.840.1.101.3.4.3.17", "1.39.1"]
)
def test_object_identifiers(dotted: str) -> None:
    assert der.oid(dotted) == encoder.encode(univ.ObjectIdentifier(dotted))
    assert der.read_oid(der.oid(dotted)[2:]) == dotted


@pytest.mark.parametrize("body", ["", "80", "2a80", "2a8001", "8001", "2a" * 65])
def test_object_identifiers_that_are_none(body: str) -> None:
    with pytest.raises(der.DerError):
        der.read_oid(bytes.fromhex(body))


@pytest.mark.parametrize("dotted", ["", "1", "3.1", "0.40", "1.x", "1.-2"])
def test_dotted_forms_that_are_none(dotted: str) -> None:
    with pytest.raises(ValueError, match=r"object identifier|invalid literal"):
        der.oid(dotted)


@given(st.binary(max_size=300))
def test_strings_of_octets(value: bytes) -> None:
    assert der.octet_string(value) == encoder.encode(univ.OctetString(value))
    assert der.bit_string(value) == encoder.encode(univ.BitString.fromOctetString(value))


def test_the_other_types() -> None:
    assert der.null() == encoder.encode(univ.Null(""))
    assert der.boolean(True) == encoder.encode(univ.Boolean(True))
    assert der.boolean(False) == encoder.encode(univ.Boolean(False))
    assert der.enumerated(6) == encoder.encode(univ.Enumerated(6))
    assert der.utf8_string("ü") == encoder.encode(char.UTF8String("ü"))
    assert der.printable_string("DE") == encoder.encode(char.PrintableString("DE"))
    assert der.ia5_string("a@b") == encoder.encode(char.IA5String("a@b"))
    assert der.set_of(b"\x02\x01\x02", b"\x02\x01\x01") == b"\x31\x06\x02\x01\x01\x02\x01\x02"
    assert der.explicit(0, der.null()) == b"\xa0\x02\x05\x00"
    assert der.implicit(6, b"x") == b"\x86\x01x"


def test_times() -> None:
    moment = datetime(2049, 12, 31, 23, 59, 59, tzinfo=UTC)
    assert der.utc_time(moment) == encoder.encode(useful.UTCTime("491231235959Z"))
    assert der.time(moment) == der.utc_time(moment)
    assert der.time(moment + timedelta(seconds=1)) == encoder.encode(useful.GeneralizedTime("20500101000000Z"))
    assert der.generalized_time(datetime(99, 1, 1, tzinfo=UTC))[2:] == b"00990101000000Z"
    there = datetime(2026, 1, 1, 1, tzinfo=timezone(timedelta(hours=2)))
    assert der.utc_time(there)[2:] == b"251231230000Z"


@pytest.mark.invariant("I-68")
def test_naive_times_are_refused() -> None:
    naive = datetime(2026, 1, 1)  # noqa: DTZ001 - a naive time is what is tested
    for write in (der.time, der.utc_time, der.generalized_time):
        with pytest.raises(ValueError, match="aware"):
            write(naive)


def test_utc_time_ends_in_2049() -> None:
    for year in (1949, 2050):
        with pytest.raises(ValueError, match="1950 to 2049"):
            der.utc_time(datetime(year, 6, 1, tzinfo=UTC))


@given(
    st.recursive(
        st.binary(max_size=200).map(der.octet_string),
        lambda inner: st.lists(inner).map(lambda p: der.sequence(*p)),
        max_leaves=20,
    )
)
def test_what_is_written_is_read_back(data: bytes) -> None:
    assert _written(der.read(data)) == data


def _written(node: der.Node) -> bytes:
    return der.tlv(node.tag, b"".join(map(_written, node.children)) or node.content)


def test_a_request_is_read_as_the_library_reads_it() -> None:
    data = good_csr()
    info, algorithm, signature = der.children(data)
    csr = x509.load_der_x509_csr(data)
    assert info.whole == csr.tbs_certrequest_bytes
    assert signature.content[1:] == csr.signature
    assert der.read_oid(der.children(algorithm.whole)[0].content) == csr.signature_algorithm_oid.dotted_string


@pytest.mark.parametrize(
    "data",
    [
        "",
        "30",
        "3001",
        "300105",
        "0500ff",
        "300205",
        "3080050000000000",
        "308100",
        "30810105",
        "30820001",
        "3083000000",
        "30850000000000",
        "308400000000",
        "1f8101",
        "3f1f00",
        "308180" + "05" * 127,
        "30ff",
    ],
)
def test_what_is_no_der_is_refused(data: str) -> None:
    raw = bytes.fromhex(data)
    for reader in (der.check, der.read):
        with pytest.raises(der.DerError):
            reader(raw)


@pytest.mark.invariant("I-66")
def test_depth_and_elements_are_bounded() -> None:
    der.check(nested(32))
    for depth in (33, 10_000):
        with pytest.raises(der.DerError, match="deeply"):
            der.read(nested(depth))
    flat = der.sequence(*[der.null()] * 99)
    der.check(flat, elements=100)
    with pytest.raises(der.DerError, match="too many"):
        der.check(flat, elements=99)


@given(st.binary(max_size=60))
def test_any_bytes_are_der_or_an_error(data: bytes) -> None:
    try:
        node = der.read(data)
    except der.DerError:
        return
    assert _written(node) == data


def test_one_element_alone() -> None:
    assert der.only(b"\x05\x00", der.NULL).end == 2
    for data, tag in ((b"\x05\x00\x00", der.NULL), (b"\x05\x00", der.SEQUENCE), (b"", der.NULL)):
        with pytest.raises(der.DerError):
            der.only(data, tag)
    with pytest.raises(der.DerError):
        der.children(der.null())
