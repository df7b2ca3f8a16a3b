"""Our lints against mutants: a draft that does not say what its plan says is always found, and never with a crash."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rootward.core import der
from rootward.core.lint import expected_tbs, lint_certificate
from rootward.core.plan import Draft, Plan, Serial, make_serial
from rootward.core.profile import Lifetime, NameRules, Revocation, Subject, Value
from rootward.core.pubkey import KeyAlgorithm, public_key_info
from rootward.core.signature import SIGNATURES
from tests.support.plans import DAY, NOW, SECOND, ca, changed, draft, issuer_of, plan
from tests.vectors import csr_parts as parts

# One plan of each shape that our profiles give.
SHAPES: dict[str, Callable[[], Plan]] = {
    "server": lambda: plan("dns:a.internal", "dns:*.b.internal", "ip:10.0.0.1", "ip:fc00::1", cn="a.internal"),
    "no subject": lambda: plan("dns:a.internal", rules={"revocation": Revocation(must_staple="always")}),
    "client": lambda: plan(
        "uri:spiffe://a.internal/x",
        "email:me@a.internal",
        cn="A box",
        rules={
            "extended_key_usage": ("client_auth",),
            "policies": ("1.2.3.4",),
            "subject": Subject(organization=Value("fixed", "Zoë & Sons"), country=Value("fixed", "DE")),
        },
    ),
    "short": lambda: plan(rules={"revocation": Revocation(crl=False, ocsp=False, no_rev_avail=True)}, lifetime=DAY),
    "no names": lambda: plan(
        "ip:10.0.0.1",
        rules={"names": NameRules("fixed", ("ip:10.0.0.1",)), "extended_key_usage": ()},
        key=parts.private_key("ed25519"),
    ),
    "rsa": lambda: plan(key=parts.private_key("rsa-2048")),
    "ml-dsa": lambda: plan(key=parts.private_key("ml-dsa-44")),
    "century": lambda: plan(
        rules={"issuer": issuer_of(ca("Long CA", days=20_000)), "lifetime": Lifetime("30y", "30y")}
    ),
}
MADE = {title: (made := make(), draft(made)) for title, make in SHAPES.items()}
# The library only warns of what it will refuse one day, such as a serial that is not positive.
pytestmark = pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
shapes = pytest.mark.parametrize("title", list(MADE))


def findings(drafted: Draft, made: Plan) -> list[str]:
    """The findings' sentences; each is a reason of its own code."""
    found = lint_certificate(drafted, made)
    assert {reason.code for reason in found} <= {"RW-LINT"}
    assert all(reason.detail for reason in found)
    return [reason.detail for reason in found]


@pytest.mark.invariant("I-09")
@shapes
def test_a_right_draft_has_no_findings(title: str) -> None:
    made, drafted = MADE[title]
    assert findings(drafted, made) == []
    assert expected_tbs(drafted, made) == drafted.tbs
    assert public_key_info(drafted.tbs) == made.key.spki


# ── DER surgery ───────────────────────────────────────────────────────────────────────────────────────────────────

VERSION, SERIAL, ALGORITHM, ISSUER, VALIDITY, SUBJECT, KEY, EXTENSIONS = range(8)


def _with(tbs: bytes, at: int, new: bytes) -> bytes:
    pieces = [part.whole for part in der.children(tbs)]
    pieces[at : at + 1] = [new]
    return der.sequence(*pieces)


def _extensions(tbs: bytes) -> list[bytes]:
    return [part.whole for part in der.children(der.children(tbs)[EXTENSIONS].content)]


def _with_extensions(tbs: bytes, extensions: list[bytes]) -> bytes:
    return _with(tbs, EXTENSIONS, der.explicit(3, der.sequence(*extensions)))


def _name(text: str, tag: int = der.UTF8_STRING) -> bytes:
    return der.sequence(parts.common_name(text, tag))


def _criticality(extension: bytes) -> bytes:
    pieces = [part.whole for part in der.children(extension)]
    return (
        der.sequence(pieces[0], pieces[-1])
        if len(pieces) == 3
        else der.sequence(pieces[0], der.boolean(True), pieces[1])
    )


