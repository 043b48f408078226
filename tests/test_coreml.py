"""Core ML packages: written, re-read and run here, without a Mac."""

import json
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.traced_parts import component_of, narrow_sd15_unet, psnr
from torch import nn

from pocketdiffusion.build import export
from pocketdiffusion.export.backends.coreml.apple_layout import write_script
from pocketdiffusion.export.backends.coreml.emit import emit
from pocketdiffusion.export.backends.coreml.tools import ct
from pocketdiffusion.export.component import Component, load_module
from pocketdiffusion.export.families import components
from pocketdiffusion.export.opening import open_checkpoint
from pocketdiffusion.export.targets import Artifact
from pocketdiffusion.runtime.bundle.bundle import open_bundle
from pocketdiffusion.runtime.bundle.manifest import Graph
from pocketdiffusion.runtime.engines import load_runner
from pocketdiffusion.runtime.engines.coreml import open_runner
from pocketdiffusion.runtime.engines.mlprogram.execute import run
from pocketdiffusion.runtime.engines.mlprogram.operators import OPERATORS
from pocketdiffusion.runtime.engines.mlprogram.program import read_program
from pocketdiffusion.runtime.errors import ProofError
from pocketdiffusion.runtime.pipeline import draw
from pocketdiffusion.runtime.runner import Array
from pocketdiffusion.runtime.verify.tolerances import FLOORS_DB

pytestmark = pytest.mark.slow  # each test emits a graph

PROFILES = ("ios16", "ios17", "ios18")
NAMES = ("text_encoder", "unet", "vae_decoder", "vae_encoder")
PRECISION = {"fp32": "float32", "fp16": "float16"}

# What https://github.com/apple/ml-stable-diffusion (e12202c, swift/StableDiffusion/pipeline) asks of the packages, on
# latents of 4x16x16 and states of 32 channels. Every array that it hands over is an MLShapedArray<Float32>.
# TextEncoder.swift: `encode(ids:)` fills the only input, in its shape, and reads "last_hidden_state".
# Unet.swift: `predictNoise` fills "sample", "timestep" (of shape [1] for one sample) and "encoder_hidden_states", which
# StableDiffusionPipeline.swift's `toHiddenStates` turns to [batch, channels, 1, tokens], and reads the only output.
# StableDiffusionPipeline.swift: a UNet whose `latentSampleShape[0]` is 1 is called for each half of guidance.
# Decoder.swift, Encoder.swift: the only input, the only output. The names that Swift leaves open are torch2coreml.py's.
APPLE = {
    "TextEncoder": ({"input_ids": [1, 77]}, {"last_hidden_state": [1, 77, 32], "pooled_outputs": [1, 32]}),
    "Unet": (
        {"sample": [1, 4, 16, 16], "timestep": [1], "encoder_hidden_states": [1, 32, 1, 77]},
        {"noise_pred": [1, 4, 16, 16]},
    ),
    "VAEDecoder": ({"z": [1, 4, 16, 16]}, {"image": [1, 3, 32, 32]}),
    "VAEEncoder": ({"x": [1, 3, 32, 32]}, {"latent": [1, 8, 16, 16]}),
}


def artifact(profile: str = "ios17", recipe: str = "fp16") -> Artifact:
    return Artifact("coreml", profile, recipe, "gpu", ("fused_attention", "quick_gelu"))


@cache
def parts(folder: Path) -> dict[str, Component]:
    return {part.spec.name: part for part in components(open_checkpoint(str(folder), progress=lambda line: None))}


@pytest.fixture(scope="module")
def emitted(
    tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, str, str], tuple[Path, Graph]]:
    """Folder and graph of a part of the tiny checkpoint, written once."""
    home = tmp_path_factory.mktemp("coreml")

    @cache
    def write(name: str, profile: str, recipe: str) -> tuple[Path, Graph]:
        folder = home / f"{profile}_{recipe}"
        return folder, emit(parts(tiny_checkpoint)[name], artifact(profile, recipe), folder, open_batch=False)

    return write


