"""Rescaling: powers of two inside, the same outputs."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support.traced_parts import narrow_sd15_unet

from pocketdiffusion.export.backends.emission import emit_floats
from pocketdiffusion.export.backends.intermediate_outputs import open_layers
from pocketdiffusion.export.checks.layer_errors import OriginalLayers
from pocketdiffusion.export.component import Component, load_module, read_weights
from pocketdiffusion.export.families import components
from pocketdiffusion.export.float16 import weight_rescaling as rescaled
from pocketdiffusion.export.float16.scale_propagation import Dataflow, follow
from pocketdiffusion.export.float16.weight_rescaling import Rescale, rescale
from pocketdiffusion.export.opening import open_checkpoint
from pocketdiffusion.export.targets import load_target

PLAIN = ("fused_attention", "quick_gelu")
SPLIT = ("split_einsum", "fused_attention", "quick_gelu")
LITE = ("batched_attention", "centred_group_norm", "centred_layer_norm", "quick_gelu")


def louder(data: Dataflow, factor: float) -> Dataflow:
    """As if what norms take were `factor` times as large."""
    flow = data.flow
    largest = {name: value * (factor if name in flow.squared else 1) for name, value in flow.largest.items()}
    return replace(data, flow=replace(flow, largest=largest))


def outputs(part: Component) -> list[torch.Tensor]:
    with torch.no_grad():
        return list(load_module(part)(*part.example(3).values()))


@pytest.mark.parametrize("rewrites", [PLAIN, SPLIT, LITE])
@pytest.mark.parametrize("name", ["text_encoder", "unet", "vae_decoder", "vae_encoder"])
def test_outputs_are_the_same_bit_for_bit(name: str, rewrites: tuple[str, ...], tiny_checkpoint: Path) -> None:
    part = next(p for p in components(open_checkpoint(str(tiny_checkpoint))) if p.spec.name == name)
    data = louder(follow(part, rewrites, [inputs_of(part)]), 2.0**9)
    found = rescaled._plan(data)
    assert len(found.epsilons) == len(data.norms) and found.weights
    for before, after in zip(outputs(part), outputs(rescale(part, found)), strict=True):
        assert torch.equal(before, after)


def inputs_of(part: Component) -> Mapping[str, np.ndarray]:
    return {name: x.numpy() for name, x in part.example(0).items()}


@pytest.mark.parametrize("rewrites", [SPLIT, LITE])
def test_every_norm_and_convolution_of_stable_diffusion_is_followed(rewrites: tuple[str, ...], tmp_path: Path) -> None:
    part = narrow_sd15_unet(tmp_path)
    data = follow(part, rewrites, [inputs_of(part)])
    assert len(data.norms) == 61 + 48
    weights = {name for name, _ in read_weights(part) if name.endswith("weight") and "norm" not in name}
    assert {each.weight for each in data.affine} == weights
    found = rescaled._plan(louder(data, 2.0**9))
    for before, after in zip(outputs(part), outputs(rescale(part, found)), strict=True):
        assert torch.equal(before, after)


def test_a_weight_is_read_with_its_power_of_two(tiny_checkpoint: Path) -> None:
    part = components(open_checkpoint(str(tiny_checkpoint)))[2]
    changed = dict(read_weights(rescale(part, Rescale({"decoder.conv_in.weight": -3}, {}))))
    for name, weight in read_weights(part):
        factor = 0.125 if name == "decoder.conv_in.weight" else 1.0
        np.testing.assert_array_equal(changed[name], weight * np.float32(factor))


@pytest.mark.parametrize("name", ["text_encoder", "vae_encoder"])
def test_layers_are_compared_in_the_originals_own_scale(name: str, tiny_checkpoint: Path, tmp_path: Path) -> None:
    """In the file they are smaller by powers of two, which the manifest names: none of them errs."""
    parts = components(open_checkpoint(str(tiny_checkpoint)))
    part = next(each for each in parts if each.spec.name == name)
    found = rescaled._plan(louder(follow(part, PLAIN, [inputs_of(part)]), 2.0**9))
    graph = emit_floats(rescale(part, found), load_target("generic").artifacts[0], tmp_path, open_batch=False)
    assert graph.layer_exponents and set(graph.layer_exponents.values()) != {0}
    given = open_layers(tmp_path, "onnx", graph)(inputs_of(part))
    for module, wanted in OriginalLayers(part)(inputs_of(part)).items():
        error = np.linalg.norm(given[module].reshape(wanted.shape) - wanted) / np.linalg.norm(wanted)
        assert error < 1e-4, module
    assert all(graph.layer_exponents.get(module, 0) == found.results.get(module, 0) for module, _ in graph.layers)
