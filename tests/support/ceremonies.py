"""Ceremonies for tests: keys of this process in place of media, and a lab's two-tier script."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from rootward.ca import ceremony
from rootward.ca.sign import sign
from rootward.core import paperwork
from rootward.core.csr_draft import draft_csr, finish_csr
from rootward.core.pubkey import KeyAlgorithm, PublicKey
from rootward.core.script import Script
from rootward.keys import BACKENDS, Backend, Key, KeySettings


@dataclass
class MemoryKeys:
    """Keys of a ceremony that are in this process, by the name of their entry; what was done to them in `cared`."""

    backend: Backend = field(default_factory=lambda: BACKENDS["memory"](KeySettings()))
    cared: list[ceremony.Care] = field(default_factory=list)

    def make(self, name: str, algorithm: KeyAlgorithm) -> Key:
        return self.backend.generate(name, algorithm)

    def open(self, name: str, public: PublicKey) -> Key:
        return self.backend.load(name, public.id)

    def care(self, step: ceremony.Care, public: PublicKey | None) -> tuple[str, ...]:
        self.cared.append(step)
        return (f"did it to {'nothing' if public is None else public.id}",)


def csr_pem(key: Key) -> str:
    """A CSR by the key, PEM."""
    draft = draft_csr(key.public)
    csr = x509.load_der_x509_csr(finish_csr(draft, sign(key, key.public, draft)))
    return csr.public_bytes(Encoding.PEM).decode()


def hold_lab(
    issuing: Key, *, pki_url: str, at: datetime, root: KeyAlgorithm = KeyAlgorithm.P384, keys: MemoryKeys | None = None
) -> tuple[Script, ceremony.Outcome]:
    """The quickstart's two-tier lab for this issuing key, held in this process."""
    request = ceremony.lab_request(organization="Test", pki_url=pki_url, csr_pem=csr_pem(issuing), at=at)
    return hold_for(with_key_algorithm(request, issuing.public.algorithm), at=at, root=root, keys=keys)


def hold_for(
    request: paperwork.Request, *, at: datetime, root: KeyAlgorithm = KeyAlgorithm.P384, keys: MemoryKeys | None = None
) -> tuple[Script, ceremony.Outcome]:
    """That ceremony for an issuing authority's request, wherever its key is."""
    serials = (secrets.token_bytes(20), secrets.token_bytes(20))
    script = ceremony.lab_script(request, at=at, serials=serials, algorithm=root)
    files = {paperwork.sha256(request): paperwork.write(request)}
    done = tuple(ceremony.perform(script, keys or MemoryKeys(), files, clock=lambda: datetime.now(UTC)))
    certificates = [one.certificate for one in done if one.certificate is not None]
    crls = [one.crl for one in done if one.crl is not None]
    result = paperwork.Result(certificates=tuple(certificates), crls=tuple(crls), script="", transcript="")
    return script, ceremony.outcome_of(result)


def with_key_algorithm(request: paperwork.Request, algorithm: KeyAlgorithm) -> paperwork.Request:
    """The request for an issuing CA whose key is of that algorithm."""
    assert isinstance(request.wanted, paperwork.Certify)
    spec = msgspec.structs.replace(request.wanted.spec, key_algorithm=algorithm)
    return msgspec.structs.replace(request, wanted=msgspec.structs.replace(request.wanted, spec=spec))
