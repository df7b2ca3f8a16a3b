"""Where a ceremony's result goes: tried before anything is done, written under a temporary name, named at the end.

Everything is written into `FOLDER.making`, result.json last, so that a folder with that file has all of it; and a
result is only ever there while the keys that it made are. The keys get their names between the two.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex

from rootward.ca import ceremony
from rootward.cli import screen
from rootward.cli.failure import USAGE, Failure
from rootward.cli.making import RESULT, give_name, hand_out, making, result_in
from rootward.cli.script import Paper
from rootward.cli.talk import Talk
from rootward.core import paperwork
from rootward.core.paperwork import Result
from rootward.core.problems import Problem
from rootward.core.script import SHARES, BackUpKey, ChangeCustodians, FileKey, MakeKey
from rootward.keys.disk import NEW, check_folder, flush_folder, replace, write_new

_ROOM = 1024 * 1024  # bytes, beyond the script and the files that it names: what is made of them, and the transcript


@dataclass
class Outcome:
    """The new folder `out` for the result of the script. It is another one where that cannot be written."""

    paper: Paper
    out: Path
    talk: Talk

    @property
    def making(self) -> Path:
        return making(self.out)

    def check(self) -> None:
        """Failure unless the folder is a new one of its own, and as much as a result has can be written there."""
        if self.out.exists():
            raise Failure(f"There is {self.out} already.", "A result is written into a new folder.", exit=USAGE)
        if (self.making / RESULT).exists():
            raise Failure(f"{self.making} has the result of a ceremony that was cut off.", "It is left.", exit=USAGE)
        if self._within():
            raise Failure(
                f"{self.out} is a folder of the script, or lies in one or around one.",
                "A result is written into one of its own.",
                exit=USAGE,
            )
        try:
            self._clear()
            try:
                write_new(self.making / "probe", bytes(self._size()), mode=0o644)
            finally:
                shutil.rmtree(self.making)
        except OSError as error:
            raise Failure(
                f"The result cannot be written into {self.out}.",
                f"{error.strerror}.",
                next="Name a new folder on a medium that has room and can be written, with --out.",
                exit=USAGE,
            ) from error

    def _size(self) -> int:
        return _ROOM + 2 * sum(map(len, (self.paper.data, *self.paper.files.values())))

    def _within(self) -> bool:
        """Whether `out` is a folder that the script names or that is made for it, under each name that it has in the
        meantime, or has one in it, or is in one that is new.
        """
        script = self.paper.script
        new = {step.key for step in script.steps if isinstance(step, MakeKey)}
        keys = [(where.folder, name in new) for name, where in script.keys.items() if where.folder]
        copies = [(step.to, True) for step in script.steps if isinstance(step, BackUpKey)]
        mine = [self.out.resolve(), self.making.resolve()]
        for name, closed in (*keys, *copies, (SHARES, True)):
            folder = self.paper.base.resolve() / name
            for other in (folder.resolve(), making(folder).resolve()):
                if any(other.is_relative_to(one) or (closed and one.is_relative_to(other)) for one in mine):
                    return True
        return False

    def _clear(self) -> None:
        if self.making.exists():
            shutil.rmtree(self.making)  # of a ceremony that was cut off before its end: public files, and no result
        self.making.mkdir(parents=True)

    def write(self, result: Result) -> None:
        """Everything, under the temporary name. Where that fails they name another folder; Failure if they do not."""
        while True:
            try:
                self._clear()
                files = ceremony.public_files(result) | {"transcript.json": result.transcript.encode()}
                for name, data in (files | {RESULT: paperwork.write(result)}).items():
                    replace(self.making / name, data, mode=0o644)
            except OSError as error:
                self.unwrite()
                why = error.strerror
            else:
                return
            self.talk.say(f"The result cannot be written into {screen.safe(self.out)}: {why}.")
            self.talk.say("Everything that was made and signed is still at hand. Put in another medium.")
            self._another()

    def _another(self) -> None:
        while True:
            named = self.talk.ask("Another new folder for the result (Enter: give all of it up):")
            if not named:
                raise Failure("The result could not be written: the ceremony ends here.")
            other = Outcome(self.paper, Path(named), self.talk)
            try:
                other.check()
            except Failure as failure:
                self.talk.say(screen.safe(" ".join((failure.what, *failure.why))))
            else:
                self.out = other.out  # and not before: what is there may be another ceremony's, and stays
                self.talk.say(f"If it is cut off from here on, --out {screen.safe(named)} finishes it.")
                return

    def unwrite(self) -> None:
        """Take the result away again, before its keys are."""
        path = self.making / RESULT
        try:
            path.unlink(missing_ok=True)
            if path.parent.exists():
                flush_folder(path.parent)
        except OSError as error:
            self.talk.say(f"{screen.safe(path)} cannot be removed: {error.strerror}. Destroy it: its keys are gone.")

    def finish(self) -> Result | None:
        """Give a ceremony's files their names where it was cut off right before; None where there is none."""
        result = result_in(self.making)
        if result is None:
            return None
        if result.script.encode() != self.paper.data:
            raise Failure(f"{self.making} is of another ceremony.", "Its script is another one.")
        for final in _made_folders(self.paper):
            folder = making(final)
            if folder.exists() and not final.exists():
                give_name(final)
            elif folder.exists() or not final.exists():
                raise Failure(
                    f"The key that belongs to the result in {self.making} is not in one place.",
                    f"It is in {folder}, and {final} is another one." if folder.exists() else f"There is no {final}.",
                    next=f"Find it before anything else is done; nothing was changed. It is to be in {final}.",
                )
        steps = self.paper.script.steps
        hand_out(self.paper.base / SHARES, [step.key for step in steps if isinstance(step, MakeKey)])
        give_name(self.out)
        return result


def _made_folders(paper: Paper) -> Iterator[Path]:
    """The folders of the keys that the script makes."""
    for step in paper.script.steps:
        where = paper.script.keys[step.key] if isinstance(step, MakeKey) else None
        if where is not None and (isinstance(where, FileKey) or where.folder):
            yield paper.base / where.folder


def check_secrets(paper: Paper) -> None:
    """Failure where a key or a share that the script makes would lie where everybody can read it, or cannot lie."""
    folders = [final.parent for final in _made_folders(paper)]
    made = {step.key for step in paper.script.steps if isinstance(step, MakeKey)}
    if any(paper.script.keys[name].custodians for name in made) or any(
        isinstance(step, ChangeCustodians) for step in paper.script.steps
    ):
        folders.append(paper.base)
    for folder in dict.fromkeys(folders):
        probe = folder / f"{NEW}{token_hex(8)}"
        try:
            probe.mkdir(mode=0o700)
            try:
                check_folder(probe, code="RW-CEREMONY")
                write_new(probe / "probe", b"", mode=0o600)
            finally:
                shutil.rmtree(probe)
        except (OSError, Problem) as error:
            why = f"{error.strerror}." if isinstance(error, OSError) else "Others can get at whatever is made in it."
            raise Failure(
                f"The folder {folder} cannot take a key or a share.",
                why,
                next="Have keys and shares on a medium with a file system that knows owners and modes, such as ext4: "
                "copy the script and its files there. A FAT or exFAT stick does not; the result can go to one, by "
                "--out.",
                exit=USAGE,
            ) from error
