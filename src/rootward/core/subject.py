"""The subject that a request asks for, read strictly (RFC 5280 4.1.2.4 and its appendix A.1, RFC 4514 for the words).

Every RDN holds one attribute; values are PrintableString or UTF8String (IA5String for domainComponent and
emailAddress), within the upper bounds of RFC 5280, and made of characters that can be seen: no control, bidi,
zero-width or private ones.
"""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import NamedTuple

from rootward.core import der
from rootward.core.problems import Reason, shown

MAX_ATTRIBUTES = 20
COMMON_NAME = "2.5.4.3"
COUNTRY = "2.5.4.6"
_IA5_OIDS = frozenset({"0.9.2342.19200300.100.1.25", "1.2.840.113549.1.9.1"})
# Upper bounds of RFC 5280 A.1 in characters; what is not listed may have 255.
_LIMITS = {
    COMMON_NAME: 64,
    "2.5.4.5": 64,
    "2.5.4.7": 128,
    "2.5.4.8": 128,
    "2.5.4.10": 64,
    "2.5.4.11": 64,
    "2.5.4.12": 64,
}
_OTHER_STRINGS = {
    der.TELETEX_STRING: "TeletexString",
    der.BMP_STRING: "BMPString",
    der.UNIVERSAL_STRING: "UniversalString",
    der.IA5_STRING: "IA5String",
}
_PRINTABLE = re.compile(rb"[A-Za-z0-9 '()+,./:=?-]*")
_COUNTRY = re.compile(r"[A-Za-z]{2}", re.ASCII)
_ADDRESS = re.compile(r"\[?[0-9A-Fa-f:.]{2,45}\]?", re.ASCII)


class Subject(NamedTuple):
    """Pairs of dotted OID and value in order, the one common name, and what is wrong."""

    pairs: tuple[tuple[str, str], ...]
    common_name: str | None
    reasons: list[Reason]


def read_subject(data: bytes, name: der.Item) -> Subject:
    """The Name that `name` is inside `data`; DerError if it cannot be read."""
    pairs: list[tuple[str, str]] = []
    reasons: list[Reason] = []
    common_name = None
    for rdn in der.items(data, name):
        if rdn.tag != der.SET or rdn.body == rdn.end:
            raise der.DerError("the subject is not a list of non-empty sets")
        if len(pairs) >= MAX_ATTRIBUTES:
            reasons.append(_reason(f"The subject has more than {MAX_ATTRIBUTES} attributes."))
            break
        attribute = der.header(data, rdn.body, rdn.end)
        if attribute.end != rdn.end:
            reasons.append(_reason("The subject has a relative name of several attributes."))
        oid, value, reason = _read_attribute(data, attribute)
        if reason is None:
            reason = _value_problem(oid, value)
        if oid == COMMON_NAME and common_name is not None and reason is None:
            reason = "The subject has two common names."
        if reason is not None:
            reasons.append(_reason(reason))
        elif oid == COMMON_NAME:
            common_name = value
        pairs.append((oid, value))
    return Subject(tuple(pairs), common_name, reasons)


def _reason(detail: str) -> Reason:
    return Reason("RW-CSR-SUBJECT", detail, "csr")


def _read_attribute(data: bytes, attribute: der.Item) -> tuple[str, str, str | None]:
    """Dotted OID, value, and why its string type is not accepted."""
    if attribute.tag != der.SEQUENCE:
        raise der.DerError("a subject attribute is not a sequence")
    kind = der.header(data, attribute.body, attribute.end)
    if kind.tag != der.OID:
        raise der.DerError("a subject attribute has no type")
    oid = der.read_oid(data[kind.body : kind.end])
    text = der.header(data, kind.end, attribute.end)
    if text.end != attribute.end:
        raise der.DerError("a subject attribute has more than one value")
    raw = data[text.body : text.end]
    if text.tag == der.UTF8_STRING:
        try:
            return oid, raw.decode("utf-8"), None
        except UnicodeDecodeError:
            raise der.DerError("a subject attribute is not valid UTF-8") from None
    if text.tag == der.PRINTABLE_STRING:
        if _PRINTABLE.fullmatch(raw) is None:
            raise der.DerError("a PrintableString in the subject has a character that it cannot have, such as @ or *")
        return oid, raw.decode("ascii"), None
    if text.tag == der.IA5_STRING and oid in _IA5_OIDS:
        if not raw.isascii():
            raise der.DerError("an IA5String in the subject is not ASCII")
        return oid, raw.decode("ascii"), None
    kind_name = _OTHER_STRINGS.get(text.tag, "another type")
    return (
        oid,
        "",
        f"The subject's attribute {oid} is written as {kind_name}; UTF8String or PrintableString is accepted.",
    )


def _value_problem(oid: str, value: str) -> str | None:
    """Why a value cannot stand in a subject, or None."""
    if not value.strip():
        return f"The subject's attribute {oid} is empty."
    if not value.isprintable():
        return f"The subject's attribute {oid} has control or invisible characters: {shown(value)}."
    if value.strip() != value:
        return f"The subject's attribute {oid} begins or ends with a space."
    if len(value) > (limit := _LIMITS.get(oid, 255)):
        return f"The subject's attribute {oid} has more than {limit} characters."
    if oid == COUNTRY and _COUNTRY.fullmatch(value) is None:
        return f"The subject's country {shown(value)} is not a code of two letters."
    if oid == COMMON_NAME and _is_address(value):
        return "An IP address stands in subjectAltName, not in the common name."
    return None


def _is_address(value: str) -> bool:
    if _ADDRESS.fullmatch(value) is None:
        return False
    try:
        ip_address(value.strip("[]"))
    except ValueError:
        return False
    return True
