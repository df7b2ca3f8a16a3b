"""The first transaction of an installation: what a ceremony made, the first profiles, and the first person, all or
nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

import msgspec
from cryptography import x509
from sqlalchemy import Connection

from rootward.ca import publish
from rootward.ca.access import SYSTEM, system_caller
from rootward.ca.ceremony import Outcome
from rootward.ca.certified import Certified, keep
from rootward.ca.installation import Installation
from rootward.core.problems import Problem
from rootward.core.profile import Acme, DnsRules, Lifetime, NameRules, Profile, Revocation, check_profile, profile_json
from rootward.core.pubkey import certificate_key
from rootward.core.roles import Role
from rootward.core.script import Certify, CertifyRoot, Script
from rootward.core.signed import signature_fault
from rootward.store import events, facts, people, profiles
from rootward.store.ids import new_id

ADMIN = "admin"
FOUNDED = "installation.founded"  # the fact, and its event
FOUNDER = system_caller("founding")
ADMIN_TOKEN_LIFETIME = timedelta(days=90)
SUFFIXES = ("localhost", "internal", "test", "home.arpa", "lan")
NETWORKS = ("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "::1/128", "fc00::/7")


def first_profiles(authority: str, domains: Iterable[str] = ()) -> tuple[Profile, ...]:
    """The five profiles of a new installation. `domains` are further suffixes; each also stands for itself."""
    given = tuple(domain.strip(".").lower() for domain in domains)
    allow = ("localhost", *(f".{suffix}" for suffix in SUFFIXES), *given, *(f".{domain}" for domain in given))
    names = NameRules(dns=DnsRules(allow=allow, wildcards=True), ip=NETWORKS)
    usage = ("digital_signature", "key_encipherment")
    acme = Acme("open")  # who proves a name gets a certificate for it
    made = (
        Profile(
            "server", authority, "TLS servers", names, key_usage=usage, extended_key_usage=("server_auth",), acme=acme
        ),
        Profile("client", authority, "TLS clients", names, extended_key_usage=("client_auth",), acme=acme),
        Profile(
            "peer",
            authority,
            "Services that are server and client",
            names,
            key_usage=usage,
            extended_key_usage=("server_auth", "client_auth"),
            acme=acme,
        ),
        Profile(
            "device",
            authority,
            "Devices, named by their common name or by names",
            msgspec.structs.replace(names, minimum=0),
            extended_key_usage=("client_auth",),
            lifetime=Lifetime(default="365d", maximum="365d"),
        ),
        Profile(
            "short",
            authority,
            "Short-lived: expires before a revocation would matter",
            names,
            key_usage=usage,
            extended_key_usage=("server_auth", "client_auth"),
            lifetime=Lifetime(default="24h", maximum="24h"),
            revocation=Revocation(crl=False, ocsp=False, no_rev_avail=True),
            acme=acme,
        ),
    )
    for profile in made:
        check_profile(profile)
    return made


@dataclass(frozen=True)
class Beginning:
    """What a founding has besides its authorities: the first person's token, and further names to allow."""

    token_hash: bytes
    domains: tuple[str, ...] = ()


async def found(
    inst: Installation, script: Script, outcome: Outcome, *, backend: str, domains: Iterable[str], token_hash: bytes
) -> None:
    """Write it all down. Problem RW-CEREMONY where the outcome is not what the script and our key say."""
    root_spec, issuing_spec = (step.spec for step in script.steps if isinstance(step, CertifyRoot | Certify))
    root, issuing = (x509.load_der_x509_certificate(data) for data in (outcome.root, outcome.issuing))
    issuing_key = certificate_key(issuing)
    signed = all(signature_fault(certificate, root) is None for certificate in (root, issuing))
    if not signed or issuing.issuer != root.subject:
        raise Problem("RW-CEREMONY", "The ceremony's certificates do not form a chain.")
    # Problem where it is not our key that was certified.
    inst.key_store(backend).load(issuing_spec.name, issuing_key.id)
    made = (
        Certified(root_spec.name, "root", None, root),
        Certified(issuing_spec.name, "issuing", root_spec.name, issuing, backend),
    )
    wanted = first_profiles(issuing_spec.name, domains)

    def write(conn: Connection) -> None:
        for one in made:
            keep(conn, inst, one, FOUNDER)
        begin(conn, inst, wanted, title=script.title, lab=script.lab, token_hash=token_hash)

    await inst.db.write(write)


def begin(
    conn: Connection,
    inst: Installation,
    wanted: Iterable[Profile],
    *,
    title: str,
    lab: bool,
    token_hash: bytes,
) -> None:
    """The first profiles, the first person with a token, and the fact that there is an installation: in the transaction
    that has its authorities. Problem RW-CONFLICT where there is one already.
    """
    now, made = inst.clock(), list(wanted)
    if facts.get(conn, FOUNDED) is not None:
        raise Problem("RW-CONFLICT", "This installation is founded already.")
    for profile in made:
        profiles.put(
            conn, profile.name, authority=profile.authority, body=profile_json(profile).decode(), at=now, by=SYSTEM
        )
    admin = new_id()
    people.add_principal(admin, kind="person", name=ADMIN, at=now).run(conn)
    for role in Role:
        people.add_grant(new_id(), principal=admin, role=role.value, at=now).run(conn)
    people.add_token(
        new_id(),
        principal=admin,
        label="admin.token",
        digest=token_hash,
        at=now,
        expires_at=now + ADMIN_TOKEN_LIFETIME,
    ).run(conn)
    facts.put_once(FOUNDED, at=now, data="lab" if lab else "").run(conn)
    data: dict[str, object] = {"script": title, "profiles": [profile.name for profile in made], "admin": admin}
    events.record("installation.founded", actor=SYSTEM, request_id=FOUNDER.request_id, at=now, data=data).run(conn)


async def complete(inst: Installation, outcome: Outcome) -> None:
    """Load what was founded and publish the root's CRL of the ceremony, unless it is there."""
    await inst.load_authorities()
    for authority in inst.authorities.values():
        if authority.kind == "root" and await publish.current_crl(inst, authority.name) is None:
            await publish.accept(inst, authority, outcome.crl, FOUNDER)
