"""Hostile bytes in the suite: every parser gets its kept corpus, mutations of it, and what is deep, long or many; only
its declared error comes out. How much it costs is bounded by counts, which are tested here; bench/fuzz.py has the
times.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rootward.core import der, pbe
from rootward.core.csr import parse_csr
from rootward.core.foreign import MAX_NAMES, read_foreign
from rootward.core.ocsp_request import OcspError, parse_request
from rootward.core.problems import Problem
from rootward.core.upload import MAX_ITEMS, read_upload
from rootward.protocols.rest.bodies import decode
from rootward.protocols.rest.certificates import IssueBody
from tests.vectors import imports as made
from tests.vectors.csr_parts import pem

HERE = Path(__file__).parent
TARGETS = ["csr", "ocsp_request", "import_", "json_", "jws", "http_answer", "acme_certificate", "dns_answer", "share"]
WORDS = [
    b"\x30\x84\xff\xff\xff\xff",
    b"\x30\x80",
    b"\xa0\x82\xff\xff",
    b"\x05\x00",
    b"\x06\x01\x80",
    b"\x1f\xff",
    b"{[",
    b'"',
]

SHAPES: dict[str, Callable[[], bytes]] = {
    "sequences in each other": lambda: made.deep(5_000),
    "indefinite lengths": lambda: b"\x30\x80" * 10_000,
    "a length of 4 GiB": lambda: b"\x30\x84\xff\xff\xff\xff" + bytes(60_000),
    "many elements": lambda: der.sequence(b"\x05\x00" * 30_000),
    "many fields": lambda: der.sequence(der.sequence(b"\x30\x00" * 15_000), der.sequence(), der.bit_string(b"")),
    "lists in each other": lambda: b"[" * 60_000,
    "objects in each other": lambda: b'{"a":' * 10_000,
    "many members": lambda: b'{"labels":{' + b",".join(b'"%d":"x"' % n for n in range(5_000)) + b"}}",
    "many blocks without an end": lambda: b"-----BEGIN CERTIFICATE-----\n" * 2_000,
    "dashes": lambda: b"-" * 60_000,
    "digits": lambda: b"9" * 60_000,
    "nothing": lambda: b"",
}


def target(name: str) -> Any:
    return import_module(f"tests.fuzz.{name}")


def corpus(name: str) -> list[Path]:
    return sorted((HERE / "corpus" / name).iterdir())


@st.composite
def mutated(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    """A seed with a few pieces flipped, cut, doubled, put in from elsewhere, or with its lengths made wrong."""
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(data)))
        end = min(len(data), at + draw(st.integers(0, 64)))
        match draw(st.integers(0, 5)):
            case 0 if at < len(data):
                data[at] ^= 1 << draw(st.integers(0, 7))
            case 1:
                del data[at:end]
            case 2:
                data[at:at] = data[at:end] * draw(st.integers(1, 20))
            case 3:
                other = draw(st.sampled_from(seeds))
                begin = draw(st.integers(0, len(other)))
                data[at:end] = other[begin : begin + draw(st.integers(0, 200))]
            case 4:
                data[at:at] = draw(st.sampled_from(WORDS))
            case _ if at < len(data):
                data[at] = draw(st.sampled_from([0, 0x7F, 0x80, 0x81, 0x84, 0xFF]))
    return bytes(data)


@pytest.mark.invariant("I-66")
@pytest.mark.parametrize("name", TARGETS)
def test_mutations_of_good_and_bad_inputs(name: str) -> None:
    tested = target(name)
    seeds = [seed for seed in tested.seeds() if len(seed) < 8_192]

    @settings(max_examples=400, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(mutated(seeds))
    def run(data: bytes) -> None:
        tested.one(data)

    run()


@pytest.mark.invariant("I-66")
@pytest.mark.parametrize("name", TARGETS)
def test_the_kept_corpus(name: str) -> None:
    """Every input that reached something of its own, and every crasher there ever was."""
    kept = corpus(name)
    assert len(kept) > 10
    for path in kept:
        target(name).one(path.read_bytes())


@pytest.mark.invariant("I-66")
@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("shape", SHAPES)
def test_deep_long_and_many(name: str, shape: str) -> None:
    data = SHAPES[shape]()
    for one in (data, b"\0" + data):
        target(name).one(one)


@pytest.mark.invariant("I-66")
def test_how_deep_and_how_many() -> None:
    """The bounds, where they are: one more is refused, whatever it is inside."""
    der.check(made.deep(der.MAX_DEPTH - 1))
    der.check(der.sequence(b"\x05\x00" * (der.MAX_ELEMENTS - 1)))
    for data in (made.deep(der.MAX_DEPTH + 1), der.sequence(b"\x05\x00" * der.MAX_ELEMENTS)):
        with pytest.raises(der.DerError, match=r"deeply|too many"):
            der.check(data)
    with pytest.raises(der.DerError, match="too many"):
        der.few(der.sequence(b"\x05\x00" * 17), der.header(der.sequence(b"\x05\x00" * 17), 0, 36))
    with pytest.raises(Problem, match="at most 65536 bytes"):
        parse_csr(b"\x30" * 65_537)
    with pytest.raises(OcspError, match="16 KiB"):
        parse_request(b"\x30" * 16_385)
    with pytest.raises(Problem, match="levels deep"):
        decode(b'{"labels":' + b"[" * 40 + b"]" * 40 + b"}", IssueBody)
    assert len(read_foreign(made.certificate(extensions=(made.alt_names(*map(str, range(2_000))),))).names) == MAX_NAMES
    many = pem(b"\x30\x00", "CERTIFICATE") * (MAX_ITEMS + 1)
    with pytest.raises(Problem, match="at most 10000 items"):
        read_upload(many)


@pytest.mark.invariant("I-66")
@pytest.mark.parametrize(
    "bad", [bad for bad in made.BAD_IMPORTS if "iterations" in bad.title or bad.number == 318], ids=str
)
def test_no_file_makes_more_iterations_than_its_budget(bad: made.BadImport, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it declares, at whatever depth: they are counted before they are made."""
    content = bad.make()
    counted = {"new": 0, "old": 0}
    stretch, old = hashlib.pbkdf2_hmac, pbe.old_key

    def counting(name: str, password: bytes, salt: bytes, iterations: int, size: int | None = None) -> bytes:
        counted["new"] += iterations
        return stretch(name, password, salt, min(iterations, 10), size)

    def counting_old(digest: str, purpose: int, password: bytes, salt: bytes, iterations: int, size: int) -> bytes:
        counted["old"] += iterations
        return old(digest, purpose, password, salt, iterations, size)

    monkeypatch.setattr(hashlib, "pbkdf2_hmac", counting)
    monkeypatch.setattr(pbe, "old_key", counting_old)
    monkeypatch.setattr("rootward.core.pkcs12.old_key", counting_old)
    with pytest.raises(Problem):
        read_upload(content, bad.password)
    assert counted["new"] <= pbe.MAX_ITERATIONS
    assert counted["old"] <= pbe.MAX_OLD_ITERATIONS
    if "2^" in bad.title:
        assert counted["new"] == 0
        assert counted["old"] < 10


