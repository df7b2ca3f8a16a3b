"""The ceremony: one script in, signed certificates, CRLs and a transcript out (I-37).

The script holds every decision, serials and dates included; its SHA-256 is what participants confirm. Each step is
the same admit, draft, lint and sign as anywhere else (`core.planning`), with the keys at hand instead of online. A
rehearsal is the same with keys that are thrown away. Nothing here reads or writes a file or a store: keys come through
`Keys`, files as bytes, and the clock is an argument.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Protocol

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from rootward.ca.sign import sign
from rootward.core import paperwork
from rootward.core.capture import assemble
from rootward.core.crl import check_crl, finish_crl
from rootward.core.csr import parse_csr
from rootward.core.hierarchy import AuthoritySpec
from rootward.core.issuer import Issuer
from rootward.core.minutes import (
    Attendance,
    File,
    Record,
    Rehearsal,
    Signature,
    Software,
    Transcript,
    read_transcript,
    write,
)
from rootward.core.paperwork import Certified, Request, Result, SignedCrl, der_text
from rootward.core.participants import Participant
from rootward.core.plan import make_serial
from rootward.core.planning import Table, draft_list, draft_step, masked, request_id, set_table, settle
from rootward.core.problems import Problem
from rootward.core.pubkey import KeyAlgorithm, PublicKey
from rootward.core.script import (
    BackUpKey,
    Certify,
    CertifyRoot,
    ChangeCustodians,
    CheckShares,
    CrossSign,
    DestroyKey,
    FileKey,
    Input,
    MakeKey,
    Script,
    SignCrl,
    Step,
    certificate_name,
    inputs_of,
    key_of,
    kind_of,
    list_name,
    sha256_of,
)
from rootward.core.times import parse_time, rfc3339
from rootward.core.transcript import step_sha256
from rootward.keys import BACKENDS, Key, KeySettings

Clock = Callable[[], datetime]
# The steps that do something to a key and sign nothing.
Care = ChangeCustodians | CheckShares | BackUpKey | DestroyKey


class Keys(Protocol):
    """Where the keys of a ceremony are. `name` is the entry of the script's `keys`."""

    def make(self, name: str, algorithm: KeyAlgorithm) -> Key:
        """A new key, kept where the script says."""

    def open(self, name: str, public: PublicKey) -> Key:
        """The key with exactly that public key."""

    def care(self, step: Care, public: PublicKey | None) -> tuple[str, ...]:
        """Do what the step says to the key with that public key (None: of an authority that is not on the table); what
        was found and done, in sentences for the transcript."""


@dataclass(frozen=True)
class Done:
    """A step that was done: its record, and what came of it."""

    record: Record
    certificate: Certified | None = None
    crl: SignedCrl | None = None
    output: File | None = None


def with_read_back(done: Done, said: str) -> Done:
    """The step with what was compared after it."""
    return replace(done, record=msgspec.structs.replace(done.record, read_back=said))


def perform(
    script: Script, keys: Keys, files: Mapping[str, bytes], *, clock: Clock, expected: Sequence[str] | None = None
) -> Iterator[Done]:
    """Carry the script out, a step each time that the next one is asked for. `files` are by SHA-256; `expected` is what
    a rehearsal gave, for each step the hash of the bytes that it signs without the keys.

    Problem with every reason where a step is refused; nothing was signed in it then.
    """
    return _perform(set_table(script, files), keys, clock, expected)


@dataclass(frozen=True)
class _Effect:
    """What a step did: `key` made or used, `masked` the hash of what was signed, `facts` what there is to say."""

    key: PublicKey | None
    masked: str = ""
    facts: tuple[str, ...] = ()
    certificate: Certified | None = None
    crl: SignedCrl | None = None
    output: File | None = None


def _perform(table: Table, keys: Keys, clock: Clock, expected: Sequence[str] | None = None) -> Iterator[Done]:
    for number, step in enumerate(table.script.steps, start=1):
        began = clock()
        effect = _do(table, keys, step, None if expected is None else expected[number - 1])
        record = Record(
            number=number,
            do=kind_of(step),
            step=step_sha256(step),
            began_at=began,
            ended_at=clock(),
            key="" if effect.key is None else effect.key.id,
            masked=effect.masked,
            output="" if effect.output is None else effect.output.sha256,
            facts=effect.facts,
        )
        yield Done(record, effect.certificate, effect.crl, effect.output)


def _do(table: Table, keys: Keys, step: Step, expected: str | None) -> _Effect:
    if isinstance(step, CertifyRoot | Certify | CrossSign):
        return _certify(table, keys, step, expected)
    if isinstance(step, SignCrl):
        return _sign_list(table, keys, step, expected)
    if isinstance(step, MakeKey):
        key = keys.make(step.key, step.algorithm)
        table.made[step.key] = key.public
        return _Effect(key.public)
    public = table.made.get(step.key) or next(
        (table.issuers[name].key for name, one in table.script.authorities.items() if one.key == step.key), None
    )
    return _Effect(public, facts=keys.care(step, public))


