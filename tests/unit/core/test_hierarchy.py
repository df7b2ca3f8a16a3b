"""Certificates of authorities: what a ceremony may decide, what is refused, and lints that find every mutant."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import AuthorityInformationAccessOID
from hypothesis import given, settings
from hypothesis import strategies as st

from rootward.core import der
from rootward.core.capture import assemble
from rootward.core.hierarchy import AuthorityPlan, AuthoritySpec, Constraints, lint_authority, plan_authority
from rootward.core.issuer import LAB_POLICY, MAX_CHAIN, Issuer
from rootward.core.plan import Draft, Serial, make_serial
from rootward.core.problems import Problem
from rootward.core.pubkey import KeyAlgorithm, PublicKey, public_key_of
from rootward.core.signature import SIGNATURES
from tests.support.authority import Authority
from tests.support.plans import DAY, NOW, PKI, SECOND, SERIAL, attempt, ca, changed, issuer_of, read, refusal
from tests.vectors import csr_parts as parts
from tests.vectors.csr_parts import spki_of

pytestmark = pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")

ROOT = AuthoritySpec(
    "root",
    "root",
    "Test Root CA",
    organization="Zoë & Sons",
    country="DE",
    key_algorithm=KeyAlgorithm.P384,
    lifetime="10y",
    path_length=1,
)
ISSUING = AuthoritySpec("issuing", "issuing", "Test Sub CA", lifetime="3y")
YEARS = timedelta(days=365)


def key(key_type: str = "p256") -> PublicKey:
    return public_key_of(parts.private_key(key_type).public_key())


def parent(*, online: bool = False, **options: Any) -> Issuer:
    """A root to be certified by, for ten years from a day ago on."""
    made = Authority("Test Root CA", **({"start": NOW - DAY, "end": NOW + 10 * YEARS} | options))
    return Issuer("root", made.certificate, (made.certificate,), PKI, online=online)


PARENT = parent(path_length=1)


def root_plan(**changes: Any) -> AuthorityPlan:
    return plan_authority(msgspec.structs.replace(ROOT, **changes), key("p384"), None)


def issuing_plan(above: Issuer = PARENT, **changes: Any) -> AuthorityPlan:
    return plan_authority(msgspec.structs.replace(ISSUING, **changes), key(), above)


def found(drafted: Draft, plan: AuthorityPlan) -> list[str]:
    """The findings' sentences."""
    reasons = lint_authority(drafted, plan)
    assert {reason.code for reason in reasons} <= {"RW-LINT"}
    return [reason.detail for reason in reasons]


# ── What is made ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_root_is_its_own_issuer() -> None:
    plan = root_plan()
    drafted = plan.draft(SERIAL, NOW)
    assert found(drafted, plan) == []
    seen = read(drafted)
    assert seen.subject == seen.issuer
    assert seen.subject.rfc4514_string() == "CN=Test Root CA,O=Zoë & Sons,C=DE"
    assert (seen.not_valid_before_utc, seen.not_valid_after_utc) == (NOW, NOW + 10 * YEARS - SECOND)
    kinds = {type(one.value): one.critical for one in seen.extensions}
    assert kinds == {
        x509.BasicConstraints: True,
        x509.KeyUsage: True,
        x509.SubjectKeyIdentifier: False,
        x509.AuthorityKeyIdentifier: False,
    }
    assert seen.extensions.get_extension_for_class(x509.BasicConstraints).value == x509.BasicConstraints(True, 1)
    usage = seen.extensions.get_extension_for_class(x509.KeyUsage).value
    assert (usage.key_cert_sign, usage.crl_sign, usage.digital_signature) == (True, True, False)
    data = assemble(drafted.tbs, drafted.algorithm, parts.private_key("p384").sign(drafted.tbs, _sha384()))
    x509.load_der_x509_certificate(data).verify_directly_issued_by(x509.load_der_x509_certificate(data))


def _sha384() -> Any:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.ECDSA(hashes.SHA384())


