"""PKCS#11 URIs as settings have them (RFC 7512)."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rootward.core.problems import Problem
from rootward.keys.token_uri import TokenUri, parse_token_uri

MODULE = "/usr/lib/softhsm/libsofthsm2.so"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"pkcs11:token=rw?module-path={MODULE}", TokenUri(MODULE, token="rw")),
        (f"PKCS11:token=rw?module-path={MODULE}", TokenUri(MODULE, token="rw")),
        (f"pkcs11:slot-id=7?module-path={MODULE}", TokenUri(MODULE, slot=7)),
        (f"pkcs11:serial=DECC0401648?module-path={MODULE}", TokenUri(MODULE, serial="DECC0401648")),
        (
            f"pkcs11:token=Our%20HSM;manufacturer=Maker%3B;model=M-1;serial=00a;slot-id=0?module-path={MODULE}",
            TokenUri(MODULE, token="Our HSM", manufacturer="Maker;", model="M-1", serial="00a", slot=0),
        ),
        ("pkcs11:token=%C3%A9?module-path=/opt/a%20b.so", TokenUri("/opt/a b.so", token="é")),
        ("pkcs11:token=a=b&c?module-path=/m.so", TokenUri("/m.so", token="a=b&c")),
    ],
)
def test_what_names_a_token_and_its_module_is_read(text, expected):
    assert parse_token_uri(text) == expected


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "begin with pkcs11:"),
        ("token=rw", "begin with pkcs11:"),
        ("file:/etc/pin", "begin with pkcs11:"),
        ("pkcs11:", "name the token"),
        (f"pkcs11:?module-path={MODULE}", "name the token"),
        ("pkcs11:token=rw", "name the module by its whole path"),
        ("pkcs11:token=rw?module-path=libsofthsm2.so", "name the module by its whole path"),
        ("pkcs11:token=rw?module-path=/a%00b.so", "name the module by its whole path"),
        (f"pkcs11:token=rw?module-path={MODULE}&pin-value=1234", "A PIN in a URI is in every file"),
        (f"pkcs11:token=rw?module-path={MODULE}&pin-source=file:/etc/pin", "The PIN's place is the setting pin"),
        ("pkcs11:token=rw?module-name=softhsm2", "looks a name up in other folders"),
        (f"pkcs11:token=rw;object=issuing?module-path={MODULE}", "found by its authority's name"),
        (f"pkcs11:token=rw;id=%01?module-path={MODULE}", "found by its authority's name"),
        (f"pkcs11:token=rw;type=private?module-path={MODULE}", "found by its authority's name"),
        (f"pkcs11:token=rw;library-version=3?module-path={MODULE}", "not understood here"),
        (f"pkcs11:token=rw;x-vendor=3?module-path={MODULE}", "not understood here"),
        (f"pkcs11:token=rw?module-path={MODULE}&x-vendor=3", "not understood here"),
        (f"pkcs11:token=rw?module-path={MODULE}&token=other", "have token before the question mark"),
        (f"pkcs11:token=rw;module-path={MODULE.replace('/', '%2F')}", "have module-path behind the question mark"),
        (f"pkcs11:token=rw;token=rx?module-path={MODULE}", "once only"),
        (f"pkcs11:token=?module-path={MODULE}", "1 to 32 bytes as token"),
        (f"pkcs11:token={'a' * 33}?module-path={MODULE}", "1 to 32 bytes as token"),
        (f"pkcs11:serial={'a' * 17}?module-path={MODULE}", "1 to 16 bytes as serial"),
        (f"pkcs11:token=a b?module-path={MODULE}", "NAME=VALUE"),
        (f"pkcs11:token=a%2?module-path={MODULE}", "NAME=VALUE"),
        (f"pkcs11:token=ä?module-path={MODULE}", "NAME=VALUE"),
        (f"pkcs11:token=%FF?module-path={MODULE}", "UTF-8"),
        (f"pkcs11:token?module-path={MODULE}", "NAME=VALUE"),
        (f"pkcs11:token=a;?module-path={MODULE}", "NAME=VALUE"),
        (f"pkcs11:slot-id=-1?module-path={MODULE}", "a number as slot-id"),
        (f"pkcs11:slot-id=0x1?module-path={MODULE}", "a number as slot-id"),
        (f"pkcs11:token=a?module-path={MODULE}#part", "NAME=VALUE"),
        (f"pkcs11:token=a?module-path=/{'m' * 1024}", "no longer than 1024"),
    ],
)
def test_what_is_not_understood_is_refused_with_the_reason(text, why):
    with pytest.raises(Problem) as caught:
        parse_token_uri(text)
    assert caught.value.code == "RW-CONFIG"
    assert why in caught.value.detail
    assert ".." not in caught.value.detail


@pytest.mark.invariant("I-35")
def test_a_pin_in_a_uri_is_not_repeated():
    with pytest.raises(Problem) as caught:
        parse_token_uri(f"pkcs11:token=rw?module-path={MODULE}&pin-value=sesame")
    assert "sesame" not in str(caught.value)


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text):
    for candidate in (text, "pkcs11:" + text, f"pkcs11:token=rw?module-path={MODULE}" + text):
        with suppress(Problem):
            assert parse_token_uri(candidate).module.startswith("/")
