"""Measure memory and time of recording the reference at full size, compared with the plain pipeline in float32, with
seeded float16 weights.

    python benchmarks/recording.py [sd15 sdxl] [-o FILE.json]

Stable Diffusion 1.5: one prompt, 2 steps of PNDM (3 UNet calls), 512x512. SDXL's shapes: one prompt, 1 step, 1024x1024,
only recorded. Each way runs in its own process, on one thread, one after another. Memory is the peak of anonymous
memory (RssAnon): pages of the weights' files are not counted, because the system can drop them.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import typer
from full_size import EMOJI, TEXT, VAE, random_weights, write
from rich.console import Console
from rich.table import Table

from pocketdiffusion.cli.console import run
from pocketdiffusion.runtime.errors import ProofError

WAYS = {"sd15": ("plain", "recorded"), "sdxl": ("recorded",)}
SETTINGS: dict[str, dict[str, Any]] = {
    "sd15": {"num_inference_steps": 2, "width": 512, "height": 512},
    "sdxl": {"num_inference_steps": 1, "width": 1024, "height": 1024},
}
CLASSES = {"sd15": "StableDiffusionPipeline", "sdxl": "StableDiffusionXLPipeline"}
SDXL_UNET: dict[str, Any] = {
    "sample_size": 128,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": [1, 2, 10],
    "attention_head_dim": [5, 10, 20],
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
SDXL_TEXT: dict[str, Any] = {
    **TEXT,
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "projection_dim": 1280,
    "hidden_act": "gelu",
}


def write_sdxl(folder: Path) -> None:
    """Write a checkpoint of SDXL's shapes, 6.9 GB."""
    import torch
    from diffusers import AutoencoderKL, EulerDiscreteScheduler, UNet2DConditionModel
    from safetensors.torch import save_file
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    with torch.device("meta"):
        modules = {
            "unet": UNet2DConditionModel(**SDXL_UNET),
            "vae": AutoencoderKL(**{**VAE, "sample_size": 1024, "scaling_factor": 0.13025}),
            "text_encoder": CLIPTextModel(CLIPTextConfig(**TEXT)),
            "text_encoder_2": CLIPTextModelWithProjection(CLIPTextConfig(**SDXL_TEXT)),
        }
    index: dict[str, Any] = {"_class_name": CLASSES["sdxl"]}
    for name, module in modules.items():
        text = name.startswith("text")
        index[name] = ["transformers" if text else "diffusers", type(module).__name__]
        (folder / name).mkdir(parents=True)
        stem = "model" if text else "diffusion_pytorch_model"
        save_file(random_weights(module, torch.float16), folder / name / f"{stem}.safetensors")
        (module.config.save_pretrained if text else module.save_config)(folder / name)
    EulerDiscreteScheduler(beta_schedule="scaled_linear").save_pretrained(folder / "scheduler")
    for name in ("tokenizer", "tokenizer_2"):
        shutil.copytree(EMOJI / "tokenizer", folder / name)
        index[name] = ["transformers", "CLIPTokenizer"]
    index["scheduler"] = ["diffusers", "EulerDiscreteScheduler"]
    (folder / "model_index.json").write_text(json.dumps(index))


def draw(model: str, way: str, folder: Path) -> None:
    """Print the CPU seconds of drawing and of opening; runs in a child process."""
    import torch

    torch.set_num_threads(1)
    from pocketdiffusion.export.checkpoints.folder import FolderPipeline
    from pocketdiffusion.export.checkpoints.safetensors_header import read_header
    from pocketdiffusion.export.families.stable_diffusion import calls
    from pocketdiffusion.export.reference.pipeline import open_class
    from pocketdiffusion.export.reference.recorder import Recorder

    names = ("unet", "vae", "text_encoder", "text_encoder_2")
    files = {name: list((folder / name).glob("*.safetensors")) for name in names if (folder / name).exists()}
    begun = time.process_time()
    stored = {
        name: {ref.dtype for file in found for ref in read_header(file).values()} for name, found in files.items()
    }
    pipeline = open_class(CLASSES[model], FolderPipeline(folder, None), stored, streamed=way == "recorded")
    opened = time.process_time()
    request = {"generator": torch.Generator().manual_seed(1), "guidance_scale": 7.5, **SETTINGS[model]}
    if way == "plain":
        pipeline("a red apple", negative_prompt="", **request)
    else:
        watched = {name: call for name, call in calls(pipeline).items() if model == "sd15" or "text" not in name}
        with Recorder(pipeline, watched) as recorder:
            pipeline("a red apple", negative_prompt="", **request)
        assert len(recorder.outputs["unet"]) == len(recorder.latents) - 1 > 0
    print(json.dumps({"opening": opened - begun, "drawing": time.process_time() - opened}))


def watch(command: list[str]) -> dict[str, float]:
    """Return what the process prints, and its peak anonymous memory in GB (1e9 bytes), sampled every 20 ms."""
    peak = 0
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        while child.poll() is None:
            try:
                status = Path(f"/proc/{child.pid}/status").read_text()
                peak = max(peak, *(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon")))
            except (FileNotFoundError, ProcessLookupError, TypeError):
                pass
            time.sleep(0.02)
        assert child.stdout is not None
        said = child.stdout.read()
    if child.returncode:
        raise ProofError(f"{' '.join(command[-4:])} failed")
    found: dict[str, float] = json.loads(said.splitlines()[-1])
    return {**found, "anonymous_gb": peak * 1024 / 1e9}


def main(
    models: Annotated[list[str] | None, typer.Argument(help="sd15 or sdxl. Default: both.")] = None,
    output: Annotated[Path, typer.Option("-o", help="JSON file for the figures.")] = Path("build/recording.json"),
) -> None:
    rows = []
    output.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=output.parent) as scratch:
        for model in models or list(WAYS):
            folder = Path(scratch) / model
            if model == "sd15":
                import torch

                write(folder, torch.float16)
            else:
                write_sdxl(folder)
            for way in WAYS[model]:
                found = watch([sys.executable, __file__, "draw", model, way, str(folder)])
                rows.append({"model": model, "way": way, **{key: round(value, 2) for key, value in found.items()}})
            shutil.rmtree(folder)
    table = Table(
        "model", "way", "opening, CPU s", "drawing, CPU s", "anonymous memory, GB", title="recording the reference"
    )
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    Console().print(table)
    output.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "1"
    if sys.argv[1:2] == ["draw"]:
        draw(sys.argv[2], sys.argv[3], Path(sys.argv[4]))
    else:
        run(lambda: typer.run(main))
