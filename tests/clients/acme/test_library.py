"""The `acme` library: new keys, the end of an account, profiles, renewal information, lineage."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime, timedelta

import josepy as jose
import pytest
from acme import jws, messages
from cryptography import x509

from tests.clients.acme.pypi import Account, certificate, error_of, make_csr, new_key, serial_of
from tests.clients.acme.world import World, asked, assert_revoked


@pytest.fixture
def account(acme: World) -> Account:
    return Account(acme)


def change(account: Account, key: jose.JWK) -> jose.JSONDeSerializable:
    """The inner signature of keyChange (RFC 8555 7.3.5)."""
    said = {"account": account.url, "oldKey": account.key.public_key().to_partial_json()}
    inner = jws.JWS.sign(json.dumps(said).encode(), key=key, alg=jose.ES256, nonce=None, url=account.at("keyChange"))
    return inner.to_partial_json()


def test_a_new_key(account: Account) -> None:
    old, new = account.key, new_key()
    answer = account.send(account.at("keyChange"), change(account, new))
    assert answer.status_code == 200, answer.text
    assert error_of(account.send(account.url)) in ("malformed", "unauthorized")  # the old key
    assert account.send(account.url, key=new).json()["status"] == "valid"
    look = {"onlyReturnExisting": True}
    found = account.send(account.at("newAccount"), look, key=new, kid=None)
    assert (found.status_code, found.headers["Location"]) == (200, account.url)
    assert error_of(account.send(account.at("newAccount"), look, key=old, kid=None)) == "accountDoesNotExist"
    account.key = account.client.net.key = new
    assert account.obtain("a.internal").fullchain_pem


def test_a_key_that_another_account_has(account: Account, acme: World) -> None:
    other = Account(acme)
    answer = account.send(account.at("keyChange"), change(account, other.key))
    assert (answer.status_code, answer.headers["Location"]) == (409, other.url)
    assert account.send(account.url).json()["status"] == "valid"


def test_the_end_of_an_account(account: Account, acme: World) -> None:
    serial = serial_of(account.obtain("b.internal"))
    assert account.client.deactivate_registration(account.registration).body.status == "deactivated"
    for answer in (account.order("b.internal"), account.send(account.url)):
        assert (answer.status_code, error_of(answer)) == (401, "unauthorized")
    again = account.send(account.at("newAccount"), {"termsOfServiceAgreed": True}, kid=None)
    assert error_of(again) == "unauthorized"
    assert asked(acme, serial) == ("good", None)  # its certificates stay


def test_revocation_by_who_holds_the_names(account: Account, acme: World) -> None:
    """Neither the certificate's account nor its key (RFC 8555 7.6)."""
    order = account.obtain("c.internal")
    other = Account(acme)
    with pytest.raises(messages.Error) as refused:
        other.client.revoke(certificate(order), 4)
    assert refused.value.code == "unauthorized"
    other.obtain("c.internal")
    other.client.revoke(certificate(order), 4)
    assert_revoked(acme, serial_of(order), 4)


def test_profiles_of_the_directory_of_all(acme: World) -> None:
    account = Account(acme, directory=acme.directory(None))
    offered = account.client.directory.meta.profiles
    assert {"server", "short"} <= set(offered)
    assert acme.found(serial_of(account.obtain("d.internal", profile="short")))["profile"] == "short"
    assert acme.found(serial_of(account.obtain("d.internal", profile="server")))["profile"] == "server"
    assert error_of(account.order("d.internal", profile="none-of-ours")) == "invalidProfile"


