"""The other nouns: lists, single things, changes, and what a terminal gets to see of hostile text."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from rootward.cli import screen
from tests.cli.conftest import Rootward
from tests.cli.fake import Fake

HOSTILE = "a\x1b]0;pwned\x07\x1b[2J\u202egnp.exe[red]x[/red]\nb\u200bc\x9b31m"


def certificate(number: int, **more: Any) -> dict[str, Any]:
    return {
        "id": f"c{number}",
        "serial": f"40{number:038x}",
        "status": "active",
        "profile": "server",
        "names": [f"dns:host-{number}.internal"],
        "not_after": "2027-01-01T00:00:00Z",
        **more,
    }


def terminal(arguments: list[str], columns: int, **environ: str) -> str:
    """The output of a command line on a terminal of that width."""
    code = "import sys; from rootward.cli.app import run; sys.exit(run(sys.argv[1:]))"
    main, other = pty.openpty()
    env = {**os.environ, "COLUMNS": str(columns), "LINES": "40", "TERM": "xterm-256color", **environ}
    process = subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=other, stderr=other, env=env)
    os.close(other)
    seen = bytearray()
    while True:
        try:
            piece = os.read(main, 65536)
        except OSError:  # how Linux says that the other side is closed
            break
        if not piece:
            break
        seen += piece
    os.close(main)
    process.wait()
    return seen.decode()


@pytest.mark.parametrize(
    ("limit", "items", "left"), [(None, 1203, False), (7, 7, True), (500, 500, True), (1203, 1203, False)]
)
def test_cursors_are_followed(rootward: Rootward, fake: Fake, limit: int | None, items: int, left: bool) -> None:
    fake.lists["certificates"] = [certificate(number) for number in range(1203)]
    result = rootward("cert", "list", "--json", *(() if limit is None else ("--limit", limit)))
    page = json.loads(result.out)
    assert set(page) == {"items", "next_cursor"}
    assert page["items"] == fake.lists["certificates"][:items]
    assert (page["next_cursor"] is not None) is left


def test_filters_are_sent_as_the_contract_names_them(rootward: Rootward, fake: Fake) -> None:
    fake.lists["certificates"] = []
    names = ("q", "status", "source", "owner", "authority", "profile", "expires-before", "expires-after")
    flags = [part for name in names for part in (f"--{name}", f"x-{name}")]
    assert rootward("cert", "list", *flags).out == "No certificate matches.\n"
    query = fake.seen[0][1].partition("?")[2]
    assert query == "&".join(f"{name.replace('-', '_')}=x-{name}" for name in names) + "&limit=500"


def test_a_table_in_a_pipe_is_plain_and_whole(rootward: Rootward, fake: Fake) -> None:
    long = ["dns:" + "x" * 60 + f"{number}.internal" for number in range(3)]
    fake.lists["certificates"] = [certificate(1), certificate(2, names=long)]
    lines = rootward("cert", "list").out.splitlines()
    assert len(lines) == 3
    assert lines[0].split() == ["STATUS", "NAMES", "PROFILE", "EXPIRES", "(UTC)", "ID", "SERIAL"]
    assert lines[2].index("c2 ") == lines[0].index("ID ")
    assert all(name.removeprefix("dns:") in lines[2] for name in long)


@pytest.mark.parametrize("columns", [80, 120])
def test_a_table_on_a_terminal_fits_it(rootward: Rootward, fake: Fake, columns: int) -> None:
    fake.lists["certificates"] = [certificate(1), certificate(2, names=["dns:" + "x" * 60 + ".internal"])]
    text = re.sub(r"\x1b\[[0-9;]*m", "", terminal(["cert", "list"], columns))
    assert text
    assert all(len(line) <= columns for line in text.splitlines())


@pytest.mark.parametrize("verb", [["list"], ["show", "c1"], ["list", "--json"], ["show", "c1", "--json"]])
def test_text_from_outside_does_nothing_to_a_terminal(rootward: Rootward, fake: Fake, verb: list[str]) -> None:
    made = certificate(1, names=[f"dns:{HOSTILE}"], owner=HOSTILE, labels={HOSTILE: HOSTILE}, subject=HOSTILE)
    fake.lists["certificates"] = [made]
    fake.certificates["c1"] = made
    text = terminal(["cert", *verb], 400)
    own = re.sub(r"\x1b\[[0-9;]*m", "", text)
    assert not set(own) & set("\x1b\x07\x9b\u202e\u200b")
    assert "[red]x[/red]" in own


def test_no_color(rootward: Rootward, fake: Fake) -> None:
    fake.bodies["doctor"] = {"checks": [{"name": "clock", "state": "ok", "detail": "Right.", "mend": ""}]}
    assert "\x1b[32m" in terminal(["doctor"], 80)
    assert "\x1b" not in terminal(["doctor"], 80, NO_COLOR="1")


def test_safe_keeps_what_can_be_read() -> None:
    assert screen.safe("Zürich café 東京 ✓") == "Zürich café 東京 ✓"
    assert (
        screen.safe(HOSTILE) == "a\\u001b]0;pwned\\u0007\\u001b[2J\\u202egnp.exe[red]x[/red]\\u000ab\\u200bc\\u009b31m"
    )


def test_problem_text_is_escaped(rootward: Rootward, fake: Fake) -> None:
    reasons = [{"code": "RW-NAME", "field": HOSTILE, "detail": HOSTILE}]
    fake.refuse = {"title": HOSTILE, "status": 400, "code": "RW-NAME", "request_id": HOSTILE, "reasons": reasons}
    result = rootward("cert", "issue", "--profile", "server", "--name", "a.internal", "--out", "x")
    assert not set(result.err) & set("\x1b\x07\x9b\u202e\u200b")


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ("c-7f", "c-7f"),
        ("40:AB:cd", "40abcd"),
        ("40ABCD", "40abcd"),
        ("0x40AB", "40ab"),
        ("5ABCD", "05abcd"),
        ("40abcd", "40abcd"),
        ("../tokens", "..%2Ftokens"),
        ("a?b#c", "a%3Fb%23c"),
    ],
)
def test_a_serial_is_written_in_many_ways(rootward: Rootward, fake: Fake, written: str, sent: str) -> None:
    rootward("cert", "show", written)
    assert fake.seen[0][1] == f"/api/v1/certificates/{sent}"


def test_revoke_and_release(rootward: Rootward, fake: Fake) -> None:
    fake.certificates["c1"] = certificate(1)
    result = rootward("cert", "revoke", "c1", "--reason", "keyCompromise")
    assert result.out.endswith("is revoked (keyCompromise).\n")
    assert fake.seen[-1] == ("POST", "/api/v1/certificates/c1/revoke", {"reason": "keyCompromise"})
    rootward("cert", "release", "c1")
    assert fake.seen[-1][:2] == ("POST", "/api/v1/certificates/c1/release")


def test_what_is_not_there(rootward: Rootward) -> None:
    result = rootward("cert", "show", "nope")
    assert result.code == 1
    assert result.err.splitlines()[-1] == "Request: r-1"


def test_profiles_are_read_as_yaml_or_json(rootward: Rootward, fake: Fake) -> None:
    fake.bodies["profiles"] = fake.bodies["profiles/web"] = {"name": "web", "version": 2, "profile": {"name": "web"}}
    Path("p.yaml").write_text("name: web\nauthority: issuing\nlifetime: {default: 30d}\n")
    Path("p.json").write_text('{"name": "web", "authority": "issuing"}')
    assert rootward("profile", "create", "p.yaml").code == 0
    assert fake.seen[-1] == (
        "POST",
        "/api/v1/profiles",
        {"name": "web", "authority": "issuing", "lifetime": {"default": "30d"}},
    )
    assert rootward("profile", "update", "p.json").code == 0
    assert fake.seen[-1] == ("PUT", "/api/v1/profiles/web", {"name": "web", "authority": "issuing"})
    assert rootward("profile", "show", "web", "--yaml").out == "name: web\n"
    Path("bad.yaml").write_text("- 1\n")
    assert rootward("profile", "create", "bad.yaml").code == 2
    Path("evil.yaml").write_text("!!python/object/apply:os.system ['touch owned']\n")
    assert rootward("profile", "create", "evil.yaml").code == 2
    assert not Path("owned").exists()


def test_a_token_is_shown_once_and_alone_on_standard_output(rootward: Rootward, fake: Fake) -> None:
    fake.lists["principals"] = [{"id": "p1", "name": "ann"}]
    fake.bodies["tokens"] = {"id": "t1", "label": "ci", "expires_at": "2027-01-01T00:00:00Z", "token": "rw_secret"}
    result = rootward(
        "access", "token", "create", "--label", "ci", "--principal", "ann", "--scope", "requester@issuing/server"
    )
    assert result.out == "rw_secret\n"
    assert fake.seen[-1][2] == {
        "label": "ci",
        "lifetime": "90d",
        "principal": "p1",
        "scopes": [{"role": "requester", "authority": "issuing", "profile": "server"}],
    }
    assert rootward("access", "grant", "create", "--principal", "bob", "--role", "officer").code == 1


def test_doctor_exits_one_only_for_an_error(rootward: Rootward, fake: Fake) -> None:
    check = {"name": "clock", "state": "warning", "detail": "Slow.", "mend": "Set it."}
    fake.bodies["doctor"] = {"checks": [check]}
    assert rootward("doctor").code == 0
    fake.bodies["doctor"] = {"checks": [check, {**check, "state": "error"}]}
    result = rootward("doctor")
    assert result.code == 1
    assert "✗ clock" in result.out
    assert rootward("doctor", "--json").code == 1


def test_audit_export_writes_a_new_file_only(rootward: Rootward, fake: Fake) -> None:
    fake.bodies["events/export"] = {"id": "1"}
    assert rootward("audit", "export", "--out", "log.ndjson").code == 0
    assert json.loads(Path("log.ndjson").read_text()) == {"id": "1"}
    assert Path("log.ndjson").stat().st_mode & 0o777 == 0o600
    assert rootward("audit", "export", "--out", "log.ndjson").code == 1
    assert [path.name for path in Path().iterdir() if path.name.startswith(".")] == []


def test_ca_freeze_and_unfreeze(rootward: Rootward, fake: Fake) -> None:
    for verb, state in (("freeze", "frozen"), ("unfreeze", "active")):
        fake.bodies[f"authorities/issuing/{verb}"] = {"name": "issuing", "state": state}
        done = rootward("ca", verb, "issuing", "--reason", "a leak")
        assert (done.code, done.out) == (0, f"issuing is {state}.\n")
        assert fake.seen[-1][2] == {"reason": "a leak"}
    assert rootward("ca", "freeze", "issuing", "--json").out == '{"name": "issuing", "state": "frozen"}\n'
    assert fake.seen[-1][2] == {}


def test_key_block_never_sends_a_private_key(rootward: Rootward, fake: Fake) -> None:
    fake.bodies["blocked-keys"] = {"added": 1}
    key = ec.generate_private_key(ec.SECP256R1())
    form = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    Path("leaked.pem").write_bytes(key.private_bytes(serialization.Encoding.PEM, *form))
    spki = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    assert rootward("key", "block", "leaked.pem", "--why", "on a paste site").code == 0
    sha256 = hashlib.sha256(spki).hexdigest()
    assert fake.seen[-1][2] == {"keys": [{"sha256": sha256, "why": "on a paste site"}]}
    Path("list.txt").write_text(f"# known\n{sha256.upper()} weak\n{'0' * 64}\n")
    assert rootward("key", "block", "list.txt", "--why", "x").code == 0
    assert fake.seen[-1][2]["keys"] == [{"sha256": sha256, "why": "weak"}, {"sha256": "0" * 64, "why": "x"}]
    Path("list.txt").write_text("nonsense\n")
    assert rootward("key", "block", "list.txt").code == 2


@pytest.mark.parametrize(
    "arguments", [("cret",), ("cert", "isue"), ("cert", "list", "--limit", "0"), ("cert", "list", "--nope")]
)
def test_wrong_usage_is_exit_two(bare: Rootward, arguments: tuple[str, ...]) -> None:
    assert bare(*arguments).code == 2


def test_every_command_explains_itself(bare: Rootward) -> None:
    from rootward.cli.app import NOUNS

    def walk(path: tuple[str, ...]) -> int:
        result = bare(*path, "--help")
        assert result.code == 0, path
        below = result.out.partition("Commands")[2]
        names = re.findall(r"^│ ([a-z]+)  ", below, re.MULTILINE)
        return 1 + sum(walk((*path, name)) for name in names)

    assert walk(()) > len(NOUNS) + 25
