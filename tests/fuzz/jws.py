"""What anybody may POST to the ACME door before it is known who it is: a signed object, or a JoseError. What is
inside is read in turn as a payload, as the inner object of a keyChange and as an external account binding.
"""

from __future__ import annotations

import msgspec

from rootward.core.jose import MACS, jws_of, read_jws
from rootward.core.jwk import JoseError, stored_jwk
from rootward.protocols.acme.account import NewAccount, Update
from rootward.protocols.acme.call import decode
from rootward.protocols.acme.key_change import KeyChange
from rootward.protocols.acme.problems import TYPES, URN, AcmeError, document_of, of_jose

LARGEST = 16 * 1024


def one(data: bytes) -> None:
    """Anything that is raised from here is a crasher."""
    try:
        jws = read_jws(data)
    except JoseError as error:
        _told(of_jose(error, ()))
        _payload(data)
        return
    if jws.jwk is not None:
        jws.jwk.verifies(jws.signature, jws.message)
        if stored_jwk(jws.jwk.text) != jws.jwk:
            raise AssertionError("a key that was read does not mean itself")
    _payload(jws.payload)


def _payload(data: bytes) -> None:
    for kind in (NewAccount, Update, KeyChange):
        try:
            found = decode(data, kind)
        except AcmeError as error:
            _told(error)
            continue
        binding = getattr(found, "external_account_binding", None)
        if binding is not None:
            try:
                jws_of(binding, algorithms=MACS)
            except JoseError as error:
                _told(of_jose(error, MACS))
    try:
        read_jws(data)
    except JoseError as error:
        _told(of_jose(error, ()))


def _told(error: AcmeError) -> None:
    if error.type not in TYPES or not document_of(error).type.startswith(URN) or not error.detail.isprintable():
        raise AssertionError(error.type)


def seeds() -> list[bytes]:
    """Every bad object of the tests, and a good one for each kind of key and call."""
    from tests.support.acme import bound, flattened, jwk_of
    from tests.vectors.jws import BAD_JWS, GOOD_KINDS, KEY, good_jws

    url = "https://localhost:8443/acme/key-change"
    account = "https://localhost:8443/acme/account/AAAAAAAAAAAAAAAAAAAAAA"
    inner = flattened(
        KEY, {"alg": "ES256", "jwk": jwk_of(KEY), "url": url}, {"account": account, "oldKey": jwk_of(KEY)}
    )
    payloads: list[object] = [
        "",
        {"termsOfServiceAgreed": True, "contact": ["mailto:a@b.test"], "onlyReturnExisting": False},
        {"externalAccountBinding": bound("A" * 22, b"k" * 32, jwk_of(KEY), url)},
        {"status": "deactivated"},
        inner,
    ]
    found = [good_jws(kind, payloads[n % len(payloads)], url=url, nonce="AAAA") for n, kind in enumerate(GOOD_KINDS)]
    found += [msgspec.json.encode(payload) for payload in payloads]
    found.append(msgspec.json.encode(flattened(KEY, {"alg": "ES256", "kid": account, "url": url}, inner)))
    return found + [data for bad in BAD_JWS if len(data := bad.make()) < 4096]
