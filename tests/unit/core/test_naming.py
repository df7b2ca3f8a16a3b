"""Names and subjects under a profile: from the requester, from the profile, from the identity as data.

It has so many lines because it is one table of cases, easier to read whole.
"""

from __future__ import annotations

import unicodedata
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rootward.core.csr import Csr, parse_csr
from rootward.core.plan import Ask, Plan
from rootward.core.problems import Problem
from rootward.core.profile import Approval, DnsRules, NameRules, Subject, Value
from tests.support.authority import Authority
from tests.support.plans import (
    DAY,
    NAMES,
    NOW,
    WHO,
    ask,
    attempt,
    ca,
    csr,
    issuer_of,
    plan,
    policy,
    refusal,
)
from tests.vectors import csr_parts as parts

Rules = dict[str, Any]

OUTSIDE = ("RW-NAME-PERMITTED", "names")
CLIENT: Rules = {"extended_key_usage": ("client_auth",), "key_usage": ("digital_signature",)}
DEVICE: Rules = CLIENT | {"names": NameRules(dns=DnsRules(allow=(".internal",)), minimum=0)}


def named(*names: str, who: dict[str, str] | None = None, cn: str | None = None, **rules: Any) -> list[str]:
    """The names of the plan."""
    made = policy(**rules).admit(ask(*names, cn=cn), WHO | (who or {}))
    return [str(name) for name in made.names]


def refused(*names: str, who: dict[str, str] | None = None, cn: str | None = None, **rules: Any) -> list[str]:
    """The codes of the refusal."""
    compiled = policy(**rules)
    return [code for code, _ in refusal(lambda: compiled.admit(ask(*names, cn=cn), WHO | (who or {})))]


def common_name(made: Plan) -> str | None:
    return dict(made.subject).get(NameOID.COMMON_NAME.dotted_string)


# ── From the requester ────────────────────────────────────────────────────────────────────────────────────────────

ALLOWED = [
    "dns:a.internal",
    "dns:a.b.c.internal",
    "dns:*.a.internal",
    "dns:localhost",
    "ip:10.1.2.3",
    "ip:fc00::1",
    "uri:https://a.internal/x/y",
    "uri:spiffe://a.internal/ns/x",
    "email:root@a.internal",
]
BEYOND = [
    "dns:internal",
    "dns:a.internal.example.com",
    "dns:ainternal",
    "dns:xinternal.test",
    "dns:*.internal",
    "dns:*.localhost",
    "dns:a.localhost",
    "ip:11.0.0.1",
    "ip:192.168.0.1",
    "ip:2001:db8::1",
    "uri:https://a.internal",
    "uri:https://b.internal/x",
    "uri:http://a.internal/x",
    "uri:https://a.internal/x?q",
    "uri:spiffe://b.internal/ns",
    "email:root@b.internal",
    "email:root@x.a.internal",
]


@pytest.mark.invariant("I-10")
@pytest.mark.parametrize("name", ALLOWED)
def test_what_a_pattern_allows_is_given(name: str) -> None:
    assert named(name) == [name]


@pytest.mark.invariant("I-10")
@pytest.mark.parametrize("name", BEYOND)
def test_what_no_pattern_allows_is_refused(name: str) -> None:
    compiled = policy()
    assert refusal(lambda: compiled.admit(ask(name), WHO)) == [OUTSIDE]


def test_one_name_too_far_refuses_all_and_each_is_told() -> None:
    compiled = policy()
    assert refusal(lambda: compiled.admit(ask(*ALLOWED, *BEYOND), WHO)) == [OUTSIDE] * len(BEYOND)


def test_wildcards_need_their_own_yes() -> None:
    plain = NameRules(dns=DnsRules(allow=(".internal",)))
    assert named("dns:a.internal", names=plain) == ["dns:a.internal"]
    assert refused("dns:*.a.internal", names=plain) == ["RW-NAME-PERMITTED"]


def test_names_stand_in_one_order() -> None:
    assert named(*ALLOWED) == named(*reversed(ALLOWED))


