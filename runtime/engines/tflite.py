"""TFLite artifacts, run by LiteRT on the CPU, with XNNPACK where it has a kernel."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pocketdiffusion.runtime.engines.facts import EngineFacts, StandinRun
from pocketdiffusion.runtime.errors import ProofError, UserError
from pocketdiffusion.runtime.graph_spec import GraphSpec, TensorSpec
from pocketdiffusion.runtime.runner import Array, Runner, check_inputs

ENGINE = EngineFacts(
    name="litert",
    dynamic_convolutions=True,
    standin_runs={
        "arm64": (
            StandinRun(__name__, "float32"),
            StandinRun("pocketdiffusion.runtime.devices.xnnpack_half", "float16"),
        ),
        "gpu": (StandinRun("pocketdiffusion.runtime.devices.ml_drift", "float32"),),
        # No stand-in: benchmarks/tflite_on_android.py starts the Android app's engine itself.
        "tensorflow": (StandinRun("pocketdiffusion.runtime.devices.tensorflow_lite", "float32"),),
    },
)
_IDENTIFIER = b"TFL3"  # from the fifth byte on; LiteRT itself does not check it


@dataclass(frozen=True)
class TfliteRunner:
    """An open interpreter. Equal inputs give equal outputs, bit for bit, on the same machine. Calling it raises
    ValueError if inputs do not match `spec`, and ProofError if the graph cannot be run."""

    spec: GraphSpec
    interpreter: Any
    signature: Any  # has no reference to its interpreter, which must live as long

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        check_inputs(self.spec, inputs)
        try:
            outputs = self.signature(**inputs)
        except (RuntimeError, ValueError) as error:
            raise ProofError(f"{self.spec.name}: LiteRT cannot run this graph: {_reason(error)}") from None
        return {tensor.name: outputs[tensor.name] for tensor in self.spec.outputs}


def open_runner(path: Path, spec: GraphSpec, threads: int | None = None) -> Runner:
    """Open `path`, whose signature has the name of the graph. `threads` None uses all processors.

    Raise UserError if LiteRT is not installed, and ProofError if it cannot load the file or the file's inputs and
    outputs do not match `spec`.
    """
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        raise UserError("LiteRT is not installed: pip install ai-edge-litert") from None
    return open_with(Interpreter, path, spec, threads)


def open_with(interpreter_of: Callable[..., Any], path: Path, spec: GraphSpec, threads: int | None = None) -> Runner:
    """Open `path` as `open_runner` does, with `interpreter_of`, a class with the interface of LiteRT's Interpreter."""
    try:
        with path.open("rb") as file:
            if file.read(8)[4:] != _IDENTIFIER:
                raise ValueError("it is not a TFLite file")
        with _silenced_stderr():
            interpreter = interpreter_of(str(path), num_threads=threads or os.cpu_count())
            interpreter.allocate_tensors()
        signature = interpreter.get_signature_runner(spec.name)
    except (OSError, RuntimeError, ValueError) as error:
        raise ProofError(f"{path}: LiteRT cannot load this file: {_reason(error)}") from None
    for kind, wanted, found in (
        ("inputs", spec.inputs, signature.get_input_details()),
        ("outputs", spec.outputs, signature.get_output_details()),
    ):
        actual = {
            _describe(TensorSpec(name, tuple(int(n) for n in d["shape"]), np.dtype(d["dtype"]).name))
            for name, d in found.items()
        }
        if actual != {_describe(t) for t in wanted}:
            promised = ", ".join(_describe(t) for t in wanted)
            raise ProofError(f"{path}: {kind} are {', '.join(sorted(actual))}, not {promised}")
    return TfliteRunner(spec, interpreter, signature)


@contextmanager
def _silenced_stderr() -> Iterator[None]:
    """Redirect the process's stderr to the null device. LiteRT prints a greeting there, and errors that it raises
    too."""
    kept = os.dup(2)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _reason(error: Exception) -> str:
    """Return LiteRT's message without the numbers of its nodes and its own source lines."""
    if isinstance(error, OSError):
        return error.strerror or "it cannot be read"
    return str(error).strip().splitlines()[0].rpartition(".cc:")[2] if str(error).strip() else "for no stated reason"


def _describe(tensor: TensorSpec) -> str:
    return f"{tensor.name} {tensor.dtype}{list(tensor.shape)}"
