"""What a signer decides by: limits, CRLs against what is remembered, and a million entries of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from typing import Any

import msgspec
import pytest

from rootward.core import der
from rootward.core import grounds as words
from rootward.core.crl import BadCrl, draft_crl, drafted_serials, lint_crl, read_draft
from rootward.core.crl_entries import Entries, Entry
from rootward.core.grounds import SignCertificate, grounds_of
from rootward.core.own import responder_profile
from rootward.core.pinned import (
    Change,
    Limits,
    Past,
    Pinned,
    Spent,
    compare,
    decide,
    decide_crl,
    judge,
)
from rootward.core.plan import Policy
from rootward.core.problems import Problem, Reason
from rootward.core.revocation import RevocationReason
from tests.support import plans
from tests.support.plans import DAY, NOW, SERIAL, WHO

ISSUER = plans.issuer_of(plans.ca())
HOLD, COMPROMISE = RevocationReason.CERTIFICATE_HOLD, RevocationReason.KEY_COMPROMISE
HOUR = timedelta(hours=1)


def pinned(limits: Limits | None = None, **changes: Any) -> Pinned:
    policies = {"server": plans.policy(**changes)}
    policies["ocsp-responder"] = Policy(responder_profile("issuing", "48h"), 0, ISSUER)
    return Pinned(ISSUER, limits or Limits(), policies)


def order(*names: str, lifetime: timedelta | None = None) -> SignCertificate:
    wanted = plans.ask(*(names or ("dns:a.internal",)), lifetime=lifetime)
    plan = plans.policy().admit(wanted, WHO)
    draft = plan.draft(SERIAL, NOW)
    return SignCertificate(ISSUER.key_id, draft.tbs, grounds_of(wanted, plan, draft, WHO, NOW))


def why(call: Any, *arguments: Any) -> str:
    with pytest.raises(Problem) as caught:
        call(*arguments)
    return caught.value.detail


def test_the_draft_that_is_handed_in_is_the_one_that_is_made_anew() -> None:
    asked = order("dns:a.internal", "ip:10.1.2.3", "email:mia@a.internal", "uri:https://a.internal/x")
    assert decide(pinned(), asked, Spent(), NOW).tbs == asked.tbs


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("dns:a.internal", True),
        ("dns:*.b.a.internal", True),
        ("dns:localhost", False),
        ("ip:10.1.2.3", True),
        ("ip:10.2.0.1", False),
        ("ip:fc00::1", False),
        ("email:mia@a.internal", True),
        ("uri:https://a.internal/x", True),
    ],
)
def test_names_stay_within_the_limits_whatever_the_profile_allows(name: str, allowed: bool) -> None:
    limits = Limits(suffixes=("internal",), networks=(ip_network("10.1.0.0/16"),))
    asked = order(name)
    if allowed:
        assert decide(pinned(limits), asked, Spent(), NOW).tbs == asked.tbs
    else:
        assert "outside the suffixes and networks" in why(decide, pinned(limits), asked, Spent(), NOW)


def test_a_suffix_is_whole_labels() -> None:
    assert "outside" in why(decide, pinned(Limits(suffixes=("ternal",))), order(), Spent(), NOW)


def test_the_longest_lifetime_and_the_rate_are_limits() -> None:
    assert "no lifetime above 7d" in why(decide, pinned(Limits(lifetime=7 * DAY)), order(), Spent(), NOW)
    limits = Limits(certificates=5)
    assert decide(pinned(limits), order(), Spent(certificates=4, own=99, crls=9999), NOW)
    assert "limit of 5 certificates an hour" in why(decide, pinned(limits), order(), Spent(certificates=5), NOW)


@pytest.mark.parametrize("minutes", [-4, 0, 4])
def test_clocks_may_be_minutes_apart(minutes: int) -> None:
    assert decide(pinned(), order(), Spent(), NOW + timedelta(minutes=minutes))


@pytest.mark.parametrize("minutes", [-6, 6, 60 * 24 * 400])
def test_clocks_that_are_further_apart_are_refused(minutes: int) -> None:
    assert "clock" in why(decide, pinned(), order(), Spent(), NOW + timedelta(minutes=minutes))


def test_a_key_of_the_signers_own_is_never_certified() -> None:
    asked = order()
    held = Pinned(ISSUER, Limits(), pinned().policies, frozenset({plans.ask("dns:a.internal").csr.public_key.id}))
    assert "forbidden" in why(decide, held, asked, Spent(), NOW)


def test_every_wrong_number_is_refused_and_none_breaks_anything() -> None:
    for changes in (
        {"lifetime": -1},
        {"lifetime": 1 << 63},
        {"now": 1 << 63},
        {"now": -(1 << 62)},
        {"serial": bytes(20)},
        {"serial": b"\xff" * 20},
        {"serial": bytes(1000)},
        {"names": ("dns:",)},
        {"names": ()},
        {"csr": b""},
        {"csr": bytes(100_000)},
        {"version": -1},
        {"profile": "\0"},
    ):
        asked = order()
        asked = msgspec.structs.replace(asked, grounds=msgspec.structs.replace(asked.grounds, **changes))
        assert why(decide, pinned(), asked, Spent(), NOW), changes


# CRLs


def crl(*entries: Entry, number: int = 5, at: datetime = NOW, span: timedelta = DAY) -> Any:
    return draft_crl(ISSUER, number=number, this_update=at, next_update=at + span, entries=entries)


def entry(serial: bytes, reason: RevocationReason = COMPROMISE, at: datetime = NOW - HOUR) -> Entry:
    return Entry(serial, at, reason)


def test_a_crls_draft_is_read_back_from_its_bytes() -> None:
    made = crl(entry(b"\x41" * 20), entry(b"\x42" * 20, HOLD), entry(b"\x01", RevocationReason.UNSPECIFIED))
    read = read_draft(made.tbs, ISSUER)
    assert read == made
    assert not lint_crl(read, ISSUER)
    assert drafted_serials(read) == ({b"\x41" * 20, b"\x42" * 20, b"\x01"}, {b"\x42" * 20})
    assert drafted_serials(read_draft(crl().tbs, ISSUER)) == (set(), set())
    old = crl(at=datetime(2051, 1, 1, tzinfo=UTC))
    assert read_draft(old.tbs, ISSUER) == old


@pytest.mark.parametrize(
    "extensions",
    [
        der.sequence(),
        der.explicit(0, der.sequence()),
        der.explicit(0, der.sequence(der.sequence())),
        der.explicit(0, der.sequence(der.sequence(der.oid("2.5.29.20")))),
        der.explicit(0, der.sequence(der.sequence(der.oid("2.5.29.20"), der.octet_string(b"")))),
    ],
)
def test_a_crl_without_what_must_be_in_it_is_refused(extensions: bytes) -> None:
    parts = [part.whole for part in der.children(crl().tbs)]
    with pytest.raises(BadCrl):
        read_draft(der.sequence(*parts[:-1], extensions), ISSUER)


@pytest.mark.invariant("I-09")
def test_every_changed_octet_of_a_crl_is_refused_or_is_another_crl() -> None:
    """What passes is exactly what a draft of the changed values would be."""
    made = crl(entry(b"\x41" * 20))
    passed = 0
    for at in range(len(made.tbs)):
        changed = made.tbs[:at] + bytes([made.tbs[at] ^ 1]) + made.tbs[at + 1 :]
        try:
            read = read_draft(changed, ISSUER)
        except BadCrl:
            continue
        if not lint_crl(read, ISSUER):
            passed += 1
            assert changed != made.tbs
            assert (read.number, read.this_update, read.next_update) != (
                made.number,
                made.this_update,
                made.next_update,
            ) or at in _entry_octets(made.tbs)
    assert passed < 80  # digits of times, the number, and the entry's own octets


def _entry_octets(tbs: bytes) -> range:
    begin = tbs.index(b"\x02\x14" + b"\x41" * 20)
    return range(begin + 2, begin + 22 + 15 + 14)


def test_a_crl_has_times_and_a_rate_that_fit() -> None:
    assert decide_crl(pinned(), crl().tbs, Spent(), NOW)
    assert "valid for over 7d" in why(decide_crl, pinned(), crl(span=8 * DAY).tbs, Spent(), NOW)
    assert "thisUpdate" in why(decide_crl, pinned(), crl(at=NOW - HOUR).tbs, Spent(), NOW)
    assert "thisUpdate" in why(decide_crl, pinned(), crl(at=NOW + HOUR).tbs, Spent(), NOW)
    assert "CRLs an hour" in why(decide_crl, pinned(), crl().tbs, Spent(crls=2000), NOW)
    late = entry(b"\x41" * 20, at=NOW + HOUR)
    assert "after thisUpdate" in why(decide_crl, pinned(), crl(late).tbs, Spent(), NOW)
    with_point = draft_crl(
        ISSUER, number=5, this_update=NOW, next_update=NOW + DAY, entries=(), distribution_point="http://a.test/x"
    )
    assert "extensions" in why(decide_crl, pinned(), with_point.tbs, Spent(), NOW)


A, B, C, D = (bytes([octet]) * 20 for octet in (0x41, 0x42, 0x43, 0x44))


def test_what_a_crl_says_otherwise_than_before() -> None:
    change = compare(listed={A, B, D}, on_hold={B, D}, final={B, C}, held={A})
    assert change == Change(
        forgotten=frozenset({C}),
        softened=frozenset({B}),
        released=frozenset(),
        final=frozenset({A}),
        held=frozenset({B, D}),
    )
    assert compare(set(), set(), set(), {A}).released == {A}


SEEN = Past(4, (NOW - HOUR, NOW - 2 * HOUR))


@pytest.mark.invariant("I-16", "I-21")
@pytest.mark.parametrize(
    ("ended", "past", "goes"),
    [
        (NOW - 3 * DAY, SEEN, True),
        (NOW - 2 * DAY - timedelta(seconds=1), SEEN, True),
        (NOW - 2 * DAY, SEEN, False),  # not two lifetimes ago yet
        (NOW + DAY, SEEN, False),
        (NOW - 3 * DAY, Past(4, (NOW - HOUR,)), False),  # one CRL has shown it
        (NOW - 3 * DAY, Past(4, (NOW - HOUR, NOW - 4 * DAY)), False),  # the other was before its end
        (NOW - 3 * DAY, Past(0), False),
    ],
)
def test_an_entry_goes_two_lifetimes_after_its_end_once_two_lists_have_shown_it(
    ended: datetime, past: Past, goes: bool
) -> None:
    change = Change(forgotten=frozenset({A}))
    if goes:
        judge(crl(), change, {A: ended}, past, NOW)
    else:
        assert A.hex() in why(judge, crl(), change, {A: ended}, past, NOW)


@pytest.mark.invariant("I-17")
@pytest.mark.parametrize(("number", "fine"), [(3, False), (4, False), (5, True), (1 << 40, True), (1 << 80, False)])
def test_a_crls_number_rises_and_not_for_ever(number: int, fine: bool) -> None:
    if fine:
        judge(crl(number=number), Change(), {}, SEEN, NOW)
    else:
        assert "number" in why(judge, crl(number=number), Change(), {}, SEEN, NOW)


def test_above_an_absurd_number_there_is_still_one_more() -> None:
    judge(crl(number=(1 << 80) + 1), Change(), {}, Past(1 << 80), NOW)


def test_what_is_revoked_for_good_is_never_on_hold_and_what_is_held_may_be_released() -> None:
    assert "on hold in the CRL" in why(judge, crl(), Change(softened=frozenset({A})), {}, SEEN, NOW)
    judge(crl(), Change(released=frozenset({A}), final=frozenset({B}), held=frozenset({C})), {}, SEEN, NOW)


def test_a_long_list_is_read_and_compared() -> None:
    entries = Entries()
    at = int((NOW - HOUR).timestamp())
    entries.add(((b"\x41" + number.to_bytes(19, "big"), at, "keyCompromise") for number in range(300_000)), latest=at)
    made = draft_crl(ISSUER, number=5, this_update=NOW, next_update=NOW + DAY, entries=entries)
    draft = decide_crl(pinned(), made.tbs, Spent(), NOW)
    listed, on_hold = drafted_serials(draft)
    assert (len(listed), len(on_hold)) == (300_000, 0)
    gone = b"\x41" + (299_999).to_bytes(19, "big")
    final = set(listed)
    listed.remove(gone)
    assert compare(listed, on_hold, final, set()).forgotten == {gone}


# The words


def test_messages_go_there_and_back() -> None:
    for message in (words.ListKeys(), order(), words.SignCrl("0" * 64, 7)):
        framed = words.frame(message)
        assert int.from_bytes(framed[:4], "big") == len(framed) - 4
        assert words.read_order(framed[4:]) == message
    for reply in (
        words.HeldKeys((words.HeldKey("a", b"b", b"c"),)),
        words.Signed(b"s"),
        words.Failed(True, "why"),
        words.refusal_of(Problem.of([Reason("RW-NAME", "No.", "names"), Reason("RW-KEY-TYPE", "Nor that.")])),
    ):
        assert words.read_reply(words.frame(reply)[4:]) == reply


def test_a_refusal_comes_through_as_a_problem_and_strange_words_do_no_harm() -> None:
    problem = words.problem_of(
        words.Refused((words.Said("RW-NAME", "No\x1b[31m.", "names"), words.Said("RW-NOTHING", "x" * 5000)), 7)
    )
    assert (problem.code, problem.retry_after) == ("RW-SIGNER-REFUSED", 7)
    assert [(reason.code, reason.field) for reason in problem.reasons] == [
        ("RW-NAME", "names"),
        ("RW-SIGNER-REFUSED", None),
    ]
    assert "\x1b" not in problem.detail
    assert len(problem.detail) < 2000
    assert words.problem_of(words.Refused(())).detail


@pytest.mark.parametrize(
    "body",
    [b"", b"\xc1", b"\x91" * 2000, b"\x80", bytes(1000)],
    ids=["empty", "never used", "deep", "no type", "zeros"],
)
def test_garbage_is_no_message(body: bytes) -> None:
    for read in (words.read_order, words.read_reply):
        with pytest.raises(Problem) as caught:
            read(body)
        assert caught.value.code == "RW-MALFORMED"


def test_only_a_crl_is_a_crl() -> None:
    assert words.is_crl(crl().tbs)
    for data in (order().tbs, b"", b"\x30\x00", b"\x30\x80", b"to be signed", b"\x04\x03\x02\x01\x01"):
        assert not words.is_crl(data)
