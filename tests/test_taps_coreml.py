"""Which result of a Core ML package belongs to which module of the original."""

from pathlib import Path

import numpy as np
import pytest
import torch
from support.traced_parts import component_of, psnr
from test_coreml import artifact, parts
from torch import Tensor, nn

from pocketdiffusion.export.backends.coreml.emit import emit
from pocketdiffusion.export.backends.coreml.intermediate_outputs import layers
from pocketdiffusion.export.backends.intermediate_outputs import Layer
from pocketdiffusion.export.component import Component, load_module
from pocketdiffusion.export.matrices import weights_of
from pocketdiffusion.export.targets import Artifact, load_target
from pocketdiffusion.quantize.scheme import FLOAT16, FLOAT32, Plan, Scheme
from pocketdiffusion.runtime.engines.mlprogram.execute import run
from pocketdiffusion.runtime.engines.mlprogram.program import Operation, read_program
from pocketdiffusion.runtime.runner import Array

pytestmark = pytest.mark.slow  # each test emits a graph, or starts a process

SPLIT = load_target("iphone-15").artifacts[0].rewrites
TABLES, INTEGERS = Scheme("palette", 8, 16), Scheme("linear", 8)


def modules_of(part: Component, weights: list[str]) -> dict[str, Array]:
    """What the original's modules give on the example, in the order in which they are called."""
    module, found = load_module(part), {}
    for weight in weights:
        path = weight.rpartition(".")[0]

        def note(owner: nn.Module, given: object, output: Tensor, path: str = path) -> None:
            found[path] = output.detach().numpy()

        module.get_submodule(path).register_forward_hook(note)
    with torch.no_grad():
        module(*part.example(0).values())
    return found


def results_of(part: Component, package: Path) -> dict[str, Array]:
    """Every result of a package on the same."""
    found: dict[str, Array] = {}

    def observe(operation: Operation, name: str, value: Array) -> None:
        found[name] = value

    program = read_program(package)
    feeds = {}
    for (name, x), (own, kind) in zip(part.example(0).items(), program.inputs.items(), strict=True):
        turned = x.numpy().swapaxes(1, 2) if name == "encoder_hidden_states" else x.numpy()
        feeds[own] = turned.reshape(kind.shape)
    run(program, feeds, "float16", observe)
    return found


def alike(result: Array, output: Array) -> float:
    """In dB; [batch, channels, 1, tokens] is [batch, tokens, channels]."""
    if result.ndim == 4 and output.ndim == 3:
        result = result[:, :, 0].swapaxes(1, 2)
    return psnr(output, result)


@pytest.mark.parametrize(
    ("profile", "rewrites", "scheme"),
    [
        ("ios17", artifact().rewrites, FLOAT16),
        ("ios18", artifact().rewrites, FLOAT32),
        ("ios17", SPLIT, FLOAT16),
        ("ios18", SPLIT, TABLES),
        ("ios16", SPLIT, INTEGERS),
    ],
    ids=["plain", "float32", "split", "palettes", "int8"],
)
def test_every_matrix_of_the_unet_in_order(
    tiny_checkpoint: Path, tmp_path: Path, profile: str, rewrites: tuple[str, ...], scheme: Scheme
) -> None:
    """The result that is said to be a module's has the values of its output."""
    part = parts(tiny_checkpoint)["unet"]
    plan = Plan("own", dict.fromkeys(weights_of(part), scheme))
    wanted = Artifact("coreml", profile, "own", "gpu", rewrites)
    package = tmp_path / emit(part, wanted, tmp_path, open_batch=False, plan=plan).path
    found, outputs = layers(package, plan.schemes), modules_of(part, list(plan.schemes))
    assert [layer.module for layer in found] == list(outputs) and len(outputs) == len(plan.schemes)
    results = results_of(part, package)
    for layer in found:
        assert alike(results[layer.result], outputs[layer.module]) >= 30, layer


def test_the_embedding_of_the_text_encoder(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """Positions are added as a constant: no operator takes their table."""
    part = parts(tiny_checkpoint)["text_encoder"]
    package = tmp_path / emit(part, artifact(), tmp_path, open_batch=False).path
    found = layers(package, part.weights)
    assert found[0].module == "text_model.embeddings.token_embedding"
    assert {f"{layer.module}.weight" for layer in found} == {
        name for name in weights_of(part) if "position_embedding" not in name
    }


def test_a_layer_that_runs_twice(tmp_path: Path) -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.other = nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x: Tensor) -> tuple[Tensor]:
            return (self.inner(self.other(self.inner(x).tanh()).tanh()),)

    part = component_of(tmp_path, Twice, {"x": torch.randn(1, 8)}, {"y": (1, 8)}, {})
    package = tmp_path / emit(part, artifact(), tmp_path, open_batch=False).path
    found = layers(package, part.weights)
    assert [layer.module for layer in found] == ["inner", "other", "inner"]
    assert layers(package, ["other.weight"]) == [found[1]] and isinstance(found[1], Layer)
    assert np.shape(results_of(part, package)[found[1].result]) == (1, 8)
