"""A full CRL of a million entries: our writer against `cryptography`'s builder, time and peak memory, each in a process
of its own over the same rows.

What is timed: from rows (serial, when, reason) to the signed DER; for the builder that is making its entries, building,
signing and encoding (its list is handed over whole: its own way of adding copies the list for each entry). Our lint and
the check before publication are timed apart. Peak memory is the growth of the process's resident peak beyond the rows.
OpenSSL reads and verifies ours. Rounds alternate. `python -m bench.crl [--short]`.
"""

from __future__ import annotations

import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from bench.report import heading, median, row
from rootward.core.crl import check_crl, draft_crl, finish_crl, lint_crl
from rootward.core.crl_entries import Entries
from tests.support.revocation import NOW, issuer_of, make_ca

MANY, SHORT = 1_000_000, 100_000
ROUNDS = 3
DAY = timedelta(days=1)
REASONS = ("superseded", "superseded", "cessationOfOperation", "keyCompromise", "unspecified")
Row = tuple[bytes, int, str]


def rows(count: int) -> list[Row]:
    """Serials as ours are, times of a year, reasons as they come."""
    chance, now = random.Random(1), int(NOW.timestamp())
    year = 365 * 86400
    return [
        (
            bytes((0x40 | chance.getrandbits(6),)) + chance.randbytes(19),
            now - year + year * number // count,
            REASONS[number % 5],
        )
        for number in range(count)
    ]


def ours(many: list[Row], out: Path) -> dict[str, float]:
    """Write the CRL to `out`, and its issuer beside it."""
    ca = make_ca()
    issuer = issuer_of(ca)
    before, began = _peak(), time.perf_counter()
    entries = Entries()
    entries.add(many, latest=int(NOW.timestamp()))
    draft = draft_crl(issuer, number=7, this_update=NOW, next_update=NOW + DAY, entries=entries)
    del entries
    der = finish_crl(draft, ca.sign(draft.tbs))
    built = time.perf_counter()
    if lint_crl(draft, issuer):
        raise AssertionError
    linted = time.perf_counter()
    del draft
    check_crl(der, issuer, now=NOW, last_number=6)
    checked = time.perf_counter()
    found = {"built": built - began, "lint": linted - built, "check": checked - linted, "peak": _peak() - before}
    out.write_bytes(der)
    out.with_suffix(".pem").write_text(issuer.pem())
    return found


def theirs(many: list[Row], _out: Path) -> dict[str, float]:
    """The same with the builder."""
    ca = make_ca()
    before, began = _peak(), time.perf_counter()
    flags = {reason: x509.CRLReason(x509.ReasonFlags(reason)) for reason in set(REASONS) - {"unspecified"}}
    entries = []
    for serial, at, reason in many:
        one = x509.RevokedCertificateBuilder(int.from_bytes(serial, "big"), datetime.fromtimestamp(at, UTC))
        if reason in flags:
            one = one.add_extension(flags[reason], critical=False)
        entries.append(one.build())
    builder = x509.CertificateRevocationListBuilder(ca.certificate.subject, NOW, NOW + DAY, [], entries)
    builder = builder.add_extension(x509.CRLNumber(7), critical=False)
    made = time.perf_counter()
    builder.sign(ca.private, hashes.SHA256()).public_bytes(Encoding.DER)
    return {"built": time.perf_counter() - began, "entries": made - began, "peak": _peak() - before}


def _peak() -> float:
    """MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(short: bool) -> None:
    count = SHORT if short else MANY
    found: dict[str, list[dict[str, float]]] = {"ours": [], "theirs": []}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "a.crl"
        for _ in range(ROUNDS):
            for name, results in found.items():
                command = [sys.executable, "-m", "bench.crl", "--one", name, str(count), str(out)]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                results.append(json.loads(done.stdout))
        size = out.stat().st_size / 1024**2
        command = ["openssl", "crl", "-inform", "DER", "-in", str(out), "-CAfile", str(out.with_suffix(".pem"))]
        began = time.perf_counter()
        read = subprocess.run([*command, "-noout", "-text"], capture_output=True, text=True, check=True)
        took = time.perf_counter() - began
        accepted = "verify OK" in read.stderr and read.stdout.count("Serial Number:") == count
    mine, other = ({key: median([one[key] for one in every]) for key in every[0]} for every in found.values())
    heading(f"A CRL of {count:,} entries, P-256, {size:.0f} MiB")
    row("", "build, sign, encode", "peak memory")
    row(
        "cryptography's builder",
        f"{other['built']:.2f} s (entries {other['entries']:.2f} s)",
        f"{other['peak']:.0f} MiB",
    )
    row("Rootward", f"{mine['built']:.2f} s", f"{mine['peak']:.0f} MiB")
    row(
        "ratio",
        f"{other['built'] / mine['built']:.1f} times as fast (aim: 4)",
        f"{mine['peak'] / other['peak']:.2f} of it (aim: under 0.5)",
    )
    row("and apart from that", f"lint {mine['lint']:.2f} s", f"check before publication {mine['check']:.2f} s")
    row("openssl crl -text -CAfile", "accepts it" if accepted else "REFUSES IT", f"{took:.1f} s")


if __name__ == "__main__":
    if "--one" in sys.argv:
        which, many, path = sys.argv[2:]
        print(json.dumps({"ours": ours, "theirs": theirs}[which](rows(int(many)), Path(path))))
    else:
        main("--short" in sys.argv)