@pytest.mark.parametrize("online", [False, True])
def test_an_issuing_authority_points_to_its_parent(online: bool) -> None:
    above = parent(path_length=1, online=online)
    plan = issuing_plan(above, policies=("1.2.3.4",), permitted=Constraints(dns=("internal",), ip=("10.0.0.0/8",)))
    drafted = plan.draft(SERIAL, NOW)
    assert found(drafted, plan) == []
    seen = read(drafted).extensions
    assert seen.get_extension_for_class(x509.BasicConstraints).value == x509.BasicConstraints(True, 0)
    limits = seen.get_extension_for_class(x509.NameConstraints)
    assert limits.critical
    assert limits.value.permitted_subtrees is not None
    assert [str(one.value) for one in limits.value.permitted_subtrees] == ["internal", "10.0.0.0/8"]
    access = seen.get_extension_for_class(x509.AuthorityInformationAccess).value
    wanted = [AuthorityInformationAccessOID.OCSP] * online + [AuthorityInformationAccessOID.CA_ISSUERS]
    assert [one.access_method for one in access] == wanted
    akid = seen.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    assert akid.key_identifier == above.subject_key_id


# ── What is refused ───────────────────────────────────────────────────────────────────────────────────────────────

_REFUSED: list[tuple[dict[str, Any], list[tuple[str, str]]]] = [
    ({"name": "ocsp"}, [("RW-PROFILE-INVALID", "name")]),
    ({"name": "Sub"}, [("RW-PROFILE-INVALID", "name")]),
    ({"kind": "root"}, [("RW-CEREMONY", "path_length"), ("RW-CEREMONY", "kind")]),
    ({"kind": "policy"}, [("RW-CEREMONY", "path_length")]),
    ({"common_name": ""}, [("RW-CSR-SUBJECT", "common_name")]),
    ({"common_name": "x" * 65}, [("RW-CSR-SUBJECT", "common_name")]),
    ({"common_name": "a\u202eb"}, [("RW-CSR-SUBJECT", "common_name")]),
    ({"common_name": " a"}, [("RW-CSR-SUBJECT", "common_name")]),
    ({"common_name": "Test Root CA"}, [("RW-CSR-SUBJECT", "common_name")]),
    ({"common_name": "TEST  root ca"}, [("RW-CSR-SUBJECT", "common_name")]),
    ({"organization": "a\n"}, [("RW-CSR-SUBJECT", "organization")]),
    ({"country": "DEU"}, [("RW-CSR-SUBJECT", "country")]),
    ({"country": "de"}, [("RW-CSR-SUBJECT", "country")]),
    ({"key_algorithm": KeyAlgorithm.P384}, [("RW-KEY-TYPE", "key_algorithm")]),
    ({"lifetime": "0d"}, [("RW-VALIDITY", "lifetime")]),
    ({"lifetime": "forever"}, [("RW-VALIDITY", "lifetime")]),
    ({"path_length": 1}, [("RW-CEREMONY", "path_length")]),
    ({"path_length": None}, [("RW-CEREMONY", "path_length")]),
    ({"path_length": -1}, [("RW-CEREMONY", "path_length")]),
    ({"policies": ("x",)}, [("RW-CEREMONY", "policies")]),
    ({"policies": ("1.2.3", "1.2.3")}, [("RW-CEREMONY", "policies")]),
    ({"permitted": Constraints(ip=("10.0.0.1/8",))}, [("RW-CEREMONY", "permitted.ip")]),
    ({"permitted": Constraints(dns=("*.internal",))}, [("RW-CEREMONY", "permitted.dns")]),
    ({"excluded": Constraints(dns=("a b", "é"))}, [("RW-CEREMONY", "excluded.dns")] * 2),
    ({"excluded": Constraints(email=("Me <a@b.internal>",))}, [("RW-CEREMONY", "excluded.email")]),
    ({"excluded": Constraints(uri=("https://a.internal",))}, [("RW-CEREMONY", "excluded.uri")]),
]


@pytest.mark.parametrize(("changes", "reasons"), _REFUSED, ids=[str(row[0])[:60] for row in _REFUSED])
def test_a_specification_that_cannot_be_is_refused(changes: dict[str, Any], reasons: list[tuple[str, str]]) -> None:
    assert refusal(lambda: issuing_plan(**changes)) == reasons


def test_everything_that_is_wrong_is_told_at_once() -> None:
    bad = Constraints(dns=("*",), ip=("x",), email=("@",), uri=("",), directory=("",))
    reasons = refusal(
        lambda: issuing_plan(
            name="",
            common_name="",
            organization="\n",
            country="x",
            key_algorithm=KeyAlgorithm.P521,
            lifetime="x",
            path_length=-2,
            permitted=bad,
            excluded=bad,
            policies=("x",),
            extended_key_usage=("server_auth", "1.3.6.1.5.5.7.3.1", "2.5.29.37.0"),
            uris=("a",),
            rsa_signature="pss",
        )
    )
    kinds = ["dns", "ip", "email", "uri", "directory"]
    trees = [f"{where}.{kind}" for where in ("permitted", "excluded") for kind in kinds]
    wanted = ["name", "common_name", "organization", "country", "path_length", "rsa_signature", "lifetime", *trees]
    lists = ["policies", "extended_key_usage", "extended_key_usage", "uris"]
    # What can only be said with the key and the parent comes last.
    assert [field for _, field in reasons] == [*wanted, *lists, "key_algorithm"]


