"""How a weight is found again in what the converter made of it: in its place the converter was given a tag.

A tag is int8 noise of the weight's shape, different for each weight. So no value of the model decides what the
converter does, weights that are equal stay two, none is taken for another, and converting takes a quarter of their
memory. The tensor that an operator takes is the tag, widened; or, where the converter has folded the factor that
follows, the tag times that factor.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from pocketdiffusion.export.backends.tflite.draft import Draft
from pocketdiffusion.export.backends.tflite.file import data_of, operator_name
from pocketdiffusion.runtime.errors import ProofError

_TOLERANCE = 1e-6  # of a product in float32
_FEW = 64  # values that are looked at before all are


@dataclass(frozen=True)
class Found:
    """`tensor` is what operators take for the weight `name`: float32, without a value from now on, and `factor` times
    as large."""

    name: str
    tensor: int
    factor: float


def laid_out(weight: NDArray[Any]) -> NDArray[Any]:
    """As TFLite wants it: a convolution's kernel as [out, height, width, in]."""
    return weight.transpose(0, 2, 3, 1) if weight.ndim == 4 else weight


def make_tag(number: int, shape: Sequence[int]) -> NDArray[np.int8]:
    """The tag of the weight of that number and shape, laid out."""
    noise = np.random.default_rng(number).integers(-127, 128, shape, np.int8)
    noise[noise == 0] = 127  # a factor shows in every value
    return np.ascontiguousarray(laid_out(noise))


def take_tags(draft: Draft, tags: Mapping[str, NDArray[np.int8]]) -> list[Found]:
    """Takes the tags out of the graph, which then lacks the values that `tflite_weights` places. Raises ProofError,
    naming the weight, where one is not there, or comes to something else than the weight itself."""
    model, graph = draft.model, draft.graph
    found = []
    by_size: dict[int, list[str]] = {}
    for name, tag in tags.items():
        by_size.setdefault(tag.size, []).append(name)
    for index, tensor in enumerate(graph.tensors):
        data = data_of(model, tensor)
        if data is None or tensor.type not in (schema.TensorType.INT8, schema.TensorType.FLOAT32):
            continue
        values = data.view(np.int8 if tensor.type == schema.TensorType.INT8 else np.float32)
        for name in by_size.get(values.size, ()):
            factor = _factor(values, tags[name].reshape(-1))
            if factor is not None:
                found += [Found(name, wide, factor) for wide in _widened(draft, index, name)]
    lacking = sorted(tags.keys() - {each.name for each in found})
    if lacking:
        raise ProofError(f"{lacking[0]}: litert-torch left this weight out, or made something else of it")
    for each in found:
        graph.tensors[each.tensor].buffer = 0
    return found


def _factor(values: NDArray[Any], tag: NDArray[np.int8]) -> float | None:
    """What the tag was multiplied by, None where these are no multiple of it."""
    factor = float(values[0]) / float(tag[0])
    for part in (slice(_FEW), slice(None)):
        wanted = tag[part] * np.float32(factor)
        if not factor or not np.abs(values[part] - wanted).max() <= _TOLERANCE * np.abs(wanted).max():
            return None
    return factor


def _widened(draft: Draft, index: int, name: str) -> list[int]:
    """The float32 tensors that a tag becomes. The CASTs of one in int8 are removed."""
    if draft.graph.tensors[index].type == schema.TensorType.FLOAT32:
        return [index]
    takers = [operator for operator, _ in draft.takers(index)]
    others = {operator_name(draft.model, operator) for operator in takers} - {"CAST"}
    if others:
        raise ProofError(f"{name}: litert-torch has {min(others)} work on this weight")
    draft.graph.operators = [operator for operator in draft.graph.operators if operator not in takers]
    return [int(operator.outputs[0]) for operator in takers]
