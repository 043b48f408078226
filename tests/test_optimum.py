"""A bundle for the target generic opens in optimum, which knows nothing of this project."""

import json
import os
import subprocess
import sys
import venv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pocketdiffusion.build import export
from pocketdiffusion.choices import ExportOptions
from pocketdiffusion.export.backends.onnx.optimum_layout import write_companions
from pocketdiffusion.export.opening import open_checkpoint
from pocketdiffusion.runtime.bundle.bundle import open_bundle
from pocketdiffusion.runtime.bundle.folder import list_files
from pocketdiffusion.runtime.pipeline import draw
from pocketdiffusion.runtime.verify.metrics import image_psnr_db

REQUIREMENTS = Path(__file__).parent / "optimum.txt"
DRAW = """
import json, sys, torch
from optimum.onnxruntime import ORTDiffusionPipeline

folder, out, request = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
pipeline = ORTDiffusionPipeline.from_pretrained(folder)
generator = torch.Generator().manual_seed(request.pop("seed"))
pipeline(**request, generator=generator).images[0].save(out)
"""
COMPANIONS = {
    "model_index.json",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "tokenizer/merges.txt",
    "tokenizer/tokenizer_config.json",
    "tokenizer/vocab.json",
    "unet/config.json",
    "vae_decoder/config.json",
    "vae_encoder/config.json",
}


def folders(bundle: Path) -> set[str]:
    return {path.relative_to(bundle).as_posix() for path in bundle.rglob("*") if path.is_file()}


def test_a_generic_bundle_carries_the_companions(tiny_bundle: Path) -> None:
    files = list_files(tiny_bundle / "onnx")
    graphs = {
        f"{g}/{f}" for g in open_bundle(tiny_bundle).manifest.graphs["onnx"] for f in ("model.onnx", "model.onnx_data")
    }
    assert files.keys() == COMPANIONS | graphs


def test_companions_say_nothing_of_where_they_came_from(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """diffusers writes the folder that a model was loaded from into its configuration."""
    config = tiny_checkpoint / "unet/config.json"
    checkpoint = open_checkpoint(str(tiny_checkpoint))
    named = {part: {**content, "_name_or_path": str(config)} for part, content in checkpoint.configs.items()}
    write_companions(tmp_path, replace(checkpoint, configs=named), 16, 24)
    assert {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()} == COMPANIONS
    for path in tmp_path.rglob("*.json"):
        text = path.read_text()
        assert "_name_or_path" not in text and str(tiny_checkpoint) not in text, path
    assert json.loads((tmp_path / "unet/config.json").read_text())["sample_size"] == [16, 24]


@pytest.mark.slow
def test_optimum_draws_the_same_picture(tmp_path: Path) -> None:
    """The built-in model, exported for generic: optimum's pipeline opens DIR/onnx unchanged, in its own environment."""
    bundle = export("emoji", "generic", tmp_path / "bundle", ExportOptions(format="onnx"))
    environment = tmp_path / "optimum"
    venv.create(environment, with_pip=True)
    python = environment / "bin/python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--requirement", REQUIREMENTS], check=True)
    request = {"prompt": "red apple", "negative_prompt": "grey", "num_inference_steps": 20, "guidance_scale": 5.0}
    out = tmp_path / "optimum.png"
    before = folders(bundle.folder)
    subprocess.run(
        [python, "-c", DRAW, bundle.folder / "onnx", out, json.dumps({**request, "seed": 42})],
        check=True,
        cwd=tmp_path,
        env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"HF_HUB_OFFLINE": "1"},
    )
    assert folders(bundle.folder) == before
    ours = draw(bundle, "red apple", negative_prompt="grey", seed=42, steps=20, guidance=5.0)
    theirs = np.asarray(Image.open(out).convert("RGB"))
    psnr = image_psnr_db(theirs, ours)
    sys.stdout.write(f"optimum against ours: {psnr:.1f} dB\n")
    assert psnr >= 40
