"""Finding each weight in the converter's file by a tag, which the converter gets in place of the weight.

A tag is int8 noise of the weight's shape, different for each weight. So the converter's decisions do not depend on
values of the model, equal weights stay separate, no weight is mistaken for another, and converting needs a quarter of
their memory. The tensor that an operator reads is the tag as float32, or the tag times a factor that the converter
has folded into it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from pocketdiffusion.export.backends.tflite.draft import TfliteEditor
from pocketdiffusion.export.backends.tflite.file import data_of, operator_name
from pocketdiffusion.runtime.errors import ProofError

_TOLERANCE = 1e-6  # relative, of a product in float32
_FEW = 64  # values that are compared before all are


@dataclass(frozen=True)
class Found:
    """The tensor that operators read for the weight `name`: float32, without a value from now on. Its values are to be
    `factor` times the weight's."""

    name: str
    tensor: int
    factor: float


def laid_out(weight: NDArray[Any]) -> NDArray[Any]:
    """Return the weight in TFLite's axis order: a convolution's kernel as [out, height, width, in]."""
    return weight.transpose(0, 2, 3, 1) if weight.ndim == 4 else weight


def make_tag(number: int, shape: Sequence[int]) -> NDArray[np.int8]:
    """Return the tag of the weight of that number and shape, int8 in TFLite's axis order, without zeros."""
    noise = np.random.default_rng(number).integers(-127, 128, shape, np.int8)
    noise[noise == 0] = 127  # so that every value shows a factor
    return np.ascontiguousarray(laid_out(noise))


def find_tags(draft: TfliteEditor, tags: Mapping[str, NDArray[np.int8]]) -> list[Found]:
    """Find and remove the tags in the graph, whose tensors then wait for values by `weights.place_weights`. Raise
    ProofError, naming the weight, if a tag is missing or an operator of the converter changes it."""
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
    missing = sorted(tags.keys() - {each.name for each in found})
    if missing:
        raise ProofError(f"{missing[0]}: litert-torch left this weight out, or changed its values")
    for each in found:
        graph.tensors[each.tensor].buffer = 0
    return found


def _factor(values: NDArray[Any], tag: NDArray[np.int8]) -> float | None:
    """Return the factor between `values` and the tag, None if they are not a multiple of it."""
    factor = float(values[0]) / float(tag[0])
    for part in (slice(_FEW), slice(None)):
        wanted = tag[part] * np.float32(factor)
        if not factor or not np.abs(values[part] - wanted).max() <= _TOLERANCE * np.abs(wanted).max():
            return None
    return factor


def _widened(draft: TfliteEditor, index: int, name: str) -> list[int]:
    """Return the float32 tensors of a tag, and remove the CASTs of a tag in int8 from the graph."""
    if draft.graph.tensors[index].type == schema.TensorType.FLOAT32:
        return [index]
    consumers = [operator for operator, _ in draft.consumers(index)]
    others = {operator_name(draft.model, operator) for operator in consumers} - {"CAST"}
    if others:
        raise ProofError(f"{name}: litert-torch applies {min(others)} to this weight")
    draft.graph.operators = [operator for operator in draft.graph.operators if operator not in consumers]
    return [int(operator.outputs[0]) for operator in consumers]
