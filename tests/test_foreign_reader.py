"""A second reader of bundles, in JavaScript, written from docs/BUNDLE.md alone: tests/foreign_reader/.

Node runs it with onnxruntime-node, and headless Chromium the same files with onnxruntime-web. It is for CI: npm fetches
what it needs.
"""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import once
from support.forgery import forge, reseal
from test_reader_kit import FLOOR  # noqa: PLC0414  # a fixture
from test_reader_kit import kit as kit

from pocketdiffusion.choices import ExportOptions
from pocketdiffusion.export.kit_models import MODELS
from pocketdiffusion.runtime.bundle.bundle import Bundle
from pocketdiffusion.runtime.image import write_png
from pocketdiffusion.runtime.pipeline import draw
from pocketdiffusion.runtime.sampling.samplers import sampler_names

pytestmark = pytest.mark.slow
SOURCES = Path(__file__).parent / "foreign_reader"


@pytest.fixture(scope="session")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its files, with the packages that they need."""

    def install(folder: Path) -> None:
        shutil.copytree(SOURCES, folder, ignore=shutil.ignore_patterns("node_modules"))
        subprocess.run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=folder, check=True)

    return once(tmp_path_factory, "foreign_reader", install)


def node(reader: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = ["node", *map(str, arguments)]
    return subprocess.run(command, cwd=reader, capture_output=True, text=True, timeout=300)


def test_its_own_tests_pass(reader: Path) -> None:
    done = node(reader, "--test", "unit.test.js")
    assert done.returncode == 0 and "# pass 15" in done.stdout, done.stdout


def test_it_meets_every_vector_and_golden_case(reader: Path, kit: Path, emoji_fp32: Bundle) -> None:
    done = node(reader, "check.js", emoji_fp32.folder, *(kit / model.name for model in MODELS))
    assert done.returncode == 0, done.stdout
    assert done.stdout.count(" 0 failed") == 1 + len(MODELS), done.stdout


def test_it_draws_the_kit(reader: Path, kit: Path) -> None:
    done = node(reader, "kit_check.js", kit)
    requests = json.loads((kit / "requests.json").read_text())["draw"]
    assert done.returncode == 0 and f"{2 * len(requests)} passed, 0 failed" in done.stdout, done.stdout


def test_it_draws_the_built_in_model(reader: Path, emoji_fp32: Bundle, tmp_path: Path) -> None:
    """By every sampler, from a picture, long, empty and in many scripts, in 1 to 50 steps: as Python draws it."""
    size = emoji_fp32.manifest.latents
    y, x = np.mgrid[: size.height * size.scale, : size.width * size.scale]
    photo = np.stack([4 * x % 256, 3 * y % 256, (x * y) % 256], -1).astype(np.uint8)
    first = {"prompt": "red apple", "negative_prompt": None, "seed": 7, "steps": 6, "guidance": 7.5, "sampler": None}
    requests: list[dict[str, Any]] = [
        *({**first, "sampler": name, "seed": n} for n, name in enumerate(sampler_names())),
        *({**first, "sampler": name, "strength": 0.7} for name in sampler_names()),
        {**first, "prompt": "", "negative_prompt": "", "seed": -(2**63)},
        {**first, "prompt": "ein ÄPFEL, 猫 🐈 кот Σίσυφος " * 9, "negative_prompt": "grey", "seed": 2**64 - 1},
        {**first, "steps": 1, "guidance": 1.0},
        {**first, "steps": 50, "sampler": "dpmpp_2m"},
    ]
    (tmp_path / "bundle").symlink_to(emoji_fp32.folder)
    draw_kit(emoji_fp32, requests, photo, tmp_path)
    done = node(reader, "kit_check.js", tmp_path, str(FLOOR))
    assert done.returncode == 0 and f"{2 * len(requests)} passed, 0 failed" in done.stdout, done.stdout


def test_it_draws_with_a_split_unet(reader: Path, emoji_fp32: Bundle, emoji_split: Bundle, tmp_path: Path) -> None:
    """Three graphs, with both halves of guidance in one call and in two: as Python draws with the whole UNet."""
    assert {"unet_1", "unet_2", "unet_3"} < set(emoji_split.manifest.graphs["onnx"])
    (tmp_path / "bundle").symlink_to(emoji_split.folder)
    request = {"prompt": "red apple", "negative_prompt": None, "seed": 7, "steps": 4, "guidance": 7.5, "sampler": None}
    photo = draw(emoji_fp32, "ghost", seed=3, steps=2)
    requests: list[dict[str, Any]] = [request, {**request, "guidance": 1.0}, {**request, "strength": 0.7}]
    draw_kit(emoji_fp32, requests, photo, tmp_path)
    done = node(reader, "kit_check.js", tmp_path, str(FLOOR))
    assert done.returncode == 0 and f"{2 * len(requests)} passed, 0 failed" in done.stdout, done.stdout
    checked = node(reader, "check.js", emoji_split.folder)
    assert checked.returncode == 0 and " 0 failed" in checked.stdout, checked.stdout


def draw_kit(bundle: Bundle, requests: list[dict[str, Any]], photo: Any, folder: Path) -> None:
    """Write what kit_check.js reads into `folder`: requests, the photo, and Python's pictures."""
    write_png(folder / "photo.png", photo, {})
    for number, request in enumerate(requests):
        options = {name: value for name, value in request.items() if name != "prompt"}
        image = photo if "strength" in request else None
        picture = draw(bundle, request["prompt"], **options, image=image)
        write_png(folder / f"{number}.png", picture, {})
        request |= {"bundle": "bundle", "picture": f"{number}.png", "seed": str(request["seed"])}
        request.setdefault("strength", None)
    (folder / "requests.json").write_text(json.dumps({"photo": "photo.png", "draw": requests}))