Emitted = Callable[[str, str, str], tuple[Path, Graph]]


def compare(part: Component, folder: Path, graph: Graph) -> dict[str, float]:
    """PSNR of each output on the component's example, by the runner that users get."""
    example = part.example(0)
    found = load_runner(folder, "coreml", graph)({key: tensor.numpy() for key, tensor in example.items()})
    with torch.no_grad():
        outputs = load_module(part)(*example.values())
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    return {t.name: psnr(o.numpy(), found[t.name]) for t, o in zip(part.spec.outputs, outputs, strict=True)}


@pytest.mark.parametrize("name", NAMES)
def test_float32_is_exact_by_far(tiny_checkpoint: Path, emitted: Emitted, name: str) -> None:
    """20 dB over the gate's floor: a batch_norm with an epsilon of coremltools' own is 117 dB near, and 138 without."""
    folder, graph = emitted(name, "ios17", "fp32")
    assert set(graph.ops) <= set(OPERATORS)
    for decibels in compare(parts(tiny_checkpoint)[name], folder, graph).values():
        assert decibels >= FLOORS_DB["float32", "float32"] + 20


@pytest.mark.parametrize("profile", PROFILES)
def test_attention_is_as_the_system_has_it(emitted: Emitted, profile: str) -> None:
    """The UNet of the tiny checkpoint has 8 attentions and its text encoder 2, with QuickGELU."""
    for name, sites in (("unet", 8), ("text_encoder", 2)):
        ops = emitted(name, profile, "fp16")[1].ops
        if profile == "ios18":
            assert ops["scaled_dot_product_attention"] == sites and "softmax" not in ops
        else:
            assert (ops["softmax"], ops["matmul"]) == (sites, 2 * sites)
    assert ops["gelu"] == 2


def test_the_timestep_stays_float32(emitted: Emitted) -> None:
    folder, graph = emitted("unet", "ios17", "fp16")
    program = read_program(folder / graph.path)
    declared = {o.results[0].type.dtype for o in program.operations if o.kind in ("sin", "cos", "expand_dims")}
    kept = [o.kind for o in program.operations if o.results[0].type.dtype == "FLOAT32"]
    assert sorted(kept) == ["cast", "cos", "expand_dims", "mul", "sin"] and declared == {"FLOAT16", "FLOAT32"}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("profile", PROFILES)
def test_names_and_shapes_are_apples(emitted: Emitted, name: str, profile: str) -> None:
    folder, graph = emitted(name, profile, "fp16")
    spec = ct.models.MLModel(str(folder / graph.path), skip_model_load=True).get_spec()
    package = Path(graph.path).name.removesuffix(".mlpackage")
    float32 = ct.proto.FeatureTypes_pb2.ArrayFeatureType.FLOAT32
    for found, wanted in zip((spec.description.input, spec.description.output), APPLE[package], strict=True):
        assert {feature.name: list(feature.type.multiArrayType.shape) for feature in found} == wanted
        assert {feature.type.multiArrayType.dataType for feature in found} == {float32}
        assert all(feature.shortDescription for feature in found)
    assert spec.specificationVersion == {"ios16": 7, "ios17": 8, "ios18": 9}[profile]
    assert graph.file_spec is not None
    listed = [{t.name: list(t.shape) for t in side} for side in (graph.file_spec.inputs, graph.file_spec.outputs)]
    assert listed == list(APPLE[package])


def test_the_runner_refuses_other_tensors(emitted: Emitted) -> None:
    folder, graph = emitted("vae_decoder", "ios17", "fp16")
    assert graph.file_spec is not None
    with pytest.raises(ProofError, match=r"inputs are z float32\[1, 4, 16, 16\], not latent_sample"):
        open_runner(folder / graph.path, graph.spec)
    runner = open_runner(folder / graph.path, graph.file_spec)
    with pytest.raises(ValueError, match="vae_decoder has the inputs"):
        runner({"latent_sample": np.zeros((1, 4, 16, 16), np.float32)})


