"""What a bundle holds besides its graphs: small, complete, each thing once, and true to where it comes from."""

import inspect
import json
import shutil
from dataclasses import replace
from pathlib import Path

import diffusers
import numpy as np
import onnx
import pytest

from pocketdiffusion.export.backends.coreml.apple_layout import write_script
from pocketdiffusion.export.licences import ADDRESSES, write_licences
from pocketdiffusion.export.opening import open_checkpoint
from pocketdiffusion.export.pipeline_defaults import read_defaults
from pocketdiffusion.export.preview import fit_preview
from pocketdiffusion.runtime.bundle.bundle import open_bundle
from pocketdiffusion.runtime.bundle.leftovers import FILES, FOLDERS
from pocketdiffusion.runtime.verify.golden import read_golden

LARGEST = 30_000  # bytes of manifest.json: what a page or a phone reads before anything else


def test_the_manifest_is_short(tiny_bundle: Path) -> None:
    assert (tiny_bundle / "manifest.json").stat().st_size < LARGEST
    fields = json.loads((tiny_bundle / "manifest.json").read_text())
    assert fields["formats"].keys() == {"onnx"} and fields["formats"]["onnx"].keys() == {"pipeline", "peaks"}
    assert fields["formats"]["onnx"]["pipeline"] == "pipeline/onnx.json"
    assert fields["formats"]["onnx"]["peaks"].keys() >= {"encode_prompt", "denoise", "decode"}
    assert fields["passed_over"] == {"files": list(FILES), "folders": list(FOLDERS)}
    assert fields["proof"]["passed"] is True and fields["proof"]["kind"] == "full"
    assert fields["proof"]["worst"]["margin_db"] > 0
    assert fields["picture"]["seed"] == "1" and fields["picture"]["image"] == "golden/0.png"


def test_the_vocabulary_is_there_once(tiny_bundle: Path) -> None:
    """optimum's folder has one, and cannot do without: the pipeline points there."""
    assert [path.relative_to(tiny_bundle).as_posix() for path in tiny_bundle.rglob("vocab.json")] == [
        "onnx/tokenizer/vocab.json"
    ]
    tokenizer = open_bundle(tiny_bundle).manifest.tokenizer
    assert (tokenizer.vocab, tokenizer.merges) == ("onnx/tokenizer/vocab.json", "onnx/tokenizer/merges.txt")


def test_roles_of_an_export(tiny_bundle: Path) -> None:
    files = open_bundle(tiny_bundle).manifest.files
    found = {role: {path for path, entry in files.items() if entry.role == role} for role in ("companion", "report")}
    assert found["report"] == {"report/report.html", "report/report.json"}
    assert found["companion"] == {f"onnx/{name}" for name in COMPANIONS}
    proof = {path for path, entry in files.items() if entry.role == "proof"}
    assert "proof.json" in proof and all(path.startswith("golden/") for path in proof - {"proof.json"})
    assert not any(path.startswith("golden/case/") for path in proof)


COMPANIONS = (
    "model_index.json",
    "scheduler/scheduler_config.json",
    "tokenizer/tokenizer_config.json",
    "text_encoder/config.json",
    "unet/config.json",
    "vae_decoder/config.json",
    "vae_encoder/config.json",
)


def test_graphs_hold_no_initializer_that_nothing_reads(tiny_bundle: Path) -> None:
    """onnxruntime warns of each whenever it loads the file."""
    for name, graph in open_bundle(tiny_bundle).manifest.graphs["onnx"].items():
        model = onnx.load(tiny_bundle / graph.path, load_external_data=False).graph
        read = {tensor for node in model.node for tensor in node.input}
        assert [tensor.name for tensor in model.initializer if tensor.name not in read] == [], name
        (data,) = graph.external_data
        named = {entry.value for t in model.initializer for entry in t.external_data if entry.key == "location"}
        assert named == {data.location} and (tiny_bundle / data.path).is_file()


