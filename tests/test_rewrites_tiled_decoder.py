"""The VAE's decoder in stripes: exact, in every format, with any other rewrite, and in less memory."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL
from diffusers.models.autoencoders.vae import Decoder
from support.command import refusal
from support.family_cases import SMALL_VAE
from support.traced_parts import component_of, narrow_sd15_unet, psnr
from test_weight_rescaling import inputs_of
from torch import Tensor, nn

from pocketdiffusion.build import export
from pocketdiffusion.choices import ExportOptions, choose
from pocketdiffusion.export.backends.emission import emit_floats
from pocketdiffusion.export.component import Component, load_module
from pocketdiffusion.export.families.parts import autoencoder_kl
from pocketdiffusion.export.float16.scale_propagation import follow
from pocketdiffusion.export.rewrites import apply_rewrites, tiled_decoder
from pocketdiffusion.export.rewrites.tiled_decoder import STRIPES, apply, kept, split_rows, striped_conv
from pocketdiffusion.export.targets import Artifact, load_target
from pocketdiffusion.runtime.bundle.bundle import Bundle, open_bundle
from pocketdiffusion.runtime.bundle.manifest import Graph
from pocketdiffusion.runtime.engines import load_runner
from pocketdiffusion.runtime.errors import ProofError
from pocketdiffusion.runtime.pipeline import draw
from pocketdiffusion.runtime.runner import Array
from pocketdiffusion.runtime.verify.metrics import image_psnr_db

CHANNELS = ((8, 16, 16), (8, 16), (8,))  # the first up block is outside of the stripes, or in them


def settings(channels: Sequence[int] = CHANNELS[0], **changed: Any) -> dict[str, Any]:
    kinds = {f"{way}_block_types": (f"{name}Block2D",) * len(channels) for way, name in DIRECTIONS.items()}
    return autoencoder_kl.read_config("vae", {**SMALL_VAE, **kinds, "block_out_channels": channels, **changed})


DIRECTIONS = {"down": "DownEncoder", "up": "UpDecoder"}


def decoder_part(folder: Path, size: tuple[int, int] = (9, 6), **changed: Any) -> Component:
    """A decoder of three levels: 36 rows of latents of 9, in stripes of 2, 4 and 6 rows."""
    config = settings(**changed)
    latents = torch.randn(1, 4, *size, generator=torch.Generator().manual_seed(2))
    outputs = {"sample": (1, 3, 4 * size[0], 4 * size[1])}
    build, sites = partial(autoencoder_kl.LatentDecoder, config), autoencoder_kl.decoder_sites(config)
    return component_of(folder, build, {"latent_sample": latents}, outputs, sites, "vae_decoder")


def decoded(part: Component, rewrites: Sequence[str]) -> Array:
    module = load_module(part)
    apply_rewrites(module, rewrites)
    with torch.no_grad():
        (picture,) = module(*part.example(0).values())
    found: Array = picture.numpy()
    return found


@pytest.mark.parametrize(("channels", "count"), zip(CHANNELS, (2 + 2 + 2 + 1, 2 + 2 + 1 + 1, 2 + 1), strict=True))
def test_fires_on_the_last_two_levels(channels: tuple[int, ...], count: int) -> None:
    """Residual blocks, the upsamplers to the two levels, and the end."""
    model = autoencoder_kl.LatentDecoder(settings(channels))
    names = sorted(model.state_dict())
    assert apply(model) == count and kept(model) == {}
    assert sorted(model.state_dict()) == names
    assert apply(model) == 0


def test_does_not_fire_elsewhere(tmp_path: Path) -> None:
    other = nn.ModuleList([AutoencoderKL(**settings(act_fn="mish")).decoder])
    spatial = nn.ModuleList([Decoder(4, 3, norm_type="spatial", block_out_channels=(32,))])
    encoder = autoencoder_kl.LatentEncoder(settings())
    for module in (narrow_sd15_unet(tmp_path).build(), encoder, other, spatial):
        assert apply(module) == 0
    assert kept(other) == {"has another activation than SiLU": 1} and kept(encoder) == {}
    assert kept(spatial) == {"has other blocks or norms": 1}


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("size", [(9, 6), (8, 4), (1, 3)])
def test_parity(channels: tuple[int, ...], size: tuple[int, int], tmp_path: Path) -> None:
    """Of stripes of equal and of different numbers of rows, and of one row."""
    part = decoder_part(tmp_path, size, channels=channels)
    assert psnr(decoded(part, ()), decoded(part, ["tiled_decoder"])) > 115


@pytest.mark.parametrize("others", [("centred_group_norm",), ("tanh_sigmoid",), ("centred_group_norm", "tanh_sigmoid")])
def test_in_any_order_with_other_rewrites(others: tuple[str, ...], tmp_path: Path) -> None:
    part = decoder_part(tmp_path)
    found = [decoded(part, order) for order in (["tiled_decoder", *others], [*others, "tiled_decoder"])]
    assert psnr(decoded(part, ()), found[0]) > 115 and (found[0] == found[1]).all()


def test_statistics_are_those_of_the_complete_tensor() -> None:
    """Of stripes with means from 0 to 7: statistics of each stripe would remove the difference."""
    torch.manual_seed(0)
    x = torch.randn(1, 8, 16, 5) + torch.arange(16).reshape(1, 1, -1, 1) // 2
    gain, offset, weight, bias = torch.randn(8), torch.randn(8), torch.randn(4, 8, 3, 3), torch.randn(4)
    expected = torch.conv2d(nn.functional.silu(torch.group_norm(x, 2, gain, offset, 1e-5)), weight, bias, padding=1)
    given = (split_rows(x), 2, gain, offset, 1e-5, False, weight, bias)
    found, by_tanh = (torch.cat(striped_conv(*given[:5], tanh, weight, bias), 2) for tanh in (False, True))
    assert psnr(expected.numpy(), found.numpy()) > 115 and psnr(expected.numpy(), by_tanh.numpy()) > 115
    assert not torch.equal(found, by_tanh)
    assert [stripe.shape[2] for stripe in split_rows(x)] == [2] * STRIPES
    checks = ("test_schema", "test_faketensor")
    torch.library.opcheck(striped_conv, given, test_utils=checks)
    torch.library.opcheck(striped_conv, (*given, torch.randn(4, 8, 1, 1), bias), test_utils=checks)


def test_scales_for_float16_are_those_of_the_complete_module(tmp_path: Path) -> None:
    part = decoder_part(tmp_path)
    calls = [inputs_of(part)]
    assert follow(part, ["tiled_decoder"], calls) == follow(part, [], calls)


FORMATS = [
    pytest.param("onnx", "ort", "fp32", ("fused_attention",), 115),
    pytest.param("onnx", "std", "fp16", ("fused_attention",), 58, marks=pytest.mark.slow),
    pytest.param("coreml", "ios17", "fp32", ("fused_attention",), 115, marks=pytest.mark.slow),
    pytest.param("coreml", "ios18", "fp16", ("fused_attention", "tanh_sigmoid"), 50, marks=pytest.mark.slow),
    pytest.param("tflite", "std", "fp32", ("chunked_attention", "centred_group_norm"), 115, marks=pytest.mark.slow),
]


def emitted(part: Component, wanted: Artifact, folder: Path) -> tuple[Graph, Array]:
    """The artifact's record, and the picture that its file decodes."""
    folder.mkdir()
    graph = emit_floats(part, wanted, folder, open_batch=False)
    inputs = {name: value.numpy() for name, value in part.example(0).items()}
    return graph, load_runner(folder, wanted.format, graph)(inputs)["sample"]


