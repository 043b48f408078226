"""The check that a TFLite file runs on phones, on their GPU as well. LiteRT on a CPU supports much more than this.

rank at most 4              GPU delegates have no fifth axis
no int64                    GPU delegates have none; litert-torch writes int32 instead if it is told to
no BROADCAST_TO             refused by LiteRT's GPU delegate
no CUSTOM, no STABLEHLO_*   an operator that only some builds have
no CAST, TRANSPOSE of a     work on weights at every call, and a weight that is computed is refused by the GPU
  constant
DEQUANTIZE of constants     of a weight that is stored in float16 or int8, which engines run once; or of the output of
  and of int8                 an operator in int8
no operand without value    neither an input of the graph, nor a constant, nor computed: a weight is missing
no integer inputs, outputs  they are float32, ids and positions int32: a timestep in 256 levels is useless
complete quantizations      int8 has one scale, or one for each channel along its axis, positive, with as many zero
                              points; a weight's zero points are 0; a bias has the input's scale times the weight's
Two operators of text encoders run only on the CPU, since LiteRT's GPU delegate refuses them: GATHER_ND, and
EMBEDDING_LOOKUP in a table that is stored in float16. The compute unit of a graph with one of them is the CPU.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pocketdiffusion.export.backends.tflite.file import (
    TYPES,
    WEIGHT_OPERAND,
    is_constant,
    operands,
    operator_name,
    read_model,
)
from pocketdiffusion.runtime.errors import ProofError

HIGHEST_RANK = 4
_REFUSED = ("BROADCAST_TO", "CUSTOM")


def lint(path: Path) -> dict[str, int]:
    """Return the number of operators by name. Raise ProofError, naming operator and tensor, for one that phones do not
    support."""
    model = read_model(path)
    counts: Counter[str] = Counter()
    for graph in model.subgraphs:
        made_by = {int(index): operator for operator in graph.operators for index in operator.outputs}
        for index, tensor in enumerate(graph.tensors):
            maker = f" of {operator_name(model, made_by[index])}" if index in made_by else ""
            at_an_end = index in graph.inputs or index in graph.outputs
            problems = (*_tensor_problems(tensor, at_an_end), *_quantization_problems(model, tensor))
            for problem in problems:
                raise ProofError(f"{path.name}: tensor {_name(tensor)}{maker} {problem}")
        for operator in graph.operators:
            name = operator_name(model, operator)
            counts[name] += 1
            for problem in _operator_problems(model, graph, name, operator, known={*map(int, graph.inputs), *made_by}):
                result = _name(graph.tensors[operator.outputs[0]]) if len(operator.outputs) else "nothing"
                raise ProofError(f"{path.name}: {name}, which computes {result}, {problem}")
    return dict(sorted(counts.items()))


def _tensor_problems(tensor: Any, at_an_end: bool) -> Iterator[str]:
    rank = 0 if tensor.shape is None else len(tensor.shape)
    if rank > HIGHEST_RANK:
        yield f"has rank {rank}, and phones support at most {HIGHEST_RANK}"
    if TYPES[tensor.type] in ("INT64", "UINT64", "FLOAT64"):
        yield f"is {TYPES[tensor.type].lower()}"
    if at_an_end and TYPES[tensor.type] in ("INT8", "UINT8", "INT16"):
        yield f"is {TYPES[tensor.type].lower()}: inputs and outputs of a graph are float32, or int32 for ids"


def _quantization_problems(model: Any, tensor: Any) -> Iterator[str]:
    found, kind, scales = tensor.quantization, TYPES[tensor.type], _scales(tensor)
    if kind == "INT8" and len(scales) == 0:
        yield "is int8 and has no scale"
    if kind not in ("INT8", "INT32") and len(scales):
        yield f"has a scale and is {kind.lower()}"
    if len(scales) == 0:
        return
    axis = found.quantizedDimension
    channels = tensor.shape[axis] if axis < len(tensor.shape) else 0
    if len(scales) not in (1, channels) or len(found.zeroPoint) != len(scales):
        counts = f"{len(scales)} scales and {len(found.zeroPoint)} zero points"
        yield f"has {counts} for {channels} channels along axis {axis}"
    if not (np.isfinite(scales).all() and (scales > 0).all()):
        yield "has a scale that is not positive"
    if is_constant(model, tensor) and np.any(found.zeroPoint):
        yield "is a weight whose zero point is not 0"


def _operator_problems(model: Any, graph: Any, name: str, operator: Any, known: set[int]) -> Iterator[str]:
    """Yield the problems of one operator. `known` has the tensors that are inputs of the graph or computed."""
    if name in _REFUSED or name.startswith("STABLEHLO_"):
        yield "is an operator that phones do not have"
    for index in operands(operator):
        tensor = graph.tensors[index]
        if index not in known and not is_constant(model, tensor) and 0 not in tensor.shape:
            yield f"reads {_name(tensor)}, which has no value"
    sources = [graph.tensors[index] for index in operands(operator)[:1]]
    for source in sources:
        constant = is_constant(model, source)
        if name in ("CAST", "TRANSPOSE") and constant:
            yield f"works on the constant {_name(source)} at every call"
        if name == "DEQUANTIZE" and not constant and TYPES[source.type] != "INT8":
            yield f"works on {_name(source)}, which is not a constant"
    if name in WEIGHT_OPERAND and len(operator.inputs) == 3 and operator.inputs[2] >= 0:
        yield from _bias_problems(*(graph.tensors[index] for index in operator.inputs))


def _bias_problems(taken: Any, weight: Any, bias: Any) -> Iterator[str]:
    integers = [TYPES[tensor.type] == "INT8" for tensor in (taken, weight)]
    if (TYPES[bias.type] == "INT32") != all(integers):
        yield f"adds {_name(bias)}, which is {TYPES[bias.type].lower()}"
    elif all(integers) and not np.array_equal(_scales(bias), _scales(taken) * _scales(weight)):
        yield f"adds {_name(bias)} in other units than the input's scale times the weight's"


def _scales(tensor: Any) -> NDArray[np.float32]:
    found = tensor.quantization
    return np.asarray(() if found is None or found.scale is None else found.scale, np.float32)


def _name(tensor: Any) -> str:
    return tensor.name.decode() if tensor.name else "without a name"