def test_defaults_are_those_of_diffusers(tiny_checkpoint: Path) -> None:
    found = read_defaults(open_checkpoint(str(tiny_checkpoint)))
    text = inspect.signature(diffusers.StableDiffusionPipeline.__call__).parameters
    pictures = inspect.signature(diffusers.StableDiffusionImg2ImgPipeline.__call__).parameters
    assert found.steps == text["num_inference_steps"].default == 50
    assert found.guidance == text["guidance_scale"].default
    assert found.strength == pictures["strength"].default


def test_a_preview_is_the_nearest_linear_picture(tiny_bundle: Path) -> None:
    """Colours that are linear in the latents are found again, whatever the size; others are said to be far."""
    random = np.random.default_rng(5)
    (trajectory,) = read_golden(open_bundle(tiny_bundle))[:1]
    matrix, bias = random.uniform(-0.1, 0.1, (4, 3)), np.array([0.4, 0.5, 0.6])
    latents = random.standard_normal((2, 4, 6, 8)).astype(np.float32)
    colours = np.einsum("chw,ck->hwk", latents[-1], matrix) + bias
    picture = np.rint(255 * colours.clip(0, 1)).astype(np.uint8).repeat(2, 0).repeat(2, 1)
    found = fit_preview([replace(trajectory, latents=latents, picture=picture)])
    assert found is not None and found.psnr_db > 50
    np.testing.assert_allclose(found.matrix, matrix, atol=2e-3)
    np.testing.assert_allclose(found.bias, bias, atol=2e-3)
    turned = fit_preview([replace(trajectory, latents=latents, picture=picture[::-1])])
    assert turned is not None and turned.psnr_db < 25
    assert fit_preview([replace(trajectory, latents=latents * np.float32(np.nan), picture=picture)]) is None


def test_licences_travel_as_the_checkpoint_has_them(tiny_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    for name, text in (("LICENSE", "terms"), ("LICENSE (weights).md", "more"), ("notice.txt", "of others")):
        (tmp_path / "model" / name).write_text(text)
    (tmp_path / "model/NOTES.md").write_text("none")
    shutil.copytree(tiny_checkpoint, tmp_path / "model", dirs_exist_ok=True)
    checkpoint = replace(open_checkpoint(str(tmp_path / "model")), licence="OpenRAIL++")
    (tmp_path / "out").mkdir()
    found = write_licences(tmp_path / "out", checkpoint)
    assert found.files == (
        "licences/CLIP.txt",
        "licences/LICENSE",
        "licences/LICENSE__weights_.md",
        "licences/notice.txt",
    )
    assert (tmp_path / "out/licences/LICENSE").read_text() == "terms"
    assert "OpenAI" in (tmp_path / "out/licences/CLIP.txt").read_text()
    assert found.url == ADDRESSES["openrail++"] and "OpenRAIL++" in found.attribution


def test_the_built_in_model_brings_its_licence(tmp_path: Path) -> None:
    found = write_licences(tmp_path, open_checkpoint("emoji"))
    assert found.files == ("licences/CLIP.txt", "licences/LICENSE", "licences/NOTICE")
    assert "Apache License" in (tmp_path / "licences/LICENSE").read_text()
    assert "Noto Emoji" in (tmp_path / "licences/NOTICE").read_text()


@pytest.mark.parametrize("word", ["(Any device)", "runtime-part DIR OUT", "licences/CLIP.txt", "docs/BUNDLE.md"])
def test_a_bundle_says_what_it_is(tiny_bundle: Path, word: str) -> None:
    assert word in (tiny_bundle / "README.md").read_text()


def test_apples_script_takes_the_vocabulary_from_where_it_is(tmp_path: Path) -> None:
    for home in ("tokenizer", "onnx/tokenizer"):
        write_script(tmp_path, 0.18215, "ane", tokenizer=home)
        assert (
            f'cp "$here/../{home}/vocab.json" "$here/../{home}/merges.txt" "$out"'
            in (tmp_path / "compile_for_apple.sh").read_text()
        )
