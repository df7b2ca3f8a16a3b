"""The root of the command line: which noun is where, the options that go before it, and the one place where failures
end.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Final

import typer
import typer.core
import typer.main

from rootward import __version__
from rootward.cli import screen
from rootward.cli.connection import Flags
from rootward.cli.failure import FAILED, Failure, of_problem
from rootward.cli.options import CaFile, Home, Json, TokenFile, Url
from rootward.core.problems import Problem

# Where each noun and command is. A module's `app` is a typer application; `local` has several in `COMMANDS`.
NOUNS: Final[dict[str, Callable[[], ModuleType]]] = {
    "cert": lambda: import_module("rootward.cli.cert"),
    "request": lambda: import_module("rootward.cli.request"),
    "profile": lambda: import_module("rootward.cli.profile"),
    "ca": lambda: import_module("rootward.cli.ca"),
    "ceremony": lambda: import_module("rootward.cli.ceremony"),
    "drill": lambda: import_module("rootward.cli.drill"),
    "acme": lambda: import_module("rootward.cli.acme"),
    "access": lambda: import_module("rootward.cli.access"),
    "audit": lambda: import_module("rootward.cli.audit"),
    "key": lambda: import_module("rootward.cli.key"),
    "backup": lambda: import_module("rootward.cli.backup"),
    "doctor": lambda: import_module("rootward.cli.doctor"),
    "signer": lambda: import_module("rootward.cli.signer"),
    "quickstart": lambda: import_module("rootward.cli.local"),
    "init": lambda: import_module("rootward.cli.local"),
    "serve": lambda: import_module("rootward.cli.local"),
}


class _Nouns(typer.core.TyperGroup):
    """A group whose commands are imported when they are asked for: a start takes no longer than its noun needs."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(NOUNS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in NOUNS:
            return None
        module = NOUNS[cmd_name]()
        command = typer.main.get_command(getattr(module, "COMMANDS", {}).get(cmd_name) or module.app)
        command.name = cmd_name
        return command

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] not in NOUNS and not args[0].startswith("-"):
            near = get_close_matches(args[0], NOUNS, n=1)
            ctx.fail(f"There is no command {screen.safe(args[0])}." + (f" Did you mean {near[0]}?" if near else ""))
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=_Nouns,
    name="rootward",
    help="Runs an organisation's internal PKI, and gets certificates from it.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        screen.say(f"rootward {__version__}")
        raise typer.Exit


@app.callback()
def root(
    context: typer.Context,
    url: Url = None,
    token_file: TokenFile = None,
    ca_file: CaFile = None,
    home: Home = None,
    json: Json = False,
    version: Annotated[  # noqa: ARG001 -- its callback has printed it
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Keep the options that stand before the noun; those behind it win."""
    context.obj = Flags(url, token_file, ca_file, home, json)


def run(arguments: list[str] | None = None) -> int:
    """Run one command line (`sys.argv` if None) and return its exit code."""
    command = typer.main.get_command(app)
    try:
        command.main(args=arguments, prog_name="rootward")
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else FAILED
    except Failure as failure:
        screen.failure(failure)
        return failure.exit
    except Problem as problem:
        screen.failure(of_problem(problem))
        return FAILED
    except OSError as error:
        where = f"{Path(error.filename)}: " if isinstance(error.filename, str) else ""
        screen.failure(Failure(f"{where}{error.strerror or error}."))
        return FAILED
    except Exception as error:  # the outermost edge: people get a sentence, never a traceback
        if os.environ.get("ROOTWARD_DEBUG"):
            raise
        why = f"{type(error).__name__}: {error}"
        next_step = "Run it again with ROOTWARD_DEBUG=1 to see where, and report it."
        screen.failure(Failure("This is a mistake in the command line itself.", why, next=next_step))
        return FAILED
    return 0


if __name__ == "__main__":
    sys.exit(run())
