"""What people upload to be imported: PEM (one or many, with text between), DER, PKCS#7 and PKCS#12, told apart by their
bytes. Everything ends as certificates in DER, byte for byte, or as a reason why not; private keys are never kept.

Work is linear in the size, and the number of items is bounded before any is read. Problems: RW-MEDIA-TYPE for what is
of no form that we know (Java keystores among them), RW-IMPORT for what cannot be taken apart, RW-TOO-LARGE for too many
items, RW-IMPORT-PASSWORD.
"""

from __future__ import annotations

import binascii
import re
from typing import NamedTuple

from rootward.core import der
from rootward.core.pkcs12 import is_pkcs12, open_pkcs12
from rootward.core.problems import Problem, Reason

MAX_ITEMS = 10_000

_BOUNDARY = re.compile(rb"-----(BEGIN|END) ([A-Za-z0-9 #._/+-]{1,64})-----")
_CERTIFICATES = frozenset({b"CERTIFICATE", b"X509 CERTIFICATE", b"TRUSTED CERTIFICATE"})
_BUNDLES = frozenset({b"PKCS7", b"CMS", b"PKCS #7 SIGNED DATA"})
_KEYSTORES = (b"\xfe\xed\xfe\xed", b"\xce\xce\xce\xce")  # JKS, JCEKS
_SIGNED_DATA = "1.2.840.113549.1.7.2"
_BLANK = b" \t\r\n"


class Item(NamedTuple):
    """One thing of an upload, by its place in it: a certificate's DER, or why there is none. `key`: it is a private
    key, and its bytes went no further.
    """

    der: bytes
    refused: Reason | None = None
    key: bool = False


def read_upload(content: bytes, password: str | None = None) -> tuple[Item, ...]:
    """Every item, in order."""
    if not content.strip(_BLANK):
        raise Problem("RW-IMPORT", "There is nothing to import.", field="content")
    if content[:1] == b"\x30":
        return _from_der(content, password)
    if content[:4] in _KEYSTORES:
        detail = "This is a Java keystore. Export its certificates as PEM or PKCS#12 first."
        raise Problem("RW-MEDIA-TYPE", detail, field="content")
    if b"-----BEGIN " in content:
        return _from_pem(content)
    raise Problem("RW-MEDIA-TYPE", "This is not PEM, DER, PKCS#7 or PKCS#12.", field="content")


def _refused(detail: str, code: str = "RW-IMPORT-ITEM") -> Item:
    return Item(b"", Reason(code, detail, "content"))


def _key() -> Item:
    detail = "A private key does not belong here. It was not kept; if it was in use, count it as seen by others."
    return Item(b"", Reason("RW-IMPORT-KEY", detail, "content"), key=True)


def _too_many() -> Problem:
    return Problem("RW-TOO-LARGE", f"An import has at most {MAX_ITEMS} items.", field="content")


# ── PEM (RFC 7468) ────────────────────────────────────────────────────────────────────────────────────────────────


def _from_pem(content: bytes) -> tuple[Item, ...]:
    """One pass over the boundaries: text between blocks is nothing, a block without an end is refused."""
    found: list[Item] = []
    label, begin = None, 0
    for boundary in _BOUNDARY.finditer(content):
        if boundary[1] == b"BEGIN":
            if label is not None:
                found.append(_unended(label))
            label, begin = boundary[2], boundary.end()
        elif label is not None:
            if boundary[2] != label:
                found.append(_unended(label))
            else:
                found += _from_block(label, content[begin : boundary.start()])
            label = None
        if len(found) > MAX_ITEMS:
            raise _too_many()
    if label is not None:
        found.append(_unended(label))
    if not found:
        raise Problem("RW-IMPORT", "There is no whole PEM block in it.", field="content")
    if len(found) > MAX_ITEMS:
        raise _too_many()
    return tuple(found)


def _unended(label: bytes) -> Item:
    return _key() if b"PRIVATE KEY" in label else _refused("A PEM block has no end.")


