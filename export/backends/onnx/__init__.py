"""ONNX: graphs in onnx/NAME/model.onnx, each with its weights in a file next to it, run by onnxruntime."""

from pocketdiffusion.export.artifact import Artifact
from pocketdiffusion.export.backends.backend import Backend, Package
from pocketdiffusion.export.backends.lazy import Lazy, folder_functions
from pocketdiffusion.export.backends.onnx.activations import CHOICES
from pocketdiffusion.export.backends.onnx.refusals import refusal
from pocketdiffusion.quantize.scheme import FLOAT16, Scheme
from pocketdiffusion.runtime.engines.onnx import ENGINE

_SEARCHED = (Scheme("linear", 4, 32), Scheme("linear", 8), FLOAT16)

BACKEND = Backend(
    name="onnx",
    engine=ENGINE,
    profiles={
        "ort": "operators of ONNX and of onnxruntime",
        "std": "operators of ONNX only",
    },
    default=Artifact("onnx", "ort", "fp16", "cpu", ("fused_attention", "quick_gelu")),
    activations=CHOICES,
    **folder_functions(__name__),
    refusal=refusal,
    search_storages=lambda profile: _SEARCHED,
    compute_units=("cpu", "npu"),
    rewrites_refused={"split_timesteps": "this backend does not write constants of a program"},
    proved_on="cpu",
    tools=("onnx", "onnx_ir", "onnxruntime", "onnxscript"),
    packages=(
        Package("onnxruntime", "runs ONNX", "pip install onnxruntime"),
        Package("onnx", "exports ONNX", "pip install 'pocketdiffusion[export]'"),
    ),
    write_companions=Lazy(f"{__name__}.optimum_layout:write_optimum"),
)
