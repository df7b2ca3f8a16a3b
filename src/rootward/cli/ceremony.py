"""`rootward ceremony`: an offline authority's ceremony, from its script to its verified result. No verb here talks to a
server or opens a socket; the machine needs nothing but the package. Those that do, on the online side, are in
`results`.
"""

from __future__ import annotations

import getpass
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

import typer

from rootward.cli import due, results, screen, shares
from rootward.cli.failure import USAGE, Failure
from rootward.cli.options import noun
from rootward.cli.paper import read_bytes
from rootward.core.problems import Problem, Reason
from rootward.core.words import count

app = noun("Hold ceremonies of offline authorities: planned, rehearsed, witnessed, verified.")
app.add_typer(shares.app, name="share")
app.command("due")(due.due)

ScriptFile = Annotated[Path, typer.Argument(metavar="SCRIPT", help="The YAML script; its files lie beside it.")]
ResultFile = Annotated[Path, typer.Argument(metavar="RESULT", help="result.json of a ceremony.")]
ReviewedScript = Annotated[
    Path | None, typer.Option("--script", help="The script that was reviewed: it must be of this one.")
]
AnswersFile = Annotated[
    Path | None, typer.Option("--answers", help="A file with a line for each answer; for a lab's script.")
]
results.register(app)
_MOST: Final = 64 * 1024 * 1024


@app.command("plan")
def plan(
    out: Annotated[Path, typer.Argument(metavar="SCRIPT", help="The new file.")],
    root: Annotated[str | None, typer.Option("--root", help="Make a new root of this name.")] = None,
    under: Annotated[
        str | None,
        typer.Option("--under", metavar="NAME=FILE", help="An authority that is there, its certificate (PEM)."),
    ] = None,
    request: Annotated[list[Path] | None, typer.Option("--request", help="A request file; repeats.")] = None,
    org: Annotated[
        str | None, typer.Option("--org", help="The organisation's name, in that of a new root; a lab's is Example.")
    ] = None,
    title: Annotated[str | None, typer.Option("--title", help="What the ceremony is for.")] = None,
    master: Annotated[str | None, typer.Option("--master", metavar="NAME=KEY", help="Who leads.")] = None,
    witness: Annotated[
        list[str] | None, typer.Option("--witness", metavar="NAME=KEY", help="Who watches and signs; repeats.")
    ] = None,
    custodian: Annotated[list[str] | None, typer.Option("--custodian", help="Who holds a share; repeats.")] = None,
    threshold: Annotated[
        int, typer.Option("--threshold", help="How many shares open the key; half and one more if not given.")
    ] = 0,
    token: Annotated[str | None, typer.Option("--token", help="The pkcs11: URI of the token with the key.")] = None,
    folder: Annotated[
        str | None, typer.Option("--folder", help="The folder with the key; NAME-key if not given.")
    ] = None,
    key_type: Annotated[str, typer.Option("--key-type", help="Of a new root.")] = "p384",
    at: Annotated[str | None, typer.Option("--at", help="notBefore; the next midnight if not given.")] = None,
    pki_url: Annotated[str | None, typer.Option("--pki-url", help="Where CRLs are; as the request says.")] = None,
    crl: Annotated[bool, typer.Option("--crl", help="Sign a CRL too, without entries.")] = False,
    crl_lifetime: Annotated[str, typer.Option("--crl-lifetime", help="Of that CRL.")] = "365d",
    lab: Annotated[bool, typer.Option("--lab", help="For trying: no air gap, no witnesses.")] = False,
) -> None:
    """Write the draft of a script, for people to review and edit."""
    from rootward.cli.ceremony_plan import Wishes, certificate_of, draft_script, next_day
    from rootward.core.pubkey import KeyAlgorithm
    from rootward.core.script import read_script, sha256_of
    from rootward.core.times import parse_time
    from rootward.keys.disk import write_new

    if key_type not in list(KeyAlgorithm):
        raise Failure(f"--key-type {key_type} is none.", f"There are {', '.join(KeyAlgorithm)}.", exit=USAGE)
    if root is not None and org is None and not lab:
        raise Failure("A new root is named after its organisation, for good.", next="Add --org NAME.", exit=USAGE)
    wishes = Wishes(
        title=title,
        org=org or "Example",
        lab=lab,
        at=next_day(datetime.now(UTC)) if at is None else parse_time(at, field="--at"),
        pki_url=pki_url,
        root=root,
        under=None if under is None else certificate_of(under),
        people=[
            *((("master", master),) if master else ()),
            *(("witness", text) for text in witness or []),
            *(("custodian", text) for text in custodian or []),
        ],
        threshold=threshold,
        token=token,
        folder=folder,
        algorithm=KeyAlgorithm(key_type),
        crl=crl,
        crl_lifetime=crl_lifetime,
    )
    data = draft_script(wishes, [(path, read_bytes(path, _MOST)) for path in request or []], out.name)
    try:
        write_new(out, data, mode=0o644)
    except FileExistsError:
        raise Failure(f"There is {out} already.", "It is left as it is.", exit=USAGE) from None
    screen.details([("draft", out), ("sha256", sha256_of(data))])
    try:
        read_script(data)
    except Problem as problem:
        screen.say("It is not complete yet:")
        for reason in problem.reasons:
            screen.say(f"  {screen.safe(reason.field or '')}  {screen.safe(reason.detail)}")
    screen.note(
        f"Two people read it line by line and change what is not meant. Then: rootward ceremony rehearse {out} "
        "--out rehearsal.json"
    )