def test_it_draws_with_blended_tiles(reader: Path, tmp_path: Path) -> None:
    """Four tiles, from a prompt and from a picture: as Python draws it."""
    from pocketdiffusion import build

    options: dict[str, Any] = {"format": "onnx", "recipe": "fp32", "vae_tiles": "blended", "proof": "quick"}
    bundle = build.export("emoji", "generic", tmp_path / "bundle", ExportOptions(**options))
    assert bundle.manifest.vae.tile_size == 56
    request = {"prompt": "red apple", "negative_prompt": None, "seed": 7, "steps": 4, "guidance": 7.5, "sampler": None}
    requests: list[dict[str, Any]] = [request, {**request, "strength": 0.7}]
    draw_kit(bundle, requests, draw(bundle, "a photo", seed=3, steps=2), tmp_path)
    done = node(reader, "kit_check.js", tmp_path, str(FLOOR))
    assert done.returncode == 0 and f"{2 * len(requests)} passed, 0 failed" in done.stdout, done.stdout
    checked = node(reader, "check.js", bundle.folder)
    assert checked.returncode == 0 and " 0 failed" in checked.stdout, checked.stdout


@pytest.mark.parametrize("bundle", ["emoji", "sdxl"])
def test_it_runs_in_a_browser(reader: Path, kit: Path, emoji_fp32: Bundle, bundle: str) -> None:
    done = node(reader, "browser_check.js", emoji_fp32.folder if bundle == "emoji" else kit / bundle)
    assert done.returncode == 0 and " 0 failed" in done.stdout, done.stdout + done.stderr


def test_what_it_cannot_do_is_refused_by_name(reader: Path, kit: Path, tmp_path: Path) -> None:
    changes: dict[str, Any] = {
        "version": lambda folder: reseal(folder, lambda fields: fields.update(version=3)),
        "euphemism": lambda folder: change(folder, lambda fields: fields["program"].update(guidance="euphemism")),
        "wishes": lambda folder: change(folder, lambda fields: unet(fields)["inputs"].update(timestep="wishes")),
        "t5": lambda folder: change(folder, lambda fields: fields["tokenizers"][0].update(kind="t5")),
        "float8": lambda folder: change(
            folder, lambda fields: fields["graphs"]["unet"]["spec"]["inputs"][0].update(dtype="float8")
        ),
    }
    for name, fault in changes.items():
        folder = Path(shutil.copytree(kit / "pndm", tmp_path / name))
        fault(folder)
        done = node(reader, "check.js", folder)
        assert done.returncode == 1 and name in done.stdout, (name, done.stdout)


def change(folder: Path, edit: Any) -> None:
    forge(folder, "pipeline/onnx.json", edit)


def unet(fields: dict[str, Any]) -> Any:
    stages = fields["program"]["stages"]
    return next(stage for stage in stages if stage["stage"] == "denoise")["calls"][0]
