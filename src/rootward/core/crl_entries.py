"""The entries of a CRL (RFC 5280 5.1.2.6, 5.3.1): written a million at a time, and read anew by the lint.

Both work on one buffer in slices of bounded size and keep nothing for each entry but eight octets, because a list of a
million must cost seconds and megabytes, not minutes and gigabytes. What is written here is only what a full CRL may
have: no `unspecified`, no `removeFromCRL`, no serial that no CA may give.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

import msgspec

from rootward.core import der
from rootward.core.revocation import RevocationReason

MAX_SERIAL = 20  # octets (RFC 5280 4.1.2.2)
_HOUR = 3600
_WINDOW = 256 * 1024  # octets of a list that are matched at once
_FIFTY = ord("5")
_TAIL = 8  # octets of a serial that are compared first

_REASON = der.oid("2.5.29.21")


class Entry(msgspec.Struct, frozen=True):
    """One revoked certificate: its serial as DER content octets, when (aware UTC) and why."""

    serial: bytes
    revoked_at: datetime
    reason: RevocationReason


def _reason_extension(reason: RevocationReason) -> bytes:
    if reason is RevocationReason.UNSPECIFIED:
        return b""  # 5.3.1: absent rather than unspecified
    return der.sequence(der.sequence(_REASON, der.octet_string(der.enumerated(reason.number))))


_EXTENSIONS: dict[RevocationReason, bytes] = {
    reason: _reason_extension(reason) for reason in RevocationReason if reason is not RevocationReason.REMOVE_FROM_CRL
}


def encode_entry(entry: Entry) -> bytes:
    """An element of revokedCertificates, DER; ValueError for a serial outside RFC 5280 4.1.2.2 or removeFromCRL."""
    serial, extension = entry.serial, _EXTENSIONS.get(entry.reason)
    if extension is None:
        raise ValueError("removeFromCRL is for delta CRLs only")
    if not serial_is_valid(serial):
        raise ValueError("a serial is positive and has at most 20 octets")
    moment = der.time(entry.revoked_at)
    size = len(serial)
    length = 2 + size + len(moment) + len(extension)
    return b"\x30%c\x02%c%b%b%b" % (length, size, serial, moment, extension)


def serial_is_valid(serial: bytes) -> bool:
    """Whether these are the content octets of a serial that a CA may give: positive, minimal, at most 20 octets."""
    return (
        0 < len(serial) <= MAX_SERIAL
        and serial[0] < 0x80
        and (serial[0] > 0 or (len(serial) > 1 and serial[1] >= 0x80))
    )


# ── Writing ───────────────────────────────────────────────────────────────────────────────────────────────────────

# The usual entry has a UTCTime, which ends in minutes, seconds and Z, and then its reason. Made once: one sum of four
# pieces is all that is done for each entry.
_UTC_TIME = 15
_HEADS: dict[str, dict[int, bytes]] = {
    reason.value: {
        size: b"\x30%c\x02%c" % (2 + size + _UTC_TIME + len(extension), size) for size in range(1, MAX_SERIAL + 1)
    }
    for reason, extension in _EXTENSIONS.items()
}
_ENDS: dict[str, list[bytes]] = {
    reason.value: [b"%02d%02dZ" % divmod(second, 60) + extension for second in range(_HOUR)]
    for reason, extension in _EXTENSIONS.items()
}


class Entries:
    """The content of revokedCertificates while it is written: `content` its octets, `count` of how many entries."""

    __slots__ = ("_hours", "content", "count")

    def __init__(self, entries: Iterable[Entry | bytes] = ()) -> None:
        """From entries, or from what `encode_entry` made of them."""
        self.content = bytearray()
        self.count = 0
        self._hours: dict[int, bytes | None] = {}  # the beginning of a UTCTime; None where it is no UTCTime
        for entry in entries:
            self.content += entry if isinstance(entry, bytes) else encode_entry(entry)
            self.count += 1

    def add(self, rows: Iterable[tuple[bytes, int, str]], *, latest: int) -> None:
        """Many at once: serial, when in Unix seconds (`latest` where it is later), the reason's RFC 5280 name.

        ValueError as `encode_entry`; then this is of no use any more.
        """
        content, hours, heads, ends, before = self.content, self._hours, _HEADS, _ENDS, len(self.content)
        count = 0
        try:
            for serial, at, reason in rows:
                hour, second = divmod(at if at < latest else latest, _HOUR)
                if hour not in hours:
                    hours[hour] = _beginning(hour)
                begin = hours[hour]
                if begin is not None and 0 < serial[0] < 0x80:
                    content += heads[reason][len(serial)] + serial + begin + ends[reason][second]
                else:
                    moment = datetime.fromtimestamp(min(at, latest), UTC)
                    content += encode_entry(Entry(serial, moment, RevocationReason(reason)))
                count += 1
        except (KeyError, IndexError) as error:
            del content[before:]
            raise ValueError("an entry has a reason or a serial that no full CRL may have") from error
        self.count += count


def _beginning(hour: int) -> bytes | None:
    moment = der.time(datetime.fromtimestamp(hour * _HOUR, UTC))
    return moment[:-5] if moment[0] == der.UTC_TIME else None


# ── Linting ───────────────────────────────────────────────────────────────────────────────────────────────────────

# What an entry of a full CRL looks like, so that reading a million of them stays in C: its length, its serial (that is
# positive, minimal, at most 20 octets), its time, and a reason other than unspecified (0), 7 and removeFromCRL (8).
_SERIALS = [rb"\x01[\x01-\x7f]"] + [
    rb"\x%02x(?:[\x01-\x7f].|\x00[\x80-\xff]).{%d}" % (octets, octets - 2) for octets in range(2, MAX_SERIAL + 1)
]
_SERIALS.reverse()  # ours have 20 octets
_CLOCK = rb"(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])(?:[01][0-9]|2[0-3])[0-5][0-9][0-5][0-9]Z"
_PATTERN = (
    rb"\x30(.)\x02(%b)(\x17\x0d[0-9]{2}%b|\x18\x0f(?:20[5-9][0-9]|2[1-9][0-9]{2})%b)((?:%b[\x01-\x06\x09\x0a])?)"
    % (b"|".join(_SERIALS), _CLOCK, _CLOCK, re.escape(_EXTENSIONS[RevocationReason.SUPERSEDED][:-1]))
)
_ENTRY = re.compile(_PATTERN, re.DOTALL)
# Entries without anything between them. No octets are two things: an entry begins 30 xx 02, its reason 30 0c 30.
_RUN = re.compile(rb"(?:%b)++" % re.sub(rb"\((?!\?)", rb"(?:", _PATTERN), re.DOTALL)
_LONGEST = 64
_Part = list[tuple[bytes, bytes, bytes, bytes]]  # length, serial with its own length, time, reason


def lint_entries(tbs: bytes, listed: der.Item, *, count: int, this_update: datetime) -> Iterator[str]:
    """What is wrong with the entries at `listed` in `tbs`, in sentences. `count` is how many there are meant to be."""
    latest = der.time(this_update)
    tails = [bytearray() for _ in range(256)]  # by a serial's last octet, the eight before it
    short: set[bytes] = set()
    at, found, late, shorts = listed.body, 0, 0, 0
    for part, end in _parts(tbs, listed.body, listed.end):
        for _, serial, moment, _ in part:
            if len(serial) > _TAIL + 1:
                tails[serial[-1]] += serial[-_TAIL - 1 : -1]
            else:
                short.add(serial)
                shorts += 1
            if moment > latest if moment[2] < _FIFTY > latest[2] else _century(moment) > _century(latest):
                late += 1
        at = end
        found += len(part)
    if listed.tag != der.SEQUENCE or not found or at != listed.end:
        yield f"Entry {found + 1} is not encoded as it must be, or has what a full CRL may not have."
    elif found != count:
        yield "The number of entries is not the draft's."
    if len(short) != shorts or _twice(tbs, listed.body, at, tails):
        yield "A serial is there twice."
    if late:
        yield f"{late} revocation dates are after thisUpdate."


def count_entries(tbs: bytes, listed: der.Item) -> int:
    """How many entries there are at `listed`, up to the first that is not as it must be (which the lint then names)."""
    return sum(len(part) for part, _ in _parts(tbs, listed.body, listed.end))


def read_serials(tbs: bytes, listed: der.Item) -> tuple[set[bytes], set[bytes]]:
    """(every serial, those on hold) of entries that passed `lint_entries`."""
    hold = _EXTENSIONS[RevocationReason.CERTIFICATE_HOLD]
    every: set[bytes] = set()
    held: set[bytes] = set()
    for part, _ in _parts(tbs, listed.body, listed.end):
        every.update([serial[1:] for _, serial, _, _ in part])
        held.update([serial[1:] for _, serial, _, reason in part if reason == hold])
    return every, held


def _parts(tbs: bytes, at: int, stop: int) -> Iterator[tuple[_Part, int]]:
    """The entries from offset `at` on, many at a time, and where each such part ends; up to the first one that is not
    as it must be.
    """
    while at < stop:
        edge = min(at + _WINDOW, stop)
        run = _RUN.match(tbs, at, edge)
        if run is None:
            return
        part: _Part = _ENTRY.findall(tbs, at, run.end())
        if edge < stop and run.end() > edge - _LONGEST:
            del part[-1:]  # it may be cut off
        sizes = [3 + len(serial) + len(moment) + len(reason) for _, serial, moment, reason in part]
        said = [length[0] + 2 for length, *_ in part]
        if said != sizes:
            right = next(place for place, size in enumerate(sizes) if said[place] != size)
            del part[right:], sizes[right:]
            stop = 0
        at += sum(sizes)
        if not part:
            return
        yield part, at


def _twice(tbs: bytes, at: int, stop: int, tails: list[bytearray]) -> bool:
    """Whether any serial is there twice. Where eight octets are, the whole serials are looked at."""
    suspect = set()
    for last, tail in enumerate(tails):
        with memoryview(tail) as octets, octets.cast("Q") as numbers:
            if len(set(numbers)) != len(numbers):
                suspect.add(last)
    seen: set[bytes] = set()
    for part, _ in _parts(tbs, at, stop) if suspect else ():
        for _, serial, _, _ in part:
            if serial[-1] in suspect and len(serial) > _TAIL + 1:
                if serial in seen:
                    return True
                seen.add(serial)
    return False


def _century(moment: bytes) -> bytes:
    """The digits of a Time with its century: UTCTime is 1950 to 2049 (RFC 5280 4.1.2.5.1)."""
    digits = moment[2:]
    if moment[0] == der.GENERALIZED_TIME:
        return digits
    return (b"20" if digits[0] < _FIFTY else b"19") + digits
