"""A single-tier lab: one authority, a root whose key is online. For trying and for throw-away environments.

It says so for good: in the root's own certificate and in everything that it signs (`issuer.LAB_POLICY`, put in whatever
a profile says), as a fact that nothing takes back, and wherever authorities are shown. No other authority can be made
beside it, and no ceremony's result comes in (I-36).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from cryptography import x509
from sqlalchemy import Connection

from rootward.ca import founding
from rootward.ca.certified import Certified, keep
from rootward.ca.installation import SINGLE_TIER, Installation
from rootward.ca.sign import sign_soon
from rootward.core.capture import assemble
from rootward.core.hierarchy import AuthoritySpec, lint_authority, plan_authority
from rootward.core.issuer import LAB_POLICY
from rootward.core.problems import Problem
from rootward.core.pubkey import KeyAlgorithm
from rootward.keys import NotSigned, SignatureUnknown
from rootward.store import facts

NAME = "root"


async def found(
    inst: Installation, *, store: str, organization: str, domains: Iterable[str], token_hash: bytes
) -> x509.Certificate:
    """Make the root in the key store of that name, and the installation, in one transaction; the root's certificate.

    A run that was cut off leaves a key that nothing names, and is simply done again. Problems: RW-CONFLICT where there
    is an installation, RW-KEY-UNAVAILABLE where the key did not sign; it is gone then.
    """
    if await inst.db.read(lambda conn: facts.get(conn, founding.FOUNDED)) is not None:
        raise Problem("RW-CONFLICT", "This installation is founded already.")
    spec = AuthoritySpec(
        name=NAME,
        kind="root",
        common_name=f"{organization[:30]} Single-tier Lab CA",
        organization=organization[:64],
        key_algorithm=KeyAlgorithm.P384,
        lifetime="5y",
        path_length=None,
        policies=(LAB_POLICY,),
    )
    key = await asyncio.to_thread(inst.key_store(store).generate, NAME, spec.key_algorithm)
    plan = plan_authority(spec, key.public, None)
    draft = plan.draft(inst.new_serial(), inst.clock())
    findings = lint_authority(draft, plan)
    if findings:
        raise Problem.of(findings)
    try:
        signature = await sign_soon(key, plan.signer, draft)
    except (NotSigned, SignatureUnknown) as error:
        # Signed or not: nobody was given that certificate, so the key can go.
        await asyncio.to_thread(inst.key_store(store).delete, NAME, key.public.id)
        detail = f"The key was made, did not sign its certificate ({error}), and was given up. Do it again."
        raise Problem("RW-KEY-UNAVAILABLE", detail, retry_after=5) from error
    certificate = x509.load_der_x509_certificate(assemble(draft.tbs, draft.algorithm, signature))
    root = Certified(NAME, "root", None, certificate, store)
    wanted = founding.first_profiles(NAME, domains)

    def write(conn: Connection) -> None:
        keep(conn, inst, root, founding.FOUNDER)
        facts.put_once(SINGLE_TIER, at=inst.clock()).run(conn)
        founding.begin(conn, inst, wanted, title="A single-tier lab", lab=True, token_hash=token_hash)

    await inst.db.write(write)
    await inst.load_authorities()
    return certificate
