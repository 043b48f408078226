"""TFLite: files tflite/NAME.tflite with their weights inside, run by LiteRT and by TensorFlow Lite."""

from pocketdiffusion.export.artifact import Artifact
from pocketdiffusion.export.backends.backend import Backend, Package
from pocketdiffusion.export.backends.lazy import folder_functions
from pocketdiffusion.export.backends.tflite.activations import CHOICES
from pocketdiffusion.export.backends.tflite.refusals import LARGEST, refusal
from pocketdiffusion.quantize.scheme import FLOAT16, Scheme
from pocketdiffusion.runtime.engines.tflite import ENGINE

CONVERTER = Package("litert-torch", "exports TFLite", "pip install --no-deps -r requirements-tflite.txt")
_FLAT = ("chunked_attention", "centred_group_norm", "centred_layer_norm", "quick_gelu")
_SEARCHED = (Scheme("linear", 8), FLOAT16)

BACKEND = Backend(
    name="tflite",
    engine=ENGINE,
    profiles={"std": "built-in operators of TFLite only"},
    default=Artifact("tflite", "std", "fp16", "gpu", _FLAT),
    activations={"std": CHOICES},
    **folder_functions(__name__),
    refusal=refusal,
    search_storages=lambda profile: _SEARCHED,
    compute_units=("cpu", "gpu"),
    layout="channels_last",
    proved_on="cpu",
    largest=LARGEST,
    xnnpack_rounding=True,
    tools=("ai-edge-litert", "litert-converter", "litert-torch"),
    packages=(Package("ai-edge-litert", "runs TFLite", "pip install 'pocketdiffusion[tflite]'"), CONVERTER),
    converter=CONVERTER,
)