@pytest.mark.parametrize(("format", "profile", "recipe", "others", "floor"), FORMATS)
def test_every_format_decodes_the_same_in_less_memory(
    tmp_path: Path, format: str, profile: str, recipe: str, others: tuple[str, ...], floor: float
) -> None:
    """By two thirds of the largest tensor; of so few channels, tables, stripes and onnxruntime's copies in blocks of
    channels, which are counted too, are not small beside it. By 0.6 in ONNX: in onnxruntime's order of execution a
    residual block's input is alive until its shortcut is computed, after both of its other convolutions."""
    part = decoder_part(tmp_path, (16, 16))
    whole, _ = emitted(part, Artifact(format, profile, recipe, "cpu", others), tmp_path / "whole")
    tiled, found = emitted(part, Artifact(format, profile, recipe, "cpu", ("tiled_decoder", *others)), tmp_path / "own")
    assert psnr(decoded(part, ()), found) > floor
    assert tiled.rewrites["tiled_decoder"] == 7
    assert whole.memory is not None and tiled.memory is not None
    saved = 0.6 if format == "onnx" else 2 / 3
    largest = 4 * 16 * 64 * 64  # bytes in float32 of 16 channels of the picture's size
    assert (tiled.memory.activations_bytes or 0) < (whole.memory.activations_bytes or 0) - saved * largest
    layers = {name for name, _ in tiled.layers}
    assert layers < {name for name, _ in whole.layers} and "decoder.up_blocks.0.resnets.0.conv1" in layers
    assert not any(name.startswith("decoder.up_blocks.2.") for name in layers)


