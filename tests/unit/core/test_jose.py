"""Signed objects and public keys as JSON: the RFCs' own, and those that are wrong in one way."""

from __future__ import annotations

import json
import re

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, mldsa
from hypothesis import given, settings
from hypothesis import strategies as st

from rootward.core.jose import LARGEST, MACS, authentic, jws_of, read_jws
from rootward.core.jwk import (
    ALGORITHMS,
    Fault,
    JoseError,
    PrivateKeySent,
    b64decode,
    b64encode,
    read_jwk,
    stored_jwk,
    thumbprint_of,
)
from rootward.core.pubkey import BUILT_IN_BLOCKED
from tests.support.acme import b64, flattened, jwk_of, new_key, signature_of, thumbprint, unb64
from tests.vectors import jws as made
from tests.vectors.jws import BAD_JWS, GOOD_KINDS, KEY, KEYS, MAC, MAC_KEY, SIGNED, THUMBPRINTS, BadJws, Signed


def members(one: Signed) -> dict[str, str]:
    return {"protected": one.protected, "payload": one.payload, "signature": one.signature}


@pytest.mark.parametrize("one", SIGNED, ids=lambda one: one.where)
def test_the_rfcs_own(one: Signed) -> None:
    jws = jws_of(members(one))
    key = read_jwk(one.jwk)
    assert key.verifies(jws.signature, jws.message)
    assert jws.algorithm == key.algorithm
    assert jws.payload == unb64(one.payload)
    assert not key.verifies(jws.signature, jws.message + b"x")
    assert not key.verifies(jws.signature[:-1] + bytes([jws.signature[-1] ^ 1]), jws.message)


def test_the_rfcs_own_mac() -> None:
    jws = jws_of(members(MAC), algorithms=MACS)
    assert authentic(jws, unb64(MAC_KEY))
    assert not authentic(jws, unb64(MAC_KEY)[:-1] + b"x")
    short = jws_of(members(MAC) | {"signature": b64(jws.signature[:16])}, algorithms=MACS)
    assert not authentic(short, unb64(MAC_KEY))
    empty = jws_of(members(MAC) | {"signature": ""}, algorithms=MACS)
    assert not authentic(empty, unb64(MAC_KEY))


@pytest.mark.parametrize(("jwk", "expected"), THUMBPRINTS)
def test_thumbprints(jwk: dict[str, str], expected: str) -> None:
    key = read_jwk(jwk)
    assert key.thumbprint == expected
    assert set(json.loads(key.text)) <= set(jwk) - {"alg", "kid"}
    assert stored_jwk(key.text) == key
    assert stored_jwk(key.text).thumbprint == expected
    assert thumbprint_of(key.key) == expected


@pytest.mark.parametrize("kind", GOOD_KINDS)
def test_the_thumbprint_of_a_public_key_that_came_in_another_form(kind: str) -> None:
    """As in a CSR: the same as in a JWK."""
    assert thumbprint_of(KEYS[kind].public_key()) == thumbprint(jwk_of(KEYS[kind]))


def test_keys_that_no_jwk_here_can_have_have_no_thumbprint() -> None:
    for key in (ec.generate_private_key(ec.SECP256K1()), mldsa.MLDSA44PrivateKey.generate()):
        assert thumbprint_of(key.public_key()) is None


@pytest.mark.parametrize("kind", GOOD_KINDS)
def test_every_kind_of_key(kind: str) -> None:
    jws = read_jws(made.good_jws(kind, {"a": 1}, nonce="abc", url="https://a.test/", typ="JOSE+JSON", more=1))
    assert jws.jwk is not None
    assert jws.jwk.verifies(jws.signature, jws.message)
    assert jws.jwk.thumbprint == thumbprint(jwk_of(KEYS[kind]))
    assert (jws.nonce, jws.url, jws.kid) == ("abc", "https://a.test/", None)
    assert json.loads(jws.payload) == {"a": 1}
    others = [other for other in GOOD_KINDS if other != kind]
    assert not any(read_jwk(jwk_of(KEYS[other])).verifies(jws.signature, jws.message) for other in others)


def test_an_empty_payload_is_none_at_all() -> None:
    assert read_jws(json.dumps(flattened(KEY, {"alg": "ES256"}, "")).encode()).payload == b""
    assert read_jws(json.dumps(flattened(KEY, {"alg": "ES256"}, {})).encode()).payload == b"{}"