@pytest.mark.parametrize(("count", "code"), [(0, "RW-CSR-EMPTY"), (1, None), (3, None), (4, "RW-TOO-MANY")])
def test_too_few_and_too_many(count: int, code: str | None) -> None:
    rules: Rules = {"names": NameRules(dns=NAMES.dns, minimum=1, maximum=3), "extended_key_usage": ("client_auth",)}
    names = [f"dns:n{number}.internal" for number in range(count)]
    if code is None:
        assert named(*names, **rules) == names
    else:
        assert refused(*names, cn="somebody", **rules) == [code]


def test_nobody_is_no_subject() -> None:
    assert refused(**DEVICE) == ["RW-CSR-EMPTY"]


# ── From the profile, and from the identity ───────────────────────────────────────────────────────────────────────

FIXED: Rules = {"names": NameRules("fixed", ("dns:b.internal", "dns:a.internal", "ip:10.0.0.1"))}


def test_fixed_names_are_given_whatever_is_asked() -> None:
    given = ["dns:a.internal", "dns:b.internal", "ip:10.0.0.1"]
    assert named(**FIXED) == given
    assert named("dns:b.internal", **FIXED) == given


@pytest.mark.invariant("I-10")
def test_more_than_the_fixed_names_is_refused_and_not_dropped() -> None:
    assert refused("dns:a.internal", "dns:c.internal", **FIXED) == ["RW-NAME-PERMITTED"]


TEMPLATE: Rules = {
    "names": NameRules("identity", ("dns:{name}.people.internal", "uri:spiffe://a.internal/p/{name}")),
    "extended_key_usage": ("client_auth",),
}


@pytest.mark.invariant("I-44")
@pytest.mark.parametrize("value", ["mia", "MIA", "mia-2", "0", "a" * 63])
def test_an_identitys_value_is_one_label(value: str) -> None:
    given = [f"dns:{value.lower()}.people.internal", f"uri:spiffe://a.internal/p/{value}"]
    assert named(who={"name": value}, **TEMPLATE) == given


@pytest.mark.invariant("I-44")
@pytest.mark.parametrize(
    "value",
    [
        *["{", "}", "a\n", "\0", "%2e", "..", ".", "é", "аdmin", "a\u3002b", "a\u200bb", "１", "²", "(a+)+$", "a\\b"],
        "",
        "a" * 64,
        "-a",
        "a-",
        "a.b",
        "*",
        "a*",
        "a.*",
        "a/b",
        "a:b",
        "a@b",
        "a b",
        "a_b",
        "a,b",
        "a|b",
        "{name}",
        "{id}",
    ],
)
def test_an_identitys_value_never_widens_a_template(value: str) -> None:
    assert set(refused(who={"name": value}, **TEMPLATE)) == {"RW-NAME"}
    pattern: Rules = {"names": NameRules(dns=DnsRules(allow=("{name}.people.internal",), wildcards=True))}
    for asked in (
        "dns:a.b.people.internal",
        "dns:*.people.internal",
        "dns:*.a.people.internal",
        "dns:x.people.internal",
    ):
        assert refused(asked, who={"name": value}, **pattern) == ["RW-NAME-PERMITTED"]


@pytest.mark.invariant("I-44")
@settings(max_examples=150, deadline=None)
@given(st.text(max_size=70) | st.from_regex(r"[a-zA-Z0-9.*-]{1,66}", fullmatch=True))
@example("xn--mnchen-3ya")
@example("people")
def test_whatever_the_identity_says_is_a_label_or_a_refusal(value: str) -> None:
    made = attempt(lambda: named(who={"name": value}, **TEMPLATE))
    if isinstance(made, Problem):
        assert made.code in {"RW-NAME", "RW-NAME-SCRIPT"}
    else:
        assert made == [f"dns:{value.lower()}.people.internal", f"uri:spiffe://a.internal/p/{value}"]
        assert value.isascii()
        assert not set(value) & set("./:@*{}%")


def test_an_attribute_that_is_not_there_is_a_refusal() -> None:
    rules: Rules = {"names": NameRules("identity", ("dns:{team}.internal",))}
    assert refused(**rules) == ["RW-NAME"]
    assert refused("dns:a.internal", **rules) == ["RW-NAME", "RW-NAME-PERMITTED"]


