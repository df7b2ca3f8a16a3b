"""The one shape of every refusal and failure.

A `Problem` carries a stable code from `CODES`, a sentence for people, and all reasons at once. It knows nothing of
HTTP: each door maps the code's `Kind` to its own way of saying no (`protocols/problems.py`). Detail never holds the
sender's bytes verbatim: values from outside pass through `shown`.
"""

from __future__ import annotations

import enum
import unicodedata

import msgspec


class Kind(enum.StrEnum):
    """What sort of no it is. A door's problem table has one row for each."""

    MALFORMED = "malformed"
    POLICY = "policy"
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not-found"
    METHOD = "method"
    CONFLICT = "conflict"
    TOO_LARGE = "too-large"
    MEDIA_TYPE = "media-type"
    UNPROCESSABLE = "unprocessable"
    RATE_LIMITED = "rate-limited"
    UNAVAILABLE = "unavailable"
    INTERNAL = "internal"


class Code(msgspec.Struct, frozen=True):
    """What a stable code means: its kind, and a title that never changes with the case."""

    kind: Kind
    title: str


class Reason(msgspec.Struct, frozen=True):
    """One thing that is wrong: a code of `CODES`, the input's field where there is one, and a sentence."""

    code: str
    detail: str
    field: str | None = None


class Problem(Exception):
    """A refusal or failure. `reasons` is never empty: a problem with one cause is its own reason.

    `retry_after` is in whole seconds and only set where asking again later can help.
    """

    def __init__(
        self,
        code: str,
        detail: str,
        *,
        field: str | None = None,
        reasons: tuple[Reason, ...] = (),
        retry_after: int | None = None,
    ) -> None:
        self.code = code
        self.kind = CODES[code].kind
        self.title = CODES[code].title
        self.detail = detail
        self.reasons = reasons or (Reason(code, detail, field),)
        self.retry_after = retry_after
        super().__init__(f"{code}: {detail}")

    @classmethod
    def of(cls, reasons: list[Reason]) -> Problem:
        """All reasons as one problem: its code is the first reason's, its detail all sentences."""
        return cls(reasons[0].code, " ".join(reason.detail for reason in reasons), reasons=tuple(reasons))


def shown(text: str, limit: int = 80) -> str:
    """A value from outside, safe to put into a sentence: control, bidi and other invisible characters escaped, cut at
    `limit`.
    """
    out = []
    for char in text[:limit]:
        if char.isprintable() and unicodedata.bidirectional(char) not in _BIDI and char not in '"\\<>&':
            out.append(char)
        else:
            out.append(f"\\u{ord(char):04x}")
    return '"' + "".join(out) + ('…"' if len(text) > limit else '"')


_BIDI = frozenset({"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"})
_K = Kind

