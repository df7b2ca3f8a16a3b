"""Whether the result of a ceremony is what its script says, and who answers for it: everything that can be known from
the files alone, on any machine (I-37).

Each certificate and CRL is planned again from the script, with the public keys that the result has, and must be the
bytes that were signed; the transcript's steps must be the script's, in order, none left out and none added; and two
participants with different names and keys, who are in the script and took part, must have signed the transcript. A
lab's own run is signed by the lab. All that is wrong is said at once.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from rootward.core import der
from rootward.core.crl import BadCrl, finish_crl, parse_crl
from rootward.core.lint import UNREADABLE
from rootward.core.minutes import (
    MOST_SIGNATURES,
    Record,
    Signature,
    Transcript,
    good_signature,
    read_transcript,
)
from rootward.core.paperwork import Certified, Request, Result, SignedCrl
from rootward.core.paperwork import read as read_paper
from rootward.core.participants import WITNESSES, participant_key
from rootward.core.planning import (
    Table,
    certified_key,
    crossed_certificate,
    draft_list,
    draft_step,
    issuer_of,
    masked,
    request_id,
    set_table,
    settle,
    step_entries,
)
from rootward.core.problems import Problem, Reason
from rootward.core.pubkey import PublicKey, certificate_key
from rootward.core.script import (
    Certify,
    CertifyRoot,
    CrossSign,
    MakeKey,
    Script,
    SignCrl,
    Step,
    certificate_name,
    inputs_of,
    kind_of,
    list_name,
    read_script,
    sha256_of,
)
from rootward.core.signature import verifies


@dataclass(frozen=True)
class Signer:
    """A participant whose signature is good. `key_id` is the SHA-256 of the public key."""

    name: str
    role: str
    key_id: str


@dataclass(frozen=True)
class Verified:
    """A result that is what it says. `sha256` is the transcript's, `made` and `lists` are (step, what came of it)."""

    script: Script
    transcript: Transcript
    sha256: str
    signers: tuple[Signer, ...]
    made: tuple[tuple[CertifyRoot | Certify | CrossSign, x509.Certificate], ...]
    lists: tuple[tuple[SignCrl, bytes], ...]


def step_sha256(step: Step) -> str:
    """What a transcript calls a step by: of the step as the script has it, without what is as it is by default, so that
    a version that knows further fields calls it the same.
    """
    return sha256_of(msgspec.json.encode(_told(step), order="sorted"))


def _told(value: object) -> object:
    if not isinstance(value, msgspec.Struct):
        return [_told(item) for item in value] if isinstance(value, tuple) else value
    config = value.__struct_config__
    told: dict[str, object] = {} if config.tag_field is None else {config.tag_field: config.tag}
    for one in msgspec.structs.fields(value):
        item = getattr(value, one.name)
        if one.default is msgspec.NODEFAULT or item != one.default:
            told[one.name] = _told(item)
    return told


def read_signatures(result: Result) -> list[Signature]:
    """The signatures in a result, each in its canonical form; Problem RW-CEREMONY otherwise."""
    found = []
    if len(result.signatures) > MOST_SIGNATURES:
        raise Problem("RW-CEREMONY", f"A result has at most {MOST_SIGNATURES} signatures.")
    for raw in result.signatures:
        try:
            signature = msgspec.json.decode(raw, type=Signature)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise Problem("RW-CEREMONY", "A signature in the result cannot be read.") from None
        if msgspec.json.encode(signature, order="sorted") != msgspec.json.format(bytes(raw), indent=-1):
            raise Problem("RW-CEREMONY", "A signature in the result is not in its canonical form: it was changed.")
        found.append(signature)
    return found


