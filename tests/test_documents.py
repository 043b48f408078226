"""The documents beside the repository: links, paths, commands and options in them exist, and the map is complete."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from pocketdiffusion.cli.app import app

ROOT = Path(__file__).parents[1]
TRACKED = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
DOCUMENTS = sorted({path for path in TRACKED if path.endswith(".md") and (ROOT / path).exists()})
GUIDES = [path for path in DOCUMENTS if re.fullmatch(r"README\.md|(android|ios)_demo/README\.md|docs/\w+\.md", path)]
DECISIONS = [path for path in DOCUMENTS if path.startswith("docs/decisions/")]
ROOMS = ("pocketdiffusion", "export", "quantize", "runtime")
PROGRAM: Any = typer.main.get_command(app)
# They name fields of the format, name the words themselves, or have not been revised.
OLD_WORDS = {"docs/BUNDLE.md", "docs/GLOSSARY.md", "android_demo/README.md", "ios_demo/README.md"}
REPLACED = re.compile(
    r"\b(?:damag\w*|mend(?:s|ed|ing)?|surveys?|spans?|(?<!teacher-)forced|as far as)\b", re.IGNORECASE
)
SECTIONS = ["Context", "Decision", "Why", "Consequences"]


def read(path: str) -> str:
    return (ROOT / path).read_text(encoding="utf-8")


def slugs(text: str) -> set[str]:
    """Return the anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


def broken_links(path: str, text: str) -> Iterator[str]:
    """Yield each relative link of a document whose file or heading does not exist."""
    for link in re.findall(r"\]\(([^)\s]+)\)|src=\"([^\"]+)\"", text):
        target = link[0] or link[1]
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = (ROOT / path).parent / name if name else ROOT / path
        if not file.exists():
            yield f"{target}: no such file"
        elif anchor and anchor not in slugs(text if not name else file.read_text(encoding="utf-8")):
            yield f"{target}: no such heading"


def missing_paths(text: str, folder: Path = ROOT) -> Iterator[str]:
    """Yield each path in backticks that begins with a tracked folder and exists neither there nor below `folder`.

    A part in capitals, such as NAME, matches any name, and so does a star.
    """
    tops = {path.split("/")[0] for path in TRACKED if "/" in path}
    for path in re.findall(r"`([\w.*/-]+)`", text):
        top, slash, rest = path.partition("/")
        pattern = re.sub(r"\b[A-Z]{3,}\b(?!\.md)", "*", rest).rstrip("/")
        if slash and top in tops and pattern and not any(any((base / top).glob(pattern)) for base in (ROOT, folder)):
            yield path


def rooms_of_the_map(text: str) -> list[str]:
    """Return the first column of the table below the heading Map."""
    table = text.split("\n## Map\n")[1].split("\n## ")[0]
    return re.findall(r"^\| `([\w/]+)/` \|", table, re.MULTILINE)


def rooms_in_the_repository() -> set[str]:
    """Return the tracked folders at the top level, and those directly below the rooms of the product."""
    folders = {path.split("/")[0] for path in TRACKED if "/" in path}
    below = {"/".join(path.split("/")[:2]) for path in TRACKED if path.split("/")[0] in ROOMS and path.count("/") > 1}
    return {folder for folder in folders if not folder.startswith(".")} | below


def options(command: Any) -> set[str]:
    """Return the options of a command of click, in all their spellings."""
    return {"--help"}.union(*(each.opts + each.secondary_opts for each in command.params))


def commands(command: Any) -> Iterator[Any]:
    """Yield a command of click and all commands below it."""
    yield command
    for each in getattr(command, "commands", {}).values():
        yield from commands(each)


def unknown_words(line: str) -> Iterator[str]:
    """Yield the command, or each option, of a command line that the program does not have."""
    command: Any = PROGRAM
    words = line.split()[1:]
    while words and hasattr(command, "commands") and not words[0].startswith("-"):
        name = words.pop(0)
        if name not in command.commands:
            if not name.isupper():  # COMMAND is any
                yield f"{name}: no such command"
            return
        command = command.commands[name]
    for word in words:
        option = re.match(r"-{1,2}[a-z][\w-]*", word)
        if option and option[0] not in options(command):
            yield f"{command.name} {option[0]}: no such option"


def command_lines(text: str) -> list[str]:
    """Return the command lines of indented blocks and of backticks, each up to the explanation beside it."""
    lines = re.findall(r"^ {4,}(?:\S*/)?(pocketdiffusion .+)$", text, re.MULTILINE)
    lines += re.findall(r"`(pocketdiffusion [^`]+)`", text)
    return [re.split(r"\s{3,}|\s#|;", line.replace("'", "").replace('"', ""))[0] for line in lines]