ELSEWHERE = """
import sys
from pathlib import Path
from test_coreml import artifact, emit, parts
emit(parts(Path(sys.argv[1]))["unet"], artifact(), Path(sys.argv[2]), open_batch=False)
"""


@pytest.mark.slow
def test_another_process_writes_the_same_bytes(tiny_checkpoint: Path, emitted: Emitted, tmp_path: Path) -> None:
    """With another seed of Python's hashes, and so another order of its sets."""
    folder, graph = emitted("unet", "ios17", "fp16")
    subprocess.run(
        [sys.executable, "-c", ELSEWHERE, str(tiny_checkpoint), str(tmp_path)],
        cwd=Path(__file__).parent,
        env={"PYTHONHASHSEED": "7", "PYTHONPATH": str(Path(__file__).parents[1])},
        check=True,
        timeout=900,
    )
    for file in graph.files:
        assert (tmp_path / file).read_bytes() == (folder / file).read_bytes()


def test_says_nothing_of_what_made_it(tiny_checkpoint: Path, tmp_path: Path) -> None:
    graph = emit(parts(tiny_checkpoint)["text_encoder"], artifact("ios18"), tmp_path, open_batch=False)
    program, contents = (
        (tmp_path / graph.path / file).read_bytes() for file in ("Data/com.apple.CoreML/model.mlmodel", "Manifest.json")
    )
    for word in (
        b".py",
        b"coremltools",
        b"conversion_date",
    ):
        assert word not in program and word not in contents
    items = json.loads(contents)["itemInfoEntries"]
    assert {item["path"] for item in items.values()} == {"com.apple.CoreML/model.mlmodel", "com.apple.CoreML/weights"}


def compressed(model: Any, scheme: str) -> Any:
    """The package with its weights compressed by coremltools itself."""
    cto = ct.optimize.coreml
    kind, _, detail = scheme.partition(" ")
    if kind == "palette":
        options = {"mode": "kmeans", "nbits": int(detail.split()[0])}
        if "channels" in detail:
            options |= {"granularity": "per_grouped_channel", "group_size": 4}
        if "vectors" in detail:
            options |= {"cluster_dim": 4}
        return cto.palettize_weights(
            model, cto.OptimizationConfig(cto.OpPalettizerConfig(**options, weight_threshold=512))
        )
    options = {"mode": "linear", "dtype": detail.split()[0]}
    if "symmetric" in detail:
        options |= {"mode": "linear_symmetric"}
    if "blocks" in detail:
        options |= {"granularity": "per_block", "block_size": 8}
    return cto.linear_quantize_weights(
        model, cto.OptimizationConfig(cto.OpLinearQuantizerConfig(**options, weight_threshold=512))
    )


@pytest.mark.parametrize(
    ("profile", "scheme", "operator"),
    [
        ("ios16", "linear int8", "constexpr_affine_dequantize"),
        ("ios16", "palette 6", "constexpr_lut_to_dense"),
        ("ios18", "linear int8 symmetric", "constexpr_blockwise_shift_scale"),
        ("ios18", "linear int4 blocks", "constexpr_blockwise_shift_scale"),
        ("ios18", "palette 3", "constexpr_lut_to_dense"),
        ("ios18", "palette 4 channels", "constexpr_lut_to_dense"),
        ("ios18", "palette 2 vectors", "constexpr_lut_to_dense"),
    ],
)
def test_compressed_weights(
    tiny_checkpoint: Path, emitted: Emitted, tmp_path: Path, profile: str, scheme: str, operator: str
) -> None:
    """The executor computes the same bits with a compressed package and with its decompression by coremltools."""
    folder, graph = emitted("vae_decoder", profile, "fp16")
    small = compressed(ct.models.MLModel(str(folder / graph.path), skip_model_load=True), scheme)
    small.save(str(tmp_path / "small.mlpackage"))
    ct.optimize.coreml.decompress_weights(small).save(str(tmp_path / "dense.mlpackage"))
    programs = {name: read_program(tmp_path / f"{name}.mlpackage") for name in ("small", "dense")}
    assert programs["small"].histogram[operator] >= 4
    assert set(programs["small"].histogram) <= set(OPERATORS)
    assert not any(kind.startswith("constexpr_") for kind in programs["dense"].histogram)
    feeds = {"z": parts(tiny_checkpoint)["vae_decoder"].example(0)["latent_sample"].numpy()}
    outputs: dict[str, Array] = {name: run(program, feeds, "float16")["image"] for name, program in programs.items()}
    assert np.array_equal(outputs["small"], outputs["dense"])