def verify_result(
    result: Result,
    *,
    script: bytes | None = None,
    requests: Mapping[str, bytes] | None = None,
    participants: Mapping[str, str] | None = None,
    signatures: int = WITNESSES,
) -> Verified:
    """The result, if it is what it says; Problem RW-CEREMONY with every reason otherwise.

    `script` is the file that was reviewed: the result must be of that one. `requests` are request files by SHA-256:
    what answers one of them is compared with it. `participants` are names with the SHA-256 of the public key that each
    is known by, in place of the script's word. `signatures` is how many are needed; a lab needs one.
    """
    transcript = read_transcript(result.transcript)
    reviewed = read_script(result.script.encode())
    own = sha256_of(result.script.encode())
    faults: list[str] = []
    if script is not None and sha256_of(script) != own:
        faults.append(
            f"The result is of another script: of the one with SHA-256 {own}, and the script given has "
            f"{sha256_of(script)}. It is an old result, or another ceremony's."
        )
    if transcript.script != own:
        faults.append(f"The transcript is of another script: of the one with SHA-256 {transcript.script}.")
    if (transcript.title, transcript.lab) != (reviewed.title, reviewed.lab):
        faults.append("The transcript has another title than the script, or is not of a lab as that is.")
    wanted = tuple((one.file, one.sha256) for one in inputs_of(reviewed))
    if tuple((one.name, one.sha256) for one in transcript.inputs) != wanted:
        faults.append("The transcript's input files are not those of the script.")
    faults += _order(reviewed, transcript)
    faults += _times(transcript)
    replay = _Replay(set_table(reviewed, requests or {}), result, transcript)
    if not faults:
        faults += replay.check()
    signers = _signers(result, reviewed, transcript, faults, participants)
    needed = min(1, signatures) if reviewed.lab else signatures
    if len(signers) < needed:
        faults.append(
            f"{len(signers)} participants have signed, and {needed} are needed, with different names and keys. "
            "Those who have not yet do it with rootward ceremony sign."
        )
    if faults:
        raise Problem.of([Reason("RW-CEREMONY", text) for text in faults])
    digest = hashlib.sha256(result.transcript.encode()).hexdigest()
    return Verified(reviewed, transcript, digest, signers, tuple(replay.made), tuple(replay.lists))


def _order(script: Script, transcript: Transcript) -> Iterator[str]:
    """The transcript's steps are the script's, in its order."""
    wanted, found = [step_sha256(step) for step in script.steps], [record.step for record in transcript.steps]
    for at, digest in enumerate(wanted, start=1):
        if digest not in found:
            yield f"Step {at} of the script is left out of the transcript."
    for at, digest in enumerate(found, start=1):
        if digest not in wanted:
            yield f"Step {at} of the transcript is not in the script."
    if len(wanted) != len(found) and set(wanted) == set(found):
        yield f"The script has {len(wanted)} steps, and the transcript {len(found)}: a step is there twice."
    if sorted(wanted) == sorted(found) and wanted != found:
        yield "The transcript has the steps in another order than the script."
    if [record.number for record in transcript.steps] != list(range(1, len(found) + 1)):
        yield "The transcript's steps are not numbered one after the other."
    kinds = [kind_of(step) for step in script.steps]
    if wanted == found and [record.do for record in transcript.steps] != kinds:
        yield "The transcript calls a step by another word than the script."


def _times(transcript: Transcript) -> Iterator[str]:
    moments = [transcript.began_at]
    for record in transcript.steps:
        moments += [record.began_at, record.ended_at]
    moments.append(transcript.ended_at)
    if moments != sorted(moments):
        yield "The transcript's times do not go forward."
    if any(not transcript.began_at <= one.confirmed_at <= transcript.ended_at for one in transcript.participants):
        yield "A participant confirmed the script outside the time of the ceremony."


