"""Public keys: every accepted kind, every known weakness, one encoding each."""

from __future__ import annotations

import hashlib
import math

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa, x25519
from hypothesis import given, settings
from hypothesis import strategies as st

from rootward.core import der
from rootward.core.problems import Problem
from rootward.core.pubkey import (
    BUILT_IN_BLOCKED,
    KeyAlgorithm,
    PublicKey,
    certificate_key,
    check_not_blocked,
    check_public_key,
    has_close_primes,
    has_roca_form,
    public_key_of,
)
from tests.support.authority import Authority
from tests.vectors import csr_parts as parts


@pytest.mark.parametrize("key_type", parts.KEY_TYPES)
def test_every_accepted_kind_is_known(key_type: str) -> None:
    key = parts.private_key(key_type).public_key()
    spki = parts.spki_of(key)
    made = check_public_key(spki)
    assert made.algorithm == KeyAlgorithm(key_type)
    assert made.spki == spki
    assert made.id == hashlib.sha256(spki).hexdigest()
    assert made.key == key
    assert public_key_of(key) == made


@pytest.mark.parametrize("version", [1, 3])
def test_the_key_of_a_certificate(version: int) -> None:
    """Also of one without extensions, which states no version (RFC 5280 4.1.2.1)."""
    made = Authority("Old CA")
    fields = [part.whole for part in der.children(made.certificate.tbs_certificate_bytes)]
    tbs = der.sequence(*(fields[1:7] if version == 1 else fields))
    signature = made.key.sign(tbs, ec.ECDSA(hashes.SHA256()))
    data = der.sequence(tbs, fields[2], der.bit_string(signature))
    certificate = x509.load_der_x509_certificate(data)
    assert certificate.version.name == f"v{version}"
    assert certificate_key(certificate) == public_key_of(made.key.public_key())


def test_the_kinds_of_the_table_are_all_there_are() -> None:
    assert set(parts.KEY_TYPES) == set(KeyAlgorithm)


def test_a_public_key_is_made_by_its_check_alone() -> None:
    with pytest.raises(TypeError):
        PublicKey(algorithm=KeyAlgorithm.P256, spki=b"", id="", key=None)  # type: ignore[arg-type]  # that is the point


@pytest.mark.parametrize(
    "key",
    [x25519.X25519PrivateKey.generate().public_key(), ec.generate_private_key(ec.SECP256K1()).public_key()],
    ids=["X25519", "secp256k1"],
)
def test_keys_that_the_library_holds_are_checked_the_same(key: object) -> None:
    with pytest.raises(Problem, match="RW-KEY-TYPE"):
        public_key_of(key)


@pytest.mark.parametrize("key", [None, b"", "key", parts.private_key(), object()], ids=type)
def test_what_is_no_public_key_is_refused(key: object) -> None:
    with pytest.raises(Problem, match="RW-KEY-TYPE"):
        public_key_of(key)


def test_a_weak_key_that_the_library_holds_is_refused() -> None:
    key = rsa.RSAPublicNumbers(3, parts.good_modulus()).public_key()
    with pytest.raises(Problem, match="RW-KEY-WEAK"):
        public_key_of(key)


# RFC 9500


@pytest.mark.invariant("I-12")
def test_the_test_keys_of_rfc_9500_are_forbidden() -> None:
    modulus = int.from_bytes(parts.RFC9500_RSA_2048, "big")
    for spki in (parts.spki_of(parts.rfc9500_p256()), parts.rsa_spki(modulus)):
        assert hashlib.sha256(spki).hexdigest() in BUILT_IN_BLOCKED
        with pytest.raises(Problem, match="public key is forbidden") as caught:
            check_public_key(spki)
        assert caught.value.code == "RW-KEY-BLOCKED"


def test_there_is_a_hash_for_each_of_rfc_9500s_rsa_and_ec_keys() -> None:
    assert len(BUILT_IN_BLOCKED) == 6
    assert all(len(bytes.fromhex(each)) == 32 for each in BUILT_IN_BLOCKED)


def test_a_planted_entry_blocks_its_key_and_no_other() -> None:
    key, other = (check_public_key(parts.spki_of(parts.private_key(kind))) for kind in ("p256", "p384"))
    with pytest.raises(Problem, match="public key is forbidden"):
        check_not_blocked(key, {key.id})
    check_not_blocked(other, {key.id})


# RSA


