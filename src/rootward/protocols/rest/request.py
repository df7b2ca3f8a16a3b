"""A parked request as the API says it: the body of a 202 and of `/requests/{id}`."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

from rootward.core.problems import Reason
from rootward.core.times import rfc3339
from rootward.protocols.problems import ReasonBody
from rootward.protocols.rest.operation import Moment
from rootward.store.requests import Parked


class Agreement(msgspec.Struct, frozen=True):
    """Who agreed, and what they said."""

    approved_by: str
    comment: str | None


class Denial(msgspec.Struct, frozen=True):
    """Who said no, and what else they said."""

    denied_by: str
    comment: str | None


class RequestBody(msgspec.Struct, frozen=True, kw_only=True):
    """`status` is waiting, approved, denied, expired, issued or failed. A yes is to all of the plan where `binds` is
    plan, whatever the key where it is names. `plan` is the hash of what was asked for; `summary` is that for people.
    `asked_by` is the person who asked before the requester, an ACME account, ordered anything; else null.
    """

    id: str
    status: str
    certificate_id: str | None
    reasons: list[ReasonBody]
    profile: str
    authority: str
    names: list[str]
    requester: str
    asked_by: str | None
    binds: str
    created_at: Moment
    expires_at: Moment
    plan: str
    summary: dict[str, Any]
    approval: Agreement | None
    denial: Denial | None


def request_body(request: Parked, now: datetime) -> RequestBody:
    """The request as it stands at `now`."""
    reasons = [] if request.reasons is None else msgspec.json.decode(request.reasons, type=list[Reason])
    return RequestBody(
        id=request.id,
        status=request.status(now),
        certificate_id=request.certificate,
        reasons=[ReasonBody(reason.code, reason.field, reason.detail) for reason in reasons],
        profile=request.profile,
        authority=request.authority,
        names=msgspec.json.decode(request.names, type=list[str]),
        requester=request.principal,
        asked_by=request.asked_by,
        binds=request.binds,
        created_at=rfc3339(request.created_at),
        expires_at=rfc3339(request.expires_at),
        plan=request.plan,
        summary=msgspec.json.decode(request.summary),
        approval=None if request.approved_by is None else Agreement(request.approved_by, request.comment),
        denial=None if request.denied_by is None else Denial(request.denied_by, request.comment),
    )
