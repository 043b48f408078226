"""What the tests of compressed Core ML packages share: artifacts, and plans that treat all matrices alike."""

from dataclasses import replace

from pocketdiffusion.export.component import Component
from pocketdiffusion.export.matrices import weights_of
from pocketdiffusion.export.targets import Artifact
from pocketdiffusion.quantize.scheme import Plan, Scheme
from pocketdiffusion.runtime.runner import Array

PLAIN = ("fused_attention", "quick_gelu")
SPLIT = ("split_einsum", *PLAIN)
INT8 = Scheme("linear", 8, activation="int8")


def artifact(profile: str, rewrites: tuple[str, ...] = PLAIN, islands: tuple[str, ...] = ()) -> Artifact:
    return Artifact("coreml", profile, "own", "gpu", rewrites, islands)


def uniform(part: Component, scheme: Scheme) -> Plan:
    """Embeddings take no integers."""
    found = weights_of(part)
    calm = replace(scheme, activation="float")
    return Plan("own", {name: calm if w.operator == "embedding" else scheme for name, w in found.items()})


def feeds(part: Component) -> dict[str, Array]:
    return {name: tensor.numpy() for name, tensor in part.example(0).items()}
