"""export --plan: sizes are those of real exports, estimates are near what was measured, torch is not imported."""

import json
from pathlib import Path

import pytest
from support.command import call, refusal
from test_cli_at_once import ask

from pocketdiffusion.checkpoint_outline import read_outline
from pocketdiffusion.choices import choose
from pocketdiffusion.estimates import ExportPlan, original_steps, plan_export, read_costs
from pocketdiffusion.export.backends import backend_names
from pocketdiffusion.export.targets import load_target
from pocketdiffusion.runtime.bundle.bundle import Bundle

# CPU seconds of an export of the built-in model on one thread, measured on 29 November 2026
MEASURED_SECONDS = {"pixel-8": 36.4, "galaxy-s24": 93.1, "iphone-15": 80.1}


def planned(target: str, recipe: str | None = None) -> ExportPlan:
    return plan_export(read_outline("emoji"), choose(load_target(target), recipe, None, None))


@pytest.mark.parametrize("target", MEASURED_SECONDS)
def test_the_time_is_near_what_was_measured(target: str) -> None:
    assert 0.7 < (planned(target).cpu_seconds or 0) / MEASURED_SECONDS[target] < 1.4


@pytest.mark.parametrize(
    ("target", "recipe", "unet_mb", "held_mb"),
    [
        ("pixel-8", "fp16", 21.35, 42.08),
        ("galaxy-s24", "fp16", 21.31, 42.08),
        ("iphone-15", "fp16", 21.57, 21.06),
        ("galaxy-s24", "w8", 10.9, 87),
        ("galaxy-s24", "dynamic8", 10.9, 15),
    ],
)
def test_sizes_are_near_what_bundles_have(target: str, recipe: str, unet_mb: float, held_mb: float) -> None:
    """The UNet of the built-in model: bytes of its files, and of its weights as the engine holds them."""
    (unet,) = (part for part in planned(target, recipe).parts if part.part == "unet")
    assert unet.nbytes / 1e6 == pytest.approx(unet_mb, rel=0.05)
    assert unet.memory_bytes is not None and unet.memory_bytes / 1e6 == pytest.approx(held_mb, rel=0.35)


@pytest.mark.slow  # exports the built-in model
def test_the_plan_of_a_real_bundle(emoji_fp16: Bundle) -> None:
    graphs, files = emoji_fp16.manifest.graphs["onnx"], emoji_fp16.manifest.files
    plan = planned("pixel-8", "fp16")
    real = sum(files[path].size for graph in graphs.values() for path in graph.files)
    assert sum(part.nbytes for part in plan.parts) == pytest.approx(real, rel=0.05)
    held = sum(graph.memory.weights_bytes or 0 for graph in graphs.values() if graph.memory)
    tensors = max(graph.memory.activations_bytes or 0 for graph in graphs.values() if graph.memory)
    assert plan.memory_bytes["onnx"] == pytest.approx(held + tensors, rel=0.1)


def test_the_original_draws_each_request_and_three_controls() -> None:
    assert original_steps("full") == (156, 16) and original_steps("quick") == (6, 2)


def test_more_pixels_take_more() -> None:
    outline, target = read_outline("emoji"), load_target("pixel-8")
    small, large = (plan_export(outline, target, width=size, height=size) for size in (64, 512))
    assert large.cpu_seconds and small.cpu_seconds and large.cpu_seconds > 2 * small.cpu_seconds
    assert (large.width, large.height) == (512, 512)
    assert (large.memory_bytes["onnx"] or 0) > 2 * (small.memory_bytes["onnx"] or 0)


def test_a_decoder_in_stripes_or_tiles_takes_less() -> None:
    outline, pixel = read_outline("emoji"), load_target("pixel-8")
    whole, stripes, tiles = (
        plan_export(outline, choose(pixel, None, None, None, vae_tiles=kind), width=1024, height=1024).tensor_bytes[
            "onnx"
        ]
        for kind in ("none", "exact", "blended")
    )
    assert tiles == whole / 4 and tiles < stripes < whole
    half = ("export", "--plan", "--target", "pixel-8", "--vae-tiles", "blended", "--size", "128x128")
    assert json.loads(call(*half, "--vae-tile-size", "64", "--json").stdout)["tensor_bytes"]["onnx"] == 3145728
    assert "--vae-tile-size 30 is not possible" in refusal(*half, "--vae-tile-size", "30")


def test_every_format_has_its_costs() -> None:
    for format in backend_names():
        costs = read_costs(format)
        assert costs is not None and costs["measured"] and costs["weight_bytes"]["float32"] == 4


def test_the_command_prints_it_without_torch() -> None:
    last, said, error = ask("export", "--plan", "--target", "pixel-8")
    assert last == "[] 0" and not error
    for word in ("unet", "fp16", "MB of memory on the phone", "of its 8 GB", "156 denoising steps", "CPU minutes"):
        assert word in said
    found = json.loads(call("export", "--plan", "--target", "pixel-8", "--json").stdout)
    assert found["estimate"] is True and found["steps"] == 156 and len(found["parts"]) == 3


def test_integer_activations_are_calibrated() -> None:
    floats, integers = planned("pixel-8", "w8"), planned("pixel-8", "w8a16")
    assert (floats.calibration_steps, integers.calibration_steps) == (0, 160)
    assert floats.cpu_seconds and integers.cpu_seconds and integers.cpu_seconds > 1.1 * floats.cpu_seconds
    said = call("export", "--plan", "--target", "pixel-8", "--recipe", "w8a16").stdout
    assert "to calibrate activations, it draws 160 steps more" in said


def test_plan_refuses_what_it_cannot_read(tmp_path: Path) -> None:
    plan = ("export", "--plan", "--target", "pixel-8")
    assert "multiples of 4" in refusal(*plan, "--size", "63x64")
    assert "is not a folder in diffusers' format" in refusal(*plan, "some/model")
    assert not list(tmp_path.iterdir())


def test_plan_of_a_recipe_from_a_file(tmp_path: Path) -> None:
    """Its schemes are by graph and weight. The file says that its weights have 15.20 MB."""
    recipe = Path(__file__).parents[1] / "benchmarks/mixed6.json"
    found = planned("iphone-15", str(recipe))
    assert sum(part.nbytes for part in found.parts) / 1e6 == pytest.approx(15.2, rel=0.001)
