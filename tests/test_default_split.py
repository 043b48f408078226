"""How many graphs the UNet of Stable Diffusion 1.5 becomes by default: from its configurations alone."""

import sys
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from support.command import call
from transformers import CLIPTextConfig, CLIPTextModel

from pocketdiffusion.checkpoint_outline import Outline, read_outline
from pocketdiffusion.choices import choose, fit_split
from pocketdiffusion.default_split import GOAL_SHARE, default_split, largest_need
from pocketdiffusion.estimates import plan_export
from pocketdiffusion.export.targets import load_target

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from full_size import TEXT, UNET, VAE  # noqa: E402


@pytest.fixture(scope="module")
def sd15() -> Outline:
    with torch.device("meta"):
        modules = {
            "text_encoder": CLIPTextModel(CLIPTextConfig(**TEXT)),
            "unet": UNet2DConditionModel(**UNET),
            "vae": AutoencoderKL(**VAE),
        }
    shapes = {part: {name: tuple(w.shape) for name, w in m.named_parameters()} for part, m in modules.items()}
    configs = {"text_encoder": TEXT, "unet": UNET, "vae": {**VAE, "latent_channels": 4}}
    return Outline("sd15", configs, shapes)


@pytest.mark.parametrize(
    ("phone", "recipe", "parts"),
    [
        ("pixel-8", None, 3),
        ("pixel-8", "w8", 1),  # integers stay integers in memory
        ("galaxy-s24", None, 2),
        ("galaxy-a13", None, 4),
        ("iphone-15", None, 1),  # float16 is not widened
        ("generic", None, 1),  # states no memory
    ],
)
def test_parts_of_stable_diffusion(sd15: Outline, phone: str, recipe: str | None, parts: int) -> None:
    target = choose(load_target(phone), recipe, None, None)
    fitted, line = default_split(sd15, target, 512, 512)
    assert fitted.split_unet == parts
    assert (f"written as {parts} graphs" in line) == (parts > 1)


def test_a_pixel_needs_less_than_three_gigabytes(sd15: Outline) -> None:
    """And one part less would need more."""
    target = choose(load_target("pixel-8"), None, None, None)
    plan = plan_export(sd15, target, width=512, height=512)
    two, three = (largest_need(plan, choose(target, None, None, None, parts)) for parts in (2, 3))
    assert two is not None and three is not None
    assert three <= 3.0e9 < two
    assert plan.ram_bytes is not None and 3.0e9 <= GOAL_SHARE * plan.ram_bytes < 3.01e9


def test_what_the_user_gives_and_small_models_stay() -> None:
    pixel = load_target("pixel-8")
    assert default_split(read_outline("emoji"), pixel, None, None) == (pixel, "")
    assert fit_split("emoji", pixel, 2, None, None) == (pixel, "")
    assert fit_split("user/model", pixel, None, None, None) == (pixel, "")


def test_recipes_that_name_weights_by_graph_decide_themselves(sd15: Outline) -> None:
    searched = choose(load_target("pixel-8"), "mixed", None, None)
    assert default_split(sd15, searched, 512, 512) == (searched, "")


def test_the_command_says_it() -> None:
    """Weights are few, the tensors of a picture of this size are not: no number of parts helps."""
    done = call("export", "--plan", "--target", "galaxy-a13", "--size", "2048x2048")
    assert done.returncode == 0 and "written as" not in done.stderr
