"""A signer's home: what its administrator put there, as files that people can read.

signer.toml  kek  keys/  authorities/NAME.json (CSR, then certificate and chain)  profiles/NAME.json (the accepted
version)  journal.db  lock. Only the commands on this host write the first five, and only the process writes the last
two.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, TypeVar

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from rootward.ca.sign import sign
from rootward.config import KeyStore, secret_path, toml_value
from rootward.core import answer
from rootward.core.authority import AuthoritySpec, subject_of
from rootward.core.csr_draft import draft_csr, finish_csr
from rootward.core.issuer import Issuer
from rootward.core.links import Link
from rootward.core.own import VERSION
from rootward.core.pinned import Pinned
from rootward.core.plan import Policy
from rootward.core.problems import Problem, Reason, shown
from rootward.core.profile import Profile, check_name, check_profile, profile_json
from rootward.core.pubkey import public_key_of
from rootward.keys import (
    BACKENDS,
    Backend,
    Key,
    KeySettings,
    check_fits,
    create_kek_file,
    kek_from_credential,
    kek_from_file,
)
from rootward.keys.disk import read as read_secret
from rootward.keys.disk import replace
from rootward.keys.pin import pin_file, pin_prompt
from rootward.signer.settings import EXAMPLE, FILE, Settings, parse_settings

AUTHORITIES: Final = "authorities"
PROFILES: Final = "profiles"
_FOLDERS: Final = (AUTHORITIES, PROFILES)
_CODE: Final = "RW-HOME"
_LARGEST: Final = 1024 * 1024
_SERIAL: Final = re.compile(r"[0-9a-f]{40}", re.ASCII)


class Authority(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """authorities/NAME.json. `chain` is PEM, the authority's own certificate first; empty until it is installed.
    `let_go` are serials (hex) that may be missing from its CRLs.
    """

    name: str
    key_id: str
    csr: str
    pki_url: str = ""
    chain: tuple[str, ...] = ()
    let_go: tuple[str, ...] = ()


class Accepted(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """profiles/NAME.json: the one version of a profile that this signer signs under."""

    version: int
    sha256: str
    accepted_at: datetime
    profile: Profile


@dataclass(frozen=True)
class Held:
    """A key of this signer's; `pinned` is None until its authority is installed."""

    authority: Authority
    key: Key
    csr: bytes
    pinned: Pinned | None


T = TypeVar("T", Authority, Accepted)


def make(home: Path, *, socket: Path, peers: list[str]) -> None:
    """A signer's home with its settings and a key-encryption key. Problem RW-HOME where there is one, RW-CONFIG where
    these are no settings; then nothing is made.
    """
    if (home / FILE).exists():
        raise Problem(_CODE, f"{home} is a signer's home already.")
    users = tuple(int(peer) if peer.isdecimal() else peer for peer in peers)
    text = EXAMPLE.format(socket=toml_value(str(socket)), peers=toml_value(users))
    parse_settings(home, text)
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    home.chmod(0o700)
    for name in _FOLDERS:
        (home / name).mkdir(mode=0o700, exist_ok=True)
    if not (home / "kek").exists():
        create_kek_file(home / "kek")
    replace(home / FILE, text.encode(), mode=0o600)


def open_store(settings: Settings, environ: Mapping[str, str]) -> Backend:
    """Where this signer's keys are."""
    store = settings.store
    if store is None:
        kind, _, rest = settings.kek.partition(":")
        kek = kek_from_credential(rest, environ) if kind == "credential" else kek_from_file(settings.home / rest)
        return BACKENDS["file"](KeySettings(folder=settings.home / "keys", kek=kek))
    if store.backend == "signer" or store.backend not in BACKENDS:
        raise Problem("RW-CONFIG", f"{settings.home / FILE}: store: there is no key backend {store.backend} here.")
    pin = _pin(store, settings.home, environ)
    return BACKENDS[store.backend](KeySettings(store="store", uri=store.uri, pin=pin, endpoint=store.endpoint))


def _pin(store: KeyStore, home: Path, environ: Mapping[str, str]) -> Callable[[], bytes] | None:
    if store.pin == "":
        return None
    if store.pin == "prompt":
        return pin_prompt()
    return pin_file(secret_path(store.pin, home, environ))


# What the administrator puts there


