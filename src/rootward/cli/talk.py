"""The conversation of a ceremony: what it says, and what people answer, on a plain terminal of 80 columns; or answers
from a file, which only a lab's ceremony takes.

Nothing here moves a cursor or needs a colour. What is said ends up in one plain log, so a recording of the terminal is
readable, and what people typed stands where they typed it; passphrases and PINs never do.
"""

from __future__ import annotations

import getpass
import sys
import termios
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, TypeVar

from rootward.cli import screen
from rootward.cli.failure import USAGE, Failure
from rootward.core.problems import Problem

T = TypeVar("T")
WIDTH = 78
TRIES = 3
RIGHT = "+"  # in a file of answers: whatever the right answer is


class Talk(Protocol):
    """Says and asks. Every question ends with an answer or with a Failure that stops the ceremony."""

    def say(self, text: str = "") -> None: ...

    def ask(self, question: str) -> str:
        """One line, without spaces at its ends; empty where nothing was typed."""

    def expect(self, question: str, right: Iterable[str]) -> str:
        """One of the `right` answers; capitals and spaces do not matter. Failure after three wrong ones."""

    def secret(self, question: str) -> str:
        """A passphrase or PIN, not shown."""


class Terminal(Talk):
    """A person at a terminal. What is typed before it is asked for is thrown away: it would answer another question."""

    def say(self, text: str = "") -> None:
        _say(text)

    def ask(self, question: str) -> str:
        try:
            with echo(shown=True):
                return input(f"{question} ").strip()
        except EOFError:
            raise Failure("The terminal is gone: it ends here.") from None

    def expect(self, question: str, right: Iterable[str]) -> str:
        wanted = [_plain(one) for one in right]
        for left in range(TRIES - 1, -1, -1):
            answer = self.ask(question)
            if _plain(answer) in wanted:
                return answer
            if left:
                self.say(f"That is not it. {left} more.")
        raise Failure("The answer was wrong three times: it ends here.")

    def secret(self, question: str) -> str:
        try:
            return getpass.getpass(f"{question} ")
        except EOFError:
            raise Failure("The terminal is gone: it ends here.") from None


class Answers(Talk):
    """The lines of a file in place of a person; `+` is whatever the right answer is. Lines with # are left out."""

    def __init__(self, path: Path) -> None:
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise Failure(f"{path} cannot be read.", f"{error}.", exit=USAGE) from error
        self._lines: Iterator[str] = iter([line for line in lines if not line.startswith("#")])

    def say(self, text: str = "") -> None:
        _say(text)

    def ask(self, question: str) -> str:
        answer = self._next(question)
        self.say(f"{question} {answer}")
        return answer

    def expect(self, question: str, right: Iterable[str]) -> str:
        wanted = list(right)
        answer = self._next(question)
        if answer == RIGHT:
            answer = wanted[0]
        self.say(f"{question} {answer}")
        if _plain(answer) not in [_plain(one) for one in wanted]:
            raise Failure("The answer in the file is wrong: it ends here.", f"{question} {answer}")
        return answer

    def secret(self, question: str) -> str:
        answer = self._next(question)
        self.say(question)
        return answer

    def _next(self, question: str) -> str:
        try:
            return next(self._lines).strip()
        except StopIteration:
            raise Failure("The file of answers has none left.", question) from None


def _say(text: str) -> None:
    """A line; one that is too long goes on below, as far in as it began."""
    indent = text[: len(text) - len(text.lstrip())]
    for part in screen.wrap(text, WIDTH - len(indent)):
        screen.say(f"{indent}{part}" if part else "")
    sys.stdout.flush()


@contextmanager
def echo(*, shown: bool) -> Iterator[None]:
    """Whether the terminal shows what is typed in the block; as before, after it. What was typed until then and not
    read is thrown away. Nothing to do where there is no terminal.
    """
    if not sys.stdin.isatty():
        yield
        return
    before = termios.tcgetattr(sys.stdin)
    flags = before[3] | termios.ECHO if shown else before[3] & ~termios.ECHO
    termios.tcsetattr(sys.stdin, termios.TCSAFLUSH, [*before[:3], flags, *before[4:]])
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSAFLUSH, before)


def _plain(text: str) -> str:
    return "".join(text.split()).casefold()


def conversation(answers: Path | None, *, lab: bool) -> Talk:
    """Who answers. Failure where there is neither a terminal nor, in a lab, a file of answers."""
    if answers is not None:
        if not lab:
            raise Failure(
                "Answers from a file are for labs only.",
                "In this ceremony people answer, at a terminal.",
                next="Leave --answers out, or write `lab: true` into a script that is for trying.",
                exit=USAGE,
            )
        return Answers(answers)
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise Failure(
            "A ceremony is held at a terminal, and there is none.",
            "People read the screen and answer.",
            next="Run the command at a terminal. A lab's script also takes --answers FILE.",
            exit=USAGE,
        )
    return Terminal()


def groups(sha256: str) -> list[str]:
    """A hash as 16 groups of four hex digits, to be read aloud."""
    return [sha256[at : at + 4] for at in range(0, len(sha256), 4)]


def show_hash(talk: Talk, sha256: str) -> None:
    """The hash in numbered groups of four digits, each with its two words."""
    from rootward.core.spoken import words_of

    listed, words = groups(sha256), words_of(bytes.fromhex(sha256))
    cells = [f"{at + 1:>2}  {listed[at]}  {words[2 * at]:<8} {words[2 * at + 1]:<8}" for at in range(len(listed))]
    for row in range(8):
        talk.say(f"  {cells[row]}       {cells[row + 8]}".rstrip())


def read_back(talk: Talk, asked: str, sha256: str, group: int) -> str:
    """Somebody reads a group of the hash, or its two words, from their paper; what was compared."""
    from rootward.core.spoken import words_of

    wanted = groups(sha256)[group]
    words = " ".join(words_of(bytes.fromhex(wanted)))
    talk.expect(f"{asked}, group {group + 1} of 16, or its two words:", [wanted, words])
    return f"group {group + 1} of 16"


def line(talk: Talk, text: str = "") -> None:
    """A ruled line across the screen; a heading, where there is one, between two."""
    talk.say("-" * WIDTH)
    if text:
        talk.say(text)
        talk.say("-" * WIDTH)


def again(talk: Talk, ask: Callable[[], T]) -> T:
    """What `ask` gives. What it refuses is told and asked for again: a mistyped passphrase must not send all home.
    Failure after three refusals.
    """
    for left in range(TRIES - 1, -1, -1):
        try:
            return ask()
        except Problem as problem:
            told(talk, problem)
        if left:
            talk.say(f"Once more; {left} left.")
    raise Failure("It was wrong three times: it ends here.")


def told(talk: Talk, problem: Problem) -> None:
    """Every reason of a refusal."""
    for reason in problem.reasons:
        talk.say(f"  - {screen.safe(reason.detail)}")
