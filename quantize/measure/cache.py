"""The table of damages: what each weight of a model costs, stored in each way, and alone.

Each measurement takes a model's run, so a table is a file too, a line of JSON for each, written when it is made. A run
that was interrupted goes on from there; a table of another model, of other prompts or of other code is begun afresh.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pocketdiffusion.quantize.scheme import Scheme
from pocketdiffusion.quantize.written import write_whole
from pocketdiffusion.runtime.errors import UserError

Key = tuple[str, str, Scheme]  # component, weight, how it is stored


@dataclass(frozen=True)
class Damages:
    """`file` None keeps what was measured in memory alone."""

    file: Path | None = None
    found: dict[Key, float] = field(default_factory=dict)

    def add(self, key: Key, damage: float) -> None:
        """Notes one measurement, on disk before it returns."""
        component, weight, scheme = key
        self.found[key] = damage
        if self.file is not None:
            line = {"component": component, "weight": weight, "scheme": asdict(scheme), "damage": damage}
            with self.file.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(line, sort_keys=True) + "\n")


def open_damages(file: Path, fingerprint: str, say: Callable[[str], None]) -> Damages:
    """The table in `file`, of what `fingerprint` stands for; `say` is told what becomes of one that is there already.

    A last line that was not written to its end is dropped. Raises UserError where the file is no such table, or cannot
    be written.
    """
    lines = _whole_lines(file)
    header = {"fingerprint": fingerprint, "table": "damages"}
    if lines:
        try:
            begun, *entries = map(json.loads, lines)
            if begun["table"] != "damages":
                raise ValueError
            if begun == header:
                found = {_key(entry): float(entry["damage"]) for entry in entries}
                say(f"{len(found)} damages are in {file} from an earlier run")
                write_whole(file, "".join(lines))
                return Damages(file, found)
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{file} is no table of damages: move it away, search writes one there") from None
        say(f"{file} is of another model, other prompts or other code: measuring afresh")
    write_whole(file, json.dumps(header, sort_keys=True) + "\n")
    return Damages(file)


def _whole_lines(file: Path) -> list[str]:
    if not file.exists():
        return []
    try:
        lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
    except UnicodeDecodeError:
        return ["no text"]
    return lines[:-1] if lines and not lines[-1].endswith("\n") else lines


def _key(entry: dict[str, object]) -> Key:
    return str(entry["component"]), str(entry["weight"]), Scheme(**entry["scheme"])  # type: ignore[arg-type]
