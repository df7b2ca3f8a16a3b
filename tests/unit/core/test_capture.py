"""Capture keys: the TBS that is kept is the one that a real key would have signed, by every algorithm and builder."""

import concurrent.futures
import copy
import datetime as dt
import operator

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, rsa
from cryptography.x509.oid import NameOID

from rootward.core import capture
from rootward.core.pubkey import KeyAlgorithm
from rootward.core.signature import SIGNATURES

RAW = operator.methodcaller("private_bytes_raw")
NOW = dt.datetime(2026, 11, 23, tzinfo=dt.UTC)
NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Rootward test")])
# RSA's three sizes share one row: the size is not in what a builder writes, and a 4096-bit key takes a second to make.
MAKERS = {
    KeyAlgorithm.RSA_2048: lambda: rsa.generate_private_key(65537, 2048),
    KeyAlgorithm.P256: lambda: ec.generate_private_key(ec.SECP256R1()),
    KeyAlgorithm.P384: lambda: ec.generate_private_key(ec.SECP384R1()),
    KeyAlgorithm.P521: lambda: ec.generate_private_key(ec.SECP521R1()),
    KeyAlgorithm.ED25519: ed25519.Ed25519PrivateKey.generate,
    KeyAlgorithm.ML_DSA_44: mldsa.MLDSA44PrivateKey.generate,
    KeyAlgorithm.ML_DSA_65: mldsa.MLDSA65PrivateKey.generate,
    KeyAlgorithm.ML_DSA_87: mldsa.MLDSA87PrivateKey.generate,
}


def certificate(serial=5):
    leaf = ec.derive_private_key(7, ec.SECP256R1()).public_key()
    builder = x509.CertificateBuilder(NAME, NAME, leaf, serial, NOW, NOW + dt.timedelta(days=9))
    return builder.add_extension(x509.SubjectAlternativeName([x509.DNSName("a.internal")]), critical=False)


BUILDERS = {
    "certificate": (certificate, "tbs_certificate_bytes"),
    "crl": (
        lambda: x509.CertificateRevocationListBuilder(NAME, NOW, NOW + dt.timedelta(days=1)),
        "tbs_certlist_bytes",
    ),
    "csr": (lambda: x509.CertificateSigningRequestBuilder(NAME), "tbs_certrequest_bytes"),
}


@pytest.mark.parametrize("kind", BUILDERS)
@pytest.mark.parametrize("algorithm", MAKERS)
def test_captured_bytes_and_real_signature_are_the_real_thing(algorithm, kind):
    make, tbs_name = BUILDERS[kind]
    key = MAKERS[algorithm]()
    real = make().sign(key, SIGNATURES[algorithm].hash)
    tbs, identifier = capture.capture_tbs(make(), algorithm, public_key=key.public_key())
    assert tbs == getattr(real, tbs_name)
    assert capture.assemble(tbs, identifier, real.signature) == real.public_bytes(serialization.Encoding.DER)


@pytest.mark.parametrize("algorithm", KeyAlgorithm)
def test_every_algorithm_has_a_capture_key_that_the_identifier_fits(algorithm):
    tbs, identifier = capture.capture_tbs(certificate(), algorithm)
    assert identifier in tbs  # RFC 5280 4.1.2.3: the same AlgorithmIdentifier stands inside
    parsed = x509.load_der_x509_certificate(capture.assemble(tbs, identifier, b"\x01" * 300))
    assert (parsed.serial_number, parsed.signature) == (5, b"\x01" * 300)


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 128, 254, 255, 256, 65534, 65535, 70000])
def test_assembled_lengths_are_der(size):
    tbs, identifier = capture.capture_tbs(certificate(), KeyAlgorithm.P256)
    der = capture.assemble(tbs, identifier, b"\x5a" * size)
    assert x509.load_der_x509_certificate(der).signature == b"\x5a" * size


def test_a_csr_needs_the_public_key():
    with pytest.raises(TypeError, match="public key"):
        capture.capture_tbs(x509.CertificateSigningRequestBuilder(NAME), KeyAlgorithm.P256)


def test_an_unfinished_builder_is_refused():
    with pytest.raises(ValueError, match="must have"):
        capture.capture_tbs(x509.CertificateBuilder(), KeyAlgorithm.P256)


def test_threads_do_not_see_each_others_bytes():
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda n: capture.capture_tbs(certificate(n), KeyAlgorithm.P384)[0], range(1, 400)))
    assert found == [capture.capture_tbs(certificate(n), KeyAlgorithm.P384)[0] for n in range(1, 400)]


@pytest.mark.parametrize("use", [copy.copy, copy.deepcopy, operator.attrgetter("key_size"), RAW])
def test_a_capture_key_has_nothing_private(use):
    key = capture._CAPTURES[KeyAlgorithm.ED25519](None)
    with pytest.raises(TypeError, match="no private part"):
        use(key)
