"""TFLite artifacts with arithmetic in float16: LiteRT on a CPU that has it, with XNNPACK's flag to use it everywhere.

XNNPACK computes its operators in float16; LiteRT runs the others, such as lookups, in float32.
"""

import os
from pathlib import Path

from pocketdiffusion.runtime.devices.compiled import CompiledRunner, check_signature, compile_model, reason
from pocketdiffusion.runtime.errors import ProofError
from pocketdiffusion.runtime.graph_spec import GraphSpec
from pocketdiffusion.runtime.runner import Runner

FORCE_FP16 = 4  # TFLITE_XNNPACK_DELEGATE_FLAG_FORCE_FP16 of xnnpack_delegate.h


def open_runner(path: Path, spec: GraphSpec) -> Runner:
    """Open `path` with float16 arithmetic. Raise as engines/tflite.py does, and ProofError on a CPU without float16
    arithmetic, where LiteRT refuses the flag."""
    threads = os.cpu_count() or 1
    try:
        model = compile_model(
            path, {"accelerator": "CPU", "cpu": {"num_threads": threads, "xnnpack_flags": FORCE_FP16}}
        )
    except RuntimeError as error:
        raise ProofError(f"{path}: LiteRT cannot load this file in float16: {reason(error)}") from None
    check_signature(path, spec, model)
    return CompiledRunner(spec, model)
