"""Certificates of others, read as leniently as an inventory must and no further: what is odd is said, not refused.

The outer form is strict DER (X.690) of a Certificate (RFC 5280 4.1), bounded in size, depth and elements, and its
signature has whole octets, as that of every algorithm: else anybody could give a certificate another hash
(CVE-2014-8275). What cannot be taken apart so far is a `DerError`; of what can, `capture.assemble` makes the same bytes
again. Everything inside (serial, version, dates, names, extensions) may be as wrong as it likes: it becomes an `odd`
reason, and a text that is safe to store. The bytes themselves are kept as they came. Nothing here trusts or verifies
anything.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterator
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import NamedTuple

from rootward.core import der
from rootward.core.problems import Reason

MAX_CERTIFICATE = 256 * 1024  # bytes: a certificate with the largest post-quantum signatures has 100,000
MAX_SERIAL = 256  # octets; more cannot be looked up
MAX_NAMES = 1_000
MAX_TEXT = 1_000  # characters of one name or value
MAX_SUBJECT = 4_000
MAX_ATTRIBUTES = 400  # of subject and issuer together
MAX_ODD = 50
MAX_EXTENSIONS = 200

_BASIC_CONSTRAINTS = "2.5.29.19"
_KEY_USAGE = "2.5.29.15"
_ALT_NAME = "2.5.29.17"
_CERT_SIGN = 0x04  # bit 5 of keyUsage's first octet
_SHORT = {
    "2.5.4.3": "CN",
    "2.5.4.6": "C",
    "2.5.4.7": "L",
    "2.5.4.8": "ST",
    "2.5.4.9": "STREET",
    "2.5.4.10": "O",
    "2.5.4.11": "OU",
    "0.9.2342.19200300.100.1.1": "UID",
    "0.9.2342.19200300.100.1.25": "DC",
}
_ENCODINGS = {
    der.UTF8_STRING: "utf-8",
    der.PRINTABLE_STRING: "ascii",
    der.IA5_STRING: "ascii",
    0x12: "ascii",  # NumericString
    0x1A: "ascii",  # VisibleString
    der.TELETEX_STRING: "latin-1",  # what is really written into it
    der.BMP_STRING: "utf-16-be",
    der.UNIVERSAL_STRING: "utf-32-be",
}
_SPECIAL = frozenset(',+"\\<>;=')
_TIMES = {
    der.UTC_TIME: re.compile(rb"([0-9]{2})([0-9]{2})([0-9]{2})([0-9]{2})([0-9]{2})([0-9]{2})Z"),
    der.GENERALIZED_TIME: re.compile(rb"([0-9]{4})([0-9]{2})([0-9]{2})([0-9]{2})([0-9]{2})([0-9]{2})Z"),
}
_NEVER = datetime(1970, 1, 1, tzinfo=UTC)  # stands where a date cannot be read


class Foreign(NamedTuple):
    """A certificate as it can be stored. `serial` are the content octets, `key_id` the SHA-256 of the key's SPKI (hex),
    `names` as everywhere ("dns:…"), dates aware UTC; `subject_der` and `issuer_der` are the Names as they stand.

    `odd` are the things that no certificate of ours would have; empty for an ordinary one.
    """

    der: bytes
    sha256: str
    serial: bytes
    tbs: bytes
    algorithm: bytes
    signature: bytes
    spki: bytes
    key_id: str
    subject: str
    subject_der: bytes
    issuer: str
    issuer_der: bytes
    names: tuple[str, ...]
    not_before: datetime
    not_after: datetime
    ca: bool
    odd: tuple[Reason, ...]


def read_foreign(data: bytes) -> Foreign:
    """The certificate that `data` is; DerError where it is none, or beyond the bounds."""
    if len(data) > MAX_CERTIFICATE:
        raise der.DerError(f"a certificate has at most {MAX_CERTIFICATE} bytes")
    der.check(data)
    tbs, algorithm, signature = _three(data)
    return _Reader(data, tbs).read(algorithm, signature)


def _three(data: bytes) -> tuple[der.Item, der.Item, der.Item]:
    parts = list(der.items(data, der.only(data, der.SEQUENCE)))
    if [part.tag for part in parts] != [der.SEQUENCE, der.SEQUENCE, der.BIT_STRING]:
        raise der.DerError("it is not a TBSCertificate, an algorithm and a signature")
    if not der.content(data, parts[2]).startswith(b"\0"):
        raise der.DerError("its signature is not of whole octets")
    return parts[0], parts[1], parts[2]


def _odd(field: str, detail: str) -> Reason:
    return Reason("RW-IMPORT-ODD", detail, field)


class _Reader:
    """One TBSCertificate, field by field, and what is odd about it."""

    def __init__(self, data: bytes, tbs: der.Item) -> None:
        self._data, self._tbs = data, tbs
        self._odd: list[Reason] = []
        self._attributes = 0

    def read(self, algorithm: der.Item, signature: der.Item) -> Foreign:
        data = self._data
        fields = list(der.items(data, self._tbs))
        version = 0
        if fields and fields[0].tag == 0xA0:
            version = self._version(fields.pop(0))
        tags = [der.INTEGER, *[der.SEQUENCE] * 5]  # serial, algorithm, issuer, validity, subject, key
        if [item.tag for item in fields[:6]] != tags:
            raise der.DerError("it is no TBSCertificate")
        serial, inner, issuer, validity, subject, key = fields[:6]
        if version != 2:
            self._odd.append(_odd("version", f"It is of version {version + 1}, not 3."))
        if der.whole(data, inner) != der.whole(data, algorithm):
            self._odd.append(_odd("signature", "Inside and outside it names two signature algorithms."))
        not_before, not_after = self._validity(validity)
        names, ca = self._optional(fields[6:], version)
        subject_text, issuer_text = self._name(subject, "subject"), self._name(issuer, "issuer")
        if not issuer_text:
            self._odd.append(_odd("issuer", "Its issuer has no name."))
        return Foreign(
            der=data,
            sha256=hashlib.sha256(data).hexdigest(),
            serial=self._serial(der.content(data, serial)),
            tbs=der.whole(data, self._tbs),
            algorithm=der.whole(data, algorithm),
            signature=der.content(data, signature)[1:],
            spki=der.whole(data, key),
            key_id=hashlib.sha256(der.whole(data, key)).hexdigest(),
            subject=subject_text,
            subject_der=der.whole(data, subject),
            issuer=issuer_text,
            issuer_der=der.whole(data, issuer),
            names=names,
            not_before=not_before,
            not_after=not_after,
            ca=ca,
            odd=tuple(dict.fromkeys(self._odd))[:MAX_ODD],
        )

    def _version(self, item: der.Item) -> int:
        inner = list(der.items(self._data, item))
        if len(inner) != 1 or inner[0].tag != der.INTEGER or inner[0].end - inner[0].body > 4:
            raise der.DerError("its version is no small integer")
        return int.from_bytes(der.content(self._data, inner[0]), "big", signed=True)

    def _serial(self, octets: bytes) -> bytes:
        if not octets or len(octets) > MAX_SERIAL:
            raise der.DerError(f"its serial does not have 1 to {MAX_SERIAL} octets")
        value = int.from_bytes(octets, "big", signed=True)
        if value <= 0:
            self._odd.append(_odd("serial", "Its serial is zero." if value == 0 else "Its serial is negative."))
        if len(octets) > 20:
            self._odd.append(_odd("serial", f"Its serial has {len(octets)} octets, more than 20."))
        if len(octets) > 1 and (octets[0], octets[1] >> 7) in ((0, 0), (255, 1)):
            self._odd.append(_odd("serial", "Its serial is not in its shortest form."))
        return octets

    def _validity(self, item: der.Item) -> tuple[datetime, datetime]:
        parts = list(der.items(self._data, item))
        if len(parts) != 2:
            raise der.DerError("its validity is not two dates")
        begin, end = (self._time(part) for part in parts)
        if end < begin:
            self._odd.append(_odd("validity", "It ends before it begins."))
        return begin, end

    def _time(self, item: der.Item) -> datetime:
        pattern, octets = _TIMES.get(item.tag), der.content(self._data, item)
        found = None if pattern is None else pattern.fullmatch(octets)
        if found is not None:
            year, month, day, hour, minute, second = map(int, found.groups())
            if item.tag == der.UTC_TIME:
                year += 1900 if year >= 50 else 2000
            elif year < 2050:
                self._odd.append(_odd("validity", "A date before 2050 is written as GeneralizedTime."))
            try:
                return datetime(year, month, day, hour, minute, second, tzinfo=UTC)
            except ValueError:
                pass  # the 30th of February, or the year 0
        self._odd.append(_odd("validity", "A date cannot be read; 1970 stands in its place."))
        return _NEVER

    def _optional(self, fields: list[der.Item], version: int) -> tuple[tuple[str, ...], bool]:
        """The names of subjectAltName, and whether it says that it is a CA."""
        extensions: dict[str, bytes] = {}
        for item in fields:
            if item.tag == 0xA3:
                extensions = self._extensions(item)
                if version != 2:
                    self._odd.append(_odd("extensions", "It has extensions, which only version 3 can have."))
            elif item.tag in (0x81, 0x82, 0xA1, 0xA2):
                self._odd.append(_odd("extensions", "It has a unique identifier, which nobody uses."))
            else:
                raise der.DerError("there is more in it than a certificate has")
        ca = self._says_ca(extensions.get(_BASIC_CONSTRAINTS))
        usage = extensions.get(_KEY_USAGE)
        if usage is not None and self._may_certify(usage) and not ca:
            self._odd.append(_odd("extensions", "Its key usage certifies others, and it is no CA."))
        return self._alt_names(extensions.get(_ALT_NAME)), ca

    def _extensions(self, item: der.Item) -> dict[str, bytes]:
        data, found = self._data, dict[str, bytes]()
        lists = list(der.items(data, item))
        if len(lists) != 1 or lists[0].tag != der.SEQUENCE:
            raise der.DerError("its extensions are no list")
        for count, extension in enumerate(der.items(data, lists[0])):
            if count == MAX_EXTENSIONS:
                self._odd.append(_odd("extensions", f"It has more than {MAX_EXTENSIONS} extensions."))
                break
            parts = list(der.items(data, extension)) if extension.tag == der.SEQUENCE else []
            tags = [part.tag for part in parts]
            if tags not in ([der.OID, der.OCTET_STRING], [der.OID, der.BOOLEAN, der.OCTET_STRING]):
                raise der.DerError("an extension is none")
            try:
                oid = der.read_oid(der.content(data, parts[0]))
            except der.DerError:
                self._odd.append(_odd("extensions", "An extension's object identifier cannot be read."))
                continue
            if oid in found:
                self._odd.append(_odd("extensions", f"The extension {oid[:80]} is there twice."))
            found.setdefault(oid, der.content(data, parts[-1]))
        return found

    def _says_ca(self, value: bytes | None) -> bool:
        if value is None:
            return False
        try:
            parts = list(der.items(value, der.only(value, der.SEQUENCE)))
        except der.DerError:
            self._odd.append(_odd("extensions", "Its basic constraints cannot be read."))
            return False
        return bool(parts) and parts[0].tag == der.BOOLEAN and der.content(value, parts[0]) not in (b"", b"\0")

    def _may_certify(self, value: bytes) -> bool:
        try:
            bits = der.content(value, der.only(value, der.BIT_STRING))
        except der.DerError:
            self._odd.append(_odd("extensions", "Its key usage cannot be read."))
            return False
        return len(bits) > 1 and bool(bits[1] & _CERT_SIGN)

    def _alt_names(self, value: bytes | None) -> tuple[str, ...]:
        if value is None:
            return ()
        names: list[str] = []
        try:
            for item in der.items(value, der.only(value, der.SEQUENCE)):
                if len(names) == MAX_NAMES:
                    self._odd.append(_odd("names", f"It has more than {MAX_NAMES} names; the first are kept."))
                    break
                names.append(self._alt_name(item.tag, der.content(value, item)))
        except der.DerError:
            self._odd.append(_odd("names", "Its alternative names cannot be read to the end."))
        return tuple(dict.fromkeys(names))

    def _alt_name(self, tag: int, octets: bytes) -> str:
        kind = {0x81: "email", 0x82: "dns", 0x86: "uri"}.get(tag)
        if kind is not None:
            if not octets or not octets.isascii() or not octets.decode("latin-1").isprintable():
                self._odd.append(_odd("names", "A name is empty, or has characters that it may not have."))
            text = octets.decode("latin-1")
            return f"{kind}:{safe(text.lower() if kind == 'dns' else text, MAX_TEXT)}"
        if tag == 0x87 and len(octets) in (4, 16):
            return f"ip:{ip_address(octets)}"
        return f"other:{tag & 0x1F}:{octets[:64].hex()}"

    def _name(self, item: der.Item, field: str) -> str:
        """A Name as RFC 4514 writes it: the last RDN first."""
        data, parts = self._data, list[str]()
        for rdn in der.items(data, item):
            pairs = list(der.items(data, rdn)) if rdn.tag == der.SET else []
            if not pairs:
                raise der.DerError("a name is not a list of sets")
            self._attributes += len(pairs)
            if self._attributes > MAX_ATTRIBUTES:
                self._odd.append(_odd(field, f"Its names have more than {MAX_ATTRIBUTES} parts."))
                break
            parts.append("+".join(self._attribute(pair, field) for pair in pairs))
        return _cut(",".join(reversed(parts)), MAX_SUBJECT)

    def _attribute(self, item: der.Item, field: str) -> str:
        data = self._data
        parts = list(der.items(data, item)) if item.tag == der.SEQUENCE else []
        if len(parts) != 2 or parts[0].tag != der.OID:
            raise der.DerError("a part of a name is no type and value")
        try:
            oid = der.read_oid(der.content(data, parts[0]))
        except der.DerError:
            self._odd.append(_odd(field, "An object identifier in a name cannot be read."))
            oid = "0.0"
        octets, encoding = der.content(data, parts[1]), _ENCODINGS.get(parts[1].tag)
        try:
            if encoding is None:
                raise UnicodeError
            value = _rdn(octets.decode(encoding))
        except UnicodeError:
            self._odd.append(_odd(field, "A value in a name is not in the characters that it says."))
            value = f"#{der.whole(data, parts[1])[:64].hex()}"
        return f"{_SHORT.get(oid, oid[:80])}={value}"


def safe(text: str, most: int) -> str:
    """`text`, cut at `most` characters, with every character that cannot be seen written as \\uXXXX: it goes into the
    store, into lists and onto terminals.
    """
    return _cut("".join(_seen(text[: most + 1])), most)


def _seen(text: str) -> Iterator[str]:
    for char in text:
        hidden = not char.isprintable() or unicodedata.bidirectional(char) in ("RLO", "LRO", "RLE", "LRE", "PDF")
        yield f"\\u{ord(char):04x}" if hidden else char


def _rdn(text: str) -> str:
    """An attribute's value in RFC 4514's form, what cannot be seen as escaped UTF-8."""
    cut = text[: MAX_TEXT + 1]
    out = []
    for at, char in enumerate(cut):
        edge = (at == 0 and char in " #") or (at == len(cut) - 1 and char == " ")
        if edge or char in _SPECIAL:
            out.append("\\" + char)
        elif not char.isprintable() or unicodedata.bidirectional(char) in ("RLO", "LRO", "RLE", "LRE", "PDF"):
            out.append("".join(f"\\{octet:02X}" for octet in char.encode("utf-8")))
        else:
            out.append(char)
    return _cut("".join(out), MAX_TEXT)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
