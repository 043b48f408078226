"""The engine of the toy format: the calls of NAME.json, one after the other, on the arrays of NAME.npz, by torch."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import getitem
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pocketdiffusion.runtime.engines.facts import EngineFacts
from pocketdiffusion.runtime.errors import ProofError
from pocketdiffusion.runtime.graph_spec import GraphSpec
from pocketdiffusion.runtime.runner import Array, Runner, check_inputs

ENGINE = EngineFacts(name="toyengine")
Observe = Callable[[str, str, Any], Any]  # the operator, its result's name, the result; returns what takes its place


@dataclass(frozen=True)
class ToyProgram:
    """`calls` have an operator, the name of its result and its arguments; a tensor among them is {"tensor": NAME}."""

    calls: tuple[Mapping[str, Any], ...]
    outputs: tuple[str, ...]
    arrays: Mapping[str, Array]


def read_toy(path: Path) -> ToyProgram:
    """Return the program of NAME.json, with its arrays. Raises ProofError where it cannot be read."""
    try:
        told = json.loads(path.read_text())
        with np.load(path.with_suffix(".npz")) as arrays:
            return ToyProgram(tuple(told["calls"]), tuple(told["outputs"]), dict(arrays))
    except (OSError, ValueError, KeyError) as error:
        raise ProofError(f"{path}: the toy engine cannot load this file: {error}") from None


def run_toy(program: ToyProgram, inputs: Mapping[str, Array], observe: Observe | None = None) -> list[Array]:
    """Return the outputs, computed in float32; `observe` sees and replaces each tensor that is computed."""
    values: dict[str, Any] = {name: torch.from_numpy(array.copy()) for name, array in inputs.items()}
    for name, array in program.arrays.items():
        stored = torch.from_numpy(array)
        values[name] = stored.float() if stored.is_floating_point() else stored
    with torch.no_grad():
        for call in program.calls:
            arguments, options = (_decode(call[key], values) for key in ("args", "kwargs"))
            result = _operator(call["operator"])(*arguments, **options)
            if observe is not None and isinstance(result, torch.Tensor):
                result = observe(call["operator"], call["name"], result)
            values[call["name"]] = result
    return [values[name].numpy() for name in program.outputs]


def _operator(name: str) -> Callable[..., Any]:
    if name == "getitem":
        return getitem
    namespace, operator, overload = name.split(".")
    found: Callable[..., Any] = getattr(getattr(getattr(torch.ops, namespace), operator), overload)
    return found


def _decode(value: Any, values: Mapping[str, Any]) -> Any:
    if isinstance(value, list):
        return [_decode(each, values) for each in value]
    if not isinstance(value, dict):
        return value
    if set(value) == {"tensor"}:
        return values[value["tensor"]]
    if set(value) == {"torch"}:
        return getattr(torch, value["torch"])
    return {key: _decode(each, values) for key, each in value.items()}


@dataclass(frozen=True)
class ToyRunner:
    """Raises ValueError for inputs that are not those of `spec`."""

    spec: GraphSpec
    program: ToyProgram
    observe: Observe | None = None

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        check_inputs(self.spec, inputs)
        outputs = run_toy(self.program, inputs, self.observe)
        return dict(zip((tensor.name for tensor in self.spec.outputs), outputs, strict=True))


def open_runner(path: Path, spec: GraphSpec, threads: int | None = None) -> Runner:
    """Open `path`, a NAME.json with its arrays beside it."""
    return ToyRunner(spec, read_toy(path))
