"""Checking a backup without writing anything: it opens to its end, everything in it is as it says, and what is in it
fits together.

Damage ends the check at once (a Problem): behind it nothing can be believed. What does not fit is a finding, and the
check goes on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from rootward import config as settings
from rootward.backup import form
from rootward.core.problems import Problem, shown
from rootward.core.pubkey import public_key_of
from rootward.keys import Kek, Ring, envelope, kek_from_bytes, kek_from_credential, ring
from rootward.keys.stream import SealedReader
from rootward.store import migrations

Seen = Callable[[int, int], None]  # bytes read, bytes in all
_KEY: Final = re.compile(r"keys/(?P<label>[a-z0-9-]{1,64})-(?P<id>[0-9a-f]{16})\.key", re.ASCII)
_LARGEST_KEPT: Final = 1024 * 1024  # bytes of a small file that is looked into
_MOST_KEYS: Final = 10_000


@dataclass(frozen=True)
class Verified:
    """What the backup says of itself, what was in it, and what does not fit."""

    head: form.Head
    counts: form.Counts
    findings: list[str]
    notes: list[str]


@dataclass
class _Issuer:
    authority: str
    key_id: str
    backend: str | None
    der: bytes


@dataclass
class Inspection:
    """Looks at everything that goes by: `table` and `file` give it on as it came. `settle` says what does not fit."""

    head: form.Head
    environ: Mapping[str, str]
    _facts: dict[str, str] = field(default_factory=dict)
    _issuers: dict[int, _Issuer] = field(default_factory=dict)
    _authorities: list[dict[str, Any]] = field(default_factory=list)
    _claimed: dict[tuple[Any, Any], int] = field(default_factory=dict)
    _published: dict[tuple[Any, Any], int] = field(default_factory=dict)
    _leaves: int = 0
    _events: int = 0
    _small: dict[str, bytes] = field(default_factory=dict)

    def table(self, section: form.Table) -> Iterator[list[tuple[Any, ...]]]:
        """The table's batches, looked at."""
        look = {
            "facts": self._fact,
            "authorities": self._authority,
            "issuers": self._issuer,
            "crls": self._crl,
            "crl_numbers": self._number,
            "events": self._event,
        }.get(section.name)
        for batch in section.batches:
            if look is not None:
                for row in batch:
                    look(dict(zip(section.columns, row, strict=True)))
            yield batch

    def file(self, section: form.File) -> Iterator[bytes]:
        """The file's pieces; the small ones that must open are kept."""
        kept = bytearray()
        for piece in section.pieces:
            if len(kept) <= _LARGEST_KEPT:
                kept += piece
            yield piece
        if len(kept) <= _LARGEST_KEPT and len(self._small) < _MOST_KEYS:
            self._small[section.name] = bytes(kept)

    def settle(self) -> tuple[list[str], list[str]]:
        """What does not fit together, and what could not be checked."""
        findings, notes = list(self._head()), list[str]()
        findings += self._numbers()
        try:
            kek = self._kek(notes)
        except Problem as problem:
            findings.append(problem.detail)
            kek = None
        for label, key_id, sealed in self._keys():
            if kek is not None:
                try:
                    envelope.unseal(sealed, label=label, public_id=key_id, kek=kek)
                except Problem as problem:
                    findings.append(problem.detail)
        findings += self._authorities_keys()
        return findings, notes

    def _head(self) -> Iterator[str]:
        if self._facts.get("instance.id") != self.head.instance:
            yield "The installation's id in the tables is not the one that the backup says."
        if self.head.schema > migrations.NEWEST:
            yield f"Its tables are of version {self.head.schema}; this program knows {migrations.NEWEST}."
        if self._events != self.head.events:
            yield f"The backup says that there are {self.head.events} events, and has {self._events}."
        if self._leaves != self.head.leaves:
            yield f"The audit tree should have {self.head.leaves} leaves; {self._leaves} events have one."
        roots = [one.der for one in self._issuers.values() if one.backend is None]
        if roots and not any(self._is_root(der) for der in roots):
            yield "root.pem is not there, or is none of the installation's roots."

    def _is_root(self, der: bytes) -> bool:
        wanted = x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM)
        return wanted.strip() in self._small.get("root.pem", b"")

    def _numbers(self) -> Iterator[str]:
        for key, number in self._published.items():
            issuer = self._issuers.get(key[0])  # an offline one's numbers come from its ceremonies
            online = issuer is None or issuer.backend is not None
            if online and key in self._claimed and self._claimed[key] < number:
                yield f"Issuer {key[0]} has a CRL of number {number}, above the last one claimed."

    def _kek(self, notes: list[str]) -> Kek | None:
        text = self._small.get(settings.FILE_NAME, b"").decode("utf-8", "replace")
        source = _source(text)
        kind, _, rest = source.partition(":")
        if kind == "credential":
            if "CREDENTIALS_DIRECTORY" in self.environ:
                return kek_from_credential(rest, self.environ)
            notes.append(f"The key files are sealed with {shown(source)}, which no backup has; they were not opened.")
            return None
        data = self._small.get(rest, self._small.get("kek"))
        if data is None:
            raise Problem("RW-KEK", "The key-encryption key is not in the backup.")
        found = [kek_from_bytes(data, "The kek in the backup")]
        old = self._small.get(f"{rest}{ring.OLD}", self._small.get(f"kek{ring.OLD}"))
        if old is not None:  # it was being changed
            found.append(kek_from_bytes(old, f"The kek{ring.OLD} in the backup"))
        return Ring(lambda: found)

    def _keys(self) -> Iterator[tuple[str, str, bytes]]:
        """Label, whole public id and bytes of each key file; the id is the header's, which `unseal` proves."""
        for name, data in self._small.items():
            match = _KEY.fullmatch(name)
            if match is not None:
                try:
                    header = envelope.read_header(data)
                except Problem:
                    yield match["label"], match["id"], data  # `unseal` says what is wrong
                    continue
                yield match["label"], header.public_id, data

    def _authorities_keys(self) -> Iterator[str]:
        there = {(label, key_id) for label, key_id, _ in self._keys()}
        newest = {one.authority: one for _, one in sorted(self._issuers.items())}
        for one in newest.values():
            certificate = x509.load_der_x509_certificate(one.der)
            if public_key_of(certificate.public_key()).id != one.key_id:
                yield f"The certificate of {shown(one.authority)} is of another key than its row says."
            elif one.backend == "file" and (one.authority, one.key_id) not in there:
                yield f"The key of {shown(one.authority)} is not in the backup."
        for row in self._authorities:
            if row["name"] in newest:
                continue
            if row.get("requested_at") is None:
                yield f"The authority {shown(row['name'])} has no certificate."
            elif row["backend"] == "file" and (row["name"], row["key_id"]) not in there:
                yield f"The key of {shown(row['name'])}, which waits for its certificate, is not in the backup."

    def _fact(self, row: dict[str, Any]) -> None:
        self._facts[row["name"]] = row["data"]

    def _authority(self, row: dict[str, Any]) -> None:
        self._authorities.append(row)

    def _issuer(self, row: dict[str, Any]) -> None:
        self._issuers[row["n"]] = _Issuer(row["authority"], row["key_id"], row["backend"], row["certificate"])

    def _crl(self, row: dict[str, Any]) -> None:
        key = row["issuer"], row["scope"]
        self._published[key] = max(self._published.get(key, 0), row["number"])

    def _number(self, row: dict[str, Any]) -> None:
        self._claimed[row["issuer"], row["scope"]] = row["number"]

    def _event(self, row: dict[str, Any]) -> None:
        self._events += 1
        self._leaves += row["leaf"] is not None


