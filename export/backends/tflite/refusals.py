"""The schemes that a TFLite file cannot hold, and why. Measured with LiteRT 2.3.0; times: built-in UNet, one thread."""

from pocketdiffusion.export.backends.backend import Refusal
from pocketdiffusion.quantize.scheme import Scheme

LARGEST = 2**31 - 1  # bytes: offsets in a flatbuffer have 32 bits, signed in most readers


def refusal(scheme: Scheme, profile: str) -> Refusal | None:
    """Return why an artifact of `profile` cannot store a weight by `scheme`, None if it can."""
    if scheme.kind == "palette":
        return Refusal("TFLite has no tables of values for weights", "w8")
    if scheme.kind == "float" and scheme.activation != "float":
        return Refusal("an operator in integers needs integer weights", "w8a8")
    if scheme.group:
        reason = (
            "LiteRT supports scales of blocks only in matrix products: a convolution or a DEQUANTIZE of such weights "
            "is as wrong as with weights of zeros"
        )
        return Refusal(reason, "w8")
    if scheme.activation == "int16":
        reason = "LiteRT has no fast kernel for activations of int16: a UNet runs 13 times as long as in float32"
        return Refusal(reason, "w8")
    return None
