"""A rewrite that no file of the product knows: GroupNorm by its definition. It is exported, judged and drawn with, by
this file alone."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.toys import registered
from support.traced_parts import micro_unet, psnr
from torch import Tensor, nn

from pocketdiffusion.build import export_original
from pocketdiffusion.export import rewrites
from pocketdiffusion.export.artifact import Artifact
from pocketdiffusion.export.backends.emission import emit_floats
from pocketdiffusion.export.component import load_module
from pocketdiffusion.export.float16.scale_propagation import follow
from pocketdiffusion.export.original import open_model, record_original
from pocketdiffusion.export.targets import load_target
from pocketdiffusion.runtime.bundle.bundle import open_bundle
from pocketdiffusion.runtime.engines import load_runner
from pocketdiffusion.runtime.pipeline import draw
from pocketdiffusion.runtime.verify.gate import judge
from pocketdiffusion.runtime.verify.golden import read_golden

pytestmark = pytest.mark.slow
WITH = ("fused_attention", "toy_group_norm")
FLAT = ("batched_attention", "centred_layer_norm", "toy_group_norm")  # TFLite lowers no marker of ours

# The rewrite.


def by_definition(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """GroupNorm of [n, c, ...], by mean and variance."""
    grouped = x.reshape(x.shape[0], groups, -1)
    centred = grouped - grouped.mean(2, keepdim=True)
    normal = centred / torch.sqrt((centred * centred).mean(2, keepdim=True) + eps)
    channels = (-1, *[1] * (x.ndim - 2))
    return normal.reshape(x.shape) * weight.reshape(channels) + bias.reshape(channels)


toy_group_norm = torch.library.custom_op("toys::group_norm_by_definition", by_definition, mutates_args=())


@toy_group_norm.register_fake
def _(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    return torch.empty_like(x)


OPERATOR = torch.ops.toys.group_norm_by_definition.default
MARKS = {"group_norm": OPERATOR}
BODIES = {OPERATOR: by_definition}
SCALE_RULES = {OPERATOR: "norm"}


class ToyGroupNorm(nn.GroupNorm):
    def forward(self, x: Tensor) -> Tensor:
        assert self.weight is not None and self.bias is not None
        normal: Tensor = toy_group_norm(x, self.num_groups, self.weight, self.bias, self.eps)
        return normal


def apply(module: nn.Module) -> int:
    found = [child for child in module.modules() if type(child) is nn.GroupNorm]
    for child in found:
        child.__class__ = ToyGroupNorm
    return len(found)


# What the product does with it.


@pytest.fixture(scope="module", autouse=True)
def toy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with registered(rewrites, "toy_group_norm", f"from {__name__} import *\n", tmp_path_factory.mktemp("rewrites")):
        yield


def test_it_is_exported_judged_and_drawn_with(micro_checkpoint: Path, tmp_path: Path) -> None:
    target = replace(load_target("generic"), artifacts=(Artifact("onnx", "std", "fp32", "cpu", WITH),))
    original = record_original(*open_model(str(micro_checkpoint)))
    bundle = open_bundle(export_original(original, target, tmp_path / "out").folder)
    graphs = bundle.manifest.graphs["onnx"]
    for part in original.parts:
        assert graphs[part.spec.name].rewrites["toy_group_norm"] == part.sites.get("group_norm", 0)
        assert not {"GroupNormalization", "InstanceNormalization"} & set(graphs[part.spec.name].ops)
    verdicts, _ = judge(bundle, read_golden(bundle)[:1])
    assert all(verdict.passed for verdict in verdicts)
    assert draw(bundle, "red apple", steps=2).shape == (8, 8, 3)


@pytest.mark.parametrize(("format", "profile"), [("onnx", "ort"), ("coreml", "ios17"), ("tflite", "std")])
def test_every_format_lowers_its_operator(format: str, profile: str, tmp_path: Path) -> None:
    part = micro_unet(tmp_path)
    graph = emit_floats(
        part, Artifact(format, profile, "fp32", "cpu", FLAT if format == "tflite" else WITH), tmp_path, open_batch=False
    )
    inputs = part.example(0)
    found = load_runner(tmp_path, format, graph)({name: x.numpy() for name, x in inputs.items()})
    with torch.no_grad():
        wanted = load_module(part)(*inputs.values())[0].numpy()
    assert graph.rewrites["toy_group_norm"] == part.sites["group_norm"]
    assert psnr(wanted, found["out_sample"]) > 105


def test_powers_of_two_go_through_by_its_rule(tmp_path: Path) -> None:
    part = micro_unet(tmp_path)
    inputs = {name: x.numpy() for name, x in part.example(0).items()}
    assert len(follow(part, WITH, [inputs]).norms) == part.sites["group_norm"] + part.sites["layer_norm"]
