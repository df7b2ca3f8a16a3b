"""Our own keys' requests: they are read by the same strict reader as everybody's."""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from rootward.core.csr import parse_csr
from rootward.core.csr_draft import CsrDraft, draft_csr, finish_csr
from rootward.core.names import parse_name
from rootward.core.problems import Problem
from rootward.core.pubkey import KeyAlgorithm
from rootward.core.signature import SIGNATURES
from rootward.keys import BACKENDS, KeySettings, sign_tbs
from tests.vectors import csr_parts as parts

NAMES = tuple(parse_name(text) for text in ("dns:a.internal", "ip:fc00::1", "uri:https://a.internal/x"))
SUBJECT = ((NameOID.ORGANIZATION_NAME.dotted_string, "Zoë & Sons"), (NameOID.COMMON_NAME.dotted_string, "a.internal"))
FAST = [one for one in KeyAlgorithm if one not in (KeyAlgorithm.RSA_3072, KeyAlgorithm.RSA_4096)]


@pytest.mark.parametrize("algorithm", FAST)
def test_a_request_of_ours_is_read_as_it_was_meant(algorithm: KeyAlgorithm) -> None:
    key = BACKENDS["memory"](KeySettings()).generate("own", algorithm)
    draft = draft_csr(key.public, names=NAMES, subject=SUBJECT)
    assert draft.issuer_key_id == key.public.id
    assert draft.algorithm == SIGNATURES[algorithm].identifier
    data = finish_csr(draft, sign_tbs(key, draft.tbs))
    read = parse_csr(data)
    assert (read.public_key, read.names, read.subject) == (key.public, NAMES, SUBJECT)
    assert (read.key_usage, read.extended_key_usage, read.ignored, read.attributes) == (None, None, (), ())
    assert x509.load_der_x509_csr(data).tbs_certrequest_bytes == draft.tbs


def test_a_bare_request_has_a_key_and_nothing_else() -> None:
    key = BACKENDS["memory"](KeySettings()).generate("own", KeyAlgorithm.P256)
    draft = draft_csr(key.public)
    read = parse_csr(finish_csr(draft, sign_tbs(key, draft.tbs)))
    assert (read.names, read.subject, read.common_name) == ((), (), None)
    assert draft == draft_csr(key.public)


@pytest.mark.invariant("I-12")
def test_another_keys_signature_is_no_proof() -> None:
    keys = BACKENDS["memory"](KeySettings())
    key, other = keys.generate("own", KeyAlgorithm.P256), keys.generate("own", KeyAlgorithm.P256)
    draft = draft_csr(key.public, names=NAMES)
    for signature in (sign_tbs(other, draft.tbs), bytes(8), b"", parts.sign(parts.private_key(), draft.tbs)):
        with pytest.raises(Problem, match="RW-CSR-SIGNATURE"):
            parse_csr(finish_csr(draft, signature))


@pytest.mark.invariant("I-38")
def test_a_draft_is_never_made_by_hand() -> None:
    with pytest.raises(TypeError):
        CsrDraft(issuer_key_id="0" * 64, tbs=b"\x30\x00", algorithm=b"\x30\x00")
