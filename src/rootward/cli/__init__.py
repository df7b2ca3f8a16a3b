"""The command line: `rootward NOUN VERB` (docs/reference/cli.md). One file per noun; a noun is imported when it is
used.
"""

from __future__ import annotations

import sys


def main() -> None:
    """The console script. Exit codes: 0 done, 1 refused or failed, 2 wrong usage, 3 waiting for approval, 4 not
    reachable.
    """
    if sys.argv[1:] == ["--version"]:
        from rootward import __version__

        sys.stdout.write(f"rootward {__version__}\n")
        return
    from rootward import kernel
    from rootward.cli.app import run

    kernel.keep_to_itself()

    sys.exit(run())
