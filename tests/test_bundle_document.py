"""docs/BUNDLE.md beside the code: every closed list, every column of a table and every field of the JSON files is in
the document, and the document's lists hold nothing that the code does not know."""

import json
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import get_args

import pytest

from pocketdiffusion.runtime.bundle.file_table import Role
from pocketdiffusion.runtime.bundle.graph_needs import Unit
from pocketdiffusion.runtime.bundle.graph_records import PipelineGraph
from pocketdiffusion.runtime.bundle.layout import Index, Pipeline
from pocketdiffusion.runtime.bundle.leftovers import FILES
from pocketdiffusion.runtime.bundle.manifest import MINOR, VERSION
from pocketdiffusion.runtime.bundle.schemas import schema_path
from pocketdiffusion.runtime.bundle.tokenizer_records import Tokenizer
from pocketdiffusion.runtime.characters import CHARACTERS
from pocketdiffusion.runtime.graph_spec import DTYPES
from pocketdiffusion.runtime.program import ABSENT_NEGATIVE, DRAWS, GUIDANCE, HOST_VALUES, RESULTS, STAGES
from pocketdiffusion.runtime.sampling.stored_tables import COLUMNS
from pocketdiffusion.runtime.verify.conformance import _KINDS as RUN_KINDS
from pocketdiffusion.runtime.verify.tolerances import FLOORS_DB, PICTURE_FLOORS_DB
from pocketdiffusion.runtime.verify.vectors import KINDS, ArrayAt, Case, Vector, Vectors

DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "BUNDLE.md"


def names(text: str) -> list[str]:
    """What stands in backticks."""
    return re.findall(r"`([^`\n]+)`", text)


def part(text: str, heading: str) -> str:
    """From a heading, or the words in bold that a passage begins with, to the next heading."""
    begun = text.index(heading)
    end = re.compile(r"^#", re.MULTILINE).search(text, begun + len(heading))
    return text[begun : end.start() if end else len(text)]


def rows(text: str) -> Iterator[list[str]]:
    """The cells of each row of the first table in a passage, its head left out."""
    lines = text[text.index("|---") :].split("\n")[1:]
    for line in lines:
        if not line.startswith("|"):
            return
        yield [cell.strip() for cell in line.strip("|").split("|")]


def bullets(text: str) -> list[str]:
    """The lines of the first list in a passage."""
    return next(lines.splitlines() for lines in re.findall(r"(?:^- .*\n?)+", text, re.MULTILINE))


def compare(what: str, said: Collection[str], known: Collection[str]) -> list[str]:
    found = [f"{what}: {name} is not in the document" for name in known if name not in said]
    return [*found, *(f"{what}: {name} is in the document alone" for name in said if name not in known)]


def differences(text: str) -> list[str]:
    """Where document and code say different things, in words."""
    return [
        *stages_and_results(text),
        *host_values(text),
        *lists_of_the_program(text),
        *lists_of_the_files(text),
        *vectors(text),
        *floors(text),
        *fields(text),
    ]


def stages_and_results(text: str) -> list[str]:
    table = {names(stage)[0]: names(result) for stage, _, result in rows(part(text, "### Stages and calls"))}
    found = compare("stage", table, STAGES)
    for stage in STAGES:
        found += compare(f"result of {stage}", table.get(stage, ()), RESULTS.get(stage, ()))
    results = {name for each in RESULTS.values() for name in each}
    return found + compare("result", [n for n in names(part(text, "### Results")) if n != "preview"], results)


def host_values(text: str) -> list[str]:
    table = {names(cells[0])[0]: cells[1:] for cells in rows(part(text, "### Host values"))}
    known = {f"{name}/N" if value.numbered else name: value for name, value in HOST_VALUES.items()}
    found = compare("host value", table, known)
    for name in table.keys() & known.keys():
        kind, stages, _ = table[name]
        dtype, axes = kind.split(" ", 1)
        found += compare(f"dtype of {name}", [dtype], [known[name].dtype])
        found += compare(f"axes of {name}", [str(axes.count(",") + 1)], [str(known[name].rank)])
        found += compare(f"stages of {name}", names(stages), known[name].stages)
    return found


