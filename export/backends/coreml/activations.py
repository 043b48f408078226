"""The forms of activations in Core ML packages: the same in every profile."""

from pocketdiffusion.export.backends.activation_choice import FUSED_GELU, Choice, Choices

CHOICES: Choices = {
    "silu": Choice("fused", "silu", "Core ML's own operator: rounds once, and no sigmoid"),
    "quick_gelu": Choice("fused", "gelu(SIGMOID_APPROXIMATION)", "Core ML's own operator: rounds once"),
    "gelu": Choice("fused", "gelu(EXACT)", FUSED_GELU),
}
