"""A CSR, PEM or DER: a `Csr` or one Problem, and nothing else."""

from __future__ import annotations

from rootward.core.csr import MAX_SIZE, parse_csr
from rootward.core.problems import Kind, Problem

LARGEST = MAX_SIZE + 1
REFUSALS = (Kind.MALFORMED, Kind.POLICY, Kind.TOO_LARGE)


def one(data: bytes) -> None:
    """Anything that is raised from here is a crasher."""
    try:
        csr = parse_csr(data)
    except Problem as problem:
        if problem.kind not in REFUSALS:
            raise AssertionError(problem.code) from problem
        return
    if parse_csr(csr.der) != csr:
        raise AssertionError("the same bytes mean two things")


def seeds() -> list[bytes]:
    """Good ones, and every bad one of the table."""
    from tests.vectors.csrs import BAD_CSRS, good_csr, pem

    good = [good_csr(kind) for kind in ("p256", "p384", "ed25519", "rsa-2048")]
    names = good_csr(names=["dns:a.internal", "dns:*.b.internal", "ip:10.0.0.1", "email:a@b.internal"], cn="a.internal")
    return [*good, names, pem(good[0]), *(bad.make() for bad in BAD_CSRS)]
