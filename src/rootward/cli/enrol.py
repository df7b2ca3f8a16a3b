"""Getting a certificate from the command line: the key is made here, a CSR is all that leaves (RFC 2986).

`cert issue` and `cert renew` differ in what they ask for; from then on there is this one way. See `folder` for what
survives what. The certificate that comes is only kept if it is for the key that it was asked for.
"""

from __future__ import annotations

import secrets
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, rsa
from cryptography.x509.oid import NameOID

from rootward.cli import folder
from rootward.cli.client import Answer, Client, segment
from rootward.cli.failure import USAGE, WAITING, Failure, of_problem, sentence
from rootward.core.names import Name, guess_name, to_general_name
from rootward.core.problems import Problem
from rootward.core.pubkey import KeyAlgorithm
from rootward.core.signature import SIGNATURES

# An answer with one of these says that nothing was or will be issued for this request.
_FINAL = frozenset({400, 403, 404, 409, 413, 415, 422})
_NOT_FINAL = frozenset({"RW-IN-PROGRESS", "RW-FROZEN"})
_PATIENCE = 10  # seconds that an approved request may take to be issued while the command waits

PrivateKey = (
    rsa.RSAPrivateKey
    | ec.EllipticCurvePrivateKey
    | ed25519.Ed25519PrivateKey
    | mldsa.MLDSA44PrivateKey
    | mldsa.MLDSA65PrivateKey
    | mldsa.MLDSA87PrivateKey
)


def key_type(text: str) -> KeyAlgorithm:
    """The key algorithm of that name; Failure (exit 2) otherwise."""
    try:
        return KeyAlgorithm(text.lower())
    except ValueError:
        known = ", ".join(KeyAlgorithm)
        raise Failure(f"{text} is not a type of key.", next=f"Use one of {known}.", exit=USAGE) from None


def make_key(algorithm: KeyAlgorithm) -> PrivateKey:
    """A new private key."""
    match algorithm:
        case KeyAlgorithm.RSA_2048 | KeyAlgorithm.RSA_3072 | KeyAlgorithm.RSA_4096:
            return rsa.generate_private_key(65537, int(algorithm.value.rpartition("-")[2]))
        case KeyAlgorithm.P256:
            return ec.generate_private_key(ec.SECP256R1())
        case KeyAlgorithm.P384:
            return ec.generate_private_key(ec.SECP384R1())
        case KeyAlgorithm.P521:
            return ec.generate_private_key(ec.SECP521R1())
        case KeyAlgorithm.BRAINPOOL_P256R1:
            return ec.generate_private_key(ec.BrainpoolP256R1())
        case KeyAlgorithm.BRAINPOOL_P384R1:
            return ec.generate_private_key(ec.BrainpoolP384R1())
        case KeyAlgorithm.BRAINPOOL_P512R1:
            return ec.generate_private_key(ec.BrainpoolP512R1())
        case KeyAlgorithm.ED25519:
            return ed25519.Ed25519PrivateKey.generate()
        case KeyAlgorithm.ML_DSA_44:
            return mldsa.MLDSA44PrivateKey.generate()
        case KeyAlgorithm.ML_DSA_65:
            return mldsa.MLDSA65PrivateKey.generate()
        case KeyAlgorithm.ML_DSA_87:
            return mldsa.MLDSA87PrivateKey.generate()


