"""`/imports`: certificates of others into the inventory."""

from __future__ import annotations

import binascii
from typing import Annotated

import msgspec

from rootward.core.problems import Problem
from rootward.fleet import imports
from rootward.protocols.problems import ReasonBody
from rootward.protocols.rest.operation import Answer, Call, Line, Operation

_LARGEST = 1024 * 1024 * 1024  # what limits.import_bytes may be set to; the listener keeps to the setting
_PEM = "-----BEGIN "

Content = Annotated[
    str, msgspec.Meta(min_length=1, description="PEM, or base64 of PEM, DER, PKCS#7 or PKCS#12; 10,000 items at most.")
]
Password = Annotated[
    str, msgspec.Meta(max_length=1_000, description="Of a PKCS#12 file; its private keys are not kept.")
]


class ImportBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`owner` and `labels` are given to every certificate that is new."""

    content: Content
    password: Password | None = None
    owner: Line | None = None
    labels: Annotated[dict[Line, Line], msgspec.Meta(max_length=50)] = {}

    def __repr__(self) -> str:
        return "ImportBody(…)"  # a password is never in a log


class ItemBody(msgspec.Struct, frozen=True):
    """`result` is imported, known (it was here already), odd (imported, and `reasons` say what is wrong with it) or
    refused. `certificate_id` is null for what was refused, and for the certificate of an authority itself.
    """

    index: int
    result: imports.Result
    certificate_id: str | None
    sha256: str | None
    subject: str | None
    reasons: list[ReasonBody]


class ReportBody(msgspec.Struct, frozen=True):
    """One item for each in the upload, in its order."""

    items: list[ItemBody]


async def take_in(call: Call) -> Answer:
    """The report. Where nothing in it is a certificate: a problem with every reason."""
    body: ImportBody = call.body
    found = await imports.import_certificates(
        call.inst,
        lambda: _bytes(body.content),
        password=body.password,
        owner=body.owner,
        labels=body.labels,
        caller=call.caller,
    )
    return Answer(
        ReportBody(
            [
                ItemBody(
                    index=one.index,
                    result=one.result,
                    certificate_id=one.certificate_id,
                    sha256=one.sha256,
                    subject=one.subject,
                    reasons=[ReasonBody(reason.code, reason.field, reason.detail) for reason in one.reasons],
                )
                for one in found
            ]
        )
    )


def _bytes(content: str) -> bytes:
    """PEM as it is, everything else from base64."""
    if _PEM in content:
        return content.encode()
    try:
        return binascii.a2b_base64("".join(content.split()), strict_mode=True)
    except ValueError:  # binascii.Error, or that there is something else than ASCII in it
        if not content.strip():
            raise Problem("RW-IMPORT", "There is nothing to import.", field="content") from None
        raise Problem("RW-MEDIA-TYPE", "The content is neither PEM nor base64.", field="content") from None


OPERATIONS = (
    Operation(
        name="importCertificates",
        method="POST",
        path="/imports",
        handler=take_in,
        summary="Take certificates of others into the inventory, with a report on each.",
        body=ImportBody,
        result=ReportBody,
        idempotent=True,
        urgent=True,  # it takes none of the turns: it has a pool, and a queue, of its own
        repeatable=True,
        largest=_LARGEST,
        admits=imports.may_import,
        problems=(
            *("RW-FORBIDDEN", "RW-IMPORT", "RW-IMPORT-PASSWORD", "RW-IMPORT-ITEM", "RW-IMPORT-KEY"),
            *("RW-IMPORT-ODD", "RW-MEDIA-TYPE"),
        ),
    ),
)
