"""docs/reference/profiles.md: every field with its default; the examples are read, made, and used."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import msgspec
import pytest
import yaml

from rootward.core.profile import Profile, Value, parse_profile, profile_json
from tests.docs.console import Done, Terminal, commands, expected
from tests.docs.markdown import REFERENCE, Block, blocks, codes, read, rows

DOCUMENT = read(REFERENCE / "profiles.md")
# Exit code 1 says little: the problem that each example is about.
REFUSALS = {"payments": "RW-NAME-PERMITTED", "person": "RW-NAME-PERMITTED", "owned": "RW-CONDITION"}


def fields(part: type[msgspec.Struct], before: str = "") -> Iterator[tuple[str, str | None]]:
    """Every field by its dotted name, with its default as JSON."""
    for field in msgspec.structs.fields(part):
        kind: Any = field.type
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct) and kind is not Value:
            yield from fields(kind, f"{before}{field.encode_name}.")
        else:
            default = None if field.required else msgspec.json.encode(field.default).decode()
            yield before + field.encode_name, default


def examples() -> dict[str, bytes]:
    """The profiles of the page, as JSON, by name."""
    written = [yaml.safe_load(block.text) for block in blocks(DOCUMENT, "yaml")]
    written += [msgspec.json.decode(block.text) for block in blocks(DOCUMENT, "json")]
    return {profile["name"]: msgspec.json.encode(profile) for profile in written}


def test_every_field_with_its_default() -> None:
    told = {codes(name)[0]: "".join(codes(default)) or None for name, default, _ in rows(DOCUMENT, "field")}
    assert told == dict(fields(Profile))


@pytest.mark.parametrize("name", examples())
def test_an_example_is_a_profile_and_writes_nothing_that_is_the_default(name: str) -> None:
    written = examples()[name]
    profile = parse_profile(written)
    assert msgspec.json.decode(profile_json(profile)) == msgspec.json.decode(written)


def test_the_commands(terminal: Terminal) -> None:
    """Each example is a file of its name by then, as the page says. What is refused, its own rule refuses."""
    terminal.run("export PATH=$PWD/.venv/bin:$PATH")
    for block in blocks(DOCUMENT, "yaml"):
        (terminal.folder / f"{yaml.safe_load(block.text)['name']}.yaml").write_text(block.text)
    sections = DOCUMENT.split("\n## ")
    with ThreadPoolExecutor(
        3
    ) as together:  # sections do not depend on each other; starting a command is what takes time
        ran = [done for several in together.map(partial(_typed, terminal), sections) for done in several]
    wrong = [done for done in ran if done.code != expected(done.command)]
    assert not wrong, wrong
    refused = [done for done in ran if done.code == 1]
    assert len(refused) == 3
    for done in refused:
        assert next(code for name, code in REFUSALS.items() if f"--profile {name} " in done.command) in done.output


def _typed(terminal: Terminal, section: str) -> list[Done]:
    return [terminal.run(command) for block in blocks(section, "console") for command in commands(block.text)]


def test_a_block_of_commands() -> None:
    block = Block("console", "$ one \\\n      two\n$ three   # it ends with exit code 3", 1)
    assert commands(block.text) == ["one \\\n      two", "three   # it ends with exit code 3"]
    assert [expected(command) for command in commands(block.text)] == [0, 3]
    with pytest.raises(ValueError, match="is no command"):
        commands("one")
