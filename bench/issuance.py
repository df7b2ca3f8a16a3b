"""Issuance in this process against a bare builder loop: parse CSR, verify it, admit, draft, lint, sign, P-256. Prints
the ratio.

The bare loop does one CSR parse, verification, build and signature with `cryptography`'s own builder and the same
extensions (their objects made before); a second one also keeps the builder that the constant ones were added to.
Rounds alternate, so that a machine whose speed drifts drifts for all. `python bench/issuance.py [--short]`.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from bench.report import heading, median, row
from rootward.ca import profiles
from rootward.ca.installation import Installation
from rootward.ca.sign import sign
from rootward.core.capture import assemble
from rootward.core.csr import parse_csr
from rootward.core.lint import lint_certificate
from rootward.core.plan import Ask, Policy, make_serial
from rootward.core.profile import Profile
from rootward.keys import Key, sign_tbs
from tests.support.installation import lab
from tests.vectors.csrs import good_csr

ROUNDS = 9


def main(seconds: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(_measure(folder, seconds))


def in_process_rate(seconds: float) -> float:
    """Issuances a second in this process, without a store: the figure that the REST bench is compared with."""

    async def measure(folder: str) -> float:
        async with lab(f"sqlite:///{folder}/bench.db") as made:
            policy: Policy = made.inst.policy(*await _profile(made.inst))
            key = made.inst.authority("issuing").key
            assert key is not None  # noqa: S101  # a bench: the lab's issuing authority is online
            spare_the_collector()
            return _rate(_road(policy, key, good_csr(names=["dns:a.internal"])), seconds)

    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(measure(folder))


def spare_the_collector() -> None:
    """As the server does before it serves, for every loop alike."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 100)


def _road(policy: Policy, key: Key, csr: bytes) -> Callable[[], None]:
    identity = {"name": "bench", "id": "1", "kind": "person"}

    def issue() -> None:
        plan = policy.admit(Ask("server", parse_csr(csr)), identity)
        draft = plan.draft(make_serial(os.urandom(20)), datetime.now(UTC))
        if lint_certificate(draft, plan):
            raise AssertionError
        assemble(draft.tbs, draft.algorithm, sign_tbs(key, draft.tbs))

    return issue


async def _measure(folder: str, seconds: float) -> None:
    async with lab(f"sqlite:///{folder}/bench.db") as made:
        inst = made.inst
        profile = await _profile(inst)
        authority = inst.authority("issuing")
        policy: Policy = inst.policy(*profile)
        key = authority.key
        assert key is not None  # noqa: S101  # a bench: the lab's issuing authority is online
        csr = good_csr(names=["dns:a.internal"])
        identity = {"name": "bench", "id": "1", "kind": "person"}

        def ours_verified() -> None:
            plan = policy.admit(Ask("server", parse_csr(csr)), identity)
            draft = plan.draft(make_serial(os.urandom(20)), datetime.now(UTC))
            if lint_certificate(draft, plan):
                raise AssertionError
            assemble(draft.tbs, draft.algorithm, sign(key, authority.issuer.key, draft))

        issuer = authority.issuer.certificate
        private = ec.generate_private_key(ec.SECP256R1())
        sample = policy.admit(Ask("server", parse_csr(csr)), identity).draft(
            make_serial(os.urandom(20)), datetime.now(UTC)
        )
        extensions = list(x509.load_der_x509_certificate(assemble(sample.tbs, sample.algorithm, b"\0")).extensions)
        names = (x509.SubjectAlternativeName, x509.SubjectKeyIdentifier)
        constant = [extension for extension in extensions if not isinstance(extension.value, names)]
        kept = x509.CertificateBuilder().issuer_name(issuer.subject)
        for extension in constant:
            kept = kept.add_extension(extension.value, extension.critical)

        def bare(base: x509.CertificateBuilder | None) -> None:
            request = x509.load_der_x509_csr(csr)
            if not request.is_signature_valid:
                raise AssertionError
            now = datetime.now(UTC)
            builder = (
                (base or x509.CertificateBuilder().issuer_name(issuer.subject))
                .subject_name(request.subject)
                .public_key(request.public_key())
                .serial_number(x509.random_serial_number())
                .not_valid_before(now)
                .not_valid_after(now + timedelta(days=30))
                .add_extension(x509.SubjectKeyIdentifier.from_public_key(request.public_key()), critical=False)
                .add_extension(
                    request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value, critical=True
                )
            )
            if base is None:
                for extension in constant:
                    builder = builder.add_extension(extension.value, extension.critical)
            builder.sign(private, hashes.SHA256()).public_bytes(Encoding.DER)

        loops: dict[str, Callable[[], None]] = {
            "bare builder": lambda: bare(None),
            "bare builder, kept with its constant extensions": lambda: bare(kept),
            "Rootward: parse, verify, admit, draft, lint, sign": _road(policy, key, csr),
            "Rootward, and the signature verified (as in production)": ours_verified,
        }
        spare_the_collector()
        rates: dict[str, list[float]] = {name: [] for name in loops}
        for _ in range(ROUNDS):
            for name, loop in loops.items():
                rates[name].append(_rate(loop, seconds / ROUNDS / len(loops)))
        heading("Issuance in one process, P-256")
        plain = next(iter(rates))
        for name, found in rates.items():
            ratios = [one / base for one, base in zip(found, rates[plain], strict=True)]
            row(name, f"{median(found):,.0f}/s", f"{median(ratios):.2f} of the bare builder")


async def _profile(inst: Installation) -> tuple[Profile, int]:
    found = await profiles.current(inst, "server")
    if found is None:
        raise AssertionError
    return found[1], found[0]


def _rate(loop: Callable[[], None], seconds: float) -> float:
    begin, count = time.perf_counter(), 0
    while time.perf_counter() - begin < seconds:
        for _ in range(20):
            loop()
        count += 20
    return count / (time.perf_counter() - begin)


if __name__ == "__main__":
    main(6 if "--short" in sys.argv else 20)
