"""Plans and drafts: every reason at once, nothing of a request but key and names, and a hash that means one thing.

It has so many lines because it is one table of cases, easier to read whole.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import event, given, settings
from hypothesis import strategies as st

from rootward.core import der
from rootward.core.csr import parse_csr
from rootward.core.issuer import Issuer
from rootward.core.lint import lint_certificate
from rootward.core.names import DnsName, IpName, parse_name
from rootward.core.plan import Ask, Draft, Plan
from rootward.core.problems import Problem, Reason
from rootward.core.profile import Approval, Condition, NameRules, Revocation, Subject, Value
from rootward.core.pubkey import KeyAlgorithm
from rootward.core.sealed import Sealed
from tests.support.authority import Authority
from tests.support.plans import (
    DAY,
    NAMES,
    NOW,
    PKI,
    SECOND,
    WHO,
    ask,
    attempt,
    ca,
    draft,
    issuer_of,
    plan,
    policy,
    read,
    refusal,
)
from tests.vectors import csr_parts as parts

CLIENT: dict[str, Any] = {"extended_key_usage": ("client_auth",), "key_usage": ("digital_signature",)}


# ── All reasons at once ───────────────────────────────────────────────────────────────────────────────────────────


def test_everything_that_is_wrong_is_told_at_once() -> None:
    compiled = policy(
        keys=(KeyAlgorithm.P384,),
        key_usage=("key_encipherment",),
        names=NameRules(dns=NAMES.dns, maximum=1),
        conditions=(Condition("false", "Never."), Condition("lifetime < 0", "Not now.")),
    )
    extensions = [
        x509.TLSFeature([x509.TLSFeatureType.status_request]),
        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.OCSP_SIGNING, ExtendedKeyUsageOID.CODE_SIGNING]),
        x509.KeyUsage(True, False, False, False, False, True, True, False, False),
    ]
    asked = ask("dns:a.example", "ip:10.0.0.1", cn="x.internal", lifetime=91 * DAY, extensions=extensions)
    assert refusal(lambda: compiled.admit(asked, WHO)) == [
        ("RW-NAME-PERMITTED", "names"),
        ("RW-NAME-PERMITTED", "names"),
        ("RW-TOO-MANY", "names"),
        ("RW-KEY-TYPE", "csr"),
        ("RW-CSR-USAGE", "csr"),
        ("RW-KEY-TYPE", "csr"),
        ("RW-CSR-USAGE", "csr"),
        ("RW-CSR-USAGE", "csr"),
        ("RW-VALIDITY", "lifetime"),
        ("RW-CSR-EXTENSION", "csr"),
        ("RW-CSR-SUBJECT", "csr"),
        ("RW-CONDITION", None),
        ("RW-CONDITION", None),
    ]


# ── Nothing of a request but its key and its names (I-10, I-11, I-41) ─────────────────────────────────────────────

_OIDS = (
    "2.5.29.9 2.5.29.14 2.5.29.16 2.5.29.18 2.5.29.30 2.5.29.31 2.5.29.32 2.5.29.33 2.5.29.35 2.5.29.36 2.5.29.46 "
    "2.5.29.54 2.5.29.56 1.3.6.1.5.5.7.1.1 1.3.6.1.5.5.7.1.11 1.3.6.1.5.5.7.48.1.5 1.3.6.1.4.1.311.20.2 1.2.3.4"
).split()
_MARK = b"smuggled"
_EXTENSIONS = st.lists(
    st.tuples(st.sampled_from(_OIDS), st.binary(max_size=20), st.booleans()), max_size=6, unique_by=lambda row: row[0]
)
_ATTRIBUTES = st.lists(
    st.tuples(
        st.sampled_from(
            ["2.5.4.10", "2.5.4.11", "2.5.4.6", "2.5.4.5", "2.5.4.7", "2.5.4.12", "0.9.2342.19200300.100.1.1"]
        ),
        st.sampled_from(["smuggled", "DE", "smuggled & Sons"]),
    ),
    max_size=4,
)


@pytest.mark.invariant("I-10", "I-11", "I-41")
@settings(max_examples=100, deadline=None)
@given(
    extensions=_EXTENSIONS,
    attributes=_ATTRIBUTES,
    names=st.lists(st.sampled_from(["a.internal", "B.internal", "*.c.internal", "localhost"]), min_size=1, max_size=4),
    address=st.booleans(),
    cn=st.none() | st.sampled_from(["a.internal", "smuggled"]),
    staple=st.booleans(),
    key_type=st.sampled_from(["p256", "p384", "ed25519"]),
)
def test_nothing_of_a_request_but_key_and_names_is_in_the_draft(
    extensions: list[tuple[str, bytes, bool]],
    attributes: list[tuple[str, str]],
    names: list[str],
    address: bool,
    cn: str | None,
    staple: bool,
    key_type: str,
) -> None:
    general = [parts.dns(name.encode()) for name in names] + ([parts.ip(bytes([10, 0, 0, 1]))] if address else [])
    wishes = [parts.san(*general)] + [
        parts.extension(oid, der.octet_string(_MARK + value), critical=critical) for oid, value, critical in extensions
    ]
    if staple:
        wishes.append(parts.extension(parts.TLS_FEATURE, der.sequence(der.integer(5))))
    rdns = [parts.rdn(oid, value.encode()) for oid, value in attributes]
    data = parts.raw_csr(
        rdns=rdns + ([] if cn is None else [parts.common_name(cn)]),
        extensions=wishes,
        key=parts.private_key(key_type),
        algorithm={"p384": parts.ECDSA_SHA256, "ed25519": der.sequence(der.oid("1.3.101.112"))}.get(key_type),
    )
    csr = attempt(lambda: parse_csr(data))
    if isinstance(csr, Problem):
        return
    rules = CLIENT | {"revocation": Revocation(must_staple="optional")}
    compiled = policy(**rules)
    made = attempt(lambda: compiled.admit(Ask("server", csr), WHO))
    if isinstance(made, Problem):
        assert made.code == "RW-CSR-SUBJECT", made
        return
    event("drafted")
    drafted = draft(made)
    assert lint_certificate(drafted, made) == []
    _says_exactly(drafted, made, compiled.issuer)
    told = b"" if cn is None else cn.encode()
    assert _MARK not in drafted.tbs.replace(told, b"") if cn == "smuggled" else _MARK not in drafted.tbs
    assert {name.lower() for name in names} == {name.value for name in made.names if isinstance(name, DnsName)}
    assert any(isinstance(name, IpName) for name in made.names) is address
    assert made.must_staple is staple


def _says_exactly(drafted: Draft, made: Plan, issuer: Issuer) -> None:
    """The draft as a relying party reads it, against the plan, field by field."""
    seen = read(drafted)
    assert seen.version is x509.Version.v3
    assert seen.serial_number == int.from_bytes(drafted.serial, "big")
    assert seen.issuer.public_bytes() == issuer.certificate.subject.public_bytes()
    assert (seen.not_valid_before_utc, seen.not_valid_after_utc) == (drafted.not_before, drafted.not_after)
    assert [(item.oid.dotted_string, item.value) for item in seen.subject] == list(made.subject)
    assert parts.spki_of(seen.public_key()) == made.key.spki
    assert seen.signature_algorithm_oid.dotted_string == der.read_oid(der.children(drafted.algorithm)[0].content)
    expected: dict[type[x509.ExtensionType], bool] = {
        x509.BasicConstraints: True,
        x509.KeyUsage: True,
        x509.AuthorityKeyIdentifier: False,
        x509.SubjectKeyIdentifier: False,
        x509.CRLDistributionPoints: False,
        x509.AuthorityInformationAccess: False,
    }
    if made.names:
        expected[x509.SubjectAlternativeName] = not made.subject
        general = seen.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert len(list(general)) == len(made.names)
        assert [getattr(one, "value", None) for one in general] == [
            name.address if isinstance(name, IpName) else name.value for name in made.names
        ]
    if made.policy.extended_key_usage:
        expected[x509.ExtendedKeyUsage] = False
        usage = seen.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        assert tuple(usage) == made.policy.extended_key_usage
    if made.must_staple:
        expected[x509.TLSFeature] = False
    assert {type(one.value): one.critical for one in seen.extensions} == expected
    basic = seen.extensions.get_extension_for_class(x509.BasicConstraints).value
    assert (basic.ca, basic.path_length) == (False, None)
    usages = seen.extensions.get_extension_for_class(x509.KeyUsage).value
    assert tuple(name for name in _BITS if getattr(usages, name)) == tuple(sorted(made.key_usage, key=_BITS.index))
    skid = seen.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    akid = seen.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    assert (skid.digest, akid.key_identifier) == (made.key.identifier, issuer.subject_key_id)
    assert (akid.authority_cert_issuer, akid.authority_cert_serial_number) == (None, None)


_BITS = (
    "digital_signature content_commitment key_encipherment data_encipherment key_agreement key_cert_sign crl_sign"
).split()


# ── Made by their checks alone ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.invariant("I-41")
@pytest.mark.parametrize("kind", [Plan, Draft, DnsName])
def test_a_checked_value_is_never_made_by_hand(kind: type[Sealed]) -> None:
    for arguments in ({}, dict.fromkeys(kind._fields, "x")):
        with pytest.raises(TypeError):
            kind(**arguments)
    with pytest.raises(TypeError):
        kind("x")
    with pytest.raises(TypeError):
        kind._make(**dict.fromkeys(kind._fields[1:], "x"))


def test_a_checked_value_never_changes() -> None:
    made = plan()
    drafted = draft(made)
    for value, field in ((made, "names"), (made, "approval"), (drafted, "tbs"), (made.names[0], "value")):
        with pytest.raises(AttributeError):
            setattr(value, field, getattr(value, field))
    assert copy.copy(drafted) == drafted
    assert drafted == draft(made)
    assert drafted != draft(made, now=NOW + SECOND)


# ── The hash (I-42) ───────────────────────────────────────────────────────────────────────────────────────────────


def test_the_hash_of_the_same_is_the_same() -> None:
    assert plan("dns:a.internal", "dns:b.internal").hash == plan("dns:b.internal", "dns:A.internal").hash
    assert plan().hash == plan(labels={"x": "y"}, lifetime=30 * DAY).hash  # the default, spelt out
    assert len(plan().hash) == 64
    assert draft(plan(), now=NOW).tbs != draft(plan(), now=NOW + DAY).tbs
    assert plan(cn="a.internal").hash == plan(cn="A.internal").hash


_OTHERS: list[tuple[str, Callable[[], Plan]]] = [
    ("version", lambda: plan(rules={"version": 2})),
    ("profile", lambda: plan(rules={"name": "other"})),
    ("another name", lambda: plan("dns:b.internal")),
    ("one more name", lambda: plan("dns:a.internal", "dns:b.internal")),
    ("a name of another kind", lambda: plan("uri:https://a.internal/dns")),
    ("subject", lambda: plan(cn="a.internal")),
    ("subject from the profile", lambda: plan(rules={"subject": Subject(organization=Value("fixed", "Ours"))})),
    ("key", lambda: plan(key=parts.private_key("p384"))),
    ("key usage", lambda: plan(rules={"key_usage": ("digital_signature", "key_agreement")})),
    ("extended key usage", lambda: plan(rules={"extended_key_usage": ("server_auth", "client_auth")})),
    ("issuer", lambda: plan(rules={"issuer": issuer_of(ca("Another CA"))})),
    ("lifetime", lambda: plan(lifetime=30 * DAY - SECOND)),
    ("staple", lambda: plan(rules={"revocation": Revocation(must_staple="always")})),
    ("policies", lambda: plan(rules={"policies": ("1.2.3",)})),
]


@pytest.mark.invariant("I-42")
def test_every_change_of_what_will_be_signed_changes_the_hash() -> None:
    hashes = {"the plan": plan().hash} | {title: make().hash for title, make in _OTHERS}
    assert len(set(hashes.values())) == len(hashes)


@pytest.mark.invariant("I-10")
def test_names_that_the_door_has_compared_stand_for_the_requests() -> None:
    """One of them may be in the common name alone; the profile judges them all the same."""
    wanted = (parse_name("dns:a.internal"), parse_name("dns:b.internal"))
    one = ask("dns:b.internal", cn="a.internal")
    assert policy().admit(dataclasses.replace(one, names=wanted), WHO).names == wanted
    assert refusal(lambda: policy().admit(one, WHO)) == [("RW-CSR-SUBJECT", "csr")]
    beyond = dataclasses.replace(one, names=(*wanted, parse_name("dns:a.example")))
    assert refusal(lambda: policy().admit(beyond, WHO)) == [("RW-NAME-PERMITTED", "names")]


@pytest.mark.invariant("I-42")
def test_an_approval_binds_the_plan_or_the_names() -> None:
    first, other_key = plan(), plan(key=parts.private_key("p384"))
    assert first.binding("p-1", "plan") == plan().binding("p-1", "plan")
    assert first.binding("p-1", "plan") != first.binding("p-2", "plan")
    assert first.binding("p-1", "plan") != other_key.binding("p-1", "plan")
    rules: dict[str, Any] = {"approval": Approval("always")}
    named, again = plan(rules=rules), plan(rules=rules, key=parts.private_key("p384"), lifetime=DAY)
    assert named.hash != again.hash
    assert named.binding("p-1", "names") == again.binding("p-1", "names") != first.binding("p-1", "plan")
    assert named.binding("p-1", "names") != named.binding("p-2", "names")
    for changes in ({"version": 2}, {"name": "other"}):
        assert plan(rules=rules | changes).binding("p-1", "names") != named.binding("p-1", "names")
    assert plan("dns:b.internal", rules=rules).binding("p-1", "names") != named.binding("p-1", "names")


# ── Keys and usages ───────────────────────────────────────────────────────────────────────────────────────────────

_ALL = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
_GIVEN = {
    "rsa-2048": _ALL[:4],
    "p256": (*_ALL[:2], "key_agreement"),
    "p384": (*_ALL[:2], "key_agreement"),
    "p521": (*_ALL[:2], "key_agreement"),
    "ed25519": _ALL[:2],
    "ml-dsa-44": _ALL[:2],
    "ml-dsa-65": _ALL[:2],
    "ml-dsa-87": _ALL[:2],
}


@pytest.mark.parametrize("key_type", _GIVEN)
def test_a_key_gets_the_usages_that_it_can_do(key_type: str) -> None:
    """RFC 5480 3, RFC 8410 5, RFC 9881 5."""
    made = plan(rules={"key_usage": _ALL}, key=parts.private_key(key_type))
    assert made.key_usage == _GIVEN[key_type]
    drafted = draft(made)
    assert lint_certificate(drafted, made) == []
    _says_exactly(drafted, made, made.policy.issuer)


@pytest.mark.parametrize("key_type", _GIVEN)
@pytest.mark.parametrize("usage", _ALL)
def test_a_key_that_can_do_none_of_it_is_refused(key_type: str, usage: str) -> None:
    rules = {"key_usage": (usage,)}
    made = attempt(lambda: plan(rules=rules, key=parts.private_key(key_type)))
    if usage in _GIVEN[key_type]:
        assert isinstance(made, Plan)
        assert made.key_usage == (usage,)
    else:
        assert isinstance(made, Problem)
        assert [reason.code for reason in made.reasons] == ["RW-KEY-TYPE"]


@pytest.mark.parametrize("algorithm", list(KeyAlgorithm))
def test_a_key_of_another_kind_is_refused(algorithm: KeyAlgorithm) -> None:
    others = tuple(one for one in KeyAlgorithm if one is not algorithm)
    if algorithm in (KeyAlgorithm.RSA_3072, KeyAlgorithm.RSA_4096):
        return  # their keys take seconds to make, and there is nothing of their own here
    asked = ask("dns:a.internal", key=parts.private_key(algorithm.value))
    assert refusal(lambda: policy(keys=others).admit(asked, WHO)) == [("RW-KEY-TYPE", "csr")]
    assert policy(keys=(algorithm,)).admit(asked, WHO).key.algorithm is algorithm


@pytest.mark.invariant("I-12")
def test_the_issuers_own_key_is_refused() -> None:
    """36."""
    asked = ask("dns:a.internal", key=ca().key)
    assert refusal(lambda: policy().admit(asked, WHO)) == [("RW-KEY-BLOCKED", "csr")]


@pytest.mark.parametrize(
    ("asked", "refused"),
    [
        ({"digital_signature"}, False),
        ({"key_encipherment"}, False),  # the profile gives it, though not to this key
        ({"content_commitment"}, True),
        ({"key_cert_sign"}, True),
        ({"crl_sign", "digital_signature"}, True),
    ],
)
@pytest.mark.invariant("I-11")
def test_a_usage_that_is_asked_for_is_the_profiles_or_refused(asked: set[str], refused: bool) -> None:
    """48, for key usage; what is given is the profile's in any case."""
    flags = {name: name in asked for name in [*_BITS, "encipher_only", "decipher_only"]}
    made = attempt(lambda: plan(extensions=[x509.KeyUsage(**flags)]))
    if refused:
        assert isinstance(made, Problem)
        assert made.code == "RW-CSR-USAGE"
    else:
        assert isinstance(made, Plan)
        assert made.key_usage == ("digital_signature",)