@pytest.mark.parametrize("path", DOCUMENTS)
def test_links_resolve(path: str) -> None:
    assert list(broken_links(path, read(path))) == []


@pytest.mark.parametrize("path", ["ARCHITECTURE.md", *GUIDES, *DECISIONS])
def test_paths_in_backticks_exist(path: str) -> None:
    assert list(missing_paths(read(path), (ROOT / path).parent)) == []


@pytest.mark.parametrize("path", GUIDES)
def test_command_lines_are_those_of_the_program(path: str) -> None:
    assert [word for line in command_lines(read(path)) for word in unknown_words(line)] == []


@pytest.mark.parametrize("path", [path for path in GUIDES if not path.startswith(("android", "ios"))])
def test_options_are_those_of_the_program(path: str) -> None:
    named = set(
        re.findall(r"`(?:[\w ]+ )?(--[a-z][\w-]*)[^`]*`", re.sub(r"`(?:pip|make|adb|npm) [^`]+`", "", read(path)))
    )
    assert named - set().union(*map(options, commands(PROGRAM))) == set()


@pytest.mark.parametrize("path", GUIDES)
def test_targets_of_make_exist(path: str) -> None:
    rules = set(re.findall(r"^([\w-]+):", read("Makefile"), re.MULTILINE))
    named = set(re.findall(r"(?:^ {4}|`)make ([a-z-]+)(?=[`\s])", read(path), re.MULTILINE))
    assert named - rules == set()


@pytest.mark.parametrize("path", ["ARCHITECTURE.md", *(path for path in GUIDES if path not in OLD_WORDS), *DECISIONS])
def test_words_that_the_glossary_replaces_are_not_used(path: str) -> None:
    assert REPLACED.findall(re.sub(r"`[^`]*`", "", read(path))) == []


def test_the_readme_shows_commands() -> None:
    """The test of command lines would hold of a document without any."""
    assert {line.split()[1] for line in command_lines(read("README.md"))} >= {"export", "verify", "compare", "deploy"}


def test_the_map_has_every_room() -> None:
    rooms = rooms_of_the_map(read("ARCHITECTURE.md"))
    assert len(rooms) == len(set(rooms))
    assert set(rooms) == rooms_in_the_repository()


def test_every_invariant_names_its_tests() -> None:
    part = read("ARCHITECTURE.md").split("\n## Invariants\n")[1].split("\n## ")[0]
    invariants = re.split(r"^\d+\. ", part, flags=re.MULTILINE)[1:]
    assert invariants and [each for each in invariants if "`tests/test_" not in each] == []


def test_decisions_are_numbered_and_linked() -> None:
    numbers = [int(path.removeprefix("docs/decisions/")[:3]) for path in DECISIONS]
    assert numbers == list(range(1, len(numbers) + 1))
    links = re.findall(r"\((docs/decisions/[^)]+)\) ", read("ARCHITECTURE.md"))  # in groups, each by its subject
    assert sorted(links) == DECISIONS


@pytest.mark.parametrize("path", DECISIONS)
def test_a_decision_has_its_four_sections_and_the_title_of_its_link(path: str) -> None:
    text = read(path)
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == SECTIONS
    assert all(part.strip() for part in re.split(r"^## .+$", text, flags=re.MULTILINE))
    number, title = text.splitlines()[0].removeprefix("# ").split(". ", 1)
    assert f"- [{number}]({path}) {title}\n" in read("ARCHITECTURE.md")


def test_what_is_wrong_is_found() -> None:
    """Each check on a text that it must refuse."""
    text = '[a](docs/NONE.md) [b](README.md#nothing) [c](#here) <img src="none.png">\n# Where\n'
    assert [each.split(":")[0] for each in broken_links("X.md", text)] == [
        *("docs/NONE.md", "README.md#nothing", "#here", "none.png"),
    ]
    assert list(
        missing_paths("`export/none.py` `export/targets/NAME.toml` `runtime/*/gate.py` `tests/test_none.py`")
    ) == [
        *("export/none.py", "tests/test_none.py"),
    ]
    assert list(unknown_words("pocketdiffusion draw DIR")) == ["draw: no such command"]
    assert list(unknown_words("pocketdiffusion export --target x --fast -o DIR")) == ["export --fast: no such option"]
    lines = command_lines("    pocketdiffusion verify DIR --x      tells\n\n`pocketdiffusion targets`")
    assert lines == ["pocketdiffusion verify DIR --x", "pocketdiffusion targets"]
    assert REPLACED.findall("A damage of codes, mended; teacher-forced, forced.") == ["damage", "mended", "forced"]
    assert rooms_of_the_map("\n## Map\n| `a/b/` | holds |\n## Next\n| `c/` | no |") == ["a/b"]