def _as_rehearsed(table: Table, tbs: bytes, expected: str | None) -> str:
    """The hash of what will be signed without the keys. Problem where a rehearsal had another one: a key that has
    signed cannot be made not to have.
    """
    found = masked(tbs, table.made.values())
    if expected is not None and found != expected:
        raise Problem("RW-CEREMONY", "What would be signed is not what was rehearsed; it is not signed.")
    return found


def _key(table: Table, keys: Keys, step: CertifyRoot | Certify | CrossSign | SignCrl) -> Key:
    if isinstance(step, CertifyRoot):
        return keys.open(step.key, table.made[step.key])
    return keys.open(key_of(table.script, step.by), table.issuers[step.by].key)


def _certify(table: Table, keys: Keys, step: CertifyRoot | Certify | CrossSign, expected: str | None) -> _Effect:
    draft = draft_step(table, step)
    hidden = _as_rehearsed(table, draft.tbs, expected)
    key = _key(table, keys, step)
    issuer = key.public if isinstance(step, CertifyRoot) else table.issuers[step.by].key
    data = assemble(draft.tbs, draft.algorithm, sign(key, issuer, draft))
    certificate = x509.load_der_x509_certificate(data)
    settle(table, step, certificate)
    made = Certified(
        authority=step.spec.name,
        kind="cross" if isinstance(step, CrossSign) else step.spec.kind,
        certificate=certificate.public_bytes(Encoding.PEM).decode(),
        request=request_id(table, step),
    )
    output = File(certificate_name(step), sha256_of(data))
    return _Effect(issuer, hidden, certificate=made, output=output)


def _sign_list(table: Table, keys: Keys, step: SignCrl, expected: str | None) -> _Effect:
    issuer = table.issuers[step.by]
    draft = draft_list(table, step)
    hidden = _as_rehearsed(table, draft.tbs, expected)
    data = finish_crl(draft, sign(_key(table, keys, step), issuer.key, draft))
    check_crl(data, issuer, now=parse_time(step.this_update), last_number=None)
    made = SignedCrl(step.by, der_text(data), request_id(table, step))
    output = File(list_name(step), sha256_of(data))
    return _Effect(issuer.key, hidden, crl=made, output=output)


@dataclass
class _Throwaway(Keys):
    """Keys of a rehearsal: they live in this process's memory and have never been anywhere else."""

    keys: dict[str, Key] = field(default_factory=dict)

    def make(self, name: str, algorithm: KeyAlgorithm) -> Key:
        backend = BACKENDS["memory"](KeySettings())
        self.keys[name] = backend.generate("rehearsal", algorithm)
        return self.keys[name]

    def open(self, name: str, public: PublicKey) -> Key:
        return self.keys[name]

    def care(self, step: Care, public: PublicKey | None) -> tuple[str, ...]:
        return ("rehearsed: nothing was touched",)


def rehearse(script: Script, files: Mapping[str, bytes], *, clock: Clock) -> tuple[Done, ...]:
    """Carry the script out with throw-away keys, also in place of those that are there already.

    An authority that is there gets a stand-in: its own certificate, with a throw-away key of the same algorithm as its
    public key. What it signs is byte for byte what the real one will sign.
    """
    table, keys = set_table(script, files), _Throwaway()
    for name, present in script.authorities.items():
        issuer = table.issuers[name]
        key = keys.keys.get(present.key) or keys.make(present.key, issuer.key.algorithm)
        table.issuers[name] = _stand_in(issuer, key.public)
    return tuple(_perform(table, keys, clock))


def _stand_in(issuer: Issuer, key: PublicKey) -> Issuer:
    certificate = issuer.certificate
    tbs = certificate.tbs_certificate_bytes
    if len(key.spki) != len(issuer.key.spki) or tbs.count(issuer.key.spki) != 1:
        raise Problem("RW-CEREMONY", f"The certificate of {issuer.authority} cannot be rehearsed with another key.")
    own = assemble(tbs.replace(issuer.key.spki, key.spki), bytes.fromhex("300506032b6570"), bytes(64))
    stand_in = x509.load_der_x509_certificate(own)
    return replace(issuer, certificate=stand_in, chain=(stand_in, *issuer.chain[1:]))


def rehearsal(
    script_bytes: bytes, script: Script, done: tuple[Done, ...], software: Software, at: datetime
) -> Rehearsal:
    """The report of a rehearsal that went through."""
    return Rehearsal(
        format="rootward-rehearsal",
        version=1,
        title=script.title,
        script=sha256_of(script_bytes),
        software=software,
        held_at=at,
        masked=tuple(one.record.masked for one in done),
    )


@dataclass(frozen=True)
class Room:
    """What the transcript says beyond the steps: what ran, what was found of network and clock, who was there."""

    software: Software
    checks: tuple[str, ...]
    participants: tuple[Attendance, ...]
    began_at: datetime


