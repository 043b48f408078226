"""What a target asks for in one format."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Artifact:
    """What to emit: the format, its dialect, the precision, the unit it is meant to run on, the rewrites before it."""

    format: str  # a folder of export/backends
    profile: str  # "ort": onnxruntime's own operators too; "std": the standard's alone; "ios17": from that system on
    recipe: str  # a file of quantize/recipes, or the path of a JSON file of one
    compute_unit: str  # "cpu", "gpu", "ane": Apple's Neural Engine, "npu": Qualcomm's
    rewrites: tuple[str, ...]  # files of export/rewrites
    islands: tuple[str, ...] = ()  # results that stay float32 in a graph of float16: found by the range audit