def _from_block(label: bytes, body: bytes) -> tuple[Item, ...]:
    if b"PRIVATE KEY" in label:
        return (_key(),)
    if label not in _CERTIFICATES and label not in _BUNDLES:
        return (_refused("A PEM block is of a kind that holds no certificate."),)
    try:
        data = binascii.a2b_base64(body.translate(None, _BLANK), strict_mode=True)
    except binascii.Error:
        return (_refused("A PEM block is not base64."),)
    if label in _BUNDLES:
        try:
            return _from_pkcs7(data)
        except Problem as problem:
            return (Item(b"", problem.reasons[0]),) if problem.code != "RW-TOO-LARGE" else _raise(problem)
    if _is_private_key(data):
        return (_key(),)  # under a certificate's label
    if label == b"TRUSTED CERTIFICATE":  # OpenSSL puts its own data behind the certificate
        try:
            return (Item(der.whole(data, der.header(data, 0, len(data)))),)
        except der.DerError:
            return (_refused("A PEM block holds no certificate."),)
    return (Item(data),)


def _raise(problem: Problem) -> tuple[Item, ...]:
    raise problem


# ── DER ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _from_der(content: bytes, password: str | None) -> tuple[Item, ...]:
    try:
        parts = _outline(content)
    except der.DerError as error:
        raise Problem("RW-IMPORT", f"It cannot be read as DER: {error}.", field="content") from None
    if parts[:2] == [der.OID, 0xA0]:
        return _from_pkcs7(content)
    if _is_private_key(content):
        return (_key(),)
    if is_pkcs12(content):
        opened = open_pkcs12(content, password)
        if len(opened.certificates) > MAX_ITEMS:
            raise _too_many()
        others = [_refused("A certificate is of a kind that is not X.509.")] * opened.others
        # Keys are what PKCS#12 is for: they are counted, and say nothing against the file.
        return (*(Item(one) for one in opened.certificates), *others)
    return (Item(content),)


def _outline(content: bytes, most: int = 12) -> list[int]:
    """The tags of the first elements directly inside the one SEQUENCE that `content` is."""
    found: list[int] = []
    for item in der.items(content, der.only(content, der.SEQUENCE)):
        found.append(item.tag)
        if len(found) == most:
            break
    return found


_PRIVATE = (
    [der.INTEGER, der.SEQUENCE, der.OCTET_STRING],  # PKCS#8
    [der.INTEGER, der.SEQUENCE, der.OCTET_STRING, 0xA0],
    [der.INTEGER, der.SEQUENCE, der.OCTET_STRING, 0x81],
    [der.INTEGER, der.SEQUENCE, der.OCTET_STRING, 0xA0, 0x81],
    [der.SEQUENCE, der.OCTET_STRING],  # PKCS#8, encrypted
    [der.INTEGER, der.OCTET_STRING],  # SEC 1
    [der.INTEGER, der.OCTET_STRING, 0xA0],
    [der.INTEGER, der.OCTET_STRING, 0xA1],
    [der.INTEGER, der.OCTET_STRING, 0xA0, 0xA1],
    [der.INTEGER] * 9,  # PKCS#1
    [der.INTEGER] * 6,  # DSA
)


def _is_private_key(data: bytes) -> bool:
    try:
        return _outline(data) in _PRIVATE
    except der.DerError:
        return False


# ── PKCS#7 (RFC 2315, RFC 5652) ───────────────────────────────────────────────────────────────────────────────────


def _from_pkcs7(data: bytes) -> tuple[Item, ...]:
    """The certificates of a SignedData; nothing of it is verified, a bundle is not a statement of anybody."""
    try:
        return _read_pkcs7(data)
    except der.DerError as error:
        raise Problem("RW-IMPORT", f"The PKCS#7 file cannot be read: {error}.", field="content") from None


def _read_pkcs7(data: bytes) -> tuple[Item, ...]:
    parts = der.few(data, der.only(data, der.SEQUENCE))
    if len(parts) != 2 or parts[0].tag != der.OID or parts[1].tag != 0xA0:
        raise der.DerError("it is no ContentInfo")
    if der.read_oid(der.content(data, parts[0])) != _SIGNED_DATA:
        raise der.DerError("it is not of the kind that carries certificates")
    signed = der.only(data, der.SEQUENCE, start=parts[1].body, end=parts[1].end)
    found: list[Item] = []
    for field in der.few(data, signed):
        if field.tag != 0xA0:
            continue
        for item in der.items(data, field):
            if len(found) == MAX_ITEMS:
                raise _too_many()
            whole = der.whole(data, item)
            found.append(Item(whole) if item.tag == der.SEQUENCE else _refused("A certificate is of an old kind."))
    if not found:
        raise der.DerError("there is no certificate in it")
    return tuple(found)
