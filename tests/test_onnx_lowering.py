"""Each operator that the ONNX backend lowers itself: fires, must not fire, parity; in both profiles."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers.models.activations import GEGLU
from diffusers.models.attention_processor import Attention
from support.traced_parts import artifact, component_of, emit_and_run, psnr
from torch import Tensor, nn
from transformers.activations import QuickGELUActivation

from pocketdiffusion.export.rewrites.fused_attention import attention

PROFILES = ("ort", "std")


class Formula(nn.Module):
    """A function as a module, after a layer with weights, without which there would be nothing to export."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.layer, self.function = nn.Linear(8, 8), function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.layer(x))


class BareGroupNorm(nn.Module):
    """GroupNorm without gains, as diffusers' AdaGroupNorm uses it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.nn.functional.group_norm(self.conv(x), 4, eps=1e-6)


class CausalAttention(nn.Module):
    """A text model's attention after the rewrite to FusedCLIPAttention."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(16, 48)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.qkv(x).chunk(3, dim=-1)
        mixed: Tensor = attention(query, key, value, 4, 0.6, True)
        return mixed


def run(
    folder: Path, build: Callable[[], nn.Module], x: Tensor, sites: dict[str, int], profile: str
) -> tuple[dict[str, int], float]:
    """Return the operators of the artifact, and its PSNR against torch in dB."""
    part = component_of(folder, build, {"x": x}, {"y": tuple(build()(x).shape)}, sites)
    graph, found, reference = emit_and_run(part, artifact(profile), folder)
    return graph.ops, psnr(reference["y"], found["y"])


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("space", [(6,), (6, 4), (3, 4, 2)])
def test_group_norm_fires(tmp_path: Path, profile: str, space: tuple[int, ...]) -> None:
    ops, db = run(tmp_path, lambda: nn.GroupNorm(4, 8), torch.randn(1, 8, *space) * 3 + 1, {"group_norm": 1}, profile)
    assert ops == {"Add": 1, "InstanceNormalization": 1, "Mul": 1, "Reshape": 2}
    assert db > 125


@pytest.mark.parametrize("profile", PROFILES)
def test_group_norm_without_gains(tmp_path: Path, profile: str) -> None:
    ops, db = run(tmp_path, BareGroupNorm, torch.randn(1, 8, 4, 4), {"group_norm": 1}, profile)
    assert ops == {"Conv": 1, "InstanceNormalization": 1, "Reshape": 2}
    assert db > 125


def test_group_norm_does_not_fire_on_layer_norm(tmp_path: Path) -> None:
    ops, db = run(tmp_path, lambda: nn.LayerNorm(8), torch.randn(1, 6, 8), {"layer_norm": 1}, "ort")
    assert ops == {"LayerNormalization": 1}
    assert db > 125


@pytest.mark.parametrize(("profile", "expected"), [("ort", {"QuickGelu": 1}), ("std", {"Mul": 1, "Sigmoid": 1})])
def test_silu_fires(tmp_path: Path, profile: str, expected: dict[str, int]) -> None:
    ops, db = run(tmp_path, lambda: Formula(nn.SiLU()), torch.randn(1, 8) * 8, {"silu": 1}, profile)
    assert ops == {"Gemm": 1, **expected}
    assert db > 125


def test_silu_does_not_fire_on_a_gate(tmp_path: Path) -> None:
    ops, db = run(tmp_path, lambda: Formula(lambda x: x * torch.sigmoid(2 * x)), torch.randn(1, 8) * 8, {}, "ort")
    assert ops == {"Gemm": 1, "Mul": 2, "Sigmoid": 1}
    assert db > 125


@pytest.mark.parametrize(("profile", "expected"), [("ort", {"QuickGelu": 1}), ("std", {"Mul": 2, "Sigmoid": 1})])
def test_quick_gelu_fires(tmp_path: Path, profile: str, expected: dict[str, int]) -> None:
    part = {"quick_gelu": 1}
    ops, db = run(tmp_path, lambda: Formula(QuickGELUActivation()), torch.randn(1, 8) * 8, part, profile)
    assert ops == {"Gemm": 1, **expected}
    assert db > 125


@pytest.mark.parametrize("profile", PROFILES)
def test_gelu_is_one_node(tmp_path: Path, profile: str) -> None:
    ops, db = run(tmp_path, lambda: GEGLU(8, 16), torch.randn(1, 5, 8) * 3, {"gelu": 1}, profile)
    assert ops == {"Add": 1, "Gelu": 1, "MatMul": 1, "Mul": 1, "Split": 1}
    assert db > 125


def test_gelu_keeps_its_tanh_form(tmp_path: Path) -> None:
    ops, db = run(tmp_path, lambda: Formula(nn.GELU("tanh")), torch.randn(1, 8) * 8, {"gelu": 1}, "std")
    assert ops == {"Gelu": 1, "Gemm": 1}
    assert db > 125


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("build", [CausalAttention, lambda: Attention(16, heads=2, dim_head=8)])
def test_attention_fires(tmp_path: Path, profile: str, build: Callable[[], nn.Module]) -> None:
    ops, db = run(tmp_path, build, torch.randn(1, 9, 16) * 2, {"attention": 1}, profile)
    assert ops.get("MultiHeadAttention", 0) == (profile == "ort")
    assert ops.get("Softmax", 0) == (profile == "std")
    assert db > 125


def test_attention_does_not_fire_on_a_softmax(tmp_path: Path) -> None:
    x = torch.randn(1, 5, 8)
    ops, db = run(tmp_path, lambda: Formula(lambda x: torch.softmax(x @ x.transpose(1, 2), -1) @ x), x, {}, "ort")
    assert ops == {"Add": 1, "MatMul": 3, "Softmax": 1, "Transpose": 1}
    assert db > 125
