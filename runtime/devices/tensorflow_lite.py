"""TFLite artifacts, run by the Android app's engine: TensorFlow Lite, as tensorflow-cpu has it for computers.

It runs in an environment of its own: where coremltools is, that would import TensorFlow too.
"""

from pathlib import Path

from pocketdiffusion.runtime.devices.child import Launch
from pocketdiffusion.runtime.engines.tflite import open_with
from pocketdiffusion.runtime.graph_spec import GraphSpec
from pocketdiffusion.runtime.runner import Runner


def launch_tensorflow(python: Path, seconds: float) -> Launch:
    """`python` is that of an environment with tensorflow-cpu (tests/tensorflow.txt)."""
    return Launch("TensorFlow Lite", (str(python), "-I"), (), {}, seconds)


def open_runner(path: Path, spec: GraphSpec) -> Runner:
    """Raises as engines/tflite.py does."""
    from tensorflow import lite  # no part of our own environment

    return open_with(lite.Interpreter, path, spec)
