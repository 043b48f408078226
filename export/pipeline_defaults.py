"""The default arguments of the original's own pipeline, from the signatures of diffusers' classes."""

import inspect
from collections.abc import Mapping
from typing import Any

import diffusers

from pocketdiffusion.export.checkpoints.checkpoint import Checkpoint
from pocketdiffusion.export.families import find_family
from pocketdiffusion.runtime.bundle.manifest import Defaults


def read_defaults(checkpoint: Checkpoint) -> Defaults:
    """Return steps and guidance of the family's pipeline from text, and the strength of its pipeline from pictures;
    0.8, the default of most of diffusers' pipelines, if the family has no such pipeline."""
    family = find_family(checkpoint)
    text = _parameters(family.PIPELINE)
    pictures = next((found for name in family.PIPELINES if "strength" in (found := _parameters(name))), {})
    return Defaults(
        steps=text["num_inference_steps"], guidance=text["guidance_scale"], strength=pictures.get("strength", 0.8)
    )


def _parameters(name: str) -> Mapping[str, Any]:
    """Return the defaults of the arguments of diffusers' class `name` when it draws, by name."""
    signature = inspect.signature(getattr(diffusers, name).__call__)
    return {key: parameter.default for key, parameter in signature.parameters.items()}