def test_two_templates_that_come_to_the_same_are_one_name() -> None:
    rules: Rules = {"names": NameRules("identity", ("dns:{name}.internal", "dns:{id}.internal"))}
    assert named(who={"id": "MIA"}, **rules) == ["dns:mia.internal"]


@pytest.mark.invariant("I-44")
def test_a_placeholder_lets_nobody_have_anothers_name() -> None:
    rules: Rules = {"names": NameRules(dns=DnsRules(allow=("{name}.people.internal",)))}
    assert named("dns:mia.people.internal", **rules) == ["dns:mia.people.internal"]
    assert named("dns:mia.people.internal", who={"name": "Mia"}, **rules) == ["dns:mia.people.internal"]
    assert refused("dns:bob.people.internal", **rules) == ["RW-NAME-PERMITTED"]


# ── The subject ───────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.invariant("I-10")
@pytest.mark.parametrize("usages", [("server_auth",), ("server_auth", "client_auth"), ("client_auth",), ()])
@pytest.mark.parametrize(
    "cn",
    ["b.internal", "a.internal.evil", "*.internal", "2.0", "a\u3002internal", "a\uff0einternal", "1.2.3", "localhost"],
)
def test_a_common_name_like_a_name_is_one_of_the_names(usages: tuple[str, ...], cn: str) -> None:
    """58: whatever the certificate is for."""
    assert refused("dns:a.internal", cn=cn, extended_key_usage=usages) == ["RW-CSR-SUBJECT"]


@pytest.mark.invariant("I-10")
@pytest.mark.parametrize("cn", ["a.internal", "A.Internal"])
@pytest.mark.parametrize("rules", [{}, CLIENT, DEVICE])
def test_a_common_name_that_is_a_name_is_written_as_that(rules: dict[str, Any], cn: str) -> None:
    made = plan("dns:a.internal", "dns:b.internal", rules=rules, cn=cn)
    assert common_name(made) == "a.internal"


@pytest.mark.parametrize("cn", ["A box", "box-7", "SN 0815/4711", "Zoë", "printer 1.5", "mia@a.internal", "gateway"])
def test_devices_and_people_have_common_names_that_are_no_names(cn: str) -> None:
    assert common_name(plan("dns:a.internal", rules=DEVICE, cn=cn)) == cn
    assert common_name(policy(**DEVICE).admit(ask(cn=cn), WHO)) == cn
    assert refused("dns:a.internal", cn=cn) == ["RW-CSR-SUBJECT"]  # but a server's is one of its names


@pytest.mark.parametrize("cn", ["10.0.0.1", "::1", "[::1]", "fc00::1"])
@pytest.mark.parametrize("rules", [{}, CLIENT, DEVICE])
def test_an_address_is_no_common_name(rules: dict[str, Any], cn: str) -> None:
    """61, also where it is one of the names."""
    address = cn.strip("[]")
    names = ["dns:a.internal"] + (["ip:" + address] if address != "::1" and rules is not DEVICE else [])
    made = attempt(lambda: policy(**rules).admit(ask(*names, cn=cn), WHO))
    assert isinstance(made, Problem)
    assert made.code == "RW-CSR-SUBJECT"


@pytest.mark.invariant("I-10")
@pytest.mark.parametrize("source", ["fixed", "identity"])
@pytest.mark.parametrize(("rules", "cn"), [({}, "A box"), ({}, "b.internal"), (CLIENT, "b.internal")])
def test_where_the_common_name_comes_from_makes_no_difference(source: str, rules: dict[str, Any], cn: str) -> None:
    value = Value("fixed", cn) if source == "fixed" else Value("identity", "cn")
    assert refused("dns:a.internal", who={"cn": cn}, subject=Subject(value), **rules) == ["RW-CSR-SUBJECT"]


@pytest.mark.parametrize(
    ("cn", "fits"), [("ë" * 32, True), ("ë" * 33, False), ("\U0001f600" * 64, False)], ids=["32", "33", "64"]
)
def test_a_common_name_has_64_octets(cn: str, fits: bool) -> None:
    request = _ask(parse_csr(parts.raw_csr(rdns=[parts.common_name(cn)])))
    if fits:
        assert common_name(policy(**DEVICE).admit(request, WHO)) == cn
    else:
        assert refusal(lambda: policy(**DEVICE).admit(request, WHO)) == [("RW-CSR-SUBJECT", "csr")]