@pytest.mark.invariant("I-46")
def test_the_parent_is_an_authority_that_allows_it() -> None:
    assert issuing_plan(parent(path_length=None), path_length=None).draft(SERIAL, NOW)
    assert issuing_plan(parent(path_length=3), path_length=2).draft(SERIAL, NOW)
    assert refusal(lambda: issuing_plan(parent(path_length=0))) == [("RW-CEREMONY", "path_length")]
    leaf = ca().leaf("a.internal", usages=[], extensions=[(x509.BasicConstraints(False, None), True)])
    assert refusal(lambda: issuing_plan(Issuer("leaf", leaf, (leaf,), PKI))) == [("RW-CEREMONY", "kind")]


@pytest.mark.invariant("I-12")
def test_the_parents_key_is_not_certified_again() -> None:
    above = Authority("Test Root CA", start=NOW - DAY, end=NOW + 10 * YEARS, path_length=1)
    mine = public_key_of(above.key.public_key())
    assert refusal(lambda: plan_authority(ISSUING, mine, issuer_of(above))) == [("RW-KEY-BLOCKED", "key")]


@pytest.mark.invariant("I-12", "I-23")
def test_no_ca_has_the_name_or_the_key_of_one_above_its_parent() -> None:
    root = Authority("Test Root CA", start=NOW - DAY, end=NOW + 10 * YEARS, path_length=3)
    middle = Authority("Middle CA", root, start=NOW - DAY, end=NOW + 9 * YEARS, path_length=2)
    roots = public_key_of(root.key.public_key())
    found = refusal(lambda: plan_authority(ISSUING, roots, issuer_of(middle)))
    assert found == [("RW-KEY-BLOCKED", "key")]
    named = msgspec.structs.replace(ISSUING, common_name="Test Root CA")
    assert refusal(lambda: plan_authority(named, key(), issuer_of(middle))) == [("RW-CSR-SUBJECT", "common_name")]


@pytest.mark.invariant("I-46")
def test_a_chain_ends_where_installations_and_clients_stop() -> None:
    """Beyond that nobody would look at all of it."""
    above = Authority("Test Root CA", start=NOW - DAY, end=NOW + 10 * YEARS, path_length=20)
    for depth in range(1, MAX_CHAIN):
        last = issuer_of(above)
        assert len(last.chain) == depth
        assert plan_authority(ISSUING, key(), last).parent is last
        above = Authority(f"CA {depth}", above, start=NOW - DAY, end=NOW + 9 * YEARS, path_length=20)
    assert refusal(lambda: plan_authority(ISSUING, key(), issuer_of(above))) == [("RW-CEREMONY", "kind")]


@pytest.mark.invariant("I-32")
def test_no_ca_answers_ocsp_for_the_one_that_certified_it() -> None:
    """An online authority answers OCSP for what it signs, and whom it certifies for that usage may do so too."""
    usages = ("server_auth", "ocsp_signing")
    found = refusal(lambda: issuing_plan(parent(path_length=1, online=True), extended_key_usage=usages))
    assert found == [("RW-CEREMONY", "extended_key_usage")]
    assert issuing_plan(parent(path_length=1), extended_key_usage=usages).draft(SERIAL, NOW)


@pytest.mark.invariant("I-36")
def test_a_single_tier_labs_root_certifies_no_ca() -> None:
    """Its own certificate says so, whoever asks."""
    lab = x509.CertificatePolicies([x509.PolicyInformation(x509.ObjectIdentifier(LAB_POLICY), None)])
    found = refusal(lambda: issuing_plan(parent(path_length=1, extensions=[(lab, False)]), policies=(LAB_POLICY,)))
    assert found == [("RW-CEREMONY", "kind")]


def test_a_root_stands_alone_and_can_sign_authorities() -> None:
    assert refusal(lambda: plan_authority(ROOT, key("p384"), PARENT))[0] == ("RW-CEREMONY", "kind")
    assert refusal(lambda: root_plan(path_length=0)) == [("RW-CEREMONY", "path_length")]
    assert refusal(lambda: plan_authority(ISSUING, key(), None))[0] == ("RW-CEREMONY", "kind")