def generate(settings: Settings, store: Backend, spec: AuthoritySpec) -> Authority:
    """A new key for an authority, and the CSR that gets it certified. Problem RW-CONFLICT where it has one,
    RW-KEY-TYPE where such a key could not sign a CRL there.
    """
    name = spec.name
    check_name(name, field="name", code="RW-FIELD")
    check_fits(store, spec.key_algorithm, spec.rsa_signature)
    if (settings.home / AUTHORITIES / f"{name}.json").exists():
        raise Problem("RW-CONFLICT", f"This signer has a key for {name} already. A new key is a new authority.")
    key = store.generate(name, spec.key_algorithm)
    draft = draft_csr(key.public, subject=subject_of(spec))
    csr = x509.load_der_x509_csr(finish_csr(draft, sign(key, key.public, draft)))
    made = Authority(name, key.public.id, csr.public_bytes(Encoding.PEM).decode())
    _write(settings.home, AUTHORITIES, made)
    return made


def install(settings: Settings, name: str, chain: bytes, pki_url: str) -> Authority:
    """Pin an authority's certificate with its chain up to the root (PEM, in order), and where what it signs points to.

    Problems: RW-NOT-FOUND, RW-KEY-MISMATCH where it is not this key's, RW-CERTIFICATE with every reason why it is no
    chain, RW-FIELD.
    """
    known = authority(settings.home, name)
    certificates = answer.read_certificates(chain, field="chain")
    if not certificates or public_key_of(certificates[0].public_key()).id != known.key_id:
        raise Problem("RW-KEY-MISMATCH", f"The first certificate is not for the key of {name} that this signer has.")
    reasons = [*answer.check_above(certificates, now=_now()), *answer.may_certify(Link(certificates[0]))]
    if reasons:
        raise Problem.of(reasons)
    if not pki_url.startswith(("http://", "https://")) or pki_url.endswith("/"):
        raise Problem("RW-FIELD", f"{shown(pki_url)} is not a URL without a slash at its end.", field="pki_url")
    made = msgspec.structs.replace(
        known, pki_url=pki_url, chain=tuple(one.public_bytes(Encoding.PEM).decode() for one in certificates)
    )
    Policy(
        settings.own(name)[0], VERSION, issuer_of(settings, made)
    )  # Problem where no relying party would take what it signs
    _write(settings.home, AUTHORITIES, made)
    return made


def accept(settings: Settings, profile: Profile, version: int) -> Accepted:
    """Pin this version of a profile, in the place of the one before. Problem RW-PROFILE-INVALID, RW-NOT-FOUND."""
    check_profile(profile)
    Policy(profile, version, issuer_of(settings, authority(settings.home, profile.authority)))
    digest = hashlib.sha256(profile_json(profile)).hexdigest()
    made = Accepted(version, digest, _now(), profile)
    _write(settings.home, PROFILES, made)
    return made


def forget(home: Path, name: str) -> None:
    """Accept no version of this profile any more. Problem RW-NOT-FOUND."""
    check_name(name, field="profile", code="RW-FIELD")
    try:
        (home / PROFILES / f"{name}.json").unlink()
    except FileNotFoundError:
        raise Problem("RW-NOT-FOUND", f"No version of the profile {name} is accepted here.") from None


def let_go(home: Path, name: str, serials: Iterable[str]) -> None:
    """Allow revoked certificates of these serials (hex) to be missing from the authority's CRLs, for good. Problems
    RW-NOT-FOUND, RW-FIELD.
    """
    known = authority(home, name)
    for serial in serials:
        if not _SERIAL.fullmatch(serial):
            raise Problem("RW-FIELD", f"{shown(serial)} is no serial of 40 hex digits.", field="serial")
    _write(home, AUTHORITIES, msgspec.structs.replace(known, let_go=tuple(sorted({*known.let_go, *serials}))))


# Reading


def authority(home: Path, name: str) -> Authority:
    """The authority of that name. Problem RW-NOT-FOUND."""
    found = {one.name: one for one in _read(home, AUTHORITIES, Authority)}.get(name)
    if found is None:
        raise Problem("RW-NOT-FOUND", f"This signer has no key for {shown(name)}. rootward signer generate makes one.")
    return found


def authorities(home: Path) -> list[Authority]:
    """Every authority, by name."""
    return _read(home, AUTHORITIES, Authority)


def accepted(home: Path) -> list[Accepted]:
    """Every accepted profile, by name."""
    return _read(home, PROFILES, Accepted)


def check_tables(settings: Settings) -> None:
    """Problem RW-CONFIG for limits of an authority that is not there: misspelt, they would hold for nobody."""
    there = {one.name for one in authorities(settings.home)}
    reasons = [
        Reason(
            "RW-CONFIG",
            f"{settings.home / FILE}: authorities.{name}: this signer has no key for {shown(name)}. Correct the name, "
            "or make the key first: rootward signer generate.",
            f"authorities.{name}",
        )
        for name in sorted(settings.authorities)
        if name not in there
    ]
    if reasons:
        raise Problem.of(reasons)