def test_what_a_jwk_says_besides_its_key_is_ignored() -> None:
    """RFC 7517 section 4."""
    plain, more = jwk_of(KEY), {"kid": "x", "x5t": "AA", "alg": "ES256", "use": "sig", "key_ops": ["verify"]}
    assert read_jwk(plain | more) == read_jwk(plain)
    assert "x5t" not in read_jwk(plain | more).text


@pytest.mark.parametrize("bad", BAD_JWS, ids=str)
def test_each_bad_object_has_its_fault(bad: BadJws) -> None:
    with pytest.raises(JoseError) as caught:
        read_jws(bad.make())
    assert caught.value.fault == bad.type
    assert re.fullmatch(r"[\x20-\x7e]+", caught.value.detail)
    assert isinstance(caught.value, PrivateKeySent) is (bad.number == 130)


@pytest.mark.parametrize(
    ("sent", "algorithms"), [("ES256", MACS), ("HS256", ALGORITHMS), ("none", (*MACS, *ALGORITHMS))]
)
def test_an_algorithm_is_one_of_those_that_are_wanted(sent: str, algorithms: tuple[str, ...]) -> None:
    with pytest.raises(JoseError) as caught:
        read_jws(json.dumps(flattened(KEY, {"alg": sent}, {})).encode(), algorithms=algorithms)
    assert caught.value.fault is Fault.ALGORITHM


def test_too_large_is_seen_before_it_is_read() -> None:
    with pytest.raises(JoseError, match="at most 50000 bytes"):
        read_jws(b"[" * (LARGEST + 1))


def test_ecdsa_signatures_have_one_length_and_form() -> None:
    key, message = read_jwk(jwk_of(KEY)), b"message"
    right = signature_of(KEY, message)
    from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

    der = encode_dss_signature(int.from_bytes(right[:32]), int.from_bytes(right[32:]))
    assert key.verifies(right, message)
    assert key.verifies(made.twin(right), message)  # RFC 7518 3.4 does not forbid the other one; a nonce is used once
    for wrong in (der, b"", right[:63], right + b"\0", bytes(64), b"\xff" * 64, right[32:] + right[:32]):
        assert not key.verifies(wrong, message)


def test_known_keys_of_others_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    jwk = jwk_of(new_key("RSA-2048"))
    id = read_jwk(jwk).id
    monkeypatch.setattr("rootward.core.jwk.BUILT_IN_BLOCKED", BUILT_IN_BLOCKED | {id})
    with pytest.raises(JoseError, match="forbidden"):
        read_jwk(jwk)


@given(st.binary(max_size=200))
def test_base64url_goes_both_ways(data: bytes) -> None:
    assert b64decode(b64encode(data)) == data
    assert b64encode(data) == b64(data)


@given(st.text(max_size=20))
def test_base64url_has_one_form(text: str) -> None:
    try:
        found = b64decode(text)
    except JoseError:
        return
    assert b64encode(found) == text


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=10,
)
WORDS = st.sampled_from(
    ["EC", "RSA", "OKP", "oct", "P-256", "P-384", "Ed25519", "AQAB", "AA", "", "sig", "ES256", "none"]
)
VALUES = WORDS | st.binary(max_size=70).map(b64) | JSON
JWKS = st.dictionaries(st.sampled_from("kty crv x y n e d k alg use".split()), VALUES, max_size=6)
HEADERS = st.dictionaries(st.sampled_from("alg jwk kid nonce url crit b64".split()), VALUES | JWKS, max_size=5)


@settings(max_examples=300)
@given(JWKS | JSON)
def test_whatever_a_jwk_is(value: object) -> None:
    try:
        key = read_jwk(value)
    except JoseError:
        return
    assert read_jwk(json.loads(key.text)) == key


@settings(max_examples=300)
@given(HEADERS | JSON, JSON, st.sampled_from(["protected", "payload", "signature", "header", "signatures", None]))
def test_whatever_a_signed_object_is(header: object, value: object, replaced: str | None) -> None:
    """Nothing but a JoseError comes of it."""
    given = {"protected": b64(json.dumps(header).encode()), "payload": "e30", "signature": "AAAA"}
    if replaced is not None:
        given[replaced] = value  # type: ignore[assignment]  # of any type, that is the point
    try:
        jws = read_jws(json.dumps(given).encode())
    except JoseError:
        return
    assert jws.algorithm in ALGORITHMS
    assert jws.jwk is None or not jws.jwk.verifies(jws.signature, jws.message)


@settings(max_examples=300)
@given(st.binary(max_size=300))
def test_whatever_bytes_there_are(data: bytes) -> None:
    with pytest.raises(JoseError):
        read_jws(data)
