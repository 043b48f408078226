"""Run a stage of a program: each call once for both halves of guidance, once for each half, or in a batch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce

import numpy as np

from pocketdiffusion.runtime.graph_spec import GraphSpec
from pocketdiffusion.runtime.program import (
    Call,
    Concat,
    Input,
    Program,
    Stage,
    Sum,
    depends_on_half,
    input_of,
    names_of,
    values_of_a_half,
)
from pocketdiffusion.runtime.record import ArrayRef
from pocketdiffusion.runtime.runner import Array


def accepts_both_halves(program: Program, stage: Stage, specs: Mapping[str, GraphSpec]) -> bool:
    """Return True if one call can compute both halves: the first axis of each input that differs between them is
    free."""
    of_a_half = values_of_a_half(program, stage)
    return all(
        isinstance(input_of(specs, call.graph, name).shape[0], str)
        for call in stage.calls
        for name, given in call.inputs.items()
        if of_a_half.intersection(names_of(given))
    )


def evaluate(given: Input, values: Mapping[str, Array], constant: Callable[[ArrayRef], Array]) -> Array:
    """Return the array of an input of a call. Raise KeyError for a missing value."""
    if isinstance(given, str):
        return values[given]
    if isinstance(given, Concat):
        return np.concatenate([values[name] for name in given.concat], axis=given.axis)
    if isinstance(given, Sum):
        return reduce(np.add, [values[name] for name in given.sum])
    return constant(given.constant)


@dataclass(frozen=True)
class Values:
    """Inputs and outputs of a stage: values that all halves share, and the values of each half that is drawn."""

    shared: Mapping[str, Array]
    halves: Mapping[str, Mapping[str, Array]]

    def of(self, half: str) -> dict[str, Array]:
        """Return all values that a call for `half` can name."""
        return {**self.shared, **self.halves[half]}


Run = Callable[[str, Mapping[str, Array]], Mapping[str, Array]]  # calls a graph by its name


def run_stage(
    stage: Stage,
    specs: Mapping[str, GraphSpec],
    values: Values,
    run: Run,
    constant: Callable[[ArrayRef], Array],
    *,
    batched: bool = False,
) -> Values:
    """Return `values` together with the outputs of the calls of `stage`. A call that names no value of a half is made
    once; others are made once for each half, in the order of `values.halves`, or once for all if `batched`: inputs
    whose first axis is free are then stacked along it, the others shared."""
    shared = dict(values.shared)
    halves = {half: dict(own) for half, own in values.halves.items()}
    for call in stage.calls:
        found = Values(shared, halves)
        of_a_half = {name for own in halves.values() for name in own}
        if not depends_on_half(call, of_a_half):
            inputs = {name: evaluate(given, shared, constant) for name, given in call.inputs.items()}
            shared |= _made(call, run(call.graph, inputs))
            continue
        by_half = {
            half: {name: evaluate(given, found.of(half), constant) for name, given in call.inputs.items()}
            for half in halves
        }
        if not batched:
            for half, inputs in by_half.items():
                halves[half] |= _made(call, run(call.graph, inputs))
            continue
        outputs = run(call.graph, _stack(specs[call.graph], list(by_half.values())))
        parts = {name: np.split(array, len(halves)) for name, array in outputs.items()}
        for number, half in enumerate(halves):
            halves[half] |= _made(call, {name: part[number] for name, part in parts.items()})
    return Values(shared, halves)


def _made(call: Call, outputs: Mapping[str, Array]) -> dict[str, Array]:
    return {value: outputs[name] for name, value in call.outputs.items()}


def _stack(spec: GraphSpec, inputs: list[dict[str, Array]]) -> dict[str, Array]:
    free = {tensor.name for tensor in spec.inputs if isinstance(tensor.shape[0], str)}
    return {
        name: np.concatenate([each[name] for each in inputs]) if name in free else inputs[0][name] for name in inputs[0]
    }