def stamp(home: Path) -> tuple[tuple[str, int, int], ...]:
    """Changes whenever the pinned files do. Problem RW-HOME where their folders cannot be read."""
    found = []
    for name in _FOLDERS:
        for entry in _files(home, name):
            with suppress(FileNotFoundError):  # forgotten since the folder was read
                found.append((entry.path, entry.inode(), entry.stat().st_mtime_ns))
    return tuple(found)


def load(settings: Settings, store: Backend, held: Mapping[str, Held] | None = None) -> dict[str, Held]:
    """Every key by its id, with what is pinned for it. A key that is not there is fatal; see `Backend.load`. Keys that
    are `held` already are not asked for again: what is pinned changes also while their store is away.
    """
    known, pinned, before = authorities(settings.home), accepted(settings.home), held or {}
    forbidden = frozenset(one.key_id for one in known)
    loaded = {}
    for one in known:
        csr = x509.load_pem_x509_csr(one.csr.encode()).public_bytes(Encoding.DER)
        key = before[one.key_id].key if one.key_id in before else store.load(one.name, one.key_id)
        loaded[one.key_id] = Held(one, key, csr, _pinned(settings, one, pinned, forbidden) if one.chain else None)
    return loaded


def _pinned(settings: Settings, one: Authority, accepted: list[Accepted], forbidden: frozenset[str]) -> Pinned:
    issuer = issuer_of(settings, one)
    policies = {
        found.profile.name: Policy(found.profile, found.version, issuer)
        for found in accepted
        if found.profile.authority == one.name
    }
    policies |= {own.name: Policy(own, VERSION, issuer) for own in settings.own(one.name)}
    return Pinned(issuer, settings.limits(one.name), policies, forbidden, frozenset(map(bytes.fromhex, one.let_go)))


def issuer_of(settings: Settings, one: Authority) -> Issuer:
    """The authority as it signs. Problem RW-CONFLICT until it is installed."""
    if not one.chain:
        raise Problem("RW-CONFLICT", f"{one.name} has no certificate here yet: rootward signer install {one.name}.")
    chain = tuple(x509.load_pem_x509_certificate(pem.encode()) for pem in one.chain)
    how = settings.limits_table(one.name).rsa_signature
    return Issuer(one.name, chain[0], chain, one.pki_url, rsa_signature=how)


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def _files(home: Path, folder: str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(home / folder) as entries:
            return sorted((one for one in entries if one.name.endswith(".json")), key=lambda one: one.name)
    except OSError as error:
        raise Problem(_CODE, f"{home / folder} cannot be read: {error.strerror}.") from error


def _read(home: Path, folder: str, kind: type[T]) -> list[T]:
    found = []
    for path in (Path(entry.path) for entry in _files(home, folder)):
        try:
            data = read_secret(path, code=_CODE, limit=_LARGEST)
        except FileNotFoundError:
            continue  # forgotten since the folder was read
        try:
            one = msgspec.json.decode(data, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise Problem(_CODE, f"{path} cannot be read: {shown(str(error), 200)}.") from None
        if isinstance(one, Authority):
            _check_parts(path, one)
        if isinstance(one, Accepted):
            check_profile(one.profile)
            if hashlib.sha256(profile_json(one.profile)).hexdigest() != one.sha256:
                raise Problem(_CODE, f"{path} was changed after it was accepted: its SHA-256 is another one.")
        found.append(one)
    return found


def _check_parts(path: Path, one: Authority) -> None:
    """What is made of them later fails no more."""
    try:
        x509.load_pem_x509_csr(one.csr.encode())
        links = [Link(x509.load_pem_x509_certificate(pem.encode())) for pem in one.chain]
        faults = [link.fault for link in links]
        faults += [reason.detail for link in links[:1] for reason in answer.may_certify(link)]
        for serial in one.let_go:
            bytes.fromhex(serial)
    except (ValueError, x509.InvalidVersion) as error:
        faults = [f"{shown(str(error), 200)}."]
    for fault in filter(None, faults):
        raise Problem(_CODE, f"{path} cannot be read: {fault}")


def _write(home: Path, folder: str, value: Authority | Accepted) -> None:
    name = value.name if isinstance(value, Authority) else value.profile.name
    data = msgspec.json.format(msgspec.json.encode(value, order="deterministic"), indent=2) + b"\n"
    replace(home / folder / f"{name}.json", data, mode=0o600)
