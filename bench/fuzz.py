"""What the worst bytes cost: CPU and memory of one parse, for each parser of hostile bytes. `python -m bench.fuzz`.

The bound is 250 ms and 32 MiB for what is parsed on the event loop (CSR, OCSP request, JSON) and for each certificate
of an import. An upload as a whole may take longer: it has a thread of its own, and a few milliseconds at a time.
"""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path

from bench.report import heading, row
from rootward.core import der, pbe
from rootward.core.foreign import read_foreign
from rootward.core.problems import Problem
from rootward.core.upload import read_upload
from rootward.protocols.rest.bodies import MAX_BODY, decode
from rootward.protocols.rest.certificates import IssueBody
from tests.vectors import imports as made
from tests.vectors.csr_parts import pem

CORPUS = Path(__file__).parents[1] / "tests" / "fuzz" / "corpus"
TIMES = 5


def cost(parse: Callable[[], object]) -> tuple[float, float]:
    """Milliseconds of CPU, the least of a few, and MiB at the peak."""
    times = []
    for _ in range(TIMES):
        begin = time.process_time()
        quietly(parse)
        times.append(time.process_time() - begin)
    tracemalloc.start()
    quietly(parse)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return min(times) * 1e3, peak / 1024 / 1024


def quietly(parse: Callable[[], object]) -> None:
    """A refusal is as good as any answer here."""
    try:
        parse()
    except (Problem, der.DerError):
        return


def worst() -> dict[str, Callable[[], object]]:
    """What is as large, deep and many as it may be."""
    csr, ocsp = (import_module(f"tests.fuzz.{name}").one for name in ("csr", "ocsp_request"))
    nulls = b"\x05\x00"
    filled = made.certificate(subject=der.sequence(der.sequence(nulls * 65_000)))
    names = made.certificate(extensions=(made.alt_names(*("a" * 200 + str(n) for n in range(1_200))),))
    issuer = der.sequence(*[der.set_of(der.sequence(der.oid("2.5.4.3"), der.utf8_string("\u202e" * 60)))] * 1_000)
    wide = made.certificate(subject=issuer, extensions=tuple(made.extension(f"1.2.{n}", b"") for n in range(3_000)))
    body = b'{"profile":"server","csr":"x","labels":{' + b",".join(b'"%d":"%d"' % (n, n) for n in range(15_000)) + b"}}"
    nested = b'{"labels":' + b'{"a":[' * 20_000 + b"]}" * 20_000 + b"}"
    stretch = pbe.Stretch(b"saltsalt", pbe.MAX_ITERATIONS, None, "sha256")
    secret = pbe.variants(made.PASSWORD)[0]
    upload = b"".join(pem(made.certificate(), "CERTIFICATE") for _ in range(10_000))
    return {
        "CSR: 64 KiB of the smallest elements": lambda: csr(
            der.sequence(der.sequence(der.integer(0), der.sequence(nulls * 32_000)), made.ECDSA, der.bit_string(b"x"))
        ),
        "OCSP request: 16 KiB of the smallest elements": lambda: ocsp(der.sequence(der.sequence(nulls * 8_000))),
        "JSON: 256 KiB of members": lambda: decode(body[:MAX_BODY], IssueBody),
        "JSON: 256 KiB of levels": lambda: decode(nested[:MAX_BODY], IssueBody),
        "certificate: 65,000 elements": lambda: read_foreign(filled),
        "certificate: 256 KiB of names": lambda: read_foreign(names),
        "certificate: parts of names, extensions": lambda: read_foreign(wide),
        "PKCS#12: 2^31 iterations": lambda: read_upload(made.pfx(made.encrypted(made.pbes2(1 << 31))), "x"),
        "PKCS#12: all iterations that PBKDF2 may have (in the pool)": lambda: stretch.key(secret, 32),
        "PKCS#12: all iterations of the old derivation (in the pool)": lambda: pbe.old_key(
            "sha256", 3, secret.bmp, b"saltsalt", pbe.MAX_OLD_ITERATIONS, 32
        ),
        "upload: 10,000 certificates in PEM, taken apart (in the pool)": lambda: read_upload(upload),
    }


def main() -> None:
    """Print the table."""
    heading("What hostile bytes cost")
    for name in ("csr", "ocsp_request", "import_", "json_", "http_answer", "acme_certificate", "dns_answer"):
        one = import_module(f"tests.fuzz.{name}").one
        found = [cost(partial(one, path.read_bytes())) for path in (CORPUS / name).iterdir()]
        slowest, largest = max(ms for ms, _ in found), max(mib for _, mib in found)
        row(f"kept corpus of {name}, {len(found)} inputs, the worst", f"{slowest:.1f} ms", f"{largest:.1f} MiB")
    for title, parse in worst().items():
        ms, mib = cost(parse)
        row(title, f"{ms:.1f} ms", f"{mib:.1f} MiB")


if __name__ == "__main__":
    main()
