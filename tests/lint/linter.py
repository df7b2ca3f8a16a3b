"""pkilint's PKIX linters (RFC 5280, RFC 6960) in this process: what `lint_pkix_cert`, `lint_crl`,
`lint_ocsp_response` and `lint_pkix_signer_signee_cert_chain` run, without a process for each document.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

from pkilint import loader, pkix, validation  # type: ignore[import-untyped]  # it ships no types
from pkilint.bin import lint_pkix_signer_signee_cert_chain as links  # type: ignore[import-untyped]  # as above
from pkilint.pkix import certificate, crl, extension, name, ocsp  # type: ignore[import-untyped]  # as above

Severity = validation.ValidationFindingSeverity


@dataclass(frozen=True)
class Finding:
    """A finding that is worse than INFO: its code, its severity's name, where it is and what it says."""

    code: str
    severity: str
    path: str
    message: str


def lint_certificate(der: bytes) -> list[Finding]:
    """As `lint_pkix_cert lint -s NOTICE`."""
    return _found(_certificates().validate(loader.load_certificate(der, "certificate").root))


def lint_link(issuer: bytes, subject: bytes) -> list[Finding]:
    """As `lint_pkix_signer_signee_cert_chain lint -s NOTICE`: names, key identifiers, policies and the signature."""
    load = loader.RFC5280CertificateDocumentLoader().load_der_document
    documents: dict[str, Any] = {}
    for role, der in (("issuer", issuer), ("subject", subject)):
        documents[role] = load(der, role, role, documents)
    decode = links.create_decoder_validation_container()
    results = [*decode.validate(documents["issuer"].root), *decode.validate(documents["subject"].root)]
    results += links.create_issuer_validation_container().validate(documents["issuer"].root)
    results += links.create_subject_validation_container().validate(documents["subject"].root)
    return _found(results)


def lint_crl(der: bytes) -> list[Finding]:
    """As `lint_crl lint -t CRL -p PKIX -s NOTICE`; the type (CRL, ARL) makes a difference to the CA/B profile only."""
    return _found(_crls().validate(loader.RFC5280CertificateListDocumentLoader().load_der_document(der, "crl").root))


def lint_ocsp(der: bytes) -> list[Finding]:
    """As `lint_ocsp_response lint -s NOTICE`."""
    return _found(_answers().validate(loader.RFC6960OCSPResponseDocumentLoader().load_der_document(der, "ocsp").root))


def _found(results: list[Any]) -> list[Finding]:
    return [
        Finding(one.finding.code, one.finding.severity.name, str(result.node.path), one.message or "")
        for result in results
        for one in result.finding_descriptions
        if one.finding.severity < Severity.INFO  # FATAL is 0, and the rest follows
    ]


@cache
def _certificates() -> Any:
    return certificate.create_pkix_certificate_validator_container(
        certificate.create_decoding_validators(name.ATTRIBUTE_TYPE_MAPPINGS, extension.EXTENSION_MAPPINGS),
        [
            certificate.create_issuer_validator_container([]),
            certificate.create_validity_validator_container(),
            certificate.create_subject_validator_container([]),
            certificate.create_extensions_validator_container([]),
            certificate.create_spki_validator_container([]),
        ],
    )


@cache
def _crls() -> Any:
    return crl.create_pkix_crl_validator_container(
        [
            pkix.create_attribute_decoder(name.ATTRIBUTE_TYPE_MAPPINGS),
            pkix.create_extension_decoder(extension.EXTENSION_MAPPINGS),
        ],
        [
            crl.create_issuer_validator_container([]),
            crl.create_validity_validator_container([]),
            crl.create_extensions_validator_container([]),
        ],
    )


@cache
def _answers() -> Any:
    return ocsp.create_pkix_ocsp_response_validator_container(
        [
            ocsp.create_response_decoder(),
            pkix.create_attribute_decoder(name.ATTRIBUTE_TYPE_MAPPINGS),
            pkix.create_extension_decoder(extension.EXTENSION_MAPPINGS),
        ],
        [],
    )
