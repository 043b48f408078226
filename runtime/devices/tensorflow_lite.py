"""TFLite artifacts, run by the Android app's engine: TensorFlow Lite, as tensorflow-cpu has it for computers.

It runs in a separate environment, since coremltools imports TensorFlow wherever it is installed.
"""

from pathlib import Path

from pocketdiffusion.runtime.devices.child import Launch
from pocketdiffusion.runtime.engines.tflite import open_with
from pocketdiffusion.runtime.graph_spec import GraphSpec
from pocketdiffusion.runtime.runner import Runner


def launch_tensorflow(python: Path, seconds: float) -> Launch:
    """Return how to start a worker that runs TFLite graphs with tensorflow-cpu. `python` is the interpreter of an
    environment with tests/tensorflow.txt, `seconds` the time limit of each call."""
    return Launch("TensorFlow Lite", (str(python), "-I"), (), {}, seconds)


def open_runner(path: Path, spec: GraphSpec) -> Runner:
    """Open `path` with TensorFlow Lite. Raise as engines/tflite.py does."""
    from tensorflow import lite  # not in our own environment

    return open_with(lite.Interpreter, path, spec)
