"""Ceremonies for tests: keys of this process in place of media, and a lab's two-tier script."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from hashlib import sha256
from itertools import count

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from rootward.ca import ceremony
from rootward.ca.ceremony import Keys
from rootward.ca.sign import sign
from rootward.core import paperwork
from rootward.core.csr_draft import draft_csr, finish_csr
from rootward.core.minutes import Attendance, Signature, Software
from rootward.core.participants import Participant, Role
from rootward.core.pubkey import KeyAlgorithm, PublicKey
from rootward.core.script import Script, read_script, write_script
from rootward.keys import BACKENDS, Backend, Key, KeySettings
from rootward.keys.participant import sign_transcript


@dataclass
class MemoryKeys(Keys):
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


AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
PKI_URL = "http://pki.example.com"
PEOPLE: dict[str, Role] = {"Ada": "master", "Bob": "witness", "Cyd": "witness", "Dan": "operator"}


@cache
def person_key(name: str) -> Ed25519PrivateKey:
    """A participant's own key: the same for the same name, by a digest of it."""
    return Ed25519PrivateKey.from_private_bytes(sha256(name.encode()).digest())


def public_hex(name: str) -> str:
    """As scripts have it."""
    return person_key(name).public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex()


def two_tier(
    request: paperwork.Request, *, people: Mapping[str, Role] = PEOPLE, algorithm: KeyAlgorithm = KeyAlgorithm.P384
) -> Script:
    """A real ceremony's script: a root, the issuing CA of the request, the root's first CRL. Dan has no key."""
    script = ceremony.lab_script(request, at=AT, serials=(bytes(20), bytes([1] * 20)), algorithm=algorithm)
    listed = tuple(Participant(name, role, "" if name == "Dan" else public_hex(name)) for name, role in people.items())
    return msgspec.structs.replace(script, lab=False, title="Root of Example", participants=listed)


def asked(id: str = "req-1", *, algorithm: KeyAlgorithm = KeyAlgorithm.P256) -> paperwork.Request:
    """A request for an issuing CA with a new key."""
    key = MemoryKeys().make("issuing", algorithm)
    request = ceremony.lab_request(organization="Example", pki_url=PKI_URL, csr_pem=csr_pem(key), at=AT, id=id)
    return with_key_algorithm(request, algorithm)


@dataclass
class Held:
    """A ceremony that was held with keys of this process."""

    script: bytes
    files: dict[str, bytes]
    result: paperwork.Result
    done: tuple[ceremony.Done, ...]

    @property
    def reviewed(self) -> Script:
        """The script as it is read."""
        return read_script(self.script)


def hold(
    script: Script, files: dict[str, bytes], *, here: Iterable[str] = ("Ada", "Bob", "Cyd"), keys: Keys | None = None
) -> Held:
    """Hold it, a second for each reading of the clock; nobody has signed yet."""
    data = write_script(script)
    ticks = count()

    def clock() -> datetime:
        return AT + timedelta(seconds=next(ticks))

    began = clock()
    roles = {one.name: one.role for one in script.participants}
    present = tuple(Attendance(name, roles[name], clock(), "group 1 of 16") for name in here)
    done = tuple(ceremony.perform(script, keys or MemoryKeys(), files, clock=clock))
    room = ceremony.Room(SOFTWARE, ("no network",), present, began)
    return Held(data, files, ceremony.result(data, script, done, room, ended_at=clock()), done)


SOFTWARE = Software(rootward="0", files="0" * 64, python="3", cryptography="50", openssl="4")


def signature(result: paperwork.Result, name: str, role: Role, *, key: str | None = None) -> Signature:
    """By the participant's own key, or by another one's."""
    return sign_transcript(person_key(key or name), result.transcript, name=name, role=role)


def signed_by(held: Held, *names: str) -> paperwork.Result:
    """The result with the signatures of these participants."""
    result = held.result
    roles = {one.name: one.role for one in held.reviewed.participants}
    for name in names:
        result = ceremony.signed(result, signature(held.result, name, roles[name]))
    return result


@cache
def witnessed() -> Held:
    """A two-tier ceremony at which Ada, Bob and Cyd were, signed by Ada and Bob."""
    request = asked()
    held = hold(two_tier(request), {paperwork.sha256(request): paperwork.write(request)})
    held.result = signed_by(held, "Ada", "Bob")
    return held
