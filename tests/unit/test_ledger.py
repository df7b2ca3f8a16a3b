"""The audit tree's pure half: RFC 6962 by its own words, the frontier against the definition, notes."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from hypothesis import given, settings
from hypothesis import strategies as st

from rootward.core.ledger import (
    EMPTY,
    BadNote,
    Frontier,
    draft_head,
    finish_head,
    leaf,
    leaf_hash,
    node_hash,
    parse_head,
    parse_verifier,
    unpacked,
    verifier_of,
)
from rootward.core.pubkey import public_key_of

# The inputs and roots that Certificate Transparency's implementations test themselves with (RFC 6962 2.1).
INPUTS = [
    bytes.fromhex(text)
    for text in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def tree_hash(leaves: list[bytes]) -> bytes:
    """RFC 6962 2.1, word by word: the largest power of two below n goes left."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    k = 1
    while k * 2 < len(leaves):
        k *= 2
    return node_hash(tree_hash(leaves[:k]), tree_hash(leaves[k:]))


@pytest.mark.invariant("I-57")
def test_the_known_roots() -> None:
    assert Frontier().root == EMPTY
    assert EMPTY.hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    tree = Frontier()
    for data, root in zip(INPUTS, ROOTS, strict=True):
        tree = tree.extended([leaf_hash(data)])
        assert tree.root.hex() == root


@settings(deadline=None)
@given(st.lists(st.binary(min_size=32, max_size=32), max_size=70), st.integers(0, 70))
def test_the_frontier_is_the_definition(leaves: list[bytes], cut: int) -> None:
    first = Frontier().extended(leaves[:cut])
    whole = unpacked(first.size, first.packed()).extended(leaves[cut:])
    assert (whole.size, whole.root) == (len(leaves), tree_hash(leaves))
    assert len(whole.hashes) == len(leaves).bit_count()


@pytest.mark.parametrize(("size", "octets"), [(0, 32), (1, 0), (3, 32), (-1, 32), (4, 31)])
def test_what_is_no_frontier(size: int, octets: int) -> None:
    with pytest.raises(ValueError, match="frontier"):
        unpacked(size, b"x" * octets)


text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)
@given(text, text, st.none() | text, st.dictionaries(text, values, max_size=4))
def test_the_leaf_is_what_the_standard_library_makes_of_an_exports_line(
    kind: str, actor: str, authority: str | None, data: dict[str, Any]
) -> None:
    stored = msgspec.json.encode(data, order="sorted")
    made = leaf(
        n=7,
        at="2026-11-23T12:00:00Z",
        kind=kind,
        actor=actor,
        authority=authority,
        certificate=None,
        request_id="r",
        data=stored,
    )
    line: dict[str, Any] = {"id": "7", "at": "2026-11-23T12:00:00Z", "kind": kind, "actor": actor}
    line |= {"authority": authority, "certificate_id": None, "request_id": "r", "data": json.loads(stored)}
    assert made == json.dumps(line, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


# ── Notes ─────────────────────────────────────────────────────────────────────────────────────────────────────────

PRIVATE = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
VERIFIER = verifier_of("pki.test/log/1", public_key_of(PRIVATE.public_key()))
TREE = Frontier().extended([leaf_hash(data) for data in INPUTS])


def note() -> str:
    draft = draft_head(VERIFIER, TREE)
    return finish_head(draft, PRIVATE.sign(draft.tbs))


def test_a_head_comes_back() -> None:
    head = parse_head(note())
    head.check(VERIFIER)
    assert (head.origin, head.size, head.root.hex()) == ("pki.test/log/1", 8, ROOTS[-1])
    assert head.text == f"pki.test/log/1\n8\n{base64.b64encode(bytes.fromhex(ROOTS[-1])).decode()}\n".encode()
    assert parse_verifier(VERIFIER.text) == VERIFIER


def test_the_example_of_the_specification() -> None:
    """c2sp.org/signed-note gives key ids as SHA-256(name, newline, 0x01, key), 4 octets."""
    name, id, key = VERIFIER.text.split("+", 2)
    raw = base64.b64decode(key)
    assert raw[0] == 1
    assert hashlib.sha256(name.encode() + b"\n" + raw).hexdigest()[:8] == id


def test_signatures_of_others_are_passed_over() -> None:
    other = base64.b64encode(b"abcd" + bytes(64)).decode()
    parse_head(f"{note()}— witness.test {other}\n").check(VERIFIER)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text.replace("\n8\n", "\n9\n"),
        lambda text: text.replace("\n8\n", "\n08\n"),
        lambda text: text.replace("pki.test/log/1\n8", "pki.test/log/2\n8"),
        lambda text: text[:-6] + "AAA==\n",
        lambda text: text.replace("—", "-"),
        lambda text: text.rstrip("\n"),
        lambda text: text.replace("\n\n", "\n"),
        lambda text: text.replace("\n\n", "\nextension\n\n"),
        lambda text: "\x00" + text,
        lambda text: text + "x" * 5000,
        lambda text: text.rpartition("—")[0],
        lambda _: "",
    ],
    ids=range(12),
)
@pytest.mark.invariant("I-57", "I-59")
def test_a_spoilt_note_is_not_believed(spoil: Any) -> None:
    with pytest.raises(BadNote):
        parse_head(spoil(note())).check(VERIFIER)


def test_a_key_of_another_kind_or_name() -> None:
    with pytest.raises(ValueError, match="Ed25519"):
        verifier_of("a", public_key_of(ec.generate_private_key(ec.SECP256R1()).public_key()))
    for wrong in ("", "a b", "a+b", "a\n"):
        with pytest.raises(BadNote):
            verifier_of(wrong, public_key_of(PRIVATE.public_key()))
    for text in ("", "a+b", "a+00000000+AAAA", VERIFIER.text.replace("+", "x+", 1), VERIFIER.text[:-4]):
        with pytest.raises(BadNote):
            parse_verifier(text)
    with pytest.raises(BadNote):
        parse_head(note()).check(VERIFIER.named("pki.test/log/2"))
