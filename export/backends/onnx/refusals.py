"""The schemes that an ONNX graph cannot hold, and why."""

from pocketdiffusion.export.backends.backend import Refusal
from pocketdiffusion.quantize.scheme import Scheme

NARROW = 4  # bits of int4


def refusal(scheme: Scheme, profile: str) -> Refusal | None:
    """Return why an artifact of `profile` cannot store a weight by `scheme`, None if it can."""
    if scheme.kind == "palette":
        reason = "ONNX looks values up in a table by indices of 32 bits or more, which are as large as the weights"
        return Refusal(reason, "w8" if scheme.bits > NARROW else "w4")
    if scheme.activation == "float":
        return None
    if scheme.kind == "float":
        return Refusal("an integer product needs integer weights", "w8a8")
    if scheme.group:
        return Refusal("an integer product needs one scale for each output channel, and no blocks", "w8a8")
    if scheme.activation == "int16" and profile != "std":
        reason = "onnxruntime computes nothing in int16; the graph for Qualcomm's processors is of profile std"
        return Refusal(reason, "w8a8")
    return None
