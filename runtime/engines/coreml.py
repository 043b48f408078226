"""Core ML packages. On a Mac Core ML runs them, by coremltools; elsewhere our own executor of ML programs does.

The executor computes in the precision that the file declares: a package in float16 is run in float16. It verifies the
file, but neither the phone's compiler nor the summation of its Neural Engine.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pocketdiffusion.runtime.engines.facts import EngineFacts
from pocketdiffusion.runtime.engines.mlprogram.execute import decompress, run
from pocketdiffusion.runtime.engines.mlprogram.program import Program, read_program
from pocketdiffusion.runtime.errors import ProofError, UserError
from pocketdiffusion.runtime.graph_spec import GraphSpec, TensorSpec
from pocketdiffusion.runtime.runner import Array, Runner, check_inputs

_ON_A_MAC = ("-", "Core ML is on Apple's systems only")
ENGINE = EngineFacts(name="coreml", half_arithmetic="float16", not_run={"arm64": _ON_A_MAC, "gpu": _ON_A_MAC})


@dataclass(frozen=True)
class ProgramRunner:
    """A runner by our executor. It raises ValueError if inputs do not match `spec`, ProofError if the program is
    wrong."""

    spec: GraphSpec
    program: Program

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        check_inputs(self.spec, inputs)
        outputs = run(self.program, inputs, "float16")
        return {t.name: outputs[t.name].astype(t.dtype, copy=False) for t in self.spec.outputs}


@dataclass(frozen=True)
class MacRunner:
    """A runner by Core ML itself, with the errors of `ProgramRunner`."""

    spec: GraphSpec
    model: Any

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        check_inputs(self.spec, inputs)
        try:
            outputs = self.model.predict(dict(inputs))
        except RuntimeError as error:
            raise ProofError(f"{self.spec.name}: Core ML cannot run this graph: {error}") from None
        return {t.name: np.asarray(outputs[t.name], t.dtype) for t in self.spec.outputs}


def open_runner(path: Path, spec: GraphSpec) -> Runner:
    """Open `path`, an .mlpackage.

    Raise UserError if coremltools is not installed, and ProofError if the package cannot be read or its inputs and
    outputs do not match `spec`.
    """
    program = read_program(path)
    for what, wanted, found in (
        ("inputs", spec.inputs, program.inputs),
        ("outputs", spec.outputs, program.output_types),
    ):
        actual = {_describe(TensorSpec(name, kind.shape, kind.stored.name)) for name, kind in found.items()}
        promised = [_describe(tensor) for tensor in wanted]
        if actual != set(promised):
            raise ProofError(f"{path}: {what} are {', '.join(sorted(actual))}, not {', '.join(promised)}")
    if sys.platform == "darwin":
        return MacRunner(spec, _open_on_mac(path))
    return ProgramRunner(spec, decompress(program))


def _open_on_mac(path: Path) -> Any:
    try:
        from coremltools.models import MLModel
    except ImportError:
        raise UserError("coremltools is not installed: pip install coremltools") from None
    try:
        return MLModel(str(path))
    except RuntimeError as error:
        raise ProofError(f"{path}: Core ML cannot load this package: {error}") from None


def _describe(tensor: TensorSpec) -> str:
    return f"{tensor.name} {tensor.dtype}{list(tensor.shape)}"
