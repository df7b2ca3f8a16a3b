"""What a draft's AlgorithmIdentifier names is how it is signed and verified; RSA has two ways, all others have one."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import padding

from rootward.core.capture import assemble, capture_tbs
from rootward.core.crl import check_crl, draft_crl, finish_crl, lint_crl
from rootward.core.csr import parse_csr
from rootward.core.lint import lint_certificate
from rootward.core.plan import Ask, make_serial
from rootward.core.pubkey import BRAINPOOL, USUAL_KEYS, KeyAlgorithm, public_key_of
from rootward.core.signature import RSA, SIGNATURES, by_identifier, signature_of, verifies
from rootward.keys import NotSigned, sign_tbs
from tests.support.plans import changed, refusal
from tests.support.tiers import AT, EVERYTHING, WHO, certify, csr_of, issuing, key_of, leaf, policy_of, root
from tests.vectors import csr_parts as parts

TBS = b"0\x03\x02\x01\x07"
PSS = signature_of(KeyAlgorithm.RSA_2048, "pss")
PKCS1 = SIGNATURES[KeyAlgorithm.RSA_2048]
# RFC 4055 3.1 and 6: SHA-256 in both places, its 32 octets as salt, the NULLs written, the trailer left to its default.
WRITTEN = (
    "304106092a864886f70d01010a3034a00f300d06096086480165030402010500"
    "a11c301a06092a864886f70d010108300d06096086480165030402010500a203020120"
)


def pss_root() -> Any:
    return root("pss", KeyAlgorithm.RSA_2048, rsa_signature="pss")


def test_pss_is_written_out() -> None:
    assert PSS.identifier.hex() == WRITTEN
    assert signature_of(KeyAlgorithm.P256, "pss") == SIGNATURES[KeyAlgorithm.P256]


def test_the_builder_writes_the_same() -> None:
    """`cryptography`'s encoding of the identifier, inside the TBS, is ours."""
    top = pss_root()
    assert WRITTEN in top.certificate.tbs_certificate_bytes.hex()
    assert isinstance(top.certificate.signature_algorithm_parameters, padding.PSS)
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    _, identifier = capture_tbs(builder, KeyAlgorithm.RSA_2048, public_key=top.key.public.key, rsa_signature="pss")
    assert identifier == PSS.identifier


def test_the_identifier_says_how() -> None:
    key = key_of(KeyAlgorithm.RSA_2048, "rsa")
    for how, other in ((PSS, PKCS1), (PKCS1, PSS)):
        signature = sign_tbs(key, TBS, how.identifier)
        assert verifies(key.public, signature, TBS, algorithm=how.identifier)
        assert not verifies(key.public, signature, TBS, algorithm=other.identifier)
        assert not verifies(key.public, signature, TBS + b"!", algorithm=how.identifier)
    assert verifies(key.public, sign_tbs(key, TBS), TBS)


@pytest.mark.invariant("I-38")
@pytest.mark.parametrize("algorithm", [one for one in KeyAlgorithm if one not in RSA])
def test_a_key_signs_in_its_own_way_alone(algorithm: KeyAlgorithm) -> None:
    key = key_of(algorithm, "own-way")
    assert verifies(key.public, sign_tbs(key, TBS), TBS, algorithm=SIGNATURES[algorithm].identifier)
    for identifier in {one.identifier for one in SIGNATURES.values()} | {PSS.identifier, b"", b"0\x00"}:
        if identifier != SIGNATURES[algorithm].identifier:
            assert by_identifier(algorithm, identifier) is None
            assert not verifies(key.public, sign_tbs(key, TBS), TBS, algorithm=identifier)
            with pytest.raises(NotSigned):
                sign_tbs(key, TBS, identifier)


def test_a_profile_says_it_for_leaves_and_the_authority_for_the_rest() -> None:
    top = pss_root()
    below = issuing(top, "pss-issuing", KeyAlgorithm.RSA_2048)
    assert isinstance(below.certificate.signature_algorithm_parameters, padding.PSS)
    assert isinstance(leaf(below, "dns:a.internal").signature_algorithm_parameters, padding.PKCS1v15)
    made = leaf(below, "dns:a.internal", rsa_signature="pss")
    assert isinstance(made.signature_algorithm_parameters, padding.PSS)
    for tier, kind in ((top, padding.PSS), (below, padding.PKCS1v15)):
        end = tier.certificate.not_valid_after_utc
        draft = draft_crl(tier.issuer, number=1, this_update=AT, next_update=end, entries=())
        assert lint_crl(draft, tier.issuer) == []
        crl = finish_crl(draft, sign_tbs(tier.key, draft.tbs, draft.algorithm))
        check_crl(crl, tier.issuer, now=AT, last_number=None)
        assert isinstance(x509.load_der_x509_crl(crl).signature_algorithm_parameters, kind)
        assert lint_crl(changed_crl(draft, PKCS1 if kind is padding.PSS else PSS), tier.issuer)


def changed_crl(draft: Any, how: Any) -> Any:
    return type(draft)._make(
        **{name: how.identifier if name == "algorithm" else getattr(draft, name) for name in type(draft)._fields}
    )


@pytest.mark.invariant("I-02")
def test_a_draft_by_the_other_scheme_is_found() -> None:
    below = issuing(pss_root(), "pss-issuing", KeyAlgorithm.RSA_2048)
    asked = Ask("server", parse_csr(csr_of("dns:a.internal")))
    plans = {how: policy_of(below, rsa_signature=how).admit(asked, WHO) for how in ("pkcs1", "pss")}
    serial = make_serial(b"x" * 20)
    drafts = {how: plan.draft(serial, AT) for how, plan in plans.items()}
    assert lint_certificate(drafts["pss"], plans["pss"]) == []
    assert lint_certificate(drafts["pss"], plans["pkcs1"])
    assert lint_certificate(drafts["pkcs1"], plans["pss"])
    assert lint_certificate(changed(drafts["pss"], algorithm=PKCS1.identifier), plans["pss"])
    assert plans["pss"].hash != plans["pkcs1"].hash
    assert plans["pss"].facts["rsa_signature"] == "pss"
    assert "rsa_signature" not in plans["pkcs1"].facts  # a yes that was given before this field existed still binds
    data = assemble(drafts["pss"].tbs, drafts["pss"].algorithm, sign_tbs(below.key, drafts["pss"].tbs, PSS.identifier))
    x509.load_der_x509_certificate(data).verify_directly_issued_by(below.certificate)


def test_brainpool_is_in_no_default() -> None:
    assert set(USUAL_KEYS) | BRAINPOOL == set(KeyAlgorithm)
    assert policy_of(issuing(root())).profile.keys == USUAL_KEYS
    for algorithm in sorted(BRAINPOOL):
        key = parts.private_key(algorithm)
        assert refusal(lambda key=key: leaf(issuing(root()), "dns:a.internal", key=key)) == [("RW-KEY-TYPE", "csr")]
        made = leaf(issuing(root()), "dns:a.internal", key=key, keys=(algorithm,), names=EVERYTHING)
        assert public_key_of(made.public_key()).algorithm is algorithm


def test_brainpool_authorities() -> None:
    for algorithm in sorted(BRAINPOOL):
        top = root(algorithm, algorithm)
        made = leaf(issuing(top, f"{algorithm}-i", algorithm), "dns:a.internal")
        assert made.signature_hash_algorithm is not None
        assert certify(top.spec).certificate.subject == top.certificate.subject
