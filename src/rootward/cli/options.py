"""The options that every command about a server has, in one place: `@remote`, `@local` and `@offline` add them to a
command's own.

A command takes a `Session` first; typer sees the options in its stead. They can also stand before the noun.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rootward.cli import screen
from rootward.cli.connection import Flags, resolve
from rootward.cli.failure import Failure

if TYPE_CHECKING:
    from rootward.cli.client import Client

PANEL = "Server"
Url = Annotated[str | None, typer.Option("--url", help="The server. (ROOTWARD_URL)", rich_help_panel=PANEL)]
TokenFile = Annotated[
    Path | None, typer.Option("--token-file", help="Who asks. (ROOTWARD_TOKEN_FILE)", rich_help_panel=PANEL)
]
CaFile = Annotated[
    Path | None,
    typer.Option("--ca-file", help="The root that proves the server. (ROOTWARD_CA_FILE)", rich_help_panel=PANEL),
]
Home = Annotated[
    Path | None,
    typer.Option("--home", help="The server's home; ./var if not given. (ROOTWARD_HOME)", rich_help_panel=PANEL),
]
Json = Annotated[bool, typer.Option("--json", help="Print the server's answer, for programs.", rich_help_panel=PANEL)]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="At most so many; all if not given.")]

_REMOTE = {"url": Url, "token_file": TokenFile, "ca_file": CaFile, "home": Home, "json": Json}
_LOCAL = {"home": Home}
_OFFLINE = {"home": Home, "json": Json}


class Session:
    """What a command was called with; `client` makes the connection on first use."""

    def __init__(self, flags: Flags) -> None:
        self.flags = flags
        self._client: Client | None = None

    @property
    def json(self) -> bool:
        return self.flags.json

    @property
    def client(self) -> Client:
        """The client of the server that flags, environment and home name."""
        if self._client is None:
            from rootward.cli.client import Client  # here: httpx is half of the time that a command needs to start

            self._client = Client(resolve(self.flags))
        return self._client

    def close(self) -> None:
        if self._client is not None:
            self._client.__exit__(None, None, None)


def remote(command: Callable[..., None]) -> Callable[..., None]:
    """A command that talks to a server: `--url`, `--token-file`, `--ca-file`, `--home`, `--json`."""
    return _with(command, _REMOTE)


def local(command: Callable[..., None]) -> Callable[..., None]:
    """A command about a home on this machine: `--home`."""
    return _with(command, _LOCAL)


def offline(command: Callable[..., None]) -> Callable[..., None]:
    """A command that reads a home or a file without a server, and tells programs too: `--home`, `--json`."""
    return _with(command, _OFFLINE)


def _with(command: Callable[..., None], options: dict[str, Any]) -> Callable[..., None]:
    signature = inspect.signature(command, eval_str=True)
    own = list(signature.parameters.values())[1:]  # all but the session

    @functools.wraps(command)
    def called(context: typer.Context, **values: Any) -> None:
        flags = Flags(**{name: values.pop(name) for name in options})
        session = Session(flags.over(context.obj))
        try:
            command(session, **values)
        except Failure as failure:
            if session.json and failure.body is not None:
                screen.write_json(failure.body)  # the problem document; the sentences go to standard error
            raise
        finally:
            session.close()

    extra = [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=False if name == "json" else None, annotation=options[name]
        )
        for name in options
    ]
    context = inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
    keyword = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own]
    called.__signature__ = signature.replace(parameters=[context, *keyword, *extra])  # type: ignore[attr-defined]  # typer reads it
    called.__annotations__ = {item.name: item.annotation for item in (context, *keyword, *extra)}
    return called


def noun(help: str) -> typer.Typer:
    """The empty command group of a noun."""
    return typer.Typer(help=help, no_args_is_help=True, rich_markup_mode="rich", add_completion=False)
