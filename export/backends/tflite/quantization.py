"""Operators that take integers: weights of int8 with a scale for each output channel, and activations of int8.

activation "dynamic"   the operator takes float32 and a weight of int8, and rounds what it takes to int8 at each call,
                       by the range that it has at that moment: each row of a matrix product by its own
activation "int8"      QUANTIZE, the operator in int8, DEQUANTIZE, with scales from the calibrated spans; operators
                       that take one tensor by one span share its QUANTIZE
A table of embeddings is looked up in int8: its codes, and in a second table of one column their scales, which the rows
that were found are multiplied by. The operator knows one scale for each row by itself since TensorFlow Lite 2.18 only.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from pocketdiffusion.export.backends.tflite.draft import Draft
from pocketdiffusion.export.backends.tflite.file import WEIGHT_OPERAND, data_of, operator_name
from pocketdiffusion.export.component import Component
from pocketdiffusion.quantize.qparams import BITS, ValueRange, affine
from pocketdiffusion.quantize.scheme import Activation, Plan, Scheme
from pocketdiffusion.runtime.errors import ProofError

# The version that an operator has with int8 weights, by what its input is turned into.
_VERSIONS: Mapping[tuple[str, Activation], int] = {
    ("EMBEDDING_LOOKUP", "float"): 1,
    ("FULLY_CONNECTED", "dynamic"): 12,
    ("FULLY_CONNECTED", "int8"): 4,
    ("CONV_2D", "int8"): 3,
    ("CONV_2D", "dynamic"): 5,
}
_TOLERANCE = 1e-5  # of a bias that the converter multiplied and this file divided again


def takes_integers(kind: str, place: int, scheme: Scheme) -> bool:
    """Whether the operator takes, as its operand number `place`, the integers of a weight of `scheme`."""
    return scheme.kind == "linear" and (kind, scheme.activation) in _VERSIONS and WEIGHT_OPERAND[kind] == place


def per_channel(scale: NDArray[np.float32], axis: int) -> Any:
    """The quantization of a weight. Where all of a channel is zero its scale is zero, which TFLite does not take: it
    then has the largest of the others."""
    positive = np.where(scale > 0, scale, scale.max(initial=0) or 1).astype(np.float32)
    return _quantization(positive, np.zeros(positive.size, np.int64), axis)


def _quantization(scale: NDArray[np.float32], zero: NDArray[np.int64], axis: int = 0) -> Any:
    found = schema.QuantizationParametersT()
    found.scale, found.zeroPoint, found.quantizedDimension = scale, zero, axis
    return found


def _of_span(span: ValueRange) -> Any:
    scale, zero = affine(span, BITS["int8"])
    return _quantization(np.array([scale], np.float32), np.array([zero], np.int64))


def lower_operators(draft: Draft, part: Component, plan: Plan, named: Sequence[tuple[Any, str]]) -> None:
    """Turns the operators of `named`, each with the weight that it takes in integers, into what `plan` asks for.

    Raises ProofError, naming the weight, for spans that `plan` lacks, and for a bias that is not the module's or that
    int32 cannot hold.
    """
    names = {id(operator): name for operator, name in named}
    quantized: dict[tuple[int, ValueRange], int] = {}
    operators = []
    for operator in draft.graph.operators:
        name = names.get(id(operator))
        if name is None:
            operators.append(operator)
            continue
        activation = plan.schemes[name].activation
        draft.raise_version(operator, _VERSIONS[operator_name(draft.model, operator), activation])
        if activation == "dynamic" and operator_name(draft.model, operator) == "FULLY_CONNECTED":
            operator.builtinOptions.asymmetricQuantizeInputs = True  # where XNNPACK does not run it, which always does
        if operator_name(draft.model, operator) == "EMBEDDING_LOOKUP":
            operators += _look_up(draft, operator)
            continue
        if activation != "int8":
            operators.append(operator)
            continue
        if name not in plan.inputs or name not in plan.outputs:
            raise ProofError(f"{name}: it takes int8, and no range was calibrated for it")
        source, span = int(operator.inputs[0]), plan.inputs[name]
        if (source, span) not in quantized:
            quantized[source, span] = _beside(draft, source, _of_span(span))
            operators.append(draft.operator("QUANTIZE", [source], quantized[source, span]))
        _compute_in_integers(draft, part, name, operator, quantized[source, span])
        result = int(operator.outputs[0])
        operator.outputs = [_beside(draft, result, _of_span(plan.outputs[name]))]
        operators += [operator, draft.operator("DEQUANTIZE", operator.outputs, result, version=2)]
    draft.graph.operators = operators


def _look_up(draft: Draft, operator: Any) -> list[Any]:
    """The operators that look rows of codes up and multiply each by its scale: equal to the last bit, since a code is a
    float32 too. `operator` has one scale for each row of its table [rows, width], and gives [ids, width]."""
    tensors = draft.graph.tensors
    ids, table = map(int, operator.inputs)
    result, scale = int(operator.outputs[0]), tensors[table].quantization.scale
    one = _quantization(np.ones(1, np.float32), np.zeros(1, np.int64))
    codes = draft.tensor(tensors[table].name.decode(), tensors[table].shape, "INT8", one)
    tensors[codes].buffer = tensors[table].buffer
    scales = draft.constant("scale", [scale.size, 1], "FLOAT32", scale)
    rows = draft.tensor("codes", tensors[result].shape, "FLOAT32")
    steps = draft.tensor("scales", [*tensors[result].shape[:-1], 1], "FLOAT32")
    operator.inputs, operator.outputs = [ids, codes], [rows]
    product = draft.operator("MUL", [rows, steps], result)
    product.builtinOptionsType, product.builtinOptions = schema.BuiltinOptions.MulOptions, schema.MulOptionsT()
    return [operator, draft.operator("EMBEDDING_LOOKUP", [ids, scales], steps), product]


def _beside(draft: Draft, index: int, quantization: Any) -> int:
    """A tensor of int8 of the same shape."""
    return draft.tensor("int8", draft.graph.tensors[index].shape, "INT8", quantization)


def _compute_in_integers(draft: Draft, part: Component, name: str, operator: Any, source: int) -> None:
    """The operator takes `source`, and its bias as int32 in units of the input's scale times the weight's."""
    tensors = draft.graph.tensors
    weight = int(operator.inputs[1])
    unit = tensors[source].quantization.scale * tensors[weight].quantization.scale
    bias = _bias_of(draft, part, name, operator)
    operator.inputs = [source, weight]
    if bias is None:
        return
    whole = np.rint(bias.astype(np.float64) / unit)
    if np.abs(whole).max() > np.iinfo(np.int32).max:
        raise ProofError(f"{name}: a bias is so large beside its weights that int32 does not hold it: keep it float")
    zeros = np.zeros(unit.size, np.int64)
    index = draft.constant(f"{name}.bias", bias.shape, "INT32", whole.astype(np.int32), _quantization(unit, zeros))
    operator.inputs = [source, weight, index]


def _bias_of(draft: Draft, part: Component, name: str, operator: Any) -> NDArray[np.float32] | None:
    """What the operator adds, None for nothing. Raises ProofError where that is not the module's own bias."""
    given = [int(index) for index in operator.inputs[2:] if index >= 0]
    data = data_of(draft.model, draft.graph.tensors[given[0]]) if given else None
    bias = None if data is None else data.view(np.float32)
    own = part.weights.get(f"{name.removesuffix('weight')}bias")
    wanted = None if own is None else own.read()
    same = (wanted is None) == (bias is None) == (not given)
    if wanted is not None and bias is not None:
        same = bias.shape == wanted.shape and np.allclose(bias, wanted, rtol=_TOLERANCE, atol=0)
    if not same:
        raise ProofError(f"{name}: the operator of this weight adds something else than the module's bias")
    return bias
