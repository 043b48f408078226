"""Help texts: each option has one, as full sentences; what they refer to exists."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
import typer.main

from pocketdiffusion.cli.app import app


def commands(group: Any = None, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every command that runs something, by its name."""
    group = typer.main.get_command(app) if group is None else group
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{path}{name} ")
        else:
            yield f"{path}{name}", command


COMMANDS = dict(commands())


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_has_a_help_of_full_sentences(name: str) -> None:
    command = COMMANDS[name]
    texts = {parameter.name: parameter.help for parameter in command.params if parameter.name != "help"}
    texts["the command itself"] = command.help
    for parameter, text in texts.items():
        assert text, f"{name}: {parameter} has no help"
        assert text[0].isupper() and text.rstrip().endswith("."), f"{name}: {parameter} is no sentence: {text}"


@pytest.mark.parametrize("name", COMMANDS)
def test_the_first_sentence_fits_the_list_of_commands(name: str) -> None:
    assert not COMMANDS[name].get_short_help_str(62).endswith("...")


def test_commands_that_help_texts_name_exist() -> None:
    texts = [command.help or "" for command in COMMANDS.values()]
    texts += [parameter.help or "" for command in COMMANDS.values() for parameter in command.params]
    named = {name for text in texts for name in re.findall(r"`pocketdiffusion ((?:devices )?[a-z-]+)", text)}
    assert {"list", "devices list", "devices install"} <= named <= COMMANDS.keys()


@pytest.mark.parametrize("old", ["setup", "doctor"])
def test_old_spellings_are_gone(old: str) -> None:
    assert old not in COMMANDS
