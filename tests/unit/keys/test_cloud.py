"""The pure parts of the cloud key backends: the form of signatures, ML-DSA's mu, and Google's checksum."""

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from rootward.core.problems import Problem
from rootward.core.pubkey import public_key_of
from rootward.keys import NotSigned, SignatureUnknown
from rootward.keys.cloud import check_form, der_of, external_mu, later, refused
from rootward.keys.gcp import crc32c

P256 = ec.generate_private_key(ec.SECP256R1())
PUBLIC = public_key_of(P256.public_key())
SIGNED = P256.sign(b"message", ec.ECDSA(SHA256()))


@pytest.mark.parametrize("kind", [mldsa.MLDSA44PrivateKey, mldsa.MLDSA65PrivateKey, mldsa.MLDSA87PrivateKey])
def test_mu_is_what_a_signer_makes_of_the_message(kind):
    private = kind.generate()
    public = public_key_of(private.public_key())
    for message in (b"", b"message", bytes(10_000)):
        private.public_key().verify(private.sign_mu(external_mu(public, message)), message)
        private.public_key().verify_mu(private.sign(message), external_mu(public, message))


def test_the_checksum_is_castagnoli_s():
    assert crc32c(b"123456789") == 0xE3069283  # the catalogue's check value
    assert crc32c(b"") == 0
    assert crc32c(bytes(32)) == 0x8A9136AA  # RFC 3720 B.4
    assert crc32c(b"\xff" * 32) == 0x62A8AB43


def test_a_signature_has_the_form_of_its_algorithm():
    assert check_form(PUBLIC, SIGNED) == SIGNED
    ed = ed25519.Ed25519PrivateKey.generate()
    assert len(check_form(public_key_of(ed.public_key()), ed.sign(b"message"))) == 64


@pytest.mark.parametrize(
    "signature",
    [
        None,
        "text",
        b"",
        SIGNED[:-1],
        SIGNED + b"\0",
        encode_dss_signature(0, 1),
        encode_dss_signature(1, 0),
        encode_dss_signature(1 << 256, 1),
        b"\x30\x81\x06\x02\x01\x01\x02\x01\x01",  # BER, not DER
        b"\x30\x06\x02\x01\xff\x02\x01\x01",  # a negative number
    ],
    ids="nothing text empty short long r-zero s-zero r-large ber negative".split(),  # not the bytes: they are random
)
def test_what_has_no_such_form_is_in_doubt(signature):
    with pytest.raises(SignatureUnknown):
        check_form(PUBLIC, signature)


@pytest.mark.parametrize("size", [0, 255, 257])
def test_an_rsa_signature_is_as_long_as_the_modulus(size):
    public = public_key_of(rsa.generate_private_key(65537, 2048).public_key())
    assert check_form(public, bytes(256)) == bytes(256)
    with pytest.raises(SignatureUnknown):
        check_form(public, bytes(size))


def test_r_and_s_side_by_side_are_the_same_signature():
    r, s = decode_dss_signature(SIGNED)
    flat = r.to_bytes(32, "big") + s.to_bytes(32, "big")
    assert der_of(PUBLIC, flat) == SIGNED
    for wrong in (flat[:-1], flat + b"\0", None):
        with pytest.raises(SignatureUnknown):
            der_of(PUBLIC, wrong)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 429])
def test_a_refusal_is_one_by_its_status(status):
    assert refused(status)


@pytest.mark.parametrize("status", [100, 200, 302, 408, 499, 500, 502, 503, 504, None, "403"])
def test_no_other_status_says_that_nothing_was_signed(status):
    assert not refused(status)


def test_what_was_found_is_kept_and_what_was_not_is_looked_for_again():
    outcomes = [Problem("RW-KEY-UNAVAILABLE", "away"), Problem("RW-KEY-MISMATCH", "another"), "found"]

    def find():
        outcome = outcomes.pop(0)
        if isinstance(outcome, Problem):
            raise outcome
        return outcome

    get = later(find)
    for _ in range(2):
        with pytest.raises(NotSigned):
            get()
    assert (get(), get(), outcomes) == ("found", "found", [])
