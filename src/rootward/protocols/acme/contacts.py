"""Contacts of an account: `mailto` URLs with one plain address (RFC 8555 7.3, RFC 6068)."""

from __future__ import annotations

from collections.abc import Sequence

from rootward.core.names import parse_email
from rootward.core.problems import Problem
from rootward.protocols.acme.problems import AcmeError

MOST = 10
LONGEST = 320


def read_contacts(given: Sequence[str]) -> tuple[str, ...]:
    """The same, each once. AcmeError unsupportedContact, invalidContact."""
    if len(given) > MOST:
        raise AcmeError("invalidContact", f"An account has at most {MOST} contacts.")
    return tuple(dict.fromkeys(map(_contact, given)))


def _contact(text: str) -> str:
    scheme, colon, address = text.partition(":")
    if len(text) > LONGEST or not text.isascii() or not text.isprintable() or not colon:
        raise AcmeError("invalidContact", f"A contact is a mailto URL of at most {LONGEST} characters.")
    if scheme.lower() != "mailto":
        raise AcmeError("unsupportedContact", "Contacts are mailto URLs.")
    try:
        parse_email(address)  # neither header fields nor two addresses nor escapes are in one
    except Problem:
        raise AcmeError("invalidContact", "A contact has one plain e-mail address, and nothing else.") from None
    return f"mailto:{address}"
