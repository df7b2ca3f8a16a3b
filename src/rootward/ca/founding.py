"""The first transaction of an installation: what a ceremony made, the first profiles, and the first person, all or
nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import timedelta

import msgspec
from cryptography import x509
from sqlalchemy import Connection

from rootward.ca import publish
from rootward.ca.access import SYSTEM
from rootward.ca.ceremony import Outcome, Script
from rootward.ca.installation import AuthoritySettings, Installation
from rootward.core import der
from rootward.core.lint import public_key_info
from rootward.core.problems import Problem
from rootward.core.profile import Acme, DnsRules, Lifetime, NameRules, Profile, Revocation, check_profile, profile_json
from rootward.core.pubkey import check_public_key
from rootward.core.roles import Role
from rootward.core.signature import verifies
from rootward.store import authorities, certificates, events, facts, people, profiles
from rootward.store.ids import new_id

ADMIN = "admin"
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


async def found(
    inst: Installation, script: Script, outcome: Outcome, *, backend: str, domains: Iterable[str], token_hash: bytes
) -> None:
    """Write it all down. Problem RW-CEREMONY where the outcome is not what the script and our key say."""
    now = inst.clock()
    root, issuing = (x509.load_der_x509_certificate(data) for data in (outcome.root, outcome.issuing))
    root_key, issuing_key = (check_public_key(public_key_info(cert.tbs_certificate_bytes)) for cert in (root, issuing))
    signed = verifies(root_key, root.signature, root.tbs_certificate_bytes) and verifies(
        root_key, issuing.signature, issuing.tbs_certificate_bytes
    )
    if not signed or issuing.issuer != root.subject:
        raise Problem("RW-CEREMONY", "The ceremony's certificates do not form a chain.")
    inst.key_store(backend).load(
        script.issuing.name, issuing_key.id
    )  # Problem where it is not our key that was certified
    settings = msgspec.json.encode(AuthoritySettings()).decode()
    wanted = first_profiles(script.issuing.name, domains)

    def write(conn: Connection) -> None:
        for spec, key, data, parent in (
            (script.root, root_key, outcome.root, None),
            (script.issuing, issuing_key, outcome.issuing, script.root.name),
        ):
            authorities.add(spec.name, spec.kind, parent=parent, settings=settings, at=now).run(conn)
            authorities.add_issuer(
                spec.name, key_id=key.id, certificate=data, backend=None if parent is None else backend, at=now
            ).run(conn)
        issuers = {row.authority: row for row in authorities.list_issuers(conn)}
        for data, of in ((outcome.root, script.root.name), (outcome.issuing, script.issuing.name)):
            _keep_certificate(conn, inst, issuers[script.root.name], data, of)
        for profile in wanted:
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
        facts.put_once("installation.founded", at=now, data="lab" if script.lab else "").run(conn)
        data_of_event: dict[str, object] = {
            "script": script.title,
            "profiles": [profile.name for profile in wanted],
            "admin": admin,
        }
        events.record(
            "installation.founded", actor=SYSTEM, request_id="system:founding", at=now, data=data_of_event
        ).run(conn)

    await inst.db.write(write)


async def complete(inst: Installation, outcome: Outcome) -> None:
    """Load what was founded and publish the root's CRL of the ceremony, unless it is there."""
    await inst.load_authorities()
    for authority in inst.authorities.values():
        if authority.kind == "root" and await publish.current_crl(inst, authority.name) is None:
            await publish.accept(inst, authority, outcome.crl, actor=SYSTEM)


def _keep_certificate(
    conn: Connection, inst: Installation, issuer: authorities.IssuerRow, data: bytes, name: str
) -> None:
    """An authority's own certificate, in the inventory like every other, with its event."""
    certificate = x509.load_der_x509_certificate(data)
    _, algorithm, _ = der.children(data)
    id, now = new_id(), inst.clock()
    serial = der.children(certificate.tbs_certificate_bytes)[1].content
    row = {
        "id": id,
        "issuer": issuer.n,
        "serial": serial,
        "authority": issuer.authority,
        "tbs": certificate.tbs_certificate_bytes,
        "algorithm": algorithm.whole,
        "key_id": check_public_key(public_key_info(certificate.tbs_certificate_bytes)).id,
        "subject": certificate.subject.rfc4514_string(),
        "names": [],
        "not_before": certificate.not_valid_before_utc,
        "not_after": certificate.not_valid_after_utc,
        "requester": SYSTEM,
        "request_id": "system:founding",
        "lease": inst.db.lease,
        "intended_at": now,
    }
    certificates.intend(row).run(conn)
    sha256 = hashlib.sha256(data).hexdigest()
    certificates.complete(id, signature=certificate.signature, sha256=sha256, issued_at=now, lease=inst.db.lease).run(
        conn
    )
    events.record(
        "authority.certified",
        actor=SYSTEM,
        authority=name,
        certificate=id,
        request_id="system:founding",
        at=now,
        data={
            "serial": serial.hex(),
            "issuer": issuer.authority,
            "issuer_key": issuer.key_id,
            "sha256": sha256,
        },
    ).run(conn)
