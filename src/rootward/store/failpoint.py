"""Named places where a test can make the process die, stop or fail. Nothing is armed unless the environment says so.

`FAILPOINT=issue.intended:kill` arms one place, a comma separates more. What happens there: `kill` is SIGKILL to this
process, `stop` is SIGSTOP (a paused replica), `fail` raises `Injected`. A number after it, `issue.signed:fail:3`, means
the third time alone. Every write to the store can fail in two ways: `store.write:fail` without an effect, and
`store.write:fail_persisted` with one, as when the answer to a COMMIT is lost; the asker sees the same.

`NAMES` has them all, and a name that is not there is an error: a test that waits for a place that was renamed would
prove nothing. docs/architecture.md says what the next start finds for each. The environment is read once, at import;
`armed` is for a test in the same process.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

NAMES = frozenset(
    """
    http.asked http.answer http.answered
    once.claimed once.carried-out once.kept
    issue.drafted issue.admitted issue.intended issue.signed issue.stored issue.failed-stored
    park.asked park.stored park.claimed
    approve.checked approve.stored approve.carried-out approve.failed-stored deny.stored
    propose.stored agree.stored agree.failed-stored disagree.stored
    revoke.checked revoke.stored revoke-many.checked revoke-many.stored release.checked release.stored
    crl.claimed crl.collected crl.drafted crl.signed crl.published
    ocsp.drafted ocsp.signed
    own.key-made own.csr-made own.certified own.key-deleted
    reconcile.found reconcile.closed
    freeze.held freeze.stored
    authority.key-made authority.withdrawn authority.installed authority.certified authority.revoked authority.adopted
    ceremony.imported
    compromise.checked compromise.stored succeed.stored retire.stored succession.stored ended.stored
    drill.stored
    acme.order-stored acme.claimed acme.validated acme.validation-stored acme.finalize acme.finalized acme.refused
    token.stored token.renewal-stored grant.stored
    job.claimed job.carried-out
    sequence.taken sequence.appended sequence.signed sequence.published
    kek.prepared kek.linked kek.renamed kek.files-sealed kek.secrets-sealed kek.finished
    key.destroying key.destroyed record.stored
    backup.begun backup.written restore.loaded restore.committed
    start.settled start.published start.listening
    store.write.before-commit store.write.after-commit
    """.split()
)
# One COMMIT, two ways to fail: before it there is no effect, after it there is.
_WRITE = {"fail": "store.write.before-commit", "fail_persisted": "store.write.after-commit"}


class Injected(Exception):
    """The failure that `fail` raises."""


class _Trap:
    def __init__(self, name: str, action: str, only: int) -> None:
        self.name = name
        self.action = action
        self.only = only  # 0: every time
        self.times = 0

    def spring(self) -> None:
        self.times += 1
        if self.only not in {0, self.times}:
            return
        if self.action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.action == "stop":
            # Sent to this thread, it takes effect before the next step; sent to the process, some time after.
            signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
        else:
            raise Injected(self.name)


def _parse(text: str, also: frozenset[str] = frozenset()) -> dict[str, _Trap]:
    traps = {}
    for entry in filter(None, text.split(",")):
        name, action, count = (*entry.split(":"), "", "")[:3]
        if name == "store.write" and action in _WRITE:
            name, action = _WRITE[action], "fail"
        if action not in {"kill", "stop", "fail"} or not (count or "0").isdecimal():
            raise ValueError(
                "FAILPOINT is name:kill, name:stop or name:fail, or store.write:fail_persisted, "
                "with :3 for the third time alone"
            )
        if name not in NAMES | also:
            raise ValueError(f"FAILPOINT: there is no place {name}")
        traps[name] = _Trap(name, action, int(count or "0"))
    return traps


_traps = _parse(os.environ.get("FAILPOINT", ""))


def failpoint(name: str) -> None:
    """Do what is armed for `name`; nothing, in one dictionary look-up, where nothing is."""
    trap = _traps.get(name)
    if trap is not None:
        trap.spring()


@contextmanager
def armed(text: str, *, also: frozenset[str] = frozenset()) -> Iterator[None]:
    """Arm what `FAILPOINT=text` would, for the length of a `with` block, and put back what was armed before. `also` are
    places of the test's own.
    """
    before = dict(_traps)
    _traps.update(_parse(text, also))
    try:
        yield
    finally:
        _traps.clear()
        _traps.update(before)