@dataclass
class _Replay:
    """The script carried out again without private keys, beside what the result has."""

    table: Table
    result: Result
    transcript: Transcript
    made: list[tuple[CertifyRoot | Certify | CrossSign, x509.Certificate]] = field(default_factory=list)
    lists: list[tuple[SignCrl, bytes]] = field(default_factory=list)
    keys: list[PublicKey] = field(default_factory=list)

    def check(self) -> list[str]:
        certificates, lists = list(self.result.certificates), list(self.result.crls)
        outputs: list[tuple[str, str]] = []
        faults: list[str] = []
        pairs = list(zip(self.table.script.steps, self.transcript.steps, strict=True))
        wanted = [type(step) for step, _ in pairs]
        if len(certificates) != sum(kind in (CertifyRoot, Certify, CrossSign) for kind in wanted) or len(
            lists
        ) != wanted.count(SignCrl):
            return ["The result has not exactly the certificates and CRLs that the script makes."]
        try:
            self._learn_keys(pairs, certificates)
        except Problem as problem:
            return [reason.detail for reason in problem.reasons]
        for step, record in pairs:
            try:
                if isinstance(step, CertifyRoot | Certify | CrossSign):
                    outputs.append((certificate_name(step), self._certificate(step, record, certificates.pop(0))))
                elif isinstance(step, SignCrl):
                    outputs.append((list_name(step), self._list(step, record, lists.pop(0))))
                elif isinstance(step, MakeKey) and step.key in self.table.made:
                    _expect(record.key == self.table.made[step.key].id, "made another key than was certified")
            except Problem as problem:
                faults += [f"Step {record.number} ({record.do}): {reason.detail}" for reason in problem.reasons]
        if not faults and tuple((one.name, one.sha256) for one in self.transcript.outputs) != tuple(outputs):
            faults.append("The transcript's outputs are not those of the result.")
        return faults

    def _learn_keys(self, pairs: list[tuple[Step, Record]], certificates: list[Certified]) -> None:
        """The keys that the ceremony made, from the certificates that it made for them."""
        steps = [step for step, _ in pairs if isinstance(step, CertifyRoot | Certify | CrossSign)]
        for step, certified in zip(steps, certificates, strict=True):
            name = step.key if isinstance(step, CertifyRoot) else step.made if isinstance(step, Certify) else None
            if name is not None and name not in self.table.made:
                self.table.made[name] = certificate_key(_load(certified))
        self.keys = list(self.table.made.values())

    def _certificate(self, step: CertifyRoot | Certify | CrossSign, record: Record, found: Certified) -> str:
        certificate = _load(found)
        key = certificate_key(certificate)
        named = None if isinstance(step, CertifyRoot) else step.request
        at_hand = named is not None and named.sha256 in self.table.files
        requested = key if named is not None else None
        if isinstance(step, Certify) and named is not None:
            _expect(key.id == step.public_key, "the certificate is for another public key than the script's")
            if at_hand:
                certified_key(self.table, step)
        if isinstance(step, CrossSign) and at_hand:
            crossed_certificate(self.table, step)
        draft = draft_step(self.table, step, requested)
        tbs, data = certificate.tbs_certificate_bytes, certificate.public_bytes(Encoding.DER)
        issuer = key if isinstance(step, CertifyRoot) else issuer_of(self.table, step.by).key
        kind = "cross" if isinstance(step, CrossSign) else step.spec.kind
        _expect(draft.tbs == tbs, "the certificate does not say what the script says")
        _expect(der.children(data)[1].whole == draft.algorithm, "the signature algorithm is another one")
        _expect(
            verifies(issuer, certificate.signature, tbs, algorithm=draft.algorithm), "the signature is not the issuer's"
        )
        _expect((found.authority, found.kind) == (step.spec.name, kind), "the result calls it something else")
        self._answers(step, found.request)
        _expect(record.key == issuer.id, "the transcript names another key than the issuer's")
        _expect(record.masked == masked(tbs, self.keys), "the transcript has another hash of what was signed")
        _expect(record.output == sha256_of(data), "the transcript has another hash of the certificate")
        settle(self.table, step, certificate)
        self.made.append((step, certificate))
        return sha256_of(data)

    def _list(self, step: SignCrl, record: Record, found: SignedCrl) -> str:
        issuer = issuer_of(self.table, step.by)
        try:
            data = base64.b64decode(found.crl, validate=True)
            _expect(base64.b64encode(data).decode() == found.crl, "the CRL is not in its canonical form")
            crl = parse_crl(data)
        except (binascii.Error, BadCrl):
            raise Problem("RW-CEREMONY", "the CRL in the result cannot be read.") from None
        at_hand = step.request is None or step.request.sha256 in self.table.files
        draft = draft_list(self.table, step, step_entries(self.table, step) if at_hand else tuple(crl))
        _expect(finish_crl(draft, crl.list.signature) == data, "the CRL does not say what the script says")
        signed = verifies(issuer.key, crl.list.signature, draft.tbs, algorithm=draft.algorithm)
        _expect(signed, "the signature is not the issuer's")
        _expect(found.authority == step.by, "the result calls it another authority's")
        self._answers(step, found.request)
        _expect(record.key == issuer.key_id, "the transcript names another key than the issuer's")
        _expect(record.masked == masked(draft.tbs, self.keys), "the transcript has another hash of what was signed")
        _expect(record.output == sha256_of(data), "the transcript has another hash of the CRL")
        self.lists.append((step, data))
        return sha256_of(data)

    def _answers(self, step: CertifyRoot | Certify | CrossSign | SignCrl, request: str) -> None:
        """The id of the request, as far as it can be known here: of a file that is not at hand it is none of those."""
        named = None if isinstance(step, CertifyRoot) else step.request
        if named is None or named.sha256 in self.table.files:
            _expect(request == request_id(self.table, step), "it answers another request than the script's")
        else:
            _expect(request not in self.others, "it answers another request than the script's")

    @cached_property
    def others(self) -> frozenset[str]:
        """The ids of the requests that are at hand."""
        files = [data for data in self.table.files.values() if data.lstrip()[:1] == b"{"]
        return frozenset(read_paper(data, Request).id for data in files)


