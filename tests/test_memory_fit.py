"""Whether a phone's memory suffices, and what is proposed: by hand, for a model of Stable Diffusion 1.5's size."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from support.command import call

from pocketdiffusion.checkpoint_outline import read_outline
from pocketdiffusion.choices import choose
from pocketdiffusion.estimates import decoder_share, plan_export
from pocketdiffusion.export.artifact import Artifact
from pocketdiffusion.export.targets import load_target
from pocketdiffusion.memory_fit import (
    FACTOR,
    OVERHEAD,
    Need,
    Phone,
    Stages,
    app_needs,
    other_shares,
    smaller_recipes,
    warn_of_format,
    warn_of_memory,
    warn_of_plan,
)
from pocketdiffusion.runtime.bundle.bundle import open_bundle
from pocketdiffusion.runtime.bundle.graph_needs import Memory

ONNX = Artifact("onnx", "ort", "fp16", "cpu", ())


def need(millions: float, activations_mb: int, loading_mb: int | None = None) -> Need:
    """A graph of so many weights, which are held in float32."""
    loading = None if loading_mb is None else loading_mb * 1_000_000
    memory = Memory(
        weights_bytes=int(4e6 * millions),
        activations_bytes=activations_mb * 1_000_000,
        loading_bytes=loading,
        counted="",
    )
    return Need(int(1e6 * millions), memory)


TEXT, DECODER = [need(123, 3)], [need(49.5, 800)]
SD15 = {"encode_prompt": TEXT, "denoise": [need(859.5, 300, 5950)], "decode": DECODER}
SPLIT = {**SD15, "denoise": [need(430, 300, 2900), need(430, 300, 2900)]}


def told(gigabytes: float, artifact: Artifact, stages: Stages, shares: Mapping[str, float] = {}) -> str:
    return "".join(warn_of_format(Phone("a phone", int(gigabytes * 2**30)), artifact, stages, shares))


def test_what_fits_is_not_warned_of() -> None:
    assert told(16, ONNX, SD15) == ""
    assert app_needs(SD15, low_memory=True) == int(FACTOR * 5950e6) + OVERHEAD


def test_the_first_proposal_that_fits_is_made() -> None:
    line = told(8, ONNX, SD15)
    assert line.startswith(
        "WARNING: drawing with the onnx graphs needs about 6612 MB, 6612 MB with one graph at a time, "
    )
    assert "an app gets about 4295 MB on a phone: export with --recipe w8, about 947 MB, or --split-unet 2 and" in line
    assert line.endswith("one graph at a time (--low-memory), about 3667 MB")
    assert told(8, ONNX, SPLIT).endswith("a phone: open one graph at a time (--low-memory)")
    assert told(4, ONNX, SPLIT).endswith("export with --recipe w8, about 947 MB")
    wide = {**SD15, "denoise": [need(430, 500), need(430, 500)]}
    assert told(2, ONNX, wide).endswith("--recipe w8 and one graph at a time (--low-memory), about 947 MB")
    assert told(2, ONNX, SD15).endswith("export with --recipe w8, about 947 MB")
    assert told(1, ONNX, SD15).endswith("nothing else fits, export for a smaller --size")


def test_another_way_to_decode_is_proposed() -> None:
    """Where the decoder needs most: the exact way, or else blended tiles, alone, or else with something else."""
    shares = {"exact": 0.8, "blended": 0.25}
    large = {"encode_prompt": TEXT, "denoise": [need(430, 300)] * 2, "decode": [need(49.5, 3200)]}
    low = "and one graph at a time (--low-memory)"
    assert told(6, ONNX, large, shares).endswith(f"a phone: export with --vae-tiles exact {low}, about 3101 MB")
    assert told(5, ONNX, large, shares).endswith(f"a phone: export with --vae-tiles blended {low}, about 2289 MB")
    assert told(4, ONNX, large, shares).endswith("export with --vae-tiles blended and --recipe w8, about 947 MB")
    assert told(4, ONNX, large).endswith("nothing else fits, export for a smaller --size")
    integers = Artifact("tflite", "std", "dynamic8", "cpu", ())
    assert "--vae-tiles exact" not in told(6, integers, large, shares), "it is refused with integers"


def test_shares_of_the_decoders_tensors() -> None:
    assert decoder_share("blended", 64, 64, 8) == 56**2 / 64**2
    assert [decoder_share(way, 128, 128, 8) for way in ("none", "exact", "blended")] == [1, 643 / 806, 0.25]
    assert other_shares(2, 2, 8, "none").keys() == {"exact"}, "too small for tiles"
    assert other_shares(128, 128, 8, "none") == {"exact": 643 / 806, "blended": 0.25}
    assert other_shares(128, 128, 8, "exact") == {"blended": 0.25 / (643 / 806)}
    assert other_shares(128, 128, 8, "blended") == {}


def test_what_is_not_known_is_not_warned_of() -> None:
    assert told(1, ONNX, {**SD15, "decode": [Need(1, None)]}) == ""


@pytest.mark.parametrize(
    ("artifact", "recipes"),
    [
        (ONNX, {"w8": 0, "w8a8": 1, "dynamic8": 1, "w4": 1}),  # w8's integers are read where the file is mapped
        (replace(ONNX, recipe="w4"), {"w8": 0}),
        (Artifact("tflite", "std", "fp16", "cpu", ()), {"dynamic8": 1}),  # w8 is widened beside its integers
        (Artifact("coreml", "ios17", "fp32", "gpu", ()), {"fp16": 2, "w8": 2}),
    ],
)
def test_recipes_with_fewer_bytes_in_memory(artifact: Artifact, recipes: dict[str, float]) -> None:
    found = smaller_recipes(artifact)
    assert {name: found.get(name) for name in recipes} == recipes
    assert artifact.format == "coreml" or found == recipes


def test_a_bundle_and_a_plan(tiny_bundle: Path) -> None:
    """The sizes of the smallest models fit any phone; a phone of a few MB has no room for them."""
    manifest = open_bundle(tiny_bundle).manifest
    assert warn_of_memory(manifest) == [], "the target does not state its memory"
    for megabytes, count in ((8192, 0), (64, 1)):
        target = manifest.target.model_copy(update={"memory_mb": megabytes})
        lines = warn_of_memory(manifest.model_copy(update={"target": target}))
        assert len(lines) == count and all("on Any device" in line for line in lines)
    pixel = choose(load_target("pixel-8"), None, None, None)
    plan = plan_export(read_outline("emoji"), pixel)
    assert warn_of_plan(plan, pixel) == []
    (line,) = warn_of_plan(replace(plan, ram_bytes=128 * 2**20), pixel)
    assert "the onnx graphs" in line and "on Google Pixel 8" in line


def test_the_command_says_it() -> None:
    """The decoder's tensors for 2048x2048 pixels take more than an app gets on a phone of 4 GB."""
    done = call("export", "--plan", "--target", "galaxy-a13", "--size", "2048x2048")
    assert done.returncode == 0
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("WARNING")]
    assert "an app gets about 2147 MB on Samsung Galaxy A13, 4 GB" in line
