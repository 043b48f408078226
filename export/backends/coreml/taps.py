"""Core ML: the converter names each constant after the parameter that it was, in letters, digits and underscores."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pocketdiffusion.export.backends.taps import Layer
from pocketdiffusion.runtime.engines.mlprogram.execute import run
from pocketdiffusion.runtime.engines.mlprogram.program import Name, Operation, Program, read_program
from pocketdiffusion.runtime.errors import ProofError
from pocketdiffusion.runtime.graph_spec import GraphSpec
from pocketdiffusion.runtime.runner import Array, check_inputs

TAKE = ("conv", "linear", "matmul", "gather")
_WHERE = ("weight", "x", "y")  # the arguments that may be a weight


def layers(path: Path, weights: Iterable[str]) -> list[Layer]:
    """Of an .mlpackage: a layer for each operator in TAKE that has one of `weights`, plain or compressed.

    Where the converter merged equal weights into one constant, all that take it count as one module's.
    """
    names = constants(weights)
    found = []
    for operation in read_program(path).operations:
        taken = weight_of(operation, names)
        if taken is not None and operation.kind in TAKE:
            found.append(Layer(taken.rpartition(".")[0], operation.results[0].name))
    return found


@dataclass(frozen=True)
class CoremlTapped:
    """Our executor, in the precision that the program declares, on a Mac too."""

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


def open_tapped(path: Path, spec: GraphSpec, results: tuple[str, ...]) -> CoremlTapped:
    """Of an .mlpackage."""
    return CoremlTapped(spec, read_program(path), frozenset(results))


def weight_of(operation: Operation, names: Mapping[str, str]) -> str | None:
    """Which weight an operator takes, by the names of constants as `constants` has them."""
    for key in _WHERE:
        (value, *_) = operation.arguments.get(key, (None,))
        name = value.name if isinstance(value, Name) else operation.constants.get(key, "")
        if name in names:
            return names[name]
    return None


def constants(weights: Iterable[str]) -> dict[str, str]:
    """Names of constants, with the weights that they are, in float32 or float16. Raises ProofError where two weights
    would have the same."""
    names: dict[str, str] = {}
    for weight in weights:
        name = constant(weight)
        if name in names:
            raise ProofError(f"{weight} and {names[name]} have the same name in a Core ML package: {name}")
        names |= {name: weight, f"{name}_to_fp16": weight}
    return names


def constant(weight: str) -> str:
    """The converter's name of a weight in float32. Ours wraps each component's module in one that calls it `module`."""
    return identifier(f"module.{weight}")


def identifier(name: str) -> str:
    """As coremltools spells a name in a program."""
    spelled = re.sub(r"[^A-Za-z0-9_]", "_", name)
    return f"var_{spelled}" if spelled[0].isdigit() else spelled
