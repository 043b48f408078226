"""What a hand-edited configuration holds is read as diffusers reads it, or told in one line with file and field."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
from diffusers.schedulers import KarrasDiffusionSchedulers
from support.command import refusal as refused_command
from transformers import CLIPTextConfig

from pocketdiffusion.export.checkpoints.config_types import check_config
from pocketdiffusion.export.families import components
from pocketdiffusion.export.opening import open_checkpoint
from pocketdiffusion.runtime.errors import UserError

UNET, VAE, TEXT = diffusers.UNet2DConditionModel, diffusers.AutoencoderKL, CLIPTextConfig
PNDM, DPM = diffusers.PNDMScheduler, diffusers.DPMSolverMultistepScheduler

REFUSED: list[tuple[type, str, Any, str]] = [
    (UNET, "in_channels", "4", "is '4' and should be an integer"),
    (UNET, "in_channels", None, "is None and should be an integer"),
    (UNET, "in_channels", [4], "is [4] and should be an integer"),
    (UNET, "in_channels", 4.0, "is 4.0 and should be an integer"),
    (UNET, "in_channels", True, "is True and should be an integer"),
    (UNET, "in_channels", {"a": 1}, "should be an integer"),
    (UNET, "sample_size", "64", "should be an integer or a list or null"),
    (UNET, "sample_size", [64, "64"], "is '64'"),
    (UNET, "sample_size", 0, "is 0 and should be 1 or more"),
    (UNET, "sample_size", [64, -1], "is -1 and should be 1 or more"),
    (UNET, "block_out_channels", 320, "should be"),
    (UNET, "block_out_channels", [320, "640"], "is '640'"),
    (UNET, "norm_num_groups", -32, "is -32 and should be 1 or more"),
    (UNET, "layers_per_block", 0, "is 0 and should be 1 or more"),
    (UNET, "act_fn", None, "is None and should be text"),
    (UNET, "act_fn", 3, "is 3 and should be text"),
    (UNET, "norm_eps", "1e-5", "is '1e-5' and should be a number"),
    (UNET, "norm_eps", float("nan"), "should be a finite number"),
    (UNET, "use_linear_projection", "false", "is 'false' and should be true or false"),
    (UNET, "only_cross_attention", ["true"], "is 'true'"),
    (UNET, "only_cross_attention", None, "is None and should be true or false or a list"),
    (UNET, "quantization_config", {"quant_method": "gguf"}, "quantization_config says that a library"),
    (VAE, "scaling_factor", None, "is None and should be a number"),
    (VAE, "scaling_factor", "0.18215", "is '0.18215' and should be a number"),
    (VAE, "scaling_factor", [0.18], "should be a number"),
    (VAE, "scaling_factor", 0, "is 0, and diffusers divides by it"),
    (VAE, "scaling_factor", float("inf"), "should be a finite number"),
    (VAE, "latent_channels", 0, "is 0 and should be 1 or more"),
    (VAE, "use_quant_conv", "no", "is 'no' and should be true or false"),
    (TEXT, "hidden_size", -32, "is -32 and should be 1 or more"),
    (TEXT, "num_attention_heads", 0, "is 0 and should be 1 or more"),
    (TEXT, "max_position_embeddings", "77", "is '77' and should be an integer"),
    (TEXT, "layer_norm_eps", None, "is None and should be a number"),
    (TEXT, "eos_token_id", [2, 3], "is [2, 3] and should be an integer"),
    (TEXT, "eos_token_id", None, "is None and should be an integer"),
    (TEXT, "transformers_weights", "other.safetensors", "transformers_weights names another weight file"),
    (VAE, "block_out_channels", [], "is an empty list"),
    (TEXT, "quantization_config", {"load_in_8bit": True}, "quantization_config says that a library"),
    (PNDM, "num_train_timesteps", "1000", "is '1000' and should be an integer"),
    (PNDM, "num_train_timesteps", 0, "is 0 and should be 1 or more"),
    (PNDM, "num_train_timesteps", 1000.0, "is 1000.0 and should be an integer"),
    (PNDM, "steps_offset", None, "is None and should be an integer"),
    (PNDM, "steps_offset", -1, "is -1 and should be 0 or more"),
    (PNDM, "beta_start", "0.00085", "is '0.00085' and should be a number"),
    (PNDM, "beta_schedule", None, "is None and should be text"),
    (PNDM, "skip_prk_steps", "true", "is 'true' and should be true or false"),
    (DPM, "solver_order", [2], "is [2] and should be an integer"),
    (DPM, "final_sigmas_type", 0, "is 0 and should be text"),
]
SERVED: list[tuple[type, dict[str, Any]]] = [
    (UNET, {"sample_size": [64, 96], "block_out_channels": [320, 640], "attention_head_dim": [5, 10, 20]}),
    (UNET, {"transformer_layers_per_block": [[1, 2], [2]], "only_cross_attention": [True, False], "freq_shift": 0}),
    (UNET, {"upcast_attention": None, "use_linear_projection": 1, "num_class_embeds": None, "norm_eps": 1}),
    (UNET, {"downsample_padding": 0, "mid_block_type": None, "what_nobody_knows": {"a": "b"}, "norm_eps": 1e-5}),
    (VAE, {"sample_size": [512, 512], "shift_factor": None, "scaling_factor": 1, "force_upcast": None}),
    (TEXT, {"eos_token_id": 2, "pad_token_id": 0, "projection_dim": None, "torch_dtype": "float32"}),
    (PNDM, {"trained_betas": None, "steps_offset": 0, "clip_sample": "whatever", "skip_prk_steps": None}),
    (DPM, {"lambda_min_clipped": float("-inf"), "trained_betas": [0.1, 0.2], "variance_type": None}),
]


@pytest.mark.parametrize(("model", "field", "value", "words"), REFUSED, ids=str)
def test_what_is_no_value_of_a_field_is_told(model: type, field: str, value: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        check_config(tmp_path / "config.json", model, {field: value})
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'config.json'}: {field}") and words in message, message


@pytest.mark.parametrize(("model", "config"), SERVED, ids=str)
def test_what_diffusers_reads_passes(model: type, config: dict[str, Any], tmp_path: Path) -> None:
    check_config(tmp_path / "config.json", model, config)


@pytest.mark.parametrize(
    "name",
    [s.name for s in KarrasDiffusionSchedulers if s.name not in ("DPMSolverSDEScheduler", "EDMEulerScheduler")],
)
def test_every_scheduler_takes_the_settings_of_stable_diffusion(name: str, tmp_path: Path) -> None:
    """Those of Stable Diffusion 1.5 and 2.1, as files of several classes write them."""
    settings = {
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "clip_sample": False,
        "num_train_timesteps": 999,
        "prediction_type": "v_prediction",
        "set_alpha_to_one": False,
        "skip_prk_steps": True,
        "steps_offset": 1,
        "timestep_spacing": "trailing",
        "trained_betas": None,
        "use_karras_sigmas": True,
    }
    model = getattr(diffusers, name)
    check_config(tmp_path / "scheduler_config.json", model, settings)
    for field in ("num_train_timesteps", "beta_start"):
        with pytest.raises(UserError, match=field):
            check_config(tmp_path / "scheduler_config.json", model, settings | {field: "7"})


@pytest.fixture
def folder(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy of the tiny checkpoint, to be spoilt."""
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "tiny-copy"))


