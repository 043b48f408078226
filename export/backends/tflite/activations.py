"""The forms of activations in TFLite files."""

from pocketdiffusion.export.backends.activation_choice import FUSED_GELU, NO_TANH, Choice, Choices

CHOICES: Choices = {
    "silu": Choice("product", "LOGISTIC, MUL", f"LiteRT has no operator for it; {NO_TANH}"),
    "quick_gelu": Choice("product", "MUL, LOGISTIC, MUL", f"LiteRT has no operator for it; {NO_TANH}"),
    "gelu": Choice("fused", "GELU", FUSED_GELU),
}
