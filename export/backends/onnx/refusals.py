"""What an ONNX graph cannot hold, and why."""

from pocketdiffusion.export.backends.backend import Refusal
from pocketdiffusion.quantize.scheme import Scheme

NARROW = 4  # bits: what int4 holds


def refusal(scheme: Scheme, profile: str) -> Refusal | None:
    """Return why an artifact of `profile` cannot hold a weight by `scheme`, None where it can."""
    if scheme.kind == "palette":
        reason = (
            "ONNX looks values up in a table by indices of 32 bits or more, which would take as much as the weights"
        )
        return Refusal(reason, "w8" if scheme.bits > NARROW else "w4")
    if scheme.activation == "float":
        return None
    if scheme.kind == "float":
        return Refusal("a product of integers takes weights that are integers", "w8a8")
    if scheme.group:
        return Refusal("a product of integers takes one scale for each output channel, and no blocks", "w8a8")
    if scheme.activation == "int16" and profile != "std":
        reason = "onnxruntime computes nothing in int16; the graph for Qualcomm's processors is of profile std"
        return Refusal(reason, "w8a8")
    return None
