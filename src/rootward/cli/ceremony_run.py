"""`rootward ceremony run`: a script carried out by people, at one terminal, on a machine without a network.

The script is first rehearsed in memory, so that what would be refused is refused before a key exists; then each step is
shown, agreed to and done, and signs the very bytes that were rehearsed. Everything is written under temporary names and
gets its name at the end, so a ceremony that was cut off leaves nothing that counts, or is finished by the same command.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from rootward.ca import ceremony
from rootward.cli import screen
from rootward.cli.airgap import clock_fault, network_faults
from rootward.cli.ceremony_sign import open_signer
from rootward.cli.failure import INTERRUPTED, Failure
from rootward.cli.making import give_name
from rootward.cli.medium import Medium
from rootward.cli.outcome import Outcome, check_secrets
from rootward.cli.says import details, headline
from rootward.cli.script import Paper
from rootward.cli.software import software
from rootward.cli.talk import WIDTH, Talk, echo, line, read_back, show_hash, told
from rootward.core.minutes import Attendance, Rehearsal
from rootward.core.paperwork import Result
from rootward.core.participants import WITNESSES, Participant
from rootward.core.problems import Problem
from rootward.core.script import SHARES, ChangeCustodians, MakeKey, Script, Step, sha256_of
from rootward.core.times import parse_time, rfc3339
from rootward.core.transcript import verify_result
from rootward.core.words import count


def run(paper: Paper, out: Path, talk: Talk, rehearsed: Rehearsal | None) -> Result:
    """Hold the ceremony; its result lies in the new folder `out` then. A passphrase that is typed too early, while
    nothing is asked, is not shown either.
    """
    with echo(shown=False):
        try:
            return _held(paper, out, talk, rehearsed)
        except KeyboardInterrupt:
            raise Failure(
                "Stopped: the ceremony ends here.",
                f"As long as there is no {out / 'result.json'}, nothing that was signed counts.",
                next="Hold it again with the same command.",
                exit=INTERRUPTED,
            ) from None


def _held(paper: Paper, out: Path, talk: Talk, rehearsed: Rehearsal | None) -> Result:
    outcome = Outcome(paper, out, talk)
    finished = outcome.finish()
    if finished is not None:
        talk.say("The ceremony had come to its end and was cut off while its files got their names.")
        talk.say("They have them now; nothing was done a second time.")
        return finished
    outcome.check()
    check_secrets(paper)
    clock = _Clock()
    began = clock()
    _title(talk, paper)
    checks = _look_around(talk, paper, began)
    present = _gather(talk, paper, clock)
    expected = _rehearse(talk, paper, rehearsed, clock)
    here = tuple(one.name for one in present)
    medium = Medium(paper.script, paper.base, paper.base / SHARES, outcome.out, talk, here)
    try:
        doing = ceremony.perform(paper.script, medium, paper.files, clock=clock, expected=expected)
        done = _steps(talk, paper, doing, present)
        room = ceremony.Room(software(), checks, present, began)
        unsigned = ceremony.result(paper.data, paper.script, done, room, ended_at=clock())
        verify_result(unsigned, requests=paper.files, signatures=0)  # nobody signs what no signature makes good
        result = _sign(talk, paper, present, unsigned)
        outcome.write(result)
    except BaseException:
        outcome.unwrite()  # first: where there is a result, its keys are there too
        medium.give_up()
        raise
    medium.keep()
    give_name(outcome.out)
    _farewell(talk, paper, outcome.out, result, medium.sets)
    return result


@dataclass
class _Clock:
    """The machine's, as long as it goes forward: a transcript whose times do not holds for nobody."""

    last: datetime | None = None

    def __call__(self) -> datetime:
        """Now; Failure where it was later than that before."""
        now = datetime.now(UTC)
        if self.last is not None and now < self.last:
            raise Failure(
                f"The clock went back: it says {rfc3339(now)}, and was at {rfc3339(self.last)}.",
                "A transcript whose times do not go forward holds for nobody.",
                next="Set the clock right, and hold the ceremony again with the same command.",
            )
        self.last = now
        return now


def _title(talk: Talk, paper: Paper) -> None:
    line(talk, f" {screen.safe(paper.script.title)}")
    if paper.script.lab:
        talk.say("THIS IS A LAB. Network and clock are not asked about; nobody should trust what it makes.")
    made = software()
    talk.say(f"rootward {made.rootward}   Python {made.python}   {made.openssl}")
    talk.say(f"files of the package, SHA-256 {made.files[:32]}")
    talk.say(f"                              {made.files[32:]}")
    talk.say(f"{len(paper.script.steps)} steps, {len(paper.script.participants)} participants")