@pytest.mark.invariant("I-11")
@pytest.mark.parametrize("usage", [oid for name, oid in vars(ExtendedKeyUsageOID).items() if name.isupper()])
def test_an_extended_usage_that_is_asked_for_is_the_profiles_or_refused(usage: x509.ObjectIdentifier) -> None:
    """48."""
    made = attempt(lambda: plan(extensions=[x509.ExtendedKeyUsage([usage])]))
    if usage == ExtendedKeyUsageOID.SERVER_AUTH:
        assert isinstance(made, Plan)
    else:
        assert isinstance(made, Problem)
        assert made.reasons == (Reason("RW-CSR-USAGE", made.detail, "csr"),)


# ── Conditions ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("when", "met"),
    [
        ("true", True),
        ("false", False),
        ("names == ['dns:a.internal']", True),
        ("names.all(n, n.endsWith('.internal'))", True),
        ("size(names) > 1", False),
        ("key == 'p256' && lifetime <= 2592000", True),
        ("identity.name == 'mia' && identity.kind == 'person'", True),
        ("labels['team'] == 'ops'", True),
        ("labels['none'] == 'ops'", False),
        ("owner == ''", True),
        ("names[1] == 'dns:a.internal'", False),
        ("identity.nobody == ''", False),
        ("nothing", False),
        ("nothing()", False),
        ("1 / 0 == 1 || true", True),
        ("1 / 0 == 1", False),
        ("9223372036854775807 + lifetime > 0", False),
        ("lifetime + 'a' == 'a'", False),
        ("int('x') == 1", False),
        ("key.matches('(')", False),
        ("duration('never') > duration('1s')", False),
        ("lifetime", False),  # only true is true
        ("'true'", False),
        ("1", False),
        ("names", False),
    ],
)
def test_a_condition_is_met_by_true_alone(when: str, met: bool) -> None:
    made = attempt(lambda: plan(rules={"conditions": (Condition(when, "Not so."),)}, labels={"team": "ops"}))
    if met:
        assert isinstance(made, Plan)
    else:
        assert isinstance(made, Problem)
        assert made.reasons == (Reason("RW-CONDITION", "Not so."),)


