"""One artifact of a target, as its file states it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Artifact:
    """The format, profile, recipe, compute unit and rewrites of one artifact to emit."""

    format: str  # a folder of export/backends
    profile: str  # "ort": onnxruntime's own operators too; "std": standard operators only; "ios17": iOS 17 and later
    recipe: str  # a file of quantize/recipes, or the path of a JSON file of one
    compute_unit: str  # "cpu", "gpu", "ane": Apple's Neural Engine, "npu": Qualcomm's
    rewrites: tuple[str, ...]  # files of export/rewrites
    islands: tuple[str, ...] = ()  # activations that stay float32 in a graph of float16, found by the range audit