def _look_around(talk: Talk, paper: Paper, now: datetime) -> tuple[str, ...]:
    """What was found of network and clock, for the transcript. Failure where this is no place for a ceremony."""
    at = parse_time(paper.script.at)
    checks = [f"the clock said {rfc3339(now)} at the beginning"]
    if paper.script.lab:
        return (*checks, "a lab: the network was not looked at")
    _cut_off()
    talk.say("No network interface is up, there is no route and no address.")
    checks.append(
        "no network interface was up, no route and no address was there, at the beginning and before each step"
    )
    fault = clock_fault(at, now)
    talk.say(f"The clock says {rfc3339(now)}, the script {paper.script.at}.")
    if fault is not None:
        talk.say(
            f"{fault} What is signed has the script's date; the transcript's times are the clock's. Set the clock "
            "right and begin again, or go on if that is meant."
        )
        talk.expect('Type "the clock is meant so" to go on:', ["the clock is meant so"])
        checks.append(f"{fault} That was said to be meant")
    return tuple(checks)


def _cut_off() -> None:
    faults = network_faults()
    if faults:
        raise Failure(
            "This machine can reach a network.",
            *faults,
            next="Pull every cable, take every radio out, and run the command again.",
        )


def _gather(talk: Talk, paper: Paper, clock: ceremony.Clock) -> tuple[Attendance, ...]:
    """Everybody confirms by name that they are here, and reads from their own copy of the script's hash."""
    line(talk, " Who is here?")
    talk.say("Each of you has reviewed the script, and has its SHA-256 on a paper.")
    talk.say("Type your name to confirm that you are here; press Enter for who is not.")
    found: list[Attendance] = []
    for index, person in enumerate(paper.script.participants):
        talk.say()
        question = f"{screen.safe(person.name)} ({person.role}), your name:"
        if not talk.expect(question, [person.name, ""]):
            talk.say("Not here.")
            continue
        group = (7 * index + 3) % 16
        said = read_back(talk, "From your paper", paper.sha256, group)
        found.append(Attendance(person.name, person.role, clock(), said))
    _enough(paper.script, [one.name for one in found])
    talk.say()
    talk.say("The script's SHA-256. Compare all of it with your papers:")
    show_hash(talk, paper.sha256)
    return tuple(found)


def _enough(script: Script, here: list[str]) -> None:
    missing = [one for one in script.participants if one.role == "master" and one.name not in here]
    signing = [one for one in script.participants if one.key and one.name in here]
    if missing or (not script.lab and len(signing) < WITNESSES) or not here:
        raise Failure(
            "Too few of the participants are here.",
            "The master, and two who have a key to sign the transcript with, are needed.",
        )
    if lacking := list(_lacking(script, here)):
        raise Failure("Too few of the custodians are here.", *lacking)


def _lacking(script: Script, here: list[str]) -> Iterator[str]:
    """What is wrong with which custodians are here: who gets a share chooses its passphrase, and enough open a key."""
    new = {step.key: script.keys[step.key].custodians for step in script.steps if isinstance(step, MakeKey)}
    for name, where in script.keys.items():
        present = sum(person in here for person in where.custodians)
        if name not in new and present < where.threshold:
            yield f"{where.threshold} custodians are needed to open the key {name}; here: {present}."
    changed = [(step.key, step.custodians) for step in script.steps if isinstance(step, ChangeCustodians)]
    for name, custodians in (*new.items(), *changed):
        absent = [person for person in custodians if person not in here]
        if absent:
            yield f"Everybody who gets a share of the key {name} must be here, and is not: {', '.join(absent)}."


def _rehearse(talk: Talk, paper: Paper, rehearsed: Rehearsal | None, clock: ceremony.Clock) -> list[str]:
    """Everything once with throw-away keys: the hashes of what will be signed."""
    line(talk)
    expected = [one.record.masked for one in ceremony.rehearse(paper.script, paper.files, clock=clock)]
    if rehearsed is not None:
        if rehearsed.script != paper.sha256:
            raise Failure("The rehearsal was of another script.", f"Its SHA-256 is {rehearsed.script}.")
        if list(rehearsed.masked) != expected:
            raise Failure("This machine would sign something else than was rehearsed.", "The hashes differ.")
        talk.say(f"Rehearsed here and on {rfc3339(rehearsed.held_at)}: the same will be signed.")
    else:
        talk.say("Rehearsed here with throw-away keys: no step is refused.")
    return expected


