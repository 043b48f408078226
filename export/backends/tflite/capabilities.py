"""The TensorFlow Lite version that a TFLite graph needs, and the compute units known to run it right or wrong.

Each fact names the versions that it was observed with.
"""

from importlib.metadata import version
from pathlib import Path
from typing import Any

from pocketdiffusion.export.backends.tflite.file import OPERATORS, read_model
from pocketdiffusion.runtime.bundle.graph_needs import Engine, Unit
from pocketdiffusion.runtime.bundle.manifest import Graph

RUNTIME = b"min_runtime_version"  # the converter's own note in the file
ON_CPU = {"EMBEDDING_LOOKUP", "GATHER_ND"}  # refused by LiteRT's GPU delegate
# The oldest TFLite that has these versions of operators, from LiteRT's runtime_version.cc.
_SINCE = {
    ("CONV_2D", 5): (2, 4, 0),
    ("DEQUANTIZE", 5): (2, 7, 0),
    ("FULLY_CONNECTED", 12): (2, 17, 0),
    ("EMBEDDING_LOOKUP", 4): (2, 18, 0),
}

LOOKUP = "LiteRT 2.3.0's GPU delegate (ML Drift, on a Vulkan device in software) refuses {operators}"
INTEGERS = "LiteRT 2.3.0's GPU delegate (ML Drift, on a Vulkan device in software) refuses weights of int8"
FLOATS = (
    "not measured with this file: `verify --device gpu` does it; LiteRT 2.3.0's GPU delegate takes every operator of "
    "such graphs, and gives 90 dB or more in float32 with the built-in model's on a Vulkan device in software"
)


def needs(path: Path, graph: Graph) -> Engine:
    """Return the engine that the file `path` needs: the oldest version of TensorFlow Lite, and the signature."""
    model = read_model(path)
    return Engine(
        name="litert",
        least_version=".".join(map(str, least_version(model))),
        tried=version("ai-edge-litert"),
        signature=model.signatureDefs[0].signatureKey.decode(),
    )


def least_version(model: Any) -> tuple[int, ...]:
    """Return the oldest version of TFLite that has all operators of `model`, which `read_model` returned: the newest of
    the converter's note on its own operators and the versions that operators added later need."""
    noted = [bytes(model.buffers[e.buffer].data).rstrip(b"\0") for e in model.metadata or [] if e.name == RUNTIME]
    needed = [tuple(int(part) for part in version.split(b".")) for version in noted]
    return max([*needed, *(_SINCE.get((OPERATORS[c.builtinCode], c.version), (1,)) for c in model.operatorCodes)])


def units(path: Path, graph: Graph) -> dict[str, Unit]:
    """Return whether the file `path` is known to run right on compute units other than the gate's own."""
    refused = sorted(graph.ops.keys() & ON_CPU)
    if graph.storage not in ("float32", "float16"):
        return {"gpu": Unit(status="bad", evidence="measured_here", note=INTEGERS)}
    if refused:
        note = LOOKUP.format(operators=" and ".join(refused))
        return {"gpu": Unit(status="bad", evidence="measured_here", note=note)}
    return {"gpu": Unit(status="unknown", evidence="none", note=FLOATS)}
