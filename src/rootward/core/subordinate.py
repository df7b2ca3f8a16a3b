"""The request of another system's CA (Vault, OpenBao, AD CS, SPIRE): its key is proved, and nothing else is taken.

What such a CSR asks for (CA:true, a path length, usages, SPIFFE names, Microsoft's extensions) is refused in any other
CSR. Here a specification says what the CA gets, written by those who sign; what was asked is read for them alone, side
by side with what is given (RFC 2986 4, RFC 5280 4.2).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from rootward.core.csr import Proved, parse_proof
from rootward.core.hierarchy import AuthorityPlan
from rootward.core.problems import shown
from rootward.core.pubkey import PublicKey
from rootward.core.sealed import Sealed

_NOTHING = "nothing"
_SHORT = {"2.5.4.3": "CN", "2.5.4.6": "C", "2.5.4.7": "L", "2.5.4.8": "ST", "2.5.4.10": "O", "2.5.4.11": "OU"}


class Line(msgspec.Struct, frozen=True):
    """One thing of a certificate: what the CSR asks for and what the CA gets, both for people."""

    what: str
    asked: str
    given: str


class CaRequest(Sealed):
    """A CSR whose maker has proved to hold the private key. `asked` are (what, in what words), for people."""

    der: bytes
    key: PublicKey
    asked: tuple[tuple[str, str], ...]


def read_ca_request(data: bytes) -> CaRequest:
    """The request that `data` is (PEM or DER). Problem RW-CSR-* or RW-KEY-*, for what is malformed or not proved."""
    proved = parse_proof(data)
    return CaRequest._make(der=proved.der, key=proved.key, asked=tuple(_asked(proved)))


def compare(request: CaRequest, plan: AuthorityPlan) -> list[Line]:
    """What was asked for beside what is given: first what a specification says, then what it has no word for."""
    given, asked = dict(_given(plan)), dict(request.asked)
    first = [Line(what, asked.get(what, _NOTHING), value) for what, value in given.items()]
    return first + [Line(what, value, _NOTHING) for what, value in request.asked if what not in given]


def _given(plan: AuthorityPlan) -> Iterator[tuple[str, str]]:
    spec = plan.spec
    yield "subject", plan.subject.rfc4514_string()
    yield "names", _listed(str(name) for name in plan.names)
    yield "path length", _length(spec.path_length)
    yield "key usage", "key_cert_sign, crl_sign"
    yield "extended key usage", _listed(plan.facts["extended_key_usage"])
    yield "policies", _listed(spec.policies)
    for what, constraints in (("permitted names", spec.permitted), ("excluded names", spec.excluded)):
        told = [f"{form}:{value}" for form in constraints.__struct_fields__ for value in getattr(constraints, form)]
        yield what, _listed(told)
    yield "lifetime", spec.lifetime


def _asked(proved: Proved) -> Iterator[tuple[str, str]]:
    """Everything that it says but its key; what is of no form that anybody could be given is named as that."""
    wishes = proved.wishes
    yield "subject", shown(",".join(f"{_SHORT.get(oid, oid)}={value}" for oid, value in proved.subject.pairs), 300)
    if wishes.names:
        yield "names", shown(", ".join(map(str, wishes.names)), 500)
    if wishes.ca or wishes.path_length is not None:
        yield "path length", _length(wishes.path_length)
    if wishes.key_usage:
        yield "key usage", _listed(sorted(wishes.key_usage))
    if wishes.extended_key_usage:
        yield "extended key usage", shown(", ".join(wishes.extended_key_usage), 500)
    for oid in wishes.ignored[:50]:
        yield f"extension {oid}", "it"
    for reason in (*proved.subject.reasons, *wishes.reasons):
        if reason.code != "RW-CSR-CA":
            yield "what nobody gets", reason.detail


def _length(length: int | None) -> str:
    return "without a limit" if length is None else str(length)


def _listed(values: Iterable[str]) -> str:
    return ", ".join(values) or _NOTHING