def _value(extension: bytes, change: Callable[[bytes], bytes]) -> bytes:
    pieces = [part.whole for part in der.children(extension)]
    body = change(der.children(extension)[-1].content)
    return der.sequence(*pieces[:-1], der.octet_string(body))


def mutants(drafted: Draft) -> Iterator[tuple[str, bytes]]:
    """A draft's TBS with one thing changed, each of them a structure that somebody could read."""
    tbs = drafted.tbs
    cells = der.children(tbs)
    yield "version 1", _with(tbs, VERSION, b"")
    yield "version 2", _with(tbs, VERSION, der.explicit(0, der.integer(1)))
    yield "version 4", _with(tbs, VERSION, der.explicit(0, der.integer(3)))
    for serial in (
        make_serial(b"x" * 20),
        b"\x01",
        b"\x00",
        b"\x80" * 20,
        b"\x00" + drafted.serial,
        drafted.serial[:-1],
    ):
        yield f"serial {serial.hex()}", _with(tbs, SERIAL, der.tlv(der.INTEGER, serial))
    for algorithm in (SIGNATURES[KeyAlgorithm.P384].identifier, SIGNATURES[KeyAlgorithm.RSA_2048].identifier):
        yield "algorithm", _with(tbs, ALGORITHM, algorithm)
    yield (
        "algorithm with NULL",
        _with(tbs, ALGORITHM, der.sequence(der.children(cells[ALGORITHM].whole)[0].whole, der.null())),
    )
    yield "issuer", _with(tbs, ISSUER, _name("Another CA"))
    yield "issuer in another string type", _with(tbs, ISSUER, _name("Test Issuing CA", der.PRINTABLE_STRING))
    yield "no issuer", _with(tbs, ISSUER, der.sequence())
    times = [der.time(moment) for moment in (drafted.not_before, drafted.not_after)]
    for begin, end in [
        (drafted.not_before - SECOND, drafted.not_after),
        (drafted.not_before, drafted.not_after + SECOND),
        (drafted.not_before + DAY, drafted.not_after + DAY),
        (drafted.not_after, drafted.not_before),
    ]:
        yield "dates", _with(tbs, VALIDITY, der.sequence(der.time(begin), der.time(end)))
    yield (
        "a date in another form",
        _with(tbs, VALIDITY, der.sequence(der.generalized_time(drafted.not_before), times[1])),
    )
    yield "subject", _with(tbs, SUBJECT, _name("evil.internal"))
    yield "subject twice", _with(tbs, SUBJECT, der.sequence(*[parts.common_name("a.internal")] * 2))
    yield "subject in another string type", _with(tbs, SUBJECT, _name("a.internal", der.PRINTABLE_STRING))
    if cells[SUBJECT].content:
        yield "no subject", _with(tbs, SUBJECT, der.sequence())
    yield "key", _with(tbs, KEY, parts.spki_of(parts.private_key("p384")))
    yield "no key", _with(tbs, KEY, b"")
    yield "unique identifier", _with(tbs, KEY, cells[KEY].whole + der.tlv(0x81, b"\x00\x55"))
    yield "no extensions", _with(tbs, EXTENSIONS, b"")
    yield "empty extensions", _with_extensions(tbs, [])
    yield "one part more", _with(tbs, EXTENSIONS, cells[EXTENSIONS].whole + der.null())
    yield "extensions twice", _with(tbs, EXTENSIONS, cells[EXTENSIONS].whole * 2)
    yield from _extension_mutants(tbs)


def _extension_mutants(tbs: bytes) -> Iterator[tuple[str, bytes]]:
    given = _extensions(tbs)
    for at, extension in enumerate(given):
        oid = der.read_oid(der.children(extension)[0].content)
        rest = given[:at] + given[at + 1 :]
        for what, pieces in [
            ("removed", rest),
            ("twice", [*given, extension]),
            ("last", [*rest, extension]),
            ("criticality", [*given[:at], _criticality(extension), *given[at + 1 :]]),
            ("value and junk", [*given[:at], _value(extension, lambda body: body + b"\x00"), *given[at + 1 :]]),
            ("empty value", [*given[:at], _value(extension, lambda _: b""), *given[at + 1 :]]),
            ("cut value", [*given[:at], _value(extension, lambda body: body[:-1]), *given[at + 1 :]]),
            ("another value", [*given[:at], _value(extension, _last_bit), *given[at + 1 :]]),
        ]:
            if pieces != given:
                yield f"{oid} {what}", _with_extensions(tbs, pieces)
    for title, extra in _EXTRA.items():
        yield f"added {title}", _with_extensions(tbs, [*given, extra])
        yield f"first {title}", _with_extensions(tbs, [extra, *given])
    yield "reversed", _with_extensions(tbs, given[::-1])


