"""A person at a terminal of 80 columns and 24 lines: a program on a pseudo-terminal, and answers to its questions."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

SECONDS = 60


# A question, by what its line looks like, and what gives its answer from that and the whole screen.
Rule = tuple[str, Callable[[re.Match[str], str], str]]


def _take_terminal() -> None:
    """As a login does: getpass finds its terminal, and Ctrl-C interrupts; a shell's background job ignores it."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@dataclass
class Person:
    """Who runs the command, with `more` in its environment; `screen` is everything that it showed, `code` how it
    ended.
    """

    command: Sequence[str]
    folder: Path
    more: Mapping[str, str] = field(default_factory=dict)
    screen: str = field(default="", init=False)
    code: int = field(default=-1, init=False)

    def answer(self, answers: Iterable[tuple[str, str | Callable[[str], str]]], *, killed: bool = False) -> str:
        """Run the program to its end; the screen as it was. AssertionError where a question does not come.

        `answers` are (end of a question, the answer or what gives it from the screen), in the order of asking. With
        `killed`, the last question is not answered: the program is killed while it waits.
        """
        with self._running() as (process, ours):
            seen = 0
            listed = list(answers)
            for number, (question, how) in enumerate(listed, start=1):
                self._until(ours, lambda start=seen, asked=question: self.screen[start:].rstrip().endswith(asked))
                if killed and number == len(listed):
                    return self.screen
                said = how if isinstance(how, str) else how(self.screen)
                seen = len(self.screen)
                os.write(ours, said.encode() + b"\n")
            self._until(ours, lambda: False, to_the_end=True)
            process.wait(SECONDS)
        return self.screen

    def converse(self, rules: Sequence[Rule], *, most: int = 200) -> str:
        """Run the program to its end, whatever it asks in whichever order; the screen as it was. A question is a last
        line that one of the `rules` (regular expressions for the whole line) fits. AssertionError where nobody knows
        an answer, or after `most` of them.
        """
        with self._running() as (process, ours):
            seen = 0
            for _ in range(most):
                if not self._until(ours, lambda start=seen: self._asked(start, rules) is not None, to_the_end=True):
                    process.wait(SECONDS)
                    return self.screen
                found = self._asked(seen, rules)
                assert found is not None
                match, how = found
                seen = len(self.screen)
                os.write(ours, how(match, self.screen).encode() + b"\n")
            raise AssertionError(f"it asked more than {most} questions:\n{self.screen}")

    def _asked(
        self, start: int, rules: Sequence[Rule]
    ) -> tuple[re.Match[str], Callable[[re.Match[str], str], str]] | None:
        last = self.screen[start:].rpartition("\n")[2].strip()
        fits = ((re.fullmatch(pattern, last), how) for pattern, how in rules)
        return next(((match, how) for match, how in fits if match), None)

    @contextmanager
    def _running(self) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
        """The program, and our end of its terminal. What still runs at the end of the block is killed."""
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ROOTWARD_")}
        process = subprocess.Popen(
            self.command,
            cwd=self.folder,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=environment | {"TERM": "vt100", "LC_ALL": "C.UTF-8", **self.more},
            start_new_session=True,
            preexec_fn=_take_terminal,  # noqa: PLW1509  # two calls into the system, which take no lock
        )
        os.close(theirs)
        try:
            yield process, ours
        finally:
            process.kill()
            self.code = process.wait(SECONDS)
            os.close(ours)

    def _until(self, terminal: int, there: Callable[[], bool], *, to_the_end: bool = False) -> bool:
        """Read until it is there; False where the program ended before, which is right only with `to_the_end`."""
        end = monotonic() + SECONDS
        while not there():
            ready, _, _ = select.select([terminal], [], [], max(0, end - monotonic()))
            assert ready, f"nothing more came:\n{self.screen}"
            try:
                data = os.read(terminal, 65536)
            except OSError:  # EIO: the program has ended
                data = b""
            if not data:
                assert to_the_end, f"it ended:\n{self.screen}"
                return False
            self.screen += data.decode("utf-8", "replace").replace("\r\n", "\n")
        return True
