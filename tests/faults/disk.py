"""What runs on a small disk: `python -m tests.faults.disk FOLDER TOKEN`, in a mount namespace of its own with 192 MiB.

Each step asserts what must be true; the last line is `done`.
"""

from __future__ import annotations

import asyncio
import errno
import os
import sys
from pathlib import Path

from rootward.ca import room
from rootward.ca.issue import Issued
from rootward.ca.publish import publish_due
from rootward.ca.revoke import revoke
from rootward.core.problems import Problem
from rootward.core.revocation import Good, RevocationReason, Revoked
from rootward.store.certificates import Certificate
from rootward.store.reserve import LOW, SIZE
from tests.faults.scenes import attempt, wish
from tests.support.faults import Home, Open, books, listed, opened, status

MIB = 1024 * 1024
CLIENTS = 8


class Others:
    """Whatever else fills the disk."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "others"

    def leave(self, space: int) -> None:
        """Take all of the disk but `space` bytes, page by page at its end: others write meanwhile."""
        handle = os.open(self._file, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            for step in (16 * MIB, MIB, 64 * 1024, 4096):
                while os.fstatvfs(handle).f_bavail * os.fstatvfs(handle).f_frsize >= space + step:
                    os.posix_fallocate(handle, os.fstat(handle).st_size, step)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
        finally:
            os.close(handle)

    def go(self) -> None:
        """Give all of it back."""
        self._file.unlink()


async def one_client(made: Open, issued: list[Certificate], codes: set[str]) -> None:
    """Ask until it is refused; what was given out is kept."""
    for _ in range(20_000):
        try:
            done = await attempt(made, wish("keyed"))
        except Problem as problem:
            codes.add(problem.code)
            return
        assert isinstance(done, Issued)
        issued.append(done.certificate)


async def until_refused(made: Open) -> tuple[list[Certificate], set[str]]:
    """Many clients at once; what they got, and what they were told in the end."""
    issued: list[Certificate] = []
    codes: set[str] = set()
    await asyncio.gather(*(one_client(made, issued, codes) for _ in range(CLIENTS)))
    return issued, codes


async def revocations_go_on(made: Open, rows: list[Certificate]) -> None:
    """Revocation, OCSP and CRL."""
    for row in rows:
        await revoke(made.inst, row.id, RevocationReason.SUPERSEDED, made.admin)
    assert isinstance(await status(made, rows[0].serial), Revoked)
    await publish_due(made.inst)
    assert {row.serial for row in rows} <= await listed(made)


async def main(folder: Path, token: str) -> None:
    home = Home(f"sqlite:///{folder}/rootward.db", folder, token)
    others, reserve = Others(folder), folder / "reserve"
    async with opened(home) as made:
        room.keep(made.inst)
        assert reserve.stat().st_blocks * 512 >= SIZE
        first = await attempt(made, wish())
        assert isinstance(first, Issued)

        # It fills up slowly: issuing is refused before anything fails, and the reserve is whole.
        others.leave(LOW + MIB)
        issued, codes = await until_refused(made)
        assert issued
        assert codes == {"RW-DISK"}
        assert reserve.stat().st_blocks * 512 >= SIZE
        await revocations_go_on(made, issued[:50])
        await books(made.inst)

        # It is full from one moment to the next, in the middle of issuing: the reserve is given back, nothing is lost.
        others.go()
        await room.look(made.inst)
        asking = asyncio.create_task(until_refused(made))
        for _ in range(500):  # turns of the loop: they are in the middle of it then
            await asyncio.sleep(0)
        others.leave(0)
        more, codes = await asking
        assert codes == {"RW-DISK"}, codes
        assert await status(made, first.certificate.serial) == Good()
        await revocations_go_on(made, issued[50:100] + more)
        assert not reserve.exists()
        assert {row.id for row in [*issued, *more]} <= (await books(made.inst)).keys()

        # The reserve is eaten too: clear refusals, and still nothing is lost.
        others.leave(0)
        told = set()
        for row in issued[100:]:
            try:
                await revoke(made.inst, row.id, RevocationReason.SUPERSEDED, made.admin)
            except Problem as problem:
                told.add((problem.code, problem.retry_after))
                break
        assert told <= {("RW-STORE", 5)}, told
        assert await status(made, first.certificate.serial) == Good()

    # A start on a full disk serves.
    others.leave(0)
    async with opened(home, serving=False) as made:
        room.keep(made.inst)
        try:
            await attempt(made, wish())
        except Problem as problem:
            assert problem.code == "RW-DISK"  # noqa: PT017  # no test framework in this process
        else:
            raise AssertionError("issued on a full disk")

        # Room again: the reserve is taken, issuing goes on by itself.
        others.go()
        await room.look(made.inst)
        assert reserve.stat().st_blocks * 512 >= SIZE
        await made.responder.renew()
        last = await attempt(made, wish())
        assert isinstance(last, Issued)
        await revocations_go_on(made, [last.certificate])
        rows = await books(made.inst)
        assert {row.id for row in [*issued, *more]} <= rows.keys()
    print("done")  # noqa: T201  # what the test reads


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
