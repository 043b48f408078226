"""Split attention in Core ML packages: what is in the program, and that it computes what the module does."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.traced_parts import SD15_SITES, component_of, narrow_sd15_unet
from test_coreml import PRECISION, PROFILES, compare, parts
from torch import Tensor, nn

from pocketdiffusion.export.backends.coreml.emit import emit
from pocketdiffusion.export.component import Component, load_module, read_weights
from pocketdiffusion.export.rewrites import apply_rewrites
from pocketdiffusion.export.rewrites.split_einsum import ChannelNorm, Pointwise, split_attention
from pocketdiffusion.export.targets import load_target
from pocketdiffusion.runtime.bundle.manifest import Graph
from pocketdiffusion.runtime.engines.mlprogram.operators import OPERATORS
from pocketdiffusion.runtime.engines.mlprogram.program import read_program
from pocketdiffusion.runtime.verify.tolerances import FLOORS_DB

pytestmark = pytest.mark.slow  # each test emits a graph, or starts a process


def write(part: Component, profile: str, recipe: str, folder: Path) -> Graph:
    (iphone,) = load_target("iphone-15").artifacts
    return emit(part, replace(iphone, profile=profile, recipe=recipe), folder, open_batch=False)


def check_program(part: Component, graph: Graph, folder: Path, heads: int) -> None:
    """Each attention is 2 products and a softmax for each head; every linear layer of a transformer a convolution."""
    attentions, blocks = part.sites["attention"], part.sites["gelu"]
    module = load_module(part)
    convolutions = sum(isinstance(child, nn.Conv2d) for child in module.modules())
    linear = sum(type(child) is nn.Linear for child in module.modules())
    assert graph.rewrites["split_einsum"] == attentions == 2 * blocks and graph.compute_unit == "ane"
    assert graph.ops["einsum"] == 2 * heads * attentions
    assert graph.ops["softmax"] == heads * attentions
    assert graph.ops["slice_by_index"] == 3 * heads * attentions + 2  # and the two halves of the timestep's sines
    assert graph.ops["conv"] == convolutions + 10 * blocks
    assert graph.ops["linear"] == linear - 10 * blocks
    assert graph.ops["transpose"] == attentions  # of the keys
    assert (graph.ops["layer_norm"], graph.ops["gelu"]) == (3 * blocks, blocks)
    assert not {"matmul", "scaled_dot_product_attention"} & set(graph.ops)
    assert set(graph.ops) <= set(OPERATORS)
    operations = read_program(folder / graph.path).operations
    for kind, rank in (("linear", 2), ("conv", 4), ("layer_norm", 4), ("einsum", 4), ("softmax", 4), ("transpose", 4)):
        assert {len(o.results[0].type.shape) for o in operations if o.kind == kind} == {rank}


@pytest.mark.parametrize(
    ("profile", "recipe"),
    [
        ("ios16", "fp16"),
        ("ios17", "fp16"),
        ("ios18", "fp16"),
        ("ios17", "fp32"),
        pytest.param("ios16", "fp32", marks=pytest.mark.slow),
        pytest.param("ios18", "fp32", marks=pytest.mark.slow),
    ],
)
def test_the_unet_of_a_small_model(tiny_checkpoint: Path, tmp_path: Path, profile: str, recipe: str) -> None:
    part = parts(tiny_checkpoint)["unet"]
    graph = write(part, profile, recipe, tmp_path)
    check_program(part, graph, tmp_path, heads=4)
    assert graph.parameters == sum(tensor.numel() for tensor in load_module(part).parameters())
    floor = FLOORS_DB[PRECISION[recipe], PRECISION[recipe]]
    assert compare(part, tmp_path, graph)["out_sample"] >= floor + 20 * (recipe == "fp32")


@pytest.mark.slow
@pytest.mark.parametrize("profile", PROFILES)
def test_topology_of_stable_diffusion_15(tmp_path: Path, profile: str) -> None:
    part = narrow_sd15_unet(tmp_path)
    assert part.sites == SD15_SITES
    graph = write(part, profile, "fp16", tmp_path)
    check_program(part, graph, tmp_path, heads=8)
    assert (graph.ops["einsum"], graph.ops["softmax"], graph.ops["conv"], graph.ops["linear"]) == (512, 256, 258, 24)
    assert compare(part, tmp_path, graph)["out_sample"] >= 58


@pytest.mark.parametrize("name", ["text_encoder", "vae_decoder"])
def test_the_other_graphs_stay_as_they_were(tiny_checkpoint: Path, tmp_path: Path, name: str) -> None:
    part = parts(tiny_checkpoint)[name]
    graph = write(part, "ios17", "fp16", tmp_path)
    assert graph.rewrites["split_einsum"] == 0 and graph.rewrites["fused_attention"] == part.sites["attention"]
    assert graph.ops["matmul"] == 2 * part.sites["attention"] and "einsum" not in graph.ops


class Mixer(nn.Module):
    """Attention of 3 heads from x to y, then a norm, then a projection without bias."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.out = ChannelNorm(nn.LayerNorm(12, eps=1e-3)), Pointwise(nn.Linear(12, 5, bias=False))

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor]:
        return (self.out(self.norm(split_attention(x, y, y * 0.5, 3, 0.7))),)


@pytest.mark.parametrize("profile", PROFILES)
def test_the_operators_alone(tmp_path: Path, profile: str) -> None:
    torch.manual_seed(0)
    inputs = {"x": torch.randn(2, 12, 1, 7), "y": torch.randn(2, 12, 1, 4)}
    sites = {"attention": 1, "layer_norm": 1}
    part = component_of(tmp_path, Mixer, inputs, {"z": (2, 5, 1, 7)}, sites)
    graph = write(part, profile, "fp32", tmp_path)
    assert (graph.ops["einsum"], graph.ops["softmax"], graph.ops["layer_norm"], graph.ops["conv"]) == (6, 3, 1, 1)
    assert compare(part, tmp_path, graph)["z"] >= 125


def test_the_scale_is_in_no_weight(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """Not all of it is a power of two: in a weight of float16 it would round that once more. It multiplies the keys,
    once they are turned."""
    part = parts(tiny_checkpoint)["unet"]
    operations = read_program(tmp_path / write(part, "ios17", "fp16", tmp_path).path).operations
    turned = {operation.results[0].name for operation in operations if operation.kind == "transpose"}
    scaled = [operation for operation in operations if turned & set(operation.uses)]
    assert [operation.kind for operation in scaled] == ["mul"] * part.sites["attention"]


def test_the_rewritten_module_has_the_checkpoints_weights(tiny_checkpoint: Path) -> None:
    part = parts(tiny_checkpoint)["unet"]
    module = load_module(part)
    apply_rewrites(module, load_target("iphone-15").artifacts[0].rewrites)
    found = module.state_dict()
    assert set(found) == set(part.weights)
    for name, weight in read_weights(part):
        assert torch.equal(found[name].flatten(), torch.from_numpy(weight).flatten())
