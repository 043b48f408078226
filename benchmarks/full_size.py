"""A checkpoint of Stable Diffusion 1.5's real shapes with seeded random weights, for benchmarks of memory and time.

python benchmarks/full_size.py write FOLDER [float16]    the diffusers folder below FOLDER/sd15 (4.3 GB, or 2.1)
python benchmarks/full_size.py narrow FOLDER             the same with few channels, 128x128, FOLDER/narrow
python benchmarks/full_size.py emit FOLDER TARGET        its artifacts below FOLDER/artifacts, without the gate
"""

import json
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from diffusers import AutoencoderKL, PNDMScheduler, UNet2DConditionModel
from safetensors.torch import save_file
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel

from pocketdiffusion.cli.console import run
from pocketdiffusion.export.backends.emission import emit_floats
from pocketdiffusion.export.families import components
from pocketdiffusion.export.opening import open_checkpoint
from pocketdiffusion.export.targets import load_target

EMOJI = Path(__file__).parents[1] / "pocketdiffusion/models/emoji"
UNET: dict[str, Any] = {
    "sample_size": 64,
    "block_out_channels": (320, 640, 1280, 1280),
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
}
VAE: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "sample_size": 512,
}
TEXT: dict[str, Any] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "projection_dim": 768,
    "bos_token_id": 49406,
    "eos_token_id": 49407,
    "pad_token_id": 49407,
}
NARROW: Mapping[str, dict[str, Any]] = {
    "unet": {
        "sample_size": 16,
        "block_out_channels": (32, 64, 128, 128),
        "cross_attention_dim": 64,
    },
    "vae": {"sample_size": 128, "block_out_channels": (32, 64, 128, 128)},
    "text_encoder": {"hidden_size": 64, "intermediate_size": 256, "num_attention_heads": 4, "projection_dim": 64},
}
SCHEDULER: Mapping[str, Any] = {
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
}


def write(
    folder: Path, dtype: torch.dtype = torch.float32, changes: Mapping[str, dict[str, Any]] = MappingProxyType({})
) -> None:
    """Write the checkpoint as `folder`, with the `changes` of each part's configuration. Matrices are normal with the
    variance that keeps activations at unit scale. Factors are near one and biases near zero, but not equal: an omitted
    one would not be noticed otherwise, and a converter would remove it."""
    with torch.device("meta"):
        modules = {
            "unet": UNet2DConditionModel(**UNET | changes.get("unet", {})),
            "vae": AutoencoderKL(**VAE | changes.get("vae", {})),
            "text_encoder": CLIPTextModel(CLIPTextConfig(**TEXT | changes.get("text_encoder", {}))),
        }
    index: dict[str, Any] = {"_class_name": "StableDiffusionPipeline"}
    for name, module in modules.items():
        library = "transformers" if name == "text_encoder" else "diffusers"
        index[name] = [library, type(module).__name__]
        (folder / name).mkdir(parents=True)
        stem = "model" if name == "text_encoder" else "diffusion_pytorch_model"
        save_file(random_weights(module, dtype), folder / name / f"{stem}.safetensors")
        if name == "text_encoder":
            module.config.save_pretrained(folder / name)
        else:
            module.save_config(folder / name)
    PNDMScheduler(**SCHEDULER).save_pretrained(folder / "scheduler")
    shutil.copytree(EMOJI / "tokenizer", folder / "tokenizer")
    index |= {"scheduler": ["diffusers", "PNDMScheduler"], "tokenizer": ["transformers", "CLIPTokenizer"]}
    (folder / "model_index.json").write_text(json.dumps(index))


def random_weights(module: nn.Module, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    weights = {}
    for name, param in module.named_parameters():
        if param.ndim > 1:
            fan_in = param[0].numel()
            weight = torch.randn(param.shape, generator=generator) / fan_in**0.5
        else:
            weight = float(name.endswith("weight")) + 0.1 * torch.randn(param.shape, generator=generator)
        weights[name] = weight.to(dtype)
    return weights


def emit_all(folder: Path, target_name: str) -> None:
    target = load_target(target_name)
    checkpoint = open_checkpoint(str(folder / "sd15"))
    for artifact in target.artifacts:
        for part in components(checkpoint):
            emit_floats(part, artifact, folder / "artifacts", open_batch=target.open_batch)


def main() -> None:
    verb, folder = sys.argv[1], Path(sys.argv[2])
    if verb == "write":
        write(folder / "sd15", getattr(torch, sys.argv[3] if len(sys.argv) > 3 else "float32"))
    elif verb == "narrow":
        write(folder / "narrow", changes=NARROW)
    else:
        emit_all(folder, sys.argv[3])


if __name__ == "__main__":
    run(main)
