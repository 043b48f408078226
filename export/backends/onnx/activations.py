"""The forms of activations in ONNX graphs, by profile."""

from collections.abc import Mapping

from pocketdiffusion.export.backends.activation_choice import FUSED_GELU, NO_TANH, Choice, Choices

CHOICES: Mapping[str, Choices] = {
    "ort": {
        "silu": Choice(
            "fused", "QuickGelu(alpha=1)", "onnxruntime's kernel: the fastest form measured, and no sigmoid"
        ),
        "quick_gelu": Choice("fused", "QuickGelu(alpha=1.702)", "onnxruntime's kernel: the fastest form measured"),
        "gelu": Choice("fused", "Gelu", FUSED_GELU),
    },
    "std": {
        "silu": Choice("product", "Sigmoid, Mul", f"the standard has no operator for it before opset 24; {NO_TANH}"),
        "quick_gelu": Choice("product", "Mul, Sigmoid, Mul", f"the standard has no operator for it; {NO_TANH}"),
        "gelu": Choice("fused", "Gelu", FUSED_GELU),
    },
}
