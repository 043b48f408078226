"""The house stays readable: short functions and files, few parameters at the gate, no packages that need each other."""

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROOMS = ("pocketdiffusion", "export", "quantize", "runtime")
LONGEST_FUNCTION, LONGEST_FILE, MOST_PARAMETERS = 60, 400, 5  # lines, lines, parameters of a function of the gate

GATE = ("runtime/verify/", "export/checks/")  # what judges
RECORDERS = ("runtime/verify/recorded.py", "runtime/verify/recording.py")  # what only records


def sources() -> Iterator[Path]:
    """Every module of the product, once: the links in pocketdiffusion/ stand for the rooms."""
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            if room != "pocketdiffusion" or path.relative_to(ROOT / room).parts[0] not in ROOMS:
                yield path


def functions() -> Iterator[tuple[str, ast.FunctionDef]]:
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                yield f"{path.relative_to(ROOT).as_posix()}:{node.name}", node


def length(function: ast.FunctionDef) -> int:
    """All of its lines, from `def` on."""
    return (function.end_lineno or 0) - function.lineno + 1


def parameters(function: ast.FunctionDef) -> int:
    given = function.args
    names = [each.arg for each in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    return len(names) - (names[:1] in (["self"], ["cls"]))


def package(path: str) -> str:
    """The part of the house that a file belongs to: a folder of a room, or the file that lies in the room itself."""
    return "/".join(path.split("/")[:2])


def imported(module: str) -> str | None:
    """The part of the house that `pocketdiffusion.X.Y` belongs to; None for a room or what is no module."""
    names = module.split(".")[1:]
    parts = names[:2] if names[:1] and names[0] in ROOMS[1:] else ["pocketdiffusion", *names[:1]]
    path = ROOT.joinpath(*parts)
    if len(parts) == 2 and path.is_dir():
        return "/".join(parts)
    return "/".join(parts) + ".py" if len(parts) == 2 and path.with_suffix(".py").is_file() else None


def needs() -> dict[str, set[str]]:
    """The parts of the house that each part imports, wherever in a file."""
    found: dict[str, set[str]] = {}
    for path in sources():
        own = package(path.relative_to(ROOT).as_posix())
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pocketdiffusion"):
                others = {imported(f"{node.module}.{alias.name}") for alias in node.names}
                found.setdefault(own, set()).update(other for other in others if other not in (None, own))
    return found


def circles(arrows: Mapping[str, set[str]]) -> list[set[str]]:
    """The sets of parts in which each needs each of the others."""

    def reached(start: str) -> set[str]:
        seen, pending = set[str](), [start]
        while pending:
            more = arrows.get(pending.pop(), set()) - seen
            seen |= more
            pending += more
        return seen

    reach = {name: reached(name) for name in arrows}
    sets = {frozenset(n for n in found if name in reach.get(n, ())) for name, found in reach.items() if name in found}
    return [set(each) for each in sets]


def test_no_function_is_longer_than_a_screen() -> None:
    found = {name: length(node) for name, node in functions()}
    assert {name: lines for name, lines in found.items() if lines > LONGEST_FUNCTION} == {}
    assert len(found) > 1000


def test_no_file_is_too_long() -> None:
    files = {path.relative_to(ROOT).as_posix(): path for path in (*sources(), *(ROOT / "tests").rglob("*.py"))}
    found = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in files.items()}
    assert {name: lines for name, lines in found.items() if lines > LONGEST_FILE} == {}
    assert "runtime/verify/gate.py" in found and "tests/test_house.py" in found


def test_functions_of_the_gate_take_few_parameters() -> None:
    judges = {
        name: parameters(node) for name, node in functions() if name.startswith(GATE) and not name.startswith(RECORDERS)
    }
    assert {name: count for name, count in judges.items() if count > MOST_PARAMETERS} == {}
    assert judges["runtime/verify/gate.py:judge_graph"] == 3


def test_no_part_of_the_house_needs_one_that_needs_it() -> None:
    arrows = needs()
    assert "runtime/bundle" in arrows["runtime/verify"]
    assert circles(arrows) == []
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [{"a", "b", "c"}]