def lists_of_the_program(text: str) -> list[str]:
    guidance = part(text, "### Guidance")
    absent = guidance[guidance.index("If the user gives no negative prompt") :].split("\n")[0]
    draws = part(text, "### Order of draws")
    return [
        *compare("guidance kind", [names(line)[0] for line in bullets(guidance)], GUIDANCE),
        *compare(
            "absent_negative", [n for n in names(absent) if n not in ("absent_negative", *STAGES)], ABSENT_NEGATIVE
        ),
        *compare("draw", [n for n in names(draws) if n not in ("c", "program.draws")], DRAWS),
    ]


def lists_of_the_files(text: str) -> list[str]:
    graphs, tokenizer, tables = (part(text, heading) for heading in ("## 5. ", "## 6. ", "## 7. "))
    dtypes = re.search(r"dtypes ((?:`\w+`(?:, )?)+)", graphs)
    columns = re.search(r"The columns are (.*)\.", tables)
    kinds = re.search(r"\(kind (.*)\)", tokenizer)
    assert dtypes and columns and kinds
    series = names(columns[1].replace("`b0` .. `b4`", " ".join(f"`b{n}`" for n in range(5))))
    characters = [name for line in bullets(part(text, "**Character tables**")) for name in keys_of(line)]
    unit = Unit.model_fields
    units = next(line for line in bullets(graphs) if line.startswith("- `units`"))
    storage = next(line for line in bullets(graphs) if line.startswith("- `storage`"))
    arithmetic = names(storage[storage.index("`arithmetic`") : storage.index("`compute_unit`")])[1:]
    return [
        *compare("role", [names(line)[0] for line in bullets(part(text, "**Roles.**"))], get_args(Role)),
        *compare("dtype", names(dtypes[1]), DTYPES),
        *compare("column", series, COLUMNS),
        *compare("arithmetic", arithmetic, get_args(PipelineGraph.model_fields["arithmetic"].annotation)),
        *compare("tokenizer kind", names(kinds[1]), get_args(Tokenizer.model_fields["kind"].annotation)),
        *compare("key of characters.json", characters, json.loads(CHARACTERS.read_bytes())),
        *(f"units: {name}" for field in unit for name in get_args(unit[field].annotation) if f"`{name}`" not in units),
        *compare("version", [re.search(r"describes version (\d+)", text)[1]], [str(VERSION)]),  # type: ignore[index]
    ]


def keys_of(line: str) -> list[str]:
    """Names that are followed by a colon, or a list of such."""
    return [name for group in re.findall(r"((?:`\w+`(?:, )?)+):", line) for name in names(group)]


def vectors(text: str) -> list[str]:
    passage = part(text, "## 12. ")
    records = {name for record in (Vectors, Vector, Case, ArrayAt) for name in record.model_fields}
    dtypes = get_args(ArrayAt.model_fields["dtype"].annotation)
    return [
        *compare("vector kind", [names(kind)[0] for kind, *_ in rows(passage)], KINDS),
        *compare("vector kind that is run", RUN_KINDS, KINDS),
        *(f"vectors: {name}" for name in (*records, *dtypes) if f"`{name}`" not in passage),
    ]


def floors(text: str) -> list[str]:
    passage = part(text, "## 11. ")
    said = [
        f"{FLOORS_DB['float32', 'float32']:g} dB for float32 storage and arithmetic",
        f"{FLOORS_DB['float16', 'float32']:g} dB for float16 storage",
        f"{FLOORS_DB['float16', 'float16']:g} dB for float16 arithmetic",
        f"{PICTURE_FLOORS_DB['float32'][1]:g} dB in float32 and {PICTURE_FLOORS_DB['float16'][1]:g} dB with float16",
    ]
    return [f"floor: {each} is not in the document" for each in said if each not in passage]


