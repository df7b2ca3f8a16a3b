"""`/authorities/{name}/subordinates`: CAs of other systems, certified by an online authority after a second person's
yes.
"""

from __future__ import annotations

import msgspec

from rootward.ca import subordinate
from rootward.ca.asked import Issued
from rootward.core.authority import AuthoritySpec
from rootward.protocols.rest import authorities
from rootward.protocols.rest.certificate import CertificateBody, short
from rootward.protocols.rest.operation import API, Answer, Call, Operation, Pem
from rootward.protocols.rest.proposals import ProposalBody, proposed


class SubordinateBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`spec` says what the CA gets, whatever the CSR (PEM) asks for: that gives the key alone."""

    spec: AuthoritySpec
    csr: Pem


async def sign(call: Call) -> Answer:
    """202 with the proposal that a second person must agree to; asked again after that, 201 with the certificate."""
    given: SubordinateBody = call.body
    await authorities.shown(call)  # what the caller may not see is not there
    found = await subordinate.propose(call.inst, call.path["name"], given.spec, given.csr.encode(), call.caller)
    if not isinstance(found, Issued):
        return proposed(found, call)
    made = short(call.inst, found.certificate, call.inst.clock())
    return Answer(made, 201, ((b"location", f"{API}/certificates/{made.id}".encode()),))


OPERATIONS = (
    Operation(
        name="signSubordinate",
        method="POST",
        path="/authorities/{name}/subordinates",
        handler=sign,
        summary="Certify another system's CA under an online authority, once a second person agrees.",
        body=SubordinateBody,
        result=CertificateBody,
        status=201,
        also={202: ProposalBody},
        idempotent=True,
        problems=(
            *("RW-FORBIDDEN", "RW-CEREMONY", "RW-FROZEN", "RW-CONFLICT", "RW-VALIDITY", "RW-NAME-CONSTRAINED"),
            *("RW-CSR-SUBJECT", "RW-CSR-MALFORMED", "RW-CSR-SIZE", "RW-CSR-VERSION", "RW-CSR-ALGORITHM"),
            *("RW-CSR-SIGNATURE", "RW-KEY-TYPE", "RW-KEY-WEAK", "RW-KEY-ENCODING", "RW-KEY-BLOCKED", "RW-KEY-IN-USE"),
            *("RW-PROFILE-INVALID", "RW-TOO-MANY"),
        ),
    ),
)
