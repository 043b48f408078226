"""What a TFLite file cannot hold, and why: measured with LiteRT 2.3.0; times are the built-in UNet's, on one thread."""

from pocketdiffusion.export.backends.backend import Refusal
from pocketdiffusion.quantize.scheme import Scheme

LARGEST = 2**31 - 1  # bytes: offsets in a flatbuffer are of 32 bits, signed in most readers


def refusal(scheme: Scheme, profile: str) -> Refusal | None:
    """Return why an artifact of `profile` cannot hold a weight by `scheme`, None where it can."""
    if scheme.kind == "palette":
        return Refusal("TFLite has no tables of values for weights", "w8")
    if scheme.kind == "float" and scheme.activation != "float":
        return Refusal("an operator that takes integers takes weights of integers", "w8a8")
    if scheme.group:
        reason = (
            "LiteRT knows scales of blocks in matrix products alone: a convolution or a DEQUANTIZE of such weights "
            "comes out as wrong as zeros would be"
        )
        return Refusal(reason, "w8")
    if scheme.activation == "int16":
        reason = "LiteRT has no fast kernel for activations of int16: a UNet takes 13 times as long as in float32"
        return Refusal(reason, "w8")
    return None
