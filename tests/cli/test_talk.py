"""What a ceremony's terminal shows of what people type."""

from __future__ import annotations

import os
import pty
import select
import sys
import termios
from collections.abc import Iterator

import pytest

from rootward.cli.talk import Terminal, echo
from tests.support.terminal import SECONDS


@pytest.fixture
def keyboard(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Standard input is a terminal; the other end of it."""
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "r") as stdin:
        monkeypatch.setattr(sys, "stdin", stdin)
        yield ours
    os.close(ours)


def shown() -> bool:
    return bool(termios.tcgetattr(sys.stdin)[3] & termios.ECHO)


def test_what_is_typed_is_shown_only_where_it_is_asked_for(keyboard: int) -> None:
    assert keyboard
    assert shown()
    with echo(shown=False):
        assert not shown()
        with echo(shown=True):
            assert shown()
        assert not shown()
    assert shown()


def test_it_is_as_before_after_an_end_in_between(keyboard: int) -> None:
    assert keyboard
    with pytest.raises(KeyboardInterrupt), echo(shown=False):
        raise KeyboardInterrupt
    assert shown()


def test_what_was_typed_too_early_answers_nothing(keyboard: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def typed(question: str) -> str:
        os.write(keyboard, b"the answer\n")
        return sys.stdin.readline()

    monkeypatch.setattr("builtins.input", typed)
    os.write(keyboard, b"a passphrase\n")
    assert select.select([sys.stdin], [], [], SECONDS)[0]  # it has arrived
    assert Terminal().ask("A question?") == "the answer"