def fields(text: str) -> list[str]:
    """Those of manifest.json and of a pipeline file at the top are a table and a list; all others are named."""
    table = [name for field, _ in rows(part(text, "**manifest.json**")) for name in names(field)]
    pipeline = [names(line)[0] for line in bullets(part(text, "## 3. "))]
    found = compare("field of manifest.json", table, Index.model_fields)
    found += compare("field of a pipeline file", pipeline, Pipeline.model_fields)
    words = {word for name in names(text) for word in re.findall(r"\w+", name)}
    for schema in ("manifest", "pipeline"):
        for record, content in json.loads(schema_path(schema).read_bytes())["$defs"].items():
            named = content.get("properties", {})
            found += [f"{record}.{name} is not in the document" for name in named if name not in words]
    return found


def test_the_document_says_what_the_code_does() -> None:
    assert differences(DOCUMENT.read_text(encoding="utf-8")) == []
    assert MINOR == 0, "a new minor version has fields that the document must have"
    assert all(name == name.lower() for name in FILES), "the document says that names are compared in lower case"


@pytest.mark.parametrize(
    ("there", "instead", "said"),
    [
        ("| `mask` |", "| `mark` |", "host value: mask is not in the document"),
        ("| `mask` |", "| `mark` |", "host value: mark is in the document alone"),
        ("| int32 [1, max_length] |", "| int64 [1, max_length] |", "dtype of tokens/N: int32 is not"),
        ("float32 [1, 6]", "float32 [6]", "axes of time_ids: 2 is not"),
        ("| `encode_image`, `denoise` |", "| `denoise` |", "stages of mask: encode_image is not"),
        ("| `preview` |", "| `glance` |", "stage: preview is not"),
        ("| `posterior` or `image_latents` |", "| `posterior` |", "result of encode_image: image_latents is not"),
        ("- `embedded`:", "- `embeded`:", "guidance kind: embedded is not"),
        ("`absent_negative` = `encode_empty`", "`absent_negative`", "absent_negative: encode_empty is not"),
        ("- `companion`:", "- `tool`:", "role: companion is not"),
        ("(kind `clip`)", "(kind `bpe`)", "tokenizer kind: clip is not"),
        ("`int64`, `uint8`)", "`uint8`)", "dtype: int64 is not"),
        ("`int16`, `int8`. `compute_unit`", "`int8`. `compute_unit`", "arithmetic: int16 is not"),
        ("`signal_scale`, `noise_scale`.", "`signal_scale`.", "column: noise_scale is not"),
        ("`lower_several`:", "several:", "key of characters.json: lower_several is not"),
        ("| `whole_run` |", "| `all_rows` |", "vector kind: whole_run is not"),
        ("| `passed_over` |", "| `ignored` |", "field of manifest.json: passed_over is not"),
        ("- `defaults`:", "- `usual`:", "field of a pipeline file: defaults is not"),
        ("`rstrip`, ", "", "AddedToken.rstrip is not"),
        ("105 dB", "95 dB", "floor: 105 dB"),
    ],
)
def test_what_is_taken_out_of_the_document_is_missed(there: str, instead: str, said: str) -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    changed = text.replace(there, instead, 1)
    if said.startswith("AddedToken"):
        changed = text.replace("`rstrip`", "rstrip")
    assert changed != text, "the document does not hold it"
    assert any(each.startswith(said) for each in differences(changed)), differences(changed)


def test_the_glossary_is_sorted_and_its_terms_are_used() -> None:
    root = DOCUMENT.parents[1]
    terms = re.findall(
        r"^- \*\*(.+?)\*\*: ", (DOCUMENT.parent / "GLOSSARY.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert terms and terms == sorted(set(terms), key=str.lower)
    rooms = ("runtime", "export", "quantize", "pocketdiffusion/cli")
    files = [root / "README.md", *(path for room in rooms for path in sorted((root / room).rglob("*.py")))]
    text = " ".join(" ".join(path.read_text(encoding="utf-8").split()) for path in files).lower()
    text = text.replace("_", " ").replace("-", " ")
    assert [term for term in terms if not re.search(rf"\b{term.lower().replace('-', ' ')}s?\b", text)] == []