@pytest.mark.slow
@pytest.mark.parametrize("profile", PROFILES)
def test_topology_of_stable_diffusion_15(tmp_path: Path, profile: str) -> None:
    part = narrow_sd15_unet(tmp_path)
    graph = emit(part, artifact(profile), tmp_path, open_batch=False)
    assert graph.rewrites == {"fused_attention": 32, "quick_gelu": 0}
    own = {"scaled_dot_product_attention": 32} if profile == "ios18" else {"softmax": 32, "matmul": 64}
    ops = {"gelu": 16, "layer_norm": 48, "silu": 47, "sqrt": 61, **own}  # one square root for each GroupNorm
    assert {op: graph.ops.get(op, 0) for op in ops} == ops
    assert set(graph.ops) <= set(OPERATORS)
    assert compare(part, tmp_path, graph)["out_sample"] >= 58


def linear(folder: Path) -> Component:
    return component_of(folder, lambda: nn.Linear(8, 8), {"x": torch.randn(1, 8)}, {"y": (1, 8)}, {})


def test_a_component_that_apple_does_not_know_keeps_its_names(tmp_path: Path) -> None:
    part = linear(tmp_path)
    graph = emit(part, artifact(), tmp_path, open_batch=False)
    assert graph.path == "coreml/part.mlpackage" and graph.file_spec is None
    assert compare(part, tmp_path, graph)["y"] >= 58


@pytest.mark.slow
def test_export_for_an_iphone(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """The gate passes; the bundle then opens, has Apple's script and draws."""
    bundle = export(str(tiny_checkpoint), "iphone-15", tmp_path / "bundle")
    shipped = [v for v in bundle.manifest.verdicts if v.rung == "fp16"]
    assert len(shipped) == 5 and all(v.passed and (v.storage, v.arithmetic) == ("float16",) * 2 for v in shipped)
    assert {v.rung for v in bundle.manifest.verdicts} >= {"rewrites", "fp32", "fp16", "pictures"}
    assert open_bundle(bundle.folder).manifest.files["coreml/compile_for_apple.sh"].size > 0
    assert draw(bundle, "red apple", steps=2).shape == (32, 32, 3)


def test_the_script_for_apple(tmp_path: Path) -> None:
    """With a compiler that only copies: what is called for what, and the folder that Swift opens."""
    for path in ("tokenizer/vocab.json", "tokenizer/merges.txt", *(f"coreml/{name}.mlpackage/x" for name in APPLE)):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    write_script(tmp_path / "coreml", 0.18215, "ane")
    xcrun = tmp_path / "bin/xcrun"
    xcrun.parent.mkdir()
    xcrun.write_text(
        '#!/bin/sh\ntest "$1 $2" = "coremlcompiler compile"\nmkdir "$4/$(basename "$3" .mlpackage).mlmodelc"\n'
    )
    xcrun.chmod(0o755)
    script, out = tmp_path / "coreml/compile_for_apple.sh", tmp_path / "out dir"
    subprocess.run(["sh", script, out], env={"PATH": f"{xcrun.parent}:/usr/bin:/bin"}, check=True)
    assert {path.name for path in out.iterdir()} == {f"{name}.mlmodelc" for name in APPLE} | {
        "vocab.json",
        "merges.txt",
    }
    assert "to 0.18215." in script.read_text() and "computeUnits = .cpuAndNeuralEngine" in script.read_text()
    assert subprocess.run(["sh", script], capture_output=True, text=True).stderr.endswith(
        "usage: sh compile_for_apple.sh OUT\n"
    )
