"""What an authority's certificate says, as a specification (RFC 5280 4.2): of a further certificate for it, or of the
authority that takes its place, which is the same but for its name, its number, and the key.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import timedelta
from typing import Literal

import msgspec
from cryptography import x509
from cryptography.x509.oid import NameOID

from rootward.core.authority import AuthoritySpec, Constraints
from rootward.core.lint import public_key_info
from rootward.core.problems import Problem
from rootward.core.pubkey import check_public_key
from rootward.core.times import show_duration

_NUMBERED = re.compile(r"(.*?)([0-9]+)")
_FORMS: dict[type[x509.GeneralName], str] = {
    x509.DNSName: "dns",
    x509.IPAddress: "ip",
    x509.RFC822Name: "email",
    x509.UniformResourceIdentifier: "uri",
    x509.DirectoryName: "directory",
}


def spec_like(certificate: x509.Certificate, name: str, kind: Literal["policy", "issuing"]) -> AuthoritySpec:
    """The specification of `name`, which shall be what the holder of `certificate` is. Two authorities of one subject
    would be hard to tell apart for people and for path building, so the common name ends in the number that `name` ends
    in, or in 2.

    Problem RW-CEREMONY for what a specification cannot say: then it must be written by hand.
    """
    spec = spec_of(certificate, name, kind)
    return msgspec.structs.replace(spec, common_name=_numbered(spec.common_name, name))


def spec_of(certificate: x509.Certificate, name: str, kind: Literal["policy", "issuing"]) -> AuthoritySpec:
    """What `certificate` says, as the specification of the authority `name`; Problem as `spec_like`."""
    extensions = {type(one.value): one.value for one in certificate.extensions}
    basic = extensions.get(x509.BasicConstraints)
    constraints = extensions.get(x509.NameConstraints)
    usages = extensions.get(x509.ExtendedKeyUsage)
    policies = extensions.get(x509.CertificatePolicies)
    names = extensions.get(x509.SubjectAlternativeName)
    return AuthoritySpec(
        name=name,
        kind=kind,
        common_name=_attribute(certificate, NameOID.COMMON_NAME),
        organization=_attribute(certificate, NameOID.ORGANIZATION_NAME),
        country=_attribute(certificate, NameOID.COUNTRY_NAME),
        key_algorithm=check_public_key(public_key_info(certificate.tbs_certificate_bytes)).algorithm,
        lifetime=show_duration(
            certificate.not_valid_after_utc - certificate.not_valid_before_utc + timedelta(seconds=1)
        ),
        path_length=basic.path_length if isinstance(basic, x509.BasicConstraints) else None,
        permitted=_trees(constraints.permitted_subtrees if isinstance(constraints, x509.NameConstraints) else None),
        excluded=_trees(constraints.excluded_subtrees if isinstance(constraints, x509.NameConstraints) else None),
        policies=tuple(one.policy_identifier.dotted_string for one in policies or ())
        if isinstance(policies, x509.CertificatePolicies)
        else (),
        extended_key_usage=tuple(one.dotted_string for one in usages)
        if isinstance(usages, x509.ExtendedKeyUsage)
        else (),
        uris=tuple(names.get_values_for_type(x509.UniformResourceIdentifier))
        if isinstance(names, x509.SubjectAlternativeName)
        else (),
    )


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
