"""What the CAs above allow, of leaves and of CAs (I-46): each rule with a chain that keeps it and one that does not,
and name constraints against what `cryptography`'s verifier says.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError
from hypothesis import given, settings
from hypothesis import strategies as st

from rootward.core.above import chain_faults, room_below
from rootward.core.authority import Constraints
from rootward.core.hierarchy import AuthoritySpec
from rootward.core.problems import Problem
from tests.support.authority import Authority, key_usage
from tests.support.plans import attempt, refusal
from tests.support.tiers import Tier, certify, forged, issuing, leaf, policy_of, root

SERVER, CLIENT = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH
ANY = ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE
ONE, TWO = x509.ObjectIdentifier("1.2.3.1"), x509.ObjectIdentifier("1.2.3.2")


def chain(*extensions: list[x509.ExtensionType], **options: Any) -> list[x509.Certificate]:
    """A root, and under it a CA for each list of extensions; the lowest first."""
    at = Authority("Above Root")
    made = [at.certificate]
    for number, some in enumerate(extensions):
        at = Authority(f"Above {number}", at, extensions=[(one, False) for one in some], **options)
        made.insert(0, at.certificate)
    return made


def faults(
    certificates: list[x509.Certificate], *, usages: Any = (SERVER,), policies: Any = (), below: int = 0
) -> list[str]:
    return [fault.about for fault in chain_faults(certificates, usages=usages, policies=policies, below=below)]


def stated(*oids: x509.ObjectIdentifier) -> x509.CertificatePolicies:
    return x509.CertificatePolicies([x509.PolicyInformation(oid, None) for oid in oids])


def test_path_lengths_hold_at_every_level() -> None:
    tight = [*chain([], path_length=0)]
    assert faults(tight) == []
    assert faults(tight, below=1) == ["path_length"]
    assert faults(chain([], [], path_length=1)) == []
    assert faults(chain([], [], [], path_length=1)) == ["path_length"]  # the uppermost, with two below it
    assert faults(chain([], [], path_length=1), below=1) == ["path_length"]


def test_a_ca_of_the_same_name_is_no_further_one() -> None:
    first = Authority("Same", Authority("Above Root", path_length=1), path_length=0)
    rolled = Authority("Same", first, path_length=0)
    above = [rolled.certificate, first.certificate]
    assert faults(above) == []


def test_the_room_below_is_the_deepest_that_is_no_fault() -> None:
    same = Authority("Same", Authority("Above Root", path_length=1), path_length=1)
    for above, room in (
        (chain(), None),
        (chain([]), None),
        ([Authority("Above Root", path_length=2).certificate], 1),
        ([Authority("Above Root", path_length=0).certificate], -1),
        (chain([], path_length=3), 2),
        (chain([], [], path_length=1), -1),  # the upper one has its one below it already
        ([Authority("Same", same, path_length=9).certificate, same.certificate], 0),  # a roll-over does not count
    ):
        assert room_below(above) == room
        if room is not None:
            assert faults(above, below=1 + room) == [] or room < 0
            assert "path_length" in faults(above, below=2 + room)


@pytest.mark.parametrize(
    ("above", "usages", "about"),
    [
        ([SERVER], (SERVER,), []),
        ([CLIENT], (SERVER,), ["extended_key_usage"]),
        ([CLIENT], (SERVER, CLIENT), ["extended_key_usage"]),
        ([ANY], (SERVER,), []),
        ([CLIENT], (), ["extended_key_usage"]),  # what says nothing is for anything, where only it is looked at
        ([ANY], (), []),
        ([CLIENT], (CLIENT, ExtendedKeyUsageOID.OCSP_SIGNING), []),
    ],
)
def test_usages_hold_for_the_whole_chain(above: Any, usages: Any, about: list[str]) -> None:
    usage = x509.ExtendedKeyUsage(above)
    assert faults(chain([usage], []), usages=usages) == about
    assert faults(chain([], [usage]), usages=usages) == about


def test_a_ca_signs_certificates() -> None:
    cut = Authority("Cut", Authority("Above Root"))
    leaf = cut.leaf("a.internal", usages=[], extensions=[(x509.BasicConstraints(False, None), True)])
    assert faults([leaf, cut.certificate]) == ["authority"]
    usage = [(x509.BasicConstraints(True, None), True), (key_usage(crl_sign=True), True)]
    assert faults([cut.leaf("a.internal", usages=[], extensions=usage), cut.certificate]) == ["authority"]


def test_policies_are_those_that_a_ca_states() -> None:
    assert faults(chain([stated(ONE)]), policies=(ONE,)) == []
    assert faults(chain([stated(ONE)]), policies=(TWO,)) == ["policies"]
    assert faults(chain([stated(ONE)], [stated(TWO)]), policies=(TWO,)) == ["policies"]
    assert faults(chain([stated(x509.ObjectIdentifier("2.5.29.32.0"))], [stated(TWO)]), policies=(TWO,)) == []
    assert faults(chain([], [stated(TWO)]), policies=(TWO,)) == []
    assert faults(chain([stated(ONE)])) == []


@pytest.mark.parametrize(("skip", "needed"), [(0, True), (1, True), (2, True), (3, False)])
def test_a_policy_may_be_required_from_above(skip: int, needed: bool) -> None:
    """Two certificates follow: a CA and the leaf (RFC 5280 6.1.4 h, 6.1.5 a)."""
    limit = x509.PolicyConstraints(require_explicit_policy=skip, inhibit_policy_mapping=None)
    both = chain([limit, stated(ONE)], [stated(ONE)])
    assert faults(both, policies=(ONE,)) == []
    assert faults(both) == ["policies"] * needed
    assert faults(chain([limit, stated(ONE)], []), policies=(ONE,)) == ["policies"] * needed


def test_mapped_policies_are_not_judged() -> None:
    mapping = x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.33"), b"\x30\x00")
    assert faults(chain([mapping, stated(ONE)]), policies=(ONE,)) == ["policies"]
    assert faults(chain([mapping, stated(ONE)])) == []


# ── CAs under CAs ─────────────────────────────────────────────────────────────────────────────────────────────────


def limited() -> Tier:
    return certify(
        AuthoritySpec(
            "unit",
            "policy",
            "Unit CA",
            organization="Tiers",
            path_length=1,
            extended_key_usage=("client_auth", "server_auth"),
            policies=("1.2.3.1",),
            permitted=Constraints(dns=("internal",), ip=("10.0.0.0/8",), uri=(".internal",), directory=("O=Tiers",)),
            excluded=Constraints(dns=("evil.internal",)),
        ),
        root(),
    )


@pytest.mark.invariant("I-46")
@pytest.mark.parametrize(
    ("changes", "reasons"),
    [
        ({}, []),
        ({"extended_key_usage": ()}, [("RW-CEREMONY", "extended_key_usage")]),
        ({"extended_key_usage": ("client_auth", "code_signing")}, [("RW-CEREMONY", "extended_key_usage")]),
        ({"policies": ("1.2.3.2",)}, [("RW-CEREMONY", "policies")]),
        ({"policies": ()}, []),
        ({"path_length": None}, [("RW-CEREMONY", "path_length")]),
        ({"path_length": 1}, [("RW-CEREMONY", "path_length")] * 2),
        ({"permitted": Constraints(dns=("a.internal",))}, []),
        ({"permitted": Constraints(dns=("test",))}, [("RW-NAME-CONSTRAINED", "permitted")]),
        ({"permitted": Constraints(dns=("x.evil.internal",))}, [("RW-NAME-CONSTRAINED", "permitted")]),
        ({"permitted": Constraints(ip=("10.0.0.0/7",))}, [("RW-NAME-CONSTRAINED", "permitted")]),
        ({"permitted": Constraints(ip=("0.0.0.0/0",))}, [("RW-NAME-CONSTRAINED", "permitted")]),
        ({"permitted": Constraints(email=("anything.test",))}, []),
        ({"permitted": Constraints(directory=("O=Others",))}, [("RW-NAME-CONSTRAINED", "permitted")]),
        ({"organization": "Others"}, [("RW-NAME-CONSTRAINED", "common_name")]),
        ({"uris": ("spiffe://mesh.internal",)}, []),
        ({"uris": ("spiffe://mesh.test",)}, [("RW-NAME-CONSTRAINED", "common_name")]),
    ],
)
def test_a_ca_within_what_is_above(changes: dict[str, Any], reasons: Any) -> None:
    wanted: dict[str, Any] = {"extended_key_usage": ("client_auth",), **changes}
    if not reasons:
        assert len(issuing(limited(), **wanted).issuer.chain) == 3
        return
    assert refusal(lambda: issuing(limited(), **wanted)) == reasons


@pytest.mark.invariant("I-46")
def test_a_profile_that_no_chain_carries_is_refused() -> None:
    unit = issuing(limited(), extended_key_usage=("client_auth",))
    assert attempt(lambda: policy_of(unit, extended_key_usage=("client_auth",), policies=("1.2.3.1",)))
    assert refusal(lambda: policy_of(unit)) == [("RW-PROFILE-INVALID", "extended_key_usage")]
    wrong = {"extended_key_usage": ("client_auth",), "policies": ("1.2.3.9",)}
    assert refusal(lambda: policy_of(unit, **wrong)) == [("RW-PROFILE-INVALID", "policies")]
    only_rsa = {"extended_key_usage": ("client_auth",), "rsa_signature": "pss"}
    assert refusal(lambda: policy_of(unit, **only_rsa)) == [("RW-PROFILE-INVALID", "rsa_signature")]


# ── Names against another's verdict ───────────────────────────────────────────────────────────────────────────────

LABELS = st.sampled_from(["a", "b", "internal", "test"])
DOMAINS = st.lists(LABELS, min_size=1, max_size=3).map(".".join)
HOSTS = st.lists(LABELS, min_size=1, max_size=3).map(lambda parts: ".".join((*parts, "internal")))
LISTS = st.lists(DOMAINS, max_size=2, unique=True).map(tuple)


@pytest.mark.invariant("I-46")
@settings(max_examples=80, deadline=None)
@given(permitted=LISTS, excluded=LISTS, above=LISTS, host=HOSTS)
def test_a_name_is_refused_where_a_verifier_refuses_it(
    permitted: tuple[str, ...], excluded: tuple[str, ...], above: tuple[str, ...], host: str
) -> None:
    """With constraints on two CAs: inside of both it is signed and verifies; outside it is refused before."""
    upper = AuthoritySpec("upper", "policy", "Upper", path_length=1, excluded=Constraints(dns=above), lifetime="6y")
    lower = AuthoritySpec(
        "lower", "issuing", "Lower", permitted=Constraints(dns=permitted), excluded=Constraints(dns=excluded)
    )
    tier = attempt(lambda: certify(lower, certify(upper, root())))
    if isinstance(tier, Problem):  # it permits only what is excluded above
        assert {reason.code for reason in tier.reasons} == {"RW-NAME-CONSTRAINED"}
        return
    made = attempt(lambda: leaf(tier, f"dns:{host}"))
    refused = isinstance(made, Problem)
    seen = forged(tier, f"dns:{host}") if refused else made
    builder = PolicyBuilder().store(Store([tier.root])).time(datetime.now(UTC))
    try:
        builder.build_server_verifier(x509.DNSName(host)).verify(seen, list(tier.issuer.chain[:-1]))
        accepted = True
    except VerificationError:
        accepted = False
    assert accepted is not refused