def test_a_common_name_that_the_profile_does_not_take_is_refused_and_not_dropped() -> None:
    for value in (Value("none"), Value("fixed", "a.internal"), Value("identity", "host")):
        rules: Rules = {"subject": Subject(value)}
        assert refused("dns:a.internal", cn="mia", who={"host": "a.internal"}, **rules) == ["RW-CSR-SUBJECT"]
        assert named("dns:a.internal", cn="a.internal", who={"host": "a.internal"}, **rules) == ["dns:a.internal"]


def test_the_subject_is_the_profiles_and_in_its_order() -> None:
    subject = Subject(
        Value("requester"),
        Value("fixed", "Zoë & Sons"),
        Value("identity", "team"),
        Value("fixed", "DE"),
        Value("fixed", "SN-1"),
    )
    given = [(NameOID.ORGANIZATION_NAME, "Evil"), (NameOID.LOCALITY_NAME, "Nowhere"), (NameOID.TITLE, "King")]
    asked = csr("dns:a.internal", cn="a.internal", subject=given)
    made = policy(subject=subject).admit(_ask(asked), WHO | {"team": "Ops"})
    expected = [
        (NameOID.COUNTRY_NAME, "DE"),
        (NameOID.ORGANIZATION_NAME, "Zoë & Sons"),
        (NameOID.ORGANIZATIONAL_UNIT_NAME, "Ops"),
        (NameOID.COMMON_NAME, "a.internal"),
        (NameOID.SERIAL_NUMBER, "SN-1"),
    ]
    assert made.subject == tuple((oid.dotted_string, value) for oid, value in expected)


def _ask(request: Csr) -> Ask:
    return Ask("server", request)


@pytest.mark.invariant("I-44")
@pytest.mark.parametrize("field", Subject.__struct_fields__)
@pytest.mark.parametrize("value", ["", " ", "a\n", "a\0b", "a\u202eb", " a", "a ", "x" * 65, "DEU", "ü\u0300\ue000"])
def test_an_identitys_value_that_is_none_is_a_refusal(field: str, value: str) -> None:
    if value == "DEU" and field != "country":
        return
    subject = Subject(**{"common_name": Value("none"), field: Value("identity", "attribute")})
    assert refused("dns:a.internal", who={"attribute": value}, subject=subject) == ["RW-CSR-SUBJECT"]
    assert refused("dns:a.internal", subject=subject) == ["RW-CSR-SUBJECT"]


@pytest.mark.parametrize("cn", ["Test Issuing CA", "test issuing ca", "TEST ISSUING CA"])
def test_the_issuers_own_subject_is_nobodys(cn: str) -> None:
    """68, compared as relying parties do (RFC 5280 7.1)."""
    assert refused("dns:a.internal", cn=cn, **DEVICE) == ["RW-CSR-SUBJECT"]
    fixed: Rules = DEVICE | {"subject": Subject(Value("fixed", cn))}
    assert refused("dns:a.internal", **fixed) == ["RW-CSR-SUBJECT"]


# ── Issuers with name constraints ─────────────────────────────────────────────────────────────────────────────────


def _constrained(
    *, permitted: list[x509.GeneralName] | None = None, excluded: list[x509.GeneralName] | None = None
) -> Any:
    """An issuer below a root with these constraints."""
    limits = x509.NameConstraints(permitted, excluded)
    times: Rules = {"start": NOW - DAY, "end": NOW + 900 * DAY}
    root = Authority("Bounded Root", extensions=[(limits, True)], **times)
    return issuer_of(Authority("Bounded CA", root, path_length=0, **times))


@pytest.mark.invariant("I-46")
def test_the_constraints_of_every_ca_above_hold() -> None:
    """108."""
    issuer = _constrained(permitted=[x509.DNSName("a.internal")], excluded=[x509.DNSName("no.a.internal")])
    assert named("dns:b.a.internal", issuer=issuer) == ["dns:b.a.internal"]
    for name in ("dns:b.internal", "dns:no.a.internal", "dns:x.no.a.internal", "dns:*.a.internal"):
        assert refused(name, issuer=issuer) == ["RW-NAME-CONSTRAINED"]
    fixed: Rules = {"names": NameRules("fixed", ("dns:b.internal",))}
    assert refused(issuer=issuer, **fixed) == ["RW-NAME-CONSTRAINED"]


