"""Operators in integers: weights of int8 with a scale for each output channel, and activations of int8.

activation "dynamic"   the operator reads float32 and a weight of int8, and rounds its input to int8 at each call, by
                       the input's current value range: each row of a matrix product by its own
activation "int8"      QUANTIZE, the operator in int8, DEQUANTIZE, with scales from the calibrated value ranges;
                       operators that read one tensor by one range share its QUANTIZE
A table of embeddings is looked up in int8; the rows are then multiplied by their scales, which are looked up in a
second table of one column. Only since TensorFlow Lite 2.18 does the operator itself support one scale for each row.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from pocketdiffusion.export.backends.tflite.draft import TfliteEditor
from pocketdiffusion.export.backends.tflite.file import WEIGHT_OPERAND, data_of, operator_name
from pocketdiffusion.export.component import Component
from pocketdiffusion.quantize.qparams import BITS, ValueRange, affine
from pocketdiffusion.quantize.scheme import Activation, Plan, Scheme
from pocketdiffusion.runtime.errors import ProofError

# The version of an operator with int8 weights, by the quantization of its input.
_VERSIONS: Mapping[tuple[str, Activation], int] = {
    ("EMBEDDING_LOOKUP", "float"): 1,
    ("FULLY_CONNECTED", "dynamic"): 12,
    ("FULLY_CONNECTED", "int8"): 4,
    ("CONV_2D", "int8"): 3,
    ("CONV_2D", "dynamic"): 5,
}
_TOLERANCE = 1e-5  # relative, of a bias that the converter multiplied and this project divided again


def takes_integers(kind: str, place: int, scheme: Scheme) -> bool:
    """Return True if the operator can read a weight of `scheme` as integers in its operand number `place`."""
    return scheme.kind == "linear" and (kind, scheme.activation) in _VERSIONS and WEIGHT_OPERAND[kind] == place


def per_channel(scale: NDArray[np.float32], axis: int) -> Any:
    """Return the quantization of a weight with one scale per index of `axis`. A channel of zeros has the scale 0, which
    TFLite forbids: it gets the largest scale of the weight."""
    positive = np.where(scale > 0, scale, scale.max(initial=0) or 1).astype(np.float32)
    return _quantization(positive, np.zeros(positive.size, np.int64), axis)


def _quantization(scale: NDArray[np.float32], zero_point: NDArray[np.int64], axis: int = 0) -> Any:
    found = schema.QuantizationParametersT()
    found.scale, found.zeroPoint, found.quantizedDimension = scale, zero_point, axis
    return found


def _of_range(value_range: ValueRange) -> Any:
    scale, zero_point = affine(value_range, BITS["int8"])
    return _quantization(np.array([scale], np.float32), np.array([zero_point], np.int64))


def lower_operators(draft: TfliteEditor, part: Component, plan: Plan, named: Sequence[tuple[Any, str]]) -> None:
    """Change the operators of `named`, each given with its integer weight, so that they compute as `plan` says.

    Raise ProofError, naming the weight, for value ranges that are missing in `plan`, and for a bias that differs from
    the module's or that int32 cannot hold.
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
            operator.builtinOptions.asymmetricQuantizeInputs = (
                True  # for kernels other than XNNPACK's, which always does so
            )
        if operator_name(draft.model, operator) == "EMBEDDING_LOOKUP":
            operators += _look_up(draft, operator)
            continue
        if activation != "int8":
            operators.append(operator)
            continue
        if name not in plan.inputs or name not in plan.outputs:
            raise ProofError(
                f"{name}: its operator computes in int8, and its value ranges are not calibrated: calibrate the plan"
            )
        source, value_range = int(operator.inputs[0]), plan.inputs[name]
        if (source, value_range) not in quantized:
            quantized[source, value_range] = _quantized_like(draft, source, _of_range(value_range))
            operators.append(draft.operator("QUANTIZE", [source], quantized[source, value_range]))
        _compute_in_integers(draft, part, name, operator, quantized[source, value_range])
        result = int(operator.outputs[0])
        operator.outputs = [_quantized_like(draft, result, _of_range(plan.outputs[name]))]
        operators += [operator, draft.operator("DEQUANTIZE", operator.outputs, result, version=2)]
    draft.graph.operators = operators


def _look_up(draft: TfliteEditor, operator: Any) -> list[Any]:
    """Return operators that look rows of quantized values up and multiply each row by its scale, which is bit-exact,
    since quantized values are exact in float32. `operator` has a table [rows, width] with one scale for each row, and
    returns [ids, width]."""
    tensors = draft.graph.tensors
    ids, table = map(int, operator.inputs)
    result, scale = int(operator.outputs[0]), tensors[table].quantization.scale
    one = _quantization(np.ones(1, np.float32), np.zeros(1, np.int64))
    quantized = draft.tensor(tensors[table].name.decode(), tensors[table].shape, "INT8", one)
    tensors[quantized].buffer = tensors[table].buffer
    scales = draft.constant("scale", [scale.size, 1], "FLOAT32", scale)
    rows = draft.tensor("rows", tensors[result].shape, "FLOAT32")
    steps = draft.tensor("scales", [*tensors[result].shape[:-1], 1], "FLOAT32")
    operator.inputs, operator.outputs = [ids, quantized], [rows]
    product = draft.operator("MUL", [rows, steps], result)
    product.builtinOptionsType, product.builtinOptions = schema.BuiltinOptions.MulOptions, schema.MulOptionsT()
    return [operator, draft.operator("EMBEDDING_LOOKUP", [ids, scales], steps), product]


def _quantized_like(draft: TfliteEditor, index: int, quantization: Any) -> int:
    """Add a tensor of int8 with the shape of the tensor `index`, and return its index."""
    return draft.tensor("int8", draft.graph.tensors[index].shape, "INT8", quantization)


def _compute_in_integers(draft: TfliteEditor, part: Component, name: str, operator: Any, source: int) -> None:
    """Make `source` the operator's input, and its bias int32 with the input's scale times the weight's."""
    tensors = draft.graph.tensors
    weight = int(operator.inputs[1])
    unit = tensors[source].quantization.scale * tensors[weight].quantization.scale
    bias = _bias_of(draft, part, name, operator)
    operator.inputs = [source, weight]
    if bias is None:
        return
    rounded = np.rint(bias.astype(np.float64) / unit)
    if np.abs(rounded).max() > np.iinfo(np.int32).max:
        raise ProofError(
            f"{name}: the bias is too large for int32 with the scales of input and weight: keep the layer float"
        )
    zeros = np.zeros(unit.size, np.int64)
    index = draft.constant(f"{name}.bias", bias.shape, "INT32", rounded.astype(np.int32), _quantization(unit, zeros))
    operator.inputs = [source, weight, index]


def _bias_of(draft: TfliteEditor, part: Component, name: str, operator: Any) -> NDArray[np.float32] | None:
    """Return the operator's bias, None if it has none. Raise ProofError if it differs from the module's own bias."""
    present = [int(index) for index in operator.inputs[2:] if index >= 0]
    data = data_of(draft.model, draft.graph.tensors[present[0]]) if present else None
    bias = None if data is None else data.view(np.float32)
    own = part.weights.get(f"{name.removesuffix('weight')}bias")
    wanted = None if own is None else own.read()
    same = (wanted is None) == (bias is None) == (not present)
    if wanted is not None and bias is not None:
        same = bias.shape == wanted.shape and np.allclose(bias, wanted, rtol=_TOLERANCE, atol=0)
    if not same:
        raise ProofError(f"{name}: the operator of this weight does not add the module's bias")
    return bias