CODES: dict[str, Code] = {
    # The request itself
    "RW-MALFORMED": Code(_K.MALFORMED, "The request cannot be read"),
    "RW-FIELD": Code(_K.UNPROCESSABLE, "A field is unknown or has the wrong type"),
    "RW-QUERY": Code(_K.MALFORMED, "A query parameter is wrong"),
    "RW-TOO-LARGE": Code(_K.TOO_LARGE, "The request is too large"),
    "RW-MEDIA-TYPE": Code(_K.MEDIA_TYPE, "The media type is not supported"),
    "RW-METHOD": Code(_K.METHOD, "The method is not allowed here"),
    "RW-NOT-FOUND": Code(_K.NOT_FOUND, "There is no such thing"),
    "RW-TIMEOUT": Code(_K.MALFORMED, "The request did not arrive in time"),
    "RW-RATE": Code(_K.RATE_LIMITED, "Too many requests"),
    # Who asks
    "RW-UNAUTHENTICATED": Code(_K.UNAUTHENTICATED, "No valid credentials"),
    "RW-FORBIDDEN": Code(_K.FORBIDDEN, "The principal may not do this"),
    "RW-SECRET-IN-URL": Code(_K.MALFORMED, "A secret does not belong in a URL"),
    # CSR and key
    "RW-CSR-MALFORMED": Code(_K.MALFORMED, "The CSR cannot be read"),
    "RW-CSR-SIZE": Code(_K.TOO_LARGE, "The CSR is too large"),
    "RW-CSR-VERSION": Code(_K.MALFORMED, "The CSR's version is not v1"),
    "RW-CSR-SIGNATURE": Code(_K.MALFORMED, "The CSR's signature is wrong"),
    "RW-CSR-ALGORITHM": Code(_K.MALFORMED, "The CSR's signature algorithm is not accepted"),
    "RW-CSR-EXTENSION": Code(_K.POLICY, "The CSR asks for an extension that it may not have"),
    "RW-CSR-CA": Code(_K.POLICY, "The CSR asks to be a CA"),
    "RW-CSR-USAGE": Code(_K.POLICY, "The CSR asks for a key usage that the profile does not give"),
    "RW-CSR-SUBJECT": Code(_K.POLICY, "The CSR's subject is not accepted"),
    "RW-CSR-EMPTY": Code(_K.POLICY, "The CSR names nobody"),
    "RW-KEY-TYPE": Code(_K.POLICY, "The key's type or size is not accepted"),
    "RW-KEY-ENCODING": Code(_K.MALFORMED, "The public key is not encoded as it must be"),
    "RW-KEY-WEAK": Code(_K.POLICY, "The key is weak"),
    "RW-KEY-BLOCKED": Code(_K.POLICY, "The public key is forbidden"),
    "RW-KEY-IN-USE": Code(_K.POLICY, "The key belongs to somebody else"),
    # Names
    "RW-NAME": Code(_K.POLICY, "A name is not valid"),
    "RW-NAME-TYPE": Code(_K.POLICY, "A name is of a type that is not accepted"),
    "RW-NAME-SCRIPT": Code(_K.POLICY, "A name mixes scripts"),
    "RW-NAME-PERMITTED": Code(_K.POLICY, "A name is outside what the profile allows"),
    "RW-NAME-CONSTRAINED": Code(_K.POLICY, "A name is outside what the issuer may certify"),
    "RW-NAME-DUPLICATE": Code(_K.POLICY, "A name is there twice"),
    "RW-TOO-MANY": Code(_K.POLICY, "Too many names"),
    # Profile and plan
    "RW-PROFILE": Code(_K.POLICY, "There is no such profile"),
    "RW-PROFILE-INVALID": Code(_K.POLICY, "The profile is not valid"),
    "RW-VALIDITY": Code(_K.POLICY, "The lifetime is outside what can be issued"),
    "RW-CONDITION": Code(_K.POLICY, "A condition of the profile is not met"),
    "RW-REPLACES": Code(_K.POLICY, "The certificate to replace cannot be replaced"),
    "RW-LINT": Code(_K.INTERNAL, "The certificate that would be signed is not right"),
    # An import
    "RW-IMPORT": Code(_K.UNPROCESSABLE, "The import cannot be read"),
    "RW-IMPORT-PASSWORD": Code(_K.UNPROCESSABLE, "The password does not open the import"),
    "RW-IMPORT-ITEM": Code(_K.UNPROCESSABLE, "An item of the import is no certificate"),
    "RW-IMPORT-KEY": Code(_K.UNPROCESSABLE, "A private key was uploaded where a certificate belongs"),
    "RW-IMPORT-ODD": Code(_K.UNPROCESSABLE, "A certificate of others is odd"),
    "RW-CROSS": Code(_K.UNPROCESSABLE, "The cross-signed certificate cannot be used"),
    "RW-CERTIFICATE": Code(_K.UNPROCESSABLE, "The authority's certificate is not the one that was asked for"),
    # State
    "RW-CONFLICT": Code(_K.CONFLICT, "The state does not allow this"),
    "RW-IDEMPOTENCY": Code(_K.CONFLICT, "The idempotency key was used for something else"),
    "RW-IN-PROGRESS": Code(_K.CONFLICT, "The same request is still under way"),
    "RW-ALREADY-REVOKED": Code(_K.CONFLICT, "The certificate is revoked already"),
    "RW-NOT-HELD": Code(_K.CONFLICT, "The certificate is not on hold"),
    "RW-FROZEN": Code(_K.CONFLICT, "The authority does not issue now"),
    "RW-APPROVAL": Code(_K.CONFLICT, "The request cannot be decided so"),
    "RW-SAME-PERSON": Code(_K.FORBIDDEN, "Requester and approver are the same person"),
    "RW-LAST-ROLE": Code(_K.CONFLICT, "The last one of a role cannot go"),
    # Ours
    "RW-UNAVAILABLE": Code(_K.UNAVAILABLE, "Not now"),
    "RW-STORE": Code(_K.UNAVAILABLE, "The store is not reachable"),
    "RW-DISK": Code(_K.UNAVAILABLE, "The disk is nearly full"),
    "RW-KEY-UNAVAILABLE": Code(_K.UNAVAILABLE, "The authority's key is not reachable"),
    "RW-SIGNER-REFUSED": Code(_K.CONFLICT, "The signer does not sign this"),
    "RW-LOG-BEHIND": Code(_K.UNAVAILABLE, "The audit log is not the one that was signed"),
    "RW-INTERNAL": Code(_K.INTERNAL, "Something went wrong on our side"),
    # An installation
    "RW-HOME": Code(_K.CONFLICT, "The home directory is not usable"),
    "RW-CONFIG": Code(_K.UNPROCESSABLE, "The configuration is not valid"),
    "RW-KEY-MISSING": Code(_K.UNAVAILABLE, "The key is not where it belongs"),
    "RW-KEY-MISMATCH": Code(_K.CONFLICT, "The key is another one than the certificate's"),
    "RW-KEY-FILE": Code(_K.CONFLICT, "The key file cannot be used"),
    "RW-KEY-EXTRACTABLE": Code(_K.CONFLICT, "The key can leave its token"),
    "RW-KEK": Code(_K.CONFLICT, "The key that protects the keys is missing or wrong"),
    "RW-CLOCK": Code(_K.UNAVAILABLE, "The clock is in doubt"),
    "RW-SCHEMA": Code(_K.CONFLICT, "The database's schema does not fit this version"),
    "RW-CEREMONY": Code(_K.CONFLICT, "The ceremony cannot be carried out"),
    "RW-SHARE": Code(_K.UNPROCESSABLE, "A share cannot be used"),
    "RW-BACKUP-FORMAT": Code(_K.UNPROCESSABLE, "This is no backup that can be read here"),
    "RW-BACKUP-PASSPHRASE": Code(_K.FORBIDDEN, "The passphrase cannot be used for the backup"),
    "RW-BACKUP-DAMAGED": Code(_K.UNPROCESSABLE, "The backup is damaged"),
}