@pytest.mark.invariant("I-08")
def test_an_authority_lives_within_its_parent() -> None:
    plan = issuing_plan(lifetime="10y")
    begin = PARENT.not_after - 10 * YEARS + SECOND
    assert plan.draft(SERIAL, begin).not_after == PARENT.not_after
    for at in (begin + SECOND, PARENT.not_after, PARENT.not_after + DAY):
        assert refusal(lambda at=at: plan.draft(SERIAL, at)) == [("RW-VALIDITY", "lifetime")]
    short = issuing_plan(lifetime="1d")
    assert short.draft(SERIAL, PARENT.not_before).not_before == PARENT.not_before
    assert refusal(lambda: short.draft(SERIAL, PARENT.not_before - SECOND)) == [("RW-VALIDITY", "lifetime")]


@pytest.mark.parametrize("lifetime", ["8000y", "999999y"])
def test_the_calendar_ends(lifetime: str) -> None:
    plan = root_plan(lifetime=lifetime)
    assert refusal(lambda: plan.draft(SERIAL, NOW)) == [("RW-VALIDITY", "lifetime")]


def test_plans_are_never_made_by_hand() -> None:
    with pytest.raises(TypeError):
        AuthorityPlan(spec=ROOT, key=key(), parent=None, lifetime=DAY, signer=key())


# ── Mutants ───────────────────────────────────────────────────────────────────────────────────────────────────────

PLANS: dict[str, AuthorityPlan] = {
    "root": root_plan(),
    "issuing": issuing_plan(policies=("1.2.3.4",), excluded=Constraints(dns=("evil.internal",))),
}
plans = pytest.mark.parametrize("title", list(PLANS))


def _with(tbs: bytes, at: int, new: bytes) -> bytes:
    pieces = [part.whole for part in der.children(tbs)]
    pieces[at : at + 1] = [new]
    return der.sequence(*pieces)


def _mutants(drafted: Draft) -> dict[str, bytes]:
    tbs = drafted.tbs
    cells = der.children(tbs)
    given = [part.whole for part in der.children(cells[7].content)]

    def extensions(*wanted: bytes) -> bytes:
        return _with(tbs, 7, der.explicit(3, der.sequence(*wanted)))

    begin, end = drafted.not_before, drafted.not_after
    made = {
        "version": _with(tbs, 0, b""),
        "serial": _with(tbs, 1, der.tlv(der.INTEGER, make_serial(b"z" * 20))),
        "algorithm": _with(tbs, 2, SIGNATURES[KeyAlgorithm.P521].identifier),
        "issuer": _with(tbs, 3, der.sequence(parts.common_name("Test Root CB"))),
        "issuer in another string type": _with(tbs, 3, der.sequence(parts.common_name("Test Root CA", 0x13))),
        "a year later": _with(tbs, 4, der.sequence(der.time(begin + YEARS), der.time(end + YEARS))),
        "a second later": _with(tbs, 4, der.sequence(der.time(begin + SECOND), der.time(end + SECOND))),
        "longer": _with(tbs, 4, der.sequence(der.time(begin), der.time(end + DAY))),
        "subject": _with(tbs, 5, der.sequence(parts.common_name("Evil CA"))),
        "key": _with(tbs, 6, spki_of(parts.private_key("p521"))),
        "unique identifier": _with(tbs, 6, cells[6].whole + der.tlv(0x81, b"\x00\x55")),
        "no extensions": _with(tbs, 7, b""),
        "reversed": extensions(*given[::-1]),
        "one more": extensions(*given, parts.extension("1.2.3.4.5", der.null())),
        "one more, critical": extensions(*given, parts.extension("1.2.3.4.5", der.null(), critical=True)),
        "a usage more": extensions(*given, parts.eku("1.3.6.1.5.5.7.3.1")),
    }
    for at, one in enumerate(given):
        rest = given[:at] + given[at + 1 :]
        oid = der.read_oid(der.children(one)[0].content)
        made[f"{oid} removed"] = extensions(*rest)
        made[f"{oid} twice"] = extensions(*given, one)
        made[f"{oid} last bit"] = extensions(*given[:at], one[:-1] + bytes([one[-1] ^ 1]), *given[at + 1 :])
        flagged = der.children(one)
        turned = [flagged[0].whole, *([] if len(flagged) == 3 else [der.boolean(True)]), flagged[-1].whole]
        made[f"{oid} criticality"] = extensions(*given[:at], der.sequence(*turned), *given[at + 1 :])
    return {what: data for what, data in made.items() if data != tbs}