def test_roca_is_a_matter_of_the_form_alone() -> None:
    modulus = parts.roca_modulus()
    assert modulus.bit_length() == 2048
    assert has_roca_form(modulus)
    assert not has_roca_form(parts.good_modulus())
    assert not has_roca_form(int.from_bytes(parts.RFC9500_RSA_2048, "big"))


@given(st.integers(0, 10**6), st.integers(2**40, 2**60))
def test_every_number_of_rocas_form_is_found(exponent: int, k: int) -> None:
    product = math.prod(n for n in range(2, 702) if all(n % d for d in range(2, math.isqrt(n) + 1)))
    assert has_roca_form(k * product + pow(65537, exponent, product))


def test_random_numbers_hardly_ever_have_rocas_form() -> None:
    step = hashlib.sha512(b"rootward").digest()
    numbers = (
        int.from_bytes(hashlib.shake_256(step + bytes([i % 256, i // 256])).digest(256), "big") for i in range(5000)
    )
    assert not any(has_roca_form(number | 1) for number in numbers)


def test_close_primes_are_found_and_far_ones_are_not() -> None:
    assert has_close_primes(parts.close_modulus())
    assert not has_close_primes(parts.good_modulus())


@pytest.mark.parametrize(("first", "second"), [(101, 101), (10007, 10009), (1000003, 1000033)])
def test_fermats_method_splits_what_it_can(first: int, second: int) -> None:
    assert has_close_primes(first * second)


@pytest.mark.parametrize("factor", [3, 5, 7, 127, 743, 751])
def test_small_factors_are_found(factor: int) -> None:
    modulus = (parts.good_modulus() // factor | 1) * factor
    with pytest.raises(Problem, match="RW-KEY-WEAK: The RSA modulus has a small factor"):
        check_public_key(parts.rsa_spki(modulus))


# Ed25519: the points of small order, from the curve's own arithmetic

P = 2**255 - 19
D = -121665 * pow(121666, -1, P) % P


def _add(a: tuple[int, int], b: tuple[int, int]) -> tuple[int, int]:
    cross = D * a[0] * b[0] * a[1] * b[1]
    x = (a[0] * b[1] + a[1] * b[0]) * pow(1 + cross, -1, P) % P
    y = (a[1] * b[1] + a[0] * b[0]) * pow(1 - cross, -1, P) % P
    return x, y


def _decode(encoded: bytes) -> tuple[int, int]:
    number = int.from_bytes(encoded, "little")
    y, sign = number & ((1 << 255) - 1), number >> 255
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * pow(2, (P - 1) // 4, P) % P
    assert (x * x - square) % P == 0
    return (P - x if x % 2 != sign else x) % P, y


def test_the_small_order_points_are_all_eight_of_them() -> None:
    points = {_decode(encoded) for encoded in parts.SMALL_ORDER_ED25519}
    assert len(points) == 8
    for point in points:
        eight = point
        for _ in range(3):
            eight = _add(eight, eight)
        assert eight == (0, 1)


@pytest.mark.parametrize("encoded", parts.SMALL_ORDER_ED25519, ids=bytes.hex)
def test_points_of_small_order_are_refused(encoded: bytes) -> None:
    with pytest.raises(Problem, match="RW-KEY-WEAK"):
        check_public_key(parts.ed25519_spki(encoded))


@pytest.mark.parametrize("y", [P, P + 1, 2**255 - 1])
def test_ed25519_has_one_encoding(y: int) -> None:
    for sign in (0, 1 << 255):
        with pytest.raises(Problem, match="RW-KEY-ENCODING"):
            check_public_key(parts.ed25519_spki((y | sign).to_bytes(32, "little")))


# Damage


@settings(max_examples=800, deadline=None)
@given(
    key_type=st.sampled_from(["p256", "p521", "rsa-2048", "ed25519", "ml-dsa-44"]),
    changes=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 255)), min_size=1, max_size=3),
    cut=st.integers(0, 3),
)
def test_a_damaged_key_is_a_key_or_a_problem(key_type: str, changes: list[tuple[int, int]], cut: int) -> None:
    data = bytearray(parts.spki_of(parts.private_key(key_type)))
    for at, octet in changes:
        data[at % len(data)] = octet
    damaged = bytes(data[: len(data) - cut])
    made = _tried(damaged)
    if isinstance(made, Problem):
        assert made.code in ("RW-KEY-TYPE", "RW-KEY-ENCODING", "RW-KEY-WEAK")
    else:
        assert parts.spki_of(made.key) == damaged


def _tried(spki: bytes) -> PublicKey | Problem:
    try:
        return check_public_key(spki)
    except Problem as problem:
        return problem
