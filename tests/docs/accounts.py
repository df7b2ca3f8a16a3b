"""Everything that an ACME client and those who let it in can do, so that each of its events happens once at least."""

from __future__ import annotations

import asyncio
import hashlib
import json
from datetime import timedelta
from typing import Any

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from rootward.ca import accounts, bindings, profiles
from rootward.core.profile import Acme
from rootward.egress import Egress
from rootward.egress.rules import make_rules
from rootward.protocols.acme.challenges import Ways
from tests.support.acme import Client, Reply, Wire, algorithm_of, b64, bound, flattened, jwk_of, new_key, thumbprint
from tests.support.installation import Lab
from tests.support.names import Names

PROFILE = "machines"
NAME = "a.internal"
POLLS = 3000


async def everything_of_acme(made: Lab) -> None:
    """All of it, under a profile that wants bindings."""
    inst, admin = made.inst, made.admin
    _, server = await profiles.current(inst, "server") or (0, None)
    assert server is not None
    await profiles.create(inst, msgspec.structs.replace(server, name=PROFILE, acme=Acme(accounts="bound")), admin)
    binding, secret = await bindings.create(
        inst,
        profile=PROFILE,
        owner="somebody",
        names=(),
        preauthorized=(),
        uses=2,
        lifetime=timedelta(hours=1),
        caller=admin,
    )
    async with Names() as names:
        egress = Egress(make_rules(()), (names.address,))
        wire = Wire.of(inst, ways=Ways(egress))
        try:
            client = await _registered(wire, binding.id, secret)
            await _proves(client, names)
            await _changes(client)
            other = await _registered(wire, binding.id, secret)
            await accounts.disable(inst, (other.kid or "").rpartition("/")[2], admin)
        finally:
            await wire.validator.close()
    await bindings.revoke(inst, binding.id, admin)


async def _registered(wire: Wire, binding: str, secret: bytes) -> Client:
    client = Client(wire, directory=PROFILE)
    jwk = json.dumps(jwk_of(client.key)).encode()
    proof = bound(binding, secret, jwk, client.path("new-account"))
    done = await client.register(externalAccountBinding=proof)
    assert done.status == 201, done.body
    return client


async def _proves(client: Client, names: Names) -> None:
    """One name that is proved, one that is not; a certificate that is revoked, and a proof that is taken back."""
    await _challenged(client, await _ordered(client, "b.internal"), names, "nonsense", "invalid")
    order = await _ordered(client, NAME)
    (name,) = order.json["authorizations"]
    await _challenged(client, order, names, None, "valid")
    key = ec.generate_private_key(ec.SECP256R1())
    san = x509.SubjectAlternativeName([x509.DNSName(NAME)])
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).add_extension(san, critical=False)
    csr = builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)
    done = await client.post(order.json["finalize"], {"csr": b64(csr)})
    assert done.json["status"] == "valid", done.body
    chain = await client.post(done.json["certificate"])
    leaf = x509.load_pem_x509_certificate(chain.body).public_bytes(Encoding.DER)
    assert (await client.post("revoke-cert", {"certificate": b64(leaf)})).status == 200
    assert (await client.post(name, {"status": "deactivated"})).json["status"] == "deactivated"


async def _ordered(client: Client, name: str) -> Reply:
    order = await client.post("new-order", {"identifiers": [{"type": "dns", "value": name}]})
    assert order.status == 201, order.body
    return order


async def _challenged(client: Client, order: Reply, names: Names, text: str | None, end: str) -> None:
    """dns-01 with this record, or with the right one, until it has come to this end."""
    (url,) = order.json["authorizations"]
    found = await client.post(url)
    (challenge,) = [one for one in found.json["challenges"] if one["type"] == "dns-01"]
    proof = f"{challenge['token']}.{thumbprint(jwk_of(client.key))}".encode()
    record = text or b64(hashlib.sha256(proof).digest())
    names.set(f"_acme-challenge.{found.json['identifier']['value']}", "TXT", [record])
    await client.post(challenge["url"], {})
    for _ in range(POLLS):
        found = await client.post(url)
        if found.json["status"] == end:
            return
        assert found.json["status"] == "pending", found.body
        await asyncio.sleep(0.02)
    raise AssertionError("it is never decided")


async def _changes(client: Client) -> None:
    """Other contacts, another key, the end."""
    kid = client.kid or ""
    assert (await client.post(kid, {"contact": ["mailto:a@b.internal"]})).status == 200
    new, url = new_key(), client.path("key-change")
    said = {"account": kid, "oldKey": jwk_of(client.key)}
    inner: dict[str, Any] = flattened(new, {"alg": algorithm_of(new), "jwk": jwk_of(new), "url": url}, said)
    assert (await client.post("key-change", inner)).status == 200
    client.key = new
    assert (await client.post(kid, {"status": "deactivated"})).json["status"] == "deactivated"