@app.command("rehearse")
def rehearse(
    script: ScriptFile,
    out: Annotated[Path | None, typer.Option("--out", help="A new file for the report.")] = None,
) -> None:
    """Carry a script out with throw-away keys. What a run signs is the same but for the keys."""
    from rootward.ca import ceremony
    from rootward.cli.ceremony_run import show_step
    from rootward.cli.script import read_paper
    from rootward.cli.software import software
    from rootward.cli.talk import Terminal, line
    from rootward.core.minutes import write
    from rootward.keys.disk import write_new

    paper = read_paper(script)
    talk = Terminal()
    now = datetime.now(UTC)
    done = ceremony.rehearse(paper.script, paper.files, clock=lambda: datetime.now(UTC))
    total = len(done)
    for number, (step, one) in enumerate(zip(paper.script.steps, done, strict=True), start=1):
        show_step(talk, paper.script, step, number, total)
        if one.record.masked:
            talk.say(f"  {'without key':<11} {one.record.masked}")
    line(talk)
    report = write(ceremony.rehearsal(paper.data, paper.script, done, software(), now))
    if out is not None:
        try:
            write_new(out, report + b"\n", mode=0o644)
        except FileExistsError:
            raise Failure(f"There is {out} already.", "It is left as it is.", exit=USAGE) from None
    talk.say(f"Rehearsed: {count(total, 'step')}, none refused. The script's SHA-256, for your papers:")
    _hash(paper.sha256)
    if out is not None:
        talk.say(f"The report is in {screen.safe(out)}. Take it to the ceremony with the script and its files:")
        talk.say("rootward ceremony run SCRIPT --out FOLDER --rehearsal REPORT")


@app.command("run")
def run(
    script: ScriptFile,
    out: Annotated[Path, typer.Option("--out", help="A new folder for the result.")],
    rehearsal: Annotated[
        Path | None, typer.Option("--rehearsal", help="A rehearsal's report: the same must be signed.")
    ] = None,
    answers: AnswersFile = None,
) -> None:
    """Hold the ceremony, at a terminal, on a machine without a network."""
    from rootward.cli import ceremony_run
    from rootward.cli.script import read_paper
    from rootward.cli.talk import conversation
    from rootward.core.minutes import read_rehearsal

    paper = read_paper(script)
    report = None if rehearsal is None else read_rehearsal(read_bytes(rehearsal, _MOST))
    ceremony_run.run(paper, out, conversation(answers, lab=paper.script.lab), report)


