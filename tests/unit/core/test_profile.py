"""Profiles: what they can say, what they can never say, and that every fault is told at once."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import event, example, given, settings
from hypothesis import strategies as st

from rootward.ca.founding import first_profiles
from rootward.core import profile as profiles
from rootward.core.lint import lint_certificate
from rootward.core.plan import Policy
from rootward.core.problems import Problem
from rootward.core.profile import (
    RESERVED,
    Approval,
    Condition,
    DnsRules,
    Lifetime,
    NameRules,
    Profile,
    Revocation,
    Subject,
    Value,
    check_name,
    check_profile,
    parse_profile,
    profile_json,
)
from rootward.core.pubkey import KeyAlgorithm
from tests.support.plans import WHO, ask, attempt, ca, draft, issuer_of, profile, refusal

INVALID = "RW-PROFILE-INVALID"
SHIPPED = first_profiles("issuing", ["corp.example"])


def faults(**changes: Any) -> list[str]:
    """The fields that the changed profile is refused for."""
    reasons = refusal(lambda: check_profile(profile(**changes)))
    assert {code for code, _ in reasons} == {INVALID}
    return [field or "" for _, field in reasons]


@pytest.mark.parametrize("shipped", SHIPPED, ids=lambda one: one.name)
def test_the_shipped_profiles_are_valid_and_survive_their_json(shipped: Profile) -> None:
    check_profile(shipped)
    assert parse_profile(profile_json(shipped)) == shipped
    assert profile_json(parse_profile(profile_json(shipped))) == profile_json(shipped)


@pytest.mark.invariant("I-45")
def test_the_defaults_allow_nothing() -> None:
    bare = Profile("bare", "issuing")
    check_profile(bare)
    compiled = Policy(bare, 1, issuer_of(ca()))
    for name in ("dns:a.internal", "dns:localhost", "ip:10.0.0.1", "uri:https://a.internal/x", "email:a@a.internal"):
        assert ("RW-NAME-PERMITTED", "names") in refusal(lambda name=name: compiled.admit(ask(name), WHO))
    assert refusal(lambda: compiled.admit(ask(cn="somebody"), WHO)) == [("RW-CSR-EMPTY", "names")]


def _names(**changes: Any) -> dict[str, Any]:
    return {"names": NameRules(**changes)}


def _subject(**values: Value) -> dict[str, Any]:
    return {"subject": Subject(**values)}


FAULTS: list[tuple[str, dict[str, Any], list[str]]] = [
    ("empty name", {"name": ""}, ["name"]),
    ("capitals", {"name": "Server"}, ["name"]),
    ("hyphen first", {"name": "-a"}, ["name"]),
    ("hyphen last", {"name": "a-"}, ["name"]),
    ("too long", {"name": "a" * 41}, ["name"]),
    ("newline", {"name": "a\n"}, ["name"]),
    ("a colon, as in our own", {"name": "ocsp:issuing"}, ["name"]),
    ("another script's digit", {"name": "a\u0663"}, ["name"]),
    ("authority", {"authority": "is suing"}, ["authority"]),
    ("dns glob", _names(dns=DnsRules(allow=("*.internal",))), ["names.dns.allow[0]"]),
    ("dns second", _names(dns=DnsRules(allow=("a.internal", "a..b"))), ["names.dns.allow[1]"]),
    ("dns empty", _names(dns=DnsRules(allow=("",))), ["names.dns.allow[0]"]),
    ("dns all", _names(dns=DnsRules(allow=(".",))), ["names.dns.allow[0]"]),
    ("dns last label", _names(dns=DnsRules(allow=("a.{name}",))), ["names.dns.allow[0]"]),
    ("ip host bits", _names(ip=("10.0.0.1/8",)), ["names.ip"]),
    ("ip text", _names(ip=("ten", "1")), ["names.ip", "names.ip"]),
    ("uri star", _names(uri=("https://*.internal/",)), ["names.uri"]),
    ("email star", _names(email=("*@a.internal",)), ["names.email"]),
    ("fixed, none", _names(source="fixed"), ["names.fixed"]),
    ("identity, none", _names(source="identity"), ["names.fixed"]),
    ("fixed, no kind", _names(source="fixed", fixed=("a.internal",)), ["names.fixed"]),
    ("fixed, with a slot", _names(source="fixed", fixed=("dns:{name}.internal",)), ["names.fixed"]),
    ("fixed, twice", _names(source="fixed", fixed=("dns:a.internal",) * 2), ["names.fixed"]),
    ("identity, open slot", _names(source="identity", fixed=("dns:{name.internal",)), ["names.fixed"]),
    ("identity, shut slot", _names(source="identity", fixed=("dns:name}.internal",)), ["names.fixed"]),
    ("identity, half a label", _names(source="identity", fixed=("dns:a{name}.internal",)), ["names.fixed"]),
    ("identity, two in a label", _names(source="identity", fixed=("dns:{a}-{b}.internal",)), ["names.fixed"]),
    ("identity, the last label", _names(source="identity", fixed=("dns:{name}",)), ["names.fixed"]),
    ("identity, the kind", _names(source="identity", fixed=("{kind}:a.internal",)), ["names.fixed"]),
    ("identity, wildcard", _names(source="identity", fixed=("dns:*.{name}.internal",)), ["names.fixed"]),
    ("identity, all below", _names(source="identity", fixed=("dns:.{name}.internal",)), ["names.fixed"]),
    ("identity, an octet", _names(source="identity", fixed=("ip:10.0.0.{n}",)), ["names.fixed"]),
    ("identity, host of a URI", _names(source="identity", fixed=("uri:https://{h}/x",)), ["names.fixed"]),
    (
        "identity, rest of a URI",
        _names(source="identity", fixed=("uri:https://a.internal/{name}/**",)),
        ["names.fixed"],
    ),
    ("identity, mail domain", _names(source="identity", fixed=("email:a@{name}.internal",)), ["names.fixed"]),
    ("minimum above maximum", _names(minimum=3, maximum=2), ["names.maximum"]),
    ("minimum below 0", _names(minimum=-1), ["names.maximum"]),
    ("maximum above 100", _names(maximum=101), ["names.maximum"]),
    ("no keys", {"keys": ()}, ["keys"]),
    ("a key twice", {"keys": (KeyAlgorithm.P256,) * 2}, ["keys"]),
    ("no usage", {"key_usage": ()}, ["key_usage"]),
    ("unknown usage", {"key_usage": ("sign",)}, ["key_usage"]),
    ("a usage twice", {"key_usage": ("digital_signature",) * 2}, ["key_usage"]),
    ("unknown extended usage", {"extended_key_usage": ("web",)}, ["extended_key_usage"]),
    ("an arc too many", {"extended_key_usage": ("3.1.1",)}, ["extended_key_usage"]),
    ("extended twice", {"extended_key_usage": ("server_auth", "1.3.6.1.5.5.7.3.1")}, ["extended_key_usage"]),
    ("bad duration", {"lifetime": Lifetime(default="30")}, ["lifetime.default"]),
    ("two bad durations", {"lifetime": Lifetime(minimum="", maximum="1w")}, ["lifetime.minimum", "lifetime.maximum"]),
    ("falling durations", {"lifetime": Lifetime(default="91d")}, ["lifetime"]),
    ("minimum above default", {"lifetime": Lifetime(minimum="31d")}, ["lifetime"]),
    ("all backdate", {"lifetime": Lifetime(backdate="5m")}, ["lifetime.backdate"]),
    ("bad backdate", {"lifetime": Lifetime(backdate="-1m")}, ["lifetime.backdate"]),
    ("fixed without a value", _subject(organization=Value("fixed")), ["subject.organization"]),
    ("identity without a value", _subject(common_name=Value("identity")), ["subject.common_name"]),
    ("from the requester", _subject(organization=Value("requester")), ["subject.organization"]),
    ("country from the requester", _subject(country=Value("requester")), ["subject.country"]),
    ("country of three", _subject(country=Value("fixed", "DEU")), ["subject.country"]),
    ("country in small letters", _subject(country=Value("fixed", "de")), ["subject.country"]),
    ("a value too long", _subject(organization=Value("fixed", "x" * 65)), ["subject.organization"]),
    ("a name too long", _subject(common_name=Value("fixed", "x" * 65)), ["subject.common_name"]),
    ("a line break", _subject(organizational_unit=Value("fixed", "a\nb")), ["subject.organizational_unit"]),
    ("right to left", _subject(organization=Value("fixed", "a\u202eb")), ["subject.organization"]),
    ("space around", _subject(organization=Value("fixed", " a")), ["subject.organization"]),
    ("no PrintableString", _subject(serial_number=Value("fixed", "Zoë")), ["subject.serial_number"]),
    ("no-rev-avail and CRL", {"revocation": Revocation(no_rev_avail=True, ocsp=False)}, ["revocation.no_rev_avail"]),
    ("no-rev-avail and OCSP", {"revocation": Revocation(no_rev_avail=True, crl=False)}, ["revocation.no_rev_avail"]),
    ("stapling nothing", {"revocation": Revocation(ocsp=False, must_staple="always")}, ["revocation.must_staple"]),
    ("policy", {"policies": ("1.2.x",)}, ["policies"]),
    ("a policy twice", {"policies": ("1.2.3", "1.2.3")}, ["policies"]),
    ("sensitive, none", {"approval": Approval("sensitive")}, ["approval.sensitive"]),
    ("sensitive glob", {"approval": Approval("sensitive", ("a.*",))}, ["approval.sensitive[0]"]),
    ("expiry", {"approval": Approval(expires="soon")}, ["approval.expires"]),
    ("condition", {"conditions": (Condition("names[", "no"),)}, ["conditions"]),
    ("empty condition", {"conditions": (Condition("", "no"),)}, ["conditions"]),
    ("huge condition", {"conditions": (Condition("true " + "&& true" * 300, "no"),)}, ["conditions"]),
]


@pytest.mark.parametrize(("changes", "fields"), [row[1:] for row in FAULTS], ids=[row[0] for row in FAULTS])
def test_what_contradicts_itself_is_refused_by_its_field(changes: dict[str, Any], fields: list[str]) -> None:
    assert faults(**changes) == fields


def test_every_fault_is_told_at_once() -> None:
    merged: dict[str, Any] = {
        "name": "A",
        "authority": "",
        "names": NameRules(
            "identity", dns=DnsRules(allow=("*",)), ip=("x",), uri=("x",), email=("x",), minimum=9, maximum=1
        ),
        "keys": (),
        "key_usage": ("no",),
        "extended_key_usage": ("no",),
        "lifetime": Lifetime("x", "x", "x", "x"),
        "subject": Subject(Value("fixed"), Value("requester"), country=Value("fixed", "x")),
        "revocation": Revocation(no_rev_avail=True, ocsp=False, must_staple="always"),
        "policies": ("x",),
        "approval": Approval("sensitive", (), expires="x"),
        "conditions": (Condition("(", "no"),),
    }
    found = faults(**merged)
    assert set(found) == set(
        "name authority names.dns.allow[0] names.ip names.uri names.email names.fixed names.maximum keys key_usage "
        "extended_key_usage lifetime.minimum lifetime.default lifetime.maximum lifetime.backdate subject.common_name "
        "subject.organization subject.country revocation.no_rev_avail revocation.must_staple policies "
        "approval.sensitive approval.expires conditions".split()
    )
    assert len(found) == 24


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'{"name":"a"}',
        b'{"name":"a","authority":"b","name":1}',
        b'{"name":"a","authority":"b","keys":["p224"]}',
        b'{"name":"a","authority":"b","keys":"p256"}',
        b'{"name":"a","authority":"b","lifetime":{"default":30}}',
        b'{"name":"a","authority":"b","names":{"source":"fixed"}}',
        b'{"name":"a","authority":"b","names":{"from":"none"}}',
        b'{"name":"a","authority":"b","subject":{"title":{"from":"fixed","value":"x"}}}',
        b'{"name":"a","authority":"b","approval":{"required":"sometimes"}}',
        b'{"name":"a","authority":"b","key_reuse":"none"}',
        b'{"name":"a","authority":"b"} x',
        b'{"name":"\xff","authority":"b"}',
        b'{"name":' + b"[" * 100_000,
    ],
)
def test_what_is_no_profile_is_refused(data: bytes) -> None:
    assert [code for code, _ in refusal(lambda: parse_profile(data))] == [INVALID]


@pytest.mark.invariant("I-45")
@pytest.mark.parametrize(
    "field", ["ca", "basic_constraints", "path_length", "name_constraints", "extensions", "ocsp_nocheck", "version"]
)
def test_there_is_no_field_for_what_a_profile_never_gives(field: str) -> None:
    body = msgspec.json.decode(profile_json(profile())) | {field: True}
    assert refusal(lambda: parse_profile(msgspec.json.encode(body))) == [(INVALID, None)]


def test_the_answer_never_holds_the_senders_bytes() -> None:
    with pytest.raises(Problem) as caught:
        parse_profile(b'{"name":"a","authority":"b","<script>\\u202e\\u001b[31m":1}')
    assert not {"<", "\x1b", "\u202e"} & set(caught.value.detail)


@pytest.mark.invariant("I-32")
@pytest.mark.parametrize(
    "usage",
    [
        "1.3.6.1.5.5.7.3.9",
        "2.5.29.37.0",
        "1.3.6.1.5.5.7.3.09",
        "2.5.29.037.0",
        "ocsp_signing",
        "any_extended_key_usage",
        "OCSPSigning",
    ],
)
def test_ocsp_signing_and_any_usage_have_no_spelling(usage: str) -> None:
    assert faults(extended_key_usage=(usage,)) == ["extended_key_usage"]


@pytest.mark.invariant("I-45")
@pytest.mark.parametrize("usage", ["key_cert_sign", "crl_sign", "encipher_only", "decipher_only"])
def test_a_profile_gives_no_key_usage_of_a_ca(usage: str) -> None:
    assert faults(key_usage=("digital_signature", usage)) == ["key_usage"]


@pytest.mark.parametrize("name", sorted(RESERVED))
def test_words_of_the_doors_paths_are_no_names(name: str) -> None:
    assert faults(name=name) == ["name"]
    assert faults(authority=name) == ["authority"]


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=45) | st.from_regex(r"[a-z0-9-]{1,42}", fullmatch=True))
@example("a")
@example("a" * 40)
@example("a" * 41)
@example("a\n")
def test_a_name_is_what_every_path_can_hold(text: str) -> None:
    plain = set(text) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    good = plain and 1 <= len(text) <= 40 and text[0] != "-" != text[-1] and text not in RESERVED
    refused = attempt(lambda: check_name(text, field="name"))
    assert (refused is None) is good
    assert refused is None or refused.code == INVALID


_VALUES = {
    "common_name": ["requester:", "none:", "identity:name", "fixed:A box", "fixed:a.internal", "fixed:Test Issuing CA"],
    "organization": ["none:", "fixed:Zo\u00eb & Sons", "identity:name", "identity:nobody", "fixed:" + "x" * 64],
    "organizational_unit": ["none:", "identity:long", "fixed: x"],
    "country": ["none:", "fixed:DE", "identity:name", "identity:land", "identity:small"],
    "serial_number": ["none:", "identity:odd", "fixed:SN/1", "identity:name"],
}
_WHO = WHO | {"land": "FR", "small": "fr", "odd": "\u00fc", "long": "x" * 65, "dotted": "a.b", "capital": "MIA"}


def _value(text: str) -> Value:
    source, _, value = text.partition(":")
    return msgspec.convert({"from": source, "value": value}, Value)


def _mostly(usual: Any, others: list[Any]) -> st.SearchStrategy[Any]:
    """So that three in four are `usual`: many fields of a profile have to be right for a draft to come of it."""
    return st.integers(0, 3).flatmap(lambda dice: st.sampled_from(others) if dice == 3 else st.just(usual))


def _unique(values: list[Any], least: int = 0, most: int = 3) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(st.sampled_from(values), min_size=least, max_size=most, unique=True).map(tuple)


_FIXED = ["dns:a.internal", "ip:10.0.0.1", "dns:*.a.internal", "uri:https://a.internal/Path", "email:me@a.internal"]
_SLOTS = ["dns:{name}.internal", "dns:{capital}.internal", "uri:spiffe://a.internal/{name}", "email:{name}@a.internal"]
_SOURCES = [("requester", ())] * 3 + [
    ("fixed", ("dns:a.internal",)),
    ("fixed", tuple(_FIXED)),
    ("fixed", ("dns:{name}.internal",)),
    ("identity", tuple(_FIXED + _SLOTS)),
    ("identity", ("dns:{dotted}.internal",)),
]
_LIFETIMES = [
    Lifetime(),
    Lifetime("24h", "24h", "1h", "0s"),
    Lifetime("10y", "999999y"),
    Lifetime("999999y", "999999y"),
]
_REVOCATIONS = [
    Revocation(),
    Revocation(crl=False, ocsp=False, issuer=False),
    Revocation(crl=False, ocsp=False, no_rev_avail=True),
    Revocation(must_staple="always"),
    Revocation(must_staple="optional", issuer=False),
]
_EXPRESSIONS = [
    "true",
    "names[7] == 'x'",
    "lifetime > 0",
    "identity.name == 'mia'",
    "1 / 0 == 1",
    "common_name != 'A box'",
]
_PROFILES = st.builds(
    Profile,
    name=st.just("server"),
    authority=st.just("issuing"),
    names=st.builds(
        lambda source, **rules: NameRules(*source, **rules),
        st.sampled_from(_SOURCES),
        dns=st.builds(DnsRules, _mostly((".internal",), [(), ("{name}.internal", "localhost")]), st.booleans()),
        ip=_mostly(("10.0.0.0/8",), [()]),
        minimum=st.integers(0, 2),
        maximum=_mostly(100, [2, 3]),
    ),
    keys=_mostly(tuple(KeyAlgorithm), [(KeyAlgorithm.P256,), (KeyAlgorithm.RSA_2048,)]),
    key_usage=_unique(list(profiles.KEY_USAGES), 1),
    extended_key_usage=_unique([*profiles.EXTENDED_KEY_USAGES, "1.2.3"]),
    lifetime=_mostly(Lifetime(), _LIFETIMES),
    subject=st.builds(Subject, *(_mostly(texts[0], texts).map(_value) for texts in _VALUES.values())),
    revocation=st.sampled_from(_REVOCATIONS),
    policies=_unique(["1.2.3", "2.5.29.32.0", "1.3.6.1.4.1.9"]),
    approval=st.builds(Approval, st.sampled_from(["never", "always", "sensitive"]), st.just((".a.internal",))),
    conditions=_unique([Condition(text, "no") for text in _EXPRESSIONS], most=1),
)
_WISHES = st.lists(st.sampled_from(["dns:a.internal", "dns:*.a.internal", "ip:10.0.0.1"]), max_size=3, unique=True)


@pytest.mark.invariant("I-09")
@settings(max_examples=200, deadline=None)
@given(made=_PROFILES, names=_WISHES, cn=st.sampled_from([None, "a.internal", "A box", "b.c"]))
def test_whatever_passes_the_check_compiles_and_admits_or_refuses(
    made: Profile, names: list[str], cn: str | None
) -> None:
    """A profile that was stored never ends in a crash or in a lint: asks under it are drafts that pass, or Problems."""
    refused = attempt(lambda: check_profile(made))
    if refused is not None:
        event("refused")
        assert refused.code == INVALID
        return
    assert parse_profile(profile_json(made)) == made
    compiled = Policy(made, 1, issuer_of(ca()))
    planned = attempt(lambda: compiled.admit(ask(*names, cn=cn), _WHO))
    drafted = planned if isinstance(planned, Problem) else attempt(lambda: draft(planned))
    if isinstance(drafted, Problem):
        event(drafted.code)
        assert drafted.code not in {"RW-LINT", "RW-INTERNAL"}
        return
    assert not isinstance(planned, Problem)
    event("drafted")
    assert lint_certificate(drafted, planned) == []


@pytest.mark.invariant("I-66")
@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"conditions": [{"when": "names.all(a, names.all(b, a == b))", "message": "m"}]}, "conditions"),
        ({"conditions": [{"when": "[1].map(x, [1].exists_one(y, y == x)).size() > 0", "message": "m"}]}, "conditions"),
        ({"conditions": [{"when": "true", "message": "m"}] * 11}, "conditions"),
        ({"conditions": [{"when": "true" + " " * 500, "message": "m"}]}, "conditions"),
        ({"names": {"dns": {"allow": [f".a{n}.internal" for n in range(201)]}}}, "names.dns.allow"),
        ({"policies": ["1.2.3"] * 21}, "policies"),
        ({"extended_key_usage": ["1.3.6.1.4.1.311.10.12.1"]}, "extended_key_usage"),
        ({"extended_key_usage": ["1.3.6.1.4.1.311.20.2.1"]}, "extended_key_usage"),
        ({"lifetime": {"minimum": "89d", "default": "89d", "maximum": "90d", "backdate": "2d"}}, "lifetime.backdate"),
        ({"description": "a\nb"}, "description"),
    ],
)
def test_what_admission_costs_is_bounded(change: dict[str, object], field: str) -> None:
    with pytest.raises(Problem) as refused:
        parse_profile(msgspec.json.encode({"name": "a", "authority": "issuing", **change}))
    assert {reason.field for reason in refused.value.reasons} == {field}
