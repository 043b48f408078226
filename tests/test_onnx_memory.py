"""The memory of a call that is counted from an ONNX file, beside what onnxruntime needs for it."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from pocketdiffusion.export.backends.onnx.memory import count_memory
from pocketdiffusion.runtime.memory import STATUS

SIDE, FEW = 384, 24  # of blocks and of widened weights: height and width
CHILD = """
import sys
from pathlib import Path
import numpy as np
from pocketdiffusion.runtime.engines.onnx import open_runner
from pocketdiffusion.runtime.graph_spec import GraphSpec, TensorSpec

def resident(field):
    return int(Path("/proc/self/status").read_text().split(field + ":")[1].split()[0]) * 1024

path, (side, before, after) = Path(sys.argv[1]), map(int, sys.argv[2:])
ends = [TensorSpec(name, (1, count, side, side), "float32") for name, count in (("x", before), ("y", after))]
runner = open_runner(path, GraphSpec("g", (ends[0],), (ends[1],)))
given = {"x": np.ones((1, before, side, side), np.float32)}
for _ in range(2):
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = resident("VmRSS")
    runner(given)
    print(resident("VmHWM") - before)
"""


def write_blocks(path: Path) -> None:
    """Write two residual blocks, as a VAE decoder has them, the first of which halves its 64 channels."""
    nodes: list[onnx.NodeProto] = []
    constants: dict[str, onnx.TensorProto] = {}
    shapes: dict[str, tuple[int, ...]] = {}

    def weight(name: str, *shape: int) -> str:
        values = np.random.default_rng(0).standard_normal(shape, np.float32) * np.float32(0.05)
        constants[name] = numpy_helper.from_array(values, name)
        return name

    def add(operator: str, reads: list[str], result: str, channels: int, **facts: object) -> str:
        domain = "com.microsoft" if operator == "QuickGelu" else ""
        nodes.append(helper.make_node(operator, reads, [result], domain=domain, **facts))
        shapes[result] = (1, channels, SIDE, SIDE)
        return result

    def convolve(given: str, name: str, before: int, after: int, kernel: int) -> str:
        reads = [given, weight(f"{name}.w", after, before, kernel, kernel), weight(f"{name}.b", after)]
        return add("Conv", reads, name, after, kernel_shape=[kernel, kernel], pads=[kernel // 2] * 4)

    def activate(given: str, name: str, channels: int) -> str:
        for suffix, sizes in (("groups", [0, 32, -1]), ("back", [1, channels, SIDE, SIDE])):
            constants[f"{name}.{suffix}"] = numpy_helper.from_array(np.array(sizes, np.int64), f"{name}.{suffix}")
        grouped = add("Reshape", [given, f"{name}.groups"], f"{name}.1", channels)
        shapes[grouped] = (1, 32, channels * SIDE * SIDE // 32)
        reads = [grouped, weight(f"{name}.scale", 32), weight(f"{name}.shift", 32)]
        normal = add("InstanceNormalization", reads, f"{name}.2", channels)
        shapes[normal] = shapes[grouped]
        back = add("Reshape", [normal, f"{name}.back"], f"{name}.3", channels)
        scaled = add("Mul", [back, weight(f"{name}.gain", channels, 1, 1)], f"{name}.4", channels)
        return add("QuickGelu", [scaled], f"{name}.5", channels, alpha=1.0)

    def block(given: str, name: str, before: int, after: int) -> str:
        first = convolve(activate(given, f"{name}.n1", before), f"{name}.c1", before, after, 3)
        second = convolve(activate(first, f"{name}.n2", after), f"{name}.c2", after, after, 3)
        short = given if before == after else convolve(given, f"{name}.short", before, after, 1)
        return add("Add", [short, second], name, after)

    begun = convolve("x", "begin", 4, 64, 3)
    last = convolve(activate(block(block(begun, "a", 64, 32), "b", 32, 32), "end", 32), "y", 32, 3, 3)
    shapes |= {"x": (1, 4, SIDE, SIDE), last: (1, 3, SIDE, SIDE)}
    values = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()}
    ends = [values.pop(name) for name in ("x", "y")]
    body = helper.make_graph(nodes, "main", ends[:1], ends[1:], [*constants.values()], value_info=[*values.values()])
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(body, opset_imports=opsets, ir_version=10), str(path))


def write_widened(path: Path) -> None:
    """Write a convolution of 1024 filters, more than positions, whose int8 weights are widened at each call."""
    weights = np.random.default_rng(0).integers(-127, 127, (1024, 1024, 3, 3), np.int8)
    constants = {"w": weights, "scale": np.full(1024, 0.01, np.float32), "zero": np.zeros(1024, np.int8)}
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "scale", "zero"], ["wide"], axis=0),
        helper.make_node("Conv", ["x", "wide"], ["y"], pads=[1] * 4),
    ]
    shapes = {"x": (1, 1024, FEW, FEW), "y": (1, 1024, FEW, FEW), "wide": weights.shape}
    x, y, wide = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items())
    stored = [numpy_helper.from_array(values, name) for name, values in constants.items()]
    body = helper.make_graph(nodes, "main", [x], [y], stored, value_info=[wide])
    onnx.save(helper.make_model(body, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), str(path))


@pytest.mark.skipif(not STATUS.is_file(), reason="a process's memory is read from /proc")
@pytest.mark.parametrize(
    ("write", "sizes"),
    [(write_blocks, (SIDE, 4, 3)), (write_widened, (FEW, 1024, 1024))],
    ids=["blocks of channels", "widened weights"],
)
def test_a_call_needs_what_is_counted(tmp_path: Path, write: Callable[[Path], None], sizes: tuple[int, ...]) -> None:
    """Also the second call, and no more: nothing is kept. 113 MB are counted of blocks, three tensors of 64 channels;
    64 MB of widened weights, 21 of them the expanded input."""
    write(tmp_path / "model.onnx")
    memory = count_memory(tmp_path / "model.onnx")
    counted = memory.activations_bytes
    assert counted is not None and not memory.keeps_activations
    command = [sys.executable, "-c", CHILD, str(tmp_path / "model.onnx"), *map(str, sizes)]
    measured = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert len(measured) == 2
    for each in measured:
        assert 0.85 < int(each) / counted < 1.15
