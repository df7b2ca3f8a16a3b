"""Signatures per second where keys live: in files, in a token (SoftHSM), and by bare calls of python-pkcs11 to the same
token, in one run.

What is timed is `sign_tbs` over a certificate's TBS of 800 bytes: from the bytes to the signature as it stands in the
certificate. The bare loop makes the digest, calls `sign` of one session with one key, and writes ECDSA's two numbers as
DER; it is what a program would do that needs no pool, no second session and no classification of errors. Rounds
alternate. `python -m bench.keys [--short]`.
"""

from __future__ import annotations

import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pkcs11
from cryptography.hazmat.primitives import hashes
from pkcs11.util.ec import encode_ecdsa_signature

from bench.report import heading, median, row
from rootward.core.pubkey import KeyAlgorithm
from rootward.keys import BACKENDS, Backend, KeySettings, create_kek_file, kek_from_file, open_pkcs11, sign_tbs
from tests.support.softhsm import SoftToken, soft_token

ROUNDS, SECONDS, SHORT = 5, 2.0, 0.4
ALGORITHMS = (KeyAlgorithm.P256, KeyAlgorithm.P384, KeyAlgorithm.RSA_2048, KeyAlgorithm.RSA_4096, KeyAlgorithm.ED25519)
HASHES: dict[KeyAlgorithm, hashes.HashAlgorithm] = {
    KeyAlgorithm.P256: hashes.SHA256(),
    KeyAlgorithm.P384: hashes.SHA384(),
}
TBS = bytes(800)
THREADS = 4


def rate(sign: Callable[[], object], seconds: float) -> float:
    """Calls per second."""
    done, began = 0, time.perf_counter()
    while (spent := time.perf_counter() - began) < seconds:
        for _ in range(10):
            sign()
        done += 10
    return done / spent


def rate_of_threads(sign: Callable[[], object], seconds: float) -> float:
    """Calls per second of several threads together."""
    found: list[float] = []
    threads = [threading.Thread(target=lambda: found.append(rate(sign, seconds))) for _ in range(THREADS)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    return sum(found)


def bare(session: Any, label: str, algorithm: KeyAlgorithm) -> Callable[[], object]:
    """The calls of python-pkcs11 that one signature needs at least."""
    (key,) = session.get_objects(
        {pkcs11.Attribute.CLASS: pkcs11.ObjectClass.PRIVATE_KEY, pkcs11.Attribute.LABEL: label}
    )
    if algorithm is KeyAlgorithm.ED25519:
        return lambda: key.sign(TBS, mechanism=pkcs11.Mechanism.EDDSA)
    if algorithm not in HASHES:
        return lambda: key.sign(TBS, mechanism=pkcs11.Mechanism.SHA256_RSA_PKCS)

    def ecdsa() -> bytes:
        digest = hashes.Hash(HASHES[algorithm])
        digest.update(TBS)
        return encode_ecdsa_signature(key.sign(digest.finalize(), mechanism=pkcs11.Mechanism.ECDSA))

    return ecdsa


def compare(files: Backend, token: SoftToken, algorithm: KeyAlgorithm, seconds: float) -> None:
    label = str(algorithm)
    in_file, in_token = files.generate(label, algorithm), open_pkcs11(token.settings).generate(label, algorithm)
    with token.open().session() as session:
        loops: dict[str, Callable[[], float]] = {
            "file": lambda: rate(lambda: sign_tbs(in_file, TBS), seconds),
            "pkcs11": lambda: rate(lambda: sign_tbs(in_token, TBS), seconds),
            "threads": lambda: rate_of_threads(lambda: sign_tbs(in_token, TBS), seconds),
        }
        plain = bare(session.open, label, algorithm)
        loops["bare"] = lambda: rate(plain, seconds)
        found: dict[str, list[float]] = {name: [] for name in loops}
        for _ in range(ROUNDS):
            for name, loop in loops.items():
                found[name].append(loop())
    figure = {name: median(values) for name, values in found.items()}
    row(
        label,
        *(f"{figure[name]:,.0f}/s" for name in ("file", "bare", "pkcs11")),
        f"**{figure['pkcs11'] / figure['bare']:.2f}**",
        f"{figure['pkcs11'] / figure['file']:.2f}",
        f"{figure['threads']:,.0f}/s",
    )


def main() -> None:
    seconds = SHORT if "--short" in sys.argv else SECONDS
    heading("Keys: signatures per second")
    columns = ("key", "file", "bare python-pkcs11", "pkcs11", "of bare (promised: 0.5)", "of file")
    row(*columns, f"pkcs11, {THREADS} threads")
    with tempfile.TemporaryDirectory() as folder, soft_token() as token:
        create_kek_file(Path(folder) / "kek")
        settings = KeySettings(folder=Path(folder) / "keys", kek=kek_from_file(Path(folder) / "kek"))
        for algorithm in ALGORITHMS:
            compare(BACKENDS["file"](settings), token, algorithm, seconds)


if __name__ == "__main__":
    main()