def opened(file: BinaryIO, passphrase: Kek) -> form.Reader:
    """The backup in `file`; Problem of `SealedReader` or `form.Reader`."""
    return form.Reader(SealedReader(file, passphrase))


def verify(path: Path, passphrase: Kek, environ: Mapping[str, str], seen: Seen) -> Verified:
    """Read a backup to its end. Problem RW-BACKUP-FORMAT, RW-BACKUP-PASSPHRASE or RW-BACKUP-DAMAGED."""
    with path.open("rb") as file:
        size = path.stat().st_size
        reader = opened(file, passphrase)
        inspection = Inspection(reader.head, environ)
        for section in reader.sections():
            parts = inspection.table(section) if isinstance(section, form.Table) else inspection.file(section)
            for _ in parts:
                seen(file.tell(), size)
        findings, notes = inspection.settle()
    return Verified(reader.head, reader.counts, findings, notes)


def _source(text: str) -> str:
    """`kek.source` of a rootward.toml."""
    import tomllib

    try:
        found = tomllib.loads(text).get("kek", {}).get("source", settings.Kek().source)
    except (tomllib.TOMLDecodeError, AttributeError) as error:
        raise Problem("RW-CONFIG", f"The backup's {settings.FILE_NAME} cannot be read: {error}.") from error
    return str(found)