def _last_bit(body: bytes) -> bytes:
    return body[:-1] + bytes([body[-1] ^ 1])


_EXTRA = {
    "unknown": parts.extension("1.2.3.4.5", der.null()),
    "unknown and critical": parts.extension("1.2.3.4.5", der.null(), critical=True),
    "CA": parts.extension("2.5.29.19", der.sequence(der.boolean(True)), critical=True),
    "a name": parts.san(parts.dns(b"evil.internal")),
    "a name of another type": parts.san(parts.upn("x@y")),
    "usage": parts.extension("2.5.29.15", bytes.fromhex("03020106"), critical=True),
    "any usage": parts.eku("2.5.29.37.0"),
    "no extension at all": der.sequence(),
    "a number": der.integer(1),
}
ALL = [(title, what, tbs) for title, (_, drafted) in MADE.items() for what, tbs in mutants(drafted)]


@pytest.mark.invariant("I-02", "I-09")
@shapes
def test_every_mutant_is_found(title: str) -> None:
    made, drafted = MADE[title]
    tried = [(what, tbs) for owner, what, tbs in ALL if owner == title and tbs != drafted.tbs]
    assert len(tried) > 80
    missed = [what for what, tbs in tried if not findings(changed(drafted, tbs=tbs), made)]
    assert missed == []


def test_what_differs_is_named() -> None:
    made, drafted = MADE["server"]
    for at, word in [
        (SERIAL, "serial"),
        (ALGORITHM, "signature algorithm"),
        (ISSUER, "issuer"),
        (VALIDITY, "validity"),
        (SUBJECT, "subject"),
        (KEY, "public key"),
    ]:
        other = der.children(MADE["client"][1].tbs)[at].whole
        if at == SERIAL:
            other = der.integer(5)
        if at == ALGORITHM:
            other = SIGNATURES[KeyAlgorithm.P384].identifier
        if at == ISSUER:
            other = _name("Another CA")
        if at == VALIDITY:
            other = der.sequence(der.time(NOW), der.time(NOW + DAY))
        if at == KEY:
            other = parts.spki_of(parts.private_key("p384"))
        found = findings(changed(drafted, tbs=_with(drafted.tbs, at, other)), made)
        assert any(word in text for text in found), (word, found)
    san = [one for one in _extensions(drafted.tbs) if b"*.b.internal" in one]
    swapped = [parts.san(parts.dns(b"c.internal")) if one in san else one for one in _extensions(drafted.tbs)]
    assert findings(changed(drafted, tbs=_with_extensions(drafted.tbs, swapped)), made) == [
        "The names are not the planned ones."
    ]


# ── Fields beside the bytes ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.invariant("I-02")
@pytest.mark.parametrize(
    "fields",
    [
        {"serial": Serial(b"")},
        {"serial": Serial(b"\x40")},
        {"serial": Serial(b"\x80" + bytes(19))},
        {"serial": make_serial(b"y" * 20)},
        {"issuer_key_id": "0" * 64},
        {"algorithm": SIGNATURES[KeyAlgorithm.P384].identifier},
        {"algorithm": b""},
        {"algorithm": b"\x30"},
        {"not_before": NOW},
        {"not_after": NOW},
        {"not_before": NOW.replace(tzinfo=None)},
        {"not_before": NOW.replace(tzinfo=None), "not_after": NOW.replace(tzinfo=None) + 30 * DAY - SECOND},
        {"not_after": NOW.replace(year=9999)},
        {"tbs": b""},
        {"tbs": b"\x30\x00"},
        {"tbs": b"\x30\x80\x00\x00"},
        {"tbs": b"\x30" * 1000},
    ],
)
def test_a_field_that_is_not_the_bytes_is_found(fields: dict[str, Any]) -> None:
    made, drafted = MADE["server"]
    assert findings(changed(drafted, **fields), made)


