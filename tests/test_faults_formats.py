"""The faults of test_faults.py that lie in an artifact, for the formats whose files no test can edit: an exporter that
gets them wrong writes each file anew, as a phone takes it. What lies outside of the artifacts is the same for every
format, and is there."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch
from torch import Tensor, nn

from pocketdiffusion.export.backends.emission import emit_floats
from pocketdiffusion.export.component import Component
from pocketdiffusion.export.families import components
from pocketdiffusion.export.opening import open_checkpoint
from pocketdiffusion.export.reference.record import REQUESTS, record
from pocketdiffusion.export.rewrites import fused_attention
from pocketdiffusion.export.targets import load_target
from pocketdiffusion.runtime.bundle.verdicts import Verdict
from pocketdiffusion.runtime.engines import load_runner
from pocketdiffusion.runtime.verify.check import scope_of
from pocketdiffusion.runtime.verify.gate import judge_graph
from pocketdiffusion.runtime.verify.recording import Trajectory, first_middle_last_steps
from pocketdiffusion.runtime.verify.tolerances import check_artifact

pytestmark = pytest.mark.slow  # each test emits a graph, or starts a process

Weights = dict[str, np.ndarray]
PHONES = {"coreml": "iphone-15", "tflite": "galaxy-s24"}
FORMATS = tuple(PHONES)
RECIPES = ("fp32", "fp16")  # of which both are exported: a converter is run once for the two
FILES = {"unet": "unet/diffusion_pytorch_model.safetensors", "vae": "vae/diffusion_pytorch_model.safetensors"}


@pytest.fixture(scope="module")
def originals(micro_checkpoint: Path) -> list[Trajectory]:
    checkpoint = open_checkpoint(str(micro_checkpoint))
    return [first_middle_last_steps(t) for t in record(checkpoint, components(checkpoint), REQUESTS[1:2])]


def part_of(checkpoint: Path, name: str) -> Component:
    return next(part for part in components(open_checkpoint(str(checkpoint))) if part.spec.name == name)


def blamed(part: Component, format: str, originals: list[Trajectory], folder: Path) -> dict[str, set[str]]:
    """The outputs of the graph that fail once it is exported, by recipe."""
    (shipped,) = load_target(PHONES[format]).artifacts
    found = {}
    for recipe in RECIPES:
        graph = emit_floats(part, replace(shipped, recipe=recipe), folder / recipe, open_batch=False)
        check = check_artifact(scope_of(format, graph), graph)
        reports: list[Verdict] = judge_graph(check, load_runner(folder / recipe, format, graph), originals)
        found[recipe] = {report.subject for report in reports if not report.passed}
    return found


# Faults in what a module computes.


def with_inputs(part: Component, change: Callable[[list[Tensor]], list[Tensor]]) -> Component:
    return with_forward(part, lambda sound, inputs: sound(*change(list(inputs))))


def with_output(part: Component, change: Callable[[Tensor], Tensor]) -> Component:
    """Of several outputs the last is changed."""

    def faulty(sound: Callable[..., tuple[Tensor, ...]], inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        *others, last = sound(*inputs)
        return (*others, change(last))

    return with_forward(part, faulty)


def with_forward(part: Component, faulty: Callable[..., tuple[Tensor, ...]]) -> Component:
    def build() -> nn.Module:
        module = part.build()
        sound = module.forward
        module.forward = lambda *inputs: faulty(sound, inputs)
        return module

    return replace(part, build=build)


def one_element(change: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def changed(y: Tensor) -> Tensor:
        flat = y.reshape(1, -1)
        return torch.cat([flat[:, :7], change(flat[:, 7:8]), flat[:, 8:]], dim=1).reshape(y.shape)

    return changed


def without_a_channel(y: Tensor) -> Tensor:
    return torch.cat([y[:, :1], y[:, 1:2] * 0.0, y[:, 2:]], dim=1)


# The fault, its graph, how to make it, and who must be blamed. Zeros are made by a sigmoid: a converter drops weights
# that are multiplied by zero, and the export stops there.
COMPUTED: Mapping[str, tuple[str, Callable[[Component], Component]]] = {
    "NaN": ("unet", lambda p: with_output(p, one_element(lambda x: x * float("nan")))),
    "Inf": ("vae_encoder", lambda p: with_output(p, one_element(lambda x: x * 3e38 * 3e38))),
    "one outlier": ("vae_decoder", lambda p: with_output(p, one_element(lambda x: x + 0.2))),
    "all zeros": ("vae_decoder", lambda p: with_output(p, lambda y: torch.sigmoid(y - 1e4))),
    "dropped channel": ("vae_encoder", lambda p: with_output(p, without_a_channel)),
    "wrong layout": ("vae_decoder", lambda p: with_output(p, lambda y: y.transpose(2, 3))),
    "wrong layout of an input": ("unet", lambda p: with_inputs(p, lambda i: [i[0].transpose(2, 3), *i[1:]])),
    "off-by-one timestep": ("unet", lambda p: with_inputs(p, lambda i: [i[0], i[1] + 1.0, i[2]])),
    "wrong VAE scale": ("vae_decoder", lambda p: with_inputs(p, lambda i: [i[0] * 0.18215])),
}
OUTPUTS = {"unet": "out_sample", "vae_decoder": "sample", "vae_encoder": "latent_parameters"}


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("fault", COMPUTED)
def test_a_fault_in_what_is_computed_is_blamed(
    fault: str, format: str, micro_checkpoint: Path, originals: list[Trajectory], tmp_path: Path
) -> None:
    name, change = COMPUTED[fault]
    faulty = change(part_of(micro_checkpoint, name))
    assert blamed(faulty, format, originals, tmp_path) == dict.fromkeys(RECIPES, {f"{name}.{OUTPUTS[name]}"})


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
def test_a_lost_causal_mask_is_blamed(
    format: str,
    micro_checkpoint: Path,
    originals: list[Trajectory],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    part = part_of(micro_checkpoint, "text_encoder")
    assert blamed(part, format, originals, tmp_path / "sound") == dict.fromkeys(RECIPES, set())
    sound = fused_attention.FusedCLIPAttention.__init__

    def faulty(
        self: nn.Module, original: nn.Module, operator: Callable[..., Tensor] = fused_attention.attention
    ) -> None:
        sound(self, original, lambda q, k, v, heads, scale, causal: operator(q, k, v, heads, scale, False))  # type: ignore[arg-type]

    monkeypatch.setattr(fused_attention.FusedCLIPAttention, "__init__", faulty)
    found = blamed(part_of(micro_checkpoint, "text_encoder"), format, originals, tmp_path / "faulty")
    assert found == dict.fromkeys(RECIPES, {"text_encoder.last_hidden_state", "text_encoder.pooler_output"})


# Faults in the weights: another file than the one that was asked for.


def swapped_key_and_value(weights: Weights) -> Weights:
    block = "mid_block.attentions.0.transformer_blocks.0.attn1"
    key, value = f"{block}.to_k.weight", f"{block}.to_v.weight"
    return {**weights, key: weights[value], value: weights[key]}


def dropped_channel(weights: Weights) -> Weights:
    kernel = weights["conv_out.weight"].copy()
    kernel[2] = 0
    return {**weights, "conv_out.weight": kernel}


def anew(blend: float) -> Callable[[Weights], Weights]:
    """Weights of another model of the same shapes: `blend` 1 is unrelated to this one, 0.02 is some training away."""

    def changed(weights: Weights) -> Weights:
        random = np.random.default_rng(1)
        other = {n: random.standard_normal(w.shape).astype(np.float32) * w.std() for n, w in weights.items()}
        return {n: ((1 - blend) * w + blend * other[n]).astype(np.float32) for n, w in weights.items()}

    return changed


STORED: Mapping[str, tuple[str, str, Callable[[Weights], Weights]]] = {
    "swapped inputs": ("unet", "unet", swapped_key_and_value),
    "dropped channel": ("unet", "unet", dropped_channel),
    "stale file": ("unet", "unet", anew(0.02)),
    "swapped component": ("vae", "vae_decoder", anew(1)),
}


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("fault", STORED)
def test_a_fault_in_the_weights_is_blamed(
    fault: str, format: str, micro_checkpoint: Path, originals: list[Trajectory], tmp_path: Path
) -> None:
    folder, name, change = STORED[fault]
    checkpoint = shutil.copytree(micro_checkpoint, tmp_path / "checkpoint")
    weights = safetensors.numpy.load_file(checkpoint / FILES[folder])
    safetensors.numpy.save_file(change(weights), checkpoint / FILES[folder])
    faulty = part_of(checkpoint, name)
    found = blamed(faulty, format, originals, tmp_path / "out")
    assert found == dict.fromkeys(RECIPES, {f"{name}.{OUTPUTS[name]}"})


@pytest.mark.parametrize("format", FORMATS)
def test_without_a_fault_nobody_is_blamed(
    format: str, micro_checkpoint: Path, originals: list[Trajectory], tmp_path: Path
) -> None:
    for name in OUTPUTS:
        found = blamed(part_of(micro_checkpoint, name), format, originals, tmp_path / name)
        assert found == dict.fromkeys(RECIPES, set())
