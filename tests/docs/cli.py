"""The reference of the command line, made from the command line itself.

`python -m tests.docs.cli > docs/reference/cli.md` writes it anew; `test_cli.py` compares.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_origin

import typer.main

from rootward.cli.app import NOUNS, app
from rootward.cli.options import PANEL

_KINDS: Final[dict[type, str]] = {str: "TEXT", int: "NUMBER", Path: "PATH"}

HEAD = """\
# Command line

<!-- Made from the program: python -m tests.docs.cli > docs/reference/cli.md -->

`rootward NOUN VERB`. Every command has `--help`. Tables are for people; with `--json` a command prints the server's
answer as it came ([REST](rest.md) says what is in it).

## Exit codes

| code | means |
|---|---|
| 0 | Done. |
| 1 | Refused or failed; a check (`cert verify`, `doctor`) found something. |
| 2 | Wrong usage: an option, a file or a setting on this side. |
| 3 | Waiting: for a second person, or (`key rewrap`) for the server. Issuing commands and `ca sign` \
are run again after the yes; a proposal is carried out by it. |
| 4 | The server is not reachable, or does not prove who it is. |
| 130 | Stopped by Ctrl-C. |

## Server options

Commands about a server take all of these, commands about a home on this machine `--home`, some `--json`. They may also
stand before the noun; behind the verb they win. A flag goes before the environment, the environment before what the
home says: the address is in its `rootward.toml`, the token in its `admin.token`, the root to trust in its `root.pem`;
without a home the system's store says whom to trust. A token goes over HTTPS only, and the token of a home that nobody
named never to a server that another root proves.

"""

TAIL = """\

## Environment

| variable | stands for |
|---|---|
| `ROOTWARD_URL` | `--url` |
| `ROOTWARD_TOKEN_FILE` | `--token-file` |
| `ROOTWARD_CA_FILE` | `--ca-file` |
| `ROOTWARD_HOME` | `--home` |
| `ROOTWARD_HTTPS`, `ROOTWARD_MTLS`, `ROOTWARD_HTTP` | `--https`, `--mtls`, `--http` of `quickstart` |
| `ROOTWARD_SIGNER_HOME` | `--home` of `signer` |
| `ROOTWARD_DATABASE` | The server's setting `database.url` ([Configuration](configuration.md)). |
| `ROOTWARD_DEBUG` | A traceback where the command line itself is wrong. |
| `NO_COLOR` | No colours. |
"""


def reference() -> str:
    """The whole document."""
    root: Any = typer.main.get_command(app)
    server = [param for param in root.params if panel(param) == PANEL]
    lines = [
        *table(server),
        "",
        "Without a noun, `--version` prints the version and `--install-completion` sets up the shell.",
    ]
    for noun in NOUNS:
        lines += ["", *described(root.get_command(None, noun), ["rootward", noun], depth=2)]
    return HEAD + "\n".join(lines) + "\n" + TAIL


def described(command: Any, path: list[str], *, depth: int) -> Iterator[str]:
    """A command, or a noun with its verbs, from a heading of `depth` on."""
    verbs: dict[str, Any] = getattr(command, "commands", {})
    yield f"{'#' * depth} `{' '.join(path)}`"
    yield ""
    yield sentence(command.help)
    if verbs:
        for name, verb in verbs.items():
            yield ""
            yield from described(verb, [*path, name], depth=depth + 1)
        return
    arguments = [param for param in command.params if param.param_type_name == "argument"]
    options = [param for param in command.params if param.param_type_name == "option" and "--help" not in param.opts]
    own = [param for param in options if panel(param) != PANEL]
    remote = {param.name for param in options if panel(param) == PANEL}
    usage = [*path, *(argument_usage(param) for param in arguments), *(option_usage(param) for param in own)]
    yield ""
    yield "```"
    yield from wrapped(usage)
    yield "```"
    if arguments or own:
        yield ""
        yield from table([*arguments, *own])
    if remote:
        yield ""
        only = {1: "`--home`", 2: "`--home`, `--json`"}.get(len(remote), "all")
        yield f"[Server options](#server-options): {only}."


def table(params: list[Any]) -> Iterator[str]:
    """Arguments and options with what they are."""
    yield "| option | what it is |"
    yield "|---|---|"
    for param in params:
        name = word(param) if param.param_type_name == "argument" else spelled(param)
        yield f"| `{cell(name)}` | {cell(sentence(param.help) + usual(param))} |"


def usual(param: Any) -> str:
    """What holds where an option is not given; nothing where that is nothing, or stands in its help."""
    return f" If not given: `{param.default}`." if param.default not in (None, False, "", 0) else ""


def cell(text: str) -> str:
    """A bar would end the cell."""
    return text.replace("|", "\\|")


def spelled(param: Any) -> str:
    """An option as it is written: `--limit <int>`, `--json`, `--yes / --no`."""
    names = ", ".join(param.opts) + (f" / {', '.join(param.secondary_opts)}" if param.secondary_opts else "")
    return names if param.is_flag else f"{names} {value(param)}"


def value(param: Any) -> str:
    """What stands for an option's value: its own word, its choices, or its type."""
    if param.metavar:
        return str(param.metavar)
    kind = param.type_descriptor.annotation
    kind = get_args(kind)[0] if get_origin(kind) is list else kind
    if get_origin(kind) is Literal:
        return "|".join(get_args(kind))
    if isinstance(kind, type) and issubclass(kind, Enum):
        return "|".join(str(one.value) for one in kind)
    return _KINDS[kind]


def word(argument: Any) -> str:
    """What stands for an argument."""
    return str(argument.metavar or argument.name.upper())


def argument_usage(param: Any) -> str:
    name = word(param)
    return name if param.required else f"[{name}]"


def option_usage(param: Any) -> str:
    text = spelled(param) + (" …" if param.multiple else "")
    return text if param.required else f"[{text}]"


def wrapped(words: list[str], *, width: int = 110) -> Iterator[str]:
    """Words in lines of at most `width` characters, further ones indented."""
    line = ""
    for word in words:
        if line and len(line) + 1 + len(word) > width:
            yield line
            line = f"    {word}"
        else:
            line = f"{line} {word}" if line else word
    yield line


def panel(param: Any) -> str | None:
    return getattr(param, "rich_help_panel", None)


def sentence(text: str | None) -> str:
    """Help in one line, with a full stop."""
    if not text:
        raise ValueError("a command or option without help")
    line = " ".join(text.split())
    return line if line.endswith((".", ")", "…")) else line + "."


if __name__ == "__main__":
    sys.stdout.write(reference())
