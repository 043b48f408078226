"""Fixtures that several test files share."""

import os
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from filelock import FileLock

from pocketdiffusion.runtime.bundle.bundle import Bundle, open_bundle

if TYPE_CHECKING:
    from support.family_cases import Model

for name in ("COLUMNS", "LINES"):  # pytest-xdist's workers get these, and the commands that tests run would obey them
    os.environ.pop(name, None)

# The files that take longest come first, so that no worker is left alone with one at the end. With --until the last are
# those that may be skipped: they repeat at full size, or with other programs, what the first ones prove.
LONGEST = (
    "test_android_engine",
    "test_faults",  # not of the bundles that the first worker exports: the second would wait for them
    "test_swift_engine",
    "test_onnx_products",
    "test_foreign_reader",
    "test_faults_formats",
    "test_backends",
    "test_coreml",
    "test_tflite",
    "test_recipes",
    "test_float16_audit",
    "test_compare",
    "test_onnx",
    "test_split_unet",
    "test_blended_tiles",
    "test_layerwise",
    "test_sdxl_formats",
    "test_coreml_split_einsum",
    "test_export_cut_short",
    "test_sensitivity",
    "test_sensitivity_table",
    "test_staging_processes",
)
LAST = ("test_rewrites_tiled_decoder", "test_optimum", "test_packaging", "test_full_size")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kit", type=Path, help="a reader's kit that is there; by default the tests write one")
    parser.addoption(
        "--tensorflow", type=Path, help="an environment with tensorflow.txt; by default the tests make one"
    )
    parser.addoption(
        "--until", type=float, help="seconds since 1970: slow tests that have not begun by then are skipped"
    )
    parser.addoption("--share", help="K/N: slow tests of every N-th file that has any, from number K (0 to N - 1) on")


def pytest_runtest_setup(item: pytest.Item) -> None:
    until = item.config.getoption("--until")
    if until is not None and time.time() > until and item.get_closest_marker("slow"):
        pytest.skip("not run: the time given by --until is over")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    order = {name: place for place, name in enumerate(LONGEST)} | {name: len(items) for name in LAST}
    items.sort(key=lambda item: order.get(item.path.stem, len(LONGEST)))
    if config.getoption("--share") is not None:
        first, count = map(int, config.getoption("--share").split("/"))
        slow = [item for item in items if item.get_closest_marker("slow")]
        files = list(dict.fromkeys(item.path for item in slow))  # whole files, whose tests share their exports
        left_out = {item for item in slow if item.path not in files[first::count]}
        config.hook.pytest_deselected(items=[item for item in items if item in left_out])
        items[:] = [item for item in items if item not in left_out]


TOKENIZER = Path(__file__).parents[1] / "pocketdiffusion/models/emoji/tokenizer"


