"""The files that travel between an installation and a ceremony: requests out, one result back.

Each is one JSON file in one canonical form with a kind and a version, so that it fits on whatever can be carried, is
read by people, and is known by its SHA-256. A request says what an offline authority is asked to sign; the ceremony's
script decides. A result holds everything that comes back, with its transcript and the signatures under that.
"""

from __future__ import annotations

import base64
import hashlib
from datetime import datetime
from typing import Annotated, Literal, TypeVar

import msgspec

from rootward.core.hierarchy import AuthoritySpec
from rootward.core.problems import Problem, shown

LARGEST = 64 * 1024 * 1024

Hex = Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f]{2})*\Z")]
Utc = Annotated[datetime, msgspec.Meta(tz=True)]
Sha256 = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]


class Revoked(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One entry of a CRL: `serial` DER content octets in hex, `reason` an RFC 5280 name."""

    serial: Hex
    revoked_at: Utc
    reason: str


class Certify(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="wants", tag="certify"):
    """Certify an authority under `by`: its specification, and the CSR (PEM) that proves its key."""

    by: str
    spec: AuthoritySpec
    csr: str


class SignCrl(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="wants", tag="crl"):
    """Sign the next CRL of `by`, whose key has `issuer_key` (SHA-256 of its SPKI): with all `entries`, and a number of
    at least `number`.
    """

    by: str
    issuer_key: Sha256
    entries: tuple[Revoked, ...]
    number: int
    lifetime: str


class CrossSign(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="wants", tag="cross"):
    """Certify the name and key of `certificate` (PEM, another CA's) under `by`, as `spec` has it."""

    by: str
    spec: AuthoritySpec
    certificate: str


Wanted = Certify | SignCrl | CrossSign


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What an installation (by the id of its store) asks of the ceremony of one offline authority.

    `issuer` is the certificate (PEM) of the authority that shall sign, empty where it is not made yet.
    """

    format: Literal["rootward-request"] = "rootward-request"
    version: Literal[1] = 1
    id: str
    installation: str
    made_at: Utc
    pki_url: str
    issuer: str
    wanted: Wanted


class Certified(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A certificate that a ceremony made. `request` is the id of what asked for it, empty where the script did."""

    authority: str
    kind: Literal["root", "policy", "issuing", "cross"]
    certificate: str  # PEM
    request: str = ""


class SignedCrl(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A CRL that a ceremony made: base64 of its DER."""

    authority: str
    crl: str
    request: str = ""


class Result(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Everything that comes back. `script` is the YAML script's text as it was confirmed, `transcript` the transcript's
    canonical JSON text, `signatures` those of participants over it (`core.transcript`).
    """

    format: Literal["rootward-result"] = "rootward-result"
    version: Literal[1] = 1
    certificates: tuple[Certified, ...] = ()
    crls: tuple[SignedCrl, ...] = ()
    script: str
    transcript: str
    signatures: tuple[msgspec.Raw, ...] = ()


T = TypeVar("T", Request, Result)


def write(document: Request | Result) -> bytes:
    """The file's bytes: indented JSON with sorted names, for people and for hashing."""
    return msgspec.json.format(msgspec.json.encode(document, order="sorted"), indent=2) + b"\n"


def sha256(document: Request | Result) -> str:
    """Of the file's bytes, lower-case hex."""
    return hashlib.sha256(write(document)).hexdigest()


def read(data: bytes, kind: type[T]) -> T:
    """The inverse of `write`. Problem RW-TOO-LARGE; RW-CEREMONY where it is another file, or not in that one form: then
    it was changed after it was made.
    """
    if len(data) > LARGEST:
        raise Problem("RW-TOO-LARGE", f"Such a file has at most {LARGEST} bytes.")
    try:
        document = msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Problem("RW-CEREMONY", f"This is no {kind.__name__.lower()} file: {shown(str(error))}.") from None
    if write(document) != data:
        raise Problem("RW-CEREMONY", "The file is not in the form in which such files are written: it was changed.")
    return document


def der_text(der: bytes) -> str:
    """Base64 without line breaks, as CRLs stand in a result."""
    return base64.b64encode(der).decode()
