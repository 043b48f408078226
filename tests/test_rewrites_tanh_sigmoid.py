from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from diffusers.models.activations import FP32SiLU
from support.traced_parts import SD15_SITES, emit_and_run, micro_unet, narrow_sd15_unet, psnr, text_model
from support.traced_parts import artifact as onnx_artifact
from torch import Tensor, nn
from torch._library.custom_ops import CustomOpDef
from transformers.activations import QuickGELUActivation

from pocketdiffusion.export.rewrites import apply_rewrites
from pocketdiffusion.export.rewrites.tanh_sigmoid import MARKS, apply, kept, tanh_quick_gelu, tanh_silu
from pocketdiffusion.export.trace import trace

WITH = ("fused_attention", "tanh_sigmoid")


def test_fires_on_every_activation(tmp_path: Path) -> None:
    """24 modules of Stable Diffusion 1.5's UNet act at 68 sites: each of its 22 residual blocks has one for three."""
    part = narrow_sd15_unet(tmp_path)
    module = part.build()
    assert apply(module) == 22 + 2
    assert apply(module) == 0
    traced = trace(part, WITH, open_batch=False)
    calls = [node.target for node in traced.program.graph.nodes if node.op == "call_function"]
    assert calls.count(MARKS["silu"]) == SD15_SITES["silu"] == 68
    assert torch.ops.aten.silu.default not in calls and torch.ops.aten.sigmoid.default not in calls
    assert apply(text_model()) == 3


def test_fires_after_quick_gelu_too() -> None:
    assert apply_rewrites(text_model(), ["quick_gelu", "tanh_sigmoid"]) == {"quick_gelu": 3, "tanh_sigmoid": 3}


def test_does_not_fire_on_other_activations() -> None:
    module = nn.Sequential(nn.Sigmoid(), nn.GELU(), nn.GELU("tanh"), nn.Tanh(), nn.Sigmoid(), FP32SiLU())
    assert apply(module) == 0
    assert kept(module) == {"a sigmoid that is not an activation": 2, "an island in float32": 1}
    assert kept(nn.SiLU()) == {}


@pytest.mark.parametrize("profile", ["ort", "std"])
def test_onnx_has_tanh_and_no_sigmoid(tmp_path: Path, profile: str) -> None:
    part = micro_unet(tmp_path)
    graph, found, reference = emit_and_run(part, onnx_artifact(profile, rewrites=WITH), tmp_path)
    assert graph.ops["Tanh"] == part.sites["silu"] - 4  # the time embedding's, which 5 blocks take, is computed once
    assert not {"Sigmoid", "QuickGelu"} & set(graph.ops)
    assert psnr(reference["out_sample"], found["out_sample"]) > 105


@pytest.mark.parametrize(("operator", "original"), [(tanh_silu, F.silu), (tanh_quick_gelu, QuickGELUActivation())])
def test_the_operator_alone(operator: CustomOpDef, original: nn.Module) -> None:
    x: Tensor = torch.linspace(-12, 12, 1001)
    torch.testing.assert_close(operator(x), original(x), rtol=0, atol=2e-6)
    torch.library.opcheck(operator, (x,), test_utils=("test_schema", "test_faketensor"))


def test_in_half_the_negative_tail_is_lost() -> None:
    """Why no shipped target asks for it: 1 + tanh cancels."""
    x = torch.tensor([-8.0]).half()
    half = x * 0.5
    by_tanh = half * (torch.tanh(half) + 1)
    wanted = F.silu(x.double())
    assert abs(by_tanh.double() / wanted - 1) > 0.2 and abs((x * torch.sigmoid(x)).double() / wanted - 1) < 0.01