@app.command("verify")
def verify(
    result: ResultFile,
    script: ReviewedScript = None,
    request: Annotated[
        list[Path] | None, typer.Option("--request", help="A request file, to compare with; repeats.")
    ] = None,
    participants: Annotated[
        Path | None,
        typer.Option("--participants", help="Lines NAME=KEY: whose keys are known, in place of the script's."),
    ] = None,
) -> None:
    """Check a result, offline: what was signed, by whom it is witnessed. Exit code 1 with every reason."""
    from rootward.core import paperwork
    from rootward.core.participants import participant_key
    from rootward.core.script import inputs_of, read_script, sha256_of
    from rootward.core.transcript import verify_result

    known = None
    if participants is not None:
        lines = [
            text.partition("=")
            for text in read_bytes(participants, _MOST).decode("utf-8", "replace").splitlines()
            if text
        ]
        known = {name.strip(): participant_key(key.strip()).id for name, _, key in lines}
    made = paperwork.read(read_bytes(result, _MOST), paperwork.Result)
    files = {sha256_of(data): (path, data) for path in request or [] for data in [read_bytes(path, _MOST)]}
    named = {one.sha256 for one in inputs_of(read_script(made.script.encode()))}
    faults = [
        Reason("RW-CEREMONY", f"The script names no file like {path}, which has the SHA-256 {digest}.")
        for digest, (path, _) in files.items()
        if digest not in named
    ]
    try:
        found = verify_result(
            made,
            script=None if script is None else read_bytes(script, _MOST),
            requests={digest: data for digest, (_, data) in files.items() if digest in named},
            participants=known,
        )
    except Problem as problem:
        raise Problem.of([*faults, *problem.reasons]) from problem
    if faults:
        raise Problem.of(faults)
    screen.details(
        [
            ("title", found.script.title),
            ("script", found.transcript.script),
            ("transcript", found.sha256),
            ("held", f"{found.transcript.began_at:%Y-%m-%d %H:%M} to {found.transcript.ended_at:%H:%M} UTC"),
            ("steps", f"{len(found.transcript.steps)}, all of the script's"),
            ("signed by", [f"{one.name} ({one.role}), key {one.key_id[:16]}…" for one in found.signers]),
            ("made", [f"{one.name}  {one.sha256}" for one in found.transcript.outputs]),
        ]
    )
    if found.script.lab:
        screen.say("It is of a LAB: nobody watched, nothing in it should be trusted.")
    screen.say("The result is what its script says, and is signed.")


@app.command("sign")
def sign(
    result: ResultFile,
    key: Annotated[str, typer.Option("--key", help="Your key's file, or the pkcs11: URI of your token.")],
    name: Annotated[str, typer.Option("--name", help="Your name, as the script has it.")],
    script: ReviewedScript = None,
    answers: AnswersFile = None,
) -> None:
    """Add a participant's signature to a result, on any machine, by the hash on that participant's paper."""
    from rootward.ca import ceremony
    from rootward.cli.ceremony_sign import compare, open_signer
    from rootward.cli.talk import conversation
    from rootward.core import paperwork
    from rootward.core.transcript import verify_result
    from rootward.keys.disk import replace

    before = paperwork.read(read_bytes(result, _MOST), paperwork.Result)
    found = verify_result(before, script=None if script is None else read_bytes(script, _MOST), signatures=0)
    people = found.script.participants
    role = next((one.role for one in people if one.name == name), None)
    if role is None:
        names = ", ".join(one.name for one in people if one.key)
        raise Failure(f"{name} is no participant of this ceremony.", f"Those who sign are {names}.", exit=USAGE)
    talk = conversation(answers, lab=found.script.lab)
    compare(talk, name, found)
    after = ceremony.signed(before, open_signer(key, talk.secret)(before.transcript, name, role))
    verify_result(after, signatures=0)
    replace(result, paperwork.write(after), mode=0o644)
    screen.tell(f"{name} has signed; the result has {count(len(after.signatures), 'signature')}.")


@app.command("participant")
def participant(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Yours, as scripts will have it.")],
    out: Annotated[Path, typer.Option("--out", help="A new file (0600) for the key.")],
) -> None:
    """Make a participant's key: it signs transcripts, and a passphrase opens it."""
    from rootward.keys import kek_from_passphrase
    from rootward.keys.kek import SHORTEST
    from rootward.keys.participant import make_key_file

    if out.exists():
        raise Failure(f"There is {out} already.", "It is left as it is.")
    first = _secret(f"Passphrase, {SHORTEST} characters or more:")
    if len(first) < SHORTEST:
        raise Failure(f"A passphrase has {SHORTEST} characters or more.", "No key was made.")
    if _secret("The same again:") != first:
        raise Failure("The two passphrases are different.", "No key was made.")
    public = make_key_file(out, kek_from_passphrase(first))
    screen.tell(f"{out} is {name}'s key. In a script, with the role that is yours there:")
    screen.say(f"  - name: {screen.safe(name)}\n    role: witness\n    key: {public}")


def _secret(question: str) -> str:
    """From the terminal, or a line of standard input where there is none."""
    if sys.stdin.isatty():
        return getpass.getpass(f"{question} ")
    return sys.stdin.readline().rstrip("\n")


def _hash(sha256: str) -> None:
    from rootward.cli.talk import Terminal, show_hash

    show_hash(Terminal(), sha256)
