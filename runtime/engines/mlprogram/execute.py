"""Run an ML program in numpy, on any computer.

Each operation is computed in float32. In the arithmetic "float16" every result that the program declares as float16 is
then rounded to float16, so that an overflow shows as it would on a phone; in "float32" nothing is rounded. A phone may
round more often, within an operation (the Neural Engine accumulates in float16), or less often.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Literal

import numpy as np

from pocketdiffusion.runtime.engines.mlprogram.constants import Blob, TensorType, read_blob
from pocketdiffusion.runtime.engines.mlprogram.operators import MOVES, OPERATORS
from pocketdiffusion.runtime.engines.mlprogram.program import Constant, Name, Operation, Program
from pocketdiffusion.runtime.engines.mlprogram.rounding import round_half
from pocketdiffusion.runtime.errors import ProofError
from pocketdiffusion.runtime.runner import Array

Arithmetic = Literal["float32", "float16"]
Observe = Callable[[Operation, str, Array], None]


def run(
    program: Program, feeds: Mapping[str, Array], arithmetic: Arithmetic, observe: Observe | None = None
) -> dict[str, Array]:
    """Return the program's outputs for its inputs `feeds`. Floats are returned as float32, rounded to `arithmetic`.

    `observe` is called with every operation and the name and value of each result. Values are freed after their last
    use. Raise ProofError, which names operator and result, if an operator is unknown or a result has another shape than
    the program declares.
    """
    values: dict[str, Array] = {}
    for name, kind in program.inputs.items():
        values[name] = _declared(feeds[name], kind, arithmetic, name)
    last = {name: number for number, operation in enumerate(program.operations) for name in operation.uses}
    with np.errstate(all="ignore"):  # infinities are results, which the caller checks
        for number, operation in enumerate(program.operations):
            rounding: Arithmetic = "float32" if operation.kind in MOVES else arithmetic
            for result, value in zip(operation.results, _compute(operation, values), strict=True):
                rounded = _declared(value, result.type, rounding, f"{operation.kind} {result.name}")
                values[result.name] = rounded
                if observe is not None:
                    observe(operation, result.name, rounded)
            for name in {*operation.uses, *(result.name for result in operation.results)} - {*program.outputs}:
                if last.get(name, number) == number:
                    del values[name]
    return {name: values[name] for name in program.outputs}


def decompress(program: Program) -> Program:
    """Return the program with its compressed weights replaced by constants of the declared types, so that several runs
    decompress them once. They stay in memory. Raise ProofError as `run` does."""
    weights: dict[str, Array] = {}
    kept = []
    for operation in program.operations:
        names = {key: v.name for key, (v, *_) in operation.arguments.items() if isinstance(v, Name)}
        arguments = {
            key: tuple(_constant(value, weights) for value in values) for key, values in operation.arguments.items()
        }
        compressed = {key: name for key, name in names.items() if name in weights}
        operation = replace(operation, arguments=arguments, constants={**operation.constants, **compressed})
        if not operation.kind.startswith("constexpr_") or {*program.outputs} & {r.name for r in operation.results}:
            kept.append(operation)
            continue
        for result, value in zip(operation.results, _compute(operation, {}), strict=True):
            rounded = _declared(value, result.type, "float16", f"{operation.kind} {result.name}")
            weights[result.name] = rounded.astype(result.type.stored, copy=False)
    return replace(program, operations=tuple(kept))


def _constant(argument: Name | Constant, weights: Mapping[str, Array]) -> Name | Constant:
    return weights.get(argument.name, argument) if isinstance(argument, Name) else argument


def _compute(operation: Operation, values: Mapping[str, Array]) -> tuple[Array, ...]:
    if operation.kind not in OPERATORS:
        raise ProofError(f"the ML program's operator {operation.kind} ({operation.results[0].name}) is unknown here")
    arguments = {}
    for key, given in operation.arguments.items():
        found = [_value(argument, values) for argument in given]
        arguments[key] = found if key == "values" else found[0]  # only `values` can be several: concat, stack
    try:
        results = OPERATORS[operation.kind](**arguments)
    except (TypeError, ValueError, IndexError) as error:
        raise ProofError(f"{operation.kind} ({operation.results[0].name}) cannot be run: {error}") from error
    return results if isinstance(results, tuple) else (results,)


def _value(argument: Name | Blob | Array | str, values: Mapping[str, Array]) -> Array | str:
    if isinstance(argument, Name):
        return values[argument.name]
    if isinstance(argument, Blob):
        argument = read_blob(argument)
    if isinstance(argument, np.ndarray) and argument.dtype == np.float16:
        return argument.astype(np.float32)
    return argument


def _declared(value: Array, kind: TensorType, arithmetic: Arithmetic, what: str) -> Array:
    """Convert `value` to the type that the program declares, floats to float32. Raise ProofError for another shape."""
    if value.shape != kind.shape:
        raise ProofError(f"{what} has the shape {list(value.shape)}, and the program declares {list(kind.shape)}")
    if kind.dtype not in ("FLOAT16", "FLOAT32"):
        return value.astype(kind.stored, copy=False)
    value = value.astype(np.float32, copy=False)
    return round_half(value) if arithmetic == "float16" and kind.dtype == "FLOAT16" else value
