"""Every shape of what an installation signs, by the real road: an installation in this process for each algorithm of
its authorities, and its certificates, CRLs and OCSP answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
from cryptography.hazmat.primitives.serialization import Encoding

from rootward.ca import ceremony, founding, own, profiles, publish
from rootward.ca.access import Caller, authenticate, new_token
from rootward.ca.installation import Installation
from rootward.ca.issue import Ask, Issued, issue
from rootward.ca.responder import Responder
from rootward.ca.revoke import revoke
from rootward.cli.enrol import make_csr, make_key
from rootward.core.csr import parse_csr
from rootward.core.names import guess_name
from rootward.core.ocsp import cert_id_for, request_for
from rootward.core.pubkey import KeyAlgorithm
from rootward.core.revocation import RevocationReason
from rootward.core.times import whole_second
from rootward.keys import TLS_LABEL
from rootward.store.db import open_database
from rootward.store.migrations import migrate
from tests.support.ceremonies import hold_lab
from tests.support.installation import memory_keys

PKI_URL = "http://pki.internal:8080"
NONCE = bytes(range(32))
key = cache(make_key)  # one subject key for each algorithm


class Shapes:
    """An installation whose authorities all have keys of one algorithm. `close` it in the end."""

    def __init__(self, algorithm: KeyAlgorithm, folder: Path) -> None:
        self._runner = asyncio.Runner()
        self._db = open_database(f"sqlite:///{folder}/{algorithm}.db", home=folder)
        self._db.write_sync(migrate)
        self._inst = Installation(
            db=self._db, keys=memory_keys(), pki_url=PKI_URL, external_url="https://localhost:8443", lab=True
        )
        self._outcome = self._runner.run(self._found(algorithm))
        self.root, self.issuing, self.root_crl = self._outcome.root, self._outcome.issuing, self._outcome.crl
        self._responder = Responder(self._inst)
        self._runner.run(self._responder.renew())

    def close(self) -> None:
        """Nothing of it is used any more."""
        self._db.close()
        self._runner.close()

    async def _found(self, algorithm: KeyAlgorithm) -> ceremony.Outcome:
        """A ceremony for keys of this algorithm, as the quickstart holds one."""
        inst = self._inst
        issuing = inst.keys.generate("issuing", algorithm)
        at = whole_second(datetime.now(UTC))
        script, outcome = hold_lab(issuing, pki_url=inst.pki_url, at=at, root=algorithm)
        token, digest = new_token()
        await founding.found(inst, script, outcome, backend=inst.keys.name, domains=(), token_hash=digest)
        await founding.complete(inst, outcome)
        own.register(inst)
        self._caller = Caller(await authenticate(inst, token), "req_test")
        for profile in founding.first_profiles("issuing"):  # brainpool keys only where a profile says so
            widened = msgspec.structs.replace(profile, keys=tuple(KeyAlgorithm))
            await profiles.update(inst, widened, self._caller)
        return outcome

    def issue(
        self,
        profile: str,
        algorithm: KeyAlgorithm = KeyAlgorithm.P256,
        *,
        names: Iterable[str] = (),
        common_name: str | None = None,
        subject_key: Any = None,
    ) -> Any:
        """An issued certificate's row (`der`, `id`, `serial`); for the one key of that algorithm if none is given."""
        asked = [guess_name(name, field="names") for name in names]
        subject = subject_key or key(algorithm)
        csr = parse_csr(make_csr(subject, algorithm, names=asked, common_name=common_name).encode())
        issued = self._runner.run(issue(self._inst, Ask(profile, csr), self._caller))
        assert isinstance(issued, Issued)
        return issued.certificate

    def revoke(self, certificate: Any, reason: RevocationReason) -> None:
        """Revoke it."""
        self._runner.run(revoke(self._inst, certificate.id, reason, self._caller))

    def crl(self) -> bytes:
        """A new CRL of the issuing authority, DER."""
        made = self._runner.run(publish.publish(self._inst, self._inst.authority("issuing")))
        return made.der

    def ocsp(self, *serials: bytes, nonce: bytes | None = None, digest: Any = "sha1") -> bytes:
        """The answer about these serials, DER."""
        issuer = self._inst.authority("issuing").issuer
        request = request_for([cert_id_for(issuer, serial, digest) for serial in serials], nonce)
        return self._runner.run(self._responder.answer("issuing", request)).body

    def own(self) -> dict[str, bytes]:
        """The responder's and the server's own certificate, DER."""
        labels = {"ocsp:issuing": "ocsp-issuing", f"tls:{TLS_LABEL}": TLS_LABEL}
        found = {profile: self._runner.run(own.obtain(self._inst, profile, label)) for profile, label in labels.items()}
        return {profile: one.certificate.public_bytes(Encoding.DER) for profile, one in found.items()}