@pytest.mark.invariant("I-41")
def test_a_condition_judges_the_certificate_and_not_the_request() -> None:
    rules = {
        "subject": Subject(Value("fixed", "A box")),
        "conditions": (Condition("common_name == 'A box'", "Boxes only."),),
        **CLIENT,
    }
    assert isinstance(plan(rules=rules), Plan)
    lower = {"conditions": (Condition("common_name == 'a.internal'", "In lower case."),)}
    assert isinstance(plan(rules=lower, cn="A.INTERNAL"), Plan)
    dropped = {"subject": Subject(Value("none")), "conditions": (Condition("common_name == 'a.internal'", "No."),)}
    assert refusal(lambda: plan(rules=dropped, cn="a.internal")) == [("RW-CONDITION", None)]


# ── The chain above ───────────────────────────────────────────────────────────────────────────────────────────────


def _below(root: dict[str, Any], sub: dict[str, Any]) -> Issuer:
    times: dict[str, Any] = {"start": NOW - DAY, "end": NOW + 900 * DAY}
    return issuer_of(Authority("Chain CA", Authority("Chain Root", **times, **root), **times, **sub))


_CLIENTS_ONLY = [(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), False)]
_ANY = [(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]), False)]


@pytest.mark.invariant("I-46")
def test_the_chains_path_lengths_and_usages_hold() -> None:
    good: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({}, {}),
        ({"path_length": 1}, {"path_length": 0}),
        ({}, {"path_length": 0}),
        ({"extensions": _ANY}, {}),
    ]
    for root, sub in good:
        assert policy(issuer=_below(root, sub)).admit(ask("dns:a.internal"), WHO)
    assert policy(issuer=_below({}, {"extensions": _CLIENTS_ONLY}), **CLIENT).admit(ask("dns:a.internal"), WHO)
    bad: list[tuple[dict[str, Any], dict[str, Any], str]] = [
        ({"path_length": 0}, {}, "authority"),
        ({}, {"extensions": _CLIENTS_ONLY}, "extended_key_usage"),
        ({"extensions": _CLIENTS_ONLY}, {}, "extended_key_usage"),
    ]
    for root, sub, field in bad:
        issuer = _below(root, sub)
        assert refusal(lambda issuer=issuer: policy(issuer=issuer)) == [("RW-PROFILE-INVALID", field)]
    leaf = ca().leaf("a.internal")
    assert ("RW-PROFILE-INVALID", "authority") in refusal(lambda: policy(issuer=Issuer("leaf", leaf, (leaf,), PKI)))
