"""How ACME says no: problem documents of RFC 8555 6.7, whose types are `urn:ietf:params:acme:error:…`.

What only ACME says is an `AcmeError`. A `Problem` of the house gets its type by its code or its kind; its stable code
stands in the member `code`, and reasons that name an identifier become subproblems (RFC 8555 6.7.1).
"""

from __future__ import annotations

import re

import msgspec
import structlog

from rootward.core.jwk import JoseError, PrivateKeySent
from rootward.core.problems import CODES, Kind, Problem, Reason
from rootward.protocols.problems import ACME, MEDIA_TYPE, RETRY_AFTER, Header

log = structlog.get_logger("rootward.protocols")

URN = "urn:ietf:params:acme:error:"

# RFC 8555 6.7, RFC 9773 7.4 (alreadyReplaced), draft-ietf-acme-profiles (invalidProfile), with the usual status.
TYPES: dict[str, int] = {
    "accountDoesNotExist": 400,
    "alreadyReplaced": 409,
    "alreadyRevoked": 400,
    "badCSR": 400,
    "badNonce": 400,
    "badPublicKey": 400,
    "badRevocationReason": 400,
    "badSignatureAlgorithm": 400,
    "caa": 403,
    "compound": 400,
    "connection": 400,
    "dns": 400,
    "externalAccountRequired": 403,
    "incorrectResponse": 403,
    "invalidContact": 400,
    "invalidProfile": 400,
    "malformed": 400,
    "orderNotReady": 403,
    "rateLimited": 429,
    "rejectedIdentifier": 400,
    "serverInternal": 500,
    "tls": 400,
    "unauthorized": 403,
    "unsupportedContact": 400,
    "unsupportedIdentifier": 400,
    "userActionRequired": 403,
}

_BY_CODE: dict[str, str] = {
    "RW-NAME": "rejectedIdentifier",
    "RW-NAME-TYPE": "rejectedIdentifier",
    "RW-NAME-SCRIPT": "rejectedIdentifier",
    "RW-NAME-PERMITTED": "rejectedIdentifier",
    "RW-NAME-CONSTRAINED": "rejectedIdentifier",
    "RW-NAME-DUPLICATE": "rejectedIdentifier",
    "RW-TOO-MANY": "rejectedIdentifier",
    "RW-PROFILE": "invalidProfile",
    "RW-ALREADY-REVOKED": "alreadyRevoked",
    "RW-FROZEN": "serverInternal",
    "RW-KEK": "serverInternal",
} | {
    code: "badCSR"
    for code, about in CODES.items()
    if code.startswith(("RW-CSR-", "RW-KEY-")) and about.kind in (Kind.MALFORMED, Kind.POLICY, Kind.TOO_LARGE)
}
_BY_KIND: dict[Kind, str] = {
    Kind.FORBIDDEN: "unauthorized",
    Kind.UNAUTHENTICATED: "unauthorized",
    Kind.RATE_LIMITED: "rateLimited",
    Kind.UNAVAILABLE: "serverInternal",
    Kind.INTERNAL: "serverInternal",
}
_STATUS: dict[str, int] = {"RW-FROZEN": 503, "RW-KEK": 503, "RW-CSR-SIZE": 400, "RW-ALREADY-REVOKED": 400}
_NAMED = re.compile(r'"(dns|ip):([^"\\…]{1,255})" ')  # how a sentence about a name begins (core/problems.py, shown)


class Identifier(msgspec.Struct, frozen=True):
    """RFC 8555 9.7.7."""

    type: str
    value: str


class Subproblem(msgspec.Struct, frozen=True, omit_defaults=True):
    """One of several things that are wrong; `type` is without the URN here."""

    type: str
    detail: str
    identifier: Identifier | None = None
    code: str = ""


class Document(msgspec.Struct, frozen=True, omit_defaults=True):
    """A problem document; also what an order or a challenge keeps as its `error`."""

    type: str
    detail: str
    status: int
    code: str = ""
    request_id: str = ""
    instance: str = ""
    algorithms: tuple[str, ...] = ()
    subproblems: tuple[Subproblem, ...] = ()


