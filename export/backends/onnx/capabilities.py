"""The onnxruntime version that an ONNX graph needs, and the compute units known to run it right or wrong.

Each fact names the versions that it was observed with. When graphs are fixed for a unit, remove the fact here, or the
rule that finds such graphs.
"""

from importlib.metadata import version
from math import prod
from pathlib import Path

import onnx

from pocketdiffusion.runtime.bundle.graph_needs import Engine, Unit
from pocketdiffusion.runtime.bundle.manifest import Graph

# Graphs of the tests' small model, loaded and run by onnxruntime 1.17.3, 1.18.1, 1.19.2, 1.20.1, 1.22.1 and 1.23.2:
# 1.17 refuses files of IR version 10; of Cast, which widens int4, 1.22 has no kernel.
_OLDEST, _OLDEST_INT4 = "1.18", "1.23"
_WRONG_ROWS = 16

SIXTEEN_ROWS = (
    "wrong on Hexagon: QNN 2.51 computes products of 16-bit integers with exactly 16 rows wrongly where floats stand "
    "next to them, and {count} of this graph are such. Seen with onnxruntime-qnn 2.7.0, Qualcomm's own emulator on "
    "x86: the built-in model's w8a16 UNet has 39.4 dB there, where a CPU has 56.2, and a wrong picture, 19.4 dB"
)
LOOKUP = (
    "onnxruntime-qnn 2.7.0 refuses to look rows of int8 up with a scale for each (QNN 2.51, Qualcomm's own emulator on "
    "x86), and leaves that to the CPU"
)
FLOAT_INPUT = (
    "onnxruntime-qnn 2.7.0 refuses weights of int8 with a scale for each channel where the input is float (QNN 2.51, "
    "Qualcomm's own emulator on x86)"
)
OPEN_SHAPES = "onnxruntime-qnn 2.7.0 refuses open shapes, and the batch of this graph is open"
QNN = (
    "no phone was tried; Qualcomm's own emulator (onnxruntime-qnn 2.7.0, QNN 2.51, x86) runs such graphs of the "
    "built-in model whole: float ones in float16 at 63 dB or more, of w8a16 the VAE's decoder at 47.0 dB, its encoder "
    "at 57.1"
)
WEB_ATTENTION = (
    "onnxruntime-web 1.30's MultiHeadAttention has 15 to 18 dB on WebGPU (Chromium 156, in software); profile std is "
    "right there, and this graph in wasm"
)
WEB = (
    "onnxruntime-web 1.30 has 130 dB or more on WebGPU with the built-in model's std graphs (Chromium 156, in software)"
)


def needs(path: Path, graph: Graph) -> Engine:
    """Return the engine that the file `path` needs: opsets, and the oldest version of onnxruntime that runs it."""
    model = onnx.load(str(path), load_external_data=False)
    narrow = any(tensor.data_type == onnx.TensorProto.INT4 for tensor in model.graph.initializer)
    return Engine(
        name="onnxruntime",
        opset={
            entry.domain or "ai.onnx": entry.version for entry in sorted(model.opset_import, key=lambda e: e.domain)
        },
        least_version=_OLDEST_INT4 if narrow else _OLDEST,
        tried=version("onnxruntime"),
    )


def units(path: Path, graph: Graph) -> dict[str, Unit]:
    """Return whether the file `path` is known to run right on compute units other than the gate's own."""
    found = {"npu": _on_hexagon(path, graph)} if graph.profile == "std" else {}
    if "MultiHeadAttention" in graph.ops:
        found["webgpu"] = Unit(status="bad", evidence="measured_here", note=WEB_ATTENTION)
    elif graph.profile == "std" and graph.storage in ("float32", "float16"):
        found["webgpu"] = Unit(status="unknown", evidence="none", note=WEB)
    return found


def _on_hexagon(path: Path, graph: Graph) -> Unit:
    def bad(note: str) -> Unit:
        return Unit(status="bad", evidence="measured_here", note=note)

    if any(isinstance(size, str) for tensor in graph.spec.inputs for size in tensor.shape):
        return bad(OPEN_SHAPES)
    model = onnx.load(str(path), load_external_data=False)
    if graph.arithmetic == "int16" and (count := len(products_of_rows(model, _WRONG_ROWS))):
        return bad(SIXTEEN_ROWS.format(count=count))
    quantized = {
        t.name for t in model.graph.initializer if t.data_type in (onnx.TensorProto.INT8, onnx.TensorProto.INT4)
    }
    if any(node.op_type == "Gather" and node.input[0] in quantized for node in model.graph.node):
        return bad(LOOKUP)
    if quantized and graph.arithmetic == "float32":
        return bad(FLOAT_INPUT)
    return Unit(status="unknown", evidence="none", note=QNN)


def products_of_rows(model: onnx.ModelProto, rows: int) -> list[str]:
    """Return the names of the integer products with `rows` rows: matrix products, and convolutions along one axis,
    whose input and weight are outputs of a DequantizeLinear."""
    shapes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*model.graph.value_info, *model.graph.input, *model.graph.output)
    }
    widened = {node.output[0] for node in model.graph.node if node.op_type == "DequantizeLinear"}

    def has_rows(node: onnx.NodeProto) -> bool:
        shape = shapes.get(node.output[0], [])
        if node.op_type == "Conv":
            return len(shape) > 2 and prod(shape[2:]) == rows and max(shape[2:]) == rows
        return bool(prod(shape[:-1]) == rows)

    products = [n for n in model.graph.node if n.op_type in ("Conv", "Gemm", "MatMul") and widened >= set(n.input[:2])]
    return [node.name for node in products if has_rows(node)]
