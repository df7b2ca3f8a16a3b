"""A custodian's share, as a file and as typed lines: what is read is printed and typed back, or Problem RW-SHARE."""

from __future__ import annotations

from rootward.core.problems import Problem
from rootward.keys import share_file

LARGEST = 16 * 1024


def one(data: bytes) -> None:
    """Anything that is raised from here is a crasher."""
    for read in (_file, _lines):
        try:
            found = read(data)
        except Problem as problem:
            if {problem.code, *(reason.code for reason in problem.reasons)} != {"RW-SHARE"}:
                raise AssertionError(problem.code) from problem
            continue
        page = share_file.printed(found)
        if share_file.typed(line for line in page.splitlines() if line.strip()[:1].isdigit()) != found:
            raise AssertionError("what was printed does not mean itself")


def _file(data: bytes) -> bytes:
    share_file.read_header(data)
    return data


def _lines(data: bytes) -> bytes:
    return share_file.typed(data.decode("utf-8", "replace").splitlines())


def seeds() -> list[bytes]:
    """Files and pages of small and large sets."""
    from rootward.core.shares import split
    from rootward.keys import Argon2

    found = []
    for count, threshold, name in ((2, 2, "A"), (5, 3, "Zo\u00eb"), (16, 16, "x" * 61)):
        names = [f"{name} {at}" for at in range(count)]
        share = split(bytes(32), names, threshold, label="root", random=bytes(32 * (threshold - 1)))[-1]
        sealed = share_file.seal(share, "correct horse battery", cost=Argon2(memory_kib=8 * 1024, passes=1, lanes=1))
        lines = share_file.printed(sealed).splitlines()
        page = "\n".join(line for line in lines if line.strip()[:1].isdigit()).encode()
        found += [sealed, page, page.replace(b"1", b"I", 3), page.lower()]
    return found
