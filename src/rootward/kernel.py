"""What the kernel is told about a process that may hold secrets: it leaves no core, and no debugger of the same user
looks into it.
"""

from __future__ import annotations

import ctypes
import os
import resource
import sys

_PR_SET_DUMPABLE = 4  # prctl(2)
_MCL_CURRENT, _MCL_FUTURE, _MCL_ONFAULT = 1, 2, 4  # mlockall(2)


def keep_to_itself() -> None:
    """No core, ever, and nothing of /proc/PID or ptrace for other processes of this user. Before any secret is read.

    The limit alone does not do it: where cores are piped to a program (core(5)) the kernel does not ask for it.
    OSError where the kernel refuses.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux" and _libc().prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "The kernel refuses PR_SET_DUMPABLE")


def stay_in_memory() -> str:
    """Nothing is swapped, from now on; or the sentence that says why that could not be had."""
    # A limit would not be met here and now, but at some later allocation.
    if resource.getrlimit(resource.RLIMIT_MEMLOCK)[0] != resource.RLIM_INFINITY:
        return "The signer's memory may be swapped: set LimitMEMLOCK=infinity in its unit, or turn swap off."
    if _libc().mlockall(_MCL_CURRENT | _MCL_FUTURE | _MCL_ONFAULT) != 0:
        return f"The signer's memory may be swapped: mlockall says {os.strerror(ctypes.get_errno())}."
    return ""


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
