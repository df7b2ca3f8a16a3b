"""The specification of what takes an authority's place: all that its certificate says, under another name."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from cryptography import x509

from rootward.core.authority import AuthoritySpec, Constraints
from rootward.core.capture import assemble
from rootward.core.hierarchy import plan_authority
from rootward.core.issuer import Issuer
from rootward.core.plan import make_serial
from rootward.core.problems import Problem
from rootward.core.pubkey import KeyAlgorithm
from rootward.core.renewal import renewed, spec_of
from rootward.keys import BACKENDS, Key, KeySettings, sign_tbs
from tests.support.authority import Authority

NOW = datetime(2027, 1, 1, tzinfo=UTC)
KEYS = BACKENDS["memory"](KeySettings())
ROOT = AuthoritySpec("root", "root", "Test Root", lifetime="20y", path_length=3)


def certified(spec: AuthoritySpec, key: Key, signer: Key, parent: Issuer | None) -> x509.Certificate:
    plan = plan_authority(spec, key.public, parent)
    draft = plan.draft(make_serial(secrets.token_bytes(20)), NOW)
    return x509.load_der_x509_certificate(assemble(draft.tbs, draft.algorithm, sign_tbs(signer, draft.tbs)))


@pytest.fixture(scope="module")
def root() -> tuple[Key, Issuer]:
    key = KEYS.generate("root", KeyAlgorithm.P256)
    made = certified(ROOT, key, key, None)
    return key, Issuer("root", made, (made,), "http://pki.test", online=False)


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"organization": "Acme", "country": "DE", "path_length": 1, "lifetime": "3y"},
        {"permitted": Constraints(dns=("internal",), ip=("10.0.0.0/8",), email=("a.test",))},
        {"excluded": Constraints(dns=("bad.internal",), directory=("O=Other,C=DE",))},
        {"policies": ("2.5.29.32.0",), "key_algorithm": KeyAlgorithm.P384},
        {"extended_key_usage": ("server_auth", "client_auth")},
        {"uris": ("spiffe://mesh.internal",)},
    ],
)
def test_it_comes_back(root: tuple[Key, Issuer], more: dict[str, Any]) -> None:
    """The new one's certificate says what the old one's does, but for the name and the key."""
    signer, parent = root
    spec = AuthoritySpec("issuing", "issuing", "Test Issuing CA", **more)
    key = KEYS.generate("issuing", spec.key_algorithm)
    old = certified(spec, key, signer, parent)
    again = renewed(spec_of(old, "issuing", "issuing"), "issuing-2")
    assert (again.name, again.common_name) == ("issuing-2", "Test Issuing CA 2")
    new = certified(again, KEYS.generate("new", again.key_algorithm), signer, parent)
    kept = {one.oid: one.value for one in old.extensions if not isinstance(one.value, x509.SubjectKeyIdentifier)}
    assert {one.oid: one.value for one in new.extensions if one.oid in kept} == kept
    assert new.not_valid_after_utc == old.not_valid_after_utc
    assert spec_of(old, "issuing-2", "issuing") == msgspec.structs.replace(again, common_name="Test Issuing CA")
    same = msgspec.structs.replace(again, name="issuing", common_name="Test Issuing CA")
    assert same.organization == spec.organization


@pytest.mark.parametrize(
    "extension",
    [
        x509.PolicyConstraints(0, None),
        x509.InhibitAnyPolicy(0),
        x509.SubjectAlternativeName([x509.DNSName("ca.internal")]),
        x509.CertificatePolicies([x509.PolicyInformation(x509.ObjectIdentifier("1.2.3"), ["http://cps.test/"])]),
        x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00"),
    ],
    ids=lambda extension: type(extension).__name__,
)
def test_what_no_specification_has_is_not_left_out(extension: x509.ExtensionType) -> None:
    old = Authority("Old CA", extensions=[(extension, False)])
    with pytest.raises(Problem, match=extension.oid.dotted_string) as caught:
        spec_of(old.certificate, "old", "issuing")
    assert caught.value.code == "RW-CEREMONY"


@pytest.mark.parametrize(
    ("common", "name", "numbered"),
    [
        ("CA", "issuing-2", "CA 2"),
        ("CA 2", "issuing-3", "CA 3"),
        ("CA-2", "issuing-12", "CA-12"),
        ("CA", "other", "CA 2"),
        ("CA 7", "other", "CA 2"),
        ("X1", "y9", "X9"),
    ],
)
def test_the_number_of_its_common_name(common: str, name: str, numbered: str) -> None:
    old = AuthoritySpec("old", "issuing", common, uris=("spiffe://a.test",))
    assert renewed(old, name) == msgspec.structs.replace(old, name=name, common_name=numbered)
