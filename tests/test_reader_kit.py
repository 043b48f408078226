"""The reader's kit, drawn by the reference phone: what any other reader has to do with it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import once
from PIL import Image
from support.command import call, refusal

from pocketdiffusion.export.kit_models import MODELS, SIZE, make_photo, write_model
from pocketdiffusion.runtime.bundle.bundle import open_bundle
from pocketdiffusion.runtime.pipeline import draw
from pocketdiffusion.runtime.verify.metrics import image_psnr_db

FLOOR = 60.0  # dB


@pytest.fixture(scope="session")
def kit(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Written by the command, here or before (`--kit`). It takes about 110 s of processor time."""
    there: Path | None = request.config.getoption("--kit")
    return there.resolve() if there else once(tmp_path_factory, "reader_kit", lambda out: call("reader-kit", str(out)))


def drawn(kit: Path, request: dict[str, Any], **others: Any) -> float:
    """The PSNR (dB) of the reference phone's picture beside that of diffusers."""
    told = {name: request[name] for name in ("negative_prompt", "steps", "guidance", "sampler")}
    if request["strength"] is not None:
        told |= {"image": np.asarray(Image.open(kit / "photo.png")), "strength": request["strength"]}
    options = {**told, "seed": int(request["seed"]), **others}
    found = draw(open_bundle(kit / request["bundle"]), options.pop("prompt", request["prompt"]), **options)
    return image_psnr_db(np.asarray(Image.open(kit / request["picture"])), found)


@pytest.mark.slow
@pytest.mark.parametrize("name", [model.name for model in MODELS])
def test_the_reference_phone_draws_the_kit(kit: Path, name: str) -> None:
    requests = [each for each in json.loads((kit / "requests.json").read_text())["draw"] if each["bundle"] == name]
    assert len(requests) >= 5
    assert min(drawn(kit, each) for each in requests) >= FLOOR


@pytest.mark.slow
@pytest.mark.parametrize("name", [model.name for model in MODELS])
def test_a_reader_that_takes_no_heed_is_seen(kit: Path, name: str) -> None:
    """Another word, another seed or another sampler is further than the floor."""
    requests = json.loads((kit / "requests.json").read_text())["draw"]
    first = next(each for each in requests if each["bundle"] == name)
    others: dict[str, dict[str, Any]] = {
        "a word": {"prompt": first["prompt"].replace("petals", "leaves")},
        "the seed": {"seed": int(first["seed"]) + 1},
        "the sampler": {"sampler": "dpmpp_2m"},
    }
    assert {what for what, other in others.items() if drawn(kit, first, **other) >= FLOOR} == set()


@pytest.mark.slow
def test_a_bundle_of_the_kit_is_small(kit: Path) -> None:
    for model in MODELS:
        assert sum(file.stat().st_size for file in (kit / model.name).rglob("*") if file.is_file()) < 16e6


def test_no_two_kits_have_the_same_models(tmp_path: Path, tokenizer_folder: Path) -> None:
    kits = []
    for seed in (1, 2):
        write_model(MODELS[0], tmp_path / str(seed), tokenizer_folder, seed)
        kits.append((tmp_path / str(seed) / "unet/diffusion_pytorch_model.safetensors").read_bytes())
    assert kits[0] != kits[1]
    assert make_photo(1).shape == (SIZE, SIZE, 3) and not np.array_equal(make_photo(1), make_photo(2))


def test_the_random_numbers_of_the_caller_are_left_alone(tmp_path: Path, tokenizer_folder: Path) -> None:
    torch.manual_seed(5)
    wanted = torch.randn(3)
    torch.manual_seed(5)
    write_model(MODELS[0], tmp_path / "model", tokenizer_folder, 1)
    assert torch.equal(torch.randn(3), wanted)


def test_what_cannot_be_written_is_refused_before_any_work(tmp_path: Path) -> None:
    assert "onnx" in refusal("reader-kit", str(tmp_path / "kit"), "--format", "onx")
    assert not (tmp_path / "kit").exists()
