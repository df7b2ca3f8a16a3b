"""Every operation of the API. A new resource is a file of its own and a line here."""

from __future__ import annotations

from rootward.protocols.rest import (
    acme_accounts,
    authorities,
    blocked,
    ceremonies,
    certificates,
    cross,
    doctor,
    drill,
    due,
    eab,
    events,
    imports,
    keys,
    paperwork,
    people,
    profiles,
    proposals,
    replacement,
    requests,
    revocations,
    subordinates,
)
from rootward.protocols.rest.operation import Operation

OPERATIONS: tuple[Operation, ...] = (
    *certificates.OPERATIONS,
    *revocations.OPERATIONS,
    *requests.OPERATIONS,
    *proposals.OPERATIONS,
    *authorities.OPERATIONS,
    *replacement.OPERATIONS,
    *drill.OPERATIONS,
    *keys.OPERATIONS,
    *cross.OPERATIONS,
    *subordinates.OPERATIONS,
    *paperwork.OPERATIONS,
    *ceremonies.OPERATIONS,
    *profiles.OPERATIONS,
    *people.OPERATIONS,
    *imports.OPERATIONS,
    *blocked.OPERATIONS,
    *events.OPERATIONS,
    *eab.OPERATIONS,
    *acme_accounts.OPERATIONS,
    *doctor.OPERATIONS,
    *due.OPERATIONS,
)