def key_pem(key: PrivateKey) -> bytes:
    """PKCS#8, PEM, not encrypted: the file's mode protects it."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def names_of(texts: list[str]) -> list[Name]:
    """The names as people write them; Failure (exit 2) with every one that is none."""
    found: list[Name] = []
    why: list[str] = []
    for text in texts:
        try:
            name = guess_name(text, field="--name")
        except Problem as problem:
            why.append(problem.detail)
            continue
        if name not in found:
            found.append(name)
    if why:
        raise Failure("A name cannot be asked for.", *why, next="Write it as a.internal, 10.0.0.1 or dns:…", exit=USAGE)
    return found


def make_csr(key: PrivateKey, algorithm: KeyAlgorithm, *, names: list[Name], common_name: str | None) -> str:
    """A CSR, PEM, with the names as subject alternative names and nothing else asked for."""
    subject = [] if common_name is None else [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(subject))
    if names:
        alternative = x509.SubjectAlternativeName([to_general_name(name) for name in names])
        builder = builder.add_extension(alternative, critical=not subject)
    made = builder.sign(key, SIGNATURES[algorithm].hash)
    return made.public_bytes(serialization.Encoding.PEM).decode()


def read_csr(path: Path) -> str:
    """A CSR from a PEM or DER file, as PEM. Failure (exit 2) if it is none."""
    try:
        data = path.read_bytes()
        load = x509.load_pem_x509_csr if b"-----BEGIN" in data else x509.load_der_x509_csr
        return load(data).public_bytes(serialization.Encoding.PEM).decode()
    except OSError as error:
        raise Failure(f"{path} cannot be read.", f"{error.strerror}.", exit=USAGE) from error
    except ValueError as error:
        raise Failure(f"{path} is not a CSR in PEM or DER.", exit=USAGE) from error


def enrol(
    client: Client,
    out: Path,
    *,
    asked: dict[str, Any],
    body: dict[str, Any],
    algorithm: KeyAlgorithm,
    names: list[Name],
    common_name: str | None,
) -> Answer:
    """Get the certificate into the folder `out`, or go on where the same command stopped.

    `asked` tells this command from others; `body` is what is sent, its CSR made here unless it has one. Returns the
    server's answer with the certificate. Failure with exit code 3 while somebody has to agree.
    """
    pending = folder.read(out, asked)
    if pending is None:
        key = None
        if "csr" not in body:
            made = make_key(algorithm)
            try:
                body = {**body, "csr": make_csr(made, algorithm, names=names, common_name=common_name)}
            except ValueError as error:
                raise Failure("The CSR cannot be made.", sentence(error), exit=USAGE) from error
            key = key_pem(made)
        pending = folder.Pending(asked, body, secrets.token_urlsafe(24), own_key=key is not None)
        pending = folder.begin(out, pending, key)
    if pending.request is None:
        answer = _ask(client, out, pending)
    else:
        answer = _follow(client, out, pending, pending.request)
    certificate, chain = _texts(answer)
    if not _same_key(certificate, pending.body["csr"]):
        raise Failure(
            "The certificate that came is not for the key that it was asked for.",
            f"Its serial is {answer.value.get('serial')}. It was not written.",
            next="Revoke it, and look at the server's audit log.",
        )
    folder.finish(out, certificate, chain)
    return answer


def _ask(client: Client, out: Path, pending: folder.Pending) -> Answer:
    try:
        answer = client.post("/api/v1/certificates", pending.body, idempotency_key=pending.idempotency_key)
    except Failure as failure:
        if _is_final(failure):
            folder.give_up(out, pending)
            raise
        raise _kept(failure, out) from None
    if answer.status != 202:
        return answer
    request = str(answer.value["id"])
    pending = replace(pending, request=request)
    folder.waits(out, pending)
    raise _waiting(answer, request, out)


def _follow(client: Client, out: Path, pending: folder.Pending, request: str) -> Answer:
    """What has become of a request that waited."""
    until = time.monotonic() + _PATIENCE
    pause = threading.Event()  # never set: only the time between two questions
    while True:
        answer = client.get(f"/api/v1/requests/{segment(request)}")
        status = answer.value.get("status")
        if status == "issued" and answer.value.get("certificate_id"):
            return client.get(f"/api/v1/certificates/{segment(str(answer.value['certificate_id']))}")
        if status in ("denied", "expired", "failed"):
            folder.give_up(out, pending)
            reasons = [
                str(item.get("detail", "")) for item in answer.value.get("reasons") or [] if isinstance(item, dict)
            ]
            raise Failure(
                f"The request {request} was not granted: {status}.",
                *reasons,
                next="The same command asks anew, with a new key.",
                body=answer.body,
            )
        if status not in ("approved", "issued") or time.monotonic() > until:
            raise _waiting(answer, request, out)
        pause.wait(0.5)


def _waiting(answer: Answer, request: str, out: Path) -> Failure:
    status = answer.value.get("status", "waiting")
    return Failure(
        "Waiting for approval." if status == "waiting" else f"Not issued yet: the request is {status}.",
        f"The request is {request}. The key and the request are kept in {out}.",
        next=f"An approver runs: rootward request approve {request}. Then run the same command again.",
        exit=WAITING,
        body=answer.body,
    )


def _is_final(failure: Failure) -> bool:
    return failure.status in _FINAL and failure.code not in _NOT_FINAL


def _kept(failure: Failure, out: Path) -> Failure:
    """The same failure, with where to go on: nobody knows whether a certificate was made, so nothing is thrown away."""
    failure.next = (
        f"{failure.next + ' ' if failure.next else ''}The same command goes on with the key and the request in {out}."
    )
    return failure


def _texts(answer: Answer) -> tuple[str, str]:
    try:
        certificate, chain = str(answer.value["certificate"]), str(answer.value["chain"])
        certificate.encode("ascii"), chain.encode("ascii")
    except (KeyError, TypeError, UnicodeEncodeError):
        raise Failure("The server's answer holds no certificate.") from None
    return certificate if certificate.endswith("\n") else certificate + "\n", chain


def _same_key(certificate: str, csr: str) -> bool:
    form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    try:
        issued = x509.load_pem_x509_certificate(certificate.encode()).public_key()
        asked = x509.load_pem_x509_csr(csr.encode()).public_key()
    except ValueError:
        return False
    return issued.public_bytes(*form) == asked.public_bytes(*form)


def common_name_of(pem: str) -> str | None:
    """The common name in a certificate's subject, None where it has none."""
    found = x509.load_pem_x509_certificate(pem.encode()).subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if found else None


def parsed(names: list[str]) -> list[Name]:
    """Names as the server writes them (`dns:a.internal`)."""
    from rootward.core.names import parse_name

    try:
        return [parse_name(name) for name in names]
    except Problem as problem:
        raise of_problem(problem) from None
