"""The defaults of the original's own pipeline, read off the signatures of diffusers' classes."""

import inspect
from collections.abc import Mapping
from typing import Any

import diffusers

from pocketdiffusion.export.checkpoints.checkpoint import Checkpoint
from pocketdiffusion.export.families import find_family
from pocketdiffusion.runtime.bundle.manifest import Defaults


def read_defaults(checkpoint: Checkpoint) -> Defaults:
    """Steps and guidance of the family's pipeline from text, strength of its pipeline from pictures; of a family that
    has none such, 0.8, as most of diffusers' pipelines have it."""
    family = find_family(checkpoint)
    text = _parameters(family.PIPELINE)
    pictures = next((found for name in family.PIPELINES if "strength" in (found := _parameters(name))), {})
    return Defaults(
        steps=text["num_inference_steps"], guidance=text["guidance_scale"], strength=pictures.get("strength", 0.8)
    )


def _parameters(name: str) -> Mapping[str, Any]:
    """What the class `name` of diffusers draws with by default, by the names of its arguments."""
    signature = inspect.signature(getattr(diffusers, name).__call__)
    return {key: parameter.default for key, parameter in signature.parameters.items()}
