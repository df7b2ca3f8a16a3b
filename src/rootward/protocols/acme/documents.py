"""Orders, authorizations and challenges as their clients see them (RFC 8555 7.1.3 to 7.1.5, 8)."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from rootward.core.acme import (
    Identifier,
    OrderStatus,
    authorization_status,
    challenge_status,
    identifier,
    read_identifier,
)
from rootward.core.jwk import JoseError, b64decode
from rootward.core.times import rfc3339
from rootward.protocols.acme.problems import AcmeError
from rootward.store.authorizations import Authorization
from rootward.store.orders import Order

Document = dict[str, Any]
encode = msgspec.json.Encoder().encode


def octets(text: str, field: str) -> bytes:
    """What a field has in base64url without padding (RFC 8555 6.1). AcmeError malformed."""
    try:
        return b64decode(text)
    except JoseError:
        raise AcmeError("malformed", f"{field} is not base64url without padding.") from None


def name_of(text: str) -> Identifier:
    """A stored name ("dns:a.internal") as it was checked when it was ordered."""
    kind, _, value = text.partition(":")
    return read_identifier(kind, value)


def asked(one: Authorization) -> Identifier:
    """What it is for, of a wildcard with its star."""
    kind, _, value = one.name.partition(":")
    return read_identifier(kind, f"*.{value}" if one.wildcard else value)


def order_document(order: Order, status: OrderStatus, base: str, *, replaces: str | None) -> Document:
    """An order. `base` is the URL of the door (…/acme); `replaces` is echoed where it was heeded (RFC 9773 5)."""
    found: Document = {
        "status": status,
        "expires": rfc3339(order.expires_at),
        "identifiers": [identifier(name_of(text)) for text in order.names],
        "profile": order.profile,
        "authorizations": [f"{base}/authz/{id}" for id in order.authorization_ids],
        "finalize": f"{base}/order/{order.id}/finalize",
    }
    if order.not_after is not None:
        found["notAfter"] = rfc3339(order.not_after)
    if replaces is not None:
        found["replaces"] = replaces
    if status == "valid":
        found["certificate"] = f"{base}/certificate/{order.id}"
    if order.error is not None:
        found["error"] = msgspec.Raw(order.error.encode())
    return found


def authorization_document(one: Authorization, base: str, now: datetime) -> Document:
    """An authorization with its challenges (7.1.4)."""
    status = authorization_status(one.facts, now)
    found: Document = {
        "status": status,
        "expires": rfc3339(one.expires_at),
        "identifier": identifier(name_of(one.name)),
        "challenges": [challenge_document(kind, one, base) for kind in challenges_of(one)],
    }
    if one.wildcard:
        found["wildcard"] = True
    return found


def challenges_of(one: Authorization) -> list[str]:
    """The types of its challenges: the one that was chosen, or those from which its client chooses."""
    if one.challenge is None:
        return one.types
    return [one.challenge] if one.challenge in one.types else []


def challenge_document(kind: str, one: Authorization, base: str) -> Document:
    """A challenge (RFC 8555 8)."""
    found: Document = {
        "type": kind,
        "url": f"{base}/challenge/{one.id}/{kind}",
        "status": challenge_status(kind, one.facts),
        "token": one.token,
    }
    if one.challenge == kind:
        if one.validated_at is not None:
            found["validated"] = rfc3339(one.validated_at)
        if one.error is not None:
            found["error"] = msgspec.Raw(one.error.encode())
    return found