def _expect(holds: bool, fault: str) -> None:
    if not holds:
        raise Problem("RW-CEREMONY", f"{fault}.")


def _load(found: Certified) -> x509.Certificate:
    try:
        certificate = x509.load_pem_x509_certificate(found.certificate.encode())
    except UNREADABLE:
        raise Problem("RW-CEREMONY", f"The certificate of {found.authority} in the result cannot be read.") from None
    if certificate.public_bytes(Encoding.PEM).decode() != found.certificate:
        raise Problem("RW-CEREMONY", f"The certificate of {found.authority} in the result is not in its one form.")
    return certificate


def _signers(
    result: Result,
    script: Script,
    transcript: Transcript,
    faults: list[str],
    known: Mapping[str, str] | None,
) -> tuple[Signer, ...]:
    """Those whose signature counts; what is wrong with the others goes to `faults`, each by name."""
    invited = {person.name: person for person in script.participants}
    present = {one.name: one for one in transcript.participants}
    for name, one in present.items():
        if name not in invited or invited[name].role != one.role:
            faults.append(f"{name} took part, and the script has no {one.role} of that name.")
    if len(present) != len(transcript.participants):
        faults.append("A participant is in the transcript twice.")
    found: list[Signer] = []
    for signature in read_signatures(result):
        key = good_signature(signature, result.transcript)
        name = signature.name
        person = invited.get(name)
        expected = None if known is None else known.get(name)
        if expected is None and known is None and person is not None and person.key:
            expected = participant_key(person.key).id
        if key is None:
            faults.append(f"The signature of {name} is not over this transcript, or not by that key.")
        elif person is None:
            faults.append(f"{name} has signed, and is no participant of the script.")
        elif name not in present:
            faults.append(f"{name} has signed, and took no part in the ceremony.")
        elif signature.role != person.role:
            faults.append(f"{name} has signed as {signature.role}, and is {person.role}.")
        elif expected != key.id and not (script.lab and expected is None and known is None):
            faults.append(f"{name} has signed with another key than the one that {name} is known by.")
        elif name in [one.name for one in found]:
            faults.append(f"{name} has signed twice.")
        elif key.id in [one.key_id for one in found]:
            faults.append(f"{name} has signed with the key of another participant.")
        else:
            found.append(Signer(name, signature.role, key.id))
    return tuple(found)