class AcmeError(Exception):
    """What only ACME says. `type` is one of `TYPES`, `status` its usual one where it is None.

    `algorithms` goes with badSignatureAlgorithm (RFC 8555 6.2), `instance` with userActionRequired (7.3.3).
    """

    def __init__(
        self,
        type: str,
        detail: str,
        status: int | None = None,
        *,
        subproblems: tuple[Subproblem, ...] = (),
        headers: tuple[Header, ...] = (),
        algorithms: tuple[str, ...] = (),
        instance: str = "",
    ) -> None:
        self.type, self.detail = type, detail
        self.status = TYPES[type] if status is None else status
        self.subproblems, self.headers = subproblems, headers
        self.algorithms, self.instance = algorithms, instance
        super().__init__(f"{type}: {detail}")


def nothing_here() -> AcmeError:
    """What every address answers that names nothing, or something of somebody else's: the same for both (I-48)."""
    return AcmeError("malformed", "There is nothing at this address.", 404)


def account_ended(status: str) -> AcmeError:
    """What whoever has the key of an account that is no longer valid gets (RFC 8555 7.3.6)."""
    by = "its own client" if status == "deactivated" else "an administrator"
    return AcmeError("unauthorized", f"The account was ended by {by}. Register a new one, with a new key.", 401)


def of_jose(error: JoseError, algorithms: tuple[str, ...]) -> AcmeError:
    """A signed object or a key that is not accepted."""
    if isinstance(error, PrivateKeySent):
        log.warning("acme.private-key")
    kind = str(error.fault)
    return AcmeError(kind, error.detail, algorithms=algorithms if kind == "badSignatureAlgorithm" else ())


def type_of(code: str) -> str:
    """The problem type of a code of ours."""
    return _BY_CODE.get(code) or _BY_KIND.get(CODES[code].kind, "malformed")


def status_of(code: str) -> int:
    """The status of a code of ours at this door."""
    return _STATUS.get(code, ACME[CODES[code].kind])


def document_of(error: AcmeError | Problem, request_id: str = "") -> Document:
    """The problem document. Of a problem of kind INTERNAL the sentences are for the log alone."""
    if isinstance(error, AcmeError):
        return Document(
            URN + error.type,
            error.detail,
            error.status,
            request_id=request_id,
            instance=error.instance,
            algorithms=error.algorithms,
            subproblems=tuple(msgspec.structs.replace(one, type=URN + one.type) for one in error.subproblems),
        )
    detail, reasons = error.detail, error.reasons
    if error.kind is Kind.INTERNAL:
        detail, reasons = f"{error.title}. The server's log has more under this request's id.", ()
    found = tuple(filter(None, map(_subproblem, reasons)))
    return Document(
        URN + type_of(error.code),
        detail,
        status_of(error.code),
        code=error.code,
        request_id=request_id,
        subproblems=found,
    )


def _subproblem(reason: Reason) -> Subproblem | None:
    match = _NAMED.match(reason.detail)
    if match is None:
        return None
    return Subproblem(URN + type_of(reason.code), reason.detail, Identifier(match[1], match[2]), reason.code)


_ENCODE = msgspec.json.Encoder().encode


def render(error: AcmeError | Problem, request_id: str) -> tuple[int, list[Header], bytes]:
    """Status, headers of its own and body."""
    document = document_of(error, request_id)
    headers: list[Header] = [(b"content-type", MEDIA_TYPE.encode())]
    if isinstance(error, AcmeError):
        headers += error.headers
    else:
        if error.kind is Kind.INTERNAL and error.code != "RW-INTERNAL":
            log.error("request.failed", request_id=request_id, error=error.code, detail=error.detail)
        if error.retry_after is not None or document.status == 503:
            headers.append((b"retry-after", str(error.retry_after or RETRY_AFTER).encode()))
    return document.status, headers, _ENCODE(document)