def result(script_bytes: bytes, script: Script, done: tuple[Done, ...], room: Room, *, ended_at: datetime) -> Result:
    """The result of a ceremony that went through, not signed yet."""
    transcript = Transcript(
        format="rootward-transcript",
        version=1,
        title=script.title,
        lab=script.lab,
        script=sha256_of(script_bytes),
        software=room.software,
        room=room.checks,
        began_at=room.began_at,
        ended_at=ended_at,
        participants=room.participants,
        inputs=tuple(File(one.file, one.sha256) for one in inputs_of(script)),
        steps=tuple(one.record for one in done),
        outputs=tuple(one.output for one in done if one.output is not None),
    )
    return Result(
        certificates=tuple(one.certificate for one in done if one.certificate is not None),
        crls=tuple(one.crl for one in done if one.crl is not None),
        script=script_bytes.decode(),
        transcript=write(transcript).decode(),
    )


def signed(unsigned: Result, signature: Signature) -> Result:
    """The result with one more signature."""
    raw = msgspec.Raw(msgspec.json.encode(signature, order="sorted"))
    return msgspec.structs.replace(unsigned, signatures=(*unsigned.signatures, raw))


def public_files(made: Result) -> dict[str, bytes]:
    """What people and other programs take from a result, by the name of its file: PEM certificates, DER CRLs."""
    transcript = read_transcript(made.transcript)
    certificates, lists = iter(made.certificates), iter(made.crls)
    contents = [
        base64.b64decode(next(lists).crl) if record.do == "sign-crl" else next(certificates).certificate.encode()
        for record in transcript.steps
        if record.output
    ]
    return dict(zip((one.name for one in transcript.outputs), contents, strict=True))


class Outcome(msgspec.Struct, frozen=True):
    """What founds an installation: DER of the certificates and of the root's first CRL."""

    root: bytes
    issuing: bytes
    crl: bytes


def outcome_of(made: Result) -> Outcome:
    """What a two-tier ceremony's result has; Problem RW-CEREMONY where it has something else."""
    kinds = [one.kind for one in made.certificates]
    if kinds != ["root", "issuing"] or len(made.crls) != 1:
        raise Problem("RW-CEREMONY", "The result is not of a two-tier ceremony: a root, an issuing CA and a CRL.")
    root, issuing = (x509.load_pem_x509_certificate(one.certificate.encode()) for one in made.certificates)
    return Outcome(
        root.public_bytes(Encoding.DER), issuing.public_bytes(Encoding.DER), base64.b64decode(made.crls[0].crl)
    )


# An issuing CA below a root needs 1. One more is room for the root that comes after it: a cross-signed certificate of
# that one stands between (docs/runbooks/root-renewal.md).
ROOT_DEPTH = 2
LAB_SIGNER = "the lab itself"


def lab_request(*, organization: str, pki_url: str, csr_pem: str, at: datetime, id: str = "quickstart") -> Request:
    """What the quickstart asks its own ceremony for: an issuing CA, P-256, for 5 years, path length 0."""
    org = organization[:64]
    spec = AuthoritySpec(
        name="issuing", kind="issuing", common_name=f"{org[:40]} Issuing CA", organization=org, lifetime="5y"
    )
    wanted = paperwork.Certify("root", spec, csr_pem)
    return Request(id=id, installation=id, made_at=at, pki_url=pki_url, issuer="", wanted=wanted)


def lab_script(
    request: Request, *, at: datetime, serials: tuple[bytes, bytes], algorithm: KeyAlgorithm = KeyAlgorithm.P384
) -> Script:
    """The quickstart's two-tier lab: a root for 10 years, the issuing CA of the request, a root CRL for a year."""
    if not isinstance(request.wanted, paperwork.Certify):
        raise Problem("RW-CEREMONY", "The request does not ask for a certificate of an authority.")
    org = request.wanted.spec.organization
    root = AuthoritySpec(
        name="root",
        kind="root",
        common_name=f"{org[:40]} Root CA",
        organization=org,
        key_algorithm=algorithm,
        lifetime="10y",
        path_length=ROOT_DEPTH,
    )
    serial, other = (make_serial(one).hex() for one in serials)
    steps = (
        MakeKey("root", algorithm),
        CertifyRoot("root", serial, root),
        Certify(
            "root",
            other,
            request.wanted.spec,
            request=Input(f"{request.wanted.spec.name}.request", paperwork.sha256(request)),
            public_key=parse_csr(request.wanted.csr.encode()).public_key.id,
        ),
        SignCrl("root", int(at.timestamp() * 1000), rfc3339(at), rfc3339(at + timedelta(days=365))),
    )
    return Script(
        format="rootward-ceremony",
        version=1,
        title=f"Two-tier lab of {org}",
        lab=True,
        at=rfc3339(at),
        pki_url=request.pki_url,
        participants=(Participant(LAB_SIGNER, "master"),),
        keys={"root": FileKey("keys")},
        steps=steps,
    )