@pytest.mark.invariant("I-46")
def test_constraints_on_directory_names_hold_for_the_subject() -> None:
    def unit(text: str) -> x509.DirectoryName:
        return x509.DirectoryName(x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, text)]))

    issuer = _constrained(permitted=[unit("Ours")])
    ours = Subject(organization=Value("fixed", "Ours"))
    assert named("dns:a.internal", cn="a.internal", issuer=issuer, subject=ours) == ["dns:a.internal"]
    assert named("dns:a.internal", issuer=issuer) == ["dns:a.internal"]  # no subject, so none outside
    assert refused("dns:a.internal", cn="a.internal", issuer=issuer) == ["RW-NAME-CONSTRAINED"]


# ── Sensitive names ───────────────────────────────────────────────────────────────────────────────────────────────

SENSITIVE: Rules = {"approval": Approval("sensitive", ("admin.internal", ".corp.internal", "{name}.own.internal"))}


@pytest.mark.parametrize(
    ("names", "asked"),
    [
        (["dns:a.internal"], False),
        (["dns:admin.internal"], True),
        (["dns:a.internal", "dns:ADMIN.internal"], True),
        (["dns:x.admin.internal"], False),
        (["dns:corp.internal"], False),
        (["dns:a.corp.internal"], True),
        (["dns:a.b.corp.internal"], True),
        (["dns:*.a.internal"], False),
        (["dns:mia.own.internal"], True),
        (["dns:bob.own.internal"], False),
        (["ip:10.0.0.1"], False),
    ],
)
def test_a_sensitive_name_needs_a_yes(names: list[str], asked: bool) -> None:
    assert plan(*names, rules=SENSITIVE).approval is asked


@pytest.mark.parametrize(
    "name", ["dns:*.internal", "dns:*.corp.internal", "dns:*.a.corp.internal", "dns:*.own.internal"]
)
def test_a_wildcard_that_stands_for_a_sensitive_name_needs_it_too(name: str) -> None:
    names = NameRules("fixed", (name,))
    assert policy(names=names, **SENSITIVE).admit(ask(), WHO).approval


def test_always_and_never() -> None:
    assert plan(rules={"approval": Approval("always")}).approval
    assert not plan(rules={"approval": Approval("never", (".internal",))}).approval


@pytest.mark.invariant("I-10")
@settings(max_examples=120, deadline=None)
@given(
    names=st.lists(st.sampled_from(ALLOWED + BEYOND), min_size=1, max_size=5),
    cn=st.none() | st.sampled_from(["a.internal", "b.internal", "A box"]) | st.text("ab.*-é ", min_size=1, max_size=8),
    usages=st.sampled_from([("server_auth",), ("client_auth",), ()]),
)
def test_the_names_of_a_plan_are_those_asked_for_and_nothing_else(
    names: list[str], cn: str | None, usages: tuple[str, ...]
) -> None:
    request = attempt(lambda: ask(*names, cn=cn))
    if isinstance(request, Problem):
        return
    made = attempt(lambda: policy(extended_key_usage=usages).admit(request, WHO))
    if isinstance(made, Problem):
        beyond = set(names) & set(BEYOND)
        codes = [reason.code for reason in made.reasons]
        assert codes.count("RW-NAME-PERMITTED") == len(beyond)
        assert set(codes) <= {"RW-NAME-PERMITTED", "RW-CSR-SUBJECT"}
        return
    assert {str(name) for name in made.names} == set(names) <= set(ALLOWED)
    told = common_name(made)
    assert told == (cn if cn is None or f"dns:{cn.lower()}" not in names else cn.lower())
    if told is not None and ("server_auth" in usages or "." in unicodedata.normalize("NFKC", told)):
        assert f"dns:{told}" in names or " " in told


def test_the_test_issuer_is_what_it_says() -> None:
    assert ca().certificate.subject.rfc4514_string() == "CN=Test Issuing CA"
