"""Core ML: the converter names each constant after its torch parameter, in letters, digits and underscores."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pocketdiffusion.export.backends.intermediate_outputs import Layer
from pocketdiffusion.runtime.engines.mlprogram.execute import run
from pocketdiffusion.runtime.engines.mlprogram.program import Name, Operation, Program, read_program
from pocketdiffusion.runtime.errors import ProofError
from pocketdiffusion.runtime.graph_spec import GraphSpec
from pocketdiffusion.runtime.runner import Array, check_inputs

WEIGHT_OPERATORS = ("conv", "linear", "matmul", "gather")
_WHERE = ("weight", "x", "y")  # the arguments that can be a weight


def layers(path: Path, weights: Iterable[str]) -> list[Layer]:
    """Return, for the .mlpackage `path`, a layer for each operator in WEIGHT_OPERATORS that reads one of `weights`.

    If the converter merged equal weights into one constant, all operators that read it count as one module's.
    """
    names = constants(weights)
    found = []
    for operation in read_program(path).operations:
        taken = weight_of(operation, names)
        if taken is not None and operation.kind in WEIGHT_OPERATORS:
            found.append(Layer(taken.rpartition(".")[0], operation.results[0].name))
    return found


@dataclass(frozen=True)
class CoremlLayerOutputs:
    """A runner by our executor, on a Mac too, in the precision that the program declares."""

    spec: GraphSpec
    program: Program
    wanted: frozenset[str]
    results: dict[str, Array] = field(default_factory=dict)

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        check_inputs(self.spec, inputs)

        def observe(operation: Operation, name: str, value: Array) -> None:
            if name in self.wanted:
                self.results[name] = value

        outputs = run(self.program, inputs, "float16", observe)
        return {t.name: outputs[t.name].astype(t.dtype, copy=False) for t in self.spec.outputs}


def open_with_outputs(path: Path, spec: GraphSpec, results: tuple[str, ...]) -> CoremlLayerOutputs:
    """Return a runner of the .mlpackage `path` that keeps the intermediate outputs named in `results`."""
    return CoremlLayerOutputs(spec, read_program(path), frozenset(results))


def weight_of(operation: Operation, names: Mapping[str, str]) -> str | None:
    """Return the weight that an operator reads, None if it reads none. `names` is as `constants` returns it."""
    for key in _WHERE:
        (value, *_) = operation.arguments.get(key, (None,))
        name = value.name if isinstance(value, Name) else operation.constants.get(key, "")
        if name in names:
            return names[name]
    return None


def constants(weights: Iterable[str]) -> dict[str, str]:
    """Return {name of a constant: name of its weight}, for constants in float32 and in float16. Raise ProofError if two
    weights have the same name of a constant."""
    names: dict[str, str] = {}
    for weight in weights:
        name = constant(weight)
        if name in names:
            raise ProofError(f"{weight} and {names[name]} have the same name in a Core ML package: {name}")
        names |= {name: weight, f"{name}_to_fp16": weight}
    return names


def constant(weight: str) -> str:
    """Return the converter's name of a weight in float32. `InFileShapes` holds the component's module as `module`."""
    return identifier(f"module.{weight}")


def identifier(name: str) -> str:
    """Return `name` as coremltools spells it in a program."""
    spelled = re.sub(r"[^A-Za-z0-9_]", "_", name)
    return f"var_{spelled}" if spelled[0].isdigit() else spelled
