"""LiteRT's compiled models, as runners: the interface that has XNNPACK's flags and the GPU."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pocketdiffusion.runtime.errors import ProofError, UserError
from pocketdiffusion.runtime.graph_spec import GraphSpec
from pocketdiffusion.runtime.runner import Array, check_inputs


@dataclass(frozen=True)
class CompiledRunner:
    """A runner by LiteRT's compiled model. It raises ValueError if inputs do not match `spec`, and ProofError if the
    graph cannot be run."""

    spec: GraphSpec
    model: Any

    def __call__(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        check_inputs(self.spec, inputs)
        name = self.spec.name
        given = {t.name: self.model.create_input_buffer_by_name(name, t.name) for t in self.spec.inputs}
        taken = {t.name: self.model.create_output_buffer_by_name(name, t.name) for t in self.spec.outputs}
        try:
            for tensor, buffer in given.items():
                buffer.write(np.ascontiguousarray(inputs[tensor]))
            self.model.run_by_name(name, given, taken)
            outputs = {}
            for t in self.spec.outputs:
                sizes = [int(size) for size in t.shape]
                outputs[t.name] = np.array(taken[t.name].read(int(np.prod(sizes)), np.dtype(t.dtype))).reshape(sizes)
        except (RuntimeError, ValueError) as error:
            raise ProofError(f"{name}: LiteRT cannot run this graph: {reason(error)}") from None
        finally:
            for buffer in (*given.values(), *taken.values()):
                buffer.destroy()
        return outputs


def compile_model(path: Path, options: Mapping[str, Any]) -> Any:
    """Compile the model in `path`, with `options` for LiteRT: "accelerator" is CPU or GPU, "cpu" and "gpu" have the
    fields of CpuOptions and GpuOptions.

    Raise UserError if LiteRT is not installed, ProofError if there is no such file, RuntimeError as LiteRT does.
    """
    try:
        from ai_edge_litert.compiled_model import CompiledModel
        from ai_edge_litert.options import CpuOptions, GpuOptions, HardwareAccelerator, Options
    except ImportError as error:
        raise UserError(f"LiteRT cannot be used ({error}): pip install ai-edge-litert") from None
    if not path.is_file():
        raise ProofError(f"{path}: LiteRT cannot load this file: it does not exist")
    return CompiledModel.from_file(
        str(path),
        options=Options(
            hardware_accelerators=getattr(HardwareAccelerator, options["accelerator"]),
            cpu_options=CpuOptions(**options["cpu"]) if "cpu" in options else None,
            gpu_options=GpuOptions(**options["gpu"]) if "gpu" in options else None,
        ),
    )


def check_signature(path: Path, spec: GraphSpec, model: Any) -> None:
    """Raise ProofError if the file's inputs and outputs do not match `spec`."""
    try:
        found = (model.get_input_tensor_details(spec.name), model.get_output_tensor_details(spec.name))
    except (RuntimeError, ValueError) as error:
        raise ProofError(f"{path}: it has no signature {spec.name}: {reason(error)}") from None
    for what, wanted, details in zip(("inputs", "outputs"), (spec.inputs, spec.outputs), found, strict=True):
        actual = {f"{n} {np.dtype(d['dtype']).name}{[int(size) for size in d['shape']]}" for n, d in details.items()}
        promised = [f"{t.name} {t.dtype}{list(t.shape)}" for t in wanted]
        if actual != set(promised):
            raise ProofError(f"{path}: {what} are {', '.join(sorted(actual))}, not {', '.join(promised)}")


def reason(error: Exception) -> str:
    """Return LiteRT's message without its own source lines."""
    lines = [line.strip(" └") for line in str(error).splitlines() if line.strip()]
    return lines[-1].rpartition(".cc:")[2] if lines else "for no stated reason"
