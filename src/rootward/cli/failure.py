"""How a command fails: what happened, why, and what to do next; the exit code says which kind of no it was."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from rootward.core.problems import Problem

FAILED: Final = 1
USAGE: Final = 2
INTERRUPTED: Final = 130  # by Ctrl-C, as shells have it
WAITING: Final = 3
UNREACHABLE: Final = 4

# What helps against a code, where something does. The server's sentences say what is wrong, not what to type.
_NEXT: Final[Mapping[str, str]] = {
    "RW-UNAUTHENTICATED": "Name a token that is valid with --token-file, or make one: rootward access token create.",
    "RW-FORBIDDEN": "Ask a system-admin for the role: rootward access grant create.",
    "RW-SAME-PERSON": "Ask somebody else who holds the role approver.",
    "RW-PROFILE": "rootward profile list shows the profiles.",
    "RW-NAME-PERMITTED": "rootward profile show NAME shows the names that a profile allows.",
    "RW-NAME-CONSTRAINED": "rootward ca show NAME shows what the authority may certify.",
    "RW-VALIDITY": "rootward profile show NAME shows the lifetimes that a profile allows.",
    "RW-KEY-TYPE": "Choose another one with --key-type; rootward profile show NAME lists those of a profile.",
    "RW-KEY-BLOCKED": "Make a new key: leave --csr out, or make a new CSR.",
    "RW-KEY-WEAK": "Make a new key: leave --csr out, or make a new CSR.",
    "RW-KEY-IN-USE": "Make a new key: leave --csr out, or make a new CSR.",
    "RW-FROZEN": "rootward audit list --kind authority.frozen says why it was frozen; ask an admin of the authority.",
    "RW-NOT-HELD": "rootward cert show ID shows its state. Only a certificate on hold can be released.",
    "RW-ALREADY-REVOKED": "Revoked is final. rootward cert show ID shows when and why.",
    "RW-APPROVAL": "rootward request show ID shows its state.",
    "RW-IN-PROGRESS": "Run the same command again in a few seconds.",
    "RW-RATE": "Wait a little and run the same command again.",
    "RW-UNAVAILABLE": "Wait a little and run the same command again. rootward doctor shows what the server lacks.",
    "RW-STORE": "Wait a little and run the same command again. rootward doctor shows what the server lacks.",
    "RW-DISK": "Make room on the disk of the server's home; issuing goes on by itself then.",
    "RW-KEY-UNAVAILABLE": "rootward doctor shows what the server lacks.",
    "RW-SIGNER-REFUSED": "On the signer's host rootward signer journal shows why, and signer accept takes a profile.",
    "RW-INTERNAL": "Look into the server's log under the request's id.",
    "RW-BACKUP-FORMAT": "Name a file that rootward backup create made.",
    "RW-BACKUP-PASSPHRASE": "Name the right file with --passphrase-file: mode 0600, 12 characters or more.",
    "RW-BACKUP-DAMAGED": "Take another copy or an older backup: what is damaged is not restored in part.",
    "RW-IMPORT-PASSWORD": "Put the password into a file and name it with --password-file.",
    "RW-CLOCK": "Set the clock right, or accept it as it is: rootward doctor --accept-clock.",
}


class Failure(Exception):
    """The end of a command. `why` are sentences, `next` is what to do; `body` is the server's answer as it came,
    for --json; `status` and `code` are its HTTP status and problem code."""

    def __init__(
        self,
        what: str,
        *why: str,
        next: str | None = None,
        exit: int = FAILED,
        request_id: str | None = None,
        body: bytes | None = None,
        status: int | None = None,
        code: str | None = None,
    ) -> None:
        self.what = what
        self.why = why
        self.next = next
        self.exit = exit
        self.request_id = request_id
        self.body = body
        self.status = status
        self.code = code
        super().__init__(what)


def of_problem(problem: Problem) -> Failure:
    """A refusal that was made on this side, by the same rules as the server's."""
    reasons = [(reason.code, reason.field, reason.detail) for reason in problem.reasons]
    return Failure(
        f"{problem.title} ({problem.code}).", *_sentences(reasons, problem.code), next=_NEXT.get(problem.code)
    )


def of_body(status: int, problem: Mapping[str, Any], *, body: bytes, retry_after: str | None) -> Failure:
    """The server's refusal from its problem document (RFC 9457)."""
    code = str(problem.get("code", ""))
    listed = problem.get("reasons")
    reasons = [
        (str(item.get("code", "")), item.get("field"), str(item.get("detail", "")))
        for item in (listed if isinstance(listed, list) else [])
        if isinstance(item, dict)
    ]
    if not reasons and problem.get("detail"):
        reasons = [(code, None, str(problem["detail"]))]
    hint = _NEXT.get(code)
    if retry_after is not None and retry_after.isdigit():
        hint = f"Run the same command again in {retry_after} seconds."
    return Failure(
        f"{problem.get('title', 'The server refused')} ({code or f'HTTP {status}'}).",
        *_sentences(reasons, code),
        next=hint,
        request_id=str(problem["request_id"]) if problem.get("request_id") else None,
        body=body,
        status=status,
        code=code,
    )


def _sentences(reasons: list[tuple[str, str | None, str]], code: str) -> list[str]:
    """The reasons; each with its field, and with its code where that is not the problem's own."""
    return [
        f"{_with_field(field, detail)}{f' ({own})' if own and own != code else ''}" for own, field, detail in reasons
    ]


def _with_field(field: str | None, detail: str) -> str:
    """The sentence with its field in front, unless it names that itself."""
    if not field:
        return detail
    detail = detail.removeprefix(f"the option for {field}: ")
    if detail.endswith(f": {field}."):
        return f"{field}: {detail.removesuffix(f': {field}.')}."
    whole = rf"(?<![\w.]){re.escape(field)}(?![\w\[]|\.\w)"
    # A plain word such as `name` may stand in a sentence without being the field.
    named = re.match(rf"(?:The field )?{whole}", detail) or ("." in field and re.search(whole, detail))
    return detail if named else f"{field}: {detail}"


def sentence(text: object) -> str:
    """What somebody else's library says, with one full stop."""
    return f"{str(text).rstrip('. ')}."