def _steps(
    talk: Talk, paper: Paper, doing: Iterator[ceremony.Done], present: tuple[Attendance, ...]
) -> tuple[ceremony.Done, ...]:
    done: list[ceremony.Done] = []
    total = len(paper.script.steps)
    master = next(one.name for one in present if one.role == "master")
    for number, step in enumerate(paper.script.steps, start=1):
        show_step(talk, paper.script, step, number, total)
        talk.expect(f'{screen.safe(master)}, type "yes" to do it:', ["yes"])
        if not paper.script.lab:
            _cut_off()
        one = next(doing)
        for fact in one.record.facts:
            talk.say(f"  {screen.safe(fact)}")
        done.append(_confirm(talk, present, number, one))
    return tuple(done)


def show_step(talk: Talk, script: Script, step: Step, number: int, total: int) -> None:
    """The screen before a step."""
    talk.say()
    line(talk, f" Step {number} of {total}   {screen.safe(headline(step))}")
    for what, value in details(script, step):
        for at, text in enumerate(screen.wrap(screen.safe(value), WIDTH - 14)):
            talk.say(f"  {what if at == 0 else '':<11} {text}")


def _confirm(talk: Talk, present: tuple[Attendance, ...], number: int, one: ceremony.Done) -> ceremony.Done:
    """Show what came of the step; everybody writes it down, and one reads from that."""
    record = one.record
    if not record.output and record.do != "make-key":
        return one
    digest = record.output or record.key
    what = "the new public key" if one.output is None else one.output.name
    talk.say(f"Done. Write down the SHA-256 of {what}:")
    show_hash(talk, digest)
    who = present[number % len(present)]
    said = read_back(talk, f"{screen.safe(who.name)}, from your paper", digest, (5 * number + 1) % 16)
    return ceremony.with_read_back(one, f"{who.name}: {said}")


def _sign(talk: Talk, paper: Paper, present: tuple[Attendance, ...], unsigned: Result) -> Result:
    """Everybody who has a key signs now, or later with `rootward ceremony sign`."""
    line(talk, " The transcript")
    talk.say("All steps are done. Write down the SHA-256 of the transcript:")
    show_hash(talk, sha256_of(unsigned.transcript.encode()))
    result = unsigned
    for one in present:
        person = next(item for item in paper.script.participants if item.name == one.name)
        if person.key or paper.script.lab:
            result = _one_signature(talk, person, result)
    return result


def _one_signature(talk: Talk, person: Participant, result: Result) -> Result:
    talk.say()
    for _ in range(3):
        where = talk.ask(f"{screen.safe(person.name)}, your key's file or pkcs11: URI (Enter: sign later):")
        if not where:
            return result
        try:
            signature = open_signer(where, talk.secret)(result.transcript, person.name, person.role)
            signed = ceremony.signed(result, signature)
            verify_result(signed, signatures=0)
        except Problem as problem:
            told(talk, problem)
            continue
        talk.say("Signed.")
        return signed
    talk.say(f"{screen.safe(person.name)} signs later: rootward ceremony sign")
    return result


def _farewell(talk: Talk, paper: Paper, out: Path, result: Result, sets: Mapping[str, str]) -> None:
    line(talk, " Held.")
    talk.say(f"In {screen.safe(out)}:")
    for name in sorted(path.name for path in out.iterdir()):
        talk.say(f"  {name}")
    if (paper.base / SHARES).exists():
        talk.say(
            "Each custodian takes the file of their share out of the folder shares, and it is removed there. "
            "rootward ceremony share print FILE prints it on paper."
        )
    for name, made in sets.items():
        talk.say(f'The shares that open the key "{name}" are those of the set {made}.')
    missing = (1 if paper.script.lab else WITNESSES) - len(result.signatures)
    if missing > 0:
        talk.say(f"Until it counts, it needs {count(missing, 'more signature')}: rootward ceremony sign")
    talk.say("Take result.json out. Anybody can check it with rootward ceremony verify.")
    talk.say("Then the online side takes it in: rootward ceremony import.")