def without_neighbours(stripes: Sequence[Tensor], number: int) -> Tensor:
    """A stripe that ends in zeros where its neighbours' rows are to be."""
    top, bottom = int(number > 0), int(number < len(stripes) - 1)
    return nn.functional.pad(stripes[number], (0, 0, top, bottom))


def test_stripes_without_their_neighbours_rows_are_caught(
    micro_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiled_decoder, "with_neighbours", without_neighbours)
    options: dict[str, Any] = {"format": "onnx", "recipe": "fp32", "proof": "quick"}
    with pytest.raises(ProofError, match="vae_decoder"):
        export(str(micro_checkpoint), "generic", tmp_path / "out", ExportOptions(vae_tiles="exact", **options))
    assert not (tmp_path / "out").exists()


def test_the_option_adds_and_removes_the_rewrite() -> None:
    target = load_target("galaxy-s24")
    exact = choose(target, None, None, None, vae_tiles="exact")
    assert [a.rewrites for a in exact.artifacts] == [(*a.rewrites, "tiled_decoder") for a in target.artifacts]
    assert choose(exact, None, None, None) == exact == choose(exact, None, None, None, vae_tiles="exact")
    assert choose(exact, None, None, None, vae_tiles="none") == target


def test_integers_are_refused_before_anything_is_drawn(micro_checkpoint: Path, tmp_path: Path) -> None:
    command = ("export", micro_checkpoint, "--target", "generic", "--format", "onnx", "--vae-tiles", "exact")
    said = refusal(*command, "--recipe", "w8a8", "-o", tmp_path / "out")
    assert "vae_decoder: tiled_decoder computes layers in parts, and the recipe w8a8 computes in integers" in said


TARGETS = {"onnx": "generic", "tflite": "galaxy-s24", "coreml": "iphone-15"}


@pytest.mark.slow
@pytest.mark.parametrize("format", TARGETS)
def test_the_built_in_model_draws_the_same_pictures(format: str, tmp_path: Path) -> None:
    def exported(way: str) -> Bundle:
        options: dict[str, Any] = {"format": format, "recipe": "fp32", "vae_tiles": way, "proof": "quick"}
        export("emoji", TARGETS[format], tmp_path / way, ExportOptions(**options))
        return open_bundle(tmp_path / way)

    whole, tiled = exported("none"), exported("exact")
    assert tiled.manifest.graphs[format]["vae_decoder"].rewrites["tiled_decoder"] == 7
    report = (tiled.folder / "report/report.html").read_text()
    assert "tiled_decoder (7)" in report and "in horizontal stripes" in report
    given: dict[str, Any] = {"negative_prompt": None, "seed": 7, "steps": 4, "guidance": 5.0, "format": format}
    assert image_psnr_db(draw(whole, "red apple", **given), draw(tiled, "red apple", **given)) > 60
