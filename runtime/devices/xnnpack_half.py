"""TFLite artifacts with arithmetic in float16: LiteRT on a CPU that has it, XNNPACK told to use it everywhere.

What it computes in float16 are the operators that XNNPACK takes; LiteRT runs the others (lookups, for one) in float32.
"""

import os
from pathlib import Path

from pocketdiffusion.runtime.devices.compiled import CompiledRunner, check_signature, compile_model, reason
from pocketdiffusion.runtime.errors import ProofError
from pocketdiffusion.runtime.graph_spec import GraphSpec
from pocketdiffusion.runtime.runner import Runner

FORCE_FP16 = 4  # TFLITE_XNNPACK_DELEGATE_FLAG_FORCE_FP16 of xnnpack_delegate.h


def open_runner(path: Path, spec: GraphSpec) -> Runner:
    """Raises as engines/tflite.py does. On a CPU without arithmetic in float16 LiteRT refuses the flag."""
    threads = os.cpu_count() or 1
    try:
        model = compile_model(
            path, {"accelerator": "CPU", "cpu": {"num_threads": threads, "xnnpack_flags": FORCE_FP16}}
        )
    except RuntimeError as error:
        raise ProofError(f"{path}: LiteRT cannot load this file in float16: {reason(error)}") from None
    check_signature(path, spec, model)
    return CompiledRunner(spec, model)
