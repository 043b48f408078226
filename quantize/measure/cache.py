"""The table of sensitivities on disk: one for each weight of a model and each scheme, where only this weight is
quantized.

Each measurement runs the model, so the table is also a file, with one line of JSON for each measurement, written at
once. An interrupted run continues from it; a table with another key is started from scratch.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pocketdiffusion.quantize.scheme import Scheme
from pocketdiffusion.quantize.written import write_complete
from pocketdiffusion.runtime.errors import UserError
from pocketdiffusion.runtime.progress import Progress

SENSITIVITY_VERSION = 1
"""The version of the measurement, a part of every table's key.

Increment it with each change of code that changes the numbers for the same model, prompts and libraries: how weights
are stored (quantized_tensor, kmeans, qparams), how inputs are rounded (fake_quantize), which calls are measured and how
their errors are averaged (sensitivity), how prompts are drawn and recorded (export/reference). Changes of how model
files are read, of speed, names and messages do not count.
"""
Key = tuple[str, str, Scheme]  # component, weight, scheme
_NAME = "sensitivity"  # the name of the table in its first line


def table_key(facts: Mapping[str, Any]) -> str:
    """Return the SHA-256 (hex) over SENSITIVITY_VERSION and `facts`, which are all inputs of the measurement except
    this code."""
    stated = {"version": SENSITIVITY_VERSION, "facts": facts}
    return hashlib.sha256(json.dumps(stated, sort_keys=True, default=str).encode()).hexdigest()


@dataclass(frozen=True)
class SensitivityTable:
    """The sensitivities measured so far. If `file` is None they are only in memory."""

    file: Path | None = None
    found: dict[Key, float] = field(default_factory=dict)

    def add(self, key: Key, sensitivity: float) -> None:
        """Add one measurement; it is on disk when this returns."""
        component, weight, scheme = key
        self.found[key] = sensitivity
        if self.file is not None:
            line = {"component": component, "weight": weight, "scheme": asdict(scheme), "sensitivity": sensitivity}
            with self.file.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(line, sort_keys=True) + "\n")


def open_table(file: Path, key: str, progress: Progress) -> SensitivityTable:
    """Open the table in `file`, or start a new one if there is none or its key differs; `progress` reports which.

    An incomplete last line is dropped. Raises UserError if the file is not a sensitivity table or cannot be written.
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
                write_complete(file, "".join(lines))
                return SensitivityTable(file, found)
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{file} is not a sensitivity table: move it away, search writes one there") from None
        progress(f"{file} is of another model, other prompts or another version: measuring from scratch")
    write_complete(file, json.dumps(header, sort_keys=True) + "\n")
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
