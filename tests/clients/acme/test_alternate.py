"""A cross-signed issuing authority: the second chain is offered, and clients that ask for it get it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from tests.clients.acme.pypi import Account, make_csr
from tests.clients.acme.test_certbot import PROGRAMS, Certbot
from tests.clients.acme.world import World, assert_good, world
from tests.support.programs import run, said

OTHER = "Another Root"
DAYS = timedelta(days=30)


@dataclass(frozen=True)
class Crossed:
    """`other` is the root that signed our issuing authority too, PEM."""

    world: World
    other: Path


def cross_sign(issuing: x509.Certificate) -> tuple[x509.Certificate, x509.Certificate]:
    """Another root, and its certificate for our issuing authority's name and key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, OTHER)])
    now = datetime.now(UTC)
    usage = x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    made = []
    for subject, public, depth in ((name, key.public_key(), None), (issuing.subject, issuing.public_key(), 0)):
        identifier = (
            x509.SubjectKeyIdentifier.from_public_key(public)  # type: ignore[arg-type]  # an authority's key is of these
            if depth is None
            else issuing.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        )
        builder = (
            x509.CertificateBuilder(name, subject, public, x509.random_serial_number(), now - DAYS, now + DAYS)  # type: ignore[arg-type]  # as above
            .add_extension(x509.BasicConstraints(ca=True, path_length=depth), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(identifier, critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
        )
        made.append(builder.sign(key, SHA256()))
    return made[0], made[1]


@pytest.fixture(scope="module", params=["plain", "chaotic"])
def crossed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crossed]:
    """A server of its own: on the shared one other tests count the chains."""
    folder = tmp_path_factory.mktemp(request.param)
    with world(folder, chaos=request.param == "chaotic") as ours:
        root, certificate = cross_sign(x509.load_pem_x509_certificate(ours.pki.issuing.read_bytes()))
        other = folder / "other.pem"
        other.write_bytes(root.public_bytes(Encoding.PEM))
        crossed = folder / "crossed.pem"
        crossed.write_bytes(certificate.public_bytes(Encoding.PEM))
        ours.server.cli("ca", "cross", "add", "issuing", str(crossed))
        yield Crossed(ours, other)


def judge(chain: Path, trusted: Path) -> bool:
    trust = ("-CAfile", trusted, "-no-CApath", "-no-CAstore", "-untrusted", chain)
    done = run("openssl", "verify", *trust, "-x509_strict", "-purpose", "sslserver", chain, codes=(0, 2))
    assert done.returncode == 0 or "unable to get" in said(done)
    return done.returncode == 0


def test_each_chain_links_the_other(crossed: Crossed, tmp_path: Path) -> None:
    account = Account(crossed.world)
    order = account.finish(account.client.new_order(make_csr("a.internal")), chains=True)
    chains = [order.fullchain_pem, *order.alternative_fullchains_pem]
    assert len(chains) == 2
    verdicts = []
    for number, pem in enumerate(chains):
        file = tmp_path / f"{number}.pem"
        file.write_text(pem)
        verdicts.append((judge(file, crossed.world.root), judge(file, crossed.other)))
    assert set(verdicts) == {(True, False), (False, True)}
    links = account.send(order.body.certificate).links
    again = account.send(links["alternate"]["url"])
    assert again.links["alternate"]["url"] == order.body.certificate


@pytest.mark.parametrize("major", list(PROGRAMS))
def test_certbot_takes_the_chain_that_it_prefers(crossed: Crossed, tmp_path: Path, major: str) -> None:
    certbot = Certbot(PROGRAMS[major], crossed.world, tmp_path)
    certbot.obtain(*certbot.http, "-d", "a.internal", "--preferred-chain", OTHER)
    chain = certbot.live("a.internal") / "fullchain.pem"
    assert judge(chain, crossed.other)
    certbot.obtain(*certbot.http, "-d", "b.internal", "--preferred-chain", "Rootward Root CA")
    assert_good(crossed.world, certbot.live("b.internal") / "fullchain.pem", "DNS:b.internal")