def mark(file: Path) -> None:
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())


def point(file: Path) -> None:
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 862328\n")


TEXTS = (
    "model_index.json",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "tokenizer/merges.txt",
    "tokenizer/special_tokens_map.json",
    "tokenizer/tokenizer_config.json",
    "tokenizer/vocab.json",
    "unet/config.json",
    "vae/config.json",
)


@pytest.mark.parametrize("file", TEXTS)
@pytest.mark.parametrize(("spoil", "words"), [(mark, "byte order mark"), (point, "git lfs pull")])
def test_a_mark_and_a_pointer_are_told_of_any_file(
    file: str, spoil: Callable[[Path], None], words: str, folder: Path
) -> None:
    if not (folder / file).is_file():
        (folder / file).write_text("{}")
    if file.endswith(("vocab.json", "merges.txt")):  # which transformers passes over where there is a tokenizer.json
        (folder / "tokenizer/tokenizer.json").unlink(missing_ok=True)
    spoil(folder / file)
    with pytest.raises(UserError) as caught:
        open_checkpoint(str(folder), progress=lambda line: None)
    assert str(folder / file) in str(caught.value) and words in str(caught.value)


def edit_json(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_the_command_tells_them_before_any_work(folder: Path, tmp_path: Path) -> None:
    edit_json(folder / "scheduler/scheduler_config.json", num_train_timesteps="1000")
    command = ("export", folder, "--target", "generic", "-o", tmp_path / "out")
    assert "scheduler/scheduler_config.json: num_train_timesteps is '1000'" in refused_command(*command)
    edit_json(folder / "scheduler/scheduler_config.json", num_train_timesteps=1000)
    edit_json(folder / "vae/config.json", scaling_factor=None)
    assert "vae/config.json: scaling_factor is None" in refused_command(*command)
    edit_json(folder / "vae/config.json", scaling_factor=0.18215)
    edit_json(folder / "unet/config.json", downsample_padding=3)
    assert "unet: the model of config.json does not run" in refused_command(*command)


def test_checkpoints_that_are_sound_pass(tiny_checkpoint: Path) -> None:
    for name in ("emoji", str(tiny_checkpoint)):
        assert len(components(open_checkpoint(name, progress=lambda line: None))) == 4
