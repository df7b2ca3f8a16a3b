"""Online authorities of other kinds than the lab's, on each kind of store: what their chain does not allow is refused
before anything is signed, and what they sign is what their algorithm says.
"""

from __future__ import annotations

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import padding
from sqlalchemy import update

from rootward.ca import publish
from rootward.ca.issue import issue
from rootward.core.authority import AuthoritySpec, Constraints
from rootward.core.profile import DnsRules, NameRules
from rootward.core.pubkey import KeyAlgorithm
from rootward.store.schema import authorities as table
from tests.support.tiers import online
from tests.support.world import World, ask, new_key, refused

NAMES = NameRules(dns=DnsRules(allow=(".internal", ".test")))


@pytest.mark.invariant("I-46")
async def test_what_the_chain_does_not_allow_is_not_signed(lab: World) -> None:
    """Usages of a CA, and names, at the door of an issuance; nothing is written of it."""
    await online(
        lab.inst,
        lab.inst.keys,
        lab.admin,
        extended_key_usage=("client_auth",),
        permitted=Constraints(dns=("internal",)),
    )
    before = len(await lab.rows())
    await lab.profile("clients", "client", authority="tier", names=NAMES)
    assert await refused(issue(lab.inst, ask("a.test", profile="clients"), lab.admin)) == "RW-NAME-CONSTRAINED"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rootward.ca.attempt.sign_soon", None)  # whoever gets that far fails
        code = await refused(_servers(lab))
    assert code == "RW-PROFILE-INVALID"
    assert len(await lab.rows()) == before
    assert (await lab.issue("a.internal", profile="clients")).status(lab.clock()) == "active"


async def _servers(lab: World) -> None:
    """Refused when the profile is made, or at the latest when it is used."""
    await lab.profile("servers", "server", authority="tier", names=NAMES)
    await issue(lab.inst, ask("a.internal", profile="servers"), lab.admin)


@pytest.mark.parametrize(
    "algorithm", [KeyAlgorithm.ML_DSA_65, KeyAlgorithm.ED25519, KeyAlgorithm.BRAINPOOL_P384R1], ids=str
)
async def test_authorities_of_every_algorithm_issue_and_publish(lab: World, algorithm: KeyAlgorithm) -> None:
    made = await online(lab.inst, lab.inst.keys, lab.admin, key_algorithm=algorithm)
    await lab.profile("other", authority="tier", names=NAMES)
    row = await lab.issue("a.internal", profile="other", key=new_key())
    assert row.der is not None
    x509.load_der_x509_certificate(row.der).verify_directly_issued_by(made.certificate)
    crl = await publish.publish(lab.inst, lab.inst.authority("tier"))
    assert x509.load_der_x509_crl(crl.der).is_signature_valid(made.certificate.public_key())  # type: ignore[arg-type]  # any of ours


async def test_an_authority_signs_by_the_scheme_of_its_specification(lab: World) -> None:
    """Its certificate does not say so: the row of its specification does, when it is loaded."""
    spec = AuthoritySpec("tier", "issuing", "The Tier CA", key_algorithm=KeyAlgorithm.RSA_2048, rsa_signature="pss")
    await online(lab.inst, lab.inst.keys, lab.admin, key_algorithm=KeyAlgorithm.RSA_2048, rsa_signature="pss")
    body = msgspec.json.encode(spec).decode()
    await lab.inst.db.write(lambda conn: conn.execute(update(table).where(table.c.name == "tier").values(spec=body)))
    await lab.inst.load_authorities()
    authority = lab.inst.authority("tier")
    assert authority.issuer.rsa_signature == "pss"
    crl = x509.load_der_x509_crl((await publish.publish(lab.inst, authority)).der)
    assert isinstance(crl.signature_algorithm_parameters, padding.PSS)
    for scheme, kind in (("pss", padding.PSS), ("pkcs1", padding.PKCS1v15)):
        await lab.profile(scheme, authority="tier", names=NAMES, rsa_signature=scheme)
        der = (await lab.issue("a.internal", profile=scheme, key=new_key())).der
        assert der is not None
        assert isinstance(x509.load_der_x509_certificate(der).signature_algorithm_parameters, kind)