def ari_id(cert: x509.Certificate) -> str:
    """RFC 9773 4.1: base64url of the issuer's key identifier, a dot, base64url of the serial's DER content."""
    issuer = cert.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    assert issuer is not None
    number = cert.serial_number
    return ".".join(
        base64.urlsafe_b64encode(part).rstrip(b"=").decode()
        for part in (issuer, number.to_bytes(number.bit_length() // 8 + 1))
    )


def test_renewal_information_follows_a_revocation(account: Account, acme: World) -> None:
    order = account.obtain("e.internal")
    cert = certificate(order)
    now = datetime.now(UTC)
    at, _ = account.client.renewal_time(order.fullchain_pem.encode())
    assert at is not None
    assert now + timedelta(days=10) < at < cert.not_valid_after_utc
    url = f"{account.at('renewalInfo')}/{ari_id(cert)}"
    window = account.get(url)
    assert int(window.headers["Retry-After"]) > 0
    found = acme.found(serial_of(order))
    status, _ = acme.pki.post(f"/api/v1/certificates/{found['id']}/revoke", {"reason": "superseded"})
    assert status == 200
    at, _ = account.client.renewal_time(order.fullchain_pem.encode())
    assert at is not None
    assert at <= now
    assert account.get(url).json()["suggestedWindow"] != window.json()["suggestedWindow"]


def test_renewal_information_of_what_is_not_ours(account: Account) -> None:
    cert = certificate(account.obtain("e.internal"))
    issuer, _, serial = ari_id(cert).partition(".")
    for wrong in (f"{issuer}.{serial[::-1]}", "AAAA.AAAA", issuer, "a.b.c", "%2e%2e"):
        assert account.get(f"{account.at('renewalInfo')}/{wrong}").status_code in (400, 404), wrong


def test_what_replaces_what(account: Account, acme: World) -> None:
    first = account.obtain("f.internal")
    name = ari_id(certificate(first))
    answer = account.order("f.internal", replaces=name)
    assert answer.status_code == 201, answer.text
    assert answer.json()["replaces"] == name
    second = account.finish(order_of(account, answer, make_csr("f.internal")))
    assert acme.found(serial_of(second))["replaces"] == acme.found(serial_of(first))["id"]

    taken = account.order("f.internal", replaces=name)
    assert (taken.status_code, error_of(taken)) == (409, "alreadyReplaced")
    issuer, _, serial = name.partition(".")
    another = base64.urlsafe_b64encode(bytes(20)).rstrip(b"=").decode()
    foreign = account.order("f.internal", replaces=f"{another}.{serial}")  # another CA's: no business of ours
    assert foreign.status_code == 201, foreign.text
    assert "replaces" not in foreign.json()
    for unknown in (f"{issuer}.fwECAwQ", "nonsense", issuer):
        assert error_of(account.order("f.internal", replaces=unknown)) == "malformed", unknown


def order_of(account: Account, answer: object, csr: bytes) -> messages.OrderResource:
    """The library's form of an order that was made by hand."""
    body = answer.json()  # type: ignore[attr-defined]  # what requests.Response has
    authorizations = [
        messages.AuthorizationResource(body=messages.Authorization.from_json(account.send(url).json()), uri=url)
        for url in body["authorizations"]
    ]
    return messages.OrderResource(
        body=messages.Order.from_json(body),
        uri=answer.headers["Location"],  # type: ignore[attr-defined]  # what requests.Response has
        authorizations=authorizations,
        csr_pem=csr,
    )


def test_names_for_which_nothing_is_asked(acme: World) -> None:
    key = acme.eab("--preauthorize", ".own.internal", "--name", ".own.internal", "--name", "g.internal")
    account = Account(acme, eab=key)
    order = account.client.new_order(make_csr("a.own.internal", "b.own.internal"))
    assert order.body.status == messages.STATUS_READY
    assert {one.body.status for one in order.authorizations} == {messages.STATUS_VALID}
    found = acme.found(serial_of(account.finish(order)))
    assert (found["owner"], found["names"]) == ("me", ["dns:a.own.internal", "dns:b.own.internal"])
    # a name that it may ask for and that is not its own, and one that it may not ask for
    assert account.client.new_order(make_csr("g.internal")).body.status == messages.STATUS_PENDING
    assert error_of(account.order("h.internal")) == "rejectedIdentifier"


def test_a_key_for_one_account_makes_one(acme: World) -> None:
    key = acme.eab()
    Account(acme, eab=key)
    with pytest.raises(messages.Error) as refused:
        Account(acme, eab=key)
    assert refused.value.code == "unauthorized"
    wrong = {**acme.eab(), "hmac_key": key["hmac_key"]}
    with pytest.raises(messages.Error) as refused:
        Account(acme, eab=wrong)
    assert refused.value.code == "unauthorized"
