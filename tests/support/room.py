"""A ceremony room for tests of the online side: keys of offline authorities in memory, and results as they come back.

What is signed comes by the same plan, draft and lint as in a real one; who vouches for it is the test's to say.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from rootward.ca.results import Vouched
from rootward.ca.sign import sign
from rootward.core import paperwork
from rootward.core.capture import assemble
from rootward.core.crl import draft_crl, finish_crl, lint_crl
from rootward.core.crl_entries import Entry
from rootward.core.csr import parse_csr
from rootward.core.hierarchy import AuthoritySpec, lint_authority, plan_authority
from rootward.core.issuer import Issuer
from rootward.core.paperwork import Certified, Certify, CrossSign, Request, Result, SignCrl, SignedCrl, der_text
from rootward.core.plan import make_serial
from rootward.core.pubkey import KeyAlgorithm, PublicKey, public_key_of
from rootward.core.revocation import RevocationReason
from rootward.core.times import parse_duration
from rootward.keys import Key
from tests.support.installation import PKI_URL, memory_keys

ANNA, BEN = ("anna", "a" * 64), ("ben", "b" * 64)


def spec(name: str = "issuing", kind: Any = "issuing", **more: Any) -> AuthoritySpec:
    """A specification whose common name is its name."""
    return AuthoritySpec(name=name, kind=kind, common_name=f"Test {name}", organization="Test", **more)


def root_spec(name: str = "root", **more: Any) -> AuthoritySpec:
    """A root for ten years, with room for a policy CA."""
    return spec(name, "root", **{"lifetime": "10y", "path_length": 2, **more})


def now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


@dataclass
class Room:
    """Keys and certificates of offline authorities, by name."""

    keys: dict[str, Key] = field(default_factory=dict)
    issuers: dict[str, Issuer] = field(default_factory=dict)
    lab: bool = False

    def make(self, wanted: AuthoritySpec, by: str | None = None, at: datetime | None = None) -> Certified:
        """A root, or an authority under `by`, whose key stays in the room."""
        key = memory_keys().generate(wanted.name, wanted.key_algorithm)
        self.keys[wanted.name] = key
        certificate = self._sign(wanted, key.public, by, at)
        chain = (certificate, *(() if by is None else self.issuers[by].chain))
        self.issuers[wanted.name] = Issuer(wanted.name, certificate, chain, PKI_URL, online=False)
        return Certified(wanted.name, wanted.kind, _pem(certificate))  # type: ignore[arg-type]  # its kind is one

    def certify(self, request: bytes, *, by: str | None = None, **changes: Any) -> Certified:
        """What a request file asks for; `changes` are to what it specifies."""
        asked = paperwork.read(request, Request)
        assert isinstance(asked.wanted, Certify)
        wanted = AuthoritySpec(**{**_fields(asked.wanted.spec), **changes})
        key = parse_csr(asked.wanted.csr.encode()).public_key
        certificate = self._sign(wanted, key, by or asked.wanted.by, None)
        return Certified(wanted.name, wanted.kind, _pem(certificate), asked.id)  # type: ignore[arg-type]  # its kind is one

    def cross(self, request: bytes, *, by: str | None = None, at: datetime | None = None, **changes: Any) -> Certified:
        """The cross-signed certificate that a request file asks for; `changes` are to what it specifies."""
        asked = paperwork.read(request, Request)
        assert isinstance(asked.wanted, CrossSign)
        wanted = AuthoritySpec(**{**_fields(asked.wanted.spec), **changes})
        other = x509.load_pem_x509_certificate(asked.wanted.certificate.encode())
        made = self._sign(wanted, public_key_of(other.public_key()), by or asked.wanted.by, at, existing=other)
        return Certified(wanted.name, "cross", _pem(made), asked.id)

    def _sign(
        self,
        wanted: AuthoritySpec,
        key: PublicKey,
        by: str | None,
        at: datetime | None,
        existing: x509.Certificate | None = None,
    ) -> x509.Certificate:
        plan = plan_authority(wanted, key, None if by is None else self.issuers[by], existing=existing)
        draft = plan.draft(make_serial(secrets.token_bytes(20)), at or now())
        assert lint_authority(draft, plan) == []
        signature = sign(self.keys[by or wanted.name], plan.signer, draft)
        return x509.load_der_x509_certificate(assemble(draft.tbs, draft.algorithm, signature))

    def crl(
        self,
        name: str,
        number: int | None = None,
        entries: tuple[Entry, ...] = (),
        request: str = "",
        lifetime: timedelta = timedelta(days=365),
    ) -> SignedCrl:
        """A CRL of an authority whose key is here."""
        issuer, at = self.issuers[name], now()
        end = min(at + lifetime, issuer.not_after)
        number = int(at.timestamp() * 1000) if number is None else number
        draft = draft_crl(issuer, number=number, this_update=at, next_update=end, entries=entries)
        assert lint_crl(draft, issuer) == []
        return SignedCrl(name, der_text(finish_crl(draft, sign(self.keys[name], issuer.key, draft))), request)

    def answer_crl(self, request: bytes) -> SignedCrl:
        """The CRL that a request file asks for."""
        asked = paperwork.read(request, Request)
        assert isinstance(asked.wanted, SignCrl)
        entries = tuple(
            Entry(bytes.fromhex(one.serial), one.revoked_at, RevocationReason(one.reason))
            for one in asked.wanted.entries
        )
        return self.crl(asked.wanted.by, asked.wanted.number, entries, asked.id, parse_duration(asked.wanted.lifetime))

    def result(self, *made: Certified | SignedCrl) -> Result:
        """The file that comes back."""
        return Result(
            certificates=tuple(one for one in made if isinstance(one, Certified)),
            crls=tuple(one for one in made if isinstance(one, SignedCrl)),
            script=secrets.token_hex(8),
            transcript=secrets.token_hex(8),
        )

    def vouched(self, result: Result, *signers: tuple[str, str], **changes: Any) -> Vouched:
        """Two witnesses signed it, or those who are given."""
        who = dict(signers or (ANNA, BEN))
        values: dict[str, Any] = {
            "title": "A test's ceremony",
            "lab": self.lab,
            "script_sha256": hashlib.sha256(result.script.encode()).hexdigest(),
            "transcript_sha256": hashlib.sha256(result.transcript.encode()).hexdigest(),
            "held_at": now(),
            "signers": who,
            "participants": who,
        }
        return Vouched(**{**values, **changes})


def _fields(wanted: AuthoritySpec) -> dict[str, Any]:
    return {name: getattr(wanted, name) for name in wanted.__struct_fields__}


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()


__all__ = ["ANNA", "BEN", "KeyAlgorithm", "Room", "now", "root_spec", "spec"]