@settings(max_examples=200, deadline=None, database=None)
@given(st.binary(max_size=300), st.binary(min_size=1, max_size=30), st.text(max_size=40))
def test_any_serial_subject_and_name_can_be_stored(subject: bytes, serial: bytes, name: str) -> None:
    """What comes out is text that both stores take, and JSON."""
    names = made.extension("2.5.29.17", der.sequence(der.tlv(0x82, name.encode())))
    data = made.certificate(serial=serial, subject=made.name(raw=subject), extensions=(names,))
    found = read_foreign(data)
    assert found.serial == serial
    assert found.der == data
    texts = (found.subject, *found.names)
    assert "\0" not in "".join(texts)
    assert msgspec.json.decode(msgspec.json.encode(texts)) == list(texts)


@settings(max_examples=100, deadline=None, database=None)
@given(st.lists(st.sampled_from(["a.test", "b.test", "c.test"]), max_size=5), st.binary(max_size=100))
def test_text_between_blocks_is_nothing(names: list[str], between: bytes) -> None:
    between = between.replace(b"-", b"_")
    content = between + between.join(pem(made.real_der(name), "CERTIFICATE") for name in names) + between
    if not names or content[:1] == b"\x30":
        return
    assert [item.der for item in read_upload(b"x" + content)] == [made.real_der(name) for name in names]


def test_lines_of_base64_may_be_of_any_length() -> None:
    body = base64.b64encode(made.real_der())
    for content in (body, b" \r\n".join(body[at : at + 7] for at in range(0, len(body), 7))):
        block = b"-----BEGIN CERTIFICATE-----\r\n" + content + b"\r\n-----END CERTIFICATE-----"
        assert read_upload(block)[0].der == made.real_der()