@pytest.mark.invariant("I-08", "I-04")
@shapes
def test_a_draft_that_is_wrong_in_itself_is_found_though_its_bytes_agree(title: str) -> None:
    """Bytes and fields say the same; what they say is wrong."""
    made, drafted = MADE[title]
    issuer = made.policy.issuer
    span = drafted.not_after - drafted.not_before
    for fields in (
        {"serial": Serial(b"\x05")},
        {"serial": Serial(b"\x3f" + drafted.serial[1:])},
        {"not_after": drafted.not_after - SECOND},
        {"not_before": drafted.not_before + timedelta(hours=1)},
        {"not_before": issuer.not_before - SECOND, "not_after": issuer.not_before - SECOND + span},
        {"not_before": issuer.not_after + SECOND - span, "not_after": issuer.not_after + SECOND},
        {"not_before": drafted.not_after, "not_after": drafted.not_before},
    ):
        false = changed(drafted, **fields)
        false = changed(false, tbs=expected_tbs(false, made))
        assert findings(false, made), fields


@pytest.mark.invariant("I-41")
@shapes
def test_a_draft_of_another_plan_is_found(title: str) -> None:
    for other, (made, _) in MADE.items():
        assert bool(findings(MADE[title][1], made)) is (other != title)


@pytest.mark.invariant("I-10")
def test_a_plan_with_a_name_twice_or_a_common_name_beside_them_is_found() -> None:
    made, drafted = MADE["server"]
    values = {name: getattr(made, name) for name in Plan._fields}
    twice = Plan._make(**values | {"names": (made.names[0], *made.names)})
    assert "A name is there twice." in findings(changed(drafted, tbs=expected_tbs(drafted, twice)), twice)
    beside = Plan._make(**values | {"subject": (("2.5.4.3", "b.internal"),)})
    assert findings(changed(drafted, tbs=expected_tbs(drafted, beside)), beside) == [
        "The common name is not one of the names."
    ]


# ── Every bit ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.invariant("I-02", "I-09")
@pytest.mark.parametrize("title", ["server", "client", "no subject"])
def test_every_flipped_bit_is_found(title: str) -> None:
    made, drafted = MADE[title]
    for at in range(0, len(drafted.tbs) * 8, 3):  # 3 and 8 share no factor: each place in an octet comes round
        flipped = bytearray(drafted.tbs)
        flipped[at // 8] ^= 1 << at % 8
        assert findings(changed(drafted, tbs=bytes(flipped)), made), at


@pytest.mark.invariant("I-09")
@settings(max_examples=150, deadline=None)
@given(
    title=st.sampled_from(list(MADE)),
    changes=st.lists(
        st.tuples(st.integers(0, 3000), st.sampled_from("sdi"), st.integers(0, 255)), min_size=1, max_size=5
    ),
)
def test_random_damage_is_found(title: str, changes: list[tuple[int, str, int]]) -> None:
    made, drafted = MADE[title]
    data = bytearray(drafted.tbs)
    for at, how, octet in changes:
        at %= len(data)
        if how == "i":
            data.insert(at, octet)
        elif how == "d":
            del data[at]
        else:
            data[at] = octet
    assert bool(findings(changed(drafted, tbs=bytes(data)), made)) is (bytes(data) != drafted.tbs)


@pytest.mark.invariant("I-09")
@settings(max_examples=100, deadline=None)
@given(title=st.sampled_from(list(MADE)), pick=st.randoms(use_true_random=False))
def test_parts_of_other_drafts_are_found(title: str, pick: Any) -> None:
    """A TBS put together from the parts and the extensions of several drafts."""
    made, drafted = MADE[title]
    others = [der.children(other.tbs) for _, other in MADE.values()]
    pieces = [pick.choice(others)[at].whole for at in range(8)]
    pool = [one for _, other in MADE.values() for one in _extensions(other.tbs)]
    if pick.random() < 0.7:
        chosen = pick.sample(pool, pick.randint(0, 10))
        pieces[EXTENSIONS] = der.explicit(3, der.sequence(*chosen))
    tbs = der.sequence(*pieces)
    assert bool(findings(changed(drafted, tbs=tbs), made)) is (tbs != drafted.tbs)
