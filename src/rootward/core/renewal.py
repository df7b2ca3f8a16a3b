"""What an authority's certificate says, as a specification (RFC 5280 4.2): of a further certificate for it, or of the
authority that takes its place, which is the same but for its name, its number, and the key.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import timedelta
from typing import Any, Literal

import msgspec
from cryptography import x509
from cryptography.x509.oid import NameOID

from rootward.core.authority import AuthoritySpec, Constraints
from rootward.core.problems import Problem
from rootward.core.pubkey import certificate_key
from rootward.core.times import show_duration

_NUMBERED = re.compile(r"(.*?)([0-9]+)")
_FORMS: dict[type[x509.GeneralName], str] = {
    x509.DNSName: "dns",
    x509.IPAddress: "ip",
    x509.RFC822Name: "email",
    x509.UniformResourceIdentifier: "uri",
    x509.DirectoryName: "directory",
}


# What follows from its keys, its parent, or from its being a CA: every certificate of an authority has it.
_FOLLOWS = (
    x509.KeyUsage,
    x509.SubjectKeyIdentifier,
    x509.AuthorityKeyIdentifier,
    x509.CRLDistributionPoints,
    x509.AuthorityInformationAccess,
)


def renewed(spec: AuthoritySpec, name: str) -> AuthoritySpec:
    """The specification of `name`, which takes the place of the authority of `spec`. Two authorities of one subject
    would be hard to tell apart for people and for path building, so the common name ends in the number that `name` ends
    in, or in 2.
    """
    return msgspec.structs.replace(spec, name=name, common_name=_numbered(spec.common_name, name))


def spec_of(certificate: x509.Certificate, name: str, kind: Literal["policy", "issuing"]) -> AuthoritySpec:
    """The specification of the authority `name`, as its certificate has it. How its key signs is not in there.

    Problem RW-CEREMONY for what a specification cannot say: then it must be written by hand.
    """
    said: dict[str, Any] = {}
    for extension in certificate.extensions:
        said |= _said(extension)
    return AuthoritySpec(
        name=name,
        kind=kind,
        common_name=_attribute(certificate, NameOID.COMMON_NAME),
        organization=_attribute(certificate, NameOID.ORGANIZATION_NAME),
        country=_attribute(certificate, NameOID.COUNTRY_NAME),
        key_algorithm=certificate_key(certificate).algorithm,
        lifetime=show_duration(
            certificate.not_valid_after_utc - certificate.not_valid_before_utc + timedelta(seconds=1)
        ),
        **{"path_length": None, **said},
    )


def _said(extension: x509.Extension[x509.ExtensionType]) -> dict[str, Any]:
    """The fields of a specification that the extension stands for."""
    match extension.value:
        case x509.BasicConstraints() as basic:
            return {"path_length": basic.path_length}
        case x509.NameConstraints() as constraints:
            return {
                "permitted": _trees(constraints.permitted_subtrees),
                "excluded": _trees(constraints.excluded_subtrees),
            }
        case x509.ExtendedKeyUsage() as usages:
            return {"extended_key_usage": tuple(one.dotted_string for one in usages)}
        case x509.CertificatePolicies() as policies if not any(one.policy_qualifiers for one in policies):
            return {"policies": tuple(one.policy_identifier.dotted_string for one in policies)}
        case x509.SubjectAlternativeName() as names if all(
            isinstance(one, x509.UniformResourceIdentifier) for one in names
        ):
            return {"uris": tuple(names.get_values_for_type(x509.UniformResourceIdentifier))}
        case value if isinstance(value, _FOLLOWS):
            return {}
    detail = f"Its certificate has the extension {extension.oid.dotted_string} as no specification has it: write one."
    raise Problem("RW-CEREMONY", detail)


def _numbered(common: str, name: str) -> str:
    was, own = _NUMBERED.fullmatch(common), _NUMBERED.fullmatch(name)
    return f"{was[1] if was else f'{common} '}{own[2] if own else '2'}"


def _attribute(certificate: x509.Certificate, oid: x509.ObjectIdentifier) -> str:
    found = certificate.subject.get_attributes_for_oid(oid)
    return str(found[0].value) if found else ""


def _trees(names: Iterable[x509.GeneralName] | None) -> Constraints:
    found: dict[str, list[str]] = {}
    for one in names or ():
        form = _FORMS.get(type(one))
        if form is None:
            raise Problem("RW-CEREMONY", "Its name constraints are of a type that no specification has: write one.")
        value = one.value
        found.setdefault(form, []).append(value.rfc4514_string() if isinstance(value, x509.Name) else str(value))
    return Constraints(**{form: tuple(values) for form, values in found.items()})
