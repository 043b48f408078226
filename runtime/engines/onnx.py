"""ONNX artifacts, run by onnxruntime on the CPU."""

import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pocketdiffusion.runtime.engines.facts import EngineFacts, Way
from pocketdiffusion.runtime.errors import ProofError, UserError
from pocketdiffusion.runtime.graph_spec import GraphSpec, TensorSpec
from pocketdiffusion.runtime.runner import Array, Runner, check_inputs

ENGINE = EngineFacts(
    name="onnxruntime",
    weights_beside=True,
    ways={"arm64": (Way(__name__, "float32"),)},
    left_out={
        # A graph that says float16 throughout has 54 dB there (UNet), under the floor: see benchmarks/half_onnx.py.
        "arm64": ("float16", "the file says float32, and onnxruntime computes as the file says, on a phone too"),
        "gpu": ("-", "LiteRT's GPU accelerator takes TFLite files only"),
    },
)
_DTYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(int32)": "int32", "tensor(int64)": "int64"}
_FATAL = 4  # onnxruntime's log level: what it has to say arrives as an exception


@dataclass(frozen=True)
class OnnxRunner:
    """An open session. The same inputs give the same outputs, bit for bit, on the same machine. Raises
    ValueError for inputs that are not those of `spec`, and ProofError where the graph cannot be run."""

    spec: GraphSpec
    session: Any

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        check_inputs(self.spec, inputs)
        names = [tensor.name for tensor in self.spec.outputs]
        try:
            outputs = self.session.run(names, dict(inputs))
        except Exception as error:  # onnxruntime's exceptions share no base class
            raise ProofError(f"{self.spec.name}: onnxruntime cannot run this graph: {_reason(error)}") from None
        return dict(zip(names, outputs, strict=True))


def open_runner(path: Path, spec: GraphSpec, threads: int | None = None) -> Runner:
    """Opens `path`, a model.onnx with its data beside it. `threads` None leaves the number to onnxruntime.

    Raises UserError where onnxruntime is not installed, and ProofError where it cannot load the file or where the
    file's inputs and outputs are not those of `spec`.
    """
    try:
        import onnxruntime
    except ImportError:
        raise UserError("onnxruntime is not installed: pip install onnxruntime") from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _FATAL
    options.use_deterministic_compute = True
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if _sums_saturate():
        options.add_session_config_entry("session.x64quantprecision", "1")  # slower sums of int8, that are exact
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions share no base class
        raise ProofError(f"{path}: onnxruntime cannot load this file: {_reason(error)}") from None
    for kind, wanted, found in (
        ("inputs", spec.inputs, session.get_inputs()),
        ("outputs", spec.outputs, session.get_outputs()),
    ):
        actual = {_describe(TensorSpec(t.name, tuple(t.shape), _DTYPES.get(t.type, t.type))) for t in found}
        if actual != {_describe(t) for t in wanted}:
            promised = ", ".join(_describe(t) for t in wanted)
            raise ProofError(f"{path}: {kind} are {', '.join(sorted(actual))}, not {promised}")
    return OnnxRunner(spec, session)


def _sums_saturate() -> bool:
    """Whether onnxruntime's sums of int8 are not exact unless it is told: on x86 without VNNI."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    try:
        return "vnni" not in Path("/proc/cpuinfo").read_text()
    except OSError:  # no Linux: who knows
        return True


def _reason(error: Exception) -> str:
    """The last thing that onnxruntime says; before it come its status, the path again and its own source lines."""
    return re.split(r"failed:|Error: |\.cc:\d+ \w+ ", str(error).strip())[-1].splitlines()[0]


def _describe(tensor: TensorSpec) -> str:
    return f"{tensor.name} {tensor.dtype}{list(tensor.shape)}"
