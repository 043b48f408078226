"""ONNX artifacts, run by onnxruntime on the CPU."""

import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pocketdiffusion.runtime.engines.facts import EngineFacts, StandinRun
from pocketdiffusion.runtime.errors import ProofError, UserError
from pocketdiffusion.runtime.graph_spec import GraphSpec, TensorSpec
from pocketdiffusion.runtime.memory import mapping_large_blocks
from pocketdiffusion.runtime.runner import Array, Runner, check_inputs

ENGINE = EngineFacts(
    name="onnxruntime",
    weights_in_own_files=True,
    same_versions=True,
    absent={"npu": "Qualcomm's QNN is not on this machine: onnxruntime's CPU kernels ran the graph instead"},
    standin_runs={"arm64": (StandinRun(__name__, "float32"),)},
    not_run={
        # A graph that is float16 throughout has 54 dB there (UNet), below the floor: see benchmarks/half_onnx.py.
        "arm64": ("float16", "the file says float32, and onnxruntime computes as the file says, on a phone too"),
        "gpu": ("-", "LiteRT's GPU accelerator takes TFLite files only"),
    },
)
_DTYPES = {"tensor(float)": "float32", "tensor(float16)": "float16", "tensor(int32)": "int32", "tensor(int64)": "int64"}
_FATAL = 4  # onnxruntime's log level: errors arrive as exceptions


@dataclass(frozen=True)
class OnnxRunner:
    """An open session. Equal inputs give equal outputs, bit for bit, on the same machine. Calling it raises ValueError
    if inputs do not match `spec`, and ProofError if the graph cannot be run."""

    spec: GraphSpec
    session: Any

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        check_inputs(self.spec, inputs)
        names = [tensor.name for tensor in self.spec.outputs]
        try:
            with mapping_large_blocks():
                outputs = self.session.run(names, dict(inputs))
        except Exception as error:  # onnxruntime's exceptions share no base class
            raise ProofError(f"{self.spec.name}: onnxruntime cannot run this graph: {_reason(error)}") from None
        # An output of onnxruntime is a view of a block of the engine's, which would be kept as long as the output.
        return {name: output.copy() for name, output in zip(names, outputs, strict=True)}


def open_runner(path: Path, spec: GraphSpec, threads: int | None = None) -> Runner:
    """Open `path`, a model.onnx with its data in the same folder. `threads` None: onnxruntime chooses the number.

    Raise UserError if onnxruntime is not installed, and ProofError if it cannot load the file or the file's inputs and
    outputs do not match `spec`.
    """
    try:
        import onnxruntime
    except ImportError:
        raise UserError("onnxruntime is not installed: pip install onnxruntime") from None
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _FATAL
    options.use_deterministic_compute = True
    # Each activation is allocated when it is computed, and freed after it was read for the last time. The arena would
    # keep up to half as much again between its blocks, and all of it after the call; the pattern a second copy from the
    # second call on; reuse keeps what it plans to use again later (benchmarks/RESULTS.md).
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    options.enable_mem_reuse = False
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    select_exact_sums(options)
    if threads is not None:
        options.intra_op_num_threads = threads
    session = load_session(path, options)
    for kind, wanted, found in (
        ("inputs", spec.inputs, session.get_inputs()),
        ("outputs", spec.outputs, session.get_outputs()),
    ):
        actual = {_describe(TensorSpec(t.name, tuple(t.shape), _DTYPES.get(t.type, t.type))) for t in found}
        if actual != {_describe(t) for t in wanted}:
            promised = ", ".join(_describe(t) for t in wanted)
            raise ProofError(f"{path}: {kind} are {', '.join(sorted(actual))}, not {promised}")
    return OnnxRunner(spec, session)


def load_session(path: Path, options: Any) -> Any:
    """Return a session of onnxruntime for the file `path`. Raise ProofError if it cannot load the file."""
    import onnxruntime

    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions share no base class
        raise ProofError(f"{path}: onnxruntime cannot load this file: {_reason(error)}") from None


def select_exact_sums(options: Any) -> bool:
    """Select, in onnxruntime's session options, kernels whose sums of int8 products do not saturate, and return True if
    the default ones do. They are slower, and graph optimizations of the second level put them in."""
    if _sums_saturate():
        options.add_session_config_entry("session.x64quantprecision", "1")
        return True
    return False


def _sums_saturate() -> bool:
    """Return True if onnxruntime's sums of int8 saturate by default: on x86 without VNNI."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    try:
        return "vnni" not in Path("/proc/cpuinfo").read_text()
    except OSError:  # not Linux: unknown
        return True


def _reason(error: Exception) -> str:
    """Return the last part of onnxruntime's message, without its status, the path and its own source lines."""
    return re.split(r"failed:|Error: |\.cc:\d+ \w+ ", str(error).strip())[-1].splitlines()[0]


def _describe(tensor: TensorSpec) -> str:
    return f"{tensor.name} {tensor.dtype}{list(tensor.shape)}"
