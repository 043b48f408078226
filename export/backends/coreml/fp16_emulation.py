"""Core ML: run an ML program in our own executor, in float16 if requested, and report the output of each operation."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pocketdiffusion.quantize.float16_range import Note
from pocketdiffusion.runtime.engines.mlprogram.execute import Arithmetic, decompress, run
from pocketdiffusion.runtime.engines.mlprogram.program import Operation, Program, read_program
from pocketdiffusion.runtime.graph_spec import GraphSpec
from pocketdiffusion.runtime.runner import Array, check_inputs


@dataclass(frozen=True)
class CoremlReplay:
    """A runner that notes the largest magnitude of each float16 output. Values that the program declares as float32
    stay float32 in either arithmetic, and are not noted."""

    spec: GraphSpec
    program: Program
    arithmetic: Arithmetic
    note: Note

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        check_inputs(self.spec, inputs)

        def observe(operation: Operation, name: str, value: Array) -> None:
            declared = {result.name: result.type.dtype for result in operation.results}
            if declared[name] == "FLOAT16":
                self.note(operation.kind, name, float(np.abs(value).max(initial=0)))

        outputs = run(self.program, inputs, self.arithmetic, observe)
        return {t.name: outputs[t.name].astype(t.dtype, copy=False) for t in self.spec.outputs}


def open_replay(path: Path, spec: GraphSpec, arithmetic: Arithmetic, note: Note) -> CoremlReplay:
    """Return a runner of the .mlpackage `path` by our own executor, on a Mac too."""
    return CoremlReplay(spec, decompress(read_program(path)), arithmetic, note)
