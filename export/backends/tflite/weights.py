"""Storing each weight in the converter's file as its scheme says, under its own name.

float32     a constant that operators read
float16     a constant before a DEQUANTIZE, which LiteRT runs once, when it loads the file
integers    a constant of int8 with a scale for each output channel, for operators that read integers (see
            `quantization`); before a DEQUANTIZE for the other ones
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from pocketdiffusion.export.backends.tflite.draft import DeferredConstant, TfliteEditor
from pocketdiffusion.export.backends.tflite.file import data_of, operands, operator_name
from pocketdiffusion.export.backends.tflite.quantization import lower_operators, per_channel, takes_integers
from pocketdiffusion.export.backends.tflite.tags import Found, laid_out
from pocketdiffusion.export.component import Component
from pocketdiffusion.quantize.quantized_tensor import Linear, store
from pocketdiffusion.quantize.scheme import FLOAT16, FLOAT32, Plan
from pocketdiffusion.runtime.errors import ProofError

_VERSIONS = {"FLOAT16": 3, "INT8": 5}  # of DEQUANTIZE, the first that reads this type


def place_weights(draft: TfliteEditor, part: Component, plan: Plan, found: Sequence[Found]) -> None:
    """Store the weights in the tensors that `find_tags` left without a value. Raise ProofError, naming the weight, if
    the file cannot store or compute it as `plan` says."""
    first_use = {index: n for n, op in reversed(list(enumerate(draft.graph.operators))) for index in operands(op)}
    named: list[tuple[Any, str]] = []
    widened = []
    for each in sorted(found, key=lambda each: first_use[each.tensor]):
        _unfold(draft, each)
        scheme = plan.of(each.name, part.weights[each.name].shape)
        constant, kind = _constant(draft, part, plan, each)
        left = constant != each.tensor
        for operator, place in list(draft.consumers(each.tensor)) if left else ():
            if takes_integers(operator_name(draft.model, operator), place, scheme):
                operator.inputs = [constant if p == place else int(i) for p, i in enumerate(operator.inputs)]
                named.append((operator, each.name))
            elif scheme.activation != "float":
                kind = operator_name(draft.model, operator)
                raise ProofError(f"{each.name}: its operator {kind} cannot compute with {scheme.activation} input")
        if left and any(draft.consumers(each.tensor)):
            widened.append(draft.operator("DEQUANTIZE", [constant], each.tensor, _VERSIONS[kind]))
    draft.graph.operators[:0] = widened
    lower_operators(draft, part, plan, named)


def _constant(draft: TfliteEditor, part: Component, plan: Plan, each: Found) -> tuple[int, str]:
    """Return the constant of the weight and its type. Its shape is the file's, which may begin with axes of size 1."""
    ref, tensor = part.weights[each.name], draft.graph.tensors[each.tensor]
    scheme, shape = plan.of(each.name, ref.shape), list(tensor.shape)
    if scheme in (FLOAT32, FLOAT16):
        late = DeferredConstant(shape, f"float{scheme.bits}", lambda: laid_out(ref.read()))
        if scheme == FLOAT16:
            return draft.constant(each.name, shape, "FLOAT16", late), "FLOAT16"
        tensor.name = each.name.encode()
        draft.fill(each.tensor, late)
        return each.tensor, "FLOAT32"
    stored = store(ref.read(), scheme)
    assert isinstance(stored, Linear)
    axis = len(shape) - len(ref.shape)
    if axis < 0 or shape[axis] != ref.shape[0]:
        raise ProofError(f"{each.name}: litert-torch changed the shape of this weight to {shape}")
    quantization = per_channel(stored.scale.reshape(-1), axis)
    return draft.constant(each.name, shape, "INT8", laid_out(stored.quantized), quantization), "INT8"


def _unfold(draft: TfliteEditor, each: Found) -> None:
    """Move the factor that the converter multiplied a weight by behind the operator, so that the file has the weight
    itself, and the operator computes the module's output."""
    if each.factor == 1:
        return
    tensors = draft.graph.tensors
    for operator, _ in list(draft.consumers(each.tensor)):
        kind = operator_name(draft.model, operator)
        if kind not in ("CONV_2D", "FULLY_CONNECTED") or operator.builtinOptions.fusedActivationFunction:
            raise ProofError(f"{each.name}: litert-torch multiplied it by {each.factor:g}, before {kind}")
        bias = [int(index) for index in operator.inputs[2:] if index >= 0]
        if bias:
            data = data_of(draft.model, tensors[bias[0]])
            assert data is not None
            own = draft.constant(
                "bias", tensors[bias[0]].shape, "FLOAT32", data.view(np.float32) / np.float32(each.factor)
            )
            operator.inputs = [*map(int, operator.inputs[:2]), own]
        result = int(operator.outputs[0])
        operator.outputs = [draft.tensor("bare", tensors[result].shape, "FLOAT32")]
        factor = draft.constant("factor", [], "FLOAT32", np.array(each.factor, np.float32))
        product = draft.operator("MUL", [operator.outputs[0], factor], result)
        product.builtinOptionsType, product.builtinOptions = schema.BuiltinOptions.MulOptions, schema.MulOptionsT()
        place = draft.graph.operators.index(operator)
        draft.graph.operators.insert(place + 1, product)
