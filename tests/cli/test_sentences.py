"""What a newcomer reads: who did what in a narrow terminal, and what to do next after a no."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from cryptography import x509

from rootward.cli import screen
from rootward.cli.backup import next_steps
from rootward.cli.failure import of_problem
from rootward.core.problems import Problem
from tests.cli.conftest import Rootward
from tests.cli.fake import Fake, serve, tls_context
from tests.cli.test_nouns import certificate, terminal

CERTIFICATE = "01933f6e-2a4b-7c1d-8e9f-0123456789ab"
HASH = "5f" * 32
EVENT = {
    "id": "17",
    "at": "2026-11-23T17:46:41Z",
    "kind": "certificate.released",
    "actor": "p1",
    "authority": "issuing",
    "certificate_id": CERTIFICATE,
    "request_id": "r-9",
    "data": {"plan": HASH, "serial": "40ab"},
    "leaf": None,
}
STARTED = {**EVENT, "id": "16", "kind": "publish.done", "actor": "system:rootward", "certificate_id": None}


@pytest.fixture
def log(rootward: Rootward, fake: Fake) -> Rootward:
    """A command line of an auditor whose log has two events."""
    fake.lists["events"] = [EVENT, STARTED]
    fake.lists["principals"] = [{"id": "p1", "name": "ann"}]
    fake.bodies["events/17"] = EVENT
    return rootward


def test_events_say_who_and_about_what_in_a_narrow_terminal(log: Rootward) -> None:
    text = re.sub(r"\x1b\[[0-9;]*m|\r", "", terminal(["audit", "list"], 80))
    lines = text.splitlines()
    assert lines[0].split() == ["ID", "AT", "(UTC)", "KIND", "ACTOR", "ABOUT"]
    assert all(len(line) <= 80 for line in lines)
    assert re.search(r"^17 .*certificate\.released +ann ", text, re.MULTILINE)
    assert re.search(r"^16 .*system:rootward +issuing$", text, re.MULTILINE)
    assert HASH[:8] not in text


def test_events_on_a_wide_terminal_have_their_hashes_whole(log: Rootward) -> None:
    assert f"plan={HASH}, serial=40ab" in terminal(["audit", "list"], 200)


def test_events_in_a_pipe_are_whole(log: Rootward) -> None:
    lines = log("audit", "list").out.splitlines()
    assert len(lines) == 3
    assert lines[1].split() == [
        "17",
        "2026-11-23",
        "17:46:41",
        "certificate.released",
        "ann",
        CERTIFICATE,
        f"plan={HASH},",
        "serial=40ab",
    ]


def test_who_may_not_see_principals_sees_ids(log: Rootward, fake: Fake) -> None:
    del fake.lists["principals"]
    fake.problems["principals"] = 403, "RW-FORBIDDEN"
    assert "certificate.released  p1 " in log("audit", "list").out


def test_events_are_found_by_serial(log: Rootward, fake: Fake) -> None:
    fake.certificates["40ab"] = certificate(1, id=CERTIFICATE)
    assert log("audit", "list", "--certificate", "40:AB", "--json").code == 0
    assert fake.seen[-1][1] == f"/api/v1/events?certificate={CERTIFICATE}&limit=500"
    result = log("audit", "list", "--certificate", "40:AC")
    assert result.code == 1
    assert result.err.startswith("There is no certificate 40:AC, or you may not see it.\nNext: rootward cert list")


def test_one_event(log: Rootward) -> None:
    lines = log("audit", "show", "17").out.splitlines()
    assert "actor        ann (p1)" in lines
    assert lines[-2:] == [f"data         plan={HASH}", "             serial=40ab"]
    assert json.loads(log("audit", "show", "17", "--json").out) == EVENT
    assert log("audit", "show", "18").code == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("audit", "list"), "No event matches."),
        (("cert", "list"), "No certificate matches."),
        (("request", "list"), "No request waits."),
        (("request", "list", "--status", "waiting"), "No request waits."),
        (("request", "list", "--status", "denied"), "No request matches."),
    ],
)
def test_nothing_found(rootward: Rootward, fake: Fake, arguments: tuple[str, ...], said: str) -> None:
    fake.lists |= {"events": [], "certificates": [], "requests": []}
    assert rootward(*arguments).out == f"{said}\n"


@pytest.mark.parametrize("verb", ["show", "revoke", "release"])
@pytest.mark.parametrize(
    ("text", "next_step"), [("b.internal", "--q b.internal"), ("a b;c", "--q 'a b;c'"), ("zz", "list")]
)
def test_a_name_is_no_id(rootward: Rootward, verb: str, text: str, next_step: str) -> None:
    lines = rootward("cert", verb, text).err.splitlines()
    assert lines[0] == f"{text} is neither an id nor a serial."
    assert lines[1].startswith("Next: rootward cert list")
    assert lines[1].endswith(next_step)


def test_doctor_warns_of_the_roots_key_beside_the_server(rootward: Rootward, fake: Fake) -> None:
    fake.bodies["doctor"] = {"checks": [{"name": "clock", "state": "ok", "detail": "Right.", "mend": ""}]}
    assert "1 check, 0 errors, 0 warnings." in rootward("doctor").out
    Path("var/offline-root").mkdir()
    result = rootward("doctor")
    assert result.code == 0
    assert "! offline-root  The root's key still lies beside the server" in result.out
    assert "2 checks, 0 errors, 1 warning." in result.out
    assert json.loads(rootward("doctor", "--json").out) == fake.bodies["doctor"]


def test_a_wrong_token_names_its_file(rootward: Rootward) -> None:
    Path("mine").write_text("rw_wrong")
    named = rootward("cert", "list", "--token-file", "mine", "--home", "var").err
    assert "The token in mine is not taken" in named
    assert f"rootward access recover --home {Path('var').absolute()}" in named


def test_without_a_home_nobody_is_sent_to_recover(rootward: Rootward, fake: Fake) -> None:
    Path("var/root.pem").rename("root.pem")
    Path("mine").write_text("rw_wrong")
    arguments = ("--token-file", "mine", "--url", fake.url, "--ca-file", "root.pem", "--home", "nowhere")
    result = rootward("cert", "list", *arguments)
    assert "The token in mine is not taken" in result.err
    assert "recover" not in result.err


def test_a_certificate_for_other_names_is_no_matter_of_the_root(rootward: Rootward, fake: Fake) -> None:
    context = tls_context(fake.issuing, Path(), (x509.DNSName("pki.internal"),))
    with serve(fake.answer, context) as port:
        result = rootward("cert", "list", "--url", f"https://127.0.0.1:{port}", "--home", "var")
    assert result.code == 4
    assert fake.seen == []
    assert "is not valid for '127.0.0.1'.\n" in result.err
    assert "Next: The certificate is for other names: use --url with one of them." in result.err
    assert "--ca-file" not in result.err


@pytest.mark.parametrize(
    ("field", "detail", "said"),
    [
        ("listen.https", "the option for listen.https: listen.https must be x.", "listen.https must be x."),
        ("listen.https", "/h/rootward.toml: listen.https must be x.", "/h/rootward.toml: listen.https must be x."),
        ("listen.http", "listen.https must be x.", "listen.http: listen.https must be x."),
        ("keys[0]", "Expected str, got int: keys[0].", "keys[0]: Expected str, got int."),
        ("keys[0]", "It is not one of a, b.", "keys[0]: It is not one of a, b."),
        ("name", "The field name is missing.", "The field name is missing."),
        ("name", "A name is wanted.", "name: A name is wanted."),
        ("status", "status is one of a, b.", "status is one of a, b."),
        (None, "Nothing.", "Nothing."),
    ],
)
def test_a_field_is_said_once(field: str | None, detail: str, said: str) -> None:
    assert of_problem(Problem("RW-FIELD", detail, field=field)).why == (said,)


@pytest.mark.parametrize(
    ("text", "width", "lines"),
    [
        ("db.prod.internal", 15, ["db.prod.", "internal"]),
        ("a.internal, db.prod.internal", 14, ["a.internal,", "db.prod.", "internal"]),
        ("ops@example.internal", 12, ["ops@example.", "internal"]),
        ("ops@example", 8, ["ops@", "example"]),
        ("spiffe://prod/web", 14, ["spiffe://prod/", "web"]),
        (CERTIFICATE, 20, ["01933f6e-2a4b-7c1d-", "8e9f-0123456789ab"]),
        ("x" * 7, 3, ["xxx", "xxx", "x"]),
        ("one two", 3, ["one", "two"]),
        ("", 5, [""]),
    ],
)
def test_words_are_broken_where_they_have_joints(text: str, width: int, lines: list[str]) -> None:
    assert screen.wrap(text, width) == lines


def test_a_request_speaks_the_words_of_a_profile(rootward: Rootward, fake: Fake) -> None:
    summary = {
        "subject": [["2.5.4.3", "a"]],
        "names": ["dns:a.internal", "ip:10.0.0.1"],
        "extended_key_usage": ["1.3.6.1.5.5.7.3.1", "1.2.3"],
        "lifetime": 2592000,
        "must_staple": False,
    }
    made = {"id": "r1", "status": "issued", "names": ["dns:a.internal"], "summary": summary, "denial": None}
    made["approval"] = {"approved_by": "p2", "comment": "Fine."}
    fake.bodies["requests/r1"] = made
    out = rootward("request", "show", "r1").out
    assert "lifetime=30d\n" in out
    assert "extended_key_usage=server_auth, 1.2.3\n" in out
    assert "names=a.internal, ip:10.0.0.1\n" in out
    assert "subject=2.5.4.3=a\n" in out
    assert "dns:" not in out
    assert re.search(r"^approved by +p2$", out, re.MULTILINE)
    fake.lists["requests"] = [made]
    assert rootward("request", "list").out.endswith(" a.internal\n")


@pytest.mark.parametrize(("disabled", "said"), [("2026-01-01T00:00:00Z", True), (None, False)])
def test_names_of_the_deleted_are_never_given_again(
    rootward: Rootward, fake: Fake, disabled: str | None, said: bool
) -> None:
    fake.lists["principals"] = [{"id": "p1", "name": "ann", "disabled_at": disabled}]
    fake.problems["principals POST"] = 409, "RW-CONFLICT"
    result = rootward("access", "person", "create", "ann")
    assert result.code == 1
    assert ("the names of deleted persons are never given again" in result.err) is said
    assert "Choose another name." in result.err


def test_what_follows_a_restore_names_the_log_where_it_halts() -> None:
    assert "accept-log" not in next_steps("new", halted=False)
    said = next_steps("new", halted=True)
    places = [said.index(f"rootward {word}") for word in ("access recover", "doctor --accept-log --home new", "serve")]
    assert places == sorted(places)