@pytest.fixture(scope="session")
def tokenizer_folder() -> Path:
    """CLIP's real vocabulary and merges, as the built-in model carries them."""
    return TOKENIZER


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory, tokenizer_folder: Path) -> Path:
    """A diffusers folder of a Stable Diffusion with random weights: 16x16x4 latents, 32x32 pictures, 77x32 states.

    Its scheduler is SD1.5's, with SD1.5's oddities (PNDM, skip_prk_steps, steps_offset 1). Read it, never write to it.
    """
    import torch
    from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    folder = tmp_path_factory.mktemp("tiny")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        unet = UNet2DConditionModel(
            sample_size=16,
            block_out_channels=(16, 32),
            layers_per_block=1,
            norm_num_groups=8,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            cross_attention_dim=32,
            attention_head_dim=4,
        )
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            block_out_channels=(8, 16),
            layers_per_block=1,
            norm_num_groups=4,
            sample_size=32,
            shift_factor=0.35,  # which diffusers' pipelines of Stable Diffusion do not apply
        )
        text_encoder = CLIPTextModel(
            CLIPTextConfig(
                vocab_size=49408,
                hidden_size=32,
                intermediate_size=64,
                num_hidden_layers=2,
                num_attention_heads=4,
                projection_dim=32,
                bos_token_id=49406,
                eos_token_id=49407,
                pad_token_id=49407,
            )
        )
        for module in (unet, vae, text_encoder):  # biases and norms start as zeros and ones, which would hide mistakes
            for param in module.parameters():
                if param.ndim == 1:
                    param.data.add_(0.1 * torch.randn_like(param))
    scheduler = PNDMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        num_train_timesteps=1000,
        set_alpha_to_one=False,
        skip_prk_steps=True,
        steps_offset=1,
    )
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=CLIPTokenizer.from_pretrained(tokenizer_folder, model_max_length=77),
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder, safe_serialization=True)
    shutil.copytree(tokenizer_folder, folder / "tokenizer", dirs_exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def micro_checkpoint(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `tiny_checkpoint`, with the fewest layers that have all kinds of sites: pictures of 8x8, states of 16.
    For tests that emit a graph many times. Read it, never write to it."""
    from support.family_cases import MICRO, write_checkpoint

    return write_checkpoint(tiny_checkpoint, tmp_path_factory.mktemp("micro") / "micro", MICRO).folder


@pytest.fixture
def make(tiny_checkpoint: Path, tmp_path: Path) -> "Callable[..., Model]":
    """Writes the checkpoint of a `family_cases.Case`."""
    from support.family_cases import write_checkpoint

    return partial(write_checkpoint, tiny_checkpoint, tmp_path / "made")


def shared_folder(factory: pytest.TempPathFactory) -> Path:
    """The folder of this run of pytest, which is the same for all of pytest-xdist's workers."""
    home = factory.getbasetemp()
    return home.parent if "PYTEST_XDIST_WORKER" in os.environ else home


def once(factory: pytest.TempPathFactory, name: str, export: Callable[[Path], object]) -> Path:
    """The folder that `export` writes, by the first of pytest-xdist's workers that asks for it."""
    home = shared_folder(factory)
    with FileLock(home / f"{name}.lock"):
        if not (home / name).exists():
            export(home / name)
    return home / name


@pytest.fixture(scope="session")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`support.sample_bundle`, sealed: a bundle of the least files, which draws nothing. Read it, never write to it."""
    from support.sample_bundle import write_sample

    from pocketdiffusion.runtime.bundle.sealing import seal

    folder = tmp_path_factory.mktemp("sealed")
    seal(folder, write_sample(folder))
    return folder


@pytest.fixture(scope="session")
def tiny_bundle(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tiny_checkpoint` for the target generic, as ONNX: float32, standard operators, a full report. Read it only."""
    from pocketdiffusion.build import export
    from pocketdiffusion.choices import ExportOptions

    options = ExportOptions(format="onnx", report="full")
    return once(tmp_path_factory, "tiny_bundle", lambda out: export(str(tiny_checkpoint), "generic", out, options))


def export_emoji(factory: pytest.TempPathFactory, name: str, **options: Any) -> Bundle:
    """The built-in model for a Pixel 8, exported once; what the original draws is recorded once for all of them."""
    from pocketdiffusion.build import export
    from pocketdiffusion.choices import ExportOptions

    chosen = ExportOptions(recordings=shared_folder(factory) / "recordings", **options)
    return open_bundle(once(factory, name, lambda out: export("emoji", "pixel-8", out, chosen)))


@pytest.fixture(scope="session")
def emoji_fp16(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The built-in model as it ships. It takes about 25 s of processor time. Read it, never write to it."""
    return export_emoji(tmp_path_factory, "emoji_fp16", recipe="fp16")


@pytest.fixture(scope="session")
def emoji_fp32(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The built-in model in float32. It takes about 18 s of processor time. Read it, never write to it."""
    return export_emoji(tmp_path_factory, "emoji_fp32", recipe="fp32")


@pytest.fixture(scope="session")
def emoji_split(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """As `emoji_fp32`, the UNet as three graphs. It takes about 39 s of processor time. Read it, never write to it."""
    return export_emoji(tmp_path_factory, "emoji_split", recipe="fp32", split_unet=3, proof="quick")
