"""Stable Diffusion XL, narrow and with random weights, in Core ML and TFLite: bundles that pass the gate, and draw from
a prompt and from a picture what diffusers' pipelines draw."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diffusers import StableDiffusionXLImg2ImgPipeline
from PIL import Image
from safetensors.numpy import load_file, save_file
from support.sdxl import decibels, draw_floats, open_diffusers, write_sdxl

from pocketdiffusion.build import export
from pocketdiffusion.choices import ExportOptions
from pocketdiffusion.runtime.bundle.bundle import Bundle
from pocketdiffusion.runtime.pipeline import draw

pytestmark = pytest.mark.slow  # each export takes up to a minute

PROMPT, NEGATIVES = "a red apple!", (None, "grey!")
# The decoder's stream of residuals is 2^15 times as large, which its norms take out again: as SDXL's own VAE, it
# overflows in float16.
LOUD = ("decoder.conv_in.", ".conv2.", ".conv_shortcut.bias", ".to_out.0.", ".upsamplers.0.conv.bias")


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_sdxl(tmp_path_factory.mktemp("sdxl") / "loud")
    file = folder / "vae/diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    loud = {name: w * np.float32(2**15) for name, w in weights.items() if any(end in name for end in LOUD)}
    save_file({**weights, **loud}, file)
    return folder


def check_pictures(sdxl: Path, bundle: Bundle, least: float) -> None:
    """At least `least` dB from what diffusers draws of the same seed: from a prompt, and from a picture."""
    size = {"width": 24, "height": 16}
    for negative in NEGATIVES:
        given: dict[str, Any] = {"negative_prompt": negative, "num_inference_steps": 4, "guidance_scale": 5.0}
        own: dict[str, Any] = {"negative_prompt": negative, "steps": 4, "guidance": 5.0}
        theirs = draw_floats(open_diffusers(sdxl), PROMPT, 7, **given, **size)
        assert decibels(bundle, theirs, PROMPT, seed=7, **own) > least
        start = draw(bundle, "a cat", seed=3, steps=2)
        again = open_diffusers(sdxl, StableDiffusionXLImg2ImgPipeline)
        theirs = draw_floats(again, PROMPT, 5, image=Image.fromarray(start), strength=0.6, **given)
        assert decibels(bundle, theirs, PROMPT, seed=5, image=start, strength=0.6, **own) > least


@pytest.mark.parametrize(
    ("target", "format", "recipe", "least"),
    [
        ("iphone-15", "coreml", "fp32", 95.0),
        ("iphone-15", "coreml", "fp16", 35.0),
        ("galaxy-s24", "tflite", "fp32", 95.0),
    ],
)
def test_a_format_draws_what_diffusers_draws(
    target: str, format: str, recipe: str, least: float, sdxl: Path, tmp_path: Path
) -> None:
    bundle = export(
        str(sdxl), target, tmp_path / "out", ExportOptions(format=format, recipe=recipe, width=24, height=16)
    )
    assert all(verdict.passed for verdict in bundle.manifest.verdicts)
    check_pictures(sdxl, bundle, least)
