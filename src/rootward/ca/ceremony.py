"""A root ceremony: one script in, signed certificates, a CRL and a transcript out (I-37).

The script holds every decision, serials and dates included; its SHA-256 is what participants confirm. The same admit,
draft, lint and sign as anywhere else, with the key at hand instead of online. Nothing here reads or writes a file or
a store.
"""

from __future__ import annotations

import hashlib
from datetime import datetime

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

import rootward
from rootward.ca.sign import sign
from rootward.core.capture import assemble
from rootward.core.crl import check_crl, draft_crl, finish_crl, lint_crl
from rootward.core.csr import parse_csr
from rootward.core.hierarchy import AuthorityPlan, AuthoritySpec, lint_authority, plan_authority
from rootward.core.issuer import Issuer
from rootward.core.plan import make_serial
from rootward.core.problems import Problem
from rootward.core.pubkey import KeyAlgorithm
from rootward.core.times import parse_duration
from rootward.keys import Key


class Script(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a two-tier ceremony does. `csr` is the issuing authority's (PEM); serials are 20 random octets, hex.

    `participants` are names; a lab's own run says so here, where everybody who confirms the script reads it.
    """

    title: str
    lab: bool
    participants: tuple[str, ...]
    at: datetime
    pki_url: str
    root: AuthoritySpec
    issuing: AuthoritySpec
    csr: str
    root_serial: str
    issuing_serial: str
    crl_number: int
    crl_lifetime: str


class Outcome(msgspec.Struct, frozen=True):
    """What leaves the room: DER of the certificates and of the root's first CRL."""

    root: bytes
    issuing: bytes
    crl: bytes


class Transcript(msgspec.Struct, frozen=True):
    """What was done, as everybody present saw it. Times are UTC; hashes are SHA-256, hex."""

    title: str
    lab: bool
    participants: tuple[str, ...]
    script_sha256: str
    software: str
    began_at: datetime
    ended_at: datetime
    steps: tuple[str, ...]
    root_sha256: str
    issuing_sha256: str
    crl_sha256: str


def write_script(script: Script) -> bytes:
    """The script's bytes: what is hashed and confirmed."""
    return msgspec.json.format(msgspec.json.encode(script, order="sorted"), indent=2) + b"\n"


def read_script(data: bytes) -> Script:
    """The inverse; Problem RW-CEREMONY for anything else."""
    try:
        return msgspec.json.decode(data, type=Script)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Problem("RW-CEREMONY", f"The script cannot be read: {error}") from None


def perform(script: Script, root_key: Key) -> Outcome:
    """Carry the script out with the root's key. Problem with every reason where a step is refused."""
    root_plan = plan_authority(script.root, root_key.public, None)
    root_der = _certify(root_plan, root_key, script.root_serial, script.at)
    root_certificate = x509.load_der_x509_certificate(root_der)
    root = Issuer(script.root.name, root_certificate, (root_certificate,), script.pki_url, online=False)
    csr = parse_csr(script.csr.encode())
    issuing_der = _certify(
        plan_authority(script.issuing, csr.public_key, root), root_key, script.issuing_serial, script.at
    )
    end = min(script.at + parse_duration(script.crl_lifetime), root_certificate.not_valid_after_utc)
    draft = draft_crl(root, number=script.crl_number, this_update=script.at, next_update=end, entries=())
    findings = lint_crl(draft, root)
    if findings:
        raise Problem.of(findings)
    crl = finish_crl(draft, sign(root_key, root.key, draft))
    check_crl(crl, root, now=script.at, last_number=None)
    return Outcome(root_der, issuing_der, crl)


def _certify(plan: AuthorityPlan, key: Key, serial: str, at: datetime) -> bytes:
    draft = plan.draft(make_serial(bytes.fromhex(serial)), at)
    findings = lint_authority(draft, plan)
    if findings:
        raise Problem.of(findings)
    return assemble(draft.tbs, draft.algorithm, sign(key, plan.signer, draft))


def transcript(script_bytes: bytes, outcome: Outcome, *, began_at: datetime, ended_at: datetime) -> Transcript:
    """The record of a ceremony that went through."""
    script = read_script(script_bytes)
    return Transcript(
        title=script.title,
        lab=script.lab,
        participants=script.participants,
        script_sha256=hashlib.sha256(script_bytes).hexdigest(),
        software=f"rootward {rootward.__version__}",
        began_at=began_at,
        ended_at=ended_at,
        steps=(
            f"generated the key of {script.root.name} ({script.root.key_algorithm}) and sealed it",
            f"certified {script.root.name} by itself for {script.root.lifetime}",
            f"checked the CSR of {script.issuing.name} and certified it for {script.issuing.lifetime}",
            f"signed CRL {script.crl_number} of {script.root.name} for {script.crl_lifetime}",
        ),
        root_sha256=hashlib.sha256(outcome.root).hexdigest(),
        issuing_sha256=hashlib.sha256(outcome.issuing).hexdigest(),
        crl_sha256=hashlib.sha256(outcome.crl).hexdigest(),
    )


def signed_transcript(record: Transcript, signer: Ed25519PrivateKey) -> bytes:
    """JSON with the record, and a signature over its canonical form by a participant's key (a lab's own)."""
    body = msgspec.json.encode(record, order="sorted")
    whole = {
        "transcript": msgspec.Raw(body),
        "signatures": [
            {
                "algorithm": "ed25519",
                "public_key": signer.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex(),
                "signature": signer.sign(body).hex(),
                "signer": "the lab itself" if record.lab else ", ".join(record.participants),
            }
        ],
    }
    return msgspec.json.format(msgspec.json.encode(whole), indent=2) + b"\n"


def lab_script(*, organization: str, pki_url: str, csr_pem: str, at: datetime, serials: tuple[bytes, bytes]) -> Script:
    """The two-tier lab of the quickstart: root P-384 for 10 years, issuing CA P-256 for 5, path length 0, root CRL
    for a year.
    """
    org = organization[:64]
    return Script(
        title=f"Two-tier lab of {org}",
        lab=True,
        participants=("nobody: run by the quickstart itself",),
        at=at,
        pki_url=pki_url,
        root=AuthoritySpec(
            name="root",
            kind="root",
            common_name=f"{org[:40]} Root CA",
            organization=org,
            key_algorithm=KeyAlgorithm.P384,
            lifetime="10y",
            path_length=1,
        ),
        issuing=AuthoritySpec(
            name="issuing",
            kind="issuing",
            common_name=f"{org[:40]} Issuing CA",
            organization=org,
            lifetime="5y",
        ),
        csr=csr_pem,
        root_serial=serials[0].hex(),
        issuing_serial=serials[1].hex(),
        crl_number=int(at.timestamp() * 1000),
        crl_lifetime="365d",
    )
