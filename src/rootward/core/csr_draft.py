"""A CSR of our own: how our keys (an authority's, a responder's, the server's) ask, by the same road as everybody
(RFC 2986).
"""

from __future__ import annotations

from cryptography import x509

from rootward.core.capture import assemble, capture_tbs
from rootward.core.names import Name, to_general_name
from rootward.core.pubkey import PublicKey
from rootward.core.sealed import Sealed
from rootward.core.template import subject_name


class CsrDraft(Sealed):
    """A CertificationRequestInfo (DER) to sign with the key that it is about."""

    issuer_key_id: str
    tbs: bytes
    algorithm: bytes


def draft_csr(key: PublicKey, *, names: tuple[Name, ...] = (), subject: tuple[tuple[str, str], ...] = ()) -> CsrDraft:
    """`subject` holds (dotted OID, value) pairs."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject_name(subject))
    if names:
        alternative = x509.SubjectAlternativeName([to_general_name(name) for name in names])
        builder = builder.add_extension(alternative, critical=False)
    tbs, algorithm = capture_tbs(builder, key.algorithm, public_key=key.key)
    return CsrDraft._make(issuer_key_id=key.id, tbs=tbs, algorithm=algorithm)


def finish_csr(draft: CsrDraft, signature: bytes) -> bytes:
    """The CSR's DER."""
    return assemble(draft.tbs, draft.algorithm, signature)
