"""The schemes that an ML program cannot hold, and why: each system supports other compressed weights."""

from pocketdiffusion.export.backends.backend import Refusal
from pocketdiffusion.quantize.scheme import Scheme

_BITS_BEFORE_18 = (1, 2, 4, 6, 8)


def refusal(scheme: Scheme, profile: str) -> Refusal | None:
    """Return why an artifact of `profile` cannot store a weight by `scheme`, None if it can."""
    if scheme.activation in ("int16", "dynamic"):
        only = "supports only integers of 8 bits" if scheme.activation == "int16" else "needs a constant scale"
        return Refusal(f"its operator quantize {only}", "w8" if profile == "ios16" else "w8a8")
    if scheme.activation == "int8" and profile == "ios16":
        return Refusal("its operator quantize exists from iOS 17 on", "w8")
    if profile == "ios18" or scheme.kind == "float":
        return None
    since = "exist from iOS 18 on"
    if scheme.kind == "linear" and scheme.bits < 5:
        return Refusal(f"integers of less than 8 bits {since}", "palette4")
    if scheme.kind == "linear" and scheme.group:
        return Refusal(f"scales for blocks of input channels {since}", "w8")
    if scheme.kind == "palette" and scheme.bits not in _BITS_BEFORE_18:
        return Refusal(f"tables of {2**scheme.bits} values {since}", "palette4")
    if scheme.kind == "palette" and scheme.group:
        return Refusal(f"tables for groups of output channels {since}", f"palette{max(scheme.bits, 4)}")
    return None