@pytest.mark.invariant("I-02", "I-09")
@plans
def test_every_mutant_is_found(title: str) -> None:
    plan = PLANS[title]
    drafted = plan.draft(SERIAL, NOW)
    assert found(drafted, plan) == []
    mutants = _mutants(drafted)
    assert len(mutants) > 30
    assert [what for what, tbs in mutants.items() if not found(changed(drafted, tbs=tbs), plan)] == []


@pytest.mark.invariant("I-02")
@plans
@pytest.mark.parametrize(
    "fields",
    [
        {"serial": Serial(b"")},
        {"serial": Serial(b"\x40")},
        {"serial": make_serial(b"z" * 20)},
        {"issuer_key_id": "0" * 64},
        {"algorithm": SIGNATURES[KeyAlgorithm.RSA_2048].identifier},
        {"not_before": NOW + SECOND},
        {"not_before": NOW.replace(tzinfo=None)},
        {"not_before": NOW + DAY, "not_after": NOW + DAY + 10 * YEARS - SECOND},
        {"tbs": b""},
        {"tbs": b"\x30\x00"},
    ],
)
def test_a_field_that_is_not_the_bytes_is_found(title: str, fields: dict[str, Any]) -> None:
    plan = PLANS[title]
    assert found(changed(plan.draft(SERIAL, NOW), **fields), plan)


@pytest.mark.invariant("I-02", "I-09")
@plans
def test_every_flipped_bit_is_found(title: str) -> None:
    plan = PLANS[title]
    drafted = plan.draft(SERIAL, NOW)
    for at in range(0, len(drafted.tbs) * 8, 5):
        flipped = bytearray(drafted.tbs)
        flipped[at // 8] ^= 1 << at % 8
        assert found(changed(drafted, tbs=bytes(flipped)), plan), at


def test_a_draft_for_another_key_or_parent_is_found() -> None:
    plan = PLANS["issuing"]
    drafted = plan.draft(SERIAL, NOW)
    others: list[Callable[[], AuthorityPlan]] = [
        root_plan,
        issuing_plan,
        lambda: issuing_plan(parent(path_length=1)),
        lambda: plan_authority(
            msgspec.structs.replace(plan.spec, key_algorithm=KeyAlgorithm.P521), key("p521"), PARENT
        ),
    ]
    for make in others:
        assert found(drafted, make())


_TEXT = st.sampled_from(
    ["", "a", "Test Sub CA", "x" * 64, "x" * 65, "Zo\u00eb", " a", "a\nb", "DE", "DEU", "internal", "*"]
)
_CONSTRAINTS = st.builds(
    Constraints,
    *[
        st.lists(st.sampled_from(values), max_size=2).map(tuple)
        for values in (
            ["internal", ".internal", "", "*", "a b", "127.1"],
            ["10.0.0.0/8", "fc00::/7", "10.0.0.1/8", "x"],
            ["a.internal", ".a.internal", "me@a.internal", "@a", "a@"],
            ["a.internal", ".a.internal", "https://a.internal", ""],
        )
    ],
)


@pytest.mark.invariant("I-09")
@settings(max_examples=100, deadline=None)
@given(
    spec=st.builds(
        AuthoritySpec,
        name=st.sampled_from(["issuing", "sub-1"]),
        kind=st.just("issuing"),
        common_name=_TEXT,
        organization=st.sampled_from(["", "Ours", "x" * 65]),
        country=st.sampled_from(["", "DE", "\u00c4\u00d6", "D1"]),
        lifetime=st.sampled_from(["1d", "5y", "10y", "9999y", "x"]),
        path_length=st.sampled_from([0, 0, 1, -1, None]),
        permitted=_CONSTRAINTS,
        excluded=_CONSTRAINTS,
        policies=st.lists(st.sampled_from(["1.2.3", "2.5.29.32.0", "x", "9.9.9"]), max_size=2).map(tuple),
    )
)
def test_whatever_is_specified_is_refused_or_a_draft_that_passes(spec: AuthoritySpec) -> None:
    plan = attempt(lambda: plan_authority(spec, key(), PARENT))
    drafted = plan if isinstance(plan, Problem) else attempt(lambda: plan.draft(SERIAL, NOW))
    if isinstance(plan, Problem) or isinstance(drafted, Problem):
        return
    assert found(drafted, plan) == []


def test_the_parent_here_is_what_it_says() -> None:
    assert PARENT.certificate.public_bytes(Encoding.DER) == PARENT.der
