"""OCSP requests: what is asked is read exactly, and whatever is wrong gets the status that the table gives it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509 import ocsp as others
from hypothesis import given
from hypothesis import strategies as st

from rootward.core import der
from rootward.core.ocsp import (
    CertId,
    OcspError,
    OcspRequest,
    OcspStatus,
    cert_id_for,
    error_response,
    matches,
    parse_request,
    request_for,
)
from rootward.core.pubkey import KeyAlgorithm
from tests.support.revocation import SERIAL, issuer_of, make_ca, make_leaf
from tests.vectors.ocsp import (
    BAD_OCSP,
    CRITICAL,
    NONCE,
    OTHER,
    SHA1,
    SHA256,
    BadOcsp,
    cert_id,
    extension,
    nested,
    nonce,
    request,
    single,
)

HASHES = {"sha1": hashes.SHA1(), "sha256": hashes.SHA256()}  # noqa: S303 - CertIDs name issuers by it


@pytest.mark.parametrize("row", BAD_OCSP, ids=[f"{row.number} {row.title}" for row in BAD_OCSP])
def test_a_bad_request_gets_its_status(row: BadOcsp) -> None:
    with pytest.raises(OcspError) as refused:
        parse_request(row.make())
    assert refused.value.status is row.status


def test_what_the_table_changes_is_good_without_the_change() -> None:
    """So each row is refused for what it says."""
    assert parse_request(request()) == OcspRequest(
        (CertId("sha1", b"n" * 20, b"k" * 20, b"\x42" * 16, cert_id()),), None
    )


# --- What others write


@pytest.mark.parametrize("algorithm", ["sha1", "sha256"])
@pytest.mark.parametrize("size", [None, 16, 32])
def test_what_cryptography_asks_is_read(algorithm: str, size: int | None) -> None:
    ca = make_ca()
    leaf = make_leaf(ca)
    builder = others.OCSPRequestBuilder().add_certificate(leaf.certificate, ca.certificate, HASHES[algorithm])
    if size is not None:
        builder = builder.add_extension(x509.OCSPNonce(b"\x07" * size), critical=False)
    asked = parse_request(builder.build().public_bytes(serialization.Encoding.DER))
    assert asked.nonce == (None if size is None else b"\x07" * size)
    assert asked.cert_ids == (cert_id_for(issuer_of(ca), SERIAL, algorithm),)


@pytest.mark.parametrize(
    "arguments", [("-sha1",), ("-sha256",), ("-no_nonce",), ("-signer", "leaf.pem", "-signkey", "leaf.key")]
)
def test_what_openssl_asks_is_read(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """Two certificates at once; the last one with a requestorName and a signature."""
    ca = make_ca()
    issuer = issuer_of(ca)
    leaf = make_leaf(ca)
    (tmp_path / "ca.pem").write_text(issuer.pem())
    (tmp_path / "leaf.pem").write_text(issuer_of(leaf).pem())
    (tmp_path / "leaf.key").write_bytes(
        leaf.private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    first = [one for one in arguments if one in ("-sha1", "-sha256")]
    rest = [one for one in arguments if one not in first]
    command = ["openssl", "ocsp", *first, "-issuer", "ca.pem", "-cert", "leaf.pem"]
    command += [*first, "-serial", "0x05", *rest, "-reqout", "out.der"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    data = (tmp_path / "out.der").read_bytes()
    asked = parse_request(data)
    algorithm = "sha256" if "-sha256" in arguments else "sha1"
    assert asked.cert_ids == (cert_id_for(issuer, SERIAL, algorithm), cert_id_for(issuer, b"\x05", algorithm))
    assert (asked.nonce is None) == ("-no_nonce" in arguments)
    assert (b"\xa1" in der.whole(data, der.header(data, 0, len(data)))[:12]) == ("-signer" in arguments)


# --- What others read


@pytest.mark.parametrize("algorithm", ["sha1", "sha256"])
def test_cryptography_reads_what_we_ask(algorithm: str) -> None:
    ca = make_ca()
    asked = cert_id_for(issuer_of(ca), SERIAL, algorithm)
    found = others.load_der_ocsp_request(request_for([asked], b"\x07" * 32))
    assert found.serial_number == int.from_bytes(SERIAL, "big")
    assert (found.issuer_name_hash, found.issuer_key_hash) == (asked.name_hash, asked.key_hash)
    assert found.hash_algorithm.name == algorithm
    assert found.extensions.get_extension_for_class(x509.OCSPNonce).value.nonce == b"\x07" * 32
    theirs = others.OCSPRequestBuilder().add_certificate(make_leaf(ca).certificate, ca.certificate, HASHES[algorithm])
    assert theirs.build().public_bytes(serialization.Encoding.DER) == request_for([asked])


def test_openssl_reads_what_we_ask(tmp_path: Path) -> None:
    issuer = issuer_of(make_ca())
    asked = [cert_id_for(issuer, SERIAL, "sha1"), cert_id_for(issuer, b"\x05", "sha256")]
    (tmp_path / "ask.der").write_bytes(request_for(asked, b"\x07" * 32))
    command = ["openssl", "ocsp", "-reqin", "ask.der", "-req_text"]
    text = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True).stdout
    assert "Version: 1 (0x0)" in text
    assert f"Serial Number: {SERIAL.hex().upper()}" in text
    assert asked[1].key_hash.hex().upper() in text
    assert "OCSP Nonce" in text


@pytest.mark.parametrize("algorithm", list(OcspStatus))
def test_others_read_our_refusals(algorithm: OcspStatus) -> None:
    names = {
        "malformedRequest": "MALFORMED_REQUEST",
        "internalError": "INTERNAL_ERROR",
        "tryLater": "TRY_LATER",
        "sigRequired": "SIG_REQUIRED",
        "unauthorized": "UNAUTHORIZED",
    }
    assert others.load_der_ocsp_response(error_response(algorithm)).response_status.name == names[algorithm.value]


# --- What may be there


@pytest.mark.parametrize(
    "data",
    [
        request(name=nested(3)),
        request(name=der.explicit(1, der.implicit(6, b"http://asker.test"))),
        request(signature=der.explicit(0, der.sequence(SHA1, der.bit_string(b"made up")))),
        request(signature=der.explicit(0, der.sequence(SHA1, der.bit_string(b"s"), der.explicit(0, der.sequence())))),
        request(version=der.explicit(0, der.integer(0))),
        request(extensions=(extension(OTHER, b"anything"),)),
        request(single(None, extension(OTHER, b"anything"))),
    ],
)
def test_what_counts_for_nothing_changes_nothing(data: bytes) -> None:
    assert parse_request(data) == parse_request(request())


@pytest.mark.parametrize("algorithm", ["sha1", "sha256"])
def test_parameters_may_be_absent_and_the_cert_id_stays_as_it_came(algorithm: str) -> None:
    known = {"sha1": SHA1, "sha256": SHA256}[algorithm]
    size = {"sha1": 20, "sha256": 32}[algorithm]
    absent = der.sequence(der.tlv(der.OID, der.children(known)[0].content))
    asked = cert_id(absent, name=b"n" * size, key=b"k" * size)
    (found,) = parse_request(request(single(asked))).cert_ids
    assert (found.hash, found.der) == (algorithm, asked)


def test_sixteen_certificates_are_answered() -> None:
    asked = [cert_id(serial=bytes([1, number])) for number in range(16)]
    assert [one.der for one in parse_request(request(*map(single, asked))).cert_ids] == asked


@pytest.mark.parametrize("serial", [b"\x01", b"\x7f", b"\x00\x80", b"\x7f" + b"\xff" * 19])
def test_every_serial_that_a_ca_may_give_is_read(serial: bytes) -> None:
    assert parse_request(request(single(cert_id(serial=serial)))).cert_ids[0].serial == serial


@pytest.mark.invariant("I-31")
@pytest.mark.parametrize("octets", range(1, 129))
def test_a_nonce_is_echoed_or_ignored(octets: int) -> None:
    """RFC 9654 2.1."""
    found = parse_request(request(extensions=(nonce(octets),))).nonce
    assert found == (b"\x5a" * octets if 16 <= octets <= 32 else None)


def test_a_critical_nonce_is_a_nonce() -> None:
    marked = extension(NONCE, der.octet_string(b"\x5a" * 32), CRITICAL)
    assert parse_request(request(extensions=(marked,))).nonce == b"\x5a" * 32


@pytest.mark.parametrize("octets", [0, 129])
def test_we_do_not_ask_with_a_wrong_nonce(octets: int) -> None:
    with pytest.raises(ValueError, match="128"):
        request_for([cert_id_for(issuer_of(make_ca()), SERIAL, "sha1")], b"x" * octets)


# --- Whose certificate it is


@pytest.mark.invariant("I-28")
@pytest.mark.parametrize("algorithm", ["sha1", "sha256"])
def test_both_hashes_must_match(algorithm: str) -> None:
    ca, other = issuer_of(make_ca()), issuer_of(make_ca("Other CA"))
    ours, theirs = cert_id_for(ca, SERIAL, algorithm), cert_id_for(other, SERIAL, algorithm)
    assert matches(ours, ca)
    assert not matches(ours, other)
    assert not matches(CertId(ours.hash, ours.name_hash, theirs.key_hash, SERIAL, ours.der), ca)
    assert not matches(CertId(ours.hash, theirs.name_hash, ours.key_hash, SERIAL, ours.der), ca)


@pytest.mark.invariant("I-23")
@pytest.mark.invariant("I-28")
def test_a_new_key_under_the_same_name_is_another_issuer() -> None:
    old, new = issuer_of(make_ca()), issuer_of(make_ca(algorithm=KeyAlgorithm.P384))
    assert old.name_der == new.name_der
    assert not matches(cert_id_for(old, SERIAL, "sha256"), new)


def test_hashes_are_those_of_others() -> None:
    ca = make_ca()
    built = (
        others.OCSPRequestBuilder().add_certificate(make_leaf(ca).certificate, ca.certificate, hashes.SHA256()).build()
    )
    found = cert_id_for(issuer_of(ca), SERIAL, "sha256")
    assert (found.name_hash, found.key_hash) == (built.issuer_name_hash, built.issuer_key_hash)


# --- Hostile bytes

SEEDS = [
    request(),
    request(extensions=(nonce(32), extension(OTHER, b"x"))),
    request(
        name=nested(3),
        signature=der.explicit(0, der.sequence(SHA1, der.bit_string(b"s"), der.explicit(0, der.sequence()))),
    ),
    request(*[single()] * 3, version=der.explicit(0, der.integer(0))),
    request(single(cert_id(SHA256, name=b"n" * 32, key=b"k" * 32), extension(OTHER, b"x"))),
]
CHANGES = st.lists(
    st.tuples(st.sampled_from(["flip", "cut", "put", "drop"]), st.integers(0, 10**6), st.binary(max_size=4))
)


def mutate(seed: bytes, changes: list[tuple[str, int, bytes]]) -> bytes:
    """The seed with octets changed, cut off, put in and taken out."""
    data = bytearray(seed)
    for kind, where, octets in changes:
        at = where % (len(data) + 1)
        if kind == "flip":
            data[at : at + len(octets)] = octets
        elif kind == "cut":
            del data[at:]
        elif kind == "put":
            data[at:at] = octets
        else:
            del data[at : at + len(octets)]
    return bytes(data)


@pytest.mark.invariant("I-66")
@given(st.sampled_from(SEEDS), CHANGES)
def test_only_ocsp_errors_come_out(seed: bytes, changes: list[tuple[str, int, bytes]]) -> None:
    data = mutate(seed, changes)
    try:
        asked = parse_request(data)
    except OcspError:
        return
    assert all(one.der in data for one in asked.cert_ids)
    assert parse_request(request_for(asked.cert_ids, asked.nonce)) == asked


@given(st.binary(max_size=300))
def test_noise_is_malformed(data: bytes) -> None:
    with pytest.raises(OcspError) as refused:
        parse_request(data)
    assert refused.value.status is OcspStatus.MALFORMED
