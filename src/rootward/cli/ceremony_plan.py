"""`rootward ceremony plan`: a first draft of a script, from request files and a few options. People review and edit it;
nothing that it decides is decided by it alone.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509

from rootward.ca.ceremony import ROOT_DEPTH
from rootward.cli.failure import USAGE, Failure
from rootward.core import paperwork
from rootward.core.hierarchy import AuthoritySpec
from rootward.core.paperwork import Request
from rootward.core.participants import Participant, Role
from rootward.core.plan import make_serial
from rootward.core.pubkey import KeyAlgorithm
from rootward.core.script import (
    Certify,
    CertifyRoot,
    CrossSign,
    FileKey,
    Input,
    KeyPlace,
    MakeKey,
    Present,
    Script,
    SignCrl,
    Step,
    TokenKey,
    sha256_of,
    write_script,
)
from rootward.core.subordinate import read_ca_request
from rootward.core.times import parse_duration, rfc3339

_HEAD = """# A draft: read every line, change what is not meant, and have somebody else read it too.
# The SHA-256 of this file, comments included, is what everybody confirms: sha256sum {name}
# docs/ceremonies/script.md explains it line by line.
"""


@dataclass(frozen=True)
class Wishes:
    """What the options say. `people` are (role, name or NAME=KEY); `root` is a new one's name, `under` (name, PEM) one
    that is there.
    """

    title: str | None
    org: str
    lab: bool
    at: datetime
    pki_url: str | None
    root: str | None
    under: tuple[str, str] | None
    people: Sequence[tuple[Role, str]]
    threshold: int
    token: str | None
    folder: str | None
    algorithm: KeyAlgorithm
    crl: bool
    crl_lifetime: str


def draft_script(wishes: Wishes, requests: Sequence[tuple[Path, bytes]], name: str) -> bytes:
    """The file's bytes. Failure where the options say too little, Problem for a request that is none."""
    read = [(path, paperwork.read(data, Request), sha256_of(data)) for path, data in requests]
    authority = wishes.root or (wishes.under[0] if wishes.under else None)
    if authority is None or (wishes.root and wishes.under):
        raise Failure(
            "Name the authority that signs.",
            "--root NAME makes a new one, --under NAME=FILE takes one that is there; one of them.",
            exit=USAGE,
        )
    url = wishes.pki_url or next((request.pki_url for _, request, _ in read), None)
    if url is None:
        raise Failure("The address of the PKI is not known.", "No request says it.", next="Add --pki-url.", exit=USAGE)
    script = Script(
        format="rootward-ceremony",
        version=1,
        title=wishes.title or f"Ceremony of {authority}",
        lab=wishes.lab,
        at=rfc3339(wishes.at),
        pki_url=url,
        participants=tuple(_people(wishes.people)),
        keys={authority: _place(wishes, authority)},
        steps=tuple(_steps(wishes, authority, read)),
        authorities={wishes.under[0]: Present(wishes.under[1], authority)} if wishes.under else {},
    )
    return _HEAD.format(name=name).encode() + b"\n" + write_script(script)


def _people(people: Sequence[tuple[Role, str]]) -> Iterator[Participant]:
    for role, text in people:
        name, _, key = text.partition("=")
        yield Participant(name.strip(), role, key.strip())


def _place(wishes: Wishes, name: str) -> KeyPlace:
    custodians = tuple(text.partition("=")[0].strip() for role, text in wishes.people if role == "custodian")
    threshold = (wishes.threshold or len(custodians) // 2 + 1) if custodians else 0
    folder = wishes.folder or f"{name}-key"
    if wishes.token is not None:
        return TokenKey(wishes.token, folder if custodians else "", custodians, threshold)
    return FileKey(folder, custodians, threshold)


def _steps(wishes: Wishes, authority: str, read: Sequence[tuple[Path, Request, str]]) -> Iterator[Step]:
    if wishes.root is not None:
        spec = AuthoritySpec(
            name=authority,
            kind="root",
            common_name=f"{wishes.org} Root CA",
            organization=wishes.org,
            key_algorithm=wishes.algorithm,
            lifetime="10y",
            path_length=ROOT_DEPTH,
        )
        yield MakeKey(authority, wishes.algorithm)
        yield CertifyRoot(authority, _serial(), spec)
    listed = False
    for path, request, digest in read:
        wanted = request.wanted
        named = Input(path.name, digest)
        match wanted:
            case paperwork.Certify():
                key = read_ca_request(wanted.csr.encode()).key.id
                yield Certify(wanted.by, _serial(), wanted.spec, request=named, public_key=key)
            case paperwork.CrossSign():
                yield CrossSign(wanted.by, wanted.certificate, _serial(), wanted.spec, request=named)
            case paperwork.SignCrl():
                listed = True
                number = max(wanted.number, int(wishes.at.timestamp() * 1000))
                until = wishes.at + parse_duration(wanted.lifetime)
                yield SignCrl(wanted.by, number, rfc3339(wishes.at), rfc3339(until), request=named)
    if wishes.root is not None or (wishes.crl and not listed):
        until = wishes.at + parse_duration(wishes.crl_lifetime)
        yield SignCrl(authority, int(wishes.at.timestamp() * 1000), rfc3339(wishes.at), rfc3339(until))


def _serial() -> str:
    return make_serial(secrets.token_bytes(20)).hex()


def next_day(now: datetime) -> datetime:
    """Midnight of the day after: when a ceremony is likely held, and a date that is easily read."""
    return (now + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)


def certificate_of(text: str) -> tuple[str, str]:
    """(name, PEM) of NAME=FILE; Failure where it is not that."""
    name, _, file = text.partition("=")
    try:
        data = Path(file).read_bytes()
        x509.load_pem_x509_certificates(data)
    except (OSError, ValueError) as error:
        raise Failure(f"--under {text}: NAME=FILE with a certificate in PEM.", f"{error}.", exit=USAGE) from error
    return name, data.decode()
