"""The table of sensitivities, kept on disk: of each weight of a model, to each storage, measured alone.

Each measurement runs the model, so a table is a file too, a line of JSON for each, written when it is made. A run that
was interrupted goes on from there; a table of another key is begun afresh.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pocketdiffusion.quantize.scheme import Scheme
from pocketdiffusion.quantize.written import write_whole
from pocketdiffusion.runtime.errors import UserError

SENSITIVITY_VERSION = 1
"""The version of how sensitivities are measured, a part of every table's key.

Raise it with each change of code after which the same model, prompts and libraries give other numbers: what is stored
of a weight (quantized_tensor, kmeans, qparams), how inputs are rounded (fake_quantize), which calls are measured and
how their errors are averaged (sensitivity), how prompts are drawn and recorded (export/reference). Reading of model
files, speed, names and messages do not count.
"""
Key = tuple[str, str, Scheme]  # component, weight, how it is stored
_NAME = "sensitivity"  # of the table, in its first line


def table_key(facts: Mapping[str, Any]) -> str:
    """Return the digest (hex) over `facts`, all that the numbers depend on besides this code, and over its version."""
    stated = {"version": SENSITIVITY_VERSION, "facts": facts}
    return hashlib.sha256(json.dumps(stated, sort_keys=True, default=str).encode()).hexdigest()


@dataclass(frozen=True)
class SensitivityTable:
    """What was measured so far. `file` None keeps it in memory alone."""

    file: Path | None = None
    found: dict[Key, float] = field(default_factory=dict)

    def add(self, key: Key, sensitivity: float) -> None:
        """Note one measurement, on disk before it returns."""
        component, weight, scheme = key
        self.found[key] = sensitivity
        if self.file is not None:
            line = {"component": component, "weight": weight, "scheme": asdict(scheme), "sensitivity": sensitivity}
            with self.file.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(line, sort_keys=True) + "\n")


def open_table(file: Path, key: str, progress: Callable[[str], None]) -> SensitivityTable:
    """Open the table in `file`, or begin it where it is not there or has another key; `progress` is told which.

    A last line that was not written to its end is dropped. Raises UserError where the file is no such table, or cannot
    be written.
    """
    lines = _complete_lines(file)
    header = {"key": key, "table": _NAME}
    if lines:
        try:
            begun, *entries = map(json.loads, lines)
            if begun["table"] != _NAME:
                raise ValueError
            if begun == header:
                found = {_key(entry): float(entry["sensitivity"]) for entry in entries}
                progress(f"{len(found)} sensitivities are in {file} from an earlier run")
                write_whole(file, "".join(lines))
                return SensitivityTable(file, found)
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{file} is no sensitivity table: move it away, search writes one there") from None
        progress(f"{file} is of another model, other prompts or another version: measuring afresh")
    write_whole(file, json.dumps(header, sort_keys=True) + "\n")
    return SensitivityTable(file)


def _complete_lines(file: Path) -> list[str]:
    if not file.exists():
        return []
    try:
        lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    except UnicodeDecodeError:
        return ["no text"]
    return lines[:-1] if lines and not lines[-1].endswith("\n") else lines


def _key(entry: dict[str, object]) -> Key:
    return str(entry["component"]), str(entry["weight"]), Scheme(**entry["scheme"])  # type: ignore[arg-type]
